"""Prompts: ids that are the same in running text, for tokenizers of every family."""

import itertools
import json
from datetime import datetime
from types import SimpleNamespace

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from toys import addition, random_model, small, train
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import kit
import sdzero
from kit.errors import UserError
from kit.files import save_checkpoint
from sdzero import Config, Phrases

THEIRS = Config(phrase_if_wrong="")  # the authors' code's, by family
FAMILIES = {family: sdzero.control_phrases(THEIRS, family) for family in ("qwen3", "olmo3")}
TEXT = (
    "Wait, this is it.\n\nThe sum of 12 and 3 is 15.\n\nLet me add.\n\na\n\nThe answer}\n\n"
    "Then we go.\n\n\nSo it goes.\n\n"
)
ALL_PHRASES = sorted({text for phrases in FAMILIES.values() for text in phrases})
CORPUS = 20 * [TEXT, *(f"{text}\n\nThe answer is 12.\n\n" for text in ALL_PHRASES)]


# --------------------------------------------------------------------------------------------------
# Tokenizers of every family, learnt from a few sentences
# --------------------------------------------------------------------------------------------------
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES, BYTES_GPT2 = (
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2) for gpt2 in (False, True)
)


def byte_level(*splits):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splits))
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def metaspace(kind, newlines, prefix):
    """Blanks are "▁". Newlines are pieces (Gemma) or bytes (Llama 2); a normaliser, Metaspace or
    nothing puts a "▁" before the text."""
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    how = {"special_tokens": special, "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=500, **how)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", **how)
    # as sentencepiece: while the pieces are learnt, none reaches over a blank or a newline
    blanks = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = blanks
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁\n]+|\n+"), "isolated")
    texts = [text if newlines else text.replace("\n", " ") for text in CORPUS]
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    state["model"]["byte_fallback"], state["pre_tokenizer"], state["normalizer"] = True, None, None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if prefix == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif prefix == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks])
    else:
        tokenizer.normalizer = blanks
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts + [decoders.Strip(" ", 1, 0)] * bool(prefix))
    return tokenizer


