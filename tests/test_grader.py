"""The Grader: batches, threads, forks, workers that die, the command line."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from corpora import ROOT, block

import verify
from grading import workers


def test_a_comparison_that_runs_too_long_is_killed_and_counted():
    roots = [rf"\sqrt{{{n}}}" for n in range(2, 46)]
    # Right, but about a second and a half of work
    slow = r"\boxed{" + ",".join(roots) + "}", ",".join(roots[::-1])
    with verify.Grader("math", workers=1, timeout=0.2) as grader:
        assert grader.grade([slow[0], r"\boxed{7}"], [slow[1], "7"]) == [0.0, 1.0]
        assert grader.timeouts == 1


def test_plain_numbers_are_compared_at_once():
    count = 10_000
    with verify.Grader("math") as grader:
        responses = [rf"7+5=12;\boxed{{{i:05d}}}" for i in range(count)]
        golds = [str(i) for i in range(count)]
        started = time.process_time()
        assert grader.grade(responses, golds) == [1.0] * count
        assert time.process_time() - started < 1  # CPU seconds of this process: about 0.1
        assert not any(grader.pool.idle.queue), "no worker is needed for that"


def test_a_dead_worker_is_replaced():
    with verify.Grader("math", workers=1) as grader:
        assert grader.grade([r"\boxed{\frac{2}{4}}"], [r"\frac{1}{2}"]) == [1.0]
        os.kill(grader.pool.idle.queue[0].process.pid, 9)
        assert grader.grade([r"\boxed{\frac{2}{6}}"], [r"\frac{1}{3}"]) == [1.0]


def test_from_threads():
    rewards = []

    def ask():
        rewards.append(verify.math_reward(r"\boxed{\frac{3}{6}}", r"\frac12"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rewards == [1.0] * 8


def test_workers_are_handed_out_in_the_order_of_asking(monkeypatch):
    turns, got = workers.Turns(["worker"]), []
    assert turns.get() == "worker"

    def ask(number):
        worker = turns.get()
        got.append(number)
        turns.put(worker)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        while len(turns._waiting) < number:
            time.sleep(0.001)
    turns.put("worker")
    for thread in threads:
        thread.join()
    assert got == [0, 1, 2, 3, 4] and turns.queue == ["worker"]
    # Who has waited long enough gets a worker more, and there are no more than before when all is
    # done.
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.05)
    assert turns.get() == "worker" and turns.get() is None
    turns.put(None)
    turns.put("worker")
    assert turns.queue == ["worker"]


def test_from_a_forked_child():
    verify.math_reward(r"\boxed{\frac{3}{6}}", r"\frac12")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if verify.math_reward(r"\boxed{\frac{5}{10}}", r"\frac12") == 1.0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert verify.math_reward(r"\boxed{\frac{4}{8}}", r"\frac12") == 1.0


def test_workers_end_with_their_owner():
    source = r"""
import os, verify
grader = verify.Grader("math", workers=1)
rewards = grader.grade([r"\boxed{1/2}"], ["0.5"])
print(rewards, grader.pool.idle.queue[0].process.pid, flush=True)
os._exit(0)
"""
    done = python(source, cwd=ROOT)
    assert done.stdout.startswith("[1.0]"), done.stderr
    assert gone(int(done.stdout.split()[1]))


def python(source, **options):
    """Run a text in an interpreter of its own."""
    command = [sys.executable, "-c", source]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def gone(pid, seconds=20):
    """Whether a process has ended, or does so soon."""
    deadline = time.monotonic() + seconds
    while runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def runs(pid):
    """Whether a process is there, and no zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_import_is_light():
    source = """
import sys, verify
print([name for name in ("torch", "sympy", "math_verify", "numpy") if name in sys.modules])
"""
    assert python(source, cwd=ROOT).stdout.strip() == "[]"


def test_workers_start_from_anywhere(tmp_path):
    """From a directory with files that are named like modules, and with a path set by hand."""
    for name in ("json.py", "re.py", "sympy.py", "grading.py", "parse.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')\n")
    source = f"""
import sys
sys.path[0] = {str(ROOT)!r}
import verify
print(verify.math_reward(r"\\boxed{{\\frac12}}", "0.5"))
"""
    done = python(source, cwd=tmp_path)
    assert done.stdout.strip() == "1.0", done.stderr


def test_misuse_of_a_grader_is_an_error(math_grader):
    with pytest.raises(ValueError):
        verify.Grader("poetry")
    with pytest.raises(ValueError):
        math_grader.grade([r"\boxed{1}"], [])
    closed = verify.Grader("math")
    closed.close()
    with pytest.raises(RuntimeError):
        closed.grade(["a"], ["b"])


def test_command_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    items = [
        {"response": r"\boxed{1/2}", "gold": "0.5"},
        {"response": r"\boxed{3}", "answer": "4"},
        {"response": "no idea", "gold": "4"},
        {"gold": "4"},
        {"response": "x"},
    ]
    can_run = verify.sandbox_level()[0] != "limits"
    if can_run:
        items += [
            {"response": block("print(input())"), "inputs": ["1\n"], "outputs": ["1\n"]},
            {"response": block("print(2)"), "tests": [{"input": "1\n", "output": "1\n"}]},
        ]
    file.write_text("\n".join(map(json.dumps, items)) + "\nnot json\n")
    done = subprocess.run(
        [sys.executable, ROOT / "verify.py", file], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for words in (
        f"accuracy {1 + can_run}/{len(items) + 1}",
        "items/s",
        "bad rows 3   time-outs 0",
        "row 2: '3' is not '4'",
        "row 3: no final answer",
        "row 4: bad row",
        "row 5: bad row",
        f"row {len(items) + 1}: bad row",
    ):
        assert words in done.stdout
