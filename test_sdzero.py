"""The specification of SD-Zero: what a fork has to keep.   pytest -q test_sdzero.py   (a minute)

It needs sdzero.py, kit/ and tiny/ beside it, and the rewards for its last test alone. Most tests
use a random Qwen3 of 60,000 parameters, whose answers are noise, and a grader that flips a coin.
"""

import hashlib
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

import kit
import sdzero
from sdzero import Config, Row

HERE = Path(sdzero.__file__).parent
torch.set_num_threads(1)  # models this small run no faster on two
# 41 of 336 tokens end a response, so that a random model's answers end after 8 tokens on average;
# none of them occurs in a prompt
END_IDS = [2] + list(range(150, 190))
KINDS = ["reverse", "forward", "mixed"]


# --------------------------------------------------------------------------------------------------
# A small world
# --------------------------------------------------------------------------------------------------
MODEL = dict(vocab_size=336, hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8)
MODEL |= dict(num_attention_heads=4, num_key_value_heads=2, initializer_range=0.25)
MODEL |= dict(eos_token_id=END_IDS, bos_token_id=None, pad_token_id=0, tie_word_embeddings=True)
SMALL = dict(digits=2, srt_questions=6, distil_questions=8, eval_questions=5, eval_samples=2)
SMALL |= dict(temperature=1.0, max_tokens=12, revisions=2, micro_tokens=200)
SMALL |= dict(srt_epochs=2, srt_batch=4, srt_lr=1e-3, distil_max_tokens=0, eval_max_tokens=0)
SMALL |= dict(distil_batch=3, distil_lr=1e-3, warmup_steps=1, reduction="mean")


def random_model(seed=0, dtype=torch.float32):
    """Its distributions are far from uniform: one can be told from another."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**MODEL)).to(dtype).eval()


def small(model="", **changes) -> Config:
    return replace(Config(model, **SMALL), **changes)


class CoinGrader:
    """Right or wrong by the answer's text, about half each."""

    timeouts = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def grade(self, texts, answers):
        return [float(zlib.crc32(text.encode()) % 2) for text in texts]


def always(reward):
    return SimpleNamespace(timeouts=0, grade=lambda texts, answers: [reward] * len(texts))


def watch(monkeypatch, name):
    """The calls of a function of sdzero.py from now on: [(arguments, result)]."""
    calls, function = [], getattr(sdzero, name)

    def watched(*args, **kwargs):
        calls.append((args, function(*args, **kwargs)))
        return calls[-1][1]

    monkeypatch.setattr(sdzero, name, watched)
    return calls


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(HERE / "tiny")


@pytest.fixture
def run_of(tmp_path, tokenizer):
    """run_of(cfg) -> what prepare() makes, with a new run folder."""
    phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(Config(), "qwen3"))

    def build(cfg, grader=None, end_ids=END_IDS):
        folder = kit.run_folder.RunFolder(str(tmp_path / "run"), {}, {}, cfg.save_every)
        questions = kit.questions.load_questions(cfg)
        room = kit.losses.Room(cfg.rollout_batch or 64, cfg.micro_tokens)
        grader = grader or CoinGrader()
        return sdzero.Run(cfg, tokenizer, grader, questions, phrases, end_ids, room, folder)

    return build


def pairs_of_ids(n, seed=0):
    """n pairs (context, response) of different lengths."""
    g = np.random.default_rng(seed)

    def ids(low, high):
        return g.integers(3, 330, g.integers(low, high)).tolist()

    return [(ids(3, 12), ids(1, 9)) for _ in range(n)]


def samples_of_ids(run, n):
    """What phase 2 trains on: every second response has come to its end, every third is right."""
    samples = []
    for i, (context, y) in enumerate(pairs_of_ids(n)):
        reward = float(i % 3 == 0 and i % 2)
        sample = {"context": context, "ids": y + [2] * (i % 2), "reward": reward}
        sample["teacher_context"] = sdzero.reviser_ids(run, context, sample["ids"], reward)
        samples.append(sample)
    return samples


