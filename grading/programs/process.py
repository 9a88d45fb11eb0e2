"""A running candidate, as its judge sees it: its time, its memory, its end."""

import math
import os
import resource
import signal
import time


class Clock:
    """Seconds left of a program's wall-clock time.

    On a busy host, or a virtual machine that is stopped for a while, a wait may take far longer
    than was asked for: such an excess is not the program's, and does not count. (The worker's own
    limit counts it.)
    """

    def __init__(self, seconds):
        self.left = seconds

    def poll(self, poll):
        """The descriptors that are ready, as {descriptor: events}; empty when the time is up."""
        while self.left > 0:
            step, start = min(0.2, self.left), time.monotonic()
            ready = poll.poll(math.ceil(1000 * step))
            self.left -= min(time.monotonic() - start, step)
            if ready:
                return dict(ready)
        return {}

    def sleep(self, seconds):
        """Sleep; False when the time is up."""
        time.sleep(seconds)
        self.left -= seconds
        return self.left > 0


def kill(pid, box):
    """Kill a candidate with all it started, and wait for its end.

    Returns (exit status as subprocess gives it, CPU seconds, MiB resident).
    """
    try:
        if box.level == "namespaces":
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    _, status, used = os.wait4(pid, 0)
    # Whatever left the process group is our child by now.
    for _ in range(100 if box.level == "limits" else 0):
        children = _children()
        if not children:
            break
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except OSError:
                pass
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _children():
    """The processes whose parent this one is."""
    children = []
    for stat in map(_read_stat, filter(str.isdigit, os.listdir("/proc"))):
        if stat and stat.rpartition(")")[2].split()[1] == str(os.getpid()):
            children.append(int(stat.split()[0]))
    return children


def _read_stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read()
    except OSError:
        return ""


def too_large(resident, tests):
    """Whether a candidate used more memory than its tests allow."""
    # What the kernel reports for a process includes what its parent, the judge, held when it was
    # started.
    judge = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return resident > max(tests["memory"], judge + 8)
