"""A run that is killed, stopped or out of disk goes on to the same end, and on the same data."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import warm
from toys import (
    HERE,
    CoinGrader,
    Killed,
    addition,
    end_state,
    killed_at,
    lines_of,
    random_model,
    small,
    snapshot,
    train,
    write_lines,
)

import kit
import sdzero
from kit.errors import UserError
from kit.run_folder import RunFolder

EVERY_STEP = dict(save_every=1, distil_questions=15)

# runs a small configuration in forked children, so that a kill costs no new import of torch
KILLS = """
import os, random, signal, sys, time
sys.path[:0] = {paths!r}
import toys, sdzero, kit
import transformers.models.qwen3.modeling_qwen3  # what children would import
sdzero.make_grader = lambda cfg: toys.CoinGrader()
# drawing takes as long as all the rest
kit.figures.figure = lambda folder, results: (folder / "figure.png").write_bytes(b"drawn")

def child(dtype, out):
    pid = os.fork()
    if not pid:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        code = 1
        try:
            out, steps = "/".join([{folder!r}, dtype, out]), {steps!r}
            toys.train(toys.small({checkpoint!r}, out=out, dtype=dtype, **steps))
            code = 0
        finally:
            os._exit(code)
    return pid

def ended(pid, flags=0):
    pid, status = os.waitpid(pid, flags)
    return os.waitstatus_to_exitcode(status) if pid else None

for dtype in {dtypes!r}:
    start = time.time()
    assert ended(child(dtype, "whole")) == 0
    whole, kills, rng = time.time() - start, 0, random.Random(dtype)
    while True:
        pid = child(dtype, "killed")
        # a start alone takes a part of it
        deadline = time.time() + rng.uniform(0.05, 0.25 if kills < 3 else 0.7) * whole
        while (code := ended(pid, os.WNOHANG)) is None and time.time() < deadline:
            time.sleep(0.005)
        if code is None:
            os.kill(pid, signal.SIGKILL)
            code = ended(pid)  # 0 where it was just about to end
        if code != -signal.SIGKILL:
            assert code == 0, code
            break
        kills += 1
    print(kills)
"""
DTYPES = ["float32", "bfloat16"]


# --------------------------------------------------------------------------------------------------
# Killed
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def kills(tmp_path_factory, checkpoint):
    """(how often a run was killed, the folder of that run and of one that was not) by dtype."""
    folder, paths = tmp_path_factory.mktemp("kills"), [str(HERE), str(HERE / "tests")]
    steps = dict(sync_every=2, save_every=2, distil_questions=18, rollout_batch=4)
    given = dict(checkpoint=checkpoint, folder=str(folder), paths=paths, steps=steps)
    done = warm.python("-c", KILLS.format(dtypes=DTYPES, **given), cwd=HERE)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = done.stdout.split()
    return {dtype: (int(count), folder / dtype) for dtype, count in zip(DTYPES, counts)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_killed_at_many_moments(kills, dtype):
    """SIGKILL after random times, again and again: the run ends, with the same bits."""
    count, folder = kills[dtype]
    assert count >= 3
    assert end_state(folder / "killed") == end_state(folder / "whole")
    assert not (folder / "killed" / "state").exists()


def interrupted(tmp_path, checkpoint, monkeypatch, at_step=3, **changes):
    """A run stopped as by a kill, before phase 2's step `at_step`; its configuration."""
    cfg = small(checkpoint, out=str(tmp_path / "run"), **{**EVERY_STEP, **changes})
    with monkeypatch.context() as patch:
        killed_at(patch, "distil", at_step)
        with pytest.raises(Killed):
            train(cfg)
    return cfg


def test_rollouts_that_were_paid_for_are_not_sampled_again(tmp_path, checkpoint, coin, monkeypatch):
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    state = tmp_path / "run" / "state"
    keys = {line["key"] for line in lines_of(state / "rollouts.jsonl")}
    for label in ("phase 1: first answers/", "phase 1: revisions/", "evaluate srt: greedy/"):
        assert any(key.startswith(label) for key in keys), label
    written, remember = [], RunFolder.remember

    def spy(self, key, batch):
        written.append(key)
        remember(self, key, batch)

    monkeypatch.setattr(RunFolder, "remember", spy)
    train(cfg)
    # two steps of phase 2 and the evaluation were left
    assert written and not keys & set(written)
    assert [key.split("/")[0].split(":")[0] for key in written] == 2 * [""] + 3 * [
        "evaluate sdzero"
    ]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "a bit", "journal cut in mid-line"])
