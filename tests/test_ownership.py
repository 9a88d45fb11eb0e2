"""A run destroys nothing that is not its own, whatever stands in its folder and however it ends."""

import json
import os
import signal
import subprocess
import sys

import pytest
import warm
from toys import (
    HERE,
    Killed,
    message_of,
    new_folder,
    random_model,
    small,
    snapshot,
    train,
)

import kit
import sdzero
from kit.errors import UserError
from kit.files import save_checkpoint
from kit.ownership import Ownership
from kit.run_folder import RunFolder
from studies.runs import own_folder


def options_of(checkpoint, out):
    """The command line of a small run."""
    words = """--method srt --digits 2 --eval-questions 3 --eval-samples 1 --max-tokens 8
        --revisions 2 --srt-questions 6 --distil-questions 6 --temperature 1 --srt-epochs 1
        --srt-batch 4"""
    return [*words.split(), "--model", checkpoint, "--out", str(out)]


def put(file, text="mine"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


# --------------------------------------------------------------------------------------------------
# Somebody else's folder
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fresh", [[], ["--fresh"]], ids=["", "fresh"])
@pytest.mark.parametrize(
    "name", ["config.json", "state/mine.txt", "srt/mine.txt", "results.json", "thesis.tex", ".keep"]
)
def test_a_folder_with_somebodys_files_is_refused(tmp_path, checkpoint, coin, capsys, name, fresh):
    put(tmp_path / "theirs" / name, "{}")
    before = snapshot(tmp_path)
    message = message_of(capsys, sdzero.main, *options_of(checkpoint, tmp_path / "theirs"), *fresh)
    assert "--out" in message and "was not made by a run" in message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "marker",
    [
        "[]",
        "{}",
        '{"files": "all"}',
        '{"files": [7], "options": {}, "content": {}}',
        '{"files": ["../victim.txt"], "options": {}, "content": {}}',
        '{"files": ["srt/../../victim.txt"], "options": {}, "content": {}}',
        '{"files": ["VICTIM"], "options": {}, "content": {}}',
        '{"files": ["."], "options": {}, "content": {}}',
    ],
)
def test_a_marker_removes_nothing_outside_its_folder(tmp_path, fresh, marker):
    victim = put(tmp_path / "victim.txt")
    put(tmp_path / "run" / "run.json", marker.replace("VICTIM", str(victim)))
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="was not written by a run"):
        RunFolder(str(tmp_path / "run"), {"seed": 0}, {}, 20, fresh)
    assert snapshot(tmp_path) == before


def test_a_damaged_marker_is_said_in_one_line(tmp_path):
    put(tmp_path / "run" / "run.json", "{")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="run.json is damaged"):
        new_folder(tmp_path / "run")
    assert snapshot(tmp_path) == before


def test_a_link_out_of_the_folder_is_removed_and_not_followed(tmp_path):
    """What the marker lists may have become a link since: the link goes, not what it shows."""
    folder = new_folder(tmp_path / "run")
    folder.locked.close()
    victim = put(tmp_path / "victim.txt")
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "config.json").symlink_to(victim)
    RunFolder(str(tmp_path / "run"), {}, {}, 20, fresh=True)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "run" / "config.json").is_symlink()


