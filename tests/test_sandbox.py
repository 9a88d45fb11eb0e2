"""What a hostile program cannot do."""

import os
import socket
import time
from pathlib import Path

import pytest
from corpora import ROOT, block, rows, wrong_rows

import verify
from grading.workers import Worker


def test_hostile_programs_and_canaries(code_grader, tmp_path):
    items = rows("programs_hostile.jsonl")
    assert len({row["kind"] for row in items}) >= 40 and not any(row["reward"] for row in items)
    # Programs of this test itself, that reach for things of this process: a file, a port, its life.
    secret = tmp_path / "secret.txt"
    secret.write_text("91823")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    port, me = listener.getsockname()[1], os.getpid()
    tests = {"inputs": ["1 2\n"], "outputs": ["3\n"], "time_limit": 1}
    aims = {
        "reads my file": f"open({str(secret)!r}).read()",
        "writes my file": f"open({str(secret)!r}, 'w').write('x')",
        "makes a file": f"open({str(tmp_path / 'new')!r}, 'w').close()",
        "connects to me": "import socket\n"
        f"socket.create_connection(('127.0.0.1', {port}), timeout=1)",
        "kills me": f"import os\nos.kill({me}, 9)",
        "reads my environment": f"open('/proc/{me}/environ').read()",
        "reads my memory": f"open('/proc/{me}/mem', 'rb').read(1)",
        "my working directory": f"import os\nos.listdir({str(ROOT)!r})",
    }
    for kind, source in aims.items():
        response = block(source + "\nprint(sum(map(int, input().split())))")
        items.append({"kind": kind, "response": response, "tests": tests, "reward": 0})
    shared_before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    started = time.monotonic()
    assert wrong_rows(code_grader, items, "tests") == []
    assert time.monotonic() - started < 15 * len(items)
    assert secret.read_text() == "91823" and os.listdir(tmp_path) == ["secret.txt"]
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    assert shared_before >= (set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set())
    for path in ("/usr", "/usr/lib", "/", "/etc", "/dev", "/var/tmp"):
        assert not os.path.exists(os.path.join(path, "verify-canary"))
    # Only these programs: another test may run its own at the same time.
    sleepers = {verify.last_program(row["response"]) or "" for row in items}
    sleepers = {program.strip() for program in sleepers if "sleep" in program}
    alive = [line for line in processes() if any(program in line for program in sleepers)]
    assert sleepers and alive == [], "a program is still alive"
    assert wrong_rows(code_grader, rows("programs.jsonl")[:5], "tests") == []


def processes():
    """The command lines of the programs on this machine that a sandbox has started."""
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if b"-X utf8 -c" in line:
            lines.append(line.decode("utf-8", "replace"))
    return lines


HELD_BY_LANDLOCK = (
    "reads",
    "writes",
    "signals by",
    "changes",
    "socket",
    "connects",
    "kills",
    "fork",
    "clone",
    "removes",
    "exec",
    "unix",
    "limits",
    "mount",
)


@pytest.mark.usefixtures("isolated")
def test_the_second_level_holds_too(monkeypatch):
    """Where namespaces are not allowed, Landlock and the system-call filter stand alone."""
    probe = Worker("code", "landlock")
    if not isinstance(probe.ask(None, 120), dict):
        pytest.skip("this kernel has no Landlock")
    probe.kill()
    monkeypatch.setattr(verify, "sandbox_level", lambda: ("landlock", "by force"))
    hostile = [
        row for row in rows("programs_hostile.jsonl") if row["kind"].startswith(HELD_BY_LANDLOCK)
    ]
    right = [
        row
        for row in rows("programs.jsonl")
        if row["reward"] and "file" not in row["kind"] and row["kind"] != "/dev/stdin"
    ]
    with verify.Grader("code", workers=4) as grader:
        assert wrong_rows(grader, hostile + right, "tests") == []


def test_below_the_minimum_it_refuses(monkeypatch):
    monkeypatch.setattr(verify, "sandbox_level", lambda: ("limits", verify.LEVELS["limits"]))
    monkeypatch.setattr(verify, "_shared", {})
    with pytest.raises(RuntimeError, match="unsafe"):
        verify.Grader("code")
    good, tests = block("print(int(input()) + 1)"), {"inputs": ["1\n"], "outputs": ["2\n"]}
    assert verify.code_reward(good, tests) == 0.0
    # A harmless program
    with verify.Grader("code", workers=1, unsafe=True) as grader:
        assert grader.grade([good, good], [tests, {**tests, "outputs": ["3\n"]}]) == [1.0, 0.0]


def test_an_unknown_level_is_no_level():
    assert not isinstance(Worker("code", "none").ask(None, 120), dict)


def test_sandbox_level_says_what_it_does_not_do():
    name, words = verify.sandbox_level()
    assert name in verify.LEVELS and ("not protect" in words or "network" in words)
