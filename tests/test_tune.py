"""The search for settings: the same chance for every row, and a log that it goes on from."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toys import message_of, small

import eval as evaluation
import sdzero
from kit.errors import DeadEnd, UserError
from studies import tune
from studies.programs import config_of, is_variant
from studies.tune import Trial

SEARCH = tune.read_search(str(tune.SEARCH / "ranges.json"))


def quality(options):
    """What a made-up run scores: more with each epoch, and a little by the learning rate."""
    return options["srt_epochs"] / 100 + options["srt_lr"] + options["seed"] / 1e6


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """tune(*words) on a search of one row, whose runs are made up: (what was run, exit code)."""
    search = json.loads((tune.SEARCH / "ranges.json").read_text())
    ranges = {"srt_epochs": list(range(1, 9)), "srt_lr": [0.0001, 0.0002]}
    search |= {"rows": {"SD-Zero": {"fixed": {}, "ranges": ranges}}}
    (tmp_path / "ranges.json").write_text(json.dumps(search))
    runs = []

    def run(options, out, phase1):
        runs.append(options)
        result = dict.fromkeys((*tune.SHOWN, *tune.REVISED), quality(options))
        return result | {"trained": 10, "seconds": 1.0, "pass_at_k": 1.0}

    def pool(workers, context, initializer):
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(tune, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(tune, "run_trial", run)

    def start(*words):
        before = len(runs)
        files = ["--ranges", tmp_path / "ranges.json", "--log", tmp_path / "log.jsonl"]
        words = ["tune", *files, "--out", tmp_path / "out", "--jobs", 1, *words]
        code = evaluation.main([str(word) for word in words])
        return runs[before:], code

    return start


def test_halving_keeps_the_best_of_each_rung_and_the_winner_meets_new_questions(made_up, capsys):
    runs, code = made_up()
    assert code == 0
    per_rung = {}
    for options in runs:
        key = options["samples"], options["seed"], options["eval_split"]
        per_rung.setdefault(key, []).append(options["srt_epochs"])
    counts = {key: len(values) for key, values in per_rung.items()}
    final = {(n, seed, "test"): 1 for n in (1536, 4608) for seed in SEARCH["final"]["seeds"]}
    rungs = {(512, 20, "val"): 16, (1536, 20, "val"): 8, (1536, 21, "val"): 4}
    assert counts == rungs | {(4608, 20, "val"): 4, (4608, 21, "val"): 2} | final
    assert sorted(per_rung[1536, 20, "val"]) == [5, 5, 6, 6, 7, 7, 8, 8]
    assert all(per_rung[key] == [8] for key in final)
    said = capsys.readouterr().out
    assert "--srt-epochs 8 --srt-lr 0.0002" in said and f"{len(runs)} runs are in" in said


def test_a_winner_that_fails_on_a_final_seed_is_right_nowhere_there(made_up, tmp_path, capsys):
    made_up()
    log = tmp_path / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    for record in records:
        if record["split"] == "test" and record["seed"] == SEARCH["final"]["seeds"][0]:
            record["result"] = {"accuracy": 0.0, "failed": "none was right"}
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    capsys.readouterr()
    assert made_up()[0] == []
    said = capsys.readouterr().out
    mean = 100 * (4 * 0.0802) / 5  # of the other four, and of nothing
    assert "SD-Zero (1 of 5 failed)" in said and f"{mean:.1f} [" in said


def test_a_line_that_a_kill_cut_off_costs_that_one_alone(made_up, tmp_path, capsys):
    whole, _ = made_up("--no-final")
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:50])  # no end of line
    assert made_up("--no-final")[0] == whole[-2:]
    assert made_up("--no-final") == ([], 0)


def test_it_goes_on_where_it_stopped(made_up, tmp_path, capsys):
    whole, _ = made_up("--no-final")
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:50] + "\n")  # killed as it wrote
    again, _ = made_up("--no-final")
    assert again == whole[-3:]
    assert "cannot be read" in capsys.readouterr().out
    assert made_up("--no-final") == ([], 0)


def test_minutes_that_are_over_begin_nothing(made_up, capsys):
    runs, _ = made_up("--minutes", "1e-9")
    assert runs == [] and "left" in capsys.readouterr().out


def test_every_row_has_as_many_draws_and_each_can_be_run():
    """read_search has made a configuration of each; the draws are what a row's ranges allow."""
    for row, described in SEARCH["rows"].items():
        drawn = tune.draws_of(row, SEARCH)
        assert len({json.dumps(one) for one in drawn}) == SEARCH["draws"] >= 16
        for one in drawn:
            assert all(one[name] in values for name, values in described["ranges"].items())
        assert drawn == tune.draws_of(row, SEARCH)


