"""A run that is killed, stopped, or shared by two processes ends as one that was not.   pytest -q test_resume.py"""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sdzero
from test_sdzero import END_IDS, as_samples, checkpoint, coin, gradients, phrases, random_model, rows_of_ids, small, tokenizer  # noqa: F401

HERE = Path(sdzero.__file__).parent
# a program that runs a small configuration in a forked child, so that a kill costs no new import of torch
PROGRAM = """
import json, os, random, signal, sys, time
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
import sdzero, test_sdzero, verify
verify.Grader = test_sdzero.CoinGrader
import transformers, transformers.models.qwen3.modeling_qwen3, matplotlib.pyplot  # what the children would import

def child(cfg):
    pid = os.fork()
    if not pid:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        code = 1
        try:
            sdzero.run(cfg)
            code = 0
        finally:
            os._exit(code)
    return pid

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def python(source: str, timeout=240, **kwargs):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(here=str(HERE)) + source], capture_output=True, text=True, timeout=timeout,
                          cwd=HERE, **kwargs)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def end_state(folder: Path) -> dict:
    """What must not depend on how often a run was killed."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"results": (folder / "results.json").read_text(), "revisions": (folder / "revisions.jsonl").read_text(),
            "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in metrics],
            "srt": (folder / "srt" / "model.safetensors").read_bytes(), "sdzero": (folder / "sdzero" / "model.safetensors").read_bytes()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_killed_at_many_moments(tmp_path, checkpoint, dtype):  # noqa: F811
    """SIGKILL after random times, again and again: the run ends, with the same bits; rollouts once journalled are not sampled again."""
    out = python(f"""
from dataclasses import replace
cfg = test_sdzero.small({checkpoint!r}, dtype={dtype!r}, sync_every=2, save_every=2, distil_questions=24, rollout_batch=4)
start = time.time()
assert wait(child(replace(cfg, out={str(tmp_path / "whole")!r}))) == 0
whole, kills, rng = time.time() - start, 0, random.Random({dtype!r})
while True:
    pid = child(replace(cfg, out={str(tmp_path / "killed")!r}))
    deadline = time.time() + rng.uniform(0.05, 0.25 if kills < 3 else 0.6) * whole  # a start alone takes a part of it
    while time.time() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            break
        time.sleep(0.005)
    else:
        os.kill(pid, signal.SIGKILL)
        wait(pid)
        kills += 1
        continue
    break
print(kills)
""")
    assert int(out) >= 3
    assert end_state(tmp_path / "killed") == end_state(tmp_path / "whole")
    assert not (tmp_path / "killed" / "state").exists()


def interrupted(tmp_path, checkpoint, monkeypatch, at_step=3, **changes):  # noqa: F811
    """A run stopped as by a kill, before phase 2's step `at_step`; returns its configuration."""
    cfg = small(checkpoint, out=str(tmp_path / "run"), save_every=1, distil_questions=15, **changes)

    class Killed(BaseException):
        pass

    original = sdzero.RunFolder.checkpoint

    def killing(self, phase, step, *state):
        original(self, phase, step, *state)
        if phase == "distil" and step == at_step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sdzero.RunFolder, "checkpoint", killing)
        with pytest.raises(Killed):
            sdzero.run(cfg)
    return cfg


def test_paid_rollouts_are_not_sampled_again(tmp_path, checkpoint, coin, monkeypatch):  # noqa: F811
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    before = (tmp_path / "run" / "state" / "rollouts.jsonl").read_text().splitlines()
    keys = {json.loads(line)["key"] for line in before}
    assert "init/0" in keys and "distil 2/0" in keys and any(k.startswith("evaluate srt") for k in keys)
    written = []
    original = sdzero.RunFolder.remember
    monkeypatch.setattr(sdzero.RunFolder, "remember", lambda self, key, batch: (written.append(key), original(self, key, batch)))
    sdzero.run(cfg)
    assert written and not keys & set(written)
    assert written[0] == "distil 3/0"