@pytest.mark.parametrize("again", [[], ["--fresh"]], ids=["checkpoint", "fresh"])
def test_a_folder_that_became_a_link_is_not_emptied(tmp_path, checkpoint, coin, capsys, again):
    """srt/ now shows another folder, with files of the same names."""
    command = [*options_of(checkpoint, tmp_path / "run"), "--max-tokens", "12"]
    assert sdzero.main(command) == 0
    (tmp_path / "run" / "srt").rename(tmp_path / "moved")
    (tmp_path / "run" / "srt").symlink_to(tmp_path / "moved")
    before = snapshot(tmp_path / "moved")
    if not again:  # the run's end is to come
        marker = json.loads((tmp_path / "run" / "run.json").read_text())
        (tmp_path / "run" / "run.json").write_text(json.dumps(marker | {"finished": False}))
    assert sdzero.main([*command, *again]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert ("lies behind a link" if again else "was not made by this run") in message
    assert snapshot(tmp_path / "moved") == before


# --------------------------------------------------------------------------------------------------
# Changed code
# --------------------------------------------------------------------------------------------------
def test_a_run_tells_that_its_code_has_changed(tmp_path, checkpoint, coin, capsys, monkeypatch):
    code = put(tmp_path / "code" / "sdzero.py", "loss = kl")
    monkeypatch.setattr(kit.ownership, "CODE", [code, tmp_path / "code" / "baselines.py"])
    command = options_of(checkpoint, tmp_path / "run")
    assert sdzero.main(command) == 0
    first = capsys.readouterr().out
    assert "is finished" not in first and "changed since" not in first
    assert sdzero.main(command) == 0
    again = capsys.readouterr().out
    assert "is finished: nothing is done again" in again and "changed since" not in again
    code.write_text("loss = jensen")
    assert sdzero.main(command) == 0
    assert "note: sdzero.py changed since" in capsys.readouterr().out
    assert sdzero.main([*command, "--fresh"]) == 0
    assert sdzero.main(command) == 0
    assert "changed since" not in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# The model's own folder
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fresh", [[], ["--fresh"]], ids=["", "fresh"])
def test_the_models_folder_is_never_the_run_folder(
    tmp_path, tokenizer, coin, capsys, monkeypatch, fresh
):
    model = tmp_path / "models" / "mm"
    save_checkpoint(tokenizer, random_model(), model)
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "linked models").symlink_to(tmp_path / "models")
    monkeypatch.chdir(tmp_path / "models")
    capsys.readouterr()
    before = snapshot(tmp_path)
    outs = ["mm", "mm/", "../link", "../models/mm", str(model), "..", ".", "../linked models"]
    for source in ("mm", str(model), str(tmp_path / "link"), "../link"):
        for out in outs:
            message = message_of(capsys, sdzero.main, *options_of(source, out), *fresh)
            assert "--out" in message and "must not write over" in message, (source, out)
    assert snapshot(tmp_path) == before


def test_a_folder_inside_the_data_is_refused(tmp_path, capsys, coin):
    """Where the run's own files would be read as questions when it goes on."""
    put(tmp_path / "data" / "q.jsonl", '{"question": "1+1?", "answer": "2"}\n' * 9)
    words = "--data", tmp_path / "data", "--out", tmp_path / "data" / "out" / "run"
    assert "in the folder of --data" in message_of(capsys, sdzero.main, *words)
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data" / "q.jsonl"]


@pytest.mark.parametrize("fresh", [[], ["--fresh"]], ids=["", "fresh"])
def test_a_studys_folder_is_refused(tmp_path, checkpoint, coin, capsys, fresh):
    own_folder(tmp_path / "study", "compare", "results.json")
    put(tmp_path / "study" / "curve.png")
    before = snapshot(tmp_path)
    message = message_of(capsys, sdzero.main, *options_of(checkpoint, tmp_path / "study"), *fresh)
    assert "what a study wrote" in message and snapshot(tmp_path) == before


def test_the_embedded_models_folder_is_refused_too(capsys, coin):
    for out in (HERE / "tiny", HERE):
        before = snapshot(HERE / "tiny")
        assert "--out" in message_of(capsys, sdzero.main, "--out", out, "--fresh")
        assert snapshot(HERE / "tiny") == before


def test_a_run_inside_the_models_folder_leaves_the_model_alone(tmp_path, tokenizer, coin):
    """--model mm --out mm/run is no danger: nothing of the model is written over."""
    save_checkpoint(tokenizer, random_model(), tmp_path / "mm")
    before = snapshot(tmp_path / "mm")
    train(small(str(tmp_path / "mm"), method="srt", out=str(tmp_path / "mm" / "run")))
    after = snapshot(tmp_path / "mm")
    assert {name: after[name] for name in before} == before


