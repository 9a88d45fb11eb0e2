"""What can be said about two answers at once, in the calling process: no parsing, linear time.

Most answers of a training run are plain numbers; they need no worker.
"""

import re

from grading.bounds import MAX_ANSWER

PLAIN_NUMBER = re.compile(r"([+-]?)((?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+))?(?:\.([0-9]*))?")


def _plain_number(text):
    """One spelling of a plain integer or decimal ('-1,234.50' gives '-1234.5'), or None.

    No limit on its size, for no int() is made of it.
    """
    match = PLAIN_NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    whole = (match[2] or "").replace(",", "").lstrip("0") or "0"
    part = (match[3] or "").rstrip("0")
    sign = "-" if match[1] == "-" and (whole != "0" or part) else ""
    return sign + whole + ("." + part if part else "")


def same_at_a_glance(answer, gold):
    """True or False where a glance decides: equal texts, plain numbers; else None."""
    if not answer or not gold:
        return False
    answer, gold = answer.strip().strip("$").strip(), gold.strip().strip("$").strip()
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    if len(answer) > MAX_ANSWER or len(gold) > MAX_ANSWER:
        return False
    one, other = _plain_number(answer), _plain_number(gold)
    if one is not None and other is not None:
        return one == other
    return None


def in_words(answer, gold, right):
    """A verdict for people."""
    return f"{answer[:80]!r} {'is' if right else 'is not'} {gold[:80]!r}"
