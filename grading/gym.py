"""reasoning-gym's scorers as a reward: --task gym:NAME.

An entry is made again from its data set's name, options, seed and place (kit/gym.py writes them
into the question): its metadata need not survive JSON, which has no tuples and no sets. Loaded in
workers alone (own_worker.py), as it needs the package.
"""

import functools
import re

import reasoning_gym

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
FULL = 1 - 1e-9  # of a score: a part of the points is not a right answer


def final_answer(response):
    """What stands in the last <answer>...</answer>, behind any thoughts; None if there is none."""
    found = ANSWER.findall(response.rpartition("</think>")[2])
    return found[-1].strip() if found else None


@functools.lru_cache(maxsize=16)
def data_set(name, options, seed, size):
    """A data set, whose options come as a tuple of pairs."""
    values = {key: thawed(value) for key, value in options}
    return reasoning_gym.create_dataset(name, seed=seed, size=size, **values)


def frozen(value):
    """A list as a tuple, so that it can be a key."""
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def thawed(value):
    return list(map(thawed, value)) if isinstance(value, tuple) else value


def score(response, row):
    """1 where the data set's own scorer gives its answer all points, else 0. A scorer that raises
    was given nonsense by the model: that is wrong."""
    answer = final_answer(response)
    if answer is None:
        return 0
    of = row["gym"]
    options = tuple((key, frozen(value)) for key, value in sorted(of["options"].items()))
    entries = data_set(of["name"], options, of["seed"], of["size"])
    entry = entries[of["place"]]
    try:
        return int(entries.score_answer(answer, entry) >= FULL)
    except MemoryError:
        raise
    except Exception:
        return 0
