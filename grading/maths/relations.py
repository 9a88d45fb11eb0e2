"""Answers with a sign of relation in them: x = 5, 1 < x < 2, |x| >= 3, m + n = 5, x \\neq 0.

Called by parse.py, which hands in itself for the sides, and the comparison of two values for chains
such as x = 1/2 = 0.5.
"""

import re
from fractions import Fraction

from grading.maths.literals import exact
from grading.maths.reals import as_reals, punctured
from grading.maths.symbols import symbolic
from grading.maths.unfinished import HUGE, bare
from grading.maths.units import split_unit

RELATION = re.compile(
    r"=|<|>|\\leq(?![A-Za-z])|\\geq(?![A-Za-z])|\\neq(?![A-Za-z])"
    r"|\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])|\\sim(?![A-Za-z])|\\in(?![A-Za-z])"
    r"|\\notin(?![A-Za-z])|\\subset(?:eq)?(?![A-Za-z])"
)

# What can stand for an unknown: x, x_1, f(x), \angle ABC, |AB|, P(A), \text{area} ...
NAME = re.compile(
    r"(?:\\text\{[^{}]*\}"
    r"|\\?[A-Za-z]+(?:_(?:\w|\{[^{}]*\}))?'*(?:\([A-Za-z0-9, +]*\))?"
    r"|\|[A-Z]{2}\|"
    r"|\\(?:angle|overline|triangle|widehat|hat|vec) ?\{?[A-Za-z]+\}?"
    r"|m ?\\angle ?[A-Z]+"
    r"|[A-Za-z]_\{[^{}]*\}"
    r"|\[[A-Z]{3,}\]"
    r"|P\([^()]*\)"
    r"|\\?[A-Za-z]+ ?\([A-Za-z0-9, +\\]*\)"
    r")(?:\^\{?-1\}?)?"
)

# ... and what looks like it, but is no name
OPERATOR_NAMES = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|frac|sqrt|pi|infty|binom|sum|int|prod|lim)"
    r"(?![A-Za-z])"
)


def relation(text, sides, operators, parse, agree):
    """An equation, an inequality, a membership."""
    sides = [side.strip() for side in sides]
    if operators == ["\\in"] and NAME.fullmatch(sides[0]):
        node = parse(sides[1])
        node = as_reals(node) if node[0] == "tuple" else node
        if node is None:
            return ("none",)
        return ("reals", node[1], sides[0]) if node[0] == "reals" else node
    if set(operators) == {"="}:
        return _equation(sides, parse, agree)
    if operators in (["\\approx"], ["=", "\\approx"]) and re.fullmatch(
        r"-?\d*\.\d+", split_unit(sides[-1])[0]
    ):
        return _approximation(sides, parse)
    order = [operator for operator in operators if operator in ("<", ">", "\\leq", "\\geq")]
    if len(order) == len(operators) and all(sides):
        node = _inequality(sides, operators)
        if node is not None:
            return node
    if operators == ["\\neq"] and all(sides) and NAME.fullmatch(sides[0]):
        return punctured([sides[1]], _name(sides[0]))
    return ("relation", re.sub(r" ", "", text))


def _equation(sides, parse, agree):
    """x = 5, x = 1/2 = 0.5, 2 + 3 = 5, m + n = 5, y = 2x + 1."""
    if sides[0] == "":
        sides = sides[1:]
    if not all(sides):
        return ("none",)
    if len(sides) == 1:
        return parse(sides[0])
    first_is_name = NAME.fullmatch(sides[0]) and not OPERATOR_NAMES.match(sides[0])
    if (
        not first_is_name
        and len(sides) == 2
        and NAME.fullmatch(sides[1])
        and not OPERATOR_NAMES.match(sides[1])
        and not re.search("[a-zA-Z]", bare(sides[0]))
    ):
        sides = sides[::-1]
        first_is_name = True
    if first_is_name:
        # x = 1/2 = 0.5 is one value if its sides agree; x = y = 3 has no digits in the middle
        for side in sides[1:-1]:
            if re.search(r"\d", side) and not agree(side, sides[-1]):
                return ("none",)
        return ("named", _name(sides[0]), parse(sides[-1]))
    number = split_unit(sides[-1])[0]
    if not re.search(r"[A-Za-z]", bare("".join(sides[:-1]) + number)):
        same = sides[0].replace(" ", "") != sides[-1].replace(" ", "") and all(
            agree(side, number) for side in sides[:-1]
        )
        return parse(sides[-1]) if same else ("none",)
    if (
        len(sides) == 2
        and not re.search(r"\d", re.sub(r"_(?:\d|\{[^{}]*\})", "", sides[0]))
        and not re.search(r"[A-Za-z]", bare(sides[1]))
    ):
        return ("named", _name(sides[0]), parse(sides[1]))  # m + n = 5
    return ("equation", sides) if len(sides) == 2 else ("none",)