def test_a_variant_differs_from_its_row_in_what_makes_it_one_alone():
    rows = SEARCH["rows"]
    variants = [row for row in rows if "variant_of" in rows[row]]
    assert {"averaged teacher", "blind: P0 whatever the verdict", "top-k"} <= set(variants)
    for row in variants:
        pairs = zip(tune.draws_of(rows[row]["variant_of"], SEARCH), tune.draws_of(row, SEARCH))
        for one, varied in pairs:
            assert {name: varied[name] for name in one} == one
            assert set(varied) - set(one) == set(rows[row]["ranges"])


def test_of_two_alike_the_one_drawn_first_goes_on():
    trials = [Trial("SD-Zero", number, 512, 20, "val") for number in (3, 1, 2)]
    done = dict(zip(trials, [{"accuracy": 0.5}, {"accuracy": 0.5}, {"accuracy": 0.6}]))
    assert tune.ranked("SD-Zero", done, 512) == [2, 1, 3]


def test_search_and_test_share_neither_seeds_nor_questions():
    searched = {seed for rung in SEARCH["rungs"] for seed in rung["seeds"]}
    assert not searched & set(SEARCH["final"]["seeds"])
    assert len(SEARCH["final"]["seeds"]) == 5
    assert SEARCH["measure"]["eval_split"] == "val"


def test_the_committed_log_is_of_this_search():
    """Each line's options are those that the ranges file gives, and no trial stands there twice."""
    file = tune.SEARCH / "log.jsonl"
    seen = set()
    for line in file.read_text().splitlines() if file.is_file() else []:
        record = json.loads(line)
        trial = Trial(*(record[name] for name in Trial._fields))
        assert trial not in seen
        seen.add(trial)
        assert record["options"] == tune.options_of(trial, SEARCH), trial


def test_a_log_of_another_search_is_refused(made_up, tmp_path, capsys):
    made_up("--no-final")
    log, file = (tmp_path / "log.jsonl").read_text(), tmp_path / "ranges.json"
    search = json.loads(file.read_text())
    search["rows"]["SD-Zero"]["ranges"]["srt_lr"] = [0.0001, 0.0003]
    file.write_text(json.dumps(search))
    capsys.readouterr()
    assert made_up() == ([], 2)
    assert "is the log of another search: SD-Zero #" in capsys.readouterr().err
    assert (tmp_path / "log.jsonl").read_text() == log


@pytest.fixture
def as_small(monkeypatch):
    """Trials are small runs, whatever their samples."""

    def config_of(options):
        return small(**{name: value for name, value in options.items() if name != "samples"})

    monkeypatch.setattr(tune, "config_of", config_of)


@pytest.mark.usefixtures("as_small")
def test_a_trial_trains_and_measures_on_its_questions(coin, checkpoint, tmp_path):
    options = {"model": checkpoint, "eval_split": "val", "samples": 12}
    result = tune.run_trial(options, str(tmp_path / "run"))
    assert 0 <= result["accuracy"] <= 1 and result["trained"] > 0 and "failed" not in result
    assert not (Path(tmp_path) / "run" / "sdzero").exists()  # no checkpoint is kept


