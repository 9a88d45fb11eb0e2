r"""The rewards: 1.0 for a right answer, 0.0 for a wrong one, for mathematics and for programs.

    math_reward(response, gold)      whether the final answer of a response equals the gold answer
    code_reward(response, tests)     whether the last ```python block passes every test
    Grader("math" | "code")          the same for whole batches, in warm worker processes
    Grader("countdown")              whether an expression joins given numbers to a target
    OwnGrader("FILE.py", "NAME")     a function of your own: (response, question) -> 0 or 1
    python verify.py ROWS.jsonl      grade a file and say what failed, and why

What counts as the answer is the same in collection, distillation and evaluation, and decided in one
place, final_answer below: the last \boxed{}, else "#### 42", else "the answer is 42". For a program
it is the last closed ```python block. What was cut off has no answer.

What is promised, whatever a model writes. It is trained on these rewards, so that anything it can
exploit, it will:

  * A reward is 0.0 or 1.0; nothing raises because of a response.
  * Nothing hangs. What is hard to compare is compared in a worker process under limits of CPU,
    memory and wall-clock time (grading/bounds.py); one that hangs or dies is killed and replaced.
  * An answer must be worked out: 2 + 3 is not 5 where 5 was asked for, nor is "4 or 5".
  * Numbers are compared exactly: 10^30 is not 10^30 + 1.
  * A program never sees its tests, and cannot say that it passed: a judge outside compares what it
    printed, or asks it for values and evaluates the assertions itself.
  * A program runs in a sandbox: no network, no files of yours, no other processes. sandbox_level()
    says how well this host can isolate it; where that is not enough, it is not run.

What is not promised: a flaw in the kernel is a way out, and one program may use a core and its
memory limit until its time is up.

This file is the front door; the rooms are in grading/ (its __init__.py says which is which). Needs
the standard library and math-verify, which only the math workers import; the code task needs Linux.
"""

import argparse
import sys
import threading
import time

# What is imported and not used is for callers: the bounds, the levels of isolation, the pieces.
from grading.answers import (
    SEARCHED,
    after_thinking,
    find_boxes,
    gold_answer,
    last_boxes,
    line_after_hashes,
    stated,
)
from grading.bounds import CODE_SECONDS, MATH_SECONDS, MAX_MEMORY, WAIT_SECONDS  # noqa: F401
from grading.countdown import judge_countdown
from grading.golds import read_gold  # noqa: F401
from grading.levels import LEVELS, sandbox_level  # noqa: F401
from grading.maths.glance import in_words, same_at_a_glance
from grading.maths.same import same_answer  # noqa: F401
from grading.own import GYM_REWARD, OwnGrader  # noqa: F401
from grading.programs.cpp import cpp_compiler  # noqa: F401
from grading.programs.formats import load_tests  # noqa: F401
from grading.programs.response import last_program, prepare_code  # noqa: F401
from grading.rows import failures, jobs_of, totals
from grading.workers import OnPool, Pool, after_fork, cores


def final_answer(response):
    r"""The final answer that a response states, as text, or None.

    1. The content of the last \boxed{...} (braces may nest; \boxed 5 means \boxed{5}). If the last
       box was never closed, the response was cut off and has no answer.
    2. Without a box: what follows the last #### on its line.
    3. Without that: what follows the last "the answer is" (or "answer:", or such a heading), up to
       the end of the sentence.

    A number that merely stands last is no answer, and neither is what stands before the last
    </think>; where a <think> was not closed there is none.
    """
    if not isinstance(response, str):
        return None
    response = after_thinking(response)
    boxes = find_boxes(response)
    if boxes is None:
        return None
    if boxes:
        return boxes[-1][2]
    response = response[-SEARCHED:]
    line = line_after_hashes(response)
    if line is not None:
        return line or None
    return stated(response)


def math_reward(response, gold):
    """1.0 if the final answer of `response` equals `gold`, else 0.0.

    Any thread, no exception, MATH_SECONDS at most.
    """
    return _reward("math", response, gold, unsafe=False)


def code_reward(response, tests, unsafe=False):
    """1.0 if the last ```python block of `response` passes every test (see load_tests), else 0.0.

    Any thread, no exception, CODE_SECONDS at most (and a few to start the worker, WAIT_SECONDS
    where all are busy). Malformed tests are a 0.0, and so is everything on a host that cannot
    isolate programs, unless `unsafe`; then it says so once on standard error.
    """
    return _reward("code", response, tests, unsafe)


class Grader(OnPool):
    """Grades batches in warm worker processes.

    Thread-safe; results do not depend on order, batch or number of workers.

    task: "math", "code" or "countdown", whose references are {"numbers", "target"}.
    workers: processes, by default one per available core.
    timeout: wall-clock seconds for one item, after which it is a 0.0, is counted in .timeouts, and
    its worker is replaced.
    unsafe: run the code task although this host cannot isolate programs (see sandbox_level);
    without it that raises RuntimeError.
    """

    def __init__(self, task, workers=None, timeout=None, unsafe=False):
        if task not in PREPARE:
            raise ValueError(f"task must be one of {', '.join(PREPARE)}, not {task!r}")
        self.task = task
        self.workers = workers or cores()
        self.timeout = timeout or (CODE_SECONDS if task == "code" else MATH_SECONDS)
        # A code worker keeps the limit itself; it is killed only if it cannot.
        options, grace = ((_checked_level(unsafe),), 5) if task == "code" else ((), 0)
        self.pool = Pool(task, options, self.workers, self.timeout, grace)

    def grade(self, responses, references):
        """[0.0 or 1.0] for each response against its gold answer, or its tests.

        Tests are a row, or what load_tests made of one.
        """
        return [reward for reward, _ in self.explain(responses, references)]

    def explain(self, responses, references):
        """As grade, but [(reward, why)]."""
        responses, references = list(responses), list(references)
        if len(responses) != len(references):
            raise ValueError(f"{len(responses)} responses but {len(references)} references")
        if self.pool.closed:
            raise RuntimeError("this Grader is closed")
        verdicts, hard = [], {}
        for number, pair in enumerate(zip(responses, references, strict=True)):
            verdict, item = PREPARE[self.task](*pair)
            verdicts.append(verdict)
            if item is not None:
                hard[number] = item
        judged = self.pool.ask(list(hard.values()))
        for number, (right, why) in zip(hard, judged, strict=True):
            verdicts[number] = (float(right), why)
        return verdicts


