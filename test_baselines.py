"""The baselines against their published formulas, and the commands that compare them.   pytest -q test_baselines.py"""
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import eval as evaluation
import modeling
import report
import sdzero
from test_sdzero import (END_IDS, addition, as_samples, checkpoint, coin, gradients, lines_of, random_model, relative,  # noqa: F401
                         rows_of_ids, small, tokenizer)


def test_advantages_of_a_worked_example():
    got = sdzero.advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]))
    assert torch.allclose(got[0], torch.tensor([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-4)) and not got[1].any()


def test_grpo_loss_clips_and_adds_the_divergence():
    log_prob, old = torch.tensor([1.5, 0.5, 1.5, 0.5]).log(), torch.zeros(4)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert torch.allclose(sdzero.grpo_loss(log_prob, old, advantage, 0.2), -torch.tensor([1.2, 0.5, -1.5, -0.8]))
    with_kl = sdzero.grpo_loss(log_prob, old, advantage, 0.2, torch.zeros(4), 0.1)
    ratio = 1 / log_prob.exp()
    assert torch.allclose(with_kl - sdzero.grpo_loss(log_prob, old, advantage, 0.2), 0.1 * (ratio - ratio.log() - 1), atol=1e-6)


def test_grpo_gradient_is_that_of_the_published_formula():
    """1/G sum_i 1/|y_i| sum_t A_i grad log pi(y_t), by whole logits and autograd, one row at a time."""
    samples = as_samples(rows_of_ids(8))
    for budget in (60, 4000):
        model, cfg = random_model(), small(group=4, micro_tokens=budget)
        sdzero.grpo_on(model, None, samples, cfg)
        brute = random_model()
        rewards = torch.tensor([s["reward"] for s in samples]).view(2, 4)
        A = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
        for s, a in zip(samples, A):
            logits = brute(input_ids=torch.tensor([s["context"] + s["ids"]])).logits[0, len(s["context"]) - 1:-1]
            (a / 8 * F.cross_entropy(logits, torch.tensor(s["ids"]))).backward()
        assert gradients(brute).norm() > 0 and relative(gradients(model), gradients(brute)) < 1e-4


def test_sdft_teacher_reads_the_demonstration_or_else_the_answer(tokenizer):  # noqa: F811
    question = addition(12, 34)
    assert "The final answer is 46." in sdzero.sdft_prompt(question)[-1]["content"]
    prompt = sdzero.sdft_prompt(question | {"demonstration": "2+4=6;1+3=4;"})
    assert "2+4=6;1+3=4;" in prompt[-1]["content"] and prompt[-1]["content"].startswith(question["prompt"])
    assert "2+4=6;" in tokenizer.decode(sdzero.chat_ids(tokenizer, prompt))


@pytest.mark.parametrize("low_precision", [False, True])
def test_weights_are_put_back_exactly(low_precision):
    """What iterated RFT starts each round from."""
    model = random_model()
    if low_precision:
        modeling.split_weights(model)
    before, saved = [modeling.exact(p).clone() for p in model.parameters()], modeling.copy_weights(model)
    for _ in range(2):
        optimizer = sdzero.adamw(model, 1e-2, 0.0, small())
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        sdzero.update(model, optimizer, 1e-2, 1.0)
        assert not any(torch.equal(modeling.exact(p), w) for p, w in zip(model.parameters(), before))
        modeling.put_weights(model, saved)
        assert all(torch.equal(modeling.exact(p), w) for p, w in zip(model.parameters(), before))


def test_control_trains_on_verified_revisions_as_answers():
    record = {"prompt_ids": [3, 4], "revised_context": [3, 4, 5, 6], "revised_ids": [7, 2], "init_reward": 0.0}
    assert sdzero.srt_examples(record, small(method="rft", on_revisions=True), END_IDS) == [([3, 4], [7, 2])]
    both = sdzero.srt_examples(record, small(l_answer=True, l_generation="none"), END_IDS)
    assert both == [([3, 4], [7, 2]), ([3, 4, 5, 6], [7, 2])]
    with pytest.raises(sdzero.UserError, match="none of 1 revisions was verified"):
        sdzero.srt(random_model(), [record | {"kept": False}], small(method="rft", on_revisions=True), END_IDS, None)


def plainly_fine_tuned(pairs, cfg):
    """The random model after cfg.srt_epochs steps of torch's AdamW on all (context, target) pairs at once: whole logits, one row at a time."""
    model = random_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.srt_lr, betas=(0.9, 0.95), weight_decay=cfg.srt_weight_decay)
    for step in range(cfg.srt_epochs):
        optimizer.zero_grad()
        for context, target in pairs:
            logits = model(input_ids=torch.tensor([context + target])).logits[0, len(context) - 1:-1]
            (F.cross_entropy(logits, torch.tensor(target), reduction="sum") / sum(len(t) for _, t in pairs)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.grad_clip)
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - 1) / (cfg.srt_epochs - 1)))
        optimizer.param_groups[0]["lr"] = cfg.srt_lr * min(step + 1, cosine)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def all_samples(monkeypatch):
    """Every sample that a method takes, in order."""
    taken, original = [], sdzero.rollouts

    def recording(*args, **kwargs):
        taken.append(original(*args, **kwargs))
        return taken[-1]

    monkeypatch.setattr(sdzero, "rollouts", recording)
    return taken


