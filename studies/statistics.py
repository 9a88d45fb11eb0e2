"""The numbers that the studies report, computed from plain lists of scores."""

import math

import numpy as np

# Student's t for 1 to 9 degrees of freedom: 97.5 % lie below
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


# --------------------------------------------------------------------------------------------------
# Questions: one run, or two on the same questions
# --------------------------------------------------------------------------------------------------
def pass_at_k(scores, k: int) -> float:
    """Unbiased estimate of P(at least one of k samples is right): the mean over questions of
    1 - C(n - c, k) / C(n, k), with c of n samples right.

    scores (questions, n) of 0 or 1. Raises ValueError for k > n.
    """
    n = len(scores[0])
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples per question, not {n}")
    return float(np.mean(passes(scores, k)))


def passes(scores, k: int) -> list[float]:
    """The terms of pass_at_k(), one for each question."""
    n = len(scores[0])
    none_right = [math.comb(n - int(sum(row)), k) / math.comb(n, k) for row in scores]
    return [1 - p for p in none_right]


def bootstrapped(values, draws: int = 2000, seed: int = 0) -> list[float]:
    """95 % interval of the mean of per-question values (n,): questions are drawn again, with all
    that was measured of each, since samples of one question are no independent evidence."""
    values = np.asarray(values, float)
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return [float(low), float(high)]


def paired_test(a, b, flips: int = 10_000, seed: int = 0) -> dict:
    """b - a for per-question scores (n,): mean, 95 % interval (None for one question), and the
    two-sided p of a sign-flip test.

    If the two were equally good, each question's difference would be as likely with the other sign.
    """
    d = np.asarray(b, float) - np.asarray(a, float)
    half = 1.959964 * d.std(ddof=1) / math.sqrt(len(d)) if len(d) > 1 else None
    differ = d[d != 0]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (flips, len(differ)))
    as_extreme = np.abs(signs @ differ) >= abs(differ.sum()) - 1e-9  # (flips,)
    return {
        "difference": float(d.mean()),
        "ci": None if half is None else [float(d.mean() - half), float(d.mean() + half)],
        "p": float((as_extreme.sum() + 1) / (flips + 1)),
        "wins": int((d > 0).sum()),
        "losses": int((d < 0).sum()),
    }


def difference_cell(test: dict) -> str:
    """What paired_test() found as a table shows it, in points: difference [low, high]."""
    bounds = " [{:+.1f}, {:+.1f}]".format(*(100 * x for x in test["ci"])) if test["ci"] else ""
    return f"{100 * test['difference']:+.1f}{bounds}"


# --------------------------------------------------------------------------------------------------
# Runs: several seeds
# --------------------------------------------------------------------------------------------------
def over_seeds(values) -> tuple[float, float, float]:
    """(mean, low, high) of one value per seed: the 95 % t-interval, infinite for a single seed."""
    values = np.asarray(values, float)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return mean, -math.inf, math.inf
    t = T_975[n - 2] if n - 2 < len(T_975) else 1.96 + 2.5 / (n - 1)
    half = t * float(values.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def over_runs(runs: list[dict]) -> dict:
    """{key: {"mean", "ci", "values"}} over seeds.

    Of a single run it is its own interval over questions, None where there is none. A value that a
    run lacks (the correction rate where no answer was wrong) is left out.
    """
    summary = {}
    for key in runs[0]:
        if key.endswith("_ci"):
            continue
        values = [r[key] for r in runs if r[key] is not None]
        mean, *ci = over_seeds(values) if values else (None, math.inf, math.inf)
        if not math.isfinite(ci[0]):
            ci = runs[0].get(key + "_ci") if len(runs) == 1 else None
        summary[key] = {"mean": mean, "ci": ci, "values": values}
    return summary


def mean_cell(value: dict, scale: float = 100.0, digits: int = 1, bounds: bool = True) -> str:
    """One of over_runs' values as a table shows it: mean [low, high]."""
    if value["mean"] is None:
        return "-"
    cell = f"{scale * value['mean']:.{digits}f}"
    if bounds and value["ci"]:
        low, high = (f"{scale * x:.{digits}f}" for x in value["ci"])
        cell += f" [{low}, {high}]"
    return cell


# --------------------------------------------------------------------------------------------------
# Tokens: the parts of an answer
# --------------------------------------------------------------------------------------------------
def buckets(values, n: int = 20) -> np.ndarray:
    """Values of one answer's tokens, the largest first, in n equal parts: the mean of each (n,).

    Where there are fewer tokens than parts, neighbouring parts share one.
    """
    values, count = np.sort(np.asarray(values, float))[::-1], len(values)
    means = []
    for j in range(n):
        first = j * count // n
        end = max(first + 1, math.ceil((j + 1) * count / n))
        means.append(values[first:end].mean())
    return np.array(means)


def top_share(values, share: float = 0.1) -> float:
    """The part of a sum of non-negative values that lies in the largest `share` of them."""
    values = np.sort(np.asarray(values, float))[::-1]
    if values.sum() <= 0:
        return math.nan
    return float(values[: math.ceil(share * len(values))].sum() / values.sum())


def first_difference(ids: list[int], right: list[int]) -> int | None:
    """Place of the first token of an answer that is not the right one's; None where there is
    none."""
    for t, token in enumerate(ids):
        if t >= len(right) or token != right[t]:
            return t
    return None
