"""The sandbox: starts a program locked away, at one of the levels of levels.py."""

import atexit
import fcntl
import math
import os
import resource
import select
import shutil
import signal
import struct
import tempfile

from grading.bounds import SCRATCH
from grading.levels import LEVELS
from grading.programs.filters import landlock, refuse_system_calls
from grading.programs.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    PACKAGES,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    call,
    libc,
    mount,
)
from grading.programs.namespaces import enter_namespaces
from grading.programs.process import Clock
from grading.programs.visible import numpy_folders, python

# All that a program finds in its environment
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}


SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
KEPT = 3  # the one descriptor, beside the standard ones, that a child may keep


def _file_of(data):
    """A descriptor of a file in memory that holds the data and cannot be changed."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    _write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def _write(fd, data):
    data = memoryview(data)
    while data:
        data = data[os.write(fd, data) :]


class Sandbox:
    """A code worker's means of starting a locked-away candidate.

    Made once per worker, before it reads its first item.
    """

    def __init__(self, level):
        if level not in LEVELS:  # a misspelt level must not mean no isolation
            raise ValueError(f"no such level: {level!r}")
        self.level, self.python, self.two_users = level, python(), False
        # Where programs find numpy, and the empty directory they run in
        self.packages = os.path.dirname((numpy_folders() or [PACKAGES])[0])
        if level == "namespaces":
            self.packages, self.empty = PACKAGES, "/tmp"
            self.pid_namespace, self.two_users = enter_namespaces()
        elif level == "landlock":
            self.empty = "/usr"
        else:
            self.empty = tempfile.mkdtemp(prefix="verify-")
            atexit.register(lambda: os.rmdir(self.empty))

    def start(self, boot, program, seconds, memory, given=None):
        """Start a candidate: boot, a text of grading/candidate, runs the program. Without boot
        (None) the program is what compile() gave.

        Returns (pid, its standard output), or with no input given (pid, its standard input, its
        standard output). The input is a file, as on Codeforces, where programs ask for its size.
        The candidate is killed when the calling process ends.
        """
        isolated = ["-I", "-S", "-B", "-X", "utf8"]
        file, kept = (self.python, None) if boot else (KEPT, program)
        arguments = [self.python, *isolated, "-c", boot, program, self.packages]
        if not boot:
            arguments = ["main"]
        ours_in, ours_out, go = (
            os.pipe() if given is None else (_file_of(given),),
            os.pipe(),
            os.pipe(),
        )
        if self.level == "namespaces":
            call("unshare", CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                os.close(go[1])
                if given is None:
                    os.close(ours_in[1])
                os.close(ours_out[0])
                call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.read(go[0], 1) != b"+":  # the judge died before the line above
                    os._exit(127)
                if self.level == "namespaces" and (inner := os.fork()):
                    # This is process 1 of the namespace, which no signal from inside can kill. So
                    # the program is process 2.
                    os.closerange(0, 1024)
                    status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
                    os._exit(status if status >= 0 else 128 - status)
                self._become(ours_in[0], ours_out[1], (seconds, memory), kept)
                os.execve(file, arguments, ENVIRONMENT)
            except BaseException as error:
                os.write(1, f"sandbox: {error}".encode())
            finally:
                os._exit(127)
        if self.level == "namespaces":
            # The next candidate gets a PID namespace of its own.
            call("setns", self.pid_namespace, CLONE_NEWPID)
        for fd in (ours_in[0], ours_out[1], go[0]):
            os.close(fd)
        os.write(go[1], b"+")
        os.close(go[1])
        os.set_blocking(ours_out[0], False)
        if given is not None:
            return pid, ours_out[0]
        os.set_blocking(ours_in[1], False)
        return pid, ours_in[1], ours_out[0]

    def compile(self, command, source, seconds, memory):
        """Make a program of main.cpp: (descriptor of it, "") or (None, what was said).

        The command finds main.cpp in an empty folder, where it writes `program`.
        """
        made = os.memfd_create("program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        back, to = os.pipe()
        namespaces = self.level == "namespaces"
        scratch = "/tmp" if namespaces else tempfile.mkdtemp(prefix="verify-")
        pid = os.fork()
        if pid == 0:
            code = 127
            try:
                self._become(os.open(os.devnull, os.O_RDONLY), to, (seconds, memory), made, scratch)
                code = self._run_compiler(command, source, scratch)
            except BaseException as error:
                os.write(1, f"sandbox: {error}".encode())
            finally:
                os._exit(code)
        os.close(to)
        os.set_blocking(back, False)
        said, late = _until_closed(back, 2 * seconds)
        os.close(back)
        try:
            os.killpg(pid, signal.SIGKILL)  # it is over, or late
        except (ProcessLookupError, PermissionError):
            pass
        status = os.waitpid(pid, 0)[1]
        if not namespaces:
            shutil.rmtree(scratch, ignore_errors=True)
        if status == 0 and os.fstat(made).st_size:
            fcntl.fcntl(made, fcntl.F_ADD_SEALS, SEALS)
            return made, ""
        os.close(made)
        return None, f"time limit ({seconds} CPU seconds)" if late else said[:200] or "no reason"

    def _run_compiler(self, command, source, scratch):
        """In the child: the compiler in a process of its own, then its program goes into KEPT."""
        os.chdir(scratch)
        with open("main.cpp", "wb") as file:
            file.write(source.encode("utf-8", "replace"))
        compiler = os.fork()
        if compiler == 0:
            try:
                os.dup2(1, 2)
                os.closerange(3, 1024)
                environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": scratch}
                os.execve(command[0], command, {**environment, "LANG": "C.UTF-8"})
            finally:
                os._exit(127)
        if os.waitpid(compiler, 0)[1]:
            return 1
        with open("program", "rb") as file:
            _write(KEPT, file.read())
        return 0

    def _become(self, stdin, stdout, limits, kept=None, scratch=None):
        """In the child: give up everything, in an order that works.

        limits: (CPU seconds, MiB). kept: a descriptor that stays open, as KEPT. scratch: the folder
        of a compiler, which may write there and start its parts.
        """
        seconds, memory = limits
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if kept is not None:
            os.dup2(kept, KEPT)
        os.closerange(3 if kept is None else KEPT + 1, 1024)
        if self.level == "namespaces":
            call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
            mount(
                "tmpfs",
                "/tmp",
                "tmpfs",
                MS_NOSUID | MS_NODEV,
                f"size={SCRATCH}m,nr_inodes=4096,mode=1777",
            )
            try:
                if scratch:  # a compiler has no namespace of processes of its own
                    raise OSError
                mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            except OSError:  # some containers forbid it; only /dev/stdin is missed
                mount("tmpfs", "/proc", "tmpfs", MS_RDONLY, "size=4k")
        os.chdir(self.empty)
        for name, limit in (
            ("AS", (memory + 768) << 20),
            ("CPU", math.floor(seconds) + 1),
            ("FSIZE", SCRATCH << 20),
            ("NOFILE", 64),
            ("CORE", 0),
            ("MSGQUEUE", 0),
            ("STACK", 256 << 20),
            ("MEMLOCK", 1 << 16),
        ):
            self._limit(name, limit)
        if os.geteuid() == 0:
            for capability in range(64):
                if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
                    break
        if self.two_users:
            os.fchown(0, 1, 1)  # else /dev/stdin could not be opened
            os.fchown(1, 1, 1)
            os.setgroups([])
            os.setresgid(1, 1, 1)
            os.setresuid(1, 1, 1)
        if self.level == "namespaces":
            self._limit("NPROC", 128)  # counted within the user namespace (since Linux 5.14)
        # No capabilities, whoever we are
        call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
        # Again: a change of user clears it.
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self.level == "landlock":
            landlock(scratch)
        if self.level != "limits":
            refuse_system_calls(may_fork=scratch is not None)

    @staticmethod
    def _limit(name, value):
        which = getattr(resource, "RLIMIT_" + name, None)
        if which is not None:
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))


def _until_closed(pipe, seconds):
    """(the first of what comes out of a pipe until its other end is closed, whether it was late)"""
    said, clock, poll = b"", Clock(seconds), select.poll()
    poll.register(pipe, select.POLLIN)
    while clock.poll(poll):
        got = os.read(pipe, 1 << 16)
        if not got:
            return said.decode("utf-8", "replace"), False
        said = (said + got)[:1000]
    return said.decode("utf-8", "replace"), True
