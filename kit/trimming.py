"""Cleaning of what phase 1 sampled, by whole tokens. The paper does not mention it; the authors'
code does it, after tokenising again, which this does not."""

import re

CHATTY = re.compile(
    r"\s*(you('|\u2019| a)re (absolutely |completely |quite )?(right|correct)"
    r"|(i )?apologi[sz]e|my apologies|(i'm |i am )?sorry|thank(s| you) for"
    r"|(good|great) (catch|point))"
    r"[^\n]*?([.!?]+(?=\s|$)|\n)\s*",  # the point in 3.5 ends no sentence
    re.IGNORECASE,
)


def without_repeats(ids: list[int]) -> list[int]:
    """A repeating tail cut down to one copy.

    A tail repeats when at least 32 tokens hold at least 4 copies of the same up to 128 tokens.
    """
    for period in range(1, min(128, len(ids) // 4) + 1):
        same = 0
        while same + period < len(ids) and ids[-1 - same] == ids[-1 - same - period]:
            same += 1
        if same + period >= max(4 * period, 32):
            return ids[: len(ids) - same]
    return ids


def without_pleasantry(ids: list[int], decode) -> list[int]:
    """An opening such as "You're absolutely right!" cut off, if a token ends where it ends.

    decode(ids) -> text.
    """
    match = CHATTY.match(decode(ids))
    if not match:
        return ids
    for i in range(1, len(ids)):
        opening = decode(ids[:i])
        if opening.rstrip() == match.group().rstrip() and decode(ids[i : i + 1]).strip():
            return ids[i:]
        if len(opening) > match.end() + 8:  # no token boundary there: left as it was sampled
            break
    return ids


def trimmed(run, responses: list[list[int]], openings: bool = False) -> list[list[int]]:
    """Responses without repeating tails and, on request, chatty openings. Whole tokens go; the end
    token stays."""
    if not run.cfg.trim:
        return responses

    def decode(ids):
        return run.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    shorter = []
    for ids in responses:
        length = len(ids) - (ids[-1] in run.end_ids)
        body, end = without_repeats(ids[:length]), ids[length:]
        shorter.append((without_pleasantry(body, decode) if openings else body) + end)
    return shorter
