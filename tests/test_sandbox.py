"""What a hostile program cannot do."""

import os
import socket
import time
from pathlib import Path

import pytest
from corpora import ROOT, block, rows, wrong_rows

import verify
from grading.workers import Worker

HOSTILE = rows("programs_hostile.jsonl")

# Programs of this test itself, that reach for things of this process: a file, a port, its life.
AIMS = {
    "reads my file": "open({secret!r}).read()",
    "writes my file": "open({secret!r}, 'w').write('x')",
    "makes a file": "open({new!r}, 'w').close()",
    "connects to me": "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)",
    "kills me": "import os\nos.kill({me}, 9)",
    "reads my environment": "open('/proc/{me}/environ').read()",
    "reads my memory": "open('/proc/{me}/mem', 'rb').read(1)",
    "my working directory": "import os\nos.listdir({root!r})",
}


@pytest.fixture(scope="module")
def hostile_run(isolated, tmp_path_factory):
    """All hostile programs, run once: {kind: the rows that got a reward}. Then the canaries."""
    folder = tmp_path_factory.mktemp("canaries")
    secret = folder / "secret.txt"
    secret.write_text("91823")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    mine = {
        "secret": str(secret),
        "new": str(folder / "new"),
        "port": listener.getsockname()[1],
        "me": os.getpid(),
        "root": str(ROOT),
    }
    tests = {"inputs": ["1 2\n"], "outputs": ["3\n"], "time_limit": 1}
    items = list(HOSTILE)
    for kind, source in AIMS.items():
        response = block(source.format(**mine) + "\nprint(sum(map(int, input().split())))")
        items.append({"kind": kind, "response": response, "tests": tests, "reward": 0})
    shared_before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    started = time.monotonic()
    with verify.Grader("code", workers=16) as grader:  # most of the time is waiting for a limit
        wrong = wrong_rows(grader, items, "tests")
        again = wrong_rows(grader, rows("programs.jsonl")[:5], "tests")
    assert time.monotonic() - started < 15 * len(items)
    assert secret.read_text() == "91823" and os.listdir(folder) == ["secret.txt"]
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
    assert again == []
    return {kind: [row for row in wrong if row[0] == kind] for kind, *_ in wrong}


def test_the_hostile_programs_are_of_many_kinds():
    assert len({row["kind"] for row in HOSTILE}) >= 40
    assert not any(row["reward"] for row in HOSTILE)


@pytest.mark.parametrize("kind", sorted({row["kind"] for row in HOSTILE} | set(AIMS)))
def test_no_hostile_program_passes(hostile_run, kind):
    assert hostile_run.get(kind, []) == []


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
    with verify.Grader("code", workers=8) as grader:
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
