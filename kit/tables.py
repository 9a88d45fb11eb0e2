"""Tables on the terminal, and the intervals in them."""

import math
import re

import numpy as np

REVISION_WORDS = re.compile(
    r"\b(wait|start(ing)? over|redo|wrong|mistake|correct(ion)?|re-?check|try again|rephrase"
    r"|actually)\b",
    re.IGNORECASE,
)


def table(rows: list[list[str]]) -> str:
    """Left-aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def interval(scores) -> list[float]:
    """95 % Wilson interval of the mean of per-question scores (n,) in [0, 1].

    Questions are what was drawn at random, so an average over k samples of a question counts as one
    observation: its n is the number of coin tosses that would spread as much as the scores do.
    """
    scores = np.asarray(scores, float)
    n, p, z = len(scores), scores.mean(), 1.959964
    variance = scores.var(ddof=1) / n if n > 1 else 0.0
    if variance > 0:
        n = max(n, p * (1 - p) / variance)
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    widening = 1 + z * z / n
    low, high = float((centre - half) / widening), float((centre + half) / widening)
    return [max(0.0, low), min(1.0, high)]


def mean(values) -> float:
    return float(np.mean(list(values)))


def rate(name: str, scores) -> dict:
    """A mean of per-question scores with its 95 % interval; None where there are no scores."""
    scores = list(scores)
    if not scores:
        return {name: None, name + "_ci": None}
    return {name: mean(scores), name + "_ci": interval(scores)}


def percent(result: dict, key: str) -> str:
    """A rate and its 95 % interval, in per cent."""
    if result[key] is None:
        return "-"
    in_percent = np.multiply(100, [result[key], *result[key + "_ci"]])
    return "{:5.1f} [{:.1f}, {:.1f}]".format(*in_percent)


def results_table(results: dict[str, dict]) -> str:
    """What a run prints at its end, and the README shows."""
    heading = ["", "sampled acc. %", "greedy acc. %", "tokens", "cut off %"]
    heading += ["revised acc. %", "correction rate %"]
    rows = [
        [
            name,
            percent(result, "accuracy"),
            percent(result, "accuracy_greedy"),
            f"{result['mean_tokens']:.1f}",
            f"{100 * result['truncated']:.1f}",
            percent(result, "revised_accuracy"),
            percent(result, "correction_rate"),
        ]
        for name, result in results.items()
    ]
    return table([heading, *rows])


def revision_words(samples: list[dict]) -> float:
    """Words of revising aloud per response, which SRT brings in and phase 2 takes out again (the
    paper's self-evolution)."""
    return float(np.mean([len(REVISION_WORDS.findall(s["text"])) for s in samples]))
