"""The math worker: compares answers, one JSON line in, one JSON line out.

Runs in a process of its own (workers.py starts it), for what it reads was written by a model: a
comparison may hang, or want all memory. Limits on CPU and memory end the process then, and only
this item is lost.
"""

import json
import os
import sys

from grading.bounds import MATH_CPU_SECONDS, MATH_MEMORY
from grading.maths.glance import in_words
from grading.maths.same import same_answer

try:
    import resource
except ImportError:  # Windows: the wall-clock limit that the parent keeps has to do
    resource = None


def main():
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing that a library prints may reach the pipe
    _limit("RLIMIT_AS", MATH_MEMORY, MATH_MEMORY)
    _limit("RLIMIT_CORE", 0, 0)
    sys.setrecursionlimit(3000)
    # The first comparison imports sympy and builds the parser's tables.
    same_answer(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")
    out.write(b'{"ready": true}\n')

    for line in sys.stdin.buffer:
        item = json.loads(line)
        _limit_cpu(MATH_CPU_SECONDS + 1)
        try:
            right = bool(same_answer(item["answer"], item["gold"]))
            reply = {"right": right, "why": in_words(item["answer"], item["gold"], right)}
        except MemoryError:
            reply = {"right": False, "why": "out of memory", "last": True}
        except Exception as error:  # RecursionError, and whatever a parser raises on nonsense
            reply = {"right": False, "why": f"cannot compare ({type(error).__name__})"}
        out.write(json.dumps(reply).encode() + b"\n")
        if reply.get("last"):
            return


def _limit(name, soft, hard):
    """Set a limit of this process. Linux has them all; elsewhere what can be limited is."""
    if resource is None:
        return
    try:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    except (AttributeError, ValueError, OSError):
        if sys.platform == "linux":
            raise


def _limit_cpu(seconds):
    """Let this process use so many more CPU seconds; then the kernel ends it (SIGXCPU)."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        _limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + seconds, hard)
