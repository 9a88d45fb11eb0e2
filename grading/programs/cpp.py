"""C++: the compiler of this host, and a program made by it inside the sandbox.

The compiler reads what a model wrote, so it is locked away as programs are, but that it may start
processes (its own parts) and write into an empty folder. The program runs as Python's do.
"""

import functools
import os
import shutil

from grading.bounds import COMPILE_MEMORY, COMPILE_SECONDS
from grading.programs.visible import visible_folders

NAMES = ("g++", "clang++")
PLACES = "/usr/local/bin:/usr/bin:/bin"
OPTIONS = ("-std=gnu++17", "-O2", "-w", "-x", "c++")


@functools.cache
def cpp_compiler():
    """The path of g++ or clang++ where programs can see it; None where there is none."""
    for name in NAMES:
        path = os.path.realpath(shutil.which(name, path=PLACES) or "/nowhere")
        if any((path + "/").startswith(folder + "/") for folder in visible_folders()):
            return path
    return None


def compiled(box, source):
    """(descriptor of a program, "") or (None, why there is none)."""
    compiler = cpp_compiler()
    if compiler is None:
        return None, "no C++ compiler (g++ or clang++) is found on this host"
    # without "-x c++" clang++ and g++ would go by the ending, and link C
    command = [compiler, *OPTIONS, "main.cpp", "-o", "program"]
    program, said = box.compile(command, source, COMPILE_SECONDS, COMPILE_MEMORY)
    return program, said and f"it does not compile: {said}"
