"""The worker of own rewards: loads a file, and asks its function item by item.

One JSON line in, one out, as in the other workers. "why" is empty where the function gave 0 or 1;
else it says what is wrong, and the parent stops.
"""

import importlib.util
import json
import sys
import traceback
from pathlib import Path

from grading.bounds import MATH_CPU_SECONDS, MATH_MEMORY
from grading.limits import address_space, limit, limit_cpu, silent_pipe


def main(file, name):
    out = silent_pipe()
    function, ready = None, {"ready": True}
    try:
        function = loaded(file, name)
    except BaseException as error:  # SystemExit too: the file is the user's
        ready = {"fault": f"{file}: {in_words(error, file)}"}
    room = address_space() + MATH_MEMORY
    limit("RLIMIT_AS", room, room)
    limit("RLIMIT_CORE", 0, 0)
    out.write(json.dumps(ready).encode() + b"\n")
    for line in sys.stdin.buffer:
        item = json.loads(line)
        limit_cpu(MATH_CPU_SECONDS + 1)
        out.write(json.dumps(reply_of(function, item, file)).encode() + b"\n")


def loaded(file, name):
    """The function `name` of a file, whose neighbours it may import. Raises whatever it raises."""
    sys.path.append(str(Path(file).parent))
    spec = importlib.util.spec_from_file_location("own_reward", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_reward"] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if callable(function):
        return function
    there = [n for n, value in vars(module).items() if callable(value) and n[:1] != "_"]
    raise LookupError(f"it has no function {name!r}; there are: {', '.join(there) or 'none'}")


def reply_of(function, item, file):
    """{"right", "why"} for one item."""
    try:
        value = function(item["response"], item["row"])
        value = value.item() if hasattr(value, "item") else value  # numpy's
        if isinstance(value, (bool, int, float)) and value in (0, 1):
            return {"right": value == 1, "why": ""}
        why = f"it returned {repr(value)[:100]}, where only 0 and 1 are rewards"
    except BaseException as error:
        why = f"it raised {in_words(error, file)}"
    return {"right": False, "why": why}


def in_words(error, file):
    """An exception on one line, with the last line of the file that it passed through."""
    if isinstance(error, LookupError) and str(error).startswith("it has no function"):
        return str(error)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    words = " ".join(str(error).split())[:200]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {words}{place}"
