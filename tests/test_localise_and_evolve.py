"""eval.py localise and evolve: where in an answer the reviser disagrees, and a run as it went."""

import json
import shutil
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from toys import (
    lines_of,
    message_of,
    plain_run,
    random_model,
    response_logits,
    rows_of_ids,
    small,
    snapshot,
    train,
)

import baselines
import eval as evaluation
import kit
import sdzero
from studies.localise import add_token_rewards


@pytest.fixture
def run(finished_run, tmp_path):
    """A finished run's folder that may be written to."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run[0], folder)
    return folder


def files_of(folder):
    return json.loads((folder / "run.json").read_text())["files"]


def test_token_rewards_are_the_difference_of_log_probabilities():
    samples = []
    for context, ids in rows_of_ids(7):
        samples.append({"context": context, "ids": ids, "teacher_context": [9, 8, 7] + context})
    student, teacher = random_model(), random_model(1)
    # what shapes the training's divergence is the training's alone
    run = plain_run(small(micro_tokens=60, kl_clip=1e-3, top_k=5, divergence="forward"))
    add_token_rewards(run, student, teacher, samples)
    for s in samples:
        log_s = F.log_softmax(response_logits(student, s["context"], s["ids"]), -1).detach()
        log_t = F.log_softmax(response_logits(teacher, s["teacher_context"], s["ids"]), -1).detach()
        at = torch.arange(len(s["ids"])), torch.tensor(s["ids"])
        reward, kl = torch.tensor(s["token_reward"]), torch.tensor(s["kl"])
        assert torch.allclose(reward, log_s[at] - log_t[at], atol=1e-4)
        assert torch.allclose(kl, (log_s.exp() * (log_s - log_t)).sum(-1), atol=1e-4)


def test_localise_of_a_run(run, coin, capsys):
    before = snapshot(run)
    assert evaluation.main(["localise", str(run), "--answers", "8"]) == 0
    out, result = capsys.readouterr().out, json.loads((run / "localise.json").read_text())
    assert result["reviser"] == str(run / "srt")
    assert list(result["students"]) == ["base", "srt", "sdzero"]
    for r in result["students"].values():
        # four draws of five test questions, eight of each kind at most
        assert 12 <= sum(r["answers"].values()) <= 16 and max(r["answers"].values()) == 8
        assert list(r["buckets"]) == ["reward", "absolute reward", "KL"]
        for way, kind in product(r["buckets"], r["kl_per_answer"]):
            b = r["buckets"][way][kind]
            assert len(b["mean"]) == 20 and b["mean"] == sorted(b["mean"], reverse=True)
            assert way == "reward" or min(b["mean"]) >= -1e-6
            assert b["mean"][0] <= r["buckets"]["absolute reward"][kind]["mean"][0] or way == "KL"
            assert 0.1 <= r["top_tenth_of_kl"][kind] <= 1 and r["kl_per_answer"][kind] > 0
    assert "read again by" in out and "95-100 %" in out

    page = (run / "localise.html").read_text()
    assert "<script" not in page and "http" not in page and "viewport" in page
    assert page.count("<section>") >= 6
    assert (run / "localise.png").stat().st_size > 10_000

    new = {"localise.json", "localise.png", "localise.html", "localise.svg"}
    assert new <= set(files_of(run))
    after = snapshot(run)
    assert {name for name in after if before.get(name) != after[name]} == new | {"run.json"}
    assert evaluation.main(["localise", str(run), "--students", "sdzero", "--answers", "2"]) == 0
    result = json.loads((run / "localise.json").read_text())
    assert list(result["students"]) == ["sdzero"]


@pytest.mark.usefixtures("undrawn")
def test_wrong_tokens_are_placed_on_the_embedded_task(tmp_path, capsys):
    """The embedded model, graded for real: its answers' first wrong token is known."""
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = sdzero.make_config(eval_questions=8, out=str(folder))
    saved = kit.run_folder.options_of(cfg)
    (folder / "config.json").write_text(json.dumps(saved))
    marker = {"files": ["config.json"], "options": saved, "content": {}}
    (folder / "run.json").write_text(json.dumps(marker))
    assert evaluation.main(["localise", str(folder), "--answers", "8"]) == 0
    assert "the highest token reward is the first wrong token in" in capsys.readouterr().out
    hits = json.loads((folder / "localise.json").read_text())["students"]["base"]
    hits = hits["peak_at_first_wrong_token"]
    assert 0 < hits["answers"] <= 8 and hits["ci"][0] <= hits["share"] <= hits["ci"][1]
    assert "first" in (folder / "localise.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_localise_of_a_baselines_run(checkpoint, coin, tmp_path, capsys):
    cfg = baselines.make_baseline_config(
        method="sft", model=checkpoint, out=str(tmp_path / "run"), digits=2, srt_questions=4
    )
    cfg = replace(cfg, distil_questions=4, eval_questions=4, eval_samples=1, max_tokens=12)
    sdzero.train(replace(cfg, epochs=1), baselines.stages_of(cfg))
    assert evaluation.main(["localise", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "localise.json").read_text())
    assert list(result["students"]) == ["base", "sft"] and result["reviser"] == checkpoint
    assert evaluation.main(["evolve", str(tmp_path / "run")]) == 0
    assert "\nsft" in capsys.readouterr().out


def test_evolve_shows_phases_and_rounds(checkpoint, coin, tmp_path, capsys):
    folder = tmp_path / "run"
    results = train(small(checkpoint, out=str(folder), rounds=2))
    capsys.readouterr()
    assert evaluation.main(["evolve", str(folder)]) == 0
    out = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in out.splitlines() if line[:5] in ("base ", "round")]
    assert rows == ["base", "round 1"] and list(results) == ["base", "srt", "round 1", "sdzero"]
    assert (folder / "evolution.png").stat().st_size > 10_000
    assert "evolution.png" in files_of(folder)
    steps = [line for line in lines_of(folder / "metrics.jsonl") if line["phase"] == "distil"]
    assert sum(line["synchronised"] for line in steps) == 1
    assert all(line["revision_words"] >= 0 for line in steps)


