"""What a finished answer does not hold: work left to do, huge numbers, odd commands.

An answer to "what is 2 + 3?" is 5 and not 2 + 3. Whatever stands in UNFINISHED may stand in an
answer only if the gold answer has it too: otherwise it is the question, or a step on the way.
"""

import re

from grading.maths.characters import GREEK

UNFINISHED = {
    "sum": re.compile(r"(?<=[\w)}\]!#]) ?[+-](?! ?\\infty)"),
    "product": re.compile(
        r"(?:(?<=[\d})!%])|(?<=\\pi)) ?(?:\\cdot|\\times|\*) ?(?=\d|\(|\\frac|-)(?!10 ?\^)"
        r"|% ?[\d(]|\\pi ?\d|\\frac ?\{[^{}]*\} ?\{[^{}]*\} ?\d"
        r"|# ?(?:\\cdot|\\times|\*)? ?#"
        r"|\) ?\("
        r"|\d ?\("
    ),
    "division": re.compile(r"\\div(?![A-Za-z])"),
    "tower": re.compile(r"\^ ?(?:\{[^{}]*|[\d.]+ ?|\([\d.]+\) ?)\^"),
    "function": re.compile(
        r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+|sinh|cosh|tanh|exp|max|min|gcd|lcm|det|Re|Im|arg"
        r"|operatorname|bmod|pmod|mod)(?![A-Za-z])"
    ),
    "logarithm": re.compile(r"\\(?:ln|log|lg)(?![A-Za-z])"),
    "sum sign": re.compile(r"\\(?:sum|prod|int|iint|oint|lim|sup|inf)(?![A-Za-z])"),
    "factorial": re.compile(r"!|\\(?:binom|choose)(?![A-Za-z])"),
    "rounding": re.compile(r"\\(?:lfloor|lceil|rfloor|rceil)(?![A-Za-z])|\||\\mid"),
}

# Numbers that no one has worked out: exponents of six digits, towers of numbers, factorials of
# factorials or of large numbers. Evaluating one may take all time and memory there is.
HUGE = re.compile(
    r"\^ ?[{(]* ?-?\d{6}"
    r"|\^ ?(?:\d+|\{ ?\d+ ?\}|\( ?\d+ ?\)|[{(]+ ?\d+ ?\)?) ?\^ ?[{(]* ?\d"
    r"|\d{5} ?[)}]* ?!"
    r"|! ?\)? ?!"
    r"|\\binom ?\{ ?\d{5}"
    r"|\^ ?[{(]+[^a-z]*\d\^[^a-z]*\^"
)

# A root of a number, as \sqrt or as a power with a broken exponent
ROOT = re.compile(
    r"\\sqrt ?(?:\[\d\])? ?\{[^{}]*\}"
    r"|\(?\d+\)? ?\^ ?\{? ?(?:\\frac ?\{\d+\} ?\{\d+\}|\d+/\d+|0?\.\d+) ?\}?"
)

# A root of a sum of numbers, which ROOT hides from UNFINISHED
ROOT_OF_SUM = re.compile(
    r"\\sqrt ?(?:\[\d\])? ?\{ ?\d+(?:\^ ?\{? ?\d+ ?\}?)?"
    r"(?: ?[+-] ?\d+(?:\^ ?\{? ?\d+ ?\}?)?)+ ?\}"
)

# Commands that no honest answer needs: they hide or strike out text, or do things
UNTYPICAL = re.compile(
    r"\\(?:[hv]?phantom|cancel|b?x?cancel|sout|color|colorbox|rule|input|include|write|def|let"
    r"|newcommand|href|tag|label|verb|begin|end)(?![A-Za-z])"
)


GREEK_VARIABLE = re.compile(
    rf"\\(?:var)?(?:{'|'.join(sorted(GREEK - {'pi'}))})(?![A-Za-z])", flags=re.IGNORECASE
)


def only_in_first(pattern, text, other):
    """Whether a pattern stands in a text and not in the other one."""
    return pattern.search(text) is not None and pattern.search(other) is None


def has_variables(text):
    """Whether it has letters that stand for no constant; Greek ones too, but not pi."""
    return re.search(r"[A-Za-z]", bare(GREEK_VARIABLE.sub(" x ", text))) is not None


def bare(text):
    """Without commands, text and the constants e and i: what letters remain are variables."""
    text = re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    return re.sub(r"(?<![A-Za-z])[eEi](?![A-Za-z])|(?<=\d)[eE](?=[+-]?\d)", " ", text)
