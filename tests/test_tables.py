"""Intervals, counts of words, and the page of coloured tokens."""

import numpy as np
import pytest

import kit
from kit.tables import KEYWORDS, interval, net_correction, net_percent, rate, revision_words


def test_the_interval_is_wilsons():
    assert interval([1.0] * 8 + [0.0] * 2) == pytest.approx([0.4902, 0.9433], abs=1e-4)  # 8 of 10
    assert interval([0.0] * 10) == pytest.approx([0.0, 0.2775], abs=1e-4)
    assert interval([1.0])[1] == 1.0


def test_averages_of_samples_spread_less_but_copies_are_no_evidence():
    low, high = interval([0.5] * 5 + [0.25] * 5 + [0.75] * 5)
    wide = interval([1.0] * 8 + [0.0] * 7)
    assert 0 < low < 0.5 < high < 1 and high - low < wide[1] - wide[0]
    # questions were drawn, not samples
    copies = np.repeat([[1.0], [0.0], [1.0], [0.0]], 8, axis=1).mean(1)
    assert interval(copies) == interval([1.0, 0.0, 1.0, 0.0])


def test_the_interval_covers_the_truth_95_times_in_100():
    g, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        p = g.beta(1, 3, 60)  # questions of different difficulty, 4 samples each
        low, high = interval(g.binomial(4, p) / 4)
        hits += low <= 0.25 <= high
    assert 930 <= hits <= 975


def test_a_rate_of_nothing_is_none():
    assert rate("x", []) == {"x": None, "x_ci": None}
    assert rate("x", iter([1.0, 0.0])) == {"x": 0.5, "x_ci": interval([1.0, 0.0])}


def test_revision_words_are_the_papers():
    samples = [{"text": "Wait, this is wrong. Let me start over."}, {"text": "7+5=12"}]
    assert revision_words(samples) == 1.5
    assert len(KEYWORDS) == len(set(KEYWORDS)) == 27
    for word in KEYWORDS:  # each once, also where a shorter one stands in it
        assert revision_words([{"text": f"so, {word.capitalize()}: 4"}]) == 1, word
    # whole words alone
    assert revision_words([{"text": "await the factually incorrectness of whoops"}]) == 0
    assert revision_words([{"text": "wait a minute, wait"}]) == 2


def test_the_papers_correction_rate_is_net():
    """Rows of its Table 9."""
    for first, revised, net in ((59.6, 60.7, 2.7), (66.7, 71.7, 15.0), (68.3, 73.6, 16.7)):
        result = {"initial_accuracy": first / 100, "revised_accuracy": revised / 100}
        assert net_correction(result) == pytest.approx(net / 100, abs=6e-4)
        assert net_percent(result) == f"{100 * net_correction(result):.1f}"
    assert net_correction({"initial_accuracy": 0.5, "revised_accuracy": 0.25}) == -0.5
    for nothing in ({}, {"initial_accuracy": 1.0, "revised_accuracy": 1.0}):
        assert net_correction(nothing) is None and net_percent(nothing) == "-"


def test_the_page_of_tokens_escapes_what_a_model_wrote():
    sample = {
        "tokens": ["<script>", "x\n"],
        "token_reward": [1.0, -0.5],
        "kl": [0.1, 0.2],
        "reward": 0.0,
        "question": {"prompt": "<b>?", "answer": "4"},
    }
    page = kit.token_page.token_page("t", {"wrong": [sample], "right": []})
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;?" in page


def test_the_table_shows_each_result_with_its_interval():
    result = {
        **rate("accuracy", [1.0, 0.0]),
        **rate("accuracy_greedy", [1.0, 1.0]),
        **rate("revised_accuracy", [1.0, 0.0]),
        **rate("correction_rate", []),
        "mean_tokens": 7.25,
        "truncated": 0.125,
    }
    lines = kit.tables.results_table({"base": result}).splitlines()
    low, high = (100 * bound for bound in interval([1.0, 0.0]))
    assert lines[1].startswith("base") and f"50.0 [{low:.1f}, {high:.1f}]" in lines[1]
    assert "7.2" in lines[1] and "12.5" in lines[1] and lines[1].endswith("-")
    assert "mended" in lines[2] and "paper's correction rate" in lines[3]
