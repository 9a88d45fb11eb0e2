"""The run folder: what a run writes, and that nothing of a finished run changes."""

import json
import math
import signal
from dataclasses import asdict

import pytest
import torch
from toys import (
    CoinGrader,
    fingerprint,
    lines_of,
    random_model,
    small,
    snapshot,
    train,
)
from transformers import AutoModelForCausalLM

import baselines
import kit
import sdzero
from kit.errors import UserError
from kit.run_folder import NOW

FIELDS = {
    "accuracy",
    "accuracy_ci",
    "accuracy_greedy",
    "mean_tokens",
    "truncated",
    "revised_accuracy",
    "correction_rate",
    "n",
}
COUNTED = {"samples", "tokens", "seconds", "loss", "grad_norm", "lr"}


def test_a_run_leaves_what_the_readme_promises(finished_run, checkpoint):
    folder, results = finished_run
    cfg = small(checkpoint, out=str(folder))
    options = {k: v for k, v in asdict(cfg).items() if k not in NOW}
    assert json.loads((folder / "config.json").read_text()) == options
    assert json.loads((folder / "results.json").read_text()) == results
    assert list(results) == ["base", "srt", "sdzero"] and results["base"]["n"] == 5
    for result in results.values():
        low, high = result["accuracy_ci"]
        assert FIELDS <= set(result) and 0 <= low <= result["accuracy"] <= high <= 1
    records = lines_of(folder / "revisions.jsonl")
    assert len(records) == 12 and any(r["kept"] for r in records)
    assert all(r["kept"] == (r["why"] == "verified") for r in records)
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob("*.tmp")) and not (folder / "state").exists()
    places = checkpoint, folder / "srt", folder / "sdzero"
    assert len({fingerprint(AutoModelForCausalLM.from_pretrained(p)) for p in places}) == 3


def test_metrics_describe_whole_batches_and_add_up(finished_run):
    folder, _ = finished_run
    metrics = lines_of(folder / "metrics.jsonl")
    srt, distil = ([m for m in metrics if m["phase"] == phase] for phase in ("srt", "distil"))
    assert srt and [m["step"] for m in distil] == [0, 1, 2]
    assert all(COUNTED <= set(m) for m in srt + distil)
    assert all({"kl", "reward", "length", "truncated"} <= set(m) for m in distil)
    for m in srt + distil:
        assert math.isfinite(m["loss"]) and m["loss"] >= 0 and math.isfinite(m["grad_norm"])
    for key in ("samples", "tokens", "trained", "seconds"):
        assert [m[key] for m in metrics] == sorted(m[key] for m in metrics)
    assert metrics[-1]["samples"] == 6 + 12 + 8
    before = metrics[metrics.index(distil[0]) - 1]
    steps = list(zip([before, *distil], distil))
    assert [m["samples"] - b["samples"] for b, m in steps] == [3, 3, 2]
    for b, m in steps:
        tokens, samples = (m[key] - b[key] for key in ("tokens", "samples"))
        assert tokens / samples == pytest.approx(m["length"])


def test_a_run_shows_its_prompts_and_its_table(checkpoint, coin, tmp_path, capsys):
    train(small(checkpoint, out=str(tmp_path / "run")))
    out = capsys.readouterr().out
    assert out.count("the generator's prompt") == out.count("the reviser's prompt") == 1
    assert out.count("a kept revision") == 1
    begin = out.index("the reviser's prompt")
    shown = out[begin : begin + 400]
    assert "<|im_start|>user\nAdd " in shown and "<|im_start|>assistant\n" in shown
    assert "\n\nWait, this response is not correct, let me start over.\n\n" in shown
    table = out[out.rindex("sampled acc.") :].splitlines()[1:4]
    assert [line.split()[0] for line in table] == ["base", "srt", "sdzero"]
    assert all("[" in line for line in table)


# --------------------------------------------------------------------------------------------------
# A finished run changes no more
# --------------------------------------------------------------------------------------------------
COMMAND = """--digits 2 --eval-questions 3 --eval-samples 1 --max-tokens 8 --revisions 2
    --srt-questions 6 --distil-questions 6 --temperature 1 --rollout-batch 32"""
SDZERO = " --srt-epochs 1 --srt-batch 4 --srt-lr 1e-3 --distil-batch 3 --distil-lr 1e-3"


