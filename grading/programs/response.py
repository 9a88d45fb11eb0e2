"""The program in a response: what is run of all that a model wrote."""

import re

from grading.answers import after_thinking
from grading.bounds import MAX_PROGRAM
from grading.programs.formats import load_tests

# What a block of each language may be marked as
MARKS = {
    "python": ("python", "py", "python3"),
    "cpp": ("cpp", "c++", "cc", "cxx", "cpp17", "c++17"),
}


def last_program(response, language="python"):
    """The source in the last ```python block (also ```py, ```python3), or that of another language,
    or None.

    A block that was never closed is no program: the response was cut off. What stands before the
    last </think> is thought, and nothing else is said where a <think> was not closed.
    """
    if not isinstance(response, str):
        return None
    response = after_thinking(response)
    program, block = None, None
    # Not splitlines: a form feed or U+2028 in a string ends no line.
    for line in re.split(r"\r\n|\n|\r", response):
        mark = line.strip()
        if block is None:
            fence = re.match(r"(\s*(?:(?:[>*-]|\d+[.)]) )?\s*)(`{3,}|~{3,})\s*([\w+-]*)", line)
            if fence and "`" not in line[fence.end(2) :]:
                block, ticks, indent = [], fence[2], len(fence[1].expandtabs())
                wanted = fence[3].lower() in MARKS[language]
        elif (
            mark.startswith(ticks)
            and not mark.strip(ticks[0])
            and not (len(line) - len(line.lstrip()) > indent + 3 and _in_docstring(block))
        ):
            if wanted:
                program = "\n".join(block) + "\n"
            block = None
        elif (
            mark.endswith(ticks)
            and mark.strip(ticks[0])
            and "`" not in mark[: -len(ticks)]
            and "~" not in mark
        ):
            # The fence stuck to the last line.
            block.append(line.rstrip()[: -len(ticks)])
            if wanted:
                program = "\n".join(block) + "\n"
            block = None
        else:
            # A block that is indented as a whole, in a list for example.
            if indent and line[:indent].strip(" \t") == "" and "\t" in line[:indent]:
                line = line.expandtabs(8)
            block.append(line[indent:] if not line[:indent].strip() else line)
    if block is not None and wanted:
        return None  # cut off inside the program
    return program


def _in_docstring(lines):
    """Whether a triple-quoted string is open after these lines."""
    return any(sum(line.count(quotes) for line in lines) % 2 for quotes in ('"""', "'''"))


def prepare_code(response, tests):
    """((reward, why), None) where nothing need be run, else (None, item for a worker)."""
    try:
        tests = load_tests(tests)
    except Exception as error:
        return (0.0, f"bad row: {error}"), None
    language = tests.get("language", "python")
    program = last_program(response, language)
    if program is None:
        return (0.0, f"no complete ```{language} block"), None
    try:
        size = len(program.encode())
    except UnicodeEncodeError:
        return (0.0, "the program is no valid text"), None
    if size > MAX_PROGRAM or "\0" in program:
        return (0.0, "the program is too long, or has a null byte"), None
    return None, {"program": program, "tests": tests}
