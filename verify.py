"""Binary rewards for math answers and for programs: 0.0 or 1.0, and nothing a model writes can cheat, hang or harm.

    math_reward(response, gold)      1.0 if the final answer of the response equals the gold answer
    code_reward(response, tests)     1.0 if the last ```python block passes every test
    Grader("math" | "code")          the same for whole batches, in warm worker processes
    python verify.py ROWS.jsonl      grade a file and say what failed, and why

What counts as the answer is the same in collection, distillation and evaluation; `final_answer` is the only place that
decides it. Whatever is hard to compare is compared in a worker process under CPU, memory and wall-clock limits; a worker
that hangs or dies is killed and replaced, its item is a 0.0. Nothing here raises because of what a model wrote.

Needs the standard library and math-verify (imported in the math workers only). Linux for the code task.
"""
import argparse
import ast
import atexit
import builtins
import ctypes
import errno
import importlib.util
import json
import math
import os
import queue
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction

# Bounds. Seconds are wall-clock unless they say CPU.
MATH_SECONDS = 10           # one comparison; then the worker is killed (a usual one takes 1 to 30 milliseconds)
MATH_CPU_SECONDS = 5        # one comparison; CPU time does not depend on how busy the machine is
MATH_MEMORY = 2 << 30       # bytes of address space of one math worker
MAX_ANSWER = 1000           # characters; a longer answer counts only if it is the gold answer, letter by letter
MAX_DEPTH = 30              # nested brackets


# ---------------------------------------------------------------------------------------------------------------------
# 1. What is the answer?
# ---------------------------------------------------------------------------------------------------------------------

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
STATED = re.compile(r"\banswer\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)


def final_answer(response):
    r"""The final answer that a response states, as text, or None.

    1. The content of the last \boxed{...} (braces may nest; \boxed 5 means \boxed{5}). If the last box was never closed,
       the response was cut off and has no answer.
    2. Without a box: what follows the last #### on its line.
    3. Without that: what follows the last "the answer is" (or "answer:"), up to the end of the sentence.
    A number that merely stands last is no answer.
    """
    boxes = _boxes(response)
    if boxes is None or boxes:
        return boxes[-1][2] if boxes else None
    if not isinstance(response, str):
        return None
    if "####" in response:
        return response.rpartition("####")[2].strip().partition("\n")[0].strip() or None
    at = None
    for at in STATED.finditer(response):
        pass
    if at is None:
        return None
    line = response[at.end():at.end() + 2 * MAX_ANSWER].lstrip().partition("\n")[0]
    # A sentence ends at a stop that is followed by a blank: 3.14 and x.y do not end one.
    line = re.split(r"[.!?](?:\s|$)|,?\s+(?:because|since|which|as|so)\s", line.strip(), maxsplit=1)[0]
    return line.strip().strip("*").strip() or None


def _boxes(response):
    r"""[(start, end, content)] of the closed outer boxes, innermost content; None if the last box is not closed."""
    if not isinstance(response, str):
        return []
    found, at = [], 0
    # Only the end of a long response is searched: one that repeats \boxed a million times must not cost a second.
    at = max(0, len(response) - 200_000)
    while True:
        start = BOX.search(response, at)
        if start is None:
            return found
        at = start.end()
        if at < len(response) and response[at] != "{":        # \boxed 5
            word = re.compile(r"[^\s{}$\\]+").match(response, at)
            if word:
                found.append((start.start(), word.end(), word.group()))
                at = word.end()
            continue
        end = _closing_brace(response, at)
        if end is None:
            return None
        content = response[at + 1:end].strip()
        inner = _boxes(content) if BOX.search(content) and len(content) <= MAX_ANSWER else []
        found.append((start.start(), end + 1, inner[-1][2] if inner else content))
        at = end + 1


def _closing_brace(text, opening):
    """Where the brace at `opening` is closed, or None."""
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None


def _offered(response):
    r"""The final answer for grading: as final_answer, but boxes side by side, as in "\boxed{3} or \boxed{4}", are one list."""
    boxes = _boxes(response)
    if not boxes:
        return final_answer(response)
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1]):
        if not re.fullmatch(r"(?:[\s,;&$.]|\\[,;!\[\]() ]|\\quad|\bor\b|\band\b|\\text\s*\{\s*(?:or|and)\s*\})*", response[end:start]):
            break
        contents.insert(0, content)
        if len(contents) > 50:
            break
    if all(content == contents[0] for content in contents):
        return contents[-1]
    return " , ".join(contents)


