"""The ids that a text has between other text, and the texts that ids have alone."""

import re
from datetime import datetime

from kit.errors import UserError

DATE = datetime(2024, 7, 26)  # Llama's templates fall back on it too
TODAY = r"""strftime_now\(\s*(["'])(.*?)\1\s*\)"""
NEIGHBOURS = (("a", "The"), ("a", "1"), ("1", "The"), (".", "The"), ("a.", "a"), ("}", "The"))


def template_values(tokenizer) -> dict:
    """What every prompt is rendered with: no dict, no thinking mode, and the same date on every day
    where a template prints today's. A run that takes two days has one prompt then, and a seed gives
    the same numbers tomorrow. The checkpoint keeps its template as it is."""
    template = getattr(tokenizer, "chat_template", None)
    values = {"return_dict": False, "enable_thinking": False}
    if not isinstance(template, str) or "strftime_now" not in template:
        return values

    def fixed(call):
        return repr(DATE.strftime(call[2]))

    return values | {"chat_template": re.sub(TODAY, fixed, template)}


def ids_in_running_text(tokenizer, text: str) -> list[int]:
    """The ids that `text` has in running text. Raises UserError where every neighbour shares one.

    Encoded alone it can come out differently: a blank line at the end of a string is one token for
    many tokenizers, and two before a word. So it is encoded between two neutral neighbours, and
    what they share no token with is returned.
    """
    for left, right in NEIGHBOURS:
        ids = tokenizer.encode(left + text + right, add_special_tokens=False)
        prefixes = [
            tokenizer.decode(ids[:i], clean_up_tokenization_spaces=False)
            for i in range(len(ids) + 1)
        ]
        if left in prefixes and left + text in prefixes:
            return ids[prefixes.index(left) : prefixes.index(left + text)]
    raise UserError(
        f"the tokenizer merges {text!r} with every neighbour tried, so the reviser's prompt cannot "
        "be built"
    )


def texts_of(tokenizer, ids: list[int]) -> list[str]:
    """Each token's own text, for people. A part of a character is shown as a replacement one."""
    return [tokenizer.decode([token]) for token in ids]
