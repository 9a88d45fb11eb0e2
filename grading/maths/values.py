"""Whether two single values are the same: choices, words, numbers with units, expressions.

The last step of a comparison, after same.py has taken lists, sets and the like apart. Plain numbers
are compared as fractions, exactly: 10^30 and 10^30 + 1 differ, and so do 1e-12 and 2e-12.
"""

import re
from fractions import Fraction

from grading.maths.literals import exact, rounded
from grading.maths.symbols import equal, symbolic
from grading.maths.unfinished import (
    HUGE,
    ROOT,
    ROOT_OF_SUM,
    UNFINISHED,
    UNTYPICAL,
    has_variables,
    only_in_first,
)
from grading.maths.units import split_unit
from grading.maths.words import (
    as_based,
    as_choice,
    as_words,
    in_figures,
    is_one_option,
    split_percent,
)

DOUBLE_SIGN = re.compile(r"^[-+] ?\( ?[-+]")


def same_value(a, g, same_answer, strict=True):
    """Whether two single values are the same.

    same_answer compares what stands after the letter of a choice, which may be any answer.
    strict=False leaves out the rule that an answer must be worked out.
    """
    a, g = a.strip(), g.strip()
    if not a or not g:
        return False
    if a == g and not re.search(r"\d \d", a):
        return True

    # A choice: the letter alone, what it stands for alone, or both.
    one, other = as_choice(a), as_choice(g)
    if one and other and (one[2] or other[2] or one[0] == other[0]):
        if one[0].upper() != other[0].upper():
            return False
        if one[1] and other[1]:
            return same_answer(one[1], other[1])
        return not one[1] or is_one_option(one[1])
    if other and other[1] and same_answer(a, other[1]):  # gold "(C) 12", answer 12
        return True
    if one and one[1] and one[2]:  # and the other way round
        return same_answer(one[1], g)

    # A number in another base, a text, a number in words.
    one, other = as_based(a), as_based(g)
    if one or other:
        plain = [re.sub(r"[\s{}]|\\text", "", text) for text in (a, g)]
        one, other = (
            b or ((p.lstrip("0") or "0", "", 10) if p.isdigit() else None)
            for b, p in zip((one, other), plain, strict=False)
        )
        return one is not None and one == other
    one, other = as_words(a), as_words(g)
    if one and other and not re.search(r"\d", one + other):
        return one == other or re.sub(r"^(?:the|a|an) ", "", one) == re.sub(
            r"^(?:the|a|an) ", "", other
        )
    if re.search(r"\d ?\\frac", g):  # 2 + 1/2 says the mixed number
        a = re.sub(r"^(\d+) ?\+ ?(?=\\frac ?\{\d+\} ?\{\d+\}$)", r"\1 ", a)
    a, g = in_figures(one) or a, in_figures(other) or g

    # A number, or an expression, with a percent sign or a unit.
    a, a_percent = split_percent(a)
    g, g_percent = split_percent(g)
    a, a_unit = split_unit(a, trusted=g)
    g, g_unit = split_unit(g, trusted=g)
    scale = [Fraction(1), Fraction(1)]
    if a_unit and g_unit:
        if a_unit[1] != g_unit[1]:
            return False
        scale = [a_unit[0], g_unit[0]]
    elif (
        a_unit
        and a_unit[1] == {"degree": 1}
        and "\\pi" in g
        or g_unit
        and g_unit[1] == {"degree": 1}
        and "\\pi" in a
    ):
        # 60 degrees and pi/3: the degree is pi/180
        a, g = (
            rf"({text})\cdot\frac{{\pi}}{{180}}" if unit else text
            for text, unit in ((a, a_unit), (g, g_unit))
        )
        strict = False
    left, right = exact(a), exact(g)
    if strict and only_in_first(DOUBLE_SIGN, a, g):
        return False
    if strict and only_in_first(UNFINISHED["tower"], a, g) and not has_variables(g):
        return False
    if left and right:
        (left, left_digits), (right, right_digits) = left, right
        left, right = left * scale[0], right * scale[1]
        # Asked for a percentage, 50 and 50 % both answer.
        if a_percent != g_percent and left == right and abs(left) > 1:
            return True
        left, right = left / (100 if a_percent else 1), right / (100 if g_percent else 1)
        return left == right or rounded(left, left_digits, right, right_digits)
    if a_percent != g_percent or scale[0] != scale[1]:
        return False
    return same_expression(a, g, left, right, strict)


# What an answer may hold only if the gold answer holds the same: words, primes, derivatives, double
# signs, subscripts of numbers, moduli
FOREIGN = (
    r"\\text ?\{(?! ?degree ?\})[^{}]*\}",
    "'",
    r"\\frac ?\{ ?d ?\}",
    r"\\frac ?\{ ?d[^{}]*\} ?\{ ?d ?[a-z] ?\}",
    r"\\partial",
    r"[-+] ?[-+]",
    r"[\d})] ?_",
    "mod",
)


def same_expression(a, g, a_exact, g_exact, strict):
    """Two expressions that are not both number literals."""
    if (
        re.search(r"\d \d|[?#@]|\.\.\.|\\(?:pm|mp)(?![A-Za-z])|(?<![\d.])0 ?\^ ?\{? ?0(?![\d.])", a)
        or not a.isascii()
        or UNTYPICAL.search(a)
    ):
        return False
    if re.fullmatch(r"[A-Za-z]", a) and re.fullmatch(r"[A-Za-z]", g):
        return a == g
    if any(set(re.findall(part, a)) - set(re.findall(part, g)) for part in FOREIGN):
        return False
    if strict and only_in_first(UNFINISHED["sum sign"], a, g):
        return False
    if strict and not has_variables(g):
        if only_in_first(ROOT_OF_SUM, a, g):
            return False
        # A root times a number is fine, and so is a number times a sum where the gold answer is
        # a sum.
        one, other = (ROOT.sub("#", text) for text in (a, g))
        if not g_exact and UNFINISHED["sum"].search(other):
            one = re.sub(
                r"(?<=[\d}]) ?(?:\\cdot ?|\\times ?|\* ?)?(?=\([^()]*[+-][^()]*\))", ",", one
            )
        if any(only_in_first(pattern, one, other) for pattern in UNFINISHED.values()):
            return False
        # A root of a perfect square (or cube) that the gold answer has worked out.
        if g_exact and g_exact[1] < 6 and ("\\sqrt" in a or ROOT.search(a)):
            return False
    if HUGE.search(a) or HUGE.search(g):
        return False
    left, right = symbolic(a), symbolic(g)
    if left is None or right is None:
        return False
    from sympy import Expr, I, Symbol

    # i is the imaginary unit where the gold answer has it, or where it would be one variable more;
    # but no index of a sum.
    i = Symbol("i", real=True)
    if (
        isinstance(left, Expr)
        and isinstance(right, Expr)
        and (right.has(i) or left.has(i) and right.free_symbols)
        and not UNFINISHED["sum sign"].search(g)
    ):
        left, right = left.xreplace({i: I}), right.xreplace({i: I})
    return equal(left, right, a_exact, g_exact)
