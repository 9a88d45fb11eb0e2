"""The start of every candidate: an empty module that the program will run in."""

import _thread
import builtins
import sys


def empty_module(name, packages):
    """A module of that name that holds nothing, so that the program sees no name it did not define.

    packages is the folder of the one package that programs may import, numpy.
    """
    sys.argv[:] = ["main.py"]
    sys.path.append(packages)
    sys.path_importer_cache.clear()
    builtins.exit = builtins.quit = sys.exit  # the interpreter's option -S leaves them out
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # print(10**5000): the limit on CPU time is enough
    _thread.stack_size(16 << 20)
    module = type(sys)(name)
    module.__file__ = "main.py"
    module.__builtins__ = builtins
    sys.modules[name] = module
    return module
