"""Hours that a run will take on a GPU, computed beforehand from stated throughputs.

A rollout step reads the weights and the cache of all rows once, so memory bandwidth bounds it; a
training step is bound by arithmetic. What of both bounds is reached is assumed, not measured here:
kit/clock.py measures as the run goes.
"""

import math
from typing import NamedTuple

from kit import budget, memory_plan
from kit.sizes import Sizes

# Of the bound. transformers' own figure for its continuous batching is 234.5 s for 32 rows of 8192
# tokens of an 8B model (huggingface.co/blog/continuous_async): 0.26 of an H200's bandwidth.
OF_BANDWIDTH, OF_ARITHMETIC = 0.25, 0.3
# A response's tokens on average, with Qwen3-4B-Instruct: the paper's own (App. C.2 and Table 9),
# where the limits let them be. Evaluation: of the base, after phase 1, after phase 2.
MEAN = {"first answers": 3700, "revisions": 3700, "rollouts": 8500, "evaluation": 5200}
TO_HOST = 20e9  # bytes a second between GPU and host, each way


class Speed(NamedTuple):
    """What the vendor's data sheet says of a card."""

    name: str
    bandwidth: float  # bytes a second
    arithmetic: float  # dense bfloat16 operations a second, sums in fp32


CARDS = {
    12: Speed("RTX 3060", 360e9, 25e12),
    16: Speed("RTX 4080", 717e9, 97e12),
    24: Speed("RTX 4090", 1008e9, 165e12),
    32: Speed("RTX 5090", 1792e9, 209e12),
    40: Speed("A100 40 GB", 1555e9, 312e12),
    48: Speed("L40S", 864e9, 362e12),
    80: Speed("H100 SXM", 3350e9, 989e12),
    96: Speed("RTX PRO 6000", 1792e9, 503e12),
    141: Speed("H200", 4800e9, 989e12),
    180: Speed("B200", 8000e9, 2250e12),
}


def speed_of(card: float) -> tuple[int, Speed]:
    """(GB, speed) of the usual card that is nearest to one of this many bytes."""
    size = min(CARDS, key=lambda gb: abs(gb * 1e9 - card))
    return size, CARDS[size]


def evaluations(cfg) -> int:
    """How many times the model is evaluated: before, behind each phase, between two rounds, and in
    phase 2 every --eval-every steps."""
    stages = 1 + len(memory_plan.phases_of(cfg))
    if cfg.method != "sdzero":
        return stages
    steps = budget.distil_steps(cfg, cfg.distil_questions)
    between = (steps - 1) // cfg.eval_every if cfg.eval_every else 0
    return stages + cfg.rounds - 1 + between


def evaluated_responses(cfg) -> int:
    """Responses of one evaluation: sampled, greedy and revised."""
    return cfg.eval_questions * (cfg.eval_samples + 2)


def tokens_of(cfg) -> dict[str, int]:
    """{kind of response: its tokens on average}."""
    phase1, phase2 = (memory_plan.longest(cfg, phase) for phase in (1, 2))
    most = {"first answers": phase1, "revisions": phase1, "rollouts": phase2}
    most["evaluation"] = cfg.eval_max_tokens or cfg.max_tokens
    return {kind: min(mean, most[kind]) for kind, mean in MEAN.items()}


def rollout_speed(s: Sizes, cfg, card: float) -> float:
    """Tokens a second that are sampled, of all rows together."""
    w, phase = memory_plan.bytes_of_weight(cfg, gpu=True), memory_plan.phases_of(cfg)[-1]
    length = memory_plan.PROMPT / 2 + max(tokens_of(cfg).values())
    cached = memory_plan.cached_tokens(s, cfg, phase, card * (1 - memory_plan.RESERVE))
    # rows are of all ages, half as long as at their end
    rows = max(1, min(cfg.rollout_batch or memory_plan.AT_ONCE, cached / (length / 2)))
    read = s.parameters * w + rows * length / 2 * s.layers * 2 * s.key * w
    return OF_BANDWIDTH * speed_of(card)[1].bandwidth * rows / read


def training_seconds(s: Sizes, cfg, card: float, responses: dict[str, int]) -> float:
    """Seconds of all training steps, with as many kept revisions as --srt-records lets."""
    tokens, prompt = tokens_of(cfg), memory_plan.PROMPT / 2
    kept = budget.kept_at_most(cfg, responses.get("revisions", 0))
    distil = responses.get("rollouts", 0)
    row = prompt + tokens["first answers"] + tokens["revisions"]
    srt = kept * cfg.srt_epochs * row
    student = distil * (prompt + tokens["rollouts"])
    teacher = distil * (prompt + 2 * tokens["rollouts"])
    passes = 8 if cfg.gradient_checkpointing else 6  # operations per weight and token
    operations = s.parameters * (passes * (srt + student) + 2 * teacher)
    seconds = operations / (OF_ARITHMETIC * speed_of(card)[1].arithmetic)
    steps_of_2 = math.ceil(distil / cfg.distil_batch)
    steps = math.ceil(kept / cfg.srt_batch) * cfg.srt_epochs + steps_of_2
    passes_of_2 = max(steps_of_2, student / (cfg.micro_tokens or memory_plan.PASS_TOKENS))
    moved = steps * 2 * memory_plan.states_on_host(s, cfg)
    moved += passes_of_2 * memory_plan.teacher_on_host(s, cfg)
    return seconds + moved / TO_HOST


def hours(s: Sizes, cfg, card: float, responses: dict[str, int]) -> dict[str, float]:
    """{"rollouts", "training": hours, "tokens a second": of rollouts} on a card of so many bytes.

    responses: how many training generates, by kind.
    """
    counts = {**responses, "evaluation": evaluations(cfg) * evaluated_responses(cfg)}
    tokens = sum(n * tokens_of(cfg)[kind] for kind, n in counts.items())
    rate = cfg.tokens_per_second or rollout_speed(s, cfg, card)
    return {
        "rollouts": tokens / rate / 3600,
        "training": training_seconds(s, cfg, card, responses) / 3600,
        "tokens a second": rate,
        "tokens": tokens,
    }
