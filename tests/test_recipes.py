"""Recipes: the paper's tables, value for value, and what each setting does."""

import math
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from toys import (
    FixedGrader,
    as_samples,
    fake_model,
    gradients,
    lines_of,
    message_of,
    plain_run,
    random_model,
    relative,
    rows_of_ids,
    small,
    with_teacher,
)

import kit
import sdzero
from baselines import backward_grpo, entropy_of, make_baseline_config, sdft_prompt
from kit.errors import UserError
from kit.recipes import AUTHORS, COUNTS, FOLLOWS, PAPER, recipe
from kit.schedules import Schedule
from kit.selection import drop_surplus, in_turn
from sdzero import Config, make_config

# A copy of the paper's tables, by hand, under the tables' own headings.
TABLE_3 = {"SRT": 40_000, "phase 2": 9_000, "RFT": 60_000, "GRPO": 60_000, "SDFT": 60_000}
TABLE_4 = {"lr": 5e-6, "epochs": 3, "batch": 4, "weight decay": 1e-4, "beta2": 0.95}
TABLE_4 |= {"sequence": 32768, "warm-up": 0.05}
TABLE_5 = {"lr": 1e-6, "prompts": 64, "clip": 0.2, "kl": 0.001, "entropy": 0.001, "response": 8192}
TABLE_5 |= {"weight decay": 0.01, "temperature": 0.7, "warm-up": 0}
TABLE_6 = {"lr": 5e-6, "batch": 128, "warm-up": 20, "weight decay": 0.01, "response": 8192}
TABLE_6 |= {"temperature": 1.0, "clip norm": 1.0}


def a_model(**given):
    return make_config(model="some/model", task="math", **given)


def test_the_default_for_a_real_model_is_the_papers_recipe():
    cfg = a_model()
    assert cfg.recipe == "paper"
    assert {name: getattr(cfg, name) for name in PAPER} == recipe("paper")
    # --help shows the dataclass's own defaults: they are the same
    own = {f.name: f.default for f in fields(Config)}
    assert {name: own[name] for name in PAPER} == recipe("paper")


def test_every_value_is_the_tables():
    cfg = a_model()
    srt = cfg.srt_lr, cfg.srt_epochs, cfg.srt_batch, cfg.srt_weight_decay, cfg.srt_beta2
    assert (*srt, cfg.srt_sequence, 0.05) == tuple(TABLE_4.values())
    phase2 = cfg.distil_lr, cfg.distil_batch, cfg.warmup_steps, cfg.distil_weight_decay
    phase2 += cfg.distil_max_tokens, cfg.distil_temperature, cfg.grad_clip
    assert phase2 == tuple(TABLE_6.values())
    counts = kit.budget.responses_of(cfg, cfg.srt_questions, cfg.distil_questions)
    assert counts["first answers"] + counts["revisions"] == TABLE_3["SRT"]
    assert counts["rollouts"] == TABLE_3["phase 2"] and cfg.srt_records == 6000
    assert (cfg.max_tokens, cfg.eval_max_tokens, cfg.eval_samples) == (16384, 32768, 8)
    assert cfg.temperature == cfg.eval_temperature == 0.7
    assert cfg.phrase_if_wrong == "Wait, this response is not correct, let me start over."

    grpo = make_baseline_config(method="grpo", model="some/model", task="math")
    found = grpo.lr, grpo.batch // grpo.group, grpo.clip, grpo.kl, grpo.entropy, grpo.max_tokens
    found += grpo.weight_decay, grpo.temperature, grpo.warmup_steps
    assert found == tuple(TABLE_5.values()) and grpo.group == 4 and not grpo.textbook
    assert grpo.eval_max_tokens == 32768
    sdft = make_baseline_config(method="sdft", model="some/model", task="math")
    found = sdft.lr, sdft.batch, sdft.warmup_steps, sdft.weight_decay, sdft.max_tokens
    assert (*found, sdft.temperature, sdft.grad_clip) == tuple(TABLE_6.values()) and sdft.cosine
    for method in ("rft", "sft"):
        cfg = make_baseline_config(method=method, model="some/model", task="math")
        found = cfg.lr, cfg.epochs, cfg.batch, cfg.weight_decay, cfg.beta2
        assert found == tuple(TABLE_4.values())[:5]