def gold_answer(gold):
    r"""The answer in a gold field: after the last #### of a GSM8K solution, in its last box, or the whole text."""
    if isinstance(gold, bool) or not isinstance(gold, (str, int, float)):
        return None
    gold = str(gold)
    if "####" in gold:
        gold = gold.rpartition("####")[2]
    boxes = _boxes(gold)
    if boxes and (len(boxes) == 1 or gold[:boxes[0][0]].strip(" $")):
        gold = boxes[-1][2]
    elif boxes:
        gold = _offered(gold)
    return gold.strip() or None


# ---------------------------------------------------------------------------------------------------------------------
# 2. Are two answers the same? First what can be said at once, in the calling process.
# ---------------------------------------------------------------------------------------------------------------------

PLAIN_NUMBER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+))?(?:\.([0-9]*))?")


def _plain_number(text):
    """A canonical spelling of a plain integer or decimal ('-1,234.50' gives '-1234.5'), or None. No limit on size: no int()."""
    match = PLAIN_NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    whole = (match[2] or "").replace(",", "").lstrip("0") or "0"
    part = (match[3] or "").rstrip("0")
    sign = "-" if match[1] == "-" and (whole != "0" or part) else ""
    return sign + whole + ("." + part if part else "")


def _quick(answer, gold):
    """True or False where a glance decides, else None. Runs in the caller: no parsing, linear time."""
    if not answer or not gold:
        return False
    answer, gold = answer.strip().strip("$").strip(), gold.strip().strip("$").strip()
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    if len(answer) > MAX_ANSWER or len(gold) > MAX_ANSWER:
        return False
    one, other = _plain_number(answer), _plain_number(gold)
    if one is not None and other is not None:
        return one == other
    return None


def same_answer(answer, gold):
    """Whether two answers are the same, by math-verify. Raises what a parser raises; may run long: workers only."""
    from math_verify import parse, verify
    parsed = [parse("$" + text.strip("$") + "$", parsing_timeout=None) for text in (gold, answer)]
    return verify(*parsed, timeout_seconds=None)


CODE_SECONDS = 60


def sandbox_level():
    return "limits", "the code task is not written yet."


def load_tests(row):
    return row


def _prepare_code(response, tests):
    return (0.0, "the code task is not written yet"), None


def code_worker():
    pass


def code_reward(response, tests):
    return 0.0


# ---------------------------------------------------------------------------------------------------------------------
# 5. Worker processes, kept warm
# ---------------------------------------------------------------------------------------------------------------------

class _Worker:
    """One worker process and the pipes to it. A fresh interpreter, so it holds none of the caller's memory, threads or torch."""

    def __init__(self, task):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--worker", task], bufsize=0, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
        os.set_blocking(self.process.stdin.fileno(), False)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.unread = b""

    def ask(self, item, seconds):
        """The worker's reply to one item (a dict), "timeout", or "dead". After the last two the worker is gone."""
        to, back, deadline = self.process.stdin.fileno(), self.process.stdout.fileno(), time.monotonic() + seconds
        unsent = memoryview(json.dumps(item).encode() + b"\n" if item is not None else b"")
        try:
            while b"\n" not in self.unread:
                poll = select.poll()
                poll.register(back, select.POLLIN)
                if unsent:
                    poll.register(to, select.POLLOUT)
                ready = dict(poll.poll(max(0, 1000 * (deadline - time.monotonic()))))
                if not ready:
                    self.kill()
                    return "timeout"
                if to in ready:
                    unsent = unsent[os.write(to, unsent[:65536]):]
                if back in ready:
                    got = os.read(back, 65536)
                    if not got:
                        break
                    self.unread += got
            else:
                line, _, self.unread = self.unread.partition(b"\n")
                return json.loads(line)
        except (OSError, ValueError):
            pass
        return "timeout" if self.kill() == -signal.SIGXCPU else "dead"

    def kill(self):
        """End the worker and whatever it started. Its exit status."""
        try:
            # A worker that is ending by itself may still tell why (SIGXCPU: out of CPU time).
            status = self.process.wait(timeout=0.2) if self.process.poll() is None else self.process.returncode
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            status = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return status


