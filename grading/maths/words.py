"""Answers that are no plain numbers: choices, words, numbers in another base, percentages.

Each function recognises one such form in a cleaned text and returns it in one spelling, or None.
"""

import re

NUMBER_WORDS = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve".split(),
        range(13),
        strict=False,
    )
)


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


def as_words(text):
    """A text answer in lower case without quotes and punctuation, or None if it is no text."""
    wrapped = "\\text" in text
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_=<>{}+*/?]", plain) or not re.search(r"[^\W\d]", plain):
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
    named = dict(NUMBER_WORDS, sixteen=16, binary=2, octal=8, decimal=10, hex=16, bin=2, oct=8)
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
    shorter = re.sub(r" ?(?:%|\\text\{ ?(?:percent|per cent|%) ?\}|percent)$", "", text)
    return (shorter.strip(), True) if shorter != text and shorter.strip() else (text, False)
