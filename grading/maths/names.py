r"""Names: what may stand on the left of = without being worked out: x, a_1, f(2), \angle ABC, Area.

\sqrt{x}, |x| and \sin x are no names: \sqrt{x} = 5 does not say that anything is 5.
"""

import re

from grading.maths.brackets import split
from grading.maths.characters import GREEK
from grading.maths.words import NAMING, bends

_LETTER = (
    rf"(?:[A-Za-z]|\\(?:var)?(?:{'|'.join(sorted(GREEK))})(?![A-Za-z])|\\(?:ell|hbar)(?![A-Za-z]))"
)
_GREEK_CAPITAL = r"\\(?:Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega)(?![A-Za-z])"
_MARKED = r"\\(?:overline|hat|widehat|vec|tilde|widetilde|dot|overrightarrow|mathcal|mathbb)"
_BELOW = r" ?_(?:\w|\{(?:[^{}]|\\text ?\{[^{}]*\})*\})"
_INDEX = rf"(?:{_BELOW})?" + r"(?:'|\^ ?(?:\*|\{ ?\*? ?(?:\\prime ?)*\}|\\prime(?![A-Za-z])))*"
_SYMBOL = rf"(?:{_LETTER}|{_GREEK_CAPITAL}|{_MARKED} ?(?:\{{[A-Za-z_0-9]+\}}|[A-Za-z])){_INDEX}"
_DERIVATIVE = (
    rf"\\frac ?\{{ ?d ?(?:\^ ?\{{?\d\}}? ?)?{_LETTER} ?\}}"
    rf" ?\{{ ?d ?{_LETTER}(?: ?\^ ?\{{?\d\}}?)? ?\}}"
)
_WORD = r"(?:\\text ?\{[^{}]*\}|[A-Z][A-Za-z]+|[A-Za-z]{4,})"  # xy is a product
_MEASURE = (
    r"\|[A-Z]{2}\||\|\\(?:overline|vec|overrightarrow) ?\{?[A-Za-z]+\}?\||\[[A-Z]{3,}\]"
    r"|(?:\\?m ?)?\\(?:angle|triangle|measuredangle) ?\{?[A-Z]{1,3}\}?|(?:\\?m ?)?\\angle ?\{?\w\}?"
)
SYMBOL = re.compile(_SYMBOL)
NAME = re.compile(
    rf"(?:{_SYMBOL}|{_WORD}|\\Delta ?{_LETTER}{_INDEX}|{_DERIVATIVE})"
    # a function value: f(2), f^{-1}(3), P(A \cap B)
    rf"|(?:{_SYMBOL}|{_WORD})(?: ?\^ ?\{{?-1\}}?)? ?\((?:[^()]|\([^()]*\))+\)"
    rf"|{_MEASURE}"
    r"|(?:\\text ?\{[^{}]*\} ?|[A-Za-z]{2,} )+(?:[A-Za-z]{2,})?"
)
# area of \triangle ABC
PART_OF = re.compile(
    r"((?:\\text ?\{[^{}]*|[A-Za-z ]*)(?<![A-Za-z])(?:of|triangle|angle|segment|side) ?\}? ?)"
    rf"(?:{_SYMBOL}|{_MEASURE}|[A-Z]{{2,4}})"
)
# What looks like a name, and works something out
FUNCTION = re.compile(
    r"(?:a(?:rc)?)?(?:sin|cos|tan|tg|cot|ctg|sec|csc)h?|ln|lg|log|exp|sqrt|cbrt|abs|neg|mod|floor"
    r"|ceil|round|sgn|sign|arg|det|max|min|gcd|lcm|sum|prod|lim|Re|Im|pi|inf|infty|if|div"
)


def is_name(text):
    """Whether a text is a name. A word that negates, hedges or scales makes it none: not x."""
    text = text.strip()
    part = PART_OF.fullmatch(text) if len(text) <= 100 else None
    text = part[1].strip() if part else text
    if len(text) > 100 or NAME.fullmatch(text) is None:
        return False
    without_indices = re.sub(_BELOW, " ", text)
    words = re.findall(
        r"[A-Za-z']{2,}", re.sub(r"\\(?!text)[A-Za-z]+|\\text", " ", without_indices)
    )
    head = words[0] if words else ""
    if FUNCTION.fullmatch(head) or "\\text" not in text and FUNCTION.fullmatch(head[:-1]):
        return False  # sin(x), and sinx
    return not any(bends(word) and word.lower() not in NAMING for word in words)


def is_quantity(text):
    """Whether a text is a name, a sum of names, as in m + n = 5, or a ratio: x : y, AB / CD."""
    text = re.sub(r"\\frac ?\{ ?([A-Z]{2}) ?\} ?\{ ?([A-Z]{2}) ?\}", r"\1:\2", text)
    parts = re.split(r"\+|:|(?<=[A-Z]{2})/(?=[A-Z]{2})", text)
    return all(is_name(part) for part in parts)


def plain(text):
    """A name as it is compared: without blanks, braces and the angle sign."""
    return re.sub(r"[\s{}]|\\text", "", text).replace("\\angle", "")


def tuple_of_names(text):
    """The names of (x, y), or None."""
    if not re.fullmatch(r"\(.*\)", text) or text.count("(") != text.count(")"):
        return None
    names = split(text[1:-1], re.compile("[,;]"))
    return [plain(n) for n in names] if len(names) > 1 and all(map(is_name, names)) else None


def names_agree(a, g):
    """Whether two plain names stand for the same."""
    if a == g or {a, g} <= {"y", "f(x)", "g(x)", "h(x)", "y(x)"} and "y" in (a, g):
        return True
    # "Area = 5" and "A = 5" name the same thing in words and in a letter
    long, short = (a, g) if len(a) > len(g) else (g, a)
    return len(long) > 3 and long.isalpha() and len(short) == 1 and long[0].lower() == short.lower()


def usual_order(names):
    """The places of names that follow each other in the alphabet, or by index, in that order.

    For y, x it is [1, 0]; for n, k, which one may name in either order, None.
    """
    keys = []
    for name in names:
        match = re.fullmatch(r"([A-Za-z])(?:_(\d+))?", name)
        if match is None:
            return None
        keys.append((ord(match[1]), int(match[2] or 0)))
    order = sorted(range(len(names)), key=lambda at: keys[at])
    steps = {
        (keys[b][0] - keys[a][0], keys[b][1] - keys[a][1])
        for a, b in zip(order, order[1:], strict=False)
    }
    return order if steps in ({(1, 0)}, {(0, 1)}) else None