# --------------------------------------------------------------------------------------------------
# Somebody's files in a run's own folder
# --------------------------------------------------------------------------------------------------
def test_files_put_into_a_runs_folder_survive_fresh_and_the_run(tmp_path, checkpoint, coin):
    cfg = small(checkpoint, method="srt", out=str(tmp_path / "run"))
    train(cfg)
    mine = [put(tmp_path / "run" / name) for name in ("srt/mine.txt", "notes.txt", "state/a.txt")]
    cfg.fresh = True
    train(cfg)
    assert all(file.read_text() == "mine" for file in mine)
    kit.loading.load_model(small(str(tmp_path / "run" / "srt")))  # and the checkpoint is whole


def test_fresh_removes_all_that_the_run_and_the_studies_made(tmp_path, checkpoint, coin):
    cfg = small(checkpoint, method="srt", out=str(tmp_path / "run"))
    train(cfg)
    studies = ["localise.json", "localise.html", "localise.png", "evolution.png", "log.txt"]
    kit.ownership.own(tmp_path / "run", *studies)
    for name in studies:
        put(tmp_path / "run" / name)
    put(tmp_path / "run" / "localise.txt")  # not in the marker
    cfg.fresh, cfg.seed = True, 3
    train(cfg)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & set(studies) and "localise.txt" in left
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 3


@pytest.mark.parametrize("name", ["revisions.jsonl", "srt/model.safetensors", "srt.tmp/x"])
def test_a_foreign_file_with_a_name_that_the_run_needs_is_refused(
    tmp_path, checkpoint, coin, monkeypatch, name
):
    """It was put there while the run was at work."""
    introduce, file = sdzero.introduce, tmp_path / "run" / name

    def meanwhile(*args):
        put(file)
        return introduce(*args)

    monkeypatch.setattr(sdzero, "introduce", meanwhile)
    with pytest.raises(UserError, match="was not made by this run"):
        train(small(checkpoint, method="srt", out=str(tmp_path / "run")))
    assert file.read_text() == "mine"


def test_studies_own_what_they_write_and_nothing_else(tmp_path):
    new_folder(tmp_path / "run").locked.close()
    put(tmp_path / "run" / "evolution.png")
    with pytest.raises(UserError, match="evolution.png was not made by this run"):
        kit.ownership.own(tmp_path / "run", "evolution.png")
    kit.ownership.own(tmp_path / "run", "localise.json")
    assert "localise.json" in Ownership(tmp_path / "run").marker["files"]


# --------------------------------------------------------------------------------------------------
# Kills at the worst moments
# --------------------------------------------------------------------------------------------------
def files_left(folder):
    return {name for name in snapshot(folder) if (folder / name).is_file()}


def test_a_kill_between_claim_and_write_does_no_harm(tmp_path, checkpoint, coin, monkeypatch):
    """Claimed names whose files never came are no obstacle, neither to going on nor to --fresh."""
    cfg, claims = small(checkpoint, method="srt", out=str(tmp_path / "run")), []
    claim = Ownership.claim

    def killing(self, *names):
        claim(self, *names)
        if set(names) - set(claims):
            claims.extend(names)
            raise Killed

    kills = 0
    with monkeypatch.context() as patch:
        patch.setattr(Ownership, "claim", killing)
        while True:
            try:
                results = train(cfg)
                break
            except Killed:
                kills += 1
    assert kills >= 6 and "srt.tmp/config.json" in claims
    assert train(small(checkpoint, method="srt", out=str(tmp_path / "whole"))) == results
    assert files_left(tmp_path / "run") == files_left(tmp_path / "whole")
    cfg.fresh = True
    assert train(cfg) == results
    assert files_left(tmp_path / "run") == files_left(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["weights written", "old files gone"])
