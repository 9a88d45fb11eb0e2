r"""Number literals as exact fractions: 7, -0.25, 1\frac{1}{2}, 2^{10}, 3\times10^8, 0.\overline{6}.

What is no literal, a sum for example, is left to symbols.py.
"""

import re
from fractions import Fraction

from grading.maths.brackets import closing_brace

DECIMAL = re.compile(
    r"(\d+)?"
    r"(?:\.(\d*)"
    r"(?:\\overline ?\{(\d+)\}|\((\d+)\)|\\dot ?\{?(\d)\}?(?:(\d*)\\dot ?\{?(\d)\}?)?|(\.\.\.))?"
    r")?"
)


def exact(text):
    """(value, places) of a number literal, or None for what is no literal.

    The value is a Fraction; places are the decimal places of a finite decimal, and -1 for all else.

    Literals: integers, decimals (repeating ones too), fractions and quotients of them, mixed
    numbers, powers of integers, and a number times a power of ten. Sums and products are no
    literals: they are left to be worked out.
    """
    if not text.isascii():  # int() would read the digits of every script
        return None
    text = re.sub(r" ?(\\times|\\cdot|\*) ?", "*", text.strip())
    try:
        value, places, rest = _signed(text)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
    return None if rest.strip() else (value, places)


# Each reader takes a text and returns (value, places, rest of the text), or raises ValueError.


def _signed(text):
    text = text.lstrip()
    if text[:1] in ("+", "-") and text[1:].lstrip()[:1] not in ("+", "-"):
        value, places, rest = _quotient(text[1:].lstrip())
        return (-value if text[0] == "-" else value), places, rest
    return _quotient(text)


def _quotient(text):
    value, places, rest = _power(text)
    scientific = re.match(r" ?\*(10 ?\^.*)", rest, re.DOTALL)
    if scientific:
        ten, _, rest = _power(scientific[1])
        return value * ten, 0 if (value * ten).denominator == 1 else -1 if places < 0 else 40, rest
    if rest.lstrip().startswith("/"):
        divisor, _, rest = _power(rest.lstrip()[1:].lstrip())
        return value / divisor, -1, rest
    # A mixed number: 1\frac{1}{2}, 1 \frac{1}{2} or 1 1/2
    mixed = re.match(r" ?\\frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}| (\d+) ?/ ?(\d+)", rest)
    if mixed and places == 0 and re.fullmatch(r"\d+ ?", text[: len(text) - len(rest)]):
        part = Fraction(int(mixed[1] or mixed[3]), int(mixed[2] or mixed[4]))
        if part < 1:
            return value + part, -1, rest[mixed.end() :]
    return value, places, rest


def _power(text):
    value, places, rest = _atom(text)
    nested = re.match(r" ?\^ ?\{(?=[^{}]*\^)", rest)
    if nested:  # 2^{2^3}
        end = closing_brace(rest, nested.end() - 1)
        inner = _signed(rest[nested.end() : end]) if end else (0, 0, "?")
        if inner[2].strip() or inner[0].denominator != 1 or abs(inner[0]) >= 1_000_000:
            raise ValueError
        rest = f"^{{{inner[0]}}}" + rest[end + 1 :]
    exponent = re.match(
        r" ?\^ ?(?:\{ ?([+-]?\d{1,6}) ?\}|\(([+-]?\d{1,6})\)|([+-]?\d{1,6}))(?!\d)", rest
    )
    if exponent and not rest[exponent.end() :].lstrip().startswith("^"):
        exponent, rest = int(exponent[1] or exponent[2] or exponent[3]), rest[exponent.end() :]
        if value == 0 and exponent <= 0:
            raise ValueError("0^0")
        if (
            abs(exponent) * max(value.numerator.bit_length(), value.denominator.bit_length())
            > 400_000
        ):
            raise ValueError("too large")
        return value**exponent, (0 if value.denominator == 1 and exponent >= 0 else -1), rest
    return value, places, rest


def _atom(text):
    if text.startswith("\\frac"):
        at = text.index("{")
        if text[5:at].strip():
            raise ValueError
        middle = closing_brace(text, at)
        second = (
            middle + 1 + len(text[middle + 1 :]) - len(text[middle + 1 :].lstrip())
            if middle is not None
            else -1
        )
        end = closing_brace(text, second) if text[second : second + 1] == "{" else None
        if end is None:
            raise ValueError
        over, under = _signed(text[at + 1 : middle]), _signed(text[second + 1 : end])
        if over[2].strip() or under[2].strip():
            raise ValueError
        return over[0] / under[0], -1, text[end + 1 :]
    if text[:1] in ("(", "{"):
        value, places, rest = _signed(text[1:])
        if rest.lstrip()[:1] != {"(": ")", "{": "}"}[text[0]]:
            raise ValueError
        return value, places, rest.lstrip()[1:]
    match = DECIMAL.match(text)
    whole, part = match[1], match[2]
    if not whole and not part and not (match[3] or match[4] or match[5]):
        raise ValueError
    rest, part = text[match.end() :], part or ""
    value = Fraction(int((whole or "0") + part), 10 ** len(part))
    block = (
        match[3] or match[4] or ((match[5] + (match[6] or "") + match[7]) if match[7] else match[5])
    )
    if match[8]:  # 0.1666...: the shortest block that stands twice at the end
        repeated = re.search(r"(\d+?)\1+$", part)
        if not repeated:
            raise ValueError
        block = repeated[1]
    if block:
        value += Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(part))
        return value, -1, rest
    power = re.match(r"[eE]([+-]?\d{1,4})(?![\d.])", rest)
    if power:
        return value * Fraction(10) ** int(power[1]), 40, rest[power.end() :]
    return value, len(part), rest


def rounded(left, left_digits, right, right_digits):
    """Whether one is a decimal of six places or more to which the other rounds.

    The other must be a fraction with no finite decimals: 0.333333 is 1/3.
    """
    for value, digits, other, other_digits in (
        (left, left_digits, right, right_digits),
        (right, right_digits, left, left_digits),
    ):
        if (
            digits >= 6
            and other_digits < 0
            and len(str(abs(value.numerator))) >= 5
            and abs(value - other) * 2 * 10**digits <= 1
        ):
            d = other.denominator
            for prime in (2, 5):
                while d % prime == 0:
                    d //= prime
            return d != 1
    return False