@pytest.mark.parametrize("damage", ["truncated", "garbage", "journal cut in mid-line"])
def test_damaged_files_cost_one_state_at_most(tmp_path, checkpoint, coin, monkeypatch, capsys, damage):  # noqa: F811
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    state = tmp_path / "run" / "state"
    if damage == "journal cut in mid-line":
        whole = (state / "rollouts.jsonl").read_bytes()
        (state / "rollouts.jsonl").write_bytes(whole[:-20])
    else:
        whole = (state / "latest.pt").read_bytes()
        (state / "latest.pt").write_bytes(whole[:1000] if damage == "truncated" else b"\0" * 5000)
    sdzero.run(cfg)
    said = capsys.readouterr().out
    assert ("is damaged" in said) == (damage != "journal cut in mid-line")
    sdzero.run(small(checkpoint, out=str(tmp_path / "other"), save_every=1, distil_questions=15))
    assert end_state(tmp_path / "run") == end_state(tmp_path / "other")


def test_another_configuration_is_refused_and_fresh_starts_anew(tmp_path, checkpoint, coin, monkeypatch):  # noqa: F811
    cfg = interrupted(tmp_path, checkpoint, monkeypatch)
    changed = {"distil_lr": 5e-4, "seed": 3}
    with pytest.raises(sdzero.UserError, match="distil_lr") as e:
        sdzero.run(small(checkpoint, out=cfg.out, save_every=1, distil_questions=15, **changed))
    assert "seed 0 (now 3)" in str(e.value) and "srt_lr" not in str(e.value) and "--fresh" in str(e.value)
    note = tmp_path / "run" / "notes.txt"
    note.write_text("mine")
    sdzero.run(small(checkpoint, out=cfg.out, save_every=1, distil_questions=15, fresh=True, **changed))
    assert note.read_text() == "mine" and json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 3


@pytest.mark.parametrize("fresh", [False, True])
def test_two_processes_do_not_share_a_run_folder(tmp_path, checkpoint, coin, fresh):  # noqa: F811
    cfg = small(checkpoint, out=str(tmp_path / "run"))
    folder = sdzero.RunFolder(cfg)
    code = "import sys, sdzero, test_sdzero\ntry: sdzero.RunFolder(test_sdzero.small(sys.argv[1], out=sys.argv[2], fresh=bool(int(sys.argv[3]))))\n" \
           "except sdzero.UserError as e: print(e)"
    run = lambda: subprocess.run([sys.executable, "-c", code, checkpoint, cfg.out, str(int(fresh))], cwd=HERE, capture_output=True, text=True)  # noqa: E731
    assert "another process is at work" in run().stdout and (tmp_path / "run" / "config.json").is_file()
    folder.locked.close()
    assert run().stdout == ""


def test_a_finished_run_only_prints_its_table(tmp_path, checkpoint, coin, capsys, monkeypatch):  # noqa: F811
    cfg = small(checkpoint, out=str(tmp_path / "run"))
    results = sdzero.run(cfg)
    monkeypatch.setattr(sdzero, "load_tokenizer_and_model", lambda *a: pytest.fail("loaded a model"))
    capsys.readouterr()
    assert sdzero.run(cfg) == results and "correction rate" in capsys.readouterr().out


def test_a_disk_that_is_full_loses_nothing(tmp_path, checkpoint, coin, monkeypatch):  # noqa: F811
    """torch.save fails half-way: one clear line, and the same command goes on once there is room."""
    cfg = small(checkpoint, out=str(tmp_path / "run"), save_every=1, distil_questions=15)
    original, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 6:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(sdzero.UserError, match="No space left") as e:
            sdzero.run(cfg)
    assert "\n" not in str(e.value) and "same command" in str(e.value)
    sdzero.run(cfg)
    sdzero.run(small(checkpoint, out=str(tmp_path / "other"), save_every=1, distil_questions=15))
    assert end_state(tmp_path / "run") == end_state(tmp_path / "other")


