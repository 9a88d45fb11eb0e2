"""What the kernel refuses a program: system calls by a seccomp filter, files by Landlock.

Both are set by a process for itself and hold for all it becomes; neither can be taken off again.
"""

import ctypes
import errno
import os
import struct

from grading.programs.linux import PR_SET_SECCOMP, call
from grading.programs.visible import numpy_folders, visible_folders

# System calls that a program is refused, by number on (x86_64, aarch64); None where that machine
# has no such call
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "connect": (42, 203),
    "ptrace": (101, 117),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "open_by_handle_at": (304, 265),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "personality": (135, 92),
    "vmsplice": (278, 75),
    "process_madvise": (440, 440),
    # Landlock does not look at these
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "truncate": (76, 45),
}

# Those that are not merely refused: no use but a hostile one, so the program ends
FATAL = (
    "fork",
    "vfork",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    "ptrace",
)

# machine: (column of REFUSED, the kernel's number of the architecture, numbers of those calls that
# are refused by their arguments)
NUMBERS = {
    "x86_64": (
        0,
        0xC000003E,
        {
            "clone": 56,
            "kill": 62,
            "tgkill": 234,
            "prlimit64": 302,
            "clone3": 435,
            "fcntl": 72,
            "ioctl": 16,
        },
    ),
    "aarch64": (
        1,
        0xC00000B7,
        {
            "clone": 220,
            "kill": 129,
            "tgkill": 131,
            "prlimit64": 261,
            "clone3": 435,
            "fcntl": 25,
            "ioctl": 29,
        },
    ),
}

# BPF instructions: load a word of the system call's data, jump if equal, if at least, if any bit
# is set, return a verdict
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

# Where the number, the architecture and two arguments of a system call stand in its data
NUMBER, ARCHITECTURE, FIRST, SECOND = 0, 4, 16, 24

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE = 0x50000 | errno.EPERM
NO_SUCH_CALL = 0x50000 | errno.ENOSYS


def refuse_system_calls(may_fork=False):
    """A seccomp filter for this process and all it becomes.

    No new processes (threads are fine) unless it may fork, sockets, signals to others, kernel
    features.
    """
    code = _filter(*NUMBERS[os.uname().machine], may_fork)
    program = b"".join(struct.pack("HBBI", *step) for step in code)
    buffer = ctypes.create_string_buffer(program)
    filter_ = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(buffer)))
    call("prctl", PR_SET_SECCOMP, 2, filter_, 0, 0)


def _filter(column, architecture, numbers, may_fork=False):
    """The filter as BPF: steps (instruction, steps to skip if true, if false, operand).

    The number of the call stays loaded; a rule that looks at an argument loads it again at its end.
    """
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if column == 0:
        # The x32 numbers would slip past.
        code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]
    for name, pair in REFUSED.items():
        if pair[column] is not None and not (may_fork and name in ("fork", "vfork")):
            verdict = KILL if name in FATAL else REFUSE
            code += [(EQUAL, 0, 1, pair[column]), (RETURN, 0, 0, verdict)]
    # libc then uses clone, whose flags the filter can see: CLONE_THREAD must be set.
    code += [(EQUAL, 0, 1, numbers["clone3"]), (RETURN, 0, 0, NO_SUCH_CALL)]
    if not may_fork:
        code += [
            (EQUAL, 0, 3, numbers["clone"]),
            (LOAD, 0, 0, FIRST),
            (ANY_BIT, 1, 0, 0x10000),
            (RETURN, 0, 0, KILL),
            (LOAD, 0, 0, NUMBER),
        ]
    # Signals to oneself only
    for name in ("kill", "tgkill"):
        code += [
            (EQUAL, 0, 3, numbers[name]),
            (LOAD, 0, 0, FIRST),
            (EQUAL, 1, 0, os.getpid()),
            (RETURN, 0, 0, KILL),
            (LOAD, 0, 0, NUMBER),
        ]
    # Limits of oneself only
    code += [
        (EQUAL, 0, 3, numbers["prlimit64"]),
        (LOAD, 0, 0, FIRST),
        (EQUAL, 1, 0, 0),
        (RETURN, 0, 0, REFUSE),
        (LOAD, 0, 0, NUMBER),
    ]
    # F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP, TIOCSTI: signals and keystrokes for
    # others, by way of a descriptor
    for name, (a, b, c) in (("fcntl", (8, 10, 15)), ("ioctl", (0x8901, 0x8902, 0x5412))):
        code += [
            (EQUAL, 0, 6, numbers[name]),
            (LOAD, 0, 0, SECOND),
            (EQUAL, 2, 0, a),
            (EQUAL, 1, 0, b),
            (EQUAL, 0, 1, c),
            (RETURN, 0, 0, REFUSE),
            (LOAD, 0, 0, NUMBER),
        ]
    return code + [(RETURN, 0, 0, ALLOW)]


def landlock(scratch=None):
    """Landlock for this process: it may read and execute what is visible, and nothing else.

    scratch: a folder that it may also write into. OSError if the kernel has no Landlock.
    """
    version = call("syscall", 444, None, 0, 1)
    # The access rights that this version knows
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    rules = call(
        "syscall",
        444,
        struct.pack("QQ", everything, 3 if version >= 4 else 0),
        16 if version >= 4 else 8,
        0,
    )
    numpy = numpy_folders()
    # Rights: 1 execute, 2 write, 4 read, 8 list
    granted = [(path, 0b1101) for path in visible_folders() + numpy]
    granted += [(os.path.dirname(path), 0b1000) for path in numpy]
    granted += [("/dev/" + name, 0b0110) for name in ("null", "zero", "urandom")]
    granted += [(scratch, everything)] if scratch else []
    for path, rights in granted:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            rights &= 0b0111
        call("syscall", 445, rules, 1, struct.pack("=Qi", rights, fd), 0)
        os.close(fd)
    call("syscall", 446, rules, 0)
    os.close(rules)
