"""The math worker: compares answers, one JSON line in, one JSON line out.

Runs in a process of its own (workers.py starts it), for what it reads was written by a model: a
comparison may hang, or want all memory. Limits on CPU and memory end the process then, and only
this item is lost.
"""

import json
import sys

from grading.bounds import MATH_CPU_SECONDS, MATH_MEMORY
from grading.limits import limit, limit_cpu, silent_pipe
from grading.maths.glance import in_words
from grading.maths.same import same_answer


def main():
    out = silent_pipe()
    limit("RLIMIT_AS", MATH_MEMORY, MATH_MEMORY)
    limit("RLIMIT_CORE", 0, 0)
    sys.setrecursionlimit(3000)
    # The first comparison imports sympy and builds the parser's tables.
    same_answer(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")
    out.write(b'{"ready": true}\n')

    for line in sys.stdin.buffer:
        item = json.loads(line)
        limit_cpu(MATH_CPU_SECONDS + 1)
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
