"""The ids that a text has between other text, and the texts that ids have alone."""

from kit.errors import UserError

NEIGHBOURS = (("a", "The"), ("a", "1"), ("1", "The"), (".", "The"), ("a.", "a"), ("}", "The"))


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
