"""Repeating tails and chatty openings are cut off, by whole tokens, and nothing else is."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models
from toys import small
from transformers import PreTrainedTokenizerFast

import sdzero
from kit.trimming import trimmed


@pytest.fixture
def encode(tokenizer):
    return lambda text: tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture
def trim(tokenizer):
    """trim(ids, openings=False) -> ids, with <|im_end|> (2) as the end token."""
    run = SimpleNamespace(cfg=small(trim=True), tokenizer=tokenizer, end_ids=[2])
    return lambda ids, openings=False: trimmed(run, [ids], openings)[0]


def is_subsequence(a, b):
    rest = iter(b)
    return all(x in rest for x in a)


@pytest.mark.parametrize("end", [[2], []])
def test_repeating_tails_are_cut_to_one_copy(tokenizer, encode, trim, end):
    head, copy = encode("The sum is 12. "), encode("Let me add it. ")
    cut = trim(head + 8 * copy + end)
    text = sdzero.to_text(tokenizer, cut)
    assert text.startswith("The sum is 12. ") and 1 <= text.count("Let me add") <= 2
    assert cut[len(cut) - len(end) :] == end and (2 in cut) == bool(end)
    assert is_subsequence(cut, head + 8 * copy + end)
    cut = trim(head + 8 * copy + copy[:3] + end)  # the last copy cut off in its middle
    assert sdzero.to_text(tokenizer, cut).count("Let me add") <= 2


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 1000000.",
        "\\boxed{100000000000}",
        "1+1+1+1=4",
        "9+9+0=18;9+9+1=19;9+9+1=19;9+9+1=19;9+9+1=19;\\boxed{199998}",
        "Add. Add. Add.",
        "-" * 20,
        "You're absolutely right!",  # nothing would be left
        "The sum is 12. Sorry.",
        "Your sum is right. 12",
    ],
)
def test_numbers_short_repetitions_and_what_is_no_opening_stay(encode, trim, text):
    ids = encode(text) + [2]
    assert trim(ids, openings=True) == ids


@pytest.mark.parametrize(
    "opening",
    [
        "You're absolutely right! ",
        "You are right. ",
        "I apologize for the mistake.\n\n",
        "Sorry, my error.\n",
        "Thank you for the hint! ",
    ],
)
def test_chatty_openings_are_cut_at_a_token_boundary(tokenizer, encode, trim, opening):
    rest = "The sum is 12. You are right."
    ids = encode(opening + rest) + [2]
    cut = trim(ids, openings=True)
    assert sdzero.to_text(tokenizer, cut).strip() == rest and cut[-1] == 2
    assert ids[-len(cut) :] == cut  # a tail of what was sampled
    assert trim(ids) == ids  # first answers keep their openings
    assert trim(ids[:-1], openings=True) == cut[:-1]  # truncated: no end is invented


def test_a_point_inside_a_number_ends_no_sentence(tokenizer, encode, trim):
    cut = trim(encode("Sorry, 3.5 was wrong. The sum is 4.") + [2], openings=True)
    assert not sdzero.to_text(tokenizer, cut).startswith("5")


def test_an_opening_that_ends_inside_a_token_stays():
    """A token that holds its end and the beginning of the rest cannot be cut."""
    words = {"Sorry": 0, ", my": 1, " error": 2, ".\n\nThe": 3, " sum": 4, "<e>": 5}
    joined = Tokenizer(models.WordLevel(words, unk_token="<e>"))
    joined.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=joined, eos_token="<e>")
    run = SimpleNamespace(cfg=small(trim=True), tokenizer=tokenizer, end_ids=[5])
    assert trimmed(run, [[0, 1, 2, 3, 4, 5]], openings=True) == [[0, 1, 2, 3, 4, 5]]


def test_no_trim_leaves_everything(tokenizer, encode):
    run = SimpleNamespace(cfg=small(trim=False), tokenizer=tokenizer, end_ids=[2])
    ids = encode("You are right. " + 20 * "Let me add it. ") + [2]
    assert trimmed(run, [ids], openings=True) == [ids]
