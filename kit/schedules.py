"""Learning rates, rounds and synchronisations: what happens at which step."""

import math
from dataclasses import dataclass


def warmup_and_cosine(step: int, steps: int) -> float:
    """Linear over the first 5 % of the steps, then a cosine to 0 (Table 4)."""
    warmup = max(1, round(0.05 * steps))
    left = max(0, step - warmup) / max(1, steps - warmup)
    return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * left)))


@dataclass
class Schedule:
    """What an on-policy phase does at which of its steps."""

    phase: str
    steps: int
    batch: int  # rollouts per step
    lr_peak: float
    warmup: int
    decay: float  # share of each round
    weight_decay: float
    beta2: float = 0.95
    rounds: int = 1
    sync_every: int = 0
    cosine: bool = False  # falls along one, behind the warm-up, in each round
    updates: int = 1  # optimiser steps on each batch of rollouts; more than one in GRPO alone
    distils: bool = True  # whether the loss is a divergence, to be logged as one; not in GRPO

    def round_of(self, step: int) -> tuple[int, int, int]:
        """(number, first step, step after the last) of the round that a step is in."""
        bounds = [self.steps * i // self.rounds for i in range(self.rounds + 1)]
        number = sum(bound <= step for bound in bounds) - 1
        return number, bounds[number], bounds[number + 1]

    def round_begun(self, step: int) -> int:
        """The number of the round, other than the first, that begins with this step; else 0."""
        number, first, _ = self.round_of(step)
        return number if step == first else 0

    def synchronises(self, step: int) -> bool:
        """Whether the teacher is set to the student before this step (Sec. 3.4)."""
        regular = self.sync_every > 0 and step % self.sync_every == 0
        return step > 0 and (regular or self.round_begun(step) > 0)

    def lr(self, step: int) -> float:
        """Each round has a schedule of its own: a teacher is best set to a student that has
        settled."""
        _, begin, end = self.round_of(step)
        rise = (step - begin + 1) / max(1, self.warmup)
        fall = (end - step) / (self.decay * (end - begin)) if self.decay else 1.0
        if self.cosine:
            fall = 0.5 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))
        return self.lr_peak * min(1.0, rise, fall)
