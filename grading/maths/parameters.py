r"""Parameters: in k\pi and n\pi, n \in \mathbb{Z}, the letter says nothing. Text in, text out."""

import re

# ", k \in \mathbb{Z}", "where k is an integer" at the end of an answer
DECLARED = re.compile(
    r"[ ,;(]*(?:\\text ?\{ ?(?:,|and|for|where|with|any|some|all|integer|an|\s)*\} ?)?"
    r"(?:where|with|for)? ?([A-Za-z]) ?"
    r"(?:\\in ?(\\mathbb ?\{?[ZN]\}?|\\text ?\{ ?[ZN] ?\}|[ZN])(?![A-Za-z])"
    r" ?((?:[\^_] ?\{?[+*0]\}? ?)*)"
    r"|\\text ?\{ ?(?:is )?(?:an |any )?integer ?\}|\(?(?:is )?(?:an |any )?integer)[ )]*$"
)
LETTERS = "jklmnN"
# A whole number of half turns: the letter, not raised, beside \pi or degrees or in brackets there
TURNS = (
    r"(?<![A-Za-z\\^_])%s(?! ?\^)(?: ?\}? ?(?:\{\d+\})?| ?[+-] ?\d+ ?\)) ?(?:\\cdot ?)?"
    r"(?:\\pi|\d+ ?\\text\{ degree)"
    r"|(?:\\pi|\d\\text\{ degree\}) ?(?:\\cdot ?)?(?:\((?:\d|[+-])*)?%s(?![A-Za-z])(?! ?\^)"
)


def one_parameter(answer, gold):
    """(answer, gold) without what they say of a parameter, and with one letter for it.

    ("", gold) where they let it run through different numbers; who says nothing means all integers.
    """
    answer, letter, domain = _declared(answer)
    gold, wanted, gold_domain = _declared(gold)
    domains = {domain, gold_domain}
    if len(domains) > 1 and domains != {"Z", None}:
        return "", gold
    if all("\\pi" in text or "degree" in text for text in (answer, gold)):
        letter = letter or _turning(answer, gold)
        wanted = wanted or _turning(gold, answer)
    if letter and wanted and letter != wanted and not _holds(answer, wanted):
        answer = re.sub(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", wanted, answer)
    return answer, gold


def _declared(text):
    """(text without the declaration of a parameter, the letter, its domain: Z, N, Z+)."""
    match = DECLARED.search(text) if "\\in" in text or "integer" in text else None
    if match and _holds(text[: match.start()], match[1]):
        domain = re.sub(r"[^ZN]", "", match[2] or "Z")[-1:] + re.sub(r"[^+*0]", "", match[3] or "")
        return text[: match.start()].strip(), match[1], domain
    return text, None, None


def _holds(text, letter):
    return re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", text) is not None


def _turning(text, other):
    """The letter of a whole number of half turns that the other text does not have, or None."""
    found = [x for x in LETTERS if _holds(text, x) and not _holds(other, x)]
    is_one = len(found) == 1 and re.search(TURNS.replace("%s", found[0]), text)
    return found[0] if is_one else None