def test_a_nan_stops_the_run_with_its_step_and_batch(tmp_path, checkpoint, coin, monkeypatch):  # noqa: F811
    cfg = small(checkpoint, out=str(tmp_path / "run"), save_every=1, distil_questions=15)
    original, calls = sdzero.distil_on, []

    def poisoned(student, *args):
        loss = original(student, *args)
        calls.append(loss)
        if len(calls) == 3:
            next(student.parameters()).grad[0] = float("nan")
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(sdzero, "distil_on", poisoned)
        with pytest.raises(sdzero.UserError, match="distil step 2") as e:
            sdzero.run(cfg)
    assert "bad_batch.json" in str(e.value)
    batch = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert len(batch) == cfg.distil_batch and {"context", "ids", "reward"} <= set(batch[0])


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    """A real SIGINT to a real run."""
    argv = [sys.executable, str(HERE / "sdzero.py"), "--srt-questions", "96", "--distil-questions", "160", "--eval-questions", "10",
            "--eval-samples", "1", "--digits", "2", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.time() + 120
    while not (metrics.exists() and '"distil"' in metrics.read_text()):
        assert process.poll() is None and time.time() < deadline, process.stderr.read()[-2000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "goes on from here" in stderr and "Traceback" not in stderr
    steps = len(re.findall('"distil"', metrics.read_text()))
    again = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert again.returncode == 0 and f"going on from distil step {steps}" in again.stdout


TWO_RANKS = """
import json, sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
import torch.distributed as dist
import sdzero, test_sdzero, make_tiny
dist.init_process_group("gloo")
model, teacher = test_sdzero.random_model(1), test_sdzero.random_model(2)
tokenizer = make_tiny.make_tokenizer()
phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(sdzero.Config(), "qwen3"))
rows = test_sdzero.rows_of_ids(7)
loss = sdzero.distil_on(model, teacher, test_sdzero.as_samples(rows), test_sdzero.small(micro_tokens={budget}), phrases, test_sdzero.END_IDS)
distil = test_sdzero.gradients(model)
model.zero_grad()
nll = sdzero.train_on(model, rows, sum(len(r) for _, r in rows), test_sdzero.small(micro_tokens={budget}))
torch.save((loss, distil, nll, test_sdzero.gradients(model)), {out!r} + str(sdzero.rank()))
sdzero.leave_together()
"""


@pytest.mark.parametrize("budget", [60, 100_000])  # the second leaves one rank without a micro-batch
def test_two_ranks_give_the_gradient_of_one(tmp_path, phrases, budget):  # noqa: F811
    script = tmp_path / "two.py"
    script.write_text(TWO_RANKS.format(here=str(HERE), out=str(tmp_path / "rank"), budget=budget))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)],
                          capture_output=True, text=True, timeout=180, cwd=HERE)
    assert done.returncode == 0, done.stderr[-2000:]
    model, rows = random_model(1), rows_of_ids(7)
    loss = sdzero.distil_on(model, random_model(2), as_samples(rows), small(), phrases, END_IDS)
    distil = gradients(model)
    model.zero_grad()
    nll = sdzero.train_on(model, rows, sum(len(r) for _, r in rows), small())
    for rank in "01":
        got = torch.load(tmp_path / f"rank{rank}")
        assert got[0] == pytest.approx(loss, rel=1e-5) and got[2] == pytest.approx(nll, rel=1e-5)
        assert (got[1] - distil).norm() < 1e-5 * distil.norm() and (got[3] - gradients(model)).norm() < 1e-5 * gradients(model).norm()


def test_a_run_under_two_ranks(tmp_path):
    """The default command under torchrun; the first rank writes, the other is silent, and the rollouts are those of one process."""
    argv = ["--srt-questions", "48", "--distil-questions", "16", "--eval-questions", "10", "--eval-samples", "1", "--digits", "2",
            "--rollout-batch", "8"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, launcher in (("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]), ("one", [])):
        done = subprocess.run([sys.executable, *launcher, str(HERE / "sdzero.py"), *argv, "--out", str(tmp_path / name)],
                              capture_output=True, text=True, timeout=240, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("correction rate %") == 1
    two, one = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("two", "one"))
    assert two["base"] == one["base"] and set(two) == set(one)
    revisions = [[json.loads(line)["revised_ids"] for line in (tmp_path / n / "revisions.jsonl").read_text().splitlines()] for n in ("two", "one")]
    assert revisions[0] == revisions[1]
