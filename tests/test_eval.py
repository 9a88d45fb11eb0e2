"""eval.py: checkpoints side by side, runs averaged, and what it says of a mistake."""

import json
import time
from dataclasses import asdict

import pytest
from toys import message_of, python, small, write_lines

import baselines
import eval as evaluation
import kit
import sdzero
from studies import runs

RESULT_FIELDS = {
    "accuracy",
    "accuracy_ci",
    "accuracy_greedy",
    "mean_tokens",
    "truncated",
    "revised_accuracy",
    "correction_rate",
    "n",
}


# --------------------------------------------------------------------------------------------------
# Checkpoints and runs
# --------------------------------------------------------------------------------------------------
def test_eval_compares_checkpoints(finished_run, coin, capsys, tmp_path):
    folder, results = finished_run
    checkpoints = [str(folder / "srt"), str(folder / "sdzero")]
    file = tmp_path / "eval.json"
    assert evaluation.main([*checkpoints, "--revise", "--json", str(file)]) == 0
    out, report = capsys.readouterr().out, json.loads(file.read_text())

    assert list(report["checkpoints"]) == checkpoints
    assert report["questions"] == 5 and report["samples_per_question"] == 2
    for path, name in zip(checkpoints, ("srt", "sdzero")):
        # the run's own questions, seeds and settings: the run's own numbers
        for key in RESULT_FIELDS:
            assert report["checkpoints"][path][key] == results[name][key], key
        passes = report["checkpoints"][path]["pass_at_k"]
        assert passes["2"] >= passes["1"] == pytest.approx(results[name]["accuracy"])

    assert set(report["against_first"]) == {checkpoints[1]}
    assert 0 < report["against_first"][checkpoints[1]]["accuracy"]["p"] <= 1
    for words in ("avg@2", "pass@2", "greedy", "correction rate", "sign-flip", "cut off"):
        assert words in out
    assert "mended %" in out and "net correction %" in out and "(revised - first)" in out
    r = report["checkpoints"][checkpoints[0]]
    net = (r["revised_accuracy"] - r["initial_accuracy"]) / (1 - r["initial_accuracy"])
    assert r["net_correction_rate"] == pytest.approx(net)


def test_without_revise_nothing_is_revised(finished_run, coin, capsys):
    folder, _ = finished_run
    assert evaluation.main([str(folder / "srt"), "--eval-samples", "1"]) == 0
    out = capsys.readouterr().out
    assert "avg@1" in out and "correction rate" not in out and "paired" not in out


def test_a_file_is_asked_whole_unless_a_split_is_given(finished_run, coin, capsys, tmp_path):
    folder, _ = finished_run
    rows = [{"question": f"{i}+1?", "answer": i + 1} for i in range(30)] + [{"question": "?"}]
    file = write_lines(tmp_path / "q.jsonl", rows)
    words = [str(folder / "srt"), "--data", file, "--max-tokens", "4", "--eval-samples", "1"]

    def asked(*more):
        target = tmp_path / "eval.json"
        assert evaluation.main([*words, *more, "--json", str(target)]) == 0
        report = json.loads(target.read_text())
        return report["split"], report["questions"]

    assert asked() == ("all", 30)
    assert "1 of 31 rows left out: line 31" in capsys.readouterr().out
    assert asked("--eval-questions", "7") == ("all", 7)
    split, of_test = asked("--split", "test")
    assert split == "test" and 1 <= of_test < 30
    assert asked("--split", "val")[0] == "val" == asked("--eval-split", "val")[0]
    assert asked("--split", "srt")[1] + asked("--split", "distil")[1] + 2 * of_test <= 30
    capsys.readouterr()
    message = message_of(capsys, evaluation.main, folder / "srt", "--split", "all")
    assert "--data file" in message


def test_runs_are_averaged(finished_run, capsys, tmp_path):
    folder, results = finished_run
    file = tmp_path / "mean.json"
    assert evaluation.main([str(folder), str(folder), "--json", str(file)]) == 0
    assert "mean of 2 runs" in capsys.readouterr().out
    mean = json.loads(file.read_text())
    assert list(mean) == ["base", "srt", "sdzero"]
    for stage in mean:
        assert mean[stage]["accuracy"]["values"] == [results[stage]["accuracy"]] * 2


def test_checkpoint_of_a_baseline_is_measured_as_its_run_was(checkpoint, coin, tmp_path, capsys):
    cfg = baselines.make_baseline_config(
        method="rft", model=checkpoint, out=str(tmp_path / "run"), digits=2, samples=12
    )
    cfg.eval_questions, cfg.eval_samples, cfg.max_tokens, cfg.epochs = 5, 2, 12, 1
    results = sdzero.train(cfg, baselines.stages_of(cfg))
    file = tmp_path / "eval.json"
    assert evaluation.main([str(tmp_path / "run" / "rft"), "--json", str(file)]) == 0
    measured = json.loads(file.read_text())["checkpoints"][str(tmp_path / "run" / "rft")]
    for key in ("accuracy", "accuracy_greedy", "scores", "mean_tokens"):
        assert measured[key] == results["rft"][key]
    assert evaluation.main([str(tmp_path / "run")]) == 0
    assert "\nrft" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"srt_questions": 0}, {"distil_questions": 0}])
