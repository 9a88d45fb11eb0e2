"""Tables on the terminal, and the intervals in them."""

import math
import re

import numpy as np

# The paper's keywords of revising aloud (App. E.1), all 27. How it matches them is not stated: here
# as whole words whatever their case, a place in the text once, as the longest that fits there
# ("wait a minute" is not also "wait").
KEYWORDS = (
    *("wait", "hold on", "actually", "on second thought", "let me recheck", "let's recheck"),
    *("let me check", "let's check", "let me recalculate", "let's recalculate", "let me correct"),
    *("my mistake", "i made a mistake", "this is wrong", "that is wrong", "that's wrong"),
    *("incorrect", "re-evaluate", "let's re-evaluate", "let me rethink", "let's rethink"),
    *("let me double check", "let's double check", "wait a minute", "let me start over"),
    *("let me try again", "oops"),
)
LONGEST_FIRST = sorted(KEYWORDS, key=len, reverse=True)
KEYWORD = re.compile(rf"\b(?:{'|'.join(map(re.escape, LONGEST_FIRST))})\b", re.IGNORECASE)

# What the tables below call the two rates
CORRECTION = (
    "mended: of the wrong first answers, the share that revising turns right\n"
    "net correction: the paper's correction rate, (revised - first) / (100 - first) of the two "
    "accuracies: right answers that get lost are subtracted"
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


def net_correction(result: dict) -> float | None:
    """The paper's correction rate (Sec. 3.2): (revised - first) / (100 - first), of accuracies in
    per cent; negative where revising spoils more than it mends. None where all was right at first,
    or nothing was revised."""
    first, revised = result.get("initial_accuracy"), result.get("revised_accuracy")
    if first is None or revised is None or first >= 1:
        return None
    return (revised - first) / (1 - first)


def net_percent(result: dict) -> str:
    """net_correction() as a cell of a table. It has no interval: it is of means, not of answers."""
    net = net_correction(result)
    return "-" if net is None else f"{100 * net:.1f}"


def results_table(results: dict[str, dict]) -> str:
    """What a run prints at its end, and the README shows."""
    heading = ["", "sampled acc. %", "greedy acc. %", "tokens", "cut off %"]
    heading += ["revised acc. %", "mended %", "net correction %"]
    rows = [
        [
            name,
            percent(result, "accuracy"),
            percent(result, "accuracy_greedy"),
            f"{result['mean_tokens']:.1f}",
            f"{100 * result['truncated']:.1f}",
            percent(result, "revised_accuracy"),
            percent(result, "correction_rate"),
            net_percent(result),
        ]
        for name, result in results.items()
    ]
    return f"{table([heading, *rows])}\n{CORRECTION}"


def revision_words(samples: list[dict]) -> float:
    """Keywords of revising aloud per response, which SRT brings in and phase 2 takes out again (the
    paper's figure 6)."""
    return float(np.mean([len(KEYWORD.findall(s["text"])) for s in samples]))
