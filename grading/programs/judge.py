"""One judge per item, in a process of its own, so that no test code leaves a trace."""

import json
import os
import resource
import select
import signal
import time

from grading.programs.assertions import judge_assertions
from grading.programs.calls import judge_calls
from grading.programs.linux import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, libc
from grading.programs.stdin import judge_stdin

JUDGES = {"stdin": judge_stdin, "call": judge_calls, "assert": judge_assertions}
JUDGE_MEMORY = 4 << 30  # bytes of address space


def judge_apart(box, item):
    """Judge one item in a child process of the worker, for item["limit"] seconds at most."""
    back, to = os.pipe()
    pid = os.fork()
    if pid == 0:
        verdict = {"right": False, "why": "the judge failed"}
        try:
            os.close(back)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (JUDGE_MEMORY, hard))
            right, why, late = JUDGES[item["tests"]["kind"]](box, item["program"], item["tests"])
            verdict = {"right": right, "why": why, "timeout": late}
        except BaseException as error:
            verdict["why"] = f"the judge failed: {type(error).__name__}: {error}"
        finally:
            try:
                os.write(to, json.dumps(verdict).encode()[:60_000])
            finally:
                os._exit(0)
    os.close(to)
    data, deadline = b"", time.monotonic() + item["limit"]
    poll = select.poll()
    poll.register(back, select.POLLIN)
    while poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
        got = os.read(back, 65536)
        if not got:
            break
        data += got
    os.close(back)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        while True:  # the judge, and its candidate if that is still there
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    if not data:
        return {"right": False, "why": f"time-out after {item['limit']} s", "timeout": True}
    return json.loads(data)
