"""Judges programs that read standard input and print: one run per test."""

import os
import select

from grading.bounds import MAX_OUTPUT
from grading.candidate import RUN_STDIN
from grading.programs.compare import same_output, trimmed
from grading.programs.cpp import compiled
from grading.programs.imports import with_imports
from grading.programs.process import Clock, kill, too_large


def judge_stdin(box, program, tests):
    """Run the program once per test. (right, why, whether time ran out)."""
    if "imports" in tests:
        program = with_imports(program, tests["imports"])
    start = RUN_STDIN, program
    if tests.get("language") == "cpp":
        made, why = compiled(box, program)
        if made is None:
            return False, why, False
        start = None, made
    for number, (given, expected) in enumerate(tests["cases"], 1):
        expected = trimmed(expected)
        printed, status, cpu, resident, late = _run_once(
            box, start, given.encode("utf-8", "replace"), 2 * len(expected) + MAX_OUTPUT, tests
        )
        where = f"test {number} of {len(tests['cases'])}: "
        if late or cpu > tests["seconds"]:
            return False, where + f"time limit ({tests['seconds']} CPU seconds)", True
        if printed is None:
            return False, where + "too much output", False
        if too_large(resident, tests):
            return False, where + f"memory limit ({tests['memory']} MiB)", False
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
            return False, where + how, False
        printed = trimmed(printed.decode("utf-8", "replace"))
        if not same_output(printed, expected, tests.get("exact")):
            return False, where + f"printed {printed[:60]!r}, expected {expected[:60]!r}", False
    return True, f"passed {len(tests['cases'])} tests", False


def _run_once(box, start, given, most, tests):
    """Run the program once; start is its boot and the program, as Sandbox.start wants them.

    Returns (output or None if it was too much, exit status, CPU seconds, MiB resident, whether it
    ran past the wall clock).
    """
    clock = Clock(2 * tests["seconds"] + 2)
    pid, back = box.start(*start, tests["seconds"], tests["memory"], given)
    printed, late, ended = bytearray(), False, False
    poll = select.poll()
    poll.register(back, select.POLLIN)
    try:
        while True:
            if not clock.poll(poll):
                late = True
                break
            got = os.read(back, 1 << 16)
            if not got:
                break
            printed += got
            if len(printed) > most:
                printed = None
                break
        pause = 0.0005
        while printed is not None and not late:
            # Standard output is closed. The process usually ends at once; one that lingers has
            # until its time is up.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ended = True
                break
            late = not clock.sleep(pause)
            pause = min(2 * pause, 0.02)
    finally:
        status, cpu, resident = kill(pid, box)
        os.close(back)
    if printed is None:
        return None, status, cpu, resident, late
    return bytes(printed), status, cpu, resident, late or not ended