def test_the_authors_recipe():
    cfg = a_model(recipe="authors")
    assert {name: getattr(cfg, name) for name in AUTHORS} == recipe("authors")
    assert (cfg.divergence, cfg.top_k, cfg.reduction) == ("mixed", 64, "mean")
    assert (cfg.first_answers, cfg.revisions, cfg.revise) == (3, 3, "wrong")
    assert (cfg.temperature, cfg.top_p, cfg.distil_epochs, cfg.distil_steps) == (1.0, 0.9, 5, 1000)
    assert kit.budget.distil_steps(cfg, cfg.distil_questions) == math.ceil(5 * 9000 / 128)
    assert sdzero.control_phrases(cfg, "qwen3").if_wrong.endswith("Let me correct it.")
    assert sdzero.control_phrases(cfg, "olmo3").if_wrong == "Wrong. I need to redo all."
    assert "coding" in make_config(model="a/b", task="code", recipe="authors").system
    for values in (PAPER, AUTHORS):
        assert all(value is not None and source for value, source in values.values())


def test_an_unknown_recipe_names_the_known_ones(capsys):
    line = message_of(capsys, sdzero.main, "--recipe", "papers")
    assert "paper" in line and "authors" in line and "tiny" in line


def test_a_general_setting_given_by_hand_holds_in_all_phases():
    cfg = a_model(max_tokens=100, temperature=0.5, eval_temperature=0.9)
    found = [sdzero.in_phase(plain_run(cfg), phase).cfg for phase in ("distil", "eval")]
    assert [c.max_tokens for c in found] == [100, 100]
    assert [c.temperature for c in found] == [0.5, 0.9]
    usual = a_model()
    found = [sdzero.in_phase(plain_run(usual), phase).cfg for phase in ("distil", "eval")]
    assert [c.max_tokens for c in found] == [8192, 32768]
    assert set(FOLLOWS) == {"temperature", "top_p", "max_tokens"}


def test_each_phase_samples_with_its_own_settings(monkeypatch, run_of):
    seen, generate = [], sdzero.generate

    def spy(run, *args, **kwargs):
        seen.append((run.cfg.max_tokens, run.cfg.temperature, run.cfg.top_p))
        return generate(run, *args, **kwargs)

    monkeypatch.setattr(sdzero, "generate", spy)
    cfg = small(distil_max_tokens=7, distil_temperature=0.9, eval_max_tokens=5, top_p=0.8)
    run = run_of(replace(cfg, eval_top_p=1.0, distil_questions=3))
    sdzero.collect_revisions(run, random_model(5))
    assert set(seen) == {(12, 1.0, 0.8)}
    seen.clear()
    sdzero.evaluate(run, random_model(5), run.questions["test"], "base")
    assert set(seen) == {(5, 1.0, 1.0)}
    seen.clear()
    run = replace(run, questions={**run.questions, "distil": run.questions["distil"][:3]})
    sdzero.distil(run, random_model(5))
    assert set(seen) == {(7, 0.9, 0.8)}


def test_evaluations_within_phase_2_follow_the_general_settings(monkeypatch, run_of):
    """--eval-every measures the student between steps, as it is measured before and after."""
    seen, evaluate = [], sdzero.evaluate

    def spy(run, model, questions, name, revise=True):
        seen.append((name, sdzero.in_phase(run, "eval").cfg.temperature))
        return evaluate(run, model, questions, name, revise)

    monkeypatch.setattr(sdzero, "evaluate", spy)
    cfg = small(distil_temperature=0.5, temperature=0.9, eval_every=1, distil_batch=3)
    run = run_of(cfg)
    sdzero.distil(run, random_model(5))
    assert seen == [("step 1", 0.9), ("step 2", 0.9)]
    assert list(run.folder.results) == ["step 1", "step 2"]