@pytest.mark.parametrize("rounds", [1, 2])
def test_rft_is_fine_tuning_on_the_right_samples(tmp_path, tokenizer, coin, all_samples, rounds):  # noqa: F811
    """... and iterated RFT trains the base anew on those of all rounds, the later ones sampled from what the earlier made."""
    cfg = small(method="rft", samples=24, rounds=rounds, srt_batch=1000, srt_epochs=3, out=str(tmp_path))
    model, questions = random_model(), [addition(10 + i, 20 + i) for i in range(8)]
    sdzero.rft(model, tokenizer, coin, questions, cfg, END_IDS, sdzero.RunFolder(cfg))
    samples = sum(all_samples, [])
    assert len(samples) == 24 and len(all_samples) == rounds and {s["question"]["prompt"] for s in samples} == {q["prompt"] for q in questions}
    right = {(*s["context"], *s["ids"]): (s["context"], s["ids"]) for s in samples if s["reward"]}
    assert 3 < len(right) < 24
    assert relative(weights(model), plainly_fine_tuned(list(right.values()), cfg)) < 1e-5 < relative(weights(random_model()), weights(model))


def test_sft_is_fine_tuning_on_the_demonstrations(tmp_path, tokenizer):  # noqa: F811
    cfg = small(method="sft", srt_batch=1000, srt_epochs=3, out=str(tmp_path))
    model, questions = random_model(), [addition(10 + i, 20 + i) | {"demonstration": f"{i}+{i}={2 * i};"} for i in range(5)] + [addition(1, 2)]
    sdzero.sft(model, tokenizer, questions, cfg, END_IDS, sdzero.RunFolder(cfg))
    pairs = [(sdzero.chat_ids(tokenizer, q["prompt"]), tokenizer.encode(q["demonstration"], add_special_tokens=False) + [tokenizer.eos_token_id])
             for q in questions[:5]]
    assert relative(weights(model), plainly_fine_tuned(pairs, cfg)) < 1e-5
    with pytest.raises(sdzero.UserError, match="demonstrations"):
        sdzero.sft(model, tokenizer, [addition(1, 2)], cfg, END_IDS, None)


def test_sdft_gradient_is_the_divergence_to_the_model_with_the_demonstration(tokenizer):  # noqa: F811
    student, teacher, cfg = random_model(), random_model(1), small()
    samples = [{"context": sdzero.chat_ids(tokenizer, q["prompt"]), "ids": [5, 6, 7 + i], "question": q}
               for i, q in enumerate([addition(1, 2), addition(3, 4) | {"demonstration": "3+4=7"}])]
    for s in samples:
        s["teacher_context"] = sdzero.chat_ids(tokenizer, sdzero.sdft_prompt(s["question"]))
    sdzero.imitate(student, teacher, samples, cfg)
    brute = random_model()
    for s in samples:
        log_s, log_t = (F.log_softmax(m(input_ids=torch.tensor([c + s["ids"]])).logits[0, len(c) - 1:-1], -1)
                        for m, c in ((brute, s["context"]), (teacher, s["teacher_context"])))
        ((log_s.exp() * (log_s - log_t.detach())).sum() / 6).backward()
    assert relative(gradients(student), gradients(brute)) < 1e-4


METHODS = [{"method": "sdzero"}, {"method": "sdzero", "rounds": 2, "decay": 0.5}, {"method": "sdzero", "phase1": False}, {"method": "srt"}, {"method": "rft"}, {"method": "rft", "rounds": 3},
           {"method": "rft", "on_revisions": True}, {"method": "grpo", "grpo_kl": 0.1, "grpo_updates": 2}, {"method": "sdft"}, {"method": "sft"}]
named = pytest.mark.parametrize("options", METHODS, ids=lambda o: "-".join(map(str, o.values())))


