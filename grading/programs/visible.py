"""What a program may see of the file system: the system's libraries, Python, and numpy."""

import importlib.util
import os
import sys


def python():
    """The interpreter itself: not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def visible_folders():
    """What a program may read: the system's libraries and Python's own."""
    paths = [
        path
        for path in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
        if os.path.exists(path)
    ]
    for path in (
        os.path.realpath(sys.base_prefix),
        os.path.realpath(sys.base_exec_prefix),
        os.path.dirname(python()),
    ):
        if not any((path + "/").startswith(seen + "/") for seen in paths):
            paths.append(path)
    return paths


def numpy_folders():
    """The directories of numpy, if it is installed: the one package that programs may import."""
    found = importlib.util.find_spec("numpy")
    if found is None or not found.origin:
        return []
    here = os.path.dirname(found.origin)
    return [path for path in (here, here + ".libs") if os.path.isdir(path)]