def _approximation(sides, parse):
    r"""\frac{1}{3} \approx 0.333, where the decimal is what the value rounds to."""
    value, decimal = sides[-2:]
    is_name = NAME.fullmatch(value) and not OPERATOR_NAMES.match(value)
    if len(sides) == 2 and (not value or is_name):  # x = 2.37, or so
        return parse(decimal)
    if (len(sides) == 2 or NAME.fullmatch(sides[0])) and _rounds_to(value, split_unit(decimal)[0]):
        return ("either", parse(value), parse(decimal))
    return ("none",)


def _inequality(sides, operators):
    """x > 1, 1 < x < 2, x < y; None for a chain that points both ways."""
    absolute = _absolute(sides, operators)
    if absolute:
        return absolute
    flipped = {"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq"}
    if operators[0] in (">", "\\geq"):
        sides, operators = sides[::-1], [flipped[operator] for operator in operators[::-1]]
    if all(operator in ("<", "\\leq") for operator in operators):
        variable = [
            bool(NAME.fullmatch(side)) and not OPERATOR_NAMES.match(side) and "\\text" not in side
            for side in sides
        ]
        if len(sides) == 2 and variable[0] and not variable[1]:
            return (
                "reals",
                [("-\\infty", True, sides[1], operators[0] == "<")],
                _name(sides[0]),
            )
        if len(sides) == 2 and variable[1] and not variable[0]:
            return (
                "reals",
                [(sides[0], operators[0] == "<", "\\infty", True)],
                _name(sides[1]),
            )
        if len(sides) == 3 and variable[1] and not variable[0] and not variable[2]:
            return (
                "reals",
                [(sides[0], operators[0] == "<", sides[2], operators[1] == "<")],
                _name(sides[1]),
            )
        return ("order", sides, operators)
    return None


def _absolute(sides, operators):
    """|x| < 2, |x - 1| >= 2 and 1 < |x| < 2 as sets of reals, or None.

    The numbers must be literals.
    """
    at = [
        i for i, side in enumerate(sides) if side[:1] == "|" == side[-1:] and side.count("|") == 2
    ]
    if len(at) != 1 or len(sides) > 3 or len(sides) == 3 and at != [1]:
        return None
    inside = re.fullmatch(r"([A-Za-z]) ?(?:([+-]) ?(.+))?", sides[at[0]][1:-1].strip())
    centre = exact(inside[3]) if inside and inside[3] else (Fraction(0), 0)
    bounds = {}  # "high": (value, open), as |x| < value or |x| > value
    for i, side in enumerate(sides):
        if i != at[0]:
            value, operator = exact(side), operators[min(i, at[0])]
            if value is None or value[0] <= 0:
                return None
            bounds["high" if (operator in ("<", "\\leq")) == (i > at[0]) else "low"] = (
                value[0],
                operator in ("<", ">"),
            )
    if not inside or centre is None or len(bounds) != len(sides) - 1:
        return None
    middle = centre[0] * (1 if inside[2] == "-" else -1)
    high, high_open = bounds.get("high", (None, True))
    if "low" not in bounds:
        return (
            "reals",
            [(str(middle - high), high_open, str(middle + high), high_open)],
            inside[1],
        )
    low, low_open = bounds["low"]
    ends = ("-\\infty", "\\infty") if high is None else (str(middle - high), str(middle + high))
    return (
        "reals",
        [
            (ends[0], high_open, str(middle - low), low_open),
            (str(middle + low), low_open, ends[1], high_open),
        ],
        inside[1],
    )


def _rounds_to(value, decimal):
    """Whether an exact value is, to its last digit, about the decimal that follows it."""
    number = None if HUGE.search(value) else symbolic(split_unit(value)[0])
    if number is None or not hasattr(number, "evalf") or number.free_symbols:
        return False
    gap = abs(number.evalf(30) - symbolic(decimal).evalf(30))
    return bool(gap.is_Float or gap.is_zero) and bool(
        gap * 10 ** len(decimal.partition(".")[2]) <= 1
    )


def _name(text):
    """A name as it is compared: without blanks, braces and the angle sign."""
    return re.sub(r"[\s{}]|\\text", "", text).replace("\\angle", "")