def test_damaged_files_cost_one_state_at_most(
    tmp_path, checkpoint, coin, monkeypatch, capsys, damage
):
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    state = tmp_path / "run" / "state"
    if damage == "journal cut in mid-line":
        whole = (state / "rollouts.jsonl").read_bytes()
        (state / "rollouts.jsonl").write_bytes(whole[:-20])
    else:
        whole = (state / "latest.pt").read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        damaged = {"truncated": whole[:1000], "garbage": b"\0" * 5000, "a bit": flipped}
        (state / "latest.pt").write_bytes(damaged[damage])
    train(cfg)
    assert ("is damaged" in capsys.readouterr().out) == (damage != "journal cut in mid-line")
    train(small(checkpoint, out=str(tmp_path / "other"), **EVERY_STEP))
    assert end_state(tmp_path / "run") == end_state(tmp_path / "other")


def test_a_full_disk_loses_nothing(tmp_path, checkpoint, coin, monkeypatch):
    """torch.save fails half-way: one clear line, and the same command goes on once there is
    room."""
    cfg = small(checkpoint, out=str(tmp_path / "run"), **EVERY_STEP)
    save, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 6:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="No space left") as e:
            train(cfg)
    assert "\n" not in str(e.value) and "same command" in str(e.value)
    train(cfg)
    train(small(checkpoint, out=str(tmp_path / "other"), **EVERY_STEP))
    assert end_state(tmp_path / "run") == end_state(tmp_path / "other")


def test_a_checkpoint_that_does_not_fit_the_disk_loses_nothing(
    tmp_path, checkpoint, coin, monkeypatch
):
    """Files of 30 kB at most, of which a model has more: one line, no half of it, and the same
    command goes on once there is room."""
    resource = pytest.importorskip("resource")
    cfg, save = small(checkpoint, out=str(tmp_path / "run")), kit.files.save_checkpoint
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def without_room(*args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
        try:
            save(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with monkeypatch.context() as patch:
        patch.setattr(kit.run_folder, "save_checkpoint", without_room)
        patch.setattr(signal, "SIGXFSZ", signal.SIGXFSZ)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python starts with
        with pytest.raises(UserError, match="too large") as e:
            train(cfg)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "\n" not in str(e.value) and "same command" in str(e.value)
    assert not list((tmp_path / "run").glob("srt*"))
    train(cfg)
    train(small(checkpoint, out=str(tmp_path / "other")))
    assert end_state(tmp_path / "run") == end_state(tmp_path / "other")


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, checkpoint, coin, monkeypatch, capsys):
    """A real SIGINT to a real run."""
    options = """--no-phase1 --srt-questions 1 --distil-questions 600 --distil-batch 3 --digits 2
        --eval-questions 2 --eval-samples 1 --max-tokens 12"""
    words = ["--model", checkpoint, *options.split(), "--out", "run"]
    said = tmp_path / "stderr"
    files = [tmp_path / "stdout", said]
    process = warm.start([HERE / "sdzero.py", *words], tmp_path, {}, files)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.time() + 120
    while not (metrics.exists() and '"distil"' in metrics.read_text()):
        assert process.is_alive() and time.time() < deadline, said.read_text()[-2000:]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    stderr = said.read_text()
    assert process.exitcode == 130, stderr[-2000:]
    assert "goes on from here" in stderr and "Traceback" not in stderr
    steps = len(re.findall('"distil"', metrics.read_text()))
    # the same command, in this process, which has imported torch
    monkeypatch.chdir(tmp_path)
    killed_at(monkeypatch, "distil", (steps // 20 + 1) * 20)  # that it goes on is enough
    with pytest.raises(Killed):
        sdzero.main(words)
    assert f"going on from distil step {steps}" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# Another configuration, and other data, in the same folder
# --------------------------------------------------------------------------------------------------
def test_other_options_are_refused_by_name_and_fresh_starts_anew(
    tmp_path, checkpoint, coin, monkeypatch
):
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    changed = dict(out=cfg.out, distil_lr=5e-4, seed=3, **EVERY_STEP)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="distil_lr") as e:
        train(small(checkpoint, **changed))
    assert "seed 0 (now 3)" in str(e.value) and "srt_lr" not in str(e.value)
    assert "--fresh" in str(e.value) and snapshot(tmp_path) == before
    note = tmp_path / "run" / "notes.txt"
    note.write_text("mine")
    train(small(checkpoint, fresh=True, **changed))
    assert note.read_text() == "mine"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 3


def change_a_question(cfg, monkeypatch):
    rows = lines_of(cfg.data)
    rows[7]["answer"] = str(int(rows[7]["answer"]) + 1)
    write_lines(cfg.data, rows)


def change_the_template(cfg, monkeypatch):
    file = Path(cfg.chat_template)
    file.write_text(file.read_text().replace("<Q>", "<A question>"))


def change_the_weights(cfg, monkeypatch):
    file = Path(cfg.model) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def change_the_end_tokens(cfg, monkeypatch):
    file = Path(cfg.model) / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [2, 3]}))


