"""What runs INSIDE the sandbox, beside the program that is judged.

    start.py    the empty module that a program runs in
    stdin.py    runs a program that reads standard input and prints
    calls.py    runs a program, then serves the judge's requests to call its functions
    codec.py    plain data as JSON and back; the judge, on the other side of the pipe, uses it too

A fresh interpreter sees none of this repository. It is given the text of these files on its command
line (python -c TEXT PROGRAM PACKAGES), and so they import the standard library only, and trust
nothing that the program may have changed with anything that matters: the judge decides outside.
"""

from pathlib import Path


def _text(*names):
    """The text of some files of this folder, one below the other: one script."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


RUN_STDIN = _text("start.py", "stdin.py")
RUN_CALLS = _text("start.py", "codec.py", "calls.py")
