"""Answers that are no plain numbers: choices, words, numbers in words or another base, percents.

Each function recognises one such form in a cleaned text and returns it in one spelling, or None.
"""

import re
from fractions import Fraction

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
CARDINALS = {
    **{word: number for number, word in enumerate(ONES)},
    **{word: 10 * number for number, word in enumerate(TENS, 2)},
}
GROUPS = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
GROUPS |= {"trillion": 10**12, "lakh": 10**5, "crore": 10**7}
# Ordinals that are not a cardinal and -th
PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fifth": 5, "eighth": 8, "ninth": 9}
PARTS |= {"twelfth": 12}

# Words that negate, scale or reckon with what they stand beside, also with an s
SCALING = set(
    "negative opposite inverse reciprocal complement factorial percent percentage percentile fail "
    "invalid score gross grand myriad googol kilo mega giga milli micro nano mil bn mn thou".split()
)
# Words that belong to a name: "the number of cars", "correct answer", "maximum value"
NAMING = set("a an the of to in is are was be its this answer correct right reward".split())
NAMING |= {"maximum", "minimum"}
# Words that take back what they stand beside
RETRACTING = set(
    "wrong incorrect incorrectly rejected eliminated excluded retracted denied negated cancelled "
    "crossed removed ruled mistake mistaken error oops nope sorry typo guess guessed guessing "
    "unsure uncertain doubtful dubious maybe perhaps null void".split()
)
# Words that hedge, and words that make a sentence of what they stand beside
BENDING = set(
    "were been has have had does do did can could should would will may might must "
    "isnt arent wasnt cannot not no nor none never neither either or and xor but if then else so "
    "unless except without minus plus times divided over under up down out off than as like "
    "likely about approximately around nearly roughly almost "
    "approx circa ca only exactly just instead always otherwise "
    "least most more less fewer at any every some other others something anything everything "
    "nothing whatever unknown undefined infinite false true nil nought maximum minimum max min "
    "wait ignore previous all instructions because etc vs versus "
    "means equals squared cubed doubled halved tripled twice thrice double triple modulo mod root "
    "power cube log ln sqrt yes us zero".split()
)


# ... but may be the text of an option
QUANTITIES = set(
    "unknown undefined infinite false true none nothing zero doubled halved tripled twice double "
    "triple maximum minimum all some any yes no".split()
)


def bends(word):
    """Whether a word changes what stands beside it, so that it is no unit and no name."""
    word = word.lower().replace("'", "")
    if word in BENDING or word in RETRACTING or scale(word) is not None:
        return True
    if word in SCALING or word.removesuffix("s") in SCALING:
        return True
    return word.endswith(("ly", "ish", "fold", "illion", "illions", "illiards"))


def scale(word):
    """What a word multiplies by: dozen is 12, thousandths is 1/1000; None for any other word."""
    stem = word.lower().removesuffix("s")
    if stem in GROUPS:
        return Fraction(GROUPS[stem])
    if stem != word and stem in CARDINALS and stem != "zero":  # tens
        return Fraction(CARDINALS[stem])
    part = _part(word.lower())
    return Fraction(1, part) if part else None


def _part(word):
    """The denominator that a word names: thirds is 3, twentieth is 20; None if it names none."""
    stem = word.removesuffix("s")
    if stem in PARTS:
        return PARTS[stem]
    cardinal = stem.removesuffix("ieth") + "y" if stem.endswith("ieth") else stem[:-2]
    if not stem.endswith("th") or cardinal in ("zero", "one", "two"):
        return None
    return CARDINALS.get(cardinal) or GROUPS.get(cardinal)


def number_in_words(words):
    """The fraction that words say, as "twenty-five" and "three fourths"; None if they say none."""
    words = (words or "").replace("-", " ").split()
    if not words or len(words) > 12:
        return None
    if words[0] in ("negative", "minus"):
        value = number_in_words(" ".join(words[1:]))
        return None if value is None or value <= 0 else -value
    for at, word in enumerate(words):  # two and three fourths
        if word == "and" and _part(words[-1]):
            whole, rest = _cardinal(words[:at]), number_in_words(" ".join(words[at + 1 :]))
            if whole is not None and rest is not None and 0 < rest < 1:
                return whole + rest
    value = _cardinal(words)
    if value is not None:
        return Fraction(value)
    part = _part(words[-1])
    count = 1 if words[:-1] in ([], ["a"], ["an"]) else _cardinal(words[:-1])
    # three fourths and one fourth; but a single fourth is a rank
    if not part or count is None or (count == 1) == words[-1].endswith("s"):
        return None
    return Fraction(count, part) if len(words) > 1 or words[0] == "half" else None


def in_figures(words):
    """5\\text{ apples } for "five apples"; None for words that do not begin with a number."""
    words = (words or "").split()
    for at in range(min(len(words), 12), 0, -1):
        number = number_in_words(" ".join(words[:at]))
        if number is not None:
            return f"{number}\\text{{ {' '.join(words[at:])} }}" if words[at:] else str(number)
    return None