def test_scale_shrinks_all_counts_alike_and_says_so(capsys):
    cfg, whole = a_model(scale=0.1), a_model()
    for name in COUNTS:
        assert getattr(cfg, name) == round(0.1 * getattr(whole, name))
    assert cfg.srt_lr == whole.srt_lr and cfg.srt_batch == whole.srt_batch
    out = capsys.readouterr().out
    assert "srt_questions 10000 -> 1000" in out and "srt_records 6000 -> 600" in out
    assert a_model(scale=1e-6).eval_questions == 1


# --------------------------------------------------------------------------------------------------
# Phase 1
# --------------------------------------------------------------------------------------------------
def records_of(counts, right=()):
    """Kept records, counts[i] of question i; those of the questions in `right` rephrase."""
    records = []
    for i, n in enumerate(counts):
        records += [
            {"prompt_ids": [i], "kept": True, "why": "verified", "init_reward": float(i in right)}
            for _ in range(n)
        ]
    return records


@pytest.mark.parametrize("most, each", [(4, [1, 1, 1, 1]), (8, [3, 1, 2, 2]), (0, [9, 1, 2, 2])])
def test_surplus_is_dropped_evenly_over_questions(most, each):
    records = records_of([9, 1, 2, 2])
    drop_surplus(records, Config(srt_records=most))
    kept = [r["prompt_ids"][0] for r in records if r["kept"]]
    assert [kept.count(i) for i in range(4)] == each
    assert all(r["why"] == ("verified" if r["kept"] else "surplus") for r in records)


def test_the_share_of_rephrased_answers_is_kept():
    records = records_of([4] * 10, right=range(7))  # 28 right, 12 wrong
    drop_surplus(records, Config(srt_records=20, right_share=0.5))
    kept = [r["init_reward"] for r in records if r["kept"]]
    assert len(kept) == 20 and sum(kept) == 10
    records = records_of([4] * 10, right=range(7))
    drop_surplus(records, Config(srt_records=0, right_share=0.25))
    kept = [r["init_reward"] for r in records if r["kept"]]
    assert len(kept) == 16 and sum(kept) == 4  # 12 wrong ones are all there are


def test_a_share_that_leaves_nothing_is_said(capsys):
    """... before phase 1 where it can be known, and where it cannot as what it is."""
    with pytest.raises(UserError, match="--revise wrong revises none"):
        make_config(right_share=0.5, revise="wrong")
    with pytest.raises(
        UserError, match="--right-share 0.5 .* of 12 .* 0 have a right first answer"
    ):
        drop_surplus(records_of([4] * 3, right=()), Config(right_share=0.5))


def test_records_for_eq_2_are_those_behind_the_ones_for_eq_1(capsys):
    records = records_of([2, 2], right=[1])
    for_eq1, for_eq2 = in_turn(records, 3)
    assert [r["init_reward"] for r in for_eq1] == [1, 1, 0] and len(for_eq2) == 1
    assert capsys.readouterr().out == ""
    assert in_turn(records, 4)[1] == [] and "no others" in capsys.readouterr().out


def test_wrong_first_answers_alone_can_be_revised(run_of, model, monkeypatch):
    records = sdzero.collect_revisions(run_of(small(revise="wrong")), model)
    assert records and all(r["init_reward"] == 0.0 for r in records)
    monkeypatch.setattr(sdzero, "generate", lambda *args, **kwargs: [[40, 2]] * 6)
    run = run_of(small(revise="wrong"), FixedGrader(1.0), [2], folder="other")
    with pytest.raises(kit.errors.UserError, match="every first answer is right"):
        sdzero.collect_revisions(run, model)


