"""What a worker that calculates for others may use: memory, and CPU seconds of one item."""

import os
import sys

try:
    import resource
except ImportError:  # Windows: the wall-clock limit that the parent keeps has to do
    resource = None


def limit(name, soft, hard):
    """Set a limit of this process. Linux has them all; elsewhere what can be limited is."""
    if resource is None:
        return
    try:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    except (AttributeError, ValueError, OSError):
        if sys.platform == "linux":
            raise


def limit_cpu(seconds):
    """Let this process use so many more CPU seconds; then the kernel ends it (SIGXCPU)."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + seconds, hard)


def address_space():
    """Bytes of address space that this process has now, where the system tells; else 0."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def silent_pipe():
    """The pipe to the parent, as a file of bytes: nothing that a library prints reaches it."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return out
