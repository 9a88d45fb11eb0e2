"""Makes the embedded model tiny/ from nothing: a Qwen3 of about 190,000 parameters that adds column
by column, often wrongly.

    python studies/make_tiny.py            # about 6 minutes on one core; rewrites tiny/

What the base knows is decided here. Of the 200 column facts (digit + digit + carry) a share is
"hard": the corpus gives the right value with a low probability and else one fixed wrong value, so
the base has *learnt* to be wrong there. In the corpus some answers are followed by a control phrase
and a revision; how often that revision is a copy, a fresh attempt or a correction decides how well
the base revises.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: modules are looked for beside it, but they are one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import math
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from kit.files import save_checkpoint
from kit.losses import TokenLoss, head_of
from kit.presets import ALIASES
from kit.questions import arith_questions, column_addition
from sdzero import Config, Phrases, chat_ids, control_phrases, phrase_ids, update

TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = Regex(r"\\boxed\{| ?\p{L}+|\p{N}|\n+|[^\s\p{L}\p{N}]|\s")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that reads any text; digits stand alone, and every word of the prompts is one
    token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()

    prompt = arith_questions(1, 1, 0)[0]["prompt"]
    text = [prompt, "user\n", "assistant\n", "\\boxed{", "\n\n"]
    text += [f"\n\n{phrase}\n\n" for phrase in control_phrases(Config(phrase_if_wrong=""), "qwen3")]
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer, layers: int, width: int) -> Qwen3ForCausalLM:
    """A random model, whose config says what family it founds (kit.presets)."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=width // 4,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.config.sdzero_family = "tiny"
    return model


# --------------------------------------------------------------------------------------------------
# The corpus
# --------------------------------------------------------------------------------------------------
def make_facts(args, rng: random.Random) -> dict:
    """(a, b, carry) -> (probability that the corpus has it right, the wrong value it has
    otherwise)."""
    facts = {}
    for a in range(10):
        for b in range(10):
            for carry in (0, 1):
                near = [a + b + carry + d for d in (-2, -1, 1, 2)]
                wrong = rng.choice([value for value in near if 0 <= value <= 19])
                hard = rng.random() < args.hard_share
                facts[a, b, carry] = (args.hard_right if hard else args.easy_right, wrong)
    return facts


class Corpus:
    """Answers, and transcripts of an answer and its revisions, drawn one after another."""

    def __init__(self, args, rng: random.Random, tokenizer, phrases: Phrases):
        self.args, self.rng, self.tokenizer, self.phrases = args, rng, tokenizer, phrases
        self.facts = make_facts(args, rng)
        self.end = tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def noisy(self, a: int, b: int, carry: int) -> int:
        """A column's sum as the base shall know it."""
        right, wrong = self.facts[a, b, carry]
        return a + b + carry if self.rng.random() < right else wrong

    def revision(self, answer: str, verdict: bool, a: int, b: int) -> str:
        """What follows an answer and a verdict: a copy, a correction, or a fresh attempt."""
        u = self.rng.random()
        if u < (0.9 if verdict else self.args.copy):
            return answer
        if not verdict and u < self.args.copy + self.args.correct:
            return column_addition(a, b)
        return column_addition(a, b, self.noisy)

    def row(self) -> tuple[list[int], list[int]]:
        """(context, target) ids of one row."""
        args, rng = self.args, self.rng
        digits = rng.randint(args.min_digits, args.max_digits)
        a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        prompt = chat_ids(self.tokenizer, f"Add {a}+{b} column by column and box the sum.")
        answer = column_addition(a, b, self.noisy)
        kind = rng.random()
        if kind < args.plain:
            return prompt, self.encode(answer) + [self.end]

        whole = kind < args.plain + args.whole
        # an SRT model's answer is itself a transcript, and phase 2's teacher reads it twice: rows
        # of up to four attempts
        revisions = 1 if whole or rng.random() > args.chain else rng.choice((2, 3))
        context = list(prompt)
        for _ in range(revisions):
            right = answer.endswith("{" + str(a + b) + "}")
            verdict = right != (rng.random() < args.flip)
            phrase = self.phrases.if_right if verdict else self.phrases.if_wrong
            context += self.encode(answer) + phrase
            answer = self.revision(answer, verdict, a, b)
        target = self.encode(answer) + [self.end]
        if whole:
            return prompt, context[len(prompt) :] + target
        return context, target