def test_in_turn_trains_eq_2_on_corrections_then_eq_1_on_others(monkeypatch, run_of):
    cfg = small(srt_in_turn=True, revision_records=2, l_generation="wrong", srt_epochs=1)
    run, seen = run_of(cfg), []

    def spy(run, model, records, phase, how):
        seen.append((phase, records))

    monkeypatch.setattr(sdzero, "fine_tune", spy)
    sdzero.srt(run, random_model(7))
    records = [r for r in run.folder.read_rows("revisions.jsonl") if r["kept"]]
    wrong = sum(not r["init_reward"] for r in records)
    (first, generation), (second, revision) = seen
    assert (first, second) == ("srt", "srt 2") and len(revision) == 2
    assert len(generation) == wrong - max(0, 2 - (len(records) - wrong))
    by_ids = {tuple(r["revised_context"] + r["revised_ids"]): r for r in records}
    for rows in generation:
        record = by_ids[tuple(rows[0].ids)]
        assert not record["init_reward"] and rows[0].starts == [len(record["prompt_ids"])]
    for rows in revision:
        assert rows[0].starts == [len(by_ids[tuple(rows[0].ids)]["revised_context"])]


def test_longer_rows_are_left_out_and_counted(capsys):
    records = [
        {
            "prompt_ids": [1, 2],
            "revised_context": [1, 2, *range(n)],
            "revised_ids": [5],
            "init_reward": 0.0,
        }
        for n in (3, 8, 9)
    ]
    rows = sdzero.rows_of_each(records, Config(srt_sequence=11))
    assert [len(of_one[0].ids) for of_one in rows] == [6, 11]
    assert "1 rows are longer than --srt-sequence 11" in capsys.readouterr().out
    with pytest.raises(kit.errors.UserError, match="--srt-sequence"):
        sdzero.rows_of_each(records, Config(srt_sequence=2))


# --------------------------------------------------------------------------------------------------
# Losses
# --------------------------------------------------------------------------------------------------
def test_sum_and_mean_differ_by_the_mean_length():
    """Of one batch the gradients have one direction: in both a long answer weighs by its tokens."""
    pairs, found = rows_of_ids(5), {}
    tokens = sum(len(s["ids"]) for s in as_samples(pairs))
    for reduction in ("sum", "mean"):
        run, model = plain_run(small(reduction=reduction)), random_model(1)
        samples = with_teacher(run, as_samples(pairs))
        loss = sdzero.backward_kl(run, model, random_model(2).requires_grad_(False), samples)
        found[reduction] = loss, gradients(model)
    (total, of_sum), (mean, of_mean) = found["sum"], found["mean"]
    assert total == pytest.approx(mean * tokens / len(pairs), rel=1e-5)
    assert relative(of_sum / (tokens / len(pairs)), of_mean) < 1e-5


def test_top_k_renormalises_both_sides_over_the_teachers_tokens():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    head = fake_model(vocabulary=9, hidden=9, bias=False)
    with torch.no_grad():
        head.head.weight.copy_(torch.eye(9))
    hidden = student.detach().double().requires_grad_()
    cfg = Config(top_k=3)
    loss, values = sdzero.distillation_loss(head, hidden, head, teacher.double(), cfg)
    top = teacher.double().topk(3).indices
    log_s = F.log_softmax(student.double().gather(1, top), -1)
    log_t = F.log_softmax(teacher.double().gather(1, top), -1)
    brute = (log_s.exp() * (log_s - log_t)).sum(-1)
    assert torch.allclose(values, brute)
    loss.backward()
    outside = torch.ones(4, 9, dtype=torch.bool).scatter(1, top, False)
    assert hidden.grad[outside].abs().max() == 0 and hidden.grad[~outside].abs().max() > 0
    # every token of the vocabulary: the exact divergence
    whole = sdzero.distillation_loss(head, hidden, head, teacher.double(), Config(top_k=99))[1]
    exact = sdzero.distillation_loss(head, hidden, head, teacher.double(), Config())[1]
    assert torch.allclose(whole, exact)


