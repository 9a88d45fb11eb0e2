"""What a step of phase 2 shows people: how sure the student is ("entropy"), and with --show-every
an answer, each token by how much teacher and student disagree about it. Training reads none of it.
"""

import torch

from kit import ranks, shades
from kit.losses import head_of, logits_of
from kit.questions import question_in
from kit.tokens import texts_of

MEASURED = 64  # tokens of a pass whose entropy is measured: next to nothing beside its loss
SHOWN = 400  # tokens of an answer, around the highest value
MARKED = 5  # tokens, where there are no colours


@torch.no_grad()
def note(samples: list[dict], values, student, hidden) -> None:
    """Keep, beside a pass's samples, each token's "divergence", the size of its value (N,), and the
    "entropy" of the student's next-token distribution at up to MEASURED of them, evenly spaced.

    hidden (N, H): the student's hidden states that predict the N tokens.
    """
    for sample, part in zip(samples, values.abs().split([len(s["ids"]) for s in samples])):
        sample["divergence"] = part
    every = -(-len(hidden) // MEASURED)
    log_p = torch.log_softmax(logits_of(hidden.detach()[::every], head_of(student)), -1)  # (n, V)
    samples[0]["entropy"] = -(log_p.exp() * log_p).sum(-1)  # (n,)


def told(run, step: int, samples: list[dict]) -> dict:
    """{"entropy": mean over what was noted of this step's samples, all ranks together, in nats},
    {} where a loss notes nothing; every --show-every steps one of the samples is printed."""
    noted = [s["entropy"] for s in samples if "entropy" in s]
    sums = ranks.gather((sum(float(e.sum()) for e in noted), sum(map(len, noted))))
    if run.cfg.show_every and step % run.cfg.show_every == 0:
        here = [s for s in samples if "divergence" in s]  # of this rank
        if here:
            print(answer(run.tokenizer, step, min(here, key=lambda s: s["reward"])), flush=True)
    total, n = (sum(part) for part in zip(*sums))
    return {"entropy": total / n} if n else {}


def answer(tokenizer, step: int, sample: dict) -> str:
    """The question, the answer with its tokens coloured, or the MARKED highest in [[ ]], and a line
    about it."""
    values, tokens = sample["divergence"].tolist(), texts_of(tokenizer, sample["ids"])
    question = question_in(sample["question"]["prompt"])
    peak = max(range(len(values)), key=values.__getitem__)
    first = max(0, min(peak - SHOWN // 2, len(values) - SHOWN))
    last = min(first + SHOWN, len(values))
    left_out = f"; shown: tokens {first + 1} to {last}" if last - first < len(values) else ""
    part = slice(first, last)
    kind = "right" if sample["reward"] else "wrong"
    return (
        f"\n--- step {step}, a {kind} answer: {len(values)} tokens, divergence {sum(values):.2f}, "
        f"the highest {values[peak]:.2f} at {shades.visible(tokens[peak])!r}{left_out} ---\n"
        f"{shades.visible(question)}\n{painted(tokens[part], values[part])}\n"
    )


def painted(tokens: list[str], values: list[float]) -> str:
    """The tokens as one text for standard output, coloured by their values, which are at least 0;
    where it has no colours, the highest are marked."""
    tokens = [shades.visible(token) for token in tokens]
    if shades.terminal_has_colours():
        full = shades.full_colour(values)
        return "".join(shades.ansi(token, value, full) for token, value in zip(tokens, values))
    highest = sorted(range(len(values)), key=values.__getitem__)[-MARKED:]
    for i in highest:
        tokens[i] = f"[[{tokens[i]}]]"
    return "".join(tokens)