def _cardinal(words):
    """The whole number of words such as "two hundred and five", or None."""
    total, group, last = 0, None, 0
    for at, word in enumerate(words):
        if word in ("a", "an") and at == 0 and words[1:]:
            group = 1
        elif word in CARDINALS:
            number = CARDINALS[word]
            # five two is no number, and neither is five twenty
            if group is not None and last and (last < 20 or number >= 10 or not number):
                return None
            group, last = (group or 0) + number, number or 1
        elif word in GROUPS and group:
            size = GROUPS[word]
            if size < 1000:
                group, last = group * size, 0
            else:
                total, group, last = total + group * size, 0, 0
        elif not (word == "and" and at and words[at - 1] in GROUPS and at + 1 < len(words)):
            return None
    return None if group is None else total + group


def as_choice(text):
    r"""(letter, what follows it, whether it is certain) of a multiple-choice answer, or None.

    Such as (A), \text{A}, B., "(C) 12", Option D. A bare A may be a variable: it is not certain.
    """
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text).strip()
    plain = re.sub(r"^(?:[Oo]ption|[Cc]hoice|[Aa]nswer):? ?", "", plain)
    match = re.fullmatch(
        r"[(\[] ?([A-Za-z]) ?[)\]][.:]? ?(.*)|([A-Z])(?:[.):] ?(.*))?", plain, re.DOTALL
    )
    if match is None:
        return None
    rest = (match[2] or match[4] or "").strip()
    if rest and re.match(
        r"(?:or|and)(?![A-Za-z])|[\^_+*/=<>,;&|]|\(? ?[A-Z] ?\)|[A-Z]$|\\(?:cdot|times|cup|in)|-\D",
        rest,
    ):
        return None  # (x)^2 is no choice
    return (
        match[1] or match[3],
        rest,
        bool(match[1] or match[4] is not None or "text" in text or plain != text),
    )


def is_one_option(text):
    """Whether what follows the letter of a choice may be its text: no second choice, no verdict.

    "3", "12 cm", "None of the above"; but not "3 or (B) 4", "is wrong", "BCDE".
    """
    if re.match(r"\\(?:n?leq|n?geq|n?sim|approx|equiv)(?![a-z])|[%'_^]|\.\.\.", text):
        return False
    second = r"[(\[] ?[A-Za-z] ?[)\]]|(?<![A-Za-z\\])[A-Z][.:)]|(?<![A-Za-z\\])[A-Z] ?[A-Z]"
    if re.search(second + r"|\?|\\(?:lor|land|to|neq|not|n?[A-Za-z]*arrow)(?![A-Za-z])", text):
        return False
    words = re.findall(r"(?<![A-Za-z\\])[A-Za-z']+", text)
    if words and all(word in BENDING - QUANTITIES for word in words):
        return False
    # The text of an option is a phrase of its own; a verdict goes on in small letters.
    if set(words) & {"or", "but", *RETRACTING} or set(words[:1]) & {"is", "are", "was", "and"}:
        return False
    return not re.search(
        r"n't|[a-z] [A-E](?![A-Za-z])|(?:^|[,;.(-]) ?"
        r"(?:[A-E]|[Nn]o|not|[Ww]ait|[Aa]ctually|false|invalid|[a-z]+ly)(?![A-Za-z])",
        text,
    )


def as_words(text):
    """A text answer in lower case without quotes and punctuation, or None if it is no text."""
    wrapped = "\\text" in text
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if plain[:1] == "-" or re.search(r"[\\^_=<>{}+*/?]", plain) or not re.search(r"[^\W\d]", plain):
        return None
    if (
        not wrapped
        and not re.search(r"[^\W\d_]{2,}", plain)
        or re.search(r"\d", plain)
        and not re.search(r"[^\W\d]{2}", plain)
    ):
        return None
    return " ".join(re.sub(r"[\"'`.,;:!?()]", " ", plain.replace("-", " ")).lower().split())


def as_based(text):
    """(whole digits, digits after the point, base) of a number with a base, or None."""
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text)
    match = re.fullmatch(
        r"\(? ?([0-9A-Za-z][0-9A-Za-z ]*(?:\.[0-9A-Za-z]+)?) ?\)? ?"
        r"(?:_ ?\{? ?\(?(\d+|[a-z]+)\)? ?\}?|\(? ?(?:in )?base[ -](\d+|[a-z]+) ?\)?)",
        plain,
    )
    if match is None:
        return None
    named = dict(CARDINALS, binary=2, octal=8, decimal=10, hex=16, bin=2, oct=8)
    base = match[2] or match[3]
    base = int(base) if base.isdigit() else named.get(base)
    digits = match[1].replace(" ", "").upper()
    if (
        base is None
        or not 2 <= base <= 36
        or any(int(d, 36) >= base for d in digits.replace(".", ""))
    ):
        return None
    whole, _, part = digits.partition(".")
    return whole.lstrip("0") or "0", part.rstrip("0"), base


def split_percent(text):
    """(text without its percent sign, whether it had one)."""
    shorter = re.sub(
        r" ?(?:%|\\text\{ ?(?:percent(?:age)?|per cent|pct|%) ?\}|percent(?:age)?|pct)$", "", text
    )
    return (shorter.strip(), True) if shorter != text and shorter.strip() else (text, False)