def grpo_loss(reward, **changes):
    cfg = make_baseline_config(method="grpo", group=2, batch=2, **changes)
    run, model = plain_run(cfg), random_model(3)
    samples = as_samples([([5, 6], [7, 8, 9, 10]), ([5, 6], [11, 12])])
    for sample, r in zip(samples, reward):
        sample["reward"] = r
    return backward_grpo(run, model, samples), gradients(model), model, samples


def test_dapo_counts_tokens_and_rewards_entropy():
    options = dict(kl=0.0, entropy=0.01, textbook=False)
    loss, gradient, model, samples = grpo_loss([1.0, 0.0], **options)
    model = random_model(3)
    advantage = (0.5 / (2**-0.5 + 1e-4), -0.5 / (2**-0.5 + 1e-4))  # std of (1, 0) is 2 ** -0.5
    terms = []
    for s, a in zip(samples, advantage):
        ids = torch.tensor([s["context"] + s["ids"]])
        logits = model(input_ids=ids).logits[0, 1 : 1 + len(s["ids"])].float()  # (n, V)
        log_p = F.log_softmax(logits, -1)
        taken = log_p.gather(1, torch.tensor(s["ids"])[:, None])[:, 0]
        entropy = -(log_p.exp() * log_p).sum(-1)
        terms.append(-(taken - taken.detach()).exp() * a - 0.01 * entropy)
    brute = torch.cat(terms).mean()
    brute.backward()
    assert loss == pytest.approx(float(brute.detach()), rel=1e-4)
    assert relative(gradient, gradients(model)) < 1e-4
    assert float(entropy_of(torch.zeros(1, 8))) == pytest.approx(math.log(8))


def test_sdft_shows_the_answer_alone_where_asked():
    question = {"prompt": "2+2?", "answer": "4", "demonstration": "two and two are four"}
    assert "two and two" in sdft_prompt(question)[-1]["content"]
    shown = sdft_prompt(question, "answer")[-1]["content"]
    assert "two and two" not in shown and "The final answer is 4" in shown


def test_a_cosine_falls_from_the_peak_to_nothing():
    how = Schedule("sdft", 10, 4, 1.0, warmup=2, decay=0.0, weight_decay=0.0, cosine=True)
    rates = [how.lr(step) for step in range(10)]
    assert rates[0] == 0.5 and rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.05


# --------------------------------------------------------------------------------------------------
# One prompt in all phases
# --------------------------------------------------------------------------------------------------
def test_system_and_instruction_are_part_of_every_question():
    cfg = Config(system="Be brief.", instruction=" Box it.")
    messages = kit.questions.asked("2+2?", cfg)
    assert [m["role"] for m in messages] == ["system", "user"]
    assert messages[1]["content"] == "2+2? Box it."
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "x"}]
    assert kit.questions.asked(own, cfg)[0]["content"] == "mine"
    assert own[-1]["content"] == "x"  # not changed in place
    math_question = "2+2?" + kit.questions.MATH_INSTRUCTION
    assert kit.questions.asked(math_question, Config(instruction=" ...")) == "2+2? ..."
    assert kit.questions.asked(math_question, Config()) == math_question


def test_a_run_says_its_recipe_and_takes_the_system_message(checkpoint, tmp_path, coin, capsys):
    cfg = small(checkpoint, out=str(tmp_path / "run"), system="You add.", recipe="paper")
    sdzero.train(cfg, sdzero.stages_of(cfg))
    out = capsys.readouterr().out
    assert "by --recipe paper: " in out and "You add." in out
    record = lines_of(tmp_path / "run" / "revisions.jsonl")[0]
    assert record["prompt"][0] == {"role": "system", "content": "You add."}