@named
def test_a_budget_of_samples_is_kept_and_a_kill_changes_nothing(tmp_path, checkpoint, coin, monkeypatch, options):  # noqa: F811
    """--samples 24: as many are generated and counted; a run stopped before each step in turn, and started again, ends the same."""
    given = dict(model=checkpoint, digits=2, eval_questions=3, temperature=1.0, max_tokens=8, revisions=2, srt_epochs=2, srt_batch=4, srt_lr=1e-3,
                 distil_batch=4, distil_lr=1e-3, warmup_steps=1, eval_samples=1, micro_tokens=200, group=2, samples=24, save_every=1, srt_questions=4,
                 distil_questions=12, **options)
    whole = sdzero.make_config(**given, out=str(tmp_path / "whole"))
    sdzero.run(whole)
    last = lines_of(tmp_path / "whole" / "metrics.jsonl")[-1]
    assert last["samples"] == (0 if options["method"] == "sft" else 24) and last["trained"] > 0

    class Killed(BaseException):
        pass

    original, seen = sdzero.RunFolder.checkpoint, set()

    def killing(self, phase, step, *state):
        original(self, phase, step, *state)
        if (phase, step) not in seen and step % 2:
            seen.add((phase, step))
            raise Killed

    stopped = replace(whole, out=str(tmp_path / "stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(sdzero.RunFolder, "checkpoint", killing)
        while True:
            try:
                sdzero.run(stopped)
                break
            except Killed:
                pass
    assert seen
    for name in ("results.json", f"{whole.method}/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    totals = lines_of(tmp_path / "stopped" / "metrics.jsonl")[-1]
    assert [totals[k] for k in ("samples", "tokens", "trained")] == [last[k] for k in ("samples", "tokens", "trained")]


@pytest.mark.parametrize("options, message", [
    ({"method": "grpo", "group": 3, "distil_batch": 8}, "group"), ({"on_revisions": True}, "rft"), ({"samples": 2}, "too few")])
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(sdzero.UserError, match=message):
        sdzero.make_config(**options)


# ----------------------------------------------------------------------------------------------------------------------------
# eval.py compare, localise, evolve
# ----------------------------------------------------------------------------------------------------------------------------
FAST = ["--digits", "2", "--eval-questions", "6", "--eval-samples", "8", "--max-tokens", "60"]


def test_compare_trains_each_row_once_and_reports_what_was_measured(tmp_path, capsys):
    command = ["compare", "--seeds", "2", "--budgets", "24,48", "--rows", "SD-Zero,SFT on demonstrations,RFT", "--out", str(tmp_path), *FAST]
    assert evaluation.main(command) in (0, 1)  # with so few samples RFT may find none right: it is then reported as failed
    out, printed = json.loads((tmp_path / "results.json").read_text()), capsys.readouterr().out
    rows = {(r["method"], r["budget"]): r for r in out["rows"]}
    assert {("base", 0), ("SD-Zero", 24), ("SD-Zero", 48), ("SFT on demonstrations", 48)} <= set(rows)
    ours = rows["SD-Zero", 48]
    assert ours["samples"]["values"] == [48, 48] and ours["seeds"] == [0, 1]
    for i, seed in enumerate(ours["seeds"]):  # the table says what the run says
        run = json.loads((tmp_path / "runs" / f"sd-zero-48-{seed}" / "results.json").read_text())
        assert ours["accuracy"]["values"][i] == run["sdzero"]["accuracy"] and rows["base", 0]["accuracy"]["values"][i] == run["base"]["accuracy"]
        assert ours["pass_at_8"]["values"][i] == np.mean([any(q) for q in run["sdzero"]["scores"]])
        other = json.loads((tmp_path / "runs" / f"sft-on-demonstrations-24-{seed}" / "results.json").read_text())
        assert other["base"] == run["base"]
    lead = rows["SFT on demonstrations", 48]["sdzero_leads_by"]["accuracy"]
    assert lead["mean"] == pytest.approx(ours["accuracy"]["mean"] - rows["SFT on demonstrations", 48]["accuracy"]["mean"])
    assert "SFT on demonstrations" in printed and (tmp_path / "curve.png").stat().st_size > 10_000
    marks = {f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("model.safetensors")}
    assert evaluation.main(command) in (0, 1)  # finished runs are kept
    assert marks and marks == {f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("model.safetensors")}
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == out["rows"]
    assert evaluation.main([*command, "--srt-lr", "5e-4"]) == 1  # other options: no run is mixed with another's
    assert "other options" in capsys.readouterr().out


@pytest.mark.parametrize("options, message", [(["--budgets", "a,b"], "whole numbers"), (["--rows", "PPO"], "no row 'PPO'"),
                                              (["--budgets", "2"], "too few")])
def test_compare_says_what_it_cannot_do(tmp_path, capsys, options, message):
    assert evaluation.main(["compare", "--out", str(tmp_path), *options]) == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_every_row_of_the_tables_is_a_valid_run():
    for table in ("methods", "ablations"):
        rows = evaluation.rows_of(table, 4608)
        configs = [sdzero.make_config(**{"samples": 4608, **options}, out="x") for options in rows.values()]
        assert len(configs) == len({repr(c) for c in configs}) or table == "ablations"
    assert not any("srt_epochs" in options for options in evaluation.rows_of("methods", 4608, srt_epochs=1).values())  # what was given holds
    longer = sdzero.make_config(**{"samples": 4608, **evaluation.rows_of("ablations", 4608)["phase 2 longer, 2 rounds"]})
    assert longer.srt_questions == sdzero.make_config(samples=4608).srt_questions and longer.samples == 6912
    given = {"model": "another", "revisions": 7}
    longer = sdzero.make_config(**{**given, **evaluation.rows_of("ablations", 60000, **given)["phase 2 longer"]})
    assert longer.srt_questions == sdzero.make_config(**given, samples=60000).srt_questions and longer.samples == 90000


def test_buckets_and_shares_by_hand():
    assert evaluation.buckets(range(40)).tolist() == [38.5 - 2 * j for j in range(20)]
    short = evaluation.buckets([3.0, 1.0])
    assert short[:10].tolist() == [3.0] * 10 and short[10:].tolist() == [1.0] * 10
    assert evaluation.top_share([9.0] + [1.0] * 9) == 0.5 and evaluation.top_share([1.0] * 20) == pytest.approx(0.1)
    assert math.isnan(evaluation.top_share([0.0, 0.0]))
    assert evaluation.first_difference([1, 2, 9], [1, 2, 3]) == 2 and evaluation.first_difference([1, 2], [1, 2, 3]) is None
    assert evaluation.first_difference([1, 2, 3, 4], [1, 2, 3]) == 3


def test_token_rewards_are_the_difference_of_log_probabilities():
    samples = [{"context": c, "ids": r, "teacher_context": [9, 8, 7] + c} for c, r in rows_of_ids(7)]
    student, teacher = random_model(), random_model(1)
    evaluation.token_rewards(student, teacher, samples, small(micro_tokens=60))
    for s in samples:
        log_s, log_t = (F.log_softmax(m(input_ids=torch.tensor([c + s["ids"]])).logits[0, len(c) - 1:-1], -1).detach()
                        for m, c in ((student, s["context"]), (teacher, s["teacher_context"])))
        at = torch.arange(len(s["ids"])), torch.tensor(s["ids"])
        assert torch.allclose(torch.tensor(s["token_reward"]), log_s[at] - log_t[at], atol=1e-4)
        assert torch.allclose(torch.tensor(s["kl"]), (log_s.exp() * (log_s - log_t)).sum(-1), atol=1e-4)


def test_localise_and_evolve_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    assert sdzero.main(["--out", str(run), "--samples", "120", "--rounds", "2", *FAST]) == 0
    assert evaluation.main(["localise", str(run), "--answers", "8"]) == 0
    result = json.loads((run / "localise.json").read_text())
    assert list(result["students"]) == ["base", "srt", "sdzero"]
    for r in result["students"].values():
        assert sum(r["answers"].values()) == 6  # as many as there are test questions
        for kind, b in r["buckets"].items():
            assert len(b["mean"]) == 20 and b["mean"] == sorted(b["mean"], reverse=True) and 0.1 <= r["top_tenth_of_kl"][kind] <= 1
    page = (run / "localise.html").read_text()
    assert "<script" not in page and "http" not in page and "viewport" in page and page.count("<section>") >= 6
    assert (run / "localise.png").stat().st_size > 10_000
    capsys.readouterr()
    assert evaluation.main(["evolve", str(run)]) == 0
    assert "round 1" in capsys.readouterr().out and (run / "evolution.png").stat().st_size > 10_000
    steps = [line for line in lines_of(run / "metrics.jsonl") if line["phase"] == "distil"]
    assert sum(line["synchronised"] for line in steps) == 1 and all(line["revision_words"] >= 0 for line in steps)
    for command in ("localise", "evolve"):
        assert evaluation.main([command, str(tmp_path)]) == 2


def test_page_escapes_what_a_model_wrote():
    sample = {"tokens": ["<script>", "x\n"], "token_reward": [1.0, -0.5], "kl": [0.1, 0.2], "reward": 0.0, "question": {"prompt": "<b>?", "answer": "4"}}
    page = report.token_page("t", {"wrong": [sample], "right": []})
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;?" in page


def test_revision_words():
    assert report.revision_words([{"text": "Wait, this is wrong. Let me start over."}, {"text": "7+5=12"}]) == 1.5