class Grader:
    """Grades batches in warm worker processes. Thread-safe; results do not depend on order, batch or number of workers.

    task: "math" or "code". workers: processes, by default one per available core. timeout: wall-clock seconds for one item,
    after which it is a 0.0, is counted in .timeouts, and its worker is replaced. unsafe: run the code task although this
    host cannot isolate programs (see sandbox_level); without it that raises RuntimeError.
    """

    def __init__(self, task, workers=None, timeout=None, unsafe=False):
        if task not in ("math", "code"):
            raise ValueError(f"task must be 'math' or 'code', not {task!r}")
        if task == "code":
            name, words = sandbox_level()
            if name == "limits" and not unsafe:
                raise RuntimeError(f"refusing to run generated programs here: {words} Pass --unsafe-exec (unsafe=True) to run them all the same.")
        self.task, self.timeouts = task, 0
        self.workers = workers or len(os.sched_getaffinity(0))
        self.timeout = timeout or (MATH_SECONDS if task == "math" else CODE_SECONDS)
        self._start()

    def _start(self):
        self._pid, self._lock, self._closed = os.getpid(), threading.Lock(), False
        self._idle = queue.LifoQueue()       # last in, first out: a small batch stays on the workers that are warm
        for _ in range(self.workers):
            self._idle.put(None)             # None: a worker to be started when it is first needed

    def grade(self, responses, references):
        """[0.0 or 1.0] for each response against its gold answer, or its tests (a row, or what load_tests made of one)."""
        return [score for score, _ in self.explain(responses, references)]

    def explain(self, responses, references):
        """As grade, but [(reward, why)]."""
        responses, references = list(responses), list(references)
        if len(responses) != len(references):
            raise ValueError(f"{len(responses)} responses but {len(references)} references")
        if self._closed:
            raise RuntimeError("this Grader is closed")
        if self._pid != os.getpid():         # we are a fork: the workers belong to our parent
            self._start()
        verdicts, hard = [None] * len(responses), queue.SimpleQueue()
        for i, (response, reference) in enumerate(zip(responses, references)):
            verdict, item = (_prepare_math if self.task == "math" else _prepare_code)(response, reference)
            verdicts[i] = verdict
            if item is not None:
                hard.put((i, item))

        def serve():
            worker = self._idle.get()
            try:
                while True:
                    try:
                        i, item = hard.get_nowait()
                    except queue.Empty:
                        return
                    for _ in range(2):       # a worker that dies is replaced and the item tried once more: it may not be to blame
                        verdicts[i] = (0.0, "the worker could not be started")
                        if worker is None:
                            worker = _Worker(self.task)
                            if not isinstance(worker.ask(None, 60), dict):      # imports take about a second
                                worker = None
                                continue
                        reply = worker.ask(item, self.timeout)
                        if isinstance(reply, dict):
                            verdicts[i] = (1.0 if reply.get("right") is True else 0.0, str(reply.get("why", "")))
                            if reply.get("timeout"):
                                self._count_timeout()
                            if reply.get("last"):       # the worker ends itself after this one
                                worker.kill()
                                worker = None
                            break
                        worker = None
                        verdicts[i] = (0.0, "time-out" if reply == "timeout" else "the worker died (out of memory?)")
                        if reply == "timeout":
                            self._count_timeout()
                            break
            finally:
                if self._closed and worker is not None:
                    worker.kill()
                self._idle.put(worker)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(self.workers, hard.qsize()) - 1)]
        for thread in threads:
            thread.start()
        if hard.qsize():
            serve()
        for thread in threads:
            thread.join()
        return verdicts

    def _count_timeout(self):
        with self._lock:
            self.timeouts += 1

    def close(self):
        """End the workers. (They also end by themselves when this process does: their standard input closes.)"""
        self._closed = True
        while self._pid == os.getpid():
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                return
            if worker is not None:
                worker.process.stdin.close()
                worker.process.stdin = open(os.devnull)
                worker.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _prepare_math(response, gold):
    """((reward, why), None) where a glance decides, else (None, item for a worker)."""
    answer, gold = _offered(response), gold_answer(gold)
    if gold is None:
        return (0.0, "bad row: no gold answer"), None
    if answer is None:
        return (0.0, "no final answer"), None
    right = _quick(answer, gold)
    if right is None:
        return None, {"answer": answer, "gold": gold}
    return (float(right), f"{answer[:80]!r} {'is' if right else 'is not'} {gold[:80]!r}"), None


