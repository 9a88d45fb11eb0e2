"""How programs are isolated on this host: the levels, best first, and which of them works here."""

import os
import sys
import threading

from grading.bounds import START_SECONDS
from grading.workers import Worker, after_fork

# What each level holds, and what it does not protect from, for people to read
LEVELS = {
    "namespaces": (
        "programs run in namespaces of their own (user, mount, PID, network, IPC) with a "
        "system-call filter and limits on CPU, memory, output and files: they see a read-only /usr "
        "and Python, an empty /tmp, no network, no other process, and cannot start one. It does "
        "not protect from a flaw in the kernel, and one program may use a core and its memory "
        "limit until its time is up."
    ),
    "landlock": (
        "programs run as one process with a system-call filter, Landlock and limits on CPU, memory "
        "and output: they can read /usr and Python only, write nothing, open no socket, start no "
        "process and send no signal. It does not hide that other processes exist, nor protect from "
        "a flaw in the kernel, and one program may use a core and its memory limit until its time "
        "is up."
    ),
    "limits": (
        "this host allows neither namespaces nor Landlock with a system-call filter, so that "
        "programs run with limits on CPU, memory and output alone: they can read and write this "
        "user's files, use the network, and signal and outlive other processes of this user."
    ),
}

# The machines whose system calls filters.py knows by number
MACHINES = ("x86_64", "aarch64")

_found = {}
_lock = threading.RLock()


def sandbox_level():
    """(name, words): how programs are isolated on this host, found by trying.

    The words say what it does not protect from.
    """
    with _lock:
        if not _found:
            name = next((name for name in ("namespaces", "landlock") if _works(name)), "limits")
            _found[name] = LEVELS[name]
        return next(iter(_found.items()))


def _works(level):
    """Whether a code worker can isolate programs at this level: it tries one before it is ready."""
    if sys.platform != "linux" or os.uname().machine not in MACHINES:
        return False
    worker = Worker("code", level)
    if not isinstance(worker.ask(None, START_SECONDS), dict):
        return False
    worker.kill()
    return True


def _renew_lock():
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


after_fork(_renew_lock)
