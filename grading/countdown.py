"""Whether an expression joins given numbers, each used once, to a target: Countdown.

Nothing is evaluated as code. An expression of at most MOST characters is read token by token and
calculated in exact fractions; four operations on a few given numbers cannot become large.
"""

import re
from fractions import Fraction

MOST = 400  # characters of an expression
DEPTH = 30  # nested parentheses
TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))")
# How models write the four operations
SPELLINGS = {
    **{"\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": ""},
    **{"\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-"},
    **{"\\,": " ", "\\ ": " ", "$": "", "[": "(", "]": ")"},
}


def judge_countdown(expression, numbers, target):
    """(right, why) of an expression, with or without "= target" behind it."""
    if len(expression) > MOST:
        return False, f"the expression is longer than {MOST} characters"
    for spelling, sign in SPELLINGS.items():
        expression = expression.replace(spelling, sign)
    left, equals, right = expression.partition("=")
    if equals and right.strip() != str(target):
        return False, f"it says that the result is {right.strip()[:40]!r}"
    try:
        tokens = _tokens(left)
        value = _Reader(tokens).whole()
    except ValueError as error:
        return False, str(error)
    used = sorted(int(token) for token in tokens if token.isdigit())
    if used != sorted(numbers):
        return False, f"it uses {used}, not each of {sorted(numbers)} once"
    if value != target:
        return False, f"it gives {str(value)[:40]}, not {target}"
    return True, f"it gives {target}"


def _tokens(text):
    """Whole numbers, signs and parentheses; ValueError for anything else."""
    tokens, at, text = [], 0, text.strip()
    while at < len(text):
        token = TOKEN.match(text, at)
        if token is None:
            raise ValueError(f"{text[at : at + 20]!r} is no number, sign or parenthesis")
        if token[1] and len(token[1]) > 12:
            raise ValueError("a number is too long")
        tokens.append(token[1] or token[2])
        at = token.end()
    return tokens


class _Reader:
    """sum = product (+|- product)*; product = part (*|/ part)*; part = number | ( sum )"""

    def __init__(self, tokens):
        self.tokens, self.at, self.depth = tokens, 0, 0

    def whole(self):
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"{self.tokens[self.at]!r} stands where a sign should")
        return value

    def next_is(self, signs):
        return self.at < len(self.tokens) and self.tokens[self.at] in signs

    def take(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self):
        value = self.product()
        while self.next_is("+-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self):
        value = self.part()
        while self.next_is("*/"):
            if self.take() == "*":
                value *= self.part()
                continue
            divisor = self.part()
            if divisor == 0:
                raise ValueError("it divides by zero")
            value /= divisor
        return value

    def part(self):
        if self.at == len(self.tokens):
            raise ValueError("the expression ends too early")
        token = self.take()
        if token.isdigit():
            return Fraction(int(token))
        if token != "(" or self.depth == DEPTH:
            raise ValueError(f"{token!r} stands where a number should")
        self.depth += 1
        value = self.sum()
        if not self.next_is(")"):
            raise ValueError("a parenthesis is not closed")
        self.depth -= 1
        self.take()
        return value
