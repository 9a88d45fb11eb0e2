"""What the two phases and the evaluation do with questions, answers and learning rates."""

import json
import math

import numpy as np
import pytest
import torch
from toys import (
    FixedGrader,
    addition,
    fingerprint,
    lines_of,
    random_model,
    small,
    train,
)

import kit
import sdzero
from kit.errors import UserError


# --------------------------------------------------------------------------------------------------
# Phase 1
# --------------------------------------------------------------------------------------------------
def test_verified_revisions_are_kept_once_and_everything_is_recorded(
    monkeypatch, run_of, model, math_grader
):
    """One right and one wrong first answer; revisions: right, the same again, wrong, cut off."""
    run = run_of(small(revisions=4), math_grader, [2])
    questions = [addition(12, 34), addition(11, 11)]
    run.questions["srt"] = questions

    def encode(text):
        return run.tokenizer.encode(text, add_special_tokens=False)

    def revisions(a):
        texts = [encode(f"so \\boxed{{{x}}}") for x in (a, a, 9, a)]
        return [ids + [2] for ids in texts[:3]] + [texts[3]]

    first, seeds = [encode("\\boxed{46}") + [2], encode("\\boxed{23}") + [2]], []
    answers = iter([first, revisions(46) + revisions(22)])

    def canned(run, model, contexts, seed, *args, **kwargs):
        seeds.append(seed)
        return next(answers)

    monkeypatch.setattr(sdzero, "generate", canned)
    records = sdzero.collect_revisions(run, model)
    assert len(set(seeds)) == 2 and len(records) == 8
    assert [r["why"] for r in records] == 2 * ["verified", "duplicate", "wrong", "truncated"]
    assert [r["kept"] for r in records] == 2 * [True, False, False, False]
    assert [r["init_reward"] for r in records] == 4 * [1.0] + 4 * [0.0]
    right, wrong = sdzero.control_phrases(run.cfg, "qwen3")
    assert [r["control_phrase"] for r in records] == 4 * [right] + 4 * [wrong]
    for record, question, y, phrase in zip(records[::4], questions, first, run.phrases):
        x = sdzero.chat_ids(run.tokenizer, question["prompt"])
        assert record["revised_context"] == x + y[:-1] + phrase
    fields = ("ids", "text", "finished", "reward")
    for r in records:
        json.dumps(r)
        assert {
            "prompt",
            "answer",
            *(f"{a}_{b}" for a in ("init", "revised") for b in fields),
        } <= set(r)
    assert records[3]["revised_reward"] == 0.0 and not records[3]["revised_finished"]
    assert records[4]["init_text"] == "\\boxed{23}"
    assert records[4]["revised_text"] == "so \\boxed{22}"


def test_unfiltered_keeps_everything_but_duplicates(monkeypatch, run_of, model):
    run = run_of(small(revisions=3, filtered=False), FixedGrader(0.0), [2])
    run.questions["srt"] = [addition(12, 34)]
    answers = iter([[[40, 2]], [[41, 2], [41, 43], [41, 2]]])
    monkeypatch.setattr(sdzero, "generate", lambda *args, **kwargs: next(answers))
    records = sdzero.collect_revisions(run, model)
    assert [(r["why"], r["kept"]) for r in records] == [
        ("wrong", True),
        ("truncated", True),
        ("duplicate", False),
    ]


def test_several_first_answers_and_revisions_per_question(run_of, model):
    records = sdzero.collect_revisions(run_of(small(first_answers=2, revisions=3)), model)
    assert len(records) == 6 * 2 * 3
    assert len({tuple(r["init_ids"]) for r in records}) > 8
    assert {r["init_reward"] for r in records} == {0.0, 1.0}  # both branches
    kept = [r for r in records if r["kept"]]
    assert kept and all(r["revised_reward"] == 1.0 and r["revised_finished"] for r in kept)


def test_phase_1_trains_on_kept_tuples_alone_and_lowers_their_loss(run_of):
    run = run_of(small(srt_lr=3e-3, srt_epochs=6))
    sdzero.srt(run, random_model(7))
    metrics = [m for m in lines_of(run.folder.path / "metrics.jsonl") if m["phase"] == "srt"]
    losses, rates = ([m[key] for m in metrics] for key in ("loss", "lr"))
    assert losses[-1] < 0.8 * losses[0]
    assert max(rates) == pytest.approx(3e-3) and rates[-1] < 0.2 * 3e-3
    records = lines_of(run.folder.path / "revisions.jsonl")
    kept = sum(r["kept"] for r in records)
    assert 0 < kept < len(records) and len(metrics) == 6 * math.ceil(kept / 4)


