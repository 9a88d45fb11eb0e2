"""--track: a tracker has what metrics.jsonl has, once, whatever kills do."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from toys import Killed, killed_at, lines_of, message_of, small, train

import sdzero
from kit import trackers
from kit.errors import UserError
from kit.trackers import values_of

# stands for wandb and for trackio: what it is told goes into a file
FAKE = """
import json, os
class Settings:
    def __init__(self, **given): pass
class Run:
    def __init__(self, **given):
        told = [json.loads(line) for line in open(os.environ["FAKE_TRACKER"])]
        offline = os.environ.get("WANDB_MODE") == "offline"
        self.step = 0 if offline else 1 + max([line.get("step", -1) for line in told] + [-1])
        self.note(init=given)
    def note(self, **what):
        with open(os.environ["FAKE_TRACKER"], "a") as f:
            f.write(json.dumps(what, default=str) + "\\n")
    def log(self, values, step):
        if os.environ.get("FAKE_FAILS") == str(step):
            raise ConnectionError("the line is dead")
        self.note(step=step, values=values)
    def finish(self):
        self.note(finish=True)
def init(**given):
    return Run(**given)
"""


@pytest.fixture(params=["wandb", "trackio"])
def fake(request, tmp_path, monkeypatch):
    """(its name, what it was told so far)"""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / f"{request.param}.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("FAKE_TRACKER", str(tmp_path / "told"))
    (tmp_path / "told").touch()
    yield request.param, lambda: lines_of(tmp_path / "told")
    sys.modules.pop(request.param, None)


def course(run):
    """{step: {name: value}} of what a tracker should have of a run's folder."""
    lines = lines_of(run / "metrics.jsonl")
    expected = {}
    for number, line in enumerate(lines, 1):
        phase = line.pop("phase")
        expected[number] = {f"{phase}/{k}".replace(" ", "_"): float(v) for k, v in line.items()}
    return expected


def same_but_for_the_clock(a: dict, b: dict) -> None:
    clock = ("seconds", "tokens_per_second", "memory", "left")
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == pytest.approx(b[name]) or name.endswith(clock), name


def test_names_are_those_of_the_files():
    line = {"step": 3, "loss": 0.5, "synchronised": True, "note": "text", "none": None}
    assert values_of("srt 2", line) == {
        "srt_2/step": 3.0,
        "srt_2/loss": 0.5,
        "srt_2/synchronised": 1.0,
    }
    result = {"accuracy": 0.5, "accuracy_ci": [0.25, 0.75], "scores": [[1.0]], "greedy_scores": [1]}
    assert values_of("results", {**result, "correction_rate_ci": None}) == {
        "results/accuracy": 0.5,
        "results/accuracy_ci_low": 0.25,
        "results/accuracy_ci_high": 0.75,
    }


def test_a_run_through_kills_is_one_run_in_the_tracker(
    fake, coin, checkpoint, tmp_path, monkeypatch
):
    name, told = fake
    cfg = small(checkpoint, out=str(tmp_path / "run"), save_every=2, track=name)
    for phase, step in (("srt", 4), ("distil", 2)):
        with monkeypatch.context() as patch:
            killed_at(patch, phase, step)
            with pytest.raises(Killed):
                train(cfg)
    # lines that the last kill took back
    with (tmp_path / "run" / "metrics.jsonl").open("a") as f:
        f.write(json.dumps({"phase": "distil", "step": 2, "loss": 1.0}) + "\n")
    train(cfg)

    begun = [line["init"] for line in told() if "init" in line]
    identity = {given.get("id", given["name"]) for given in begun}
    assert len(begun) == 3 and len(identity) == 1 and {g["resume"] for g in begun} == {"allow"}
    assert "track" not in begun[0]["config"] and begun[0]["config"]["seed"] == cfg.seed
    logged = [line for line in told() if "step" in line]
    lines = [line for line in logged if "results/name" not in line["values"]]
    expected = course(tmp_path / "run")
    assert [line["step"] for line in lines] == list(expected)  # each once, in order
    for line in lines:
        same_but_for_the_clock(line["values"], expected[line["step"]])
    steps = [line["step"] for line in logged]
    assert steps == sorted(steps)
    named = [line["values"]["results/name"] for line in logged if line not in lines]
    assert named == ["base", "srt", "sdzero"]
    assert told()[-1] == {"finish": True}
    # a finished run is left alone
    count = len(told())
    train(cfg)
    assert len(told()) == count


def test_a_repeated_step_is_not_sent_again(fake, run_of):
    name, told = fake
    run = run_of(small(track=name))
    run.folder.belongs_to(run.cfg)
    for step in range(3):
        run.folder.log("distil", step, loss=float(step))
    # what going on from a state behind the first step does
    kept = lines_of(run.folder.path / "metrics.jsonl")[:1]
    (run.folder.path / "metrics.jsonl").write_text(json.dumps(kept[0]) + "\n")
    run.folder.results["base"] = {"accuracy": 0.5}
    run.folder.belongs_to(run.cfg)
    for step in range(1, 5):
        run.folder.log("distil", step, loss=float(step))
    logged = [line for line in told() if "step" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 3, 4, 5]
    assert logged[3]["values"] == {"results/name": "base", "results/accuracy": 0.5}


