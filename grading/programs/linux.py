"""Names and numbers of Linux, and libc functions that raise OSError.

Imported in code workers only.
"""

import ctypes
import os

# unshare
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# mount
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

# prctl
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

PACKAGES = "/packages"  # where numpy is found inside the sandbox

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    """A libc function that returns -1 on failure; OSError then."""
    result = getattr(libc, name)(
        *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    )
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source, target, kind, flags, data=""):
    """mount(2), with texts."""
    call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())