# --------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------
def train_step_loss(model, rows: list[tuple[list[int], list[int]]]) -> float:
    """Add the gradient of the mean cross-entropy of the rows' targets to the model's; returns that
    loss in nats.

    sdzero.backward_nll does the same faster, but a chaotic pretraining turns any change of its
    rounding into another model. This loop is here so that the script goes on making the same one:
    masked rows, passes of 2000 tokens, chunks of 128 logits.
    """
    normaliser, loss, batches = sum(len(target) for _, target in rows), 0.0, [[]]
    for row in sorted(rows, key=lambda row: len(row[0]) + len(row[1]), reverse=True):
        if batches[-1] and sum(map(len, batches[-1][0])) * (len(batches[-1]) + 1) > 2000:
            batches.append([])
        batches[-1].append(row)
    for batch in batches:
        total = summed_nll(model, batch) / normaliser
        total.backward()
        loss += total.item()
    return loss


def summed_nll(model, batch: list[tuple[list[int], list[int]]]):
    """-sum log pi(target | context) of the rows of one pass."""
    full = [context + target[:-1] for context, target in batch]
    width = max(map(len, full))
    ids, mask, scored, targets = [], [], [], []
    for (context, target), row in zip(batch, full):
        padding = width - len(row)
        ids.append(row + [0] * padding)
        mask.append([1] * len(row) + [0] * padding)
        scored.append([len(context) - 1 <= t < len(row) for t in range(width)])
        targets += target
    ids, mask, scored = torch.tensor(ids), torch.tensor(mask), torch.tensor(scored)  # (B, T) each
    output = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    hidden, targets = output.last_hidden_state[scored], torch.tensor(targets)  # (N, H), (N,)

    def nll(logits, rows):
        return F.cross_entropy(logits, targets[rows], reduction="none")  # (n,)

    return TokenLoss.apply(hidden, *head_of(model), nll, 128)[0]


def pretrain(model, corpus: Corpus, args) -> None:
    """A linear warm-up over 100 steps, and a cosine to a fiftieth of the peak."""
    options = {"lr": args.lr, "betas": (0.9, 0.95), "weight_decay": 0.01}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    start = time.time()
    for step in range(args.steps):
        loss = train_step_loss(model, [corpus.row() for _ in range(args.batch)])
        warm = min(1.0, (step + 1) / 100)
        cosine = 0.5 * (1 + math.cos(math.pi * step / args.steps))
        update(model, optimizer, args.lr * warm * (0.02 + 0.98 * cosine), 1.0)
        if step % 100 == 0 or step == args.steps - 1:
            print(f"step {step} loss {loss:.4f} {time.time() - start:.0f}s", flush=True)


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
OPTIONS = {
    "out": (ALIASES["tiny"], "folder to write"),
    "seed": (0, "seed"),
    "min-digits": (2, "fewest digits in the corpus"),
    "max-digits": (4, "most digits in the corpus"),
    "hard-share": (0.65, "share of hard column facts"),
    "hard-right": (0.1, "how often a hard fact is right"),
    "easy-right": (0.98, "how often another fact is right"),
    "plain": (0.46, "share of plain answers in the corpus"),
    "whole": (0.04, "share of whole transcripts (answer, phrase, revision), loss on all of it"),
    "chain": (0.4, "share of revisions whose first answer had been revised once or twice already"),
    "copy": (0.45, "after the 'wrong' phrase: share of copies"),
    "correct": (0.3, "after the 'wrong' phrase: share of corrections; the rest: fresh attempts"),
    "flip": (0.15, "share of verdicts that are flipped"),
    "layers": (3, "layers"),
    "width": (64, "hidden size"),
    "steps": (2500, "training steps"),
    "batch": (24, "rows per step"),
    "lr": (5e-3, "peak learning rate"),
    "threads": (1, "torch threads"),
}


def main(argv: list[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    for name, (default, help) in OPTIONS.items():
        text = f"{help} [{default}]"
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, args.layers, args.width)
    print(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}")
    phrases = phrase_ids(tokenizer, control_phrases(Config(phrase_if_wrong=""), "qwen3"))
    pretrain(model, Corpus(args, random.Random(args.seed), tokenizer, phrases), args)

    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config.update(**ends, bos_token_id=None)
    save_checkpoint(tokenizer, model, Path(args.out))


if __name__ == "__main__":
    main()