def test_what_did_not_reach_wandb_before_a_kill_is_sent_again(fake, run_of, tmp_path, monkeypatch):
    name, told = fake
    if name != "wandb":
        pytest.skip("trackio writes to a file of its own at once")
    run = run_of(small(track=name))
    run.folder.belongs_to(run.cfg)
    run.folder.keep_result("base", {"accuracy": 0.5}, 0)
    for step in range(3):
        run.folder.log("distil", step, loss=float(step))
    (tmp_path / "told").write_text("".join((tmp_path / "told").read_text().splitlines(True)[:3]))
    run.folder.belongs_to(run.cfg)
    assert [line["step"] for line in told() if "step" in line] == [0, 1, 2, 3]
    monkeypatch.setenv("WANDB_MODE", "offline")  # there each process's file has the whole course
    (tmp_path / "told").write_text("")
    run.folder.belongs_to(run.cfg)
    logged = [line for line in told() if "step" in line]
    assert [line["step"] for line in logged] == [0, 1, 2, 3]
    assert logged[0]["values"]["results/name"] == "base"


def test_what_was_logged_without_it_is_sent_when_it_is_given(fake, run_of):
    name, told = fake
    run = run_of(small())
    for step in range(3):
        run.folder.log("srt", step, loss=float(step))
    run.folder.belongs_to(replace(run.cfg, track=name))
    assert [line["values"]["srt/loss"] for line in told() if "step" in line] == [0.0, 1.0, 2.0]


def test_a_tracker_that_fails_costs_no_run(fake, run_of, monkeypatch, capsys):
    name, told = fake
    monkeypatch.setenv("FAKE_FAILS", "2")
    run = run_of(small(track=name))
    run.folder.belongs_to(run.cfg)
    for step in range(4):
        run.folder.log("srt", step, loss=float(step))
    warned = [line for line in capsys.readouterr().out.splitlines() if "--track" in line]
    assert len(warned) == 1 and "the line is dead" in warned[0]
    assert len(lines_of(run.folder.path / "metrics.jsonl")) == 4
    monkeypatch.delenv("FAKE_FAILS")
    run.folder.belongs_to(run.cfg)  # started again
    assert [line["step"] for line in told() if "step" in line] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", trackers.SINKS)
def test_a_missing_package_is_one_line_before_anything_is_loaded(
    name, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sdzero.kit.questions, "load_questions", None)
    message = message_of(capsys, sdzero.main, "--track", name, "--out", tmp_path / "run")
    assert f"pip install {name}" in message and not (tmp_path / "run").exists()


def test_a_folder_of_its_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb").mkdir()  # what wandb itself leaves where it was run
    with pytest.raises(UserError, match="pip install wandb"):
        trackers.require("wandb")
    trackers.require(None)


def test_a_tracker_that_cannot_be_opened_is_one_line(fake, run_of, monkeypatch):
    name, _ = fake
    monkeypatch.delenv("FAKE_TRACKER")
    run = run_of(small(track=name))
    with pytest.raises(UserError, match=f"--track {name} cannot be opened"):
        run.folder.belongs_to(run.cfg)


# --------------------------------------------------------------------------------------------------
# TensorBoard itself
# --------------------------------------------------------------------------------------------------
def scalars_of(folder):
    """{tag: [(step, value)]}, as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.scalars.Keys()}


def test_tensorboard_shows_what_metrics_jsonl_says(coin, checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    cfg = small(checkpoint, out=str(run), save_every=2, eval_every=1, track="tensorboard")
    with monkeypatch.context() as patch:
        killed_at(patch, "distil", 2)
        with pytest.raises(Killed):
            train(cfg)
    results = list(json.loads((run / "results.json").read_text()))
    assert "step 1" in results
    (run / "state" / "latest.pt").unlink()  # a kill that damaged it: back to the state before
    train(cfg)

    shown, expected = scalars_of(run / "tensorboard"), {}
    for number, values in course(run).items():
        for name, value in values.items():
            expected.setdefault(name, []).append((number, pytest.approx(value, rel=1e-5)))
    for name, points in expected.items():
        assert shown[name] == points, name
    assert len(shown["results/accuracy"]) == len(json.loads((run / "results.json").read_text()))
    # the run owns its files: --fresh begins anew
    owned = json.loads((run / "run.json").read_text())["files"]
    assert {f"tensorboard/{file.name}" for file in (run / "tensorboard").iterdir()} <= set(owned)
    first = json.loads((run / "tracker.json").read_text())["tensorboard"]["id"]
    train(replace(cfg, fresh=True))
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert json.loads((run / "tracker.json").read_text())["tensorboard"]["id"] != first
    shutil.rmtree(run)
