"""The numbers that the studies report."""

import itertools
import json
import math

import numpy as np
import pytest

from studies.statistics import (
    buckets,
    difference_cell,
    first_difference,
    mean_cell,
    over_runs,
    over_seeds,
    paired_test,
    pass_at_k,
    top_share,
)


# --------------------------------------------------------------------------------------------------
# Questions
# --------------------------------------------------------------------------------------------------
def test_pass_at_k_equals_enumeration():
    g = np.random.default_rng(0)
    scores = g.integers(0, 2, (6, 5)).tolist() + [[0] * 5, [1] * 5]
    for k in range(1, 6):
        of_questions = []
        for row in scores:
            of_questions.append(np.mean([max(s) for s in itertools.combinations(row, k)]))
        assert pass_at_k(scores, k) == pytest.approx(np.mean(of_questions))
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"pass@{k}"):
            pass_at_k(scores, k)


def test_paired_test():
    g = np.random.default_rng(0)
    a = g.integers(0, 2, 100).astype(float)
    b = np.where(g.random(100) < 0.4, 1.0, a)
    better, worse, same = paired_test(a, b), paired_test(b, a), paired_test(a, a)

    assert better["difference"] == -worse["difference"] > 0 and better["ci"][0] > 0
    assert better["ci"] == pytest.approx([-x for x in worse["ci"][::-1]])
    assert better["p"] == pytest.approx(worse["p"], abs=1e-3) and better["p"] < 0.001
    assert (better["wins"], better["losses"]) == (int((b > a).sum()), 0)
    assert (worse["wins"], worse["losses"]) == (0, int((b > a).sum()))
    assert same["p"] == 1.0 and same["difference"] == 0.0
    # 5 wins and no loss: 2 of 32 sign patterns are as extreme
    p = paired_test([0.0] * 9, [1.0] * 5 + [0.0] * 4)["p"]
    assert p == pytest.approx(2 / 32, abs=0.01)


def test_one_question_has_a_difference_and_no_interval():
    """... and what is written as JSON holds no Infinity."""
    found = paired_test([0.0], [1.0])
    assert found["ci"] is None and difference_cell(found) == "+100.0"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert difference_cell(paired_test([0, 0], [1, 1])) == "+100.0 [+100.0, +100.0]"


# --------------------------------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------------------------------
def test_interval_over_seeds_by_hand():
    """Student's t: 0.6 +- 4.303 * 0.1 / sqrt(3) with three seeds."""
    assert over_seeds([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.35157, 0.84843), abs=1e-4)
    assert over_seeds([0.5]) == (0.5, -math.inf, math.inf)


@pytest.mark.parametrize("n", [2, 5, 10, 11, 30])
def test_interval_over_seeds_covers_the_truth_95_times_in_100(n):
    g, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        _, low, high = over_seeds(g.normal(0.4, 0.1, n))
        hits += low <= 0.4 <= high
    assert 1870 <= hits <= 1930


def test_means_over_runs():
    runs = [{"accuracy": 0.5, "accuracy_ci": [0.4, 0.6]}, {"accuracy": 0.7, "accuracy_ci": [0, 1]}]
    two = over_runs(runs)
    assert list(two) == ["accuracy"] and two["accuracy"]["values"] == [0.5, 0.7]
    assert two["accuracy"]["mean"] == pytest.approx(0.6)
    assert two["accuracy"]["ci"] == pytest.approx([0.6 - 1.2706, 0.6 + 1.2706])
    assert over_runs(runs[:1])["accuracy"]["ci"] == [0.4, 0.6]  # its own, over questions


def test_what_a_run_lacks_is_left_out_of_the_mean():
    rates = [{"correction_rate": x, "correction_rate_ci": None} for x in (None, 0.2, 0.4)]
    assert over_runs(rates)["correction_rate"]["values"] == [0.2, 0.4]
    nothing = over_runs(rates[:1])["correction_rate"]
    assert nothing == {"mean": None, "ci": None, "values": []}


def test_cells():
    value = {"mean": 0.5, "ci": [0.25, 0.75], "values": []}
    assert mean_cell(value) == "50.0 [25.0, 75.0]" and mean_cell(value, bounds=False) == "50.0"
    assert mean_cell(value, 1, 2) == "0.50 [0.25, 0.75]"
    assert mean_cell(value | {"ci": None}) == "50.0" and mean_cell(value | {"mean": None}) == "-"


# --------------------------------------------------------------------------------------------------
# Tokens
# --------------------------------------------------------------------------------------------------
def test_buckets_by_hand():
    assert buckets(range(40)).tolist() == [38.5 - 2 * j for j in range(20)]
    short = buckets([3.0, 1.0])
    assert short[:10].tolist() == [3.0] * 10 and short[10:].tolist() == [1.0] * 10
    assert buckets([1, 2, 3, 4, 5], 2).tolist() == [4.0, 2.0]  # the middle one is in both


def test_shares_by_hand():
    assert top_share([9.0] + [1.0] * 9) == 0.5 and top_share([1.0] * 20) == pytest.approx(0.1)
    assert math.isnan(top_share([0.0, 0.0]))


def test_first_difference():
    assert first_difference([1, 2, 9], [1, 2, 3]) == 2
    assert first_difference([1, 2], [1, 2, 3]) is None
    assert first_difference([1, 2, 3, 4], [1, 2, 3]) == 3
