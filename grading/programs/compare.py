"""When what a program printed, or returned, is what was expected.

Decimal numbers have a tolerance, blanks between words may differ, and what JSON cannot say (tuples,
keys that are numbers) is forgiven. Integers and texts are compared as they are. A row with `exact`
wants everything as it is.
"""

import json
import math
import re

# A number that is no part of a word, a version (1.2.3) or an address
NUMBER = re.compile(
    r"(?<![\w.])[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?!\w|\.[0-9])"
)
# Whether it was computed with floats: a point, or an exponent as Python writes it. 12 is none.
DECIMAL = re.compile(r"[+-]?[0-9]*(?:\.(?P<places>[0-9]*))?(?:[eE](?P<exponent>[+-]?[0-9]+))?")

ABSOLUTE, RELATIVE = 1e-6, 1e-9
SMALL = 1e-3  # of a number below 0.001, which is nothing beside ABSOLUTE


def close(got, expected, unit):
    """Whether a float is the expected one, whose last place is worth `unit`.

    Off by ABSOLUTE or RELATIVE at most. A number below 0.001 must be right to a thousandth, or to
    half its last place, so that 0 is not 0.0000004.
    """
    if not math.isfinite(got) or not math.isfinite(expected):
        return got == expected
    size = abs(expected)
    small = max(SMALL * size, unit / 2, RELATIVE)
    allowed = max(RELATIVE * size, min(ABSOLUTE, small))
    return abs(got - expected) <= allowed * (1 + 1e-9)


def unit_of(text):
    """What the last place of a decimal number is worth; None if the text is an integer."""
    parts = DECIMAL.fullmatch(text)
    if not parts or "." not in text and not re.search("e[+-]", text):
        return None
    power = int(parts["exponent"] or 0) - len(parts["places"] or "")
    return 10.0**power if -400 < power < 300 else None


# --------------------------------------------------------------------------------------------------
# Standard output
# --------------------------------------------------------------------------------------------------
def trimmed(text):
    """Output without blanks at the ends of lines, or blank lines at the end."""
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").split("\n")).rstrip("\n")


def same_output(printed, expected, exact=False):
    """Whether two trimmed outputs are the same, line by line."""
    if printed == expected:
        return True
    ours, theirs = printed.split("\n"), expected.split("\n")
    if exact or len(ours) != len(theirs):
        return False
    loose = not _is_laid_out(theirs)
    return all(
        one == other or _same_line(one, other, loose)
        for one, other in zip(ours, theirs, strict=True)
    )


def _is_laid_out(lines):
    """Whether blanks are part of an expected output: a picture, a table, words of signs alone."""
    for line in lines:
        words = line.split()
        spaced = line != " ".join(words) and not all(map(NUMBER.fullmatch, words))
        if line[:1].isspace() or spaced or not all(map(re.compile(r"[^\W_]").search, words)):
            return True
    return False


def _same_line(got, expected, loose):
    if loose:
        if got[:1].isspace():
            return False
        got, expected = " ".join(got.split()), " ".join(expected.split())
    if NUMBER.split(got) != NUMBER.split(expected):
        return False
    numbers = zip(NUMBER.findall(got), NUMBER.findall(expected), strict=True)
    return all(one == other or _same_number(one, other) for one, other in numbers)


def _same_number(got, expected):
    unit = unit_of(expected)
    return unit is not None and close(float(got), float(expected), unit)


# --------------------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------------------
def same_value(got, expected, exact=False):
    """Whether a value that a call returned is the one that a row has, which was read from JSON."""
    if isinstance(expected, list) and isinstance(got, (list, tuple)):
        return len(got) == len(expected) and all(
            same_value(one, other, exact) for one, other in zip(got, expected, strict=True)
        )
    if isinstance(expected, dict) and isinstance(got, dict):
        named = {_as_json_key(key): value for key, value in got.items()}
        return (
            len(named) == len(got)
            and named.keys() == expected.keys()
            and all(same_value(named[key], value, exact) for key, value in expected.items())
        )
    if isinstance(expected, float) and type(got) in (int, float) and not exact:
        try:
            return close(float(got), expected, unit_of(repr(expected)) or 0.0)
        except OverflowError:  # an integer beyond all floats
            return False
    # Of what is no plain data this raises: the candidate would answer.
    return bool(got == expected)


def _as_json_key(key):
    """A key of a dict as JSON writes it: 1 as "1"."""
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    return key