@pytest.mark.usefixtures("as_small", "coin")
def test_a_variant_takes_the_phase_1_that_another_trained(checkpoint, tmp_path, monkeypatch):
    """And ends where it would have ended with one of its own, to the bit."""
    ended = []  # the weights of each run

    def measured(run, model, *rest, **named):
        ended.append(model.state_dict())
        return {"accuracy": 0.5, **dict.fromkeys(tune.SHOWN)}

    monkeypatch.setattr(sdzero, "evaluate", measured)
    options = {"model": checkpoint, "eval_split": "val"}
    variant = {**options, "divergence": "forward", "distil_lr": 1e-3}
    phase1 = tmp_path / "phase1"
    alone = tune.run_trial(variant, str(tmp_path / "a"))
    tune.run_trial(options, str(tmp_path / "b"), str(phase1))
    assert len(list(phase1.iterdir())) == 1

    monkeypatch.setattr(sdzero, "collect_revisions", None)  # phase 1 cannot be run again
    taken = tune.run_trial(variant, str(tmp_path / "c"), str(phase1))
    assert taken["trained"] == alone["trained"] > 0
    same = [ended[0][name].equal(ended[2][name]) for name in ended[0]]
    assert all(same) and not all(ended[0][name].equal(ended[1][name]) for name in ended[0])

    for name, value in {"seed": 1, "srt_lr": 2e-3, "phrase_if_right": "Why?"}.items():
        with pytest.raises(TypeError):  # it tries to collect revisions
            tune.run_trial({**options, name: value}, str(tmp_path / name), str(phase1))


@pytest.mark.usefixtures("as_small", "coin")
def test_a_full_disk_is_no_configurations_fault(checkpoint, tmp_path, monkeypatch):
    def fails(run, model):
        raise UserError("latest.pt cannot be written")

    monkeypatch.setattr(tune, "stages_of", lambda cfg: [sdzero.Stage("srt", "srt", fails)])
    with pytest.raises(UserError, match="cannot be written"):
        tune.run_trial({"model": checkpoint}, str(tmp_path / "run"))


@pytest.mark.usefixtures("as_small", "coin")
def test_training_that_cannot_go_on_is_worth_nothing(checkpoint, tmp_path, monkeypatch):
    def fails(run, model):
        raise DeadEnd("none of 5 revisions was verified")

    monkeypatch.setattr(tune, "stages_of", lambda cfg: [sdzero.Stage("srt", "srt", fails)])
    result = tune.run_trial({"model": checkpoint}, str(tmp_path / "run"))
    assert result == {"accuracy": 0.0, "failed": "none of 5 revisions was verified"}


@pytest.mark.usefixtures("as_small", "coin")
def test_what_is_no_fault_of_the_configuration_stops_the_search(checkpoint, tmp_path):
    """A folder that another search left behind is not written into the log as a configuration that
    is worth nothing."""
    out = str(tmp_path / "run")
    tune.run_trial({"model": checkpoint, "method": "srt"}, out)
    with pytest.raises(UserError, match="other options"):
        tune.run_trial({"model": checkpoint, "seed": 1}, out)


def test_ranges_that_cannot_be_searched_are_refused(tmp_path, capsys):
    def message(search, *words):
        (tmp_path / "r.json").write_text(json.dumps(search))
        words = ["--ranges", tmp_path / "r.json", "--log", tmp_path / "l.jsonl", *words]
        return message_of(capsys, evaluation.main, "tune", *words)

    assert "it lacks draws" in message({"rows": {}})
    few = {**SEARCH, "rows": {"RFT": {"fixed": {"method": "rft"}, "ranges": {"epochs": [1, 2]}}}}
    assert "RFT has 2 configurations" in message(few)
    wrong = {**SEARCH, "rows": {"RFT": {"fixed": {}, "ranges": {"epochs": list(range(16))}}}}
    assert "RFT: its program has no --epochs" in message(wrong)
    assert "no such row: RTF" in message(SEARCH, "--rows", "RTF")


def test_rows_of_variants_are_run_by_their_program():
    for row, described in SEARCH["rows"].items():
        options = {**tune.draws_of(row, SEARCH)[0], **described["fixed"], "samples": 512}
        cfg = config_of(options)
        assert is_variant(options) == (type(cfg).__name__ == "VariantConfig")
