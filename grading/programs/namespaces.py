"""Namespaces: a world for the code worker in which there is nothing that a program must not see.

A root with a read-only /usr and Python, an empty /tmp, no network, no other process.
"""

import os
import signal
import struct
import sys

from grading.programs.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    PACKAGES,
    PR_SET_PDEATHSIG,
    call,
    libc,
    mount,
)
from grading.programs.visible import numpy_folders, visible_folders


def enter_namespaces():
    """Move a code worker into namespaces, with a root that holds visible_folders() only.

    User, mount, PID, network, IPC and UTS. Returns (a descriptor of the PID namespace, whether
    there is a second user in it, for the programs).
    """
    visible, numpy = visible_folders(), numpy_folders()
    two_users = _leave_host()

    # The next child is process 1 of the new PID namespace, and the worker from here on; with it
    # ends all that it started.
    worker = os.fork()
    if worker:
        _, status = os.waitpid(worker, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 127)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    proc = _change_root(visible, numpy)
    # The worker's own view: what it may read is what programs may read.
    call("mount", b"none", b"/", b"", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, None)
    sys.path[:] = [path for path in sys.path if path and os.path.isdir(path)] + [PACKAGES]
    sys.path_importer_cache.clear()
    return proc, two_users


def _leave_host():
    """Unshare, and map the user. Whether a second user could be mapped."""
    uid, gid = os.geteuid(), os.getegid()
    ready, done = os.pipe(), os.pipe()
    helper = 0
    if uid == 0:
        # Real root may map a second user, an ordinary one, for the programs. Another process has to
        # write that map.
        helper = os.fork()
        if helper == 0:
            try:
                os.read(ready[0], 1)
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{os.getppid()}/{name}", "w") as file:
                        file.write("0 0 1\n1 65534 1\n")
                os.write(done[1], b"+")
            finally:
                os._exit(0)
        os.close(done[1])
    call(
        "unshare",
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID,
    )
    two_users = False
    if helper:
        os.write(ready[1], b"+")
        two_users = os.read(done[0], 1) == b"+"
        os.waitpid(helper, 0)
    if not two_users:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    for fd in {*ready, done[0]} | (set() if helper else {done[1]}):
        os.close(fd)
    return two_users


def _change_root(visible, numpy):
    """Make the new root and move into it. A descriptor of the PID namespace."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    root = "/sys" if os.path.isdir("/sys") else "/mnt"
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for name in ("tmp", "proc", "dev", "old", PACKAGES[1:]):
        os.mkdir(f"{root}/{name}")

    for path in visible:
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        else:
            _show(path, root, path)
    for path in numpy:
        _show(path, root, f"{PACKAGES}/{os.path.basename(path)}")
    for name in ("null", "zero", "full", "random", "urandom"):
        _show("/dev/" + name, root, "/dev/" + name)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink("/proc/self/" + target, f"{root}/dev/{name}")
    proc = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Without it no candidate could have one.
        mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        pass
    new, old = root.encode(), (root + "/old").encode()
    if hasattr(libc, "pivot_root"):
        call("pivot_root", new, old)
    else:
        call("syscall", {"x86_64": 155, "aarch64": 41}[os.uname().machine], new, old)
    os.chdir("/")
    call("umount2", b"/old", 2)
    os.rmdir("/old")
    return proc


def _show(path, root, at):
    """Make a file or folder of the host visible below the new root, read-only."""
    if os.path.isdir(path):
        os.makedirs(root + at, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(root + at), exist_ok=True)
        os.close(os.open(root + at, os.O_CREAT | os.O_WRONLY))
    mount(path, root + at, "", MS_BIND | MS_REC)
    if not at.startswith("/dev/"):
        try:  # mount_setattr: read-only, with all that is mounted below
            call(
                "syscall",
                442,
                -100,
                (root + at).encode(),
                0x8000,
                struct.pack("QQQQ", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0),
                32,
            )
        except OSError:  # older than Linux 5.12; flags that are already set must be repeated
            kept = os.statvfs(path).f_flag
            mount(
                "none",
                root + at,
                "",
                MS_REMOUNT
                | MS_BIND
                | MS_RDONLY
                | MS_NOSUID
                | MS_NODEV
                | (kept & (MS_NOEXEC | 1024 | 2048))
                | (1 << 21 if kept & 4096 else 0),
            )
