"""Which of phase 1's verified revisions are trained on where there are more than are wanted.

The paper keeps 6K and does not say which surplus is dropped (docs/differences.md).
"""

import random
from collections import Counter

from kit.errors import DeadEnd


def drop_surplus(records: list[dict], cfg) -> None:
    """Keep cfg.srt_records of the kept records, spread evenly over the questions, cfg.right_share
    of them with a right first answer; the others become surplus."""
    kept = [i for i in spread(records, cfg.seed) if records[i]["kept"]]
    right = [i for i in kept if records[i]["init_reward"]]
    wrong = [i for i in kept if not records[i]["init_reward"]]
    share, most = cfg.right_share, cfg.srt_records or len(kept)
    if share:  # as many as keep the share exact
        most = min(most, int(len(right) / share), int(len(wrong) / (1 - share)))
        if kept and not most:
            raise DeadEnd(
                f"--right-share {share:g} leaves no record to train on: of {len(kept)} that were "
                f"kept {len(right)} have a right first answer"
            )
        chosen = {*right[: round(share * most)], *wrong[: most - round(share * most)]}
    else:
        chosen = set(kept[:most])
    for i in set(kept) - chosen:
        records[i].update(kept=False, why="surplus")


def in_turn(records: list[dict], n: int) -> tuple[list[dict], list[dict]]:
    """(n records, right first answers first; the others): for Eq. 1, and for Eq. 2 (--srt-in-turn).
    Where there are no others, it says so."""
    by_right = sorted(records, key=lambda record: -record["init_reward"])
    if len(records) <= n:
        print(f"all {len(records)} records are for Eq. 1 (--revision-records {n}): no others")
    return by_right[:n], by_right[n:]


def spread(records: list[dict], seed: int) -> list[int]:
    """All indices, in an order that takes a first kept record of every question, then a second of
    every one, and so on; within that at random."""
    shuffled = list(range(len(records)))
    random.Random(f"surplus-{seed}").shuffle(shuffled)
    nth, taken = {}, Counter()
    for i in shuffled:
        question = tuple(records[i]["prompt_ids"])
        nth[i] = taken[question]
        taken[question] += records[i]["kept"]
    return sorted(shuffled, key=nth.get)
