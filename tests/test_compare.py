"""eval.py compare: every row of a table is a run of one of two programs."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toys import addition, lines_of, message_of, snapshot, write_lines

import baselines
import eval as evaluation
import kit
import sdzero
from kit.errors import UserError
from kit.options import parse_options
from studies import compare, programs
from studies.statistics import over_runs

# the smallest runs, of the embedded model, that still show what they should
FAST = ["--digits", "2", "--eval-questions", "6", "--eval-samples", "8", "--max-tokens", "32"]
SFT = "SFT on demonstrations"


@pytest.fixture
def started(monkeypatch):
    return in_this_process(monkeypatch)


def in_this_process(patch) -> list:
    """The programs run in this process, without waiting seconds for torch, and draw no figure of
    each run. Holds the command lines that were started."""
    commands = []

    def run(command, stdout, **_):
        commands.append(command)
        program = {"sdzero.py": sdzero, "baselines.py": baselines}[Path(command[1]).name]
        stdout.write("started in the test's process\n")
        return SimpleNamespace(returncode=program.main(command[2:]))

    patch.setattr(compare.subprocess, "run", run)
    patch.setattr(kit.figures, "figure", lambda folder, results: None)
    return commands


def compared(out, *words) -> int:
    return evaluation.main(["compare", "--out", str(out), "--jobs", "1", *FAST, *words])


def results_of(out, name="results.json"):
    return json.loads((out / name).read_text())


# --------------------------------------------------------------------------------------------------
# Whole comparisons
# --------------------------------------------------------------------------------------------------
def test_each_row_is_trained_once_and_reported_as_measured(tmp_path, capsys, started):
    out = tmp_path / "compare"
    words = ["--seeds", "2", "--budgets", "24,48", "--rows", f"SD-Zero,{SFT},GRPO"]
    words += ["--srt-epochs", "2"]
    assert compared(out, *words) == 0
    result, printed = results_of(out), capsys.readouterr().out
    assert len(started) == 12 and not result["failed"]
    assert f"lacks it: --srt-epochs for {SFT}, GRPO\n" in printed
    rows = {(r["method"], r["budget"]): r for r in result["rows"]}
    places = [("SD-Zero", 24), (SFT, 24), ("GRPO", 24), ("SD-Zero", 48), (SFT, 48), ("GRPO", 48)]
    assert list(rows) == [("base", 0), *places]

    ours, sft = rows["SD-Zero", 48], rows[SFT, 48]
    assert ours["samples"]["values"] == [48, 48] and ours["seeds"] == [0, 1]
    assert rows["GRPO", 24]["samples"]["values"] == [24, 24] and sft["samples"]["mean"] == 0
    for i, seed in enumerate(ours["seeds"]):  # the table says what the run says
        run = results_of(out / "runs" / f"sd-zero-48-{seed}")
        assert ours["accuracy"]["values"][i] == run["sdzero"]["accuracy"]
        assert rows["base", 0]["accuracy"]["values"][i] == run["base"]["accuracy"]
        right_once = np.mean([any(question) for question in run["sdzero"]["scores"]])
        assert ours["pass_at_k"]["values"][i] == right_once
        other = results_of(out / "runs" / f"sft-on-demonstrations-24-{seed}")
        assert other["base"] == run["base"]
        last = lines_of(out / "runs" / f"sd-zero-48-{seed}" / "metrics.jsonl")[-1]
        assert ours["trained_tokens"]["values"][i] == last["trained"] > 0

    lead = sft["sdzero_leads_by"]["accuracy"]
    assert lead["mean"] == pytest.approx(ours["accuracy"]["mean"] - sft["accuracy"]["mean"])
    assert SFT in printed and "[12/12]" in printed
    assert (out / "curve.png").stat().st_size > 10_000
    page = (out / "page.html").read_text()
    assert SFT in page and page.count("python sdzero.py") == 2 and f"page: {out}" in printed

    before = snapshot(out / "runs")
    assert compared(out, *words) == 0  # finished runs are kept
    assert len(started) == 12 and snapshot(out / "runs") == before
    assert results_of(out)["rows"] == result["rows"]


def test_a_row_has_settings_of_its_own(tmp_path):
    given = ["--rows", "SD-Zero,RFT,GRPO", "--lr", "1e-4", "--budgets", "96", "--seeds", "1"]
    given += ["--own", "SD-Zero: --srt-share 0.5; GRPO: --lr 1e-5 --batch 8"]
    given = parse_options([*given, "--out", str(tmp_path)], compare.CompareConfig, "")
    cfg = compare.CompareConfig(**given)
    jobs = compare.jobs_of(cfg, compare.passed_to_programs(given))
    made = {job.row: programs.config_of(job.options) for job in jobs}
    assert [made[row].lr for row in ("RFT", "GRPO")] == [1e-4, 1e-5] and made["GRPO"].batch == 8
    assert made["SD-Zero"].srt_share == 0.5 and made["RFT"].batch != 8


def test_a_finished_run_is_not_mixed_with_one_of_other_options(tmp_path, capsys, started):
    out = tmp_path / "compare"
    words = ["--seeds", "1", "--budgets", "24", "--rows", SFT]
    assert compared(out, *words) == 0
    before = snapshot(out / "runs")
    assert compared(out, *words, "--lr", "5e-4") == 1
    said = capsys.readouterr()
    assert "other options: lr 0.001 (now 0.0005)" in said.out and "failed: " in said.err
    assert len(started) == 1 and snapshot(out / "runs") == before


def test_it_goes_on_where_it_was_stopped(tmp_path, capsys, monkeypatch, started):
    out = tmp_path / "compare"
    words = ["--seeds", "1", "--budgets", "24", "--rows", f"{SFT},SD-Zero"]
    run = compare.subprocess.run

    def stopped(command, **how):
        if Path(command[1]).name == "sdzero.py":
            raise KeyboardInterrupt
        return run(command, **how)

    with monkeypatch.context() as patch:
        patch.setattr(compare.subprocess, "run", stopped)
        assert compared(out, *words) == 130
    assert "goes on from here" in capsys.readouterr().err
    # what compare wrote ahead of the run is the run's: it takes it over
    waiting = out / "runs" / "sd-zero-24-0"
    marker = json.loads((waiting / "run.json").read_text())
    assert set(marker["files"]) == {"log.txt", "results.json"} and not marker["options"]
    base = results_of(waiting)
    assert list(base) == ["base"]

    assert compared(out, *words) == 0
    assert [Path(command[1]).name for command in started] == ["baselines.py", "sdzero.py"]
    assert results_of(waiting)["base"] == base["base"]
    metrics = (waiting / "metrics.jsonl").read_text()
    assert metrics and "log.txt" in json.loads((waiting / "run.json").read_text())["files"]


def test_a_run_is_a_process_whose_failure_is_said(tmp_path, capsys, monkeypatch):
    """With numbers that it never saw, cut off, the embedded model has nothing right."""
    out = tmp_path / "compare"
    words = ["--seeds", "1", "--budgets", "8", "--digits", "12", "--max-tokens", "8"]
    words += ["--jobs", "2", "--eval-questions", "2", "--epochs", "1"]
    with monkeypatch.context() as patch:
        in_this_process(patch)
        assert compared(out, *words, "--rows", SFT) == 0  # it is kept
    assert compared(out, *words, "--rows", f"RFT,{SFT}") == 1
    said, result = capsys.readouterr(), results_of(out)
    assert "none of 8 samples was right" in said.err and "baselines.py rft" in said.err
    assert len(result["failed"]) == 1 and "ended with code 2" in result["failed"][0]
    assert [r["method"] for r in result["rows"]] == ["base", SFT]
    assert (out / "runs" / "rft-8-0" / "log.txt").read_text().strip()


@pytest.mark.parametrize("what", ["--data, q.jsonl", "the file of --reward"])
def test_finished_runs_on_other_content_are_not_shown_again(tmp_path, capsys, started, what):
    """A question that was edited, or the grader: the same command would stand old beside new."""
    rows = [addition(10 + i, 20 + i) for i in range(60)]
    data, mine = tmp_path / "q.jsonl", tmp_path / "mine.py"
    write_lines(data, rows)
    mine.write_text("def right(response, question):\n    return 1\n")
    words = ["--seeds", "1", "--budgets", "24", "--rows", "RFT", "--data", str(data)]
    words += ["--epochs", "1", "--reward", f"{mine}:right"]
    out = tmp_path / "compare"
    assert compared(out, *words) == 0
    before = snapshot(out / "runs")
    if "reward" in what:
        mine.write_text("def right(response, question):\n    return len(response) % 2\n")
    else:
        write_lines(data, [addition(77, 11), *rows[1:]])
    capsys.readouterr()
    said = message_of(capsys, evaluation.main, "compare", "--out", out, "--jobs", 1, *FAST, *words)
    assert f"other content; what changed: {what}. " in said
    assert snapshot(out / "runs") == before and len(started) == 1


def test_two_shards_of_one_name_are_told_apart(tmp_path, checkpoint):
    for part in ("a", "b"):
        (tmp_path / "data" / part).mkdir(parents=True)
        write_lines(tmp_path / "data" / part / "q.jsonl", [addition(10, 20)])
    cfg = sdzero.make_config(model=checkpoint, data=str(tmp_path / "data"))
    compare.keep_content(tmp_path / "out", cfg)
    compare.keep_content(tmp_path / "out", cfg)
    write_lines(tmp_path / "data" / "a" / "q.jsonl", [addition(11, 20)])
    with pytest.raises(UserError, match="what changed: --data, a.q.jsonl. "):
        compare.keep_content(tmp_path / "out", cfg)


def test_a_row_that_took_less_than_its_budget_is_named():
    rows = [
        {"method": "base", "budget": 0, "samples": {"mean": 0}},
        {"method": "SFT", "budget": 100, "samples": {"mean": 0}},
        {"method": "RFT", "budget": 100, "samples": {"mean": 100}},
        {"method": "SD-Zero", "budget": 100, "samples": {"mean": 30}},
    ]
    [said] = compare.short_of_samples(rows)
    assert said.startswith("SD-Zero took 30 of 100 samples")


def test_fresh_removes_what_compare_wrote_into_a_runs_folder(tmp_path, started):
    out = tmp_path / "compare"
    assert compared(out, "--seeds", "1", "--budgets", "24", "--rows", SFT) == 0
    folder, command = out / "runs" / "sft-on-demonstrations-24-0", started[0]
    assert (folder / "log.txt").is_file()
    assert baselines.main([*command[2:], "--fresh"]) == 0
    assert not (folder / "log.txt").exists() and (folder / "results.json").is_file()


# --------------------------------------------------------------------------------------------------
# What it refuses
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "words, message",
    [
        (["--budgets", "a,b"], "whole numbers"),
        (["--budgets", "0"], "1 sample at least"),
        (["--rows", "PPO"], "no row 'PPO'"),
        (["--budgets", "2"], "too few"),
        (["--seed", "3"], "--seeds"),
        (["--samples", "96"], "--budgets"),
        (["--fresh"], "remove its folder"),
        (["--rows", "SD-Zero", "--kl", "0.1"], "none of these rows has --kl"),
        (["--table", "ablations", "--epochs", "2"], "none of these rows has --epochs"),
        (["--srt-lr", "-1"], "--srt-lr must be above 0"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tabel", "methods"], "did you mean --table?"),
        (["--own", "PPO: --lr 1e-5"], "no row 'PPO'"),
        (["--own", "SD-Zero: --lr 1e-5"], "--lr cannot be SD-Zero's own"),
        (["--own", "RFT: --seed 3"], "--seed cannot be RFT's own"),
        (["--own", "RFT: --epochs many"], "--epochs"),
        (["--own", "RFT: --chat-template 'plain"], "--own, RFT: no closing quotation"),
        (["--own", "RFT: --eval-questions 3"], "--eval-questions cannot be RFT's own"),
        (["--own", "RFT: --epochs 2; RFT: --lr 1e-5"], "names RFT twice"),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_is_written(tmp_path, capsys, words, message):
    out = tmp_path / "compare"
    said = message_of(capsys, evaluation.main, "compare", "--out", out, *words)
    assert message in said and not out.exists()


@pytest.mark.parametrize("kind", ["somebody's", "a run's"])
def test_folders_that_are_not_a_comparisons_are_refused(tmp_path, capsys, started, kind):
    (tmp_path / "results.json").write_text("{}")
    if kind == "a run's":
        marker = {"files": ["results.json"], "options": {"model": "tiny"}, "content": {}}
        (tmp_path / "run.json").write_text(json.dumps(marker))
    before = snapshot(tmp_path)
    said = message_of(capsys, evaluation.main, "compare", "--out", tmp_path)
    assert ("not made by a run" if kind == "somebody's" else "holds a run") in said
    assert snapshot(tmp_path) == before and not started


def test_a_run_does_not_take_a_comparisons_folder_over(tmp_path, capsys, started):
    out = tmp_path / "compare"
    assert compared(out, "--seeds", "1", "--budgets", "24", "--rows", SFT) == 0
    before = snapshot(out)
    capsys.readouterr()
    assert "what a study wrote" in message_of(capsys, sdzero.main, "--out", out)
    assert snapshot(out) == before


def test_a_folder_in_the_way_of_a_run_is_left_alone(tmp_path, capsys, started):
    out = tmp_path / "compare"
    mine = out / "runs" / "sft-on-demonstrations-24-0" / "notes.txt"
    words = ["--seeds", "1", "--budgets", "24", "--rows", f"{SFT},SD-Zero"]
    assert compared(out, "--seeds", "1", "--budgets", "24", "--rows", "SD-Zero") == 0
    mine.parent.mkdir()
    mine.write_text("mine")
    assert compared(out, *words) == 1
    assert "was not made by a run" in capsys.readouterr().err
    assert mine.read_text() == "mine" and len(list(mine.parent.iterdir())) == 1


# --------------------------------------------------------------------------------------------------
# The tables
# --------------------------------------------------------------------------------------------------
def configs(table, samples, **given):
    """{row: what its program makes of its options}"""
    made = {}
    for row, own in compare.table_of(table, given, samples).items():
        options = {"samples": samples, **programs.of_program(given, own), **own}
        made[row] = programs.config_of({**options, "out": "x"})
    return made


def test_the_table_of_ablations_has_the_accuracy_behind_srt_too():
    measured = dict(samples=9, trained_tokens=9, seconds=1, accuracy=0.5, accuracy_ci=[0.4, 0.6])
    measured |= dict(accuracy_greedy=0.5, accuracy_greedy_ci=[0.4, 0.6], mean_tokens=7.0)
    measured |= dict(revised_accuracy=0.75, revised_accuracy_ci=[0.7, 0.8], correction_rate=None)
    measured |= dict(correction_rate_ci=None, net_correction_rate=0.5, k=4, pass_at_k=0.9)
    of_srt = dict(srt_accuracy=0.25, srt_accuracy_ci=[0.2, 0.3])
    rows = [{"method": "base", **over_runs([measured])}]
    rows.append({"method": "SD-Zero", **over_runs([measured | of_srt])})
    rows.append({"method": "no SRT", **over_runs([measured | dict.fromkeys(of_srt)])})
    text = compare.comparison_table({"table": "ablations", "rows": rows})
    heading, base, ours, without, *definition = text.splitlines()
    assert "after SRT: sampled %" in heading and "pass@4 %" in heading
    assert "mended %" in heading and "net correction %" in heading and "(revised" in text
    assert "25.0 [20.0, 30.0]" in ours and "25.0 [" not in base + without
    assert "after SRT" not in compare.comparison_table({"table": "methods", "rows": rows})


def test_every_row_of_the_tables_is_a_run_of_its_own():
    for table, n in (("methods", 9), ("ablations", 18)):
        made = configs(table, 4608)
        assert len(made) == n == len({repr(cfg) for cfg in made.values()})
        for cfg in made.values():
            assert programs.last_stage_of(cfg) == cfg.method


def test_rows_of_the_embedded_model_have_the_epochs_they_were_tuned_for():
    made = configs("methods", 4608)
    assert made["SD-Zero"].srt_epochs == 16 and made["SD-Zero with L_answer"].srt_epochs == 32
    rft, on_revisions = made["RFT"], made["RFT on verified revisions"]
    assert (rft.epochs, rft.rounds) == (16, 1) and on_revisions.epochs == 32
    assert (made["iterated RFT"].epochs, made["iterated RFT"].rounds) == (8, 8)
    assert (made["GRPO"].group, made["GRPO"].batch, made["GRPO"].lr) == (8, 32, 5e-4)
    assert on_revisions.on_revisions and on_revisions.srt_share == 1.0

    other = configs("methods", 60000, model="another")
    assert other["SD-Zero with L_answer"].srt_epochs == other["SD-Zero"].srt_epochs == 3
    assert {other[row].epochs for row in ("RFT", "iterated RFT", "RFT on verified revisions")} == {
        3
    }


def test_what_was_given_holds_for_every_row_that_has_it():
    made = configs("methods", 4608, srt_epochs=1, epochs=2, temperature=0.5)
    for row, cfg in made.items():
        assert cfg.temperature == 0.5
        if isinstance(cfg, baselines.BaselineConfig):
            expected = 2 if cfg.method in ("rft", "sft") else baselines.BaselineConfig.epochs
            assert cfg.epochs == expected, row
        else:
            assert cfg.srt_epochs == 1, row


def test_longer_phase_2_has_the_usual_phase_1():
    longer, usual = configs("ablations", 4608), sdzero.make_config(samples=4608)
    for row in ("phase 2 longer", "phase 2 longer, 2 rounds"):
        assert longer[row].srt_questions == usual.srt_questions and longer[row].samples == 6912
    given = {"model": "another", "revisions": 7}
    longer = configs("ablations", 60000, **given)["phase 2 longer"]
    usual = sdzero.make_config(**given, samples=60000)
    assert longer.srt_questions == usual.srt_questions and longer.samples == 90000


def test_options_that_a_program_lacks_are_left_out_and_said_so():
    rows = {"SD-Zero": {}, "RFT": {"method": "rft"}, "GRPO": {"method": "grpo"}}
    given = {"srt_lr": 1e-3, "epochs": 2, "kl": 0.1, "temperature": 0.5, "flip_reward": True}
    said = compare.left_out(given, rows)
    assert "\n" not in said
    for words in ("--srt-lr for RFT, GRPO", "--epochs for SD-Zero, GRPO", "--kl for SD-Zero, RFT"):
        assert words in said
    assert "temperature" not in said and not compare.left_out({"temperature": 0.5}, rows)
    left = programs.of_program(given, {"method": "grpo"})
    assert left == {"kl": 0.1, "temperature": 0.5, "flip_reward": True}


@pytest.mark.parametrize("row", ["SD-Zero", "iterated RFT", "SDFT", "SRT (phase 1 alone)"])
def test_a_rows_command_line_makes_its_configuration(row, monkeypatch):
    options = {"samples": 4608, **compare.table_of("methods", {}, 4608)[row], "out": "x"}
    _, program, *words = programs.command_of(options)
    assert Path(program).is_file()
    module = baselines if programs.is_baseline(options) else sdzero
    seen = []
    monkeypatch.setattr(module, "train", lambda cfg, stages: seen.append(cfg))
    assert module.main(words) == 0
    assert asdict(seen[0]) == asdict(programs.config_of(options))


# --------------------------------------------------------------------------------------------------
# The evaluation of the base, which rows share
# --------------------------------------------------------------------------------------------------
def test_the_base_is_shared_where_the_same_was_asked():
    cfg = sdzero.make_config(samples=4608)
    saved, base = asdict(cfg), {"n": cfg.eval_questions}
    assert compare.same_base(saved, base, cfg)
    assert compare.same_base(saved | {"srt_questions": 1, "srt_lr": 1.0}, base, cfg)
    for name in ("seed", "temperature", "eval_samples", "eval_split", "phrase_if_wrong", "model"):
        assert not compare.same_base(saved | {name: "another"}, base, cfg)
    assert not compare.same_base({}, base, cfg)


def test_the_base_is_not_shared_where_a_small_file_may_have_shrunk_the_test_set():
    cfg = sdzero.make_config(model="another", data="few.jsonl", samples=4608)
    saved, n = asdict(cfg), cfg.eval_questions
    more = saved | {"srt_questions": cfg.srt_questions + 9}
    fewer = saved | {"srt_questions": cfg.srt_questions - 9}
    assert compare.same_base(saved, {"n": n - 5}, cfg)  # the same sets
    assert compare.same_base(more, {"n": n}, cfg)  # whole where more was wanted: whole here
    assert not compare.same_base(more, {"n": n - 5}, cfg)
    assert not compare.same_base(fewer, {"n": n}, cfg)