def test_a_kill_in_the_middle_of_a_checkpoint_does_no_harm(
    tmp_path, checkpoint, coin, monkeypatch, moment
):
    cfg = small(checkpoint, method="srt", out=str(tmp_path / "run"))
    forget = Ownership.forget

    def half(tokenizer, model, folder):
        model.save_pretrained(folder)
        raise Killed

    def killed(self, *names):
        forget(self, *names)
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "weights written":
            patch.setattr(kit.run_folder, "save_checkpoint", half)
        else:
            patch.setattr(Ownership, "forget", killed)
        with pytest.raises(Killed):
            train(cfg)
    assert (tmp_path / "run" / "srt.tmp").exists()
    results = train(cfg)
    assert train(small(checkpoint, method="srt", out=str(tmp_path / "whole"))) == results
    assert files_left(tmp_path / "run") == files_left(tmp_path / "whole")
    weights = [tmp_path / n / "srt" / "model.safetensors" for n in ("run", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_kill_at_the_very_end_loses_nothing(tmp_path, checkpoint, coin, monkeypatch):
    """The run is finished before what it would go on from goes; the same command clears up."""
    cfg = small(checkpoint, method="srt", out=str(tmp_path / "run"))
    remove = Ownership.remove

    def killed(self, *names):
        if "state/latest.pt" in names:
            raise Killed
        return remove(self, *names)

    with monkeypatch.context() as patch:
        patch.setattr(Ownership, "remove", killed)
        with pytest.raises(Killed):
            train(cfg)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    before = snapshot(tmp_path / "run" / "srt")
    monkeypatch.setattr(kit.loading, "load_model", lambda *args: pytest.fail("loaded a model"))
    assert train(cfg) == results and snapshot(tmp_path / "run" / "srt") == before
    assert not (tmp_path / "run" / "state").exists()


def test_fresh_removes_a_checkpoint_that_a_kill_cut_off(tmp_path, checkpoint, coin, monkeypatch):
    """Of that one the marker lists config.json alone."""
    cfg = small(checkpoint, method="srt", out=str(tmp_path / "run"))

    def half(tokenizer, model, folder):
        model.save_pretrained(folder)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kit.run_folder, "save_checkpoint", half)
        with pytest.raises(Killed):
            train(cfg)
    assert (tmp_path / "run" / "srt.tmp" / "model.safetensors").is_file()
    cfg.fresh = True
    train(cfg)
    assert not (tmp_path / "run" / "srt.tmp").exists()


# --------------------------------------------------------------------------------------------------
# Two processes
# --------------------------------------------------------------------------------------------------
def test_what_a_study_enters_while_a_run_is_under_way_stays_the_runs(tmp_path):
    run = Ownership(tmp_path)
    run.claim("metrics.jsonl", "srt.tmp/config.json")
    kit.ownership.own(tmp_path, "evolution.png")
    run.forget("srt.tmp/config.json")
    run.claim("figure.png")
    files = Ownership(tmp_path).marker["files"]
    assert sorted(files) == ["evolution.png", "figure.png", "metrics.jsonl"]


OPENS = """
import sys
from kit.errors import UserError
from kit.run_folder import RunFolder
try:
    RunFolder(sys.argv[1], {"seed": 0}, {}, 20, bool(int(sys.argv[2])))
except UserError as e:
    print(e)
"""


def test_two_processes_do_not_share_a_run_folder(tmp_path):
    folder = RunFolder(str(tmp_path / "run"), {"seed": 0}, {}, 20)

    def another(fresh):
        return warm.python("-c", OPENS, folder.path, int(fresh), cwd=HERE)

    def times():  # to read state/lock here would let go of it
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = times()
    for fresh in (False, True):
        assert "another process is at work" in another(fresh).stdout
        assert times() == before
    folder.locked.close()
    done = another(False)
    assert done.stdout == "" and done.returncode == 0, done.stderr


def test_a_killed_process_holds_no_lock(tmp_path):
    """The lock goes with its process: the same command goes on."""
    program = OPENS + "\nprint('open', flush=True)\nimport time; time.sleep(60)"
    command = [sys.executable, "-c", program, str(tmp_path / "run"), "0"]
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    RunFolder(str(tmp_path / "run"), {"seed": 0}, {}, 20)