_shared = {}
_shared_lock = threading.Lock()


def _forget_shared():
    """In a forked child: the shared graders' workers, and a lock that another thread may have held, belong to the parent."""
    global _shared, _shared_lock
    _shared, _shared_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget_shared)


def _shared_grader(task):
    with _shared_lock:
        if task not in _shared:
            _shared[task] = Grader(task)
        return _shared[task]


def math_reward(response, gold):
    """1.0 if the final answer of `response` equals `gold`, else 0.0. Any thread, no exception, MATH_SECONDS at most."""
    try:
        verdict, item = _prepare_math(response, gold)
        return verdict[0] if item is None else _shared_grader("math").grade([response], [gold])[0]
    except Exception as error:
        print(f"verify.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 0.0


def math_worker():
    """Main loop of a math worker: one JSON line in, one out."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)           # nothing that a library prints may reach the pipe
    hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MATH_MEMORY, MATH_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(3000)
    same_answer(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")           # imports, and builds the parser's tables
    out.write(b'{"ready": true}\n')
    for line in sys.stdin.buffer:
        item, reply = json.loads(line), {}
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + MATH_CPU_SECONDS + 1, hard_limit))
        try:
            reply["right"] = bool(same_answer(item["answer"], item["gold"]))
            reply["why"] = f"{item['answer'][:80]!r} {'is' if reply['right'] else 'is not'} {item['gold'][:80]!r}"
        except MemoryError:
            reply = {"right": False, "why": "out of memory", "last": True}
        except Exception as error:           # RecursionError, and whatever a parser raises on nonsense
            reply = {"right": False, "why": f"cannot compare ({type(error).__name__})"}
        out.write(json.dumps(reply).encode() + b"\n")
        if reply.get("last"):
            return


# ---------------------------------------------------------------------------------------------------------------------
# 6. Command line
# ---------------------------------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description="Grade a JSONL file: rows with `response` and `gold` (or `answer`), or `response` and tests.")
    parser.add_argument("file", help="JSONL")
    parser.add_argument("--workers", type=int, help="worker processes (default: one per core)")
    parser.add_argument("--timeout", type=float, help=f"wall-clock seconds for one item (default: {MATH_SECONDS} math, {CODE_SECONDS} code)")
    parser.add_argument("--show", type=int, default=50, help="how many failed rows to print (default 50)")
    parser.add_argument("--unsafe-exec", action="store_true", help="run programs even where this host cannot isolate them")
    options = parser.parse_args()

    rows, verdicts, jobs = [], {}, {"math": [], "code": []}
    with open(options.file, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            rows.append(number)
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or "response" not in row:
                    raise ValueError("no response")
                gold = row.get("gold", row.get("answer"))
                if gold is not None:
                    jobs["math"].append((number, row["response"], gold))
                else:
                    jobs["code"].append((number, row["response"], load_tests(row)))
            except ValueError as error:
                verdicts[number] = (0.0, f"bad row: {error}")

    started, timeouts = time.monotonic(), 0
    for task, items in jobs.items():
        if items:
            if task == "code":
                print("sandbox: " + sandbox_level()[1])
            try:
                grader = Grader(task, options.workers, options.timeout, options.unsafe_exec)
            except RuntimeError as error:
                sys.exit(str(error))
            with grader:
                verdicts.update(zip((number for number, _, _ in items), grader.explain([r for _, r, _ in items], [g for _, _, g in items])))
                timeouts += grader.timeouts
    seconds = time.monotonic() - started

    failed = [number for number in rows if verdicts[number][0] != 1.0]
    for number in failed[:options.show]:
        print(f"row {number}: {verdicts[number][1]}")
    if len(failed) > options.show:
        print(f"... and {len(failed) - options.show} more")
    right = len(rows) - len(failed)
    print(f"accuracy {right}/{len(rows)} = {right / max(1, len(rows)):.3f}   time-outs {timeouts}   "
          f"{len(rows) / max(seconds, 1e-9):.1f} items/s   {seconds:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        {"math": math_worker, "code": code_worker}[sys.argv[2]]()
    else:
        main()
