"""Worker processes, kept warm: starting them, asking them, replacing those that hang or die.

A worker is a fresh interpreter, so it holds none of the caller's memory, threads or torch. It reads
one JSON line per item and writes one back; what it does with it is in maths/worker.py,
programs/worker.py and own_worker.py. Nothing here knows what an answer is.
"""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from grading.bounds import START_SECONDS, WAIT_SECONDS

# The folder that holds this package: whatever the caller's path and directory are, workers find it.
ROOT = str(Path(__file__).resolve().parent.parent)

# The path is set so that nothing in the current directory can stand for a module of Python.
START = """
import sys
root, task, *options = sys.argv[1:]
sys.path[:] = [root, *filter(None, sys.path)]
if task == "math":
    from grading.maths.worker import main
elif task == "own":
    from grading.own_worker import main
else:
    from grading.programs.worker import main
main(*options)
"""

# Windows has neither process groups that can be killed nor pipes that can be polled.
IS_POSIX = hasattr(select, "poll") and hasattr(os, "set_blocking") and hasattr(os, "killpg")
OUT_OF_CPU_TIME = -getattr(signal, "SIGXCPU", 0) or None  # the exit status


def cores():
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def after_fork(function):
    """Call a function in every child that is forked from now on, where there is fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


class Worker:
    """One worker process and the pipes to it."""

    def __init__(self, task, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, ROOT, task, *options],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self.unread = b""
        if IS_POSIX:
            os.set_blocking(self.process.stdin.fileno(), False)
            os.set_blocking(self.process.stdout.fileno(), False)
        else:
            self.lines = queue.SimpleQueue()
            threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, item, seconds):
        """The worker's reply to one item (a dict), "timeout", or "dead"; then the worker is gone.

        Without an item (None): its first line, which says that it is ready.
        """
        deadline = time.monotonic() + seconds
        unsent = json.dumps(item).encode() + b"\n" if item is not None else b""
        try:
            exchange = self._exchange if IS_POSIX else self._exchange_without_poll
            line = exchange(memoryview(unsent), deadline)
            if line is None:
                self.kill()
                return "timeout"
            if line:
                return json.loads(line)
        except (OSError, ValueError):
            pass
        return "timeout" if self.kill() == OUT_OF_CPU_TIME else "dead"

    def _exchange(self, unsent, deadline):
        """Send, and receive a line: b"" if the worker ended, None if the time is up."""
        to, back = self.process.stdin.fileno(), self.process.stdout.fileno()
        while b"\n" not in self.unread:
            poll = select.poll()
            poll.register(back, select.POLLIN)
            if unsent:
                poll.register(to, select.POLLOUT)
            ready = dict(poll.poll(max(0, 1000 * (deadline - time.monotonic()))))
            if not ready:
                return None
            if to in ready:
                unsent = unsent[os.write(to, unsent[:65536]) :]
            if back in ready:
                got = os.read(back, 65536)
                if not got:
                    return b""
                self.unread += got
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def _exchange_without_poll(self, unsent, deadline):
        """The same where pipes cannot be polled. Items are short, and the worker waits for them."""
        self.process.stdin.write(unsent)
        try:
            return self.lines.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return None

    def _listen(self):
        """A thread's work: put every line of the worker's into the queue, and b"" at its end."""
        pipe = self.process.stdout
        try:
            while line := pipe.readline():
                self.lines.put(line)
        except (OSError, ValueError):  # closed by kill()
            pass
        self.lines.put(b"")

    def kill(self):
        """End the worker and whatever it started. Its exit status."""
        try:
            # A worker that is ending by itself may still tell why (SIGXCPU: out of CPU time).
            if self.process.poll() is None:
                status = self.process.wait(timeout=0.2)
            else:
                status = self.process.returncode
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            try:
                if IS_POSIX:
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    self.process.kill()
            except (ProcessLookupError, PermissionError):
                pass
            status = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return status

    def dismiss(self):
        """End an idle worker: its input closes, and so it ends by itself."""
        self.process.stdin.close()
        self.process.stdin = open(os.devnull)
        self.kill()


class Turns:
    """The idle workers, last in, first out: a small batch stays on those that are warm.

    Threads that find none wait in the order of their asking, but WAIT_SECONDS at most: then they
    get a worker more, which ends after its use.
    """

    def __init__(self, workers):
        self.queue, self._waiting, self._more = list(workers), [], 0
        self._lock = threading.Lock()

    def get(self):
        with self._lock:
            if self.queue:
                return self.queue.pop()
            turn = queue.SimpleQueue()
            self._waiting.append(turn)
        try:
            return turn.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    self._more += 1
                    return None
            return turn.get()

    def put(self, worker):
        with self._lock:
            if self._waiting:
                self._waiting.pop(0).put(worker)
            elif not self._more:
                self.queue.append(worker)
            else:
                self._more -= 1
                if worker is not None:
                    worker.kill()

    def get_nowait(self):
        with self._lock:
            if not self.queue:
                raise queue.Empty
            return self.queue.pop()


class Pool:
    """Some workers for one task. Any thread may ask; a forked child gets workers of its own."""

    def __init__(self, task, options, workers, timeout, grace=0):
        self.task, self.options, self.workers = task, options, workers
        self.timeout = timeout  # seconds for one item
        self.grace = grace  # seconds more before a worker that keeps the limit itself is killed
        self.timeouts = 0
        self._start()

    def _start(self):
        self._pid, self._lock, self.closed = os.getpid(), threading.Lock(), False
        # None: a worker to be started when it is first needed
        self.idle = Turns([None] * self.workers)

    def ask(self, items):
        """[(right, why)] for each item, by as many workers as there are idle."""
        if self._pid != os.getpid():  # we are a fork: the workers belong to our parent
            self._start()
        verdicts = [None] * len(items)
        waiting = queue.SimpleQueue()
        for number, item in enumerate(items):
            waiting.put((number, item))

        def serve():
            worker = self.idle.get()
            try:
                while True:
                    try:
                        number, item = waiting.get_nowait()
                    except queue.Empty:
                        return
                    verdicts[number] = (False, "the worker could not be started")
                    worker, verdicts[number] = self._ask_one(worker, item)
            finally:
                if self.closed and worker is not None:
                    worker.kill()
                self.idle.put(worker)

        threads = [
            threading.Thread(target=serve, daemon=True)
            for _ in range(min(self.workers, len(items)) - 1)
        ]
        for thread in threads:
            thread.start()
        if items:
            serve()
        for thread in threads:
            thread.join()
        return verdicts

    def _ask_one(self, worker, item):
        """(the worker for the next item or None, (right, why))."""
        deadline = None
        # A worker that dies is replaced and the item tried once more: it may not be to blame.
        for _ in range(2):
            verdict = (False, "the worker could not be started")
            if worker is None:
                worker = Worker(self.task, *self.options)
                if not isinstance(worker.ask(None, START_SECONDS), dict):
                    worker = None
                    continue
            deadline = deadline or time.monotonic() + self.timeout
            left = max(0.1, deadline - time.monotonic())
            reply = worker.ask({**item, "limit": left}, left + self.grace)
            if isinstance(reply, dict):
                if reply.get("timeout"):
                    self._count_timeout()
                if reply.get("last"):  # the worker ends itself after this one
                    worker.kill()
                    worker = None
                return worker, (reply.get("right") is True, str(reply.get("why", "")))
            worker = None
            if reply == "timeout":
                self._count_timeout()
                return None, (False, "time-out")
            verdict = (False, "the worker died (out of memory?)")
        return None, verdict

    def _count_timeout(self):
        with self._lock:
            self.timeouts += 1

    def close(self):
        """End the workers. They also end by themselves when this process does."""
        self.closed = True
        while self._pid == os.getpid():
            try:
                worker = self.idle.get_nowait()
            except queue.Empty:
                return
            if worker is not None:
                worker.dismiss()


class OnPool:
    """What graders that ask workers share: self.pool, a count of time-outs, and an end."""

    @property
    def timeouts(self):
        """How many items ran out of time so far."""
        return self.pool.timeouts

    def close(self):
        """End the workers. (They also end by themselves when this process does.)"""
        self.pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