def test_phase_1_without_a_verified_revision_says_so(run_of, model):
    with pytest.raises(UserError, match="none of 12 revisions was verified"):
        sdzero.srt(run_of(small(), FixedGrader(0.0)), model)


def test_revisions_that_were_all_cut_off_are_said_to_be(run_of, model):
    run = run_of(small(max_tokens=1, srt_questions=4, revisions=1), FixedGrader(0.0))
    with pytest.raises(
        UserError, match=r"revisions was verified.* were cut off at --max-tokens 1\."
    ):
        sdzero.srt(run, model)


# --------------------------------------------------------------------------------------------------
# The optimiser's step
# --------------------------------------------------------------------------------------------------
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone():
    model = random_model()
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    before, optimizer = fingerprint(model), kit.low_bits.adamw(model, 1e-3, 0.0, small())
    with pytest.raises(FloatingPointError, match="nan"):
        sdzero.update(model, optimizer, 1e-3, 1.0)
    assert fingerprint(model) == before


def test_the_gradient_is_clipped_to_its_norm():
    model = random_model()
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    norm = sdzero.update(model, torch.optim.SGD(model.parameters(), lr=9.0), 0.1, 2.0)
    assert norm == pytest.approx(math.sqrt(len(start)), rel=1e-4)  # before clipping
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - start
    assert float(moved.norm()) == pytest.approx(0.1 * 2.0, rel=1e-3)
    assert all(p.grad is None for p in model.parameters())


# --------------------------------------------------------------------------------------------------
# Phase 2
# --------------------------------------------------------------------------------------------------
def test_each_round_has_a_new_teacher_and_a_learning_rate_schedule_of_its_own(run_of):
    cfg = small(distil_batch=2, distil_questions=14, rounds=2, decay=1.0, warmup_steps=2)
    run = run_of(cfg)
    sdzero.distil(run, random_model(4))
    lines = lines_of(run.folder.path / "metrics.jsonl")
    assert [m["synchronised"] for m in lines] == [i == 3 for i in range(7)]
    expected = [1 / 2, 2 / 3, 1 / 3, 1 / 2, 3 / 4, 2 / 4, 1 / 4]
    assert [m["lr"] / cfg.distil_lr for m in lines] == pytest.approx(expected)
    assert list(run.folder.results) == ["round 1"]  # measured between the rounds


@pytest.mark.parametrize("sync_every", [0, 3])
def test_without_decay_the_learning_rate_is_constant_after_its_warm_up(run_of, sync_every):
    cfg = small(distil_batch=2, distil_questions=14, sync_every=sync_every, warmup_steps=2)
    run = run_of(cfg)
    sdzero.distil(run, random_model(4))
    lines = lines_of(run.folder.path / "metrics.jsonl")
    assert [m["lr"] / cfg.distil_lr for m in lines] == [0.5, 1, 1, 1, 1, 1, 1]
    synchronised = [step for step, m in enumerate(lines) if m["synchronised"]]
    assert synchronised == ([3, 6] if sync_every else [])


def test_one_step_has_no_rounds():
    with pytest.raises(UserError, match="--rounds 3 are more than the 1 steps"):
        sdzero.make_config(model="x", rounds=3, distil_questions=2, distil_batch=2)