@pytest.mark.parametrize(
    "program, words",
    [
        (sdzero, COMMAND + SDZERO),
        (sdzero, COMMAND + SDZERO + " --method srt"),
        (baselines, "rft " + COMMAND + " --epochs 1 --batch 4 --lr 1e-3"),
        (baselines, "grpo " + COMMAND + " --group 2 --batch 4 --lr 1e-3"),
    ],
    ids=["sdzero", "srt", "rft", "grpo"],
)
def test_a_finished_run_that_is_run_again_changes_nothing(
    tmp_path, monkeypatch, checkpoint, capsys, program, words
):
    """Names, bytes and times of all files stay, no model is loaded, and the table is printed."""
    monkeypatch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
    monkeypatch.chdir(tmp_path)
    command = [*words.split(), "--model", checkpoint]
    assert program.main([*command, "--out", "run"]) == 0
    before, first = snapshot(tmp_path), capsys.readouterr().out
    monkeypatch.setattr(kit.loading, "load_model", lambda *args: pytest.fail("loaded a model"))
    for out in ("run", "run/", "./run", str(tmp_path / "run")):
        assert program.main([*command, "--out", out]) == 0, capsys.readouterr().err
        assert snapshot(tmp_path) == before, out
        again = capsys.readouterr().out
        table = first[first.index("3 test questions") : first.index("/ holds")]
        assert table.split("\n\n")[0] in again and "correction rate" in again


def test_fresh_makes_the_same_run_again(tmp_path, checkpoint, coin):
    cfg = small(checkpoint, out=str(tmp_path / "run"), method="srt")
    results = train(cfg)
    weights = (tmp_path / "run" / "srt" / "model.safetensors").read_bytes()
    before = snapshot(tmp_path / "run")
    cfg.fresh = True
    assert train(cfg) == results
    assert (tmp_path / "run" / "srt" / "model.safetensors").read_bytes() == weights
    after = snapshot(tmp_path / "run")
    assert set(after) == set(before)
    assert after["results.json"][1] > before["results.json"][1]  # but it was made anew


# --------------------------------------------------------------------------------------------------
# Numbers that are none
# --------------------------------------------------------------------------------------------------
def poison(monkeypatch, at_call):
    """The gradient of phase 2 becomes NaN at its third step, say."""
    original, calls = sdzero.backward_kl, []

    def poisoned(run, student, teacher, samples):
        loss = original(run, student, teacher, samples)
        calls.append(loss)
        if len(calls) == at_call:
            next(student.parameters()).grad[0] = float("nan")
        return loss

    monkeypatch.setattr(sdzero, "backward_kl", poisoned)


def test_a_nan_stops_the_run_with_its_step_and_batch(tmp_path, checkpoint, coin, monkeypatch):
    cfg = small(checkpoint, out=str(tmp_path / "run"), save_every=1, distil_questions=15)
    poison(monkeypatch, at_call=3)
    with pytest.raises(UserError, match="distil step 2") as e:
        train(cfg)
    assert "bad_batch.json" in str(e.value) and "\n" not in str(e.value)
    batch = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert len(batch) == cfg.distil_batch and {"context", "ids", "reward"} <= set(batch[0])
    marker = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "bad_batch.json" in marker["files"]


@pytest.mark.parametrize("writes", [True, False], ids=["rank 0", "another rank"])
def test_the_bad_batch_is_written_by_rank_0_alone(run_of, writes):
    folder = run_of(small()).folder
    folder.writes = writes
    batch = [{"ids": [1, 2], "old": torch.zeros(2)}]  # tensors are left out
    with pytest.raises(UserError, match="distil step 4"):
        with folder.keeps_bad_batch("distil", 4, batch):
            raise FloatingPointError("the gradient norm became nan")
    file = folder.path / "bad_batch.json"
    assert file.exists() == writes
    assert not writes or json.loads(file.read_text()) == [{"ids": [1, 2]}]


# --------------------------------------------------------------------------------------------------
# Ctrl-C
# --------------------------------------------------------------------------------------------------
def test_the_handler_of_ctrl_c_is_put_back(tmp_path, checkpoint, coin, monkeypatch):
    mine = signal.getsignal(signal.SIGINT)

    def handler(*_):
        pytest.fail("called")

    signal.signal(signal.SIGINT, handler)
    try:
        seen = []
        measure = sdzero.measure

        def watch(*args):
            seen.append(signal.getsignal(signal.SIGINT))
            return measure(*args)

        monkeypatch.setattr(sdzero, "measure", watch)
        train(small(checkpoint, out=str(tmp_path / "a"), method="srt"))
        assert seen[0] is not handler  # within the run it was another
        assert signal.getsignal(signal.SIGINT) is handler
        poison(monkeypatch, at_call=1)
        with pytest.raises(UserError):
            train(small(checkpoint, out=str(tmp_path / "b")))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, mine)


def test_ctrl_c_stops_behind_the_step_at_hand(run_of):
    """The first one asks to stop; the state is saved, and the step is not begun."""
    run = run_of(small(distil_questions=15))
    with kit.run_folder.stops_when_asked(run.folder):
        signal.raise_signal(signal.SIGINT)
        assert run.folder.stop
        with pytest.raises(KeyboardInterrupt):
            sdzero.distil(run, random_model())
        with pytest.raises(KeyboardInterrupt):  # the second one stops at once
            signal.raise_signal(signal.SIGINT)
    assert run.folder.load_state()["step"] == 0