LETTERS, ANY = ("The", "Let me", "\\boxed{1}"), ("The", "Let me", "\\boxed{1}", "12 + 3")
PLAIN_ENDS = ("a", "The sum is 12", "so it goes")
ALL_ENDS = (*PLAIN_ENDS, "it is 12.", "\\boxed{5}", "it is!")
DIGITS = pre_tokenizers.Digits(individual_digits=True)
SPLIT = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
# name: (how to build it, what may stand before, what after, whether the delimiter alone differs)
KINDS = {
    "gpt2": (lambda: byte_level(BYTES_GPT2), ALL_ENDS, ANY, True),
    # SmolLM2: digits are split off first, so that before a digit the blank line is one token, as it
    # is alone
    "smollm2": (lambda: byte_level(DIGITS, BYTES_GPT2), ALL_ENDS, LETTERS, True),
    # Qwen2 and Llama 3: a blank line joins the punctuation before it, so an answer that ends in "}"
    # has other neighbours in running text
    "qwen": (lambda: byte_level(SPLIT, BYTES), PLAIN_ENDS, ANY, False),
    # alone, a "▁" comes first
    "llama2": (lambda: metaspace("bpe", False, "normalizer"), ALL_ENDS, ANY, True),
    "llama-metaspace": (lambda: metaspace("bpe", False, "metaspace"), ALL_ENDS, ANY, True),
    "gemma": (lambda: metaspace("bpe", True, None), ALL_ENDS, ANY, False),
    "unigram": (lambda: metaspace("unigram", True, "metaspace"), ALL_ENDS, ANY, True),
    "unigram-bytes": (lambda: metaspace("unigram", False, "normalizer"), ALL_ENDS, ANY, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_delimiter_has_the_ids_of_running_text(kind):
    build, befores, afters, alone_differs = KINDS[kind]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build(), clean_up_tokenization_spaces=False
    )

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    for phrase in ALL_PHRASES:
        text = f"\n\n{phrase}\n\n"
        ids = kit.tokens.ids_in_running_text(tokenizer, text)
        assert tokenizer.decode(encode("a") + ids) == "a" + text
        assert (
            encode(text) != ids
        ) == alone_differs  # where True, this test tells right from wrong
        for before, after in itertools.product(befores, afters):
            start, running = len(encode(before)), encode(before + text + after)
            assert running[:start] == encode(before), (before, after)
            assert running[start : start + len(ids)] == ids, (before, after)


def test_a_delimiter_that_has_no_ids_of_its_own_is_refused():
    """One token for everything: it cannot be taken apart."""

    class Merging:
        def encode(self, text, add_special_tokens):
            return [1]

        def decode(self, ids, clean_up_tokenization_spaces):
            return "everything" if ids else ""

    with pytest.raises(UserError, match="merges"):
        kit.tokens.ids_in_running_text(Merging(), "\n\nWait.\n\n")


def test_prompt_answer_and_phrase_of_the_embedded_model_are_running_text(run_of):
    run = run_of(small(), end_ids=[2], folder=None)
    run.phrases = sdzero.phrase_ids(run.tokenizer, FAMILIES["qwen3"])
    x = sdzero.chat_ids(run.tokenizer, addition(12, 34)["prompt"])
    y = run.tokenizer.encode("2+4+0=06;1+3+0=04;\\boxed{46}", add_special_tokens=False)
    context = sdzero.reviser_ids(run, x, [*y, 2], 0.0)
    text = run.tokenizer.decode(context)
    assert text.endswith(
        "<|im_start|>assistant\n2+4+0=06;1+3+0=04;\\boxed{46}\n\n"
        "Wait, this response is wrong. Let me correct it.\n\n"
    )
    ids = run.tokenizer.encode(text + "2", add_special_tokens=False)
    assert ids[: len(context)] == context


# --------------------------------------------------------------------------------------------------
# Control phrases and chat templates
# --------------------------------------------------------------------------------------------------
def test_control_phrases_by_family_and_override():
    right, wrong = "Let me rephrase the above solution.", "Wait, this response is wrong."
    assert FAMILIES["qwen3"] == Phrases(right, wrong + " Let me correct it.")
    assert FAMILIES["olmo3"] == Phrases(right, "Wrong. I need to redo all.")
    assert sdzero.control_phrases(THEIRS, "llama") == FAMILIES["qwen3"]
    papers = "Wait, this response is not correct, let me start over."
    assert sdzero.control_phrases(Config(), "olmo3") == Phrases(right, papers)
    given = Config(phrase_if_right="R", phrase_if_wrong="W")
    assert sdzero.control_phrases(given, "olmo2") == Phrases(if_right="R", if_wrong="W")


def test_chat_messages_are_rendered_up_to_where_the_answer_begins(tokenizer):
    shots = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "\\boxed{2}"},
        {"role": "user", "content": "2+2?"},
    ]
    assert tokenizer.decode(sdzero.chat_ids(tokenizer, shots)) == (
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n\\boxed{2}<|im_end|>\n"
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_prints_the_date_prints_one_date(own_tokenizer):
    """A run that is stopped goes on the next day, with the prompts that it began with."""
    dated = "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    own_tokenizer.chat_template = dated
    plain = own_tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    today = f"{datetime.now():%d %b %Y}"
    assert plain == f"{today} x"
    ids = sdzero.chat_ids(own_tokenizer, "x")
    assert own_tokenizer.decode(ids) == "26 Jul 2024 x" != plain
    assert own_tokenizer.chat_template == dated  # as it is in the checkpoint


def test_a_base_model_needs_a_chat_template_and_keeps_it(tmp_path, own_tokenizer, coin):
    own_tokenizer.chat_template = None
    base = str(tmp_path / "base")
    save_checkpoint(own_tokenizer, random_model(), base)
    with pytest.raises(UserError, match="chat template.*--chat-template plain"):
        kit.loading.load_tokenizer(small(base))

    plain = kit.loading.load_tokenizer(small(base, chat_template="plain"))
    shots = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2+2?"},
    ]
    assert plain.decode(sdzero.chat_ids(plain, shots)) == (
        "Question: 1+1?\n\nAnswer: 2<|im_end|>\n\nQuestion: 2+2?\n\nAnswer:"
    )
    train(small(base, chat_template="plain", method="srt", out=str(tmp_path / "run")))
    kept = AutoTokenizer.from_pretrained(tmp_path / "run" / "srt").chat_template
    assert kept == kit.loading.PLAIN_TEMPLATE

    file = tmp_path / "t.jinja"
    file.write_text("{% for m in messages %}<{{ m['content'] }}>{% endfor %}")
    own = kit.loading.load_tokenizer(small(base, chat_template=str(file)))
    assert own.decode(sdzero.chat_ids(own, "hi")) == "<hi>"
    with pytest.raises(UserError, match="--chat-template missing.jinja: no such file"):
        kit.loading.load_tokenizer(small(base, chat_template="missing.jinja"))


def ends(tokenizer, generation, eos="<|im_end|>"):
    tokenizer.eos_token = eos
    settings = SimpleNamespace(eos_token_id=generation)
    return kit.loading.end_token_ids(tokenizer, SimpleNamespace(generation_config=settings))


def test_every_token_that_ends_a_response_is_known(own_tokenizer):
    assert ends(own_tokenizer, 2) == [2]
    assert ends(own_tokenizer, [2, 0]) == [0, 2]
    assert ends(own_tokenizer, None) == [2]
    # <|im_end|> ends a ChatML turn although no configuration says so
    assert ends(own_tokenizer, 0, "<|endoftext|>") == [0, 2]
    bare = PreTrainedTokenizerFast(tokenizer_object=byte_level(BYTES), unk_token=None)
    assert ends(bare, [7, 9], None) == [7, 9]
    with pytest.raises(UserError, match="end token"):
        ends(bare, None, None)
