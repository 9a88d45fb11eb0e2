"""Seeds that depend on nothing that ran before them, so that a run can be resumed exactly."""

import random


def derived_seed(*parts) -> int:
    """A seed for one step of one phase, such as (the run's seed, "distil", step)."""
    return random.Random("/".join(map(str, parts))).getrandbits(31)


def permutation(n: int, *parts) -> list[int]:
    """0 .. n - 1 in the random order that `parts` name."""
    return random.Random(derived_seed(*parts)).sample(range(n), n)


def shuffled(items: list, n: int, *parts) -> list:
    """n items in random order: all of them once, then all again in another order, and so on."""
    order = []
    while len(order) < n:
        order += permutation(len(items), *parts, len(order) // len(items))
    return [items[i] for i in order[:n]]
