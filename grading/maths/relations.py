"""Answers with a sign of relation in them: x = 5, 1 < x < 2, |x| >= 3, m + n = 5, x \\neq 0.

Called by parse.py, which hands in itself for the sides, and the comparison of two values for chains
such as x = 1/2 = 0.5: every link of a chain must hold.
"""

import re
from fractions import Fraction

from grading.maths.brackets import split, top_level
from grading.maths.literals import exact
from grading.maths.names import is_name, is_quantity, plain, tuple_of_names
from grading.maths.reals import as_reals, punctured
from grading.maths.symbols import symbolic
from grading.maths.unfinished import HUGE, UNFINISHED, bare
from grading.maths.units import split_unit

# Negated relations too (\nless, \notin, whatever \not was put before): none of them may be lost.
RELATION = re.compile(
    r"=|<|>|\\n?(?:leq|geq|eq|less|gtr|approx|equiv|sim|simeq|cong|propto|subset|supset|prec"
    r"|succ|mid|parallel|perp|lesssim|gtrsim|doteq|triangleq|ll|gg|le|ge|gt|lt)(?:eq|eqq|slant)?"
    r"(?![A-Za-z])|\\(?:in|ni|notin|not|n[<>])(?![A-Za-z])|\\n[<>]"
)
ORDER = ("<", ">", "\\leq", "\\geq")
MODULUS = re.compile(
    r"(?:(.*?)(?:\\equiv|=))?((?:(?!\\equiv|=).)*?)[ ,(]*"
    r"(?:\\[pb]?mod|\\pod|mod(?:ulo)?)(?![a-z]) ?[{(]? ?([^{}()=,]+?) ?[)}]*"
)


def relation(text, parse, agree):
    """An equation, an inequality, a membership; None if there is no sign of relation."""
    operators = top_level(text, RELATION)
    if not operators:
        return None
    sides = split(text, RELATION)
    if operators == ["\\in"]:
        names = tuple_of_names(sides[0])
        if names:
            return _points(names, parse(sides[1]))
        if is_name(sides[0]):
            node = parse(sides[1])
            node = as_reals(node) if node[0] == "tuple" else node
            if node is None:
                return ("none",)
            return ("reals", node[1], sides[0]) if node[0] == "reals" else node
    if set(operators) == {"="}:
        return _equation(sides, parse, agree)
    if set(operators) <= {"=", "\\approx"}:
        return _approximation(sides, operators, parse, agree)
    if set(operators) <= {"=", *ORDER} and all(sides):
        node = _inequality(sides, operators)
        if node is not None:
            return node
    return ("relation", re.sub(r" ", "", text))


def excluded(text, separator, parse):
    """x \\neq 0, 1 as all reals but 0 and 1; None for any other text."""
    if "\\neq" not in text or top_level(text, RELATION) != ["\\neq"]:
        return None
    name, points = split(text, RELATION)
    if not is_name(name) or not points:
        return None
    nodes = [parse(point) for point in split(points, separator)]
    nodes = [inner for node in nodes for inner in (node[1] if node[0] == "list" else [node])]
    if any(node[0] != "value" for node in nodes):
        return None
    return punctured([node[1] for node in nodes], plain(name))


def congruence(text, parse):
    """x \\equiv 3 \\pmod 7 as ("congruent", name, residues, modulus), or None."""
    if "mod" not in text:
        return None
    text = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text).replace("  ", " ").strip()
    match = MODULUS.fullmatch(text)
    if match is None or not match[2].strip():
        return None
    node = parse(match[2].strip())
    residues = node[1] if node[0] in ("list", "set") else [node]
    if any(residue[0] != "value" for residue in residues):
        return None
    name, texts = plain(match[1] or ""), [residue[1] for residue in residues]
    if len(texts) == 1 and exact(name) and is_name(texts[0]):  # 3 \\equiv x
        name, texts = plain(texts[0]), [name]
    return ("congruent", name, texts, match[3])


INVERSE = re.compile(r"[A-Z] ?\^ ?\{ ?- ?1 ?\}")