def change_the_phrases(cfg, monkeypatch):
    phrases = sdzero.Phrases("Good.", "Bad.")
    monkeypatch.setattr(sdzero, "control_phrases", lambda cfg, model_type: phrases)


def change_the_revisers_prompt(cfg, monkeypatch):
    reviser_ids = sdzero.reviser_ids

    def changed(run, context, response, reward):
        return reviser_ids(run, context, response, reward) + [5]

    monkeypatch.setattr(sdzero, "reviser_ids", changed)


def change_the_generators_prompt(cfg, monkeypatch):
    chat_ids = sdzero.chat_ids
    monkeypatch.setattr(sdzero, "chat_ids", lambda *args: [*chat_ids(*args), 5])


CHANGES = {
    change_a_question: "questions",
    change_the_template: "chat template",
    change_the_weights: "model.safetensors",
    change_the_end_tokens: "generation_config.json",
    change_the_phrases: "prompts",
    change_the_revisers_prompt: "prompts",
    change_the_generators_prompt: "prompts",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    """(configuration, folder with all that it reads and wrote) of a run on a file, a template and
    a model of its own: a test works on a copy."""
    folder = tmp_path_factory.mktemp("data")
    kit.files.save_checkpoint(tokenizer, random_model(), folder / "model")
    (folder / "t.jinja").write_text("{% for m in messages %}<Q>{{ m['content'] }}</Q>{% endfor %}")
    rows = [{**addition(10 + i, 20 + i)} for i in range(30)]
    write_lines(folder / "q.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
        patch.setattr(kit.figures, "figure", lambda folder, results: None)
        cfg = replace(
            small("model", task="math", data="q.jsonl", chat_template="t.jinja", out="run"),
            **EVERY_STEP,
        )
        with patch.context() as kill:
            killed_at(kill, "distil", 3)
            with pytest.raises(Killed):
                train(cfg)
        shutil.copytree(folder, folder.parent / (folder.name + " killed"))
        train(cfg)
    return cfg, folder


@pytest.mark.parametrize("moment", ["killed", "finished"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_run_on_other_content_is_refused_by_name(
    finished, tmp_path, monkeypatch, coin, change, moment
):
    cfg, source = finished
    if moment == "killed":
        source = source.parent / (source.name + " killed")
    shutil.copytree(source, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    change(cfg, monkeypatch)
    before = snapshot(tmp_path / "copy" / "run")
    with pytest.raises(UserError) as e:
        train(cfg)
    message = str(e.value)
    assert "\n" not in message and "--fresh" in message and "run" in message
    named = message[message.index("changed: ") : message.index(". ")]
    assert CHANGES[change] in named
    others = set(CHANGES.values()) - {CHANGES[change], "prompts"}
    assert not any(other in named for other in others)
    assert snapshot(tmp_path / "copy" / "run") == before


def test_the_same_content_goes_on(finished, tmp_path, monkeypatch, coin):
    """... where the run was copied to; nothing was refused for the place alone."""
    cfg, source = finished
    killed = source.parent / (source.name + " killed")
    shutil.copytree(killed, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    train(cfg)
    assert end_state(tmp_path / "copy" / "run") == end_state(source / "run")


def test_the_journal_knows_its_prompts_even_where_nobody_asks(
    tmp_path, checkpoint, coin, monkeypatch
):
    """Were the check of the content to fail, no batch would be recalled for other prompts."""
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    state = tmp_path / "run" / "state"
    keys = {line["key"] for line in lines_of(state / "rollouts.jsonl")}
    for file in ("latest.pt", "previous.pt"):
        (state / file).unlink()
    monkeypatch.setattr(kit.run_folder, "differ", lambda *args: None)
    change_the_generators_prompt(cfg, monkeypatch)
    recalled, recall = [], RunFolder.recall

    def spy(self, key):
        batch = recall(self, key)
        recalled.extend([key] if batch is not None else [])
        return batch

    monkeypatch.setattr(RunFolder, "recall", spy)
    train(cfg)
    assert keys and not recalled
