"""Expressions: parsed by math-verify, compared by sympy, to 50 digits.

The only room that imports the two, and only when it is first used: they take about a second.
"""

import dataclasses
import functools
import re


@functools.cache
def _config():
    """How math-verify parses: without its own units, for which 5t is 5 and "5 less" too."""
    from math_verify import LatexExtractionConfig

    config = LatexExtractionConfig()
    plain = dataclasses.replace(config.normalization_config, units=False)
    return [dataclasses.replace(config, normalization_config=plain)]


def symbolic(text):
    """A sympy expression for LaTeX, by math-verify's parser; None if it finds none.

    Decimals become fractions before it sees them: no rounding.
    """
    from math_verify import parse

    text = re.sub(
        r"(?<![\d.^_])(\d*)\.(\d+)(?!\d*\.)",
        lambda m: rf"\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}",
        text,
    )
    text = re.sub(
        r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)? ?)"
        r"[({]? ?([\d{}\\frac]+) ?\\text ?\{ ?degree ?\} ?[)}]?",
        r"\1{(\2\\cdot\\frac{\\pi}{180})}",
        text,
    )
    text = re.sub(r"\\text ?\{ ?degree ?\}", "", text)
    text = re.sub(r"(?<![A-Za-z\\])([A-Za-z]) (?=[A-Za-z](?![A-Za-z]))", r"\1\\cdot ", text)
    text = re.sub(r" (?![A-Za-z])|(?<![A-Za-z]) ", "", text)  # the parser trips over some blanks
    parsed = parse("$" + text + "$", extraction_config=_config(), parsing_timeout=None)
    if not parsed or isinstance(parsed[0], str):
        return None
    # The parser knows more about some symbols than about others; here one letter is one symbol.
    from sympy import Basic, Symbol

    names = (
        {s: Symbol(s.name, real=True) for s in parsed[0].free_symbols}
        if isinstance(parsed[0], Basic)
        else {}
    )
    return parsed[0].xreplace({s: t for s, t in names.items() if s != t}) if names else parsed[0]


def _points(symbols, small=False):
    """Four times a fixed value for each symbol: odd positive ones, then some of mixed sign.

    small: in (-1, 1).
    """
    from sympy import Rational

    symbols = sorted(symbols, key=str)
    for k in range(4):
        values = {}
        for i, s in enumerate(symbols):
            under = 701 + 31 * i + (11000 * (i + 1) if small else 0)
            sign = -1 if k == 3 or (k == 2 and i % 2) else 1
            values[s] = sign * Rational(1000 * (i + 2) + 377 * k * (i + 1) + 89, under)
        yield values


def _integers(symbols):
    """Six times a small integer for each symbol, for what is defined there alone: (-1)^n."""
    symbols = sorted(symbols, key=str)
    for k in range(6):
        yield {s: 1 + (k + i * (k // 2 + 1)) % 7 for i, s in enumerate(symbols)}


def equal(left, right, left_literal, right_literal):
    """Whether two sympy expressions are equal.

    Exactly if they are rational, else to 50 digits; at some points if they have variables.
    """
    from math_verify import verify
    from sympy import Expr

    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return bool(verify([right], [left], timeout_seconds=None))
    if left.free_symbols != right.free_symbols:
        return False
    if left == right:
        return near(left, right) if not left.free_symbols else True
    if not left.free_symbols:
        return near(left, right) or _approximates(left, left_literal, right, right_literal)
    for points in (
        (*_points(left.free_symbols), *_points(left.free_symbols, small=True)),
        _integers(left.free_symbols),
    ):
        verdict = _agree_at(points, left, right)
        if verdict is not None:
            return verdict
    return bool(verify([right], [left], timeout_seconds=None))


def _agree_at(points, left, right):
    """Whether two expressions are equal where both are defined; None if that is hardly anywhere.

    Real values decide. Where there are none at all, as for a + bi, complex ones do.
    """
    from sympy import I

    seen, beyond = 0, []
    for values in points:
        x, y = left.subs(values), right.subs(values)
        one, other = x.evalf(15), y.evalf(15)
        if not one.is_number or not other.is_number or not one.is_finite or not other.is_finite:
            continue
        if one.is_real is False or other.is_real is False:
            beyond.append((x, y))  # outside the domain of one of them
            continue
        seen += 1
        if not near(x, y):
            return False
        if seen == 4:
            return True
    if seen >= 2:
        return True
    if beyond and (left.has(I) or right.has(I)):
        return all(near(x, y) for x, y in beyond)
    return None


def near(x, y):
    """Whether two numbers are equal: exactly if both are rational, else to 50 digits."""
    from sympy import Float, nan, zoo

    x, y = x.doit(), y.doit()
    if x == y:
        return x not in (nan, zoo)
    if x.is_Rational and y.is_Rational or x.is_infinite or y.is_infinite:
        return False
    x, y = x.evalf(80), y.evalf(80)
    gap, size = abs(x - y).evalf(20), abs(y).evalf(20)
    return bool(
        (gap.is_Float or gap.is_zero)
        and (size.is_Float or size.is_zero)
        and gap <= size * Float("1e-50")
    )


def _approximates(left, left_literal, right, right_literal):
    """A decimal of six places or more and the irrational number that rounds to it."""
    for value, literal, other, other_literal in (
        (left, left_literal, right, right_literal),
        (right, right_literal, left, left_literal),
    ):
        if (
            literal
            and not other_literal
            and literal[1] >= 6
            and literal[1] < 40
            and len(str(abs(literal[0].numerator))) >= 5
        ):
            gap = abs(other.evalf(50) - value.evalf(50))
            if gap.is_Float and gap * 2 * 10 ** literal[1] <= 1 and not other.doit().is_Rational:
                return True
    return False


def latex_of_product(factor, text):
    """A number times an expression, worked out, as LaTeX; ValueError if it cannot be."""
    from sympy import latex

    number, value = symbolic(factor), symbolic(text)
    if number is None or value is None or not hasattr(number, "is_number") or not number.is_number:
        raise ValueError(f"no product: {factor} and {text}")
    return latex(number * value)


def difference(sides):
    """left - right of an equation or inequality, or None if one side cannot be parsed."""
    expressions = [symbolic(side) for side in sides]
    return None if None in expressions else expressions[0] - expressions[1]


def proportional(left, right, positive=False):
    """Whether left = c * right for a constant c (c > 0 for inequalities), by values at points."""
    if (
        left is None
        or right is None
        or left.free_symbols != right.free_symbols
        or not left.free_symbols
    ):
        return False
    ratios = []
    for values in _points(left.free_symbols):
        low = right.subs(values).evalf(30)
        if not low.is_number or low == 0:
            return False
        ratios.append((left.subs(values).evalf(30) / low).evalf(25))
    return (
        all(r.is_number and abs(r - ratios[0]) <= abs(ratios[0]) * 1e-20 for r in ratios)
        and ratios[0] != 0
        and (not positive or ratios[0] > 0)
    )