def _equation(sides, parse, agree):
    """x = 5, x = 1/2 = 0.5, 2 + 3 = 5, m + n = 5, y = 2x + 1."""
    if sides[0] == "":
        sides = sides[1:]
    if not all(sides):
        return ("none",)
    if len(sides) == 1:
        return parse(sides[0])
    names = tuple_of_names(sides[0]) if len(sides) == 2 else None
    if names:
        return _points(names, parse(sides[1]))
    if len(sides) == 2 and INVERSE.fullmatch(sides[0]) and r"\begin" in sides[1]:
        return ("named", plain(sides[0]), parse(sides[1]))
    if not is_name(sides[0]) and is_name(sides[-1]) and not re.search("[a-zA-Z]", bare(sides[0])):
        sides = [sides[-1], *sides[:-1]]
    if is_name(sides[0]):
        # x = 1/2 = 0.5 is one value if its sides agree; x = y = 3 is two names for it
        for side in sides[1:-1]:
            if not is_name(side) and not agree(side, sides[-1]):
                return ("none",)
        first = next((side for side in sides[1:-1] if not is_name(side)), None)
        node = parse(sides[-1])
        return ("named", plain(sides[0]), ("either", parse(first), node) if first else node)
    number = split_unit(sides[-1])[0]

    def is_true():
        return all(agree(x, number) or agree(x, sides[-1]) for x in sides[:-1])

    if not re.search(r"[A-Za-z]", bare("".join(sides[:-1]) + number)):
        is_said_twice = sides[0].replace(" ", "") == sides[-1].replace(" ", "")
        if is_said_twice or not is_true():
            return ("none",)
        return ("either", parse(sides[0]), parse(sides[-1]))
    # \sum_{k=1}^{10} k = 55: k is no variable of the whole
    unbound = [side for side in sides[:-1] if not UNFINISHED["sum sign"].match(side)]
    if not re.search(r"[A-Za-z]", bare("".join(unbound) + number)) and is_true():
        return ("either", parse(sides[0]), parse(sides[-1]))
    if len(sides) == 2 and is_quantity(sides[0]) and not re.search(r"[A-Za-z]", bare(sides[1])):
        return ("named", plain(sides[0]), parse(sides[1]))  # m + n = 5
    letters = [set(re.findall(r"[A-Za-z]", bare(side))) for side in sides]
    if all(found == letters[0] for found in letters) and all(
        agree(side, sides[-1]) for side in sides[:-1]
    ):
        return ("either", parse(sides[0]), parse(sides[-1]))  # (x + 1)^2 = x^2 + 2x + 1
    return ("equation", sides) if len(sides) == 2 else ("none",)


def _points(names, node):
    """(x, y) = (1, 2), or several points."""
    if node[0] == "tuple" and len(node[1]) == len(names):
        return ("assigned", names, node[1], True)
    if node[0] in ("list", "set"):
        points = [_points(names, inner) for inner in node[1]]
        return ("none",) if ("none",) in points else (node[0], points)
    return ("none",)


def _approximation(sides, operators, parse, agree):
    r"""\frac{1}{3} \approx 0.333, where the decimal is what the value rounds to.

    Decimals stand last in a chain: x = \frac{1}{3} \approx 0.333.
    """
    at = operators.index("\\approx") + 1
    exact_sides, decimals = sides[:at], sides[at:]
    numbers = [split_unit(side)[0] for side in decimals]
    is_decimal = all(re.fullmatch(r"-?\d*\.?\d+", number) for number in numbers)
    if "=" in operators[at:] or not is_decimal:
        return ("none",)
    value = exact_sides[-1]
    if len(sides) == 2 and (not value or is_name(value)):  # x = 2.37, or so
        return parse(decimals[0]) if "." in numbers[0] else ("none",)
    node = _equation(exact_sides, parse, agree) if at > 1 else parse(value)
    if node == ("none",) or not all(_rounds_to(value, number) for number in numbers):
        return ("none",)
    if node[0] == "named":
        return ("named", node[1], ("either", node[2], parse(decimals[-1])))
    return ("either", node, parse(decimals[-1]))


def _inequality(sides, operators):
    """x > 1, 1 < x < 2, x < y; a chain is turned so that its first sign is <."""
    absolute = _absolute(sides, operators)
    if absolute:
        return absolute
    flipped = {"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq", "=": "="}
    if next(operator for operator in operators if operator != "=") in (">", "\\geq"):
        sides, operators = sides[::-1], [flipped[operator] for operator in operators[::-1]]
    if not all(operator in ("<", "\\leq") for operator in operators):
        return ("order", sides, operators)
    variable = [is_name(side) and "\\text" not in side for side in sides]
    if variable == [True, False]:
        return ("reals", [("-\\infty", True, sides[1], operators[0] == "<")], plain(sides[0]))
    if variable == [False, True]:
        return ("reals", [(sides[0], operators[0] == "<", "\\infty", True)], plain(sides[1]))
    if variable == [False, True, False]:
        piece = (sides[0], operators[0] == "<", sides[2], operators[1] == "<")
        return ("reals", [piece], plain(sides[1]))
    return ("order", sides, operators)


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
    places = len(decimal.partition(".")[2])
    number, rounded = number.evalf(30), symbolic(decimal).evalf(30)
    gap = abs(number - rounded) * 10**places
    if not gap.is_Float and not gap.is_zero or not places and number.is_Integer:
        return False
    # rounded, or cut off
    return bool(gap <= 0.5 or gap < 1 and places and abs(rounded) < abs(number))
