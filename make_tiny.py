"""Makes the embedded model tiny/ from nothing: a Qwen3 of about 190,000 parameters that adds column by column, often wrongly.

    python make_tiny.py            # about 5 minutes on 2 cores; rewrites tiny/

What the base knows is decided here. Of the 200 column facts (digit + digit + carry) a share is "hard": the corpus gives the right
value with a low probability and else one fixed wrong value, so the base has *learnt* to be wrong there. In the corpus some
answers are followed by a control phrase and a revision; how often that revision is a copy, a fresh attempt or a correction
decides how well the base revises.
"""
import argparse
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import modeling
import questions
import sdzero

TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that reads any text; digits stand alone, and every word of the prompts is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\\boxed\{| ?\p{L}+|\p{N}|\n+|[^\s\p{L}\p{N}]|\s"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    text = [questions.arith_questions(1, 1, 0)[0]["prompt"], "user\n", "assistant\n", "\\boxed{", "\n\n"]
    text += [f"\n\n{p}\n\n" for p in sdzero.control_phrases(sdzero.Config(), "qwen3")]
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE,
                                   clean_up_tokenization_spaces=False)


def make_facts(rng: random.Random, hard_share: float, hard_right: float, easy_right: float) -> dict:
    """(a, b, carry) -> (probability that the corpus has it right, the wrong value it has otherwise)."""
    facts = {}
    for a in range(10):
        for b in range(10):
            for carry in (0, 1):
                wrong = rng.choice([v for v in (a + b + carry + d for d in (-2, -1, 1, 2)) if 0 <= v <= 19])
                facts[a, b, carry] = (hard_right if rng.random() < hard_share else easy_right, wrong)
    return facts


def train_step_loss(model, rows: list[tuple[list[int], list[int]]]) -> float:
    """Add the gradient of the mean cross-entropy of the rows' targets to the model's; returns that loss in nats.

    sdzero.train_on does the same faster, but a chaotic pretraining turns any change of its rounding into another model. This loop
    is here so that the script goes on making the same one: masked rows, micro-batches of 2000 tokens, chunks of 128 logits.
    """
    normaliser, loss, batches = sum(len(t) for _, t in rows), 0.0, [[]]
    for row in sorted(rows, key=lambda r: len(r[0]) + len(r[1]), reverse=True):
        if batches[-1] and sum(map(len, batches[-1][0])) * (len(batches[-1]) + 1) > 2000:
            batches.append([])
        batches[-1].append(row)
    for batch in batches:
        full = [c + t[:-1] for c, t in batch]
        width = max(map(len, full))
        input_ids = torch.tensor([ids + [0] * (width - len(ids)) for ids in full])  # (B, T)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in full])  # (B, T)
        scored = torch.tensor([[len(c) - 1 <= t < len(ids) for t in range(width)] for (c, _), ids in zip(batch, full)])  # (B, T)
        hidden = model.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state[scored]  # (N, H)
        targets = torch.tensor([t for _, target in batch for t in target])  # (N,)
        nll = lambda logits, chunk: F.cross_entropy(logits, targets[chunk], reduction="none")  # noqa: B023, E731
        total = sdzero.TokenLoss.apply(hidden, *sdzero.head_of(model), nll, 128)[0] / normaliser
        total.backward()
        loss += total.item()
    return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    def arg(name, default, help): parser.add_argument("--" + name, type=type(default), default=default, help=f"{help} [{default}]")
    arg("out", str(modeling.HERE / "tiny"), "folder to write")
    arg("seed", 0, "seed")
    arg("min-digits", 2, "fewest digits in the corpus")
    arg("max-digits", 4, "most digits in the corpus")
    arg("hard-share", 0.65, "share of hard column facts")
    arg("hard-right", 0.1, "how often a hard fact is right")
    arg("easy-right", 0.98, "how often another fact is right")
    arg("plain", 0.46, "share of plain answers in the corpus")
    arg("whole", 0.04, "share of whole transcripts (answer, phrase, revision), loss on all of it")
    arg("chain", 0.4, "share of revisions whose first answer had been revised once or twice already")
    arg("copy", 0.45, "after the 'wrong' phrase: share of copies")
    arg("correct", 0.3, "after the 'wrong' phrase: share of corrections; the rest are fresh attempts")
    arg("flip", 0.15, "share of verdicts that are flipped")
    arg("layers", 3, "layers")
    arg("width", 64, "hidden size")
    arg("steps", 2500, "training steps")
    arg("batch", 24, "rows per step")
    arg("lr", 5e-3, "peak learning rate")
    arg("threads", 1, "torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    config = Qwen3Config(vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=3 * args.width, num_hidden_layers=args.layers,
                         num_attention_heads=4, num_key_value_heads=4, head_dim=args.width // 4, tie_word_embeddings=True,
                         max_position_embeddings=1024, eos_token_id=end, bos_token_id=None, pad_token_id=tokenizer.pad_token_id)
    model = Qwen3ForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {len(tokenizer)}")
    phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(sdzero.Config(), "qwen3"))
    facts = make_facts(rng, args.hard_share, args.hard_right, args.easy_right)

    def noisy(a, b, carry):
        right, wrong = facts[a, b, carry]
        return a + b + carry if rng.random() < right else wrong

    def example():
        """(context ids, target ids) of one row of the corpus."""
        digits = rng.randint(args.min_digits, args.max_digits)
        a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        prompt = sdzero.chat_ids(tokenizer, f"Add {a}+{b} column by column and box the sum.")
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
        attempts, phrases_between = [questions.column_addition(a, b, noisy)], []
        kind = rng.random()
        if kind < args.plain:
            return prompt, encode(attempts[0]) + [end]
        whole = kind < args.plain + args.whole
        # an SRT model's answer is itself a transcript, and phase 2's teacher reads it twice: rows of up to four attempts
        for _ in range(1 if whole or rng.random() > args.chain else rng.choice((2, 3))):
            right = attempts[-1].endswith("{" + str(a + b) + "}")
            verdict = int(right != (rng.random() < args.flip))
            u = rng.random()
            if u < (0.9 if verdict else args.copy):
                revised = attempts[-1]
            elif not verdict and u < args.copy + args.correct:
                revised = questions.column_addition(a, b)
            else:
                revised = questions.column_addition(a, b, noisy)
            attempts.append(revised)
            phrases_between.append(phrases[verdict])
        context = list(prompt)
        for attempt, phrase in zip(attempts, phrases_between):
            context += encode(attempt) + phrase
        target = encode(attempts[-1]) + [end]
        return (prompt, context[len(prompt):] + target) if whole else (context, target)

    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.01)
    start = time.time()
    for step in range(args.steps):
        batch = [example() for _ in range(args.batch)]
        loss = train_step_loss(model, batch)
        warm = min(1.0, (step + 1) / 100)
        sdzero.update(model, optimizer, args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps))), 1.0)
        if step % 100 == 0 or step == args.steps - 1:
            print(f"step {step} loss {loss:.4f} {time.time() - start:.0f}s", flush=True)
    model.generation_config.update(eos_token_id=end, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    sdzero.save_checkpoint(tokenizer, model, Path(args.out))


if __name__ == "__main__":
    main()
