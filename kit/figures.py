"""Figures, made from plain results; black, grey and line styles, told apart without colour."""

import json
from pathlib import Path

import numpy as np

LINES = ("k-o", "k--s", "k:^", "k-.D", "k-v", "k--x", "k:P", "k-.*", "k-<")  # one per method
ON_POLICY = ("distil", "grpo", "sdft")  # the phases of metrics.jsonl that sample as they train


def pyplot():
    """matplotlib without a display; None, said in a line, where it is missing."""
    try:
        import matplotlib
    except ImportError:
        print("no figure: it needs matplotlib (pip install matplotlib)")
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(plt, fig, path: Path) -> None:
    fig.savefig(path, dpi=120)
    plt.close(fig)
    print(f"figure: {path}")


def moving_mean(values) -> tuple[range, np.ndarray, int]:
    """(places, means, width): means of `width` steps in a row, a twentieth of all, at the place of
    the last of them."""
    width = max(1, len(values) // 20)
    places = range(width - 1, len(values))
    if not len(values):
        return places, np.array([]), width
    return places, np.convolve(values, np.ones(width) / width, "valid"), width


def error_bars(values, low, high) -> np.ndarray:
    """(2, n): how far the intervals reach below and above the values."""
    return np.maximum(0, [values - low, high - values])


# --------------------------------------------------------------------------------------------------
# RUN/figure.png: what a run came to
# --------------------------------------------------------------------------------------------------
def figure(folder: Path, results: dict[str, dict]) -> None:
    """RUN/figure.png: accuracy and length after each phase with 95 % intervals, and phase 2 as it
    went."""
    if not (plt := pyplot()):
        return
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    draw_accuracies(axes[0], results)
    lengths = [result["mean_tokens"] for result in results.values()]
    axes[1].bar(list(results), lengths, color="lightgrey", edgecolor="black")
    axes[1].set(title="mean response", ylabel="tokens")
    metrics = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    draw_training(axes[2], [step for step in metrics if step["phase"] in ON_POLICY])
    save(plt, fig, folder / "figure.png")


def draw_accuracies(ax, results: dict[str, dict]) -> None:
    """Sampled, greedy and revised accuracy of every checkpoint."""
    for key, style, label in (
        ("accuracy", "o-", "sampled"),
        ("accuracy_greedy", "s--", "greedy"),
        ("revised_accuracy", "^:", "revised"),
    ):
        values = np.array([100 * result[key] for result in results.values()])
        low = np.array([100 * result[key + "_ci"][0] for result in results.values()])
        high = np.array([100 * result[key + "_ci"][1] for result in results.values()])
        bars = error_bars(values, low, high)
        ax.errorbar(list(results), values, bars, fmt=style, capsize=3, color="black", label=label)
    ax.set(title="accuracy, test questions (95 % intervals)", ylabel="%", ylim=(0, 100))
    ax.legend()


def draw_training(ax, steps: list[dict]) -> None:
    """KL and reward of the on-policy steps, on two axes."""
    places, kl, width = moving_mean([step.get("kl", np.nan) for step in steps])
    rewards = moving_mean([100 * step["reward"] for step in steps])[1]
    smoothed = f" (mean of {width} steps)" if width > 1 else ""
    ax.set(title="on-policy training" + smoothed, xlabel="step", ylabel="nats")
    ax.plot(places, kl, color="black", label="KL per response (nats)")
    right_axis = ax.twinx()
    right_axis.plot(places, rewards, color="grey", linestyle="--", label="rollouts right (%)")
    right_axis.set(ylabel="%", ylim=(0, 100))
    ax.legend(handles=ax.lines + right_axis.lines, loc="center right")


# --------------------------------------------------------------------------------------------------
# curve.png: methods against each other
# --------------------------------------------------------------------------------------------------
def curve(path: Path, out: dict) -> None:
    """Accuracy against generated samples, one line per method, from what `eval.py compare`
    measured."""
    if not (plt := pyplot()):
        return
    rows = out["rows"]
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, constrained_layout=True)
    for ax, key, title in (
        (axes[0], "accuracy", "sampled answers"),
        (axes[1], "accuracy_greedy", "greedy answers"),
    ):
        draw_methods(ax, rows, key)
        draw_levels(ax, rows, key)
        budgets = sorted({row["budget"] for row in rows if row["budget"]})
        ax.set(title=title, xlabel="generated samples", xscale="log", ylim=(0, 104))
        ax.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        ax.minorticks_off()
    axes[0].set(ylabel="accuracy, % (mean over seeds, 95 % intervals)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    save(plt, fig, path)


def has_budget(row: dict) -> bool:
    """Whether a row's method generated samples, so that it has a place on the axis."""
    return bool(row["budget"] and row["samples"]["mean"])


def draw_methods(ax, rows: list[dict], key: str) -> None:
    """A line for each method that generated samples."""
    methods = list(dict.fromkeys(row["method"] for row in rows if has_budget(row)))
    for i, method in enumerate(methods):
        of_method = [row for row in rows if row["method"] == method]
        of_method.sort(key=lambda row: row["budget"])
        # beside each other, so that the bars can be told apart
        shift = 1.015 ** (i - len(methods) / 2)
        places = [row["budget"] * shift for row in of_method]
        points = [(row[key]["mean"], *(row[key]["ci"] or [np.nan] * 2)) for row in of_method]
        mean, low, high = 100 * np.array(points).T
        bars = error_bars(mean, low, high) if np.isfinite(low).all() else None
        style = LINES[i % len(LINES)]
        ax.errorbar(places, mean, bars, fmt=style, capsize=2, linewidth=1, label=method)


def draw_levels(ax, rows: list[dict], key: str) -> None:
    """A level, with its name, for each method that generated nothing."""
    for row in rows:
        if not has_budget(row):
            level = 100 * row[key]["mean"]
            ax.axhline(level, color="grey", linewidth=0.8)
            where = ("axes fraction", "data")
            ax.annotate(row["method"], (0.01, level), xycoords=where, fontsize=8, va="bottom")


# --------------------------------------------------------------------------------------------------
# evolution.png: both phases as they went
# --------------------------------------------------------------------------------------------------
def evolution_figure(path: Path, results: dict[str, dict], metrics: list[dict]) -> None:
    """Against the samples so far: rollouts right, length, keywords and KL of phase 2; length and
    keywords also of the base and behind phase 1 (the paper's figure 6). Both accuracies behind each
    phase and round."""
    if not (plt := pyplot()):
        return
    steps = [step for step in metrics if step["phase"] in ON_POLICY]
    fig, axes = plt.subplots(1, 5, figsize=(17, 3.2), constrained_layout=True)
    draw_course(axes[0], steps, "reward", "rollouts right, %", scale=100)
    draw_course(axes[1], steps, "length", "tokens of an answer")
    draw_course(axes[2], steps, "revision_words", "keywords of an answer")
    draw_course(axes[3], steps, "kl", "KL of a rollout, nats")
    draw_phase_1(axes[1], results, metrics, "mean_tokens")
    draw_phase_1(axes[2], results, metrics, "revision_words")
    for ax in axes[:3]:
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    draw_rounds(axes[4], results)
    save(plt, fig, path)


def draw_phase_1(ax, results: dict, metrics: list[dict], key: str) -> None:
    """Answers to test questions of the base, where no sample was taken yet, and behind phase 1,
    joined by a line: it samples nothing while it trains."""
    of_srt = [step["samples"] for step in metrics if step["phase"].split(" ")[0] == "srt"]
    if "srt" in results and of_srt:
        values = [results[name][key] for name in ("base", "srt")]
        ax.plot([0, of_srt[-1]], values, "o--", color="black", label="test questions, phase 1")


def draw_course(ax, steps: list[dict], key: str, title: str, scale: int = 1) -> None:
    """One figure of metrics.jsonl and its moving mean, with a line where the teacher changed."""
    points = [(step["samples"], scale * step[key]) for step in steps if key in step]
    if points:
        x, y = np.array(points).T
        places, means, width = moving_mean(y)
        ax.plot(x, y, color="lightgrey", linewidth=1)
        ax.plot(x[places], means, color="black", label=f"mean of {width} steps")
    for step in steps:
        if step.get("synchronised"):
            ax.axvline(step["samples"], color="black", linestyle=":", linewidth=1)
    ax.set(title=title, xlabel="samples so far", ylim=(0, None))


def draw_rounds(ax, results: dict[str, dict]) -> None:
    """Initial and revised accuracy of every checkpoint."""
    for key, style, label in (
        ("initial_accuracy", "o-", "initial"),
        ("revised_accuracy", "^--", "revised"),
    ):
        values = [100 * result[key] for result in results.values()]
        ax.plot(list(results), values, style, color="black", label=label)
    ax.set(title="test questions, %", ylim=(0, 100))
    ax.tick_params(axis="x", rotation=30)
    ax.legend(fontsize=8)


# --------------------------------------------------------------------------------------------------
# localise.png: where the reviser disagrees
# --------------------------------------------------------------------------------------------------
def localisation_figure(path: Path, students: dict[str, dict]) -> None:
    """The paper's figure 4: an answer's tokens, sorted and in 20 equal parts, averaged over wrong
    and over right answers. A column a student, a row for each way of sorting."""
    if not (plt := pyplot()):
        return
    ways, n = list(next(iter(students.values()))["buckets"]), len(students)
    size = (5.4 * n, 3.2 * len(ways))
    fig, axes = plt.subplots(len(ways), n, figsize=size, constrained_layout=True, squeeze=False)
    for row, way in zip(axes, ways):
        for ax, (name, result) in zip(row, students.items()):
            draw_buckets(ax, result, (way, "wrong"), -0.2, color="grey", hatch="")
            draw_buckets(ax, result, (way, "right"), 0.2, color="white", hatch="///")
            ax.axhline(0, color="black", linewidth=0.6)
            ax.set(
                xlabel=f"% of an answer's tokens, highest {way} first",
                ylabel=f"{way}, nats",
                title=f"answers of {name}",
            )
            ax.set_xticks(range(1, 20, 2), [str(5 * (j + 1)) for j in range(1, 20, 2)])
            ax.legend()
    save(plt, fig, path)


def draw_buckets(ax, result: dict, which: tuple[str, str], shift: float, **look) -> None:
    """The 20 bars of (way of sorting, kind of answers), where there are such answers."""
    way, kind = which
    if bucket := result["buckets"][way].get(kind):
        ax.bar(
            np.arange(20) + shift,
            bucket["mean"],
            0.4,
            yerr=bucket["half"],
            label=f"{result['answers'][kind]} {kind} answers",
            edgecolor="black",
            linewidth=0.6,
            error_kw={"linewidth": 0.7},
            **look,
        )