def test_checkpoint_of_a_run_without_one_phase(checkpoint, tmp_path, coin, changes):
    """A set of questions that was empty for the run is no contradiction for a measurement."""
    cfg = small(checkpoint, **changes)
    saved = kit.run_folder.options_of(cfg)
    (tmp_path / "run" / "sdzero").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    options = runs.options_of_their_run([str(tmp_path / "run" / "sdzero")])
    made = sdzero.make_config(evaluation.EvalConfig, model=checkpoint, **options)
    for name in ("srt_questions", "distil_questions", "eval_questions", "temperature"):
        assert getattr(made, name) == getattr(cfg, name)


# --------------------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------------------
def test_checkpoints_that_drew_their_questions_with_another_seed_are_named(tmp_path, capsys):
    """Of so many additions of two digits the second run may have trained on the first one's test
    questions. Rows of a file are in the same sets whatever the seed."""
    drawn = {"a": (0, "arith"), "b": (1, "arith"), "c": (0, "arith"), "d": (2, "math")}
    for name, (seed, task) in drawn.items():
        (tmp_path / name / "sdzero").mkdir(parents=True)
        saved = asdict(small(seed=seed, task=task))
        (tmp_path / name / "config.json").write_text(json.dumps(saved))
    runs.tell_of_other_seeds([str(tmp_path / name / "sdzero") for name in "abcd"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note:") and "b/sdzero drew its own with --seed 1" in line


def test_help_is_quick_and_does_without_torch():
    source = """
import sys, eval as evaluation
for words in (["--help"], ["compare", "--help"], ["localise", "--help"], ["evolve", "--help"],
    ["bench", "--help"], ["paper", "--help"], ["watch", "--help"], ["page", "--help"],
    ["card", "--help"], ["copied", "--help"]):
    try:
        evaluation.main(words)
    except SystemExit as end:
        assert end.code == 0
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    start = time.time()
    out = python(source)
    assert time.time() - start < 2 * 4
    for verb in (
        "compare",
        "localise",
        "evolve",
        "bench",
        "paper",
        "watch",
        "page",
        "card",
        "copied",
    ):
        assert f"python eval.py {verb}" in out and f"usage: eval.py {verb}" in out


@pytest.mark.parametrize(
    "words, near",
    [
        (["comapre"], "compare"),
        (["localize", "out/x"], "localise"),
        (["evolv"], "evolve"),
        (["tiny", "--revize"], "--revise"),
        (["compare", "--bugdets", "96"], "--budgets"),
        (["localise", "out/x", "--anwsers", "3"], "--answers"),
        (["evolve", "out/x", "--hepl"], "--help"),
    ],
)
def test_a_mistyped_word_is_said_with_the_near_one(capsys, words, near):
    message = message_of(capsys, evaluation.main, *words)
    assert message.startswith("eval: ") and f"did you mean {near}?" in message


def test_a_checkpoint_may_be_called_like_a_verb(finished_run, coin, capsys, tmp_path, monkeypatch):
    folder, _ = finished_run
    (tmp_path / "compared").symlink_to(folder / "srt")
    monkeypatch.chdir(tmp_path)
    assert evaluation.main(["compared", "--eval-questions", "2", "--max-tokens", "4"]) == 0


def test_missing_checkpoints_are_said_in_one_line(capsys, tmp_path):
    message = message_of(capsys, evaluation.main, tmp_path / "missing")
    assert message.startswith("eval: ") and "no such folder" in message


def test_options_given_hold_over_those_of_the_run(finished_run, monkeypatch):
    """... of a recipe with evaluation settings of its own, too."""
    folder, _ = finished_run
    saved = runs.read_options(folder) | {"eval_temperature": 0.7, "eval_max_tokens": 32_768}
    monkeypatch.setattr(evaluation, "options_of_their_run", lambda _: runs.measuring_options(saved))
    seen = []
    monkeypatch.setattr(evaluation, "evaluate_checkpoints", lambda cfg, asked: seen.append(cfg))
    monkeypatch.setattr(evaluation, "checkpoints_report", lambda out, revise: "")
    words = [str(folder / "sdzero"), "--max-tokens", "16", "--temperature", "0.2"]
    assert evaluation.main(words) == 0 and evaluation.main(words[:1]) == 0
    of_eval = [
        (c.eval_temperature or c.temperature, c.eval_max_tokens or c.max_tokens) for c in seen
    ]
    assert of_eval == [(0.2, 16), (0.7, 32_768)]


def test_a_comparisons_folder_is_no_run(tmp_path, capsys):
    (tmp_path / "results.json").write_text('{"rows": [], "failed": []}')
    assert evaluation.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and str(tmp_path) in said


def test_runs_and_checkpoints_do_not_mix(finished_run, capsys):
    folder, _ = finished_run
    message = message_of(capsys, evaluation.main, folder, folder / "srt")
    assert "run folder" in message and f"{folder / 'sdzero'}" in message


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(capsys, tmp_path):
    file = tmp_path / "missing" / "eval.json"
    assert "there is no folder" in message_of(capsys, evaluation.main, "tiny", "--json", file)
