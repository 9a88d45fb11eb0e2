"""The baselines against their published formulas, and against plain AdamW on whole logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from toys import (
    CoinGrader,
    Killed,
    addition,
    as_samples,
    gradients,
    lines_of,
    message_of,
    new_folder,
    plain_run,
    random_model,
    relative,
    response_logits,
    room,
    rows_of_ids,
    run_through_kills,
    small,
    weights_of,
)

import baselines
import sdzero
from baselines import BaselineConfig, make_baseline_config
from kit.errors import UserError
from kit.run_folder import RunFolder
from sdzero import Row, make_config

END = 2  # the embedded tokenizer's


def small_baseline(**changes) -> BaselineConfig:
    shared = "digits temperature max_tokens micro_tokens eval_questions eval_samples".split()
    shared += ["reduction", "distil_max_tokens", "eval_max_tokens", "eval_temperature"]
    given = {name: getattr(small(), name) for name in shared}
    given |= dict(epochs=3, batch=1000, lr=1e-3, warmup_steps=1, textbook=True, kl=0.0, entropy=0.0)
    return BaselineConfig(**{**given, **changes})


@pytest.fixture
def baseline_run(tokenizer, phrases, tmp_path):
    """baseline_run(cfg, questions) -> what prepare() makes, graded by a coin."""

    def build(cfg, questions):
        sets = {"srt": questions[::2], "distil": questions[1::2]}
        folder, end_ids = new_folder(tmp_path / "run"), [END, *range(150, 190)]
        shared = CoinGrader(), sets, phrases, end_ids, room(cfg), folder
        return sdzero.Run(cfg, tokenizer, *shared)

    return build


# --------------------------------------------------------------------------------------------------
# GRPO
# --------------------------------------------------------------------------------------------------
def test_advantages_of_a_worked_example():
    got = baselines.advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]))
    expected = torch.tensor([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-4)
    assert torch.allclose(got[0], expected) and not got[1].any()


def test_the_policy_loss_is_clipped():
    log_prob, old = torch.tensor([1.5, 0.5, 1.5, 0.5]).log(), torch.zeros(4)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss = baselines.policy_loss(log_prob, old, advantage, 0.2)
    assert torch.allclose(loss, -torch.tensor([1.2, 0.5, -1.5, -0.8]))


def test_the_kl_estimate_is_zero_at_the_reference_and_positive_elsewhere():
    log_prob = torch.tensor([1.5, 0.5, 1.0]).log()
    ratio = 1 / log_prob.exp()
    estimate = baselines.kl_estimate(log_prob, torch.zeros(3))
    assert torch.allclose(estimate, ratio - ratio.log() - 1, atol=1e-6)
    assert estimate[2] == 0 and (estimate[:2] > 0).all()


def brute_grpo(model, samples, cfg, old, reference):
    """The published loss by whole logits, one row at a time: 1/G sum_i 1/|y_i| sum_t ..."""
    rewards = torch.tensor([s["reward"] for s in samples]).view(-1, cfg.group)
    A = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    total = 0.0
    for s, a in zip(samples, A.flatten()):
        at = torch.arange(len(s["ids"])), torch.tensor(s["ids"])

        def log_prob(m, s=s, at=at):
            return F.log_softmax(response_logits(m, s["context"], s["ids"]), -1)[at]

        now = log_prob(model)
        before = now.detach() if old is None else log_prob(old).detach()
        ratio = (now - before).exp()
        loss = -torch.minimum(ratio * a, ratio.clamp(1 - cfg.clip, 1 + cfg.clip) * a)
        if reference is not None:
            gap = log_prob(reference).detach() - now
            loss = loss + cfg.kl * (gap.exp() - gap - 1)
        total = total + loss.mean() / len(samples)
    return total


@pytest.mark.parametrize("budget", [60, 4000])
@pytest.mark.parametrize("with_old", [False, True], ids=["first update", "later update"])
@pytest.mark.parametrize("with_kl", [False, True], ids=["", "kl"])
def test_grpos_gradient_is_that_of_the_published_formula(with_kl, with_old, budget):
    samples = as_samples(rows_of_ids(8))
    cfg = small_baseline(method="grpo", group=4, micro_tokens=budget, kl=0.1 * with_kl, clip=0.1)
    run, model, brute = plain_run(cfg), random_model(), random_model()
    old, reference = random_model(3) if with_old else None, random_model(4) if with_kl else None
    for name, m in (("old", old), ("reference", reference)):
        if m:
            baselines.remember_log_probs(run, m, samples, name)
    loss = baselines.backward_grpo(run, model, samples)
    expected = brute_grpo(brute, samples, cfg, old, reference)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert gradients(brute).norm() > 0 and relative(gradients(model), gradients(brute)) < 1e-4


def test_later_updates_on_a_batch_keep_the_first_log_probs(baseline_run, monkeypatch):
    cfg = small_baseline(method="grpo", group=2, batch=8, samples=16, updates=3, kl=0.1, lr=1e-2)
    run = baseline_run(cfg, [addition(10 + i, 20 + i) for i in range(8)])
    seen, backward = [], baselines.backward_grpo

    def spy(run, student, samples):
        seen.append({name: torch.cat([s[name] for s in samples]) for name in ("old", "reference")})
        return backward(run, student, samples)

    monkeypatch.setattr(baselines, "backward_grpo", spy)
    baselines.grpo(run, random_model())
    assert len(seen) == 2 * 3  # batches of 8, three updates each
    for first in (0, 3):
        for later in seen[first + 1 : first + 3]:
            assert torch.equal(later["old"], seen[first]["old"])
            assert torch.equal(later["reference"], seen[first]["reference"])
    # before anything was learnt the policy is the reference; at the second batch it is not
    assert torch.equal(seen[0]["old"], seen[0]["reference"])
    assert not torch.allclose(seen[3]["old"], seen[3]["reference"], atol=1e-3)


# --------------------------------------------------------------------------------------------------
# SDFT
# --------------------------------------------------------------------------------------------------
def test_sdfts_teacher_reads_the_demonstration_or_else_the_answer(tokenizer):
    question = addition(12, 34)
    assert "The final answer is 46." in baselines.sdft_prompt(question)[-1]["content"]
    prompt = baselines.sdft_prompt(question | {"demonstration": "2+4=6;1+3=4;"})
    assert "2+4=6;1+3=4;" in prompt[-1]["content"]
    assert prompt[-1]["content"].startswith(question["prompt"])
    assert "2+4=6;" in tokenizer.decode(sdzero.chat_ids(tokenizer, prompt))
    turns = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1?"}]
    asked = baselines.sdft_prompt({"prompt": turns, "answer": "2"})
    assert asked[0] == turns[0] and asked[1]["content"].startswith("1+1?") and len(asked) == 2


def test_sdfts_gradient_is_the_divergence_to_the_model_with_the_demonstration(tokenizer):
    student, teacher, run = random_model(), random_model(1), plain_run(small_baseline())
    questions = [addition(1, 2), addition(3, 4) | {"demonstration": "3+4=7"}]
    samples = []
    for i, q in enumerate(questions):
        contexts = q["prompt"], baselines.sdft_prompt(q)
        student_context, teacher_context = (sdzero.chat_ids(tokenizer, p) for p in contexts)
        sample = {"context": student_context, "ids": [5, 6, 7 + i]}
        samples.append(sample | {"teacher_context": teacher_context})
    sdzero.backward_kl(run, student, teacher, samples)
    brute = random_model()
    for s in samples:
        log_s = F.log_softmax(response_logits(brute, s["context"], s["ids"]), -1)
        log_t = F.log_softmax(response_logits(teacher, s["teacher_context"], s["ids"]), -1)
        ((log_s.exp() * (log_s - log_t.detach())).sum() / 6).backward()
    assert relative(gradients(student), gradients(brute)) < 1e-4


# --------------------------------------------------------------------------------------------------
# Fine-tuning on answers
# --------------------------------------------------------------------------------------------------
def plainly_fine_tuned(pairs, cfg):
    """The random model's weights after cfg.epochs steps of torch's AdamW on all (context, target)
    pairs at once: whole logits, one row at a time."""
    model, tokens = random_model(), sum(len(target) for _, target in pairs)
    how = dict(lr=cfg.lr, betas=(0.9, 0.95), weight_decay=cfg.weight_decay)
    optimizer = torch.optim.AdamW(model.parameters(), **how)
    for step in range(cfg.epochs):
        optimizer.zero_grad()
        for context, target in pairs:
            logits = response_logits(model, context, target)
            nll = F.cross_entropy(logits, torch.tensor(target), reduction="sum")
            (nll / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.grad_clip)
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - 1) / (cfg.epochs - 1)))
        optimizer.param_groups[0]["lr"] = cfg.lr * min(step + 1, cosine)
        optimizer.step()
    return weights_of(model)


@pytest.mark.parametrize("rounds", [1, 2])
def test_rft_is_fine_tuning_on_the_right_samples(baseline_run, monkeypatch, rounds):
    """... and with rounds it trains the base anew on those of all rounds, the later ones sampled
    from what the earlier made."""
    cfg = small_baseline(method="rft", samples=24, rounds=rounds)
    questions = [addition(10 + i, 20 + i) for i in range(8)]
    run, model, taken, rollouts = baseline_run(cfg, questions), random_model(), [], sdzero.rollouts

    def recording(*args):
        taken.append(rollouts(*args))
        return taken[-1]

    monkeypatch.setattr(baselines, "rollouts", recording)
    baselines.rft(run, model)
    samples = sum(taken, [])
    assert len(samples) == 24 and len(taken) == rounds
    assert {s["question"]["prompt"] for s in samples} == {q["prompt"] for q in questions}
    right = {}  # once each
    for s in samples:
        if s["reward"]:
            right[(*s["context"], *s["ids"])] = s["context"], s["ids"]
    assert 3 < len(right) < 24
    assert relative(weights_of(model), plainly_fine_tuned(list(right.values()), cfg)) < 1e-5
    assert relative(weights_of(random_model()), weights_of(model)) > 1e-5


def test_sft_is_fine_tuning_on_the_demonstrations(baseline_run, tokenizer):
    cfg = small_baseline(method="sft")
    questions = [addition(10 + i, 20 + i) for i in range(5)]
    shown = [q | {"demonstration": f"{i}+{i}={2 * i};"} for i, q in enumerate(questions)]
    run, model = baseline_run(cfg, [*shown, addition(1, 2)]), random_model()
    baselines.sft(run, model)
    pairs = []
    for q in shown:
        ids = tokenizer.encode(q["demonstration"], add_special_tokens=False)
        pairs.append((sdzero.chat_ids(tokenizer, q["prompt"]), [*ids, tokenizer.eos_token_id]))
    assert relative(weights_of(model), plainly_fine_tuned(pairs, cfg)) < 1e-5
    with pytest.raises(UserError, match="demonstrations"):
        baselines.sft(baseline_run(cfg, [addition(1, 2)]), model)


def test_the_control_trains_on_verified_revisions_as_answers(baseline_run, monkeypatch):
    records = [
        dict(prompt_ids=[3, 4], revised_context=[3, 4, 5, 6], revised_ids=[7, 2], kept=True),
        dict(prompt_ids=[3, 8], revised_context=[3, 8, 5, 6], revised_ids=[9, 2], kept=False),
    ]
    cfg = small_baseline(method="rft", on_revisions=True)
    run, trained = baseline_run(cfg, [addition(1, 2)]), []
    monkeypatch.setattr(baselines, "srt_records", lambda run, model: records)
    monkeypatch.setattr(baselines, "fine_tune", lambda *args: trained.append(args))
    baselines.rft_on_revisions(run, random_model())
    ((_, _, rows, phase, how),) = trained
    assert rows == [[Row([3, 4, 7, 2], [2])]] and phase == "srt"
    assert how == sdzero.Training(cfg.epochs, cfg.batch, cfg.lr, cfg.weight_decay, cfg.beta2)


# --------------------------------------------------------------------------------------------------
# Whole runs
# --------------------------------------------------------------------------------------------------
METHODS = [
    {"method": "sdzero"},
    {"method": "sdzero", "rounds": 2, "decay": 0.5},
    {"method": "sdzero", "phase1": False},
    {"method": "srt"},
    {"method": "rft"},
    {"method": "rft", "rounds": 3},
    {"method": "rft", "on_revisions": True},
    {"method": "grpo", "kl": 0.1, "updates": 2, "group": 2},
    {"method": "sdft"},
    {"method": "sft"},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda o: "-".join(map(str, o.values())))
def test_a_budget_is_kept_and_a_kill_changes_nothing(
    tmp_path, checkpoint, coin, monkeypatch, capsys, options
):
    """--samples 24: as many are generated and counted; a run stopped behind each saved state in
    turn, and started again, ends the same."""
    given = dict(model=checkpoint, digits=2, eval_questions=3, temperature=1.0, max_tokens=8)
    given |= dict(revisions=2, eval_samples=1, micro_tokens=200, samples=24, save_every=1)
    given |= dict(srt_questions=4, distil_questions=12, warmup_steps=1)
    if options["method"] in ("sdzero", "srt"):
        given |= dict(srt_epochs=2, srt_batch=4, srt_lr=1e-3, distil_batch=4, distil_lr=1e-3)
        make, module = make_config, sdzero
    else:
        given |= dict(batch=4, lr=1e-3)
        if options["method"] in ("rft", "sft"):
            given |= dict(epochs=2)
            del given["warmup_steps"]
        make, module = make_baseline_config, baselines

    def run(name):
        cfg = make(**{**given, **options}, out=str(tmp_path / name))
        return sdzero.train(cfg, module.stages_of(cfg))

    run("whole")
    said = "of --samples 24, training uses 24" in capsys.readouterr().out
    assert said == (options["method"] in ("sdzero", "srt"))
    last = lines_of(tmp_path / "whole" / "metrics.jsonl")[-1]
    assert last["samples"] == (0 if options["method"] == "sft" else 24) and last["trained"] > 0

    save_state, seen = RunFolder.save_state, set()

    def killing(self, phase, step, *state, **more):
        save_state(self, phase, step, *state, **more)
        if (phase, step) not in seen and step % 2:
            seen.add((phase, step))
            raise Killed

    run_through_kills(monkeypatch, killing, lambda: run("stopped"))
    assert seen
    for name in ("results.json", f"{options['method']}/model.safetensors"):
        whole, stopped = (tmp_path / folder / name for folder in ("whole", "stopped"))
        assert whole.read_bytes() == stopped.read_bytes()
    totals = lines_of(tmp_path / "stopped" / "metrics.jsonl")[-1]
    assert all(totals[key] == last[key] for key in ("samples", "tokens", "trained"))


def test_rounds_that_were_trained_are_neither_sampled_nor_graded_again(
    tmp_path, checkpoint, coin, monkeypatch
):
    """Another number of ranks, or another card, puts answers into other batches, which the journal
    does not know: the answers that a round was trained on stand in a file."""
    options = dict(model=checkpoint, method="rft", rounds=3, digits=2, eval_questions=3, samples=24)
    options |= dict(eval_samples=1, max_tokens=8, batch=4, epochs=2, save_every=1)
    cfg = make_baseline_config(**options, out=str(tmp_path / "run"))
    save_state, sample, labels = RunFolder.save_state, baselines.rollouts, []

    def killing(self, phase, step, *state, **more):
        save_state(self, phase, step, *state, **more)
        if (phase, step) == ("rft 2", 1):
            raise Killed

    def sampled(run, model, questions, contexts, seed, label=""):
        labels.append(label)
        return sample(run, model, questions, contexts, seed, label)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", killing)
        with pytest.raises(Killed):
            sdzero.train(cfg, baselines.stages_of(cfg))
    before = (tmp_path / "run" / baselines.RIGHT).read_text()
    monkeypatch.setattr(baselines, "rollouts", sampled)
    sdzero.train(cfg, baselines.stages_of(cfg))
    assert labels == ["rft 3: samples"]
    assert (tmp_path / "run" / baselines.RIGHT).read_text().startswith(before)


# --------------------------------------------------------------------------------------------------
# Options
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "words, message",
    [
        ("grpo --group 3 --batch 8", "--group 3"),
        ("grpo --group 1 --batch 8", "--group 1"),
        ("grpo --epochs 2", "grpo has no --epochs"),
        ("sdft --clip 0.1", "sdft has no --clip"),
        ("sft --on-revisions", "sft has no --on-revisions"),
        ("rft --srt-lr 0.1", "rft has no --srt-lr"),
        ("rft --sync-every 3", "rft has no --sync-every"),
        ("rft --on-revisions --rounds 2", "--rounds"),
        ("rft --samples 2", "too few"),
        ("rft --rounds 8 --samples 7", "--rounds 8 are more than the 7 samples"),
        (
            "rft --rounds 9 --group 1 --srt-questions 3 --distil-questions 5",
            "--rounds 9 are more than the 8 samples",
        ),
        ("grpo --samples 7 --group 8 --batch 8", "less than one --group of 8"),
        ("rft --trim", "--trim is for --on-revisions alone"),
        ("grpo --revise wrong", "grpo has no --revise"),
        ("grpo --top-k 64", "grpo has no --top-k"),
        ("rft --eval-every 5", "rft has no --eval-every"),
        ("grpo --clip 0", "--clip must be above 0"),
        ("rft --epochs 0", "--epochs must be at least 1"),
        ("ppo", "ppo"),
        ("", "which baseline"),
    ],
)
def test_options_that_a_baseline_does_not_have_are_one_line(capsys, words, message):
    assert message in message_of(capsys, baselines.main, *words.split())


def test_each_method_has_defaults_of_its_own():
    of_the_paper = make_baseline_config(model="x", method="grpo")
    assert (of_the_paper.batch, of_the_paper.weight_decay, of_the_paper.lr) == (256, 0.01, 1e-6)
    assert make_baseline_config(model="x", method="rft").batch == 4
    for method, values in baselines.TINY.items():
        cfg = make_baseline_config(method=method)
        assert all(getattr(cfg, name) == value for name, value in values.items())
    assert make_baseline_config(method="grpo", group=4).group == 4