@pytest.mark.parametrize("rounds, steps", [(1, 7), (2, 7), (3, 7), (7, 7)])
def test_a_schedule_covers_every_step_once_and_synchronises_between_rounds(rounds, steps):
    schedule = sdzero.Schedule("distil", steps, 2, 1e-3, 2, 0.0, 0.0, rounds=rounds)
    numbers = [schedule.round_of(step)[0] for step in range(steps)]
    assert numbers == sorted(numbers) and set(numbers) == set(range(rounds))
    begins = [step for step in range(steps) if schedule.round_begun(step)]
    assert begins == [steps * i // rounds for i in range(1, rounds)]
    assert [step for step in range(steps) if schedule.synchronises(step)] == begins


# --------------------------------------------------------------------------------------------------
# Evaluation
# --------------------------------------------------------------------------------------------------
def test_evaluation_counts_what_it_says(monkeypatch, run_of, model, math_grader):
    """Three questions, two samples each: right right, wrong right, wrong and cut off; the first
    sample of each is revised."""
    run = run_of(small(eval_samples=2), math_grader, [2])

    def box(x, end=(2,)):
        ids = run.tokenizer.encode(f"\\boxed{{{x}}}", add_special_tokens=False)
        return ids + list(end)

    sampled = [box(46), box(46), box(1), box(22), box(1), box(33, end=())]
    greedy, revised = [box(46), box(1), box(33)], [box(1), box(22), box(1)]
    answers, asked = [sampled, greedy, revised], []

    def canned(run, model, contexts, *args, greedy=False, **kwargs):
        asked.append((contexts, greedy))
        return answers[len(asked) - 1]

    monkeypatch.setattr(sdzero, "generate", canned)
    questions = [addition(12, 34), addition(11, 11), addition(22, 11)]
    result = sdzero.evaluate(run, model, questions, "base")
    assert [greedy for _, greedy in asked] == [False, True, False]
    contexts = [sdzero.chat_ids(run.tokenizer, q["prompt"]) for q in questions]
    first = zip(contexts, sampled[::2], (1.0, 0.0, 0.0))
    assert asked[2][0] == [sdzero.reviser_ids(run, *of_question) for of_question in first]
    assert result["accuracy"] == 3 / 6 and result["scores"] == [[1, 1], [0, 1], [0, 0]]
    assert result["accuracy_ci"] == kit.tables.interval([1, 0.5, 0])
    assert result["accuracy_greedy"] == pytest.approx(2 / 3)
    assert result["greedy_scores"] == [1, 0, 1]
    assert result["truncated"] == pytest.approx(1 / 6)
    assert result["mean_tokens"] == pytest.approx(np.mean([len(ids) for ids in sampled]))
    assert result["revised_accuracy"] == pytest.approx(1 / 3)
    assert result["correction_rate"] == 1 / 2  # of two wrong ones; breaking a right one is none

    answers, asked[:] = [[box(46)] * 2, [box(46)], [box(1)]], []
    result = sdzero.evaluate(run, model, questions[:1], "base")
    assert result["correction_rate"] is None  # nothing was wrong at first
    assert result["revised_accuracy"] == 0.0


def test_flipped_rewards_train_but_do_not_evaluate(monkeypatch, run_of, model):
    def canned(run, model, contexts, *args, **kwargs):
        return [[40, 2]] * len(contexts)

    monkeypatch.setattr(sdzero, "generate", canned)
    run = run_of(small(flip_reward=True, eval_samples=1), FixedGrader(1.0), [2])
    assert sdzero.rollouts(run, model, [addition(1, 2)], [[5]], 0)[0]["reward"] == 0.0
    assert sdzero.evaluate(run, model, run.questions["test"], "base")["accuracy"] == 1.0


def test_phases_and_evaluation_read_disjoint_questions(monkeypatch, tmp_path, checkpoint, coin):
    read, evaluate, generate = {}, sdzero.evaluate, sdzero.generate

    def prompts(questions):
        return {q["prompt"] for q in questions}

    def evaluate_spy(run, model, questions, *args):
        read["evaluate"] = prompts(questions)
        return evaluate(run, model, questions, *args)

    def generate_spy(run, model, contexts, *args, **kwargs):
        label = args[1].split(":")[0] if len(args) > 1 else ""
        read.setdefault(label, []).append(contexts)
        return generate(run, model, contexts, *args, **kwargs)

    monkeypatch.setattr(sdzero, "evaluate", evaluate_spy)
    monkeypatch.setattr(sdzero, "generate", generate_spy)
    for split in ("test", "val"):
        read.clear()
        cfg = small(checkpoint, out=str(tmp_path / split), eval_split=split)
        train(cfg)
        sets = kit.questions.load_questions(cfg)
        tokenizer = kit.loading.load_tokenizer(cfg)

        def ids(name, sets=sets, tokenizer=tokenizer):
            return {tuple(sdzero.chat_ids(tokenizer, q["prompt"])) for q in sets[name]}

        assert read["evaluate"] == prompts(sets[split])
        assert {tuple(c) for c in read["phase 1"][0]} == ids("srt")
        of_phase2 = {tuple(c) for contexts in read[""] for c in contexts}
        assert of_phase2 == ids("distil")
        every = [prompts(part) for part in sets.values()]
        assert sum(map(len, every)) == len(set().union(*every))


@pytest.mark.parametrize(
    "changes, stages",
    [
        (dict(phase1=False), ["base", "sdzero"]),
        (dict(method="srt"), ["base", "srt"]),
        (dict(rounds=2), ["base", "srt", "round 1", "sdzero"]),
    ],
    ids=["phase 2 alone", "phase 1 alone", "rounds"],
)
def test_phases_can_be_left_out_and_repeated(tmp_path, checkpoint, coin, changes, stages):
    assert list(train(small(checkpoint, out=str(tmp_path / "run"), **changes))) == stages
    folders = {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()}
    assert folders == {"srt", "sdzero"} & set(stages)