def _prepare_math(response, reference):
    """((reward, why), None) where a glance decides, else (None, item for a worker)."""
    gold = gold_answer(reference)
    if gold is None:
        return (0.0, "bad row: no gold answer"), None
    if isinstance(response, str):
        response = after_thinking(response)
    boxes = find_boxes(response)
    answer = last_boxes(response, boxes, gold) if boxes else final_answer(response)
    if answer is None:
        return (0.0, "no final answer"), None
    gold = gold_answer(reference, answer)
    right = same_at_a_glance(answer, gold)
    if right is None:
        return None, {"answer": answer, "gold": gold}
    return (float(right), in_words(answer, gold, right)), None


def _prepare_countdown(response, task):
    """((reward, why), None): no worker is needed."""
    if not isinstance(task, dict) or not isinstance(task.get("numbers"), list):
        return (0.0, "bad row: no numbers"), None
    answer = final_answer(response)
    if answer is None:
        return (0.0, "no final answer"), None
    right, why = judge_countdown(answer, task["numbers"], task.get("target"))
    return (float(right), why), None


PREPARE = {"math": _prepare_math, "code": prepare_code, "countdown": _prepare_countdown}


def _checked_level(unsafe):
    """The level at which programs are isolated here; RuntimeError if they must not be run."""
    if sys.platform != "linux":
        raise RuntimeError(
            f"the code task needs Linux: {sys.platform} has neither namespaces nor Landlock, so "
            "that a generated program could read and write your files, use the network and outlive "
            "its time. The other tasks run here"
        )
    level, words = sandbox_level()
    if level == "limits" and not unsafe:
        raise RuntimeError(
            f"refusing to run generated programs here: {words} "
            "Pass --unsafe-exec (unsafe=True) to run them all the same."
        )
    return level


# The graders of math_reward and code_reward; what was said on standard error
_shared, _said = {}, set()
_shared_lock = threading.RLock()


def _forget_shared():
    """In a forked child: the workers, and a lock that a thread may have held, are the parent's."""
    global _shared, _shared_lock
    _shared, _shared_lock = {}, threading.RLock()


after_fork(_forget_shared)


def _reward(task, response, reference, unsafe):
    try:
        verdict, item = PREPARE[task](response, reference)
        if item is None:
            return verdict[0]
        with _shared_lock:
            if task not in _shared:
                _shared[task] = Grader(task, unsafe=unsafe)
            grader = _shared[task]
        return grader.grade([response], [reference])[0]
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        if words not in _said:
            _said.add(words)
            print(f"verify.py: {words}", file=sys.stderr)
        return 0.0


def main():
    rows = "rows with `response` and `gold` (or `answer`), or `response` and tests"
    parser = argparse.ArgumentParser(description=f"Grade a file: {rows}.")
    seconds = f"(default: {MATH_SECONDS} math, {CODE_SECONDS} code)"
    unsafe = "run programs even where this host cannot isolate them"
    parser.add_argument("file", help="as --data takes: .jsonl, .json, .csv, .parquet or a folder")
    parser.add_argument("--workers", type=int, help="worker processes (default: one per core)")
    parser.add_argument("--timeout", type=float, help=f"wall-clock seconds for one item {seconds}")
    parser.add_argument("--show", type=int, default=50, help="failed rows to print (default 50)")
    parser.add_argument("--unsafe-exec", action="store_true", help=unsafe)
    options = parser.parse_args()
    try:  # the command line alone: the rewards know nothing of the rest of the repository
        from kit.errors import exit_code
        from kit.rows import place, read_rows
    except ImportError as error:
        sys.exit(f"verify.py: {error}: the command line reads files with kit/rows.py")

    def work():
        rows = read_rows(options.file, otherwise=".jsonl")
        _grade([row for _, row in rows], [place(number, "row") for number, _ in rows], options)

    return exit_code("verify.py", work)


def _grade(rows, places, options):
    """Grade rows, and print what failed and one line of totals."""
    jobs, verdicts = jobs_of(rows)
    started, timeouts = time.monotonic(), 0
    for task, items in jobs.items():
        if not items:
            continue
        if task == "code":
            print("sandbox: " + sandbox_level()[1])
        try:
            grader = Grader(task, options.workers, options.timeout, options.unsafe_exec)
        except RuntimeError as error:
            sys.exit(str(error))
        with grader:
            numbers, responses, references = zip(*items, strict=True)
            judged = grader.explain(responses, references)
            verdicts.update(zip(numbers, judged, strict=True))
            timeouts += grader.timeouts
    seconds = max(time.monotonic() - started, 1e-9)
    for line in failures([verdicts[i] for i in range(len(rows))], places, options.show):
        print(line)
    speed = f"time-outs {timeouts}   {len(rows) / seconds:.1f} items/s   {seconds:.1f} s"
    print(f"{totals(verdicts.values())}   {speed}")


if __name__ == "__main__":
    sys.exit(main())

# What `uv run verify.py` installs (PEP 723).
# /// script
# requires-python = ">=3.11"
# dependencies = ["math-verify>=0.9"]
# ///
