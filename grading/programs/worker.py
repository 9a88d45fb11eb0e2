"""The code worker: judges programs, one JSON line in, one JSON line out.

Runs in a process of its own (workers.py starts it) and locks itself away before it reads anything:
from then on it sees no more of the host than the programs do. All it needs is imported by now.
"""

import json
import os
import resource
import sys

from grading.bounds import MAX_DIGITS, PROGRAM_MEMORY, TEST_SECONDS
from grading.programs.judge import judge_apart
from grading.programs.linux import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, libc
from grading.programs.sandbox import Sandbox

# A program that the filter must have refused something
TRIAL = """
import os
try:
    os.memfd_create('x')
    print('no filter')
except OSError:
    print('works')
"""


def main(level):
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(null, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What a killed judge leaves behind becomes our child.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(MAX_DIGITS)
    box = Sandbox(level)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # nothing may read this process's memory
    if level != "limits":
        reply = judge_apart(box, _trial())
        if not reply.get("right"):
            out.write(json.dumps(reply.get("why")).encode() + b"\n")
            return
    out.write(b'{"ready": true}\n')
    for line in source:
        try:
            reply = judge_apart(box, json.loads(line))
        except OSError as error:
            reply = {"right": False, "why": f"judge: {error}", "last": True}
        out.write(json.dumps(reply).encode() + b"\n")
        if reply.get("last"):
            return


def _trial():
    """An item that passes only if programs can be run, and are held."""
    tests = {
        "kind": "stdin",
        "cases": [["", "works"]],
        "seconds": TEST_SECONDS,
        "memory": PROGRAM_MEMORY,
    }
    return {"program": TRIAL, "tests": tests, "limit": 60}