def rows_of_ids(n):
    """Rows of phase 1: of every second one a part is the target of both likelihoods."""
    rows = []
    for i, (context, y) in enumerate(pairs_of_ids(n)):
        rows.append(Row(context + y, [len(context), len(context) + len(y) // 2][: 1 + i % 2]))
    return rows


def logits_at(model, context, response):
    """The logits that predict each token of a response, from the whole model on this row alone."""
    return model(input_ids=torch.tensor([context + response])).logits[0, len(context) - 1 : -1]


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def fingerprint(model):
    tensors = [t.detach().contiguous().numpy().tobytes() for t in model.state_dict().values()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()


def relative(a, b):
    return float((a - b).norm() / b.norm())


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def addition(a, b):
    return {"prompt": f"Add {a}+{b} column by column and box the sum.", "answer": str(a + b)}


# --------------------------------------------------------------------------------------------------
# Losses are their formulas
# --------------------------------------------------------------------------------------------------
def brute_kl(p_logits, q_logits):
    """sum_v p(v) log(p(v) / q(v)), without a log-softmax."""
    p, q = (logits.exp() / logits.exp().sum(-1, keepdim=True) for logits in (p_logits, q_logits))
    return (p * (p / q).log()).sum(-1)


def brute_divergence(student, teacher, kind):
    reverse, forward = brute_kl(student, teacher), brute_kl(teacher, student)
    return {"reverse": reverse, "forward": forward, "mixed": (reverse + forward) / 2}[kind]


def fake_model(hidden, seed):
    """Just an output embedding in float64: what the losses project hidden states with."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(hidden, 17, dtype=torch.float64)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    return SimpleNamespace(get_output_embeddings=lambda: head, config=config, head=head)


def test_kl_is_its_sum_over_the_vocabulary_and_its_fast_form_has_the_same_gradients():
    p, q = (3 * torch.randn(2, 6, 11, dtype=torch.float64)).requires_grad_()
    weights = torch.rand(6, dtype=torch.float64)
    formula, fast = sdzero.kl(p, q), kit.losses.KLInPlace.apply(p, q)
    assert torch.allclose(formula, brute_kl(p, q), rtol=1e-12) and (formula > 0).all()
    assert torch.allclose(fast, formula, rtol=1e-12)
    ours = torch.autograd.grad((weights * fast).sum(), (p, q))
    theirs = torch.autograd.grad((weights * formula).sum(), (p, q))
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12) and b.abs().max() > 0.01


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_divergence_by_chunks_equals_brute_force(monkeypatch, kind, chunk):
    monkeypatch.setattr(kit.losses, "chunk_rows", lambda vocabulary: chunk)
    student, teacher = fake_model(6, seed=1), fake_model(5, seed=2)  # of another width
    hidden = (3 * torch.randn(11, 6, dtype=torch.float64)).requires_grad_()
    teacher_hidden = 3 * torch.randn(11, 5, dtype=torch.float64)
    leaves = [hidden, student.head.weight, student.head.bias]
    teacher_logits = teacher.head(teacher_hidden).detach()
    expected = brute_divergence(student.head(hidden), teacher_logits, kind)
    expected_grads = torch.autograd.grad(0.37 * expected.sum(), leaves)

    cfg = small(divergence=kind)
    total, values = sdzero.distillation_loss(student, hidden, teacher, teacher_hidden, cfg)
    assert torch.allclose(values, expected, rtol=1e-10) and not values.requires_grad
    assert torch.allclose(total, expected.sum(), rtol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(0.37 * total, leaves), expected_grads):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12)
    assert teacher.head.weight.grad is None


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_nll_by_chunks_equals_brute_force(monkeypatch, chunk):
    monkeypatch.setattr(kit.losses, "chunk_rows", lambda vocabulary: chunk)
    model, targets, weights = fake_model(6, seed=3), torch.arange(9) * 5 % 17, torch.arange(9) % 3
    hidden = (3 * torch.randn(9, 6, dtype=torch.float64)).requires_grad_()
    leaves = [hidden, model.head.weight, model.head.bias]
    logits = model.head(hidden)
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = -weights * probabilities[torch.arange(9), targets].log()
    expected_grads = torch.autograd.grad(expected.sum(), leaves)

    total, values = sdzero.nll_loss(model, hidden, targets, weights)
    assert torch.allclose(values, expected, rtol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(total, leaves), expected_grads):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_phase_2_is_the_divergence_of_every_response_token(run_of, kind, reduction):
    """The whole model, row by row, the teacher behind chat(x) + y + P_r, end tokens included; mean
    over the batch's tokens, or over responses of the sum over tokens (Eq. 4)."""
    student, teacher = random_model(1, torch.float64), random_model(2, torch.float64)
    run = run_of(small(divergence=kind, micro_tokens=90, reduction=reduction))
    samples, expected = samples_of_ids(run, 7), 0.0
    tokens = sum(len(s["ids"]) for s in samples) if reduction == "mean" else len(samples)
    for s in samples:
        seen = logits_at(student, s["context"], s["ids"])
        hindsight = logits_at(teacher, s["teacher_context"], s["ids"]).detach()
        expected = expected + brute_divergence(seen, hindsight, kind).sum() / tokens
    expected.backward()
    gradient = gradients(student)

    student.zero_grad()
    loss = sdzero.backward_kl(run, student, teacher.requires_grad_(False), samples)
    # RMSNorm computes in float32 whatever the weights are, hence 1e-5 and not 1e-10
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert relative(gradients(student), gradient) < 1e-5
    assert all(p.grad is None for p in teacher.parameters())


def test_phase_1_averages_the_nll_of_every_target_token():
    model, rows = random_model(1, torch.float64), rows_of_ids(7)
    tokens = sum(len(row.ids) - start for row in rows for start in row.starts)
    expected = 0.0
    for ids, starts in rows:
        for start in starts:  # a token of two likelihoods counts twice
            logits = logits_at(model, ids[:start], ids[start:])
            nll = F.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum")
            expected = expected + nll / tokens
    expected.backward()
    gradient = gradients(model)

    model.zero_grad()
    run = SimpleNamespace(room=kit.losses.Room(sequences=64, tokens=40))
    loss = sdzero.backward_nll(run, model, rows, tokens)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert relative(gradients(model), gradient) < 1e-5


@pytest.mark.parametrize("phase", [1, 2])
def test_the_gradient_does_not_depend_on_how_rows_are_put_into_passes(run_of, phase):
    run, found = run_of(small()), []
    rows, samples = rows_of_ids(14), samples_of_ids(run, 14)
    lengths = [len(row.ids) for row in rows]
    if phase == 2:
        lengths = [len(s["context"]) + len(s["ids"]) for s in samples]
    for size in (1, 2, 7, 14):  # rows in the first pass
        budget = size * max(lengths)
        assert len(kit.losses.micro_batches(lengths, budget)[0]) == size
        run.room.tokens, model = budget, random_model(1)
        if phase == 1:
            loss = sdzero.backward_nll(run, model, rows, 50)
        else:
            loss = sdzero.backward_kl(run, model, random_model(2).requires_grad_(False), samples)
        found.append((loss, gradients(model)))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert relative(gradient, found[0][1]) < 1e-5 and gradient.norm() > 0


def test_padding_changes_nothing_that_is_trained_on():
    model, pairs = random_model(), pairs_of_ids(6)
    with torch.no_grad():
        hidden = sdzero.response_hidden(model, *zip(*pairs))
        together = (hidden @ model.lm_head.weight.T).split([len(y) for _, y in pairs])
        for (context, y), logits in zip(pairs, together):
            assert torch.allclose(logits, logits_at(model, context, y), atol=1e-4)


# --------------------------------------------------------------------------------------------------
# Prompts and ids
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("finished", [True, False])
def test_the_reviser_reads_the_same_ids_in_both_phases_and_in_evaluation(
    monkeypatch, run_of, reward, finished
):
    y, z, question = [40, 41, 42, 43], [50, 51, 2], addition(12, 34)
    y_sampled = y + [2] * finished
    cfg = small(revisions=1, l_generation="all", eval_samples=1)
    run = replace(run_of(cfg, always(reward), [2]), questions={"srt": [question]})
    x, asked = sdzero.chat_ids(run.tokenizer, question["prompt"]), []

    def canned(run, model, contexts, *args, **kwargs):
        asked.extend(contexts)
        return [list(y_sampled) if c == x else list(z) for c in contexts]

    monkeypatch.setattr(sdzero, "generate", canned)
    # a truncated answer is wrong whatever the grader says of it
    phrase = run.phrases.if_right if reward and finished else run.phrases.if_wrong
    context = x + y + phrase  # the first copy of y has no end token

    record = sdzero.collect_revisions(run, random_model())[0]
    assert asked == [x, context] and record["init_reward"] == float(reward and finished)
    (row,) = sdzero.srt_rows(record, cfg)
    assert row == Row(context + z, [len(x), len(context)])

    asked.clear()
    sdzero.evaluate(run, random_model(), [question], "base")
    assert asked == [x, x, context]  # sampled, greedy, revised

    calls = watch(monkeypatch, "response_hidden")
    sdzero.distil(replace(run, questions={"distil": [question]}), random_model())
    read = [(contexts, responses) for (_, contexts, responses), _ in calls]
    # the second copy has its end token where one was sampled, and gets none where it was cut off
    assert read == [([context], [y_sampled]), ([x], [y_sampled])]  # the teacher's, the student's


def test_p_r_is_chosen_by_the_reward(run_of):
    run = run_of(small())
    by_reward = {r: sdzero.reviser_ids(run, [9], [40, 2], r)[2:] for r in (1.0, 0.0)}
    texts = {reward: run.tokenizer.decode(ids) for reward, ids in by_reward.items()}
    assert texts[1.0] == "\n\nLet me rephrase the above solution.\n\n"
    assert texts[0.0] == "\n\nWait, this response is not correct, let me start over.\n\n"


def test_the_end_token_is_dropped_where_there_is_one_and_nowhere_else():
    assert sdzero.without_end([40, 41, 2], [2, 7]) == [40, 41]
    assert sdzero.without_end([40, 7], [2, 7]) == [40]
    assert sdzero.without_end([40, 2, 41], [2, 7]) == [40, 2, 41]  # cut off: all of it stays
    assert sdzero.without_end([], [2]) == []


def test_only_prompts_are_ever_tokenised(run_of):
    """Between sampling and training nothing goes through text: whoever asks for more than a
    question's prompt, or its decoding, finds no such method."""

    class PromptsOnly:
        def __init__(self, tokenizer, prompts):
            self.tokenizer, self.prompts = tokenizer, prompts
            self.decode = tokenizer.decode

        def apply_chat_template(self, messages, **kwargs):
            assert [m["content"] in self.prompts for m in messages] == [True]
            return self.tokenizer.apply_chat_template(messages, **kwargs)

    run, model = run_of(small(trim=True, l_answer=True)), random_model()
    prompts = {q["prompt"] for part in run.questions.values() for q in part}
    run = replace(run, tokenizer=PromptsOnly(run.tokenizer, prompts))
    sdzero.srt(run, model)
    sdzero.distil(run, model)
    sdzero.evaluate(run, model, run.questions["test"], "sdzero")
    with pytest.raises(AssertionError):
        sdzero.chat_ids(run.tokenizer, "another prompt")


def test_sampled_ids_are_the_trained_ids(monkeypatch, run_of):
    """What the losses get are the ids that generate returned, token for token."""
    names = "generate", "backward_nll", "backward_kl"
    generated, nll, kl = (watch(monkeypatch, name) for name in names)
    model, run = random_model(), run_of(small(trim=False, srt_epochs=1))
    sdzero.srt(run, model)
    first, revised = ([*zip(args[2], responses)] for args, responses in generated)
    trained = [row for args, _ in nll for row in args[2]]
    kept = [r for r in lines_of(run.folder.path / "revisions.jsonl") if r["kept"]]
    assert len(trained) == len(kept) > 0
    for ids, (start, revision_start) in trained:
        x, context, z = ids[:start], ids[:revision_start], ids[revision_start:]
        assert (context, z) in revised
        answers = [y for prompt, y in first if prompt == x]
        contexts = [sdzero.reviser_ids(run, x, y, r) for y in answers for r in (0.0, 1.0)]
        assert context in contexts  # the transcript is x, y_init without its end, P_r, y_revised

    generated.clear()
    sdzero.distil(run, model)
    sampled = [pair for args, responses in generated for pair in zip(args[2], responses)]
    assert [(s["context"], s["ids"]) for args, _ in kl for s in args[3]] == sampled


# --------------------------------------------------------------------------------------------------
# Rollouts and rewards
# --------------------------------------------------------------------------------------------------
def test_a_truncated_response_is_wrong_whatever_it_says(monkeypatch, run_of):
    run = run_of(small(), always(1.0), [2])
    monkeypatch.setattr(sdzero, "generate", lambda *args, **kwargs: [[40, 41], [40, 41, 2]])
    cut, whole = sdzero.rollouts(run, random_model(), [addition(1, 2)] * 2, [[5]] * 2, 0)
    assert (cut["reward"], cut["finished"]) == (0.0, False)
    assert (whole["reward"], whole["finished"]) == (1.0, True)
    assert cut["text"] == whole["text"]


# --------------------------------------------------------------------------------------------------
# Phase 1
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("l_revision", [True, False])
@pytest.mark.parametrize("l_generation", ["wrong", "all", "none"])
@pytest.mark.parametrize("l_answer", [True, False])
@pytest.mark.parametrize("init_reward", [0.0, 1.0])
def test_the_rows_of_a_tuple_are_the_losses_that_were_asked_for(
    l_revision, l_generation, l_answer, init_reward
):
    record = {
        "prompt_ids": [10, 11],
        "init_reward": init_reward,
        "revised_context": [10, 11, 20, 21, 30, 31],
        "revised_ids": [40, 2],
    }
    cfg = small(l_revision=l_revision, l_generation=l_generation, l_answer=l_answer)
    generation = l_generation == "all" or (l_generation == "wrong" and not init_reward)
    targets = []  # (context, target) of each likelihood
    for row in sdzero.srt_rows(record, cfg):
        targets += [(row.ids[:start], row.ids[start:]) for start in row.starts]
    expected = [([10, 11], [40, 2])] * l_answer
    expected += [([10, 11], [20, 21, 30, 31, 40, 2])] * generation
    expected += [([10, 11, 20, 21, 30, 31], [40, 2])] * l_revision
    assert targets == expected


# --------------------------------------------------------------------------------------------------
# Phase 2
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sync_every", [0, 3])
def test_the_teacher_moves_only_at_a_synchronisation(monkeypatch, run_of, sync_every):
    cfg = small(distil_batch=2, distil_questions=14, sync_every=sync_every, warmup_steps=2)
    student, seen, backward_kl = random_model(4), [], sdzero.backward_kl

    def spy(run, student, teacher, samples):
        assert not any(p.requires_grad for p in teacher.parameters())
        seen.append((fingerprint(teacher), fingerprint(student)))
        return backward_kl(run, student, teacher, samples)

    monkeypatch.setattr(sdzero, "backward_kl", spy)
    start, run = fingerprint(student), run_of(cfg)
    sdzero.distil(run, student)
    teachers, students = zip(*seen)
    # the student moves at every step
    assert len(seen) == 7 and len(set(students)) == 7 and students[0] == start
    synchronised = (start,) * 3 + (students[3],) * 3 + (students[6],)
    assert teachers == (synchronised if sync_every else (start,) * 7)


# --------------------------------------------------------------------------------------------------
# Whole runs
# --------------------------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_numbers_and_weights(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
    monkeypatch.setattr(kit.figures, "figure", lambda folder, results: None)
    kit.files.save_checkpoint(tokenizer, random_model(), tmp_path / "model")
    found = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        cfg = small(str(tmp_path / "model"), out=str(tmp_path / name), seed=seed)
        results = sdzero.train(cfg, sdzero.stages_of(cfg))
        assert list(results) == ["base", "srt", "sdzero"]
        files = "revisions.jsonl", "srt/model.safetensors", "sdzero/model.safetensors"
        found.append([results, *((tmp_path / name / file).read_bytes() for file in files)])
    one, two, three = found
    assert one == two and all(a != b for a, b in zip(one, three))
    assert len({(tmp_path / "model" / "model.safetensors").read_bytes(), *one[2:]}) == 3


def test_the_embedded_model_end_to_end(tmp_path):
    """The command that a user runs, with few questions, graded by verify.py."""
    pytest.importorskip("verify")
    command = "--samples 240 --eval-questions 20 --eval-samples 2 --srt-epochs 4".split()
    assert sdzero.main([*command, "--out", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results) == ["base", "srt", "sdzero"]
    assert results["base"]["truncated"] < 0.3 and 0 < results["base"]["accuracy"] < 0.7  # of 40
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert metrics[-1]["samples"] == 240
    assert {m["phase"] for m in metrics} == {"init", "revise", "srt", "distil"}
    assert all(math.isfinite(m["loss"]) and m["loss"] >= 0 for m in metrics if "loss" in m)
    records = lines_of(tmp_path / "run" / "revisions.jsonl")
    assert {(r["kept"], r["why"] == "verified") for r in records} == {(True, True), (False, False)}
