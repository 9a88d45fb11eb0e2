"""Rows of random ids, as training steps read them, and phase 2's gradient on them."""

import numpy as np

import kit
import sdzero

# lengths of the responses
RESPONSES = [185, 155, 77, 55, 93, 74, 163, 60, 86, 108, 211, 91, 58, 154, 116, 54]


def random_ids(g, vocabulary: int, n: int) -> list[int]:
    return g.integers(vocabulary // 8, vocabulary - 1, n).tolist()


def random_samples(lengths, prompt: int, vocabulary: int, end_id: int) -> list[dict]:
    """Responses of random ids as rollouts() gives them; every second one counts as right."""
    g, samples = np.random.default_rng(0), []
    for i, n in enumerate(lengths):
        ids = random_ids(g, vocabulary, n - 1) + [end_id]
        sample = {"context": random_ids(g, vocabulary, prompt), "ids": ids}
        samples.append(sample | {"finished": True, "reward": float(i % 2)})
    return samples


def backward_phase2(run, student, teacher, samples: list[dict]) -> float:
    """Phase 2's gradient on these samples; returns the loss."""
    for s in samples:
        s["teacher_context"] = sdzero.reviser_ids(run, s["context"], s["ids"], s["reward"])
    return sdzero.backward_kl(run, student, teacher, samples)


def largest_pass(lengths: list[int], micro_tokens: int) -> int:
    """Tokens of the largest pass: so few rows may leave it below --micro-tokens."""
    passes = kit.losses.micro_batches(lengths, micro_tokens)
    return max(len(rows) * lengths[rows[0]] for rows in passes)  # the longest row is the first


def row_lengths(samples: list[dict]) -> list[int]:
    """Tokens of the student's rows."""
    return [len(s["context"]) + len(s["ids"]) for s in samples]