@pytest.mark.usefixtures("undrawn")
def test_fresh_removes_what_the_studies_wrote(checkpoint, coin, tmp_path):
    folder = tmp_path / "run"
    cfg = small(checkpoint, out=str(folder))
    train(cfg)
    assert evaluation.main(["evolve", str(folder)]) == 0
    assert evaluation.main(["localise", str(folder), "--answers", "2"]) == 0
    train(replace(cfg, fresh=True, method="srt"))
    there = " ".join(path.name for path in folder.iterdir())
    assert "srt" in there
    for name in ("evolution", "localise", "sdzero"):
        assert name not in there


@pytest.mark.parametrize("verb, name", [("evolve", "evolution.png"), ("localise", "localise.html")])
def test_what_is_somebody_elses_is_not_written_over(run, capsys, coin, verb, name):
    (run / name).write_text("mine")
    before = snapshot(run)
    assert "was not made by this run" in message_of(capsys, evaluation.main, verb, run)
    assert snapshot(run) == before


@pytest.mark.parametrize("verb", ["localise", "evolve"])
def test_folders_that_hold_no_run(tmp_path, checkpoint, capsys, verb):
    for folder in (tmp_path, tmp_path / "missing", checkpoint):
        assert "is not a run folder" in message_of(capsys, evaluation.main, verb, folder)
    message = message_of(capsys, evaluation.main, verb, tmp_path, tmp_path)
    assert "one run folder, not 2" in message
    assert not list(tmp_path.iterdir())


def test_students_that_the_run_lacks(run, capsys):
    message = message_of(capsys, evaluation.main, "localise", run, "--students", "base,grpo")
    assert "no 'grpo'" in message and "base, srt, sdzero" in message
