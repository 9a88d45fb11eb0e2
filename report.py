"""What people look at: tables on the terminal, figures, a page. Everything here is made from plain results; nothing knows the method."""
import json
from pathlib import Path

import numpy as np


def table(rows: list[list[str]]) -> str:
    """Left-aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def percent(result: dict, key: str) -> str:
    """A rate and its 95 % interval, in per cent."""
    return "-" if result[key] is None else "{:5.1f} [{:.1f}, {:.1f}]".format(*np.multiply(100, [result[key], *result[key + "_ci"]]))


def results_table(results: dict[str, dict]) -> str:
    """What a run prints at its end, and the README shows."""
    return table([["", "sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %", "correction rate %"]] + [
        [name, percent(r, "accuracy"), percent(r, "accuracy_greedy"), f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}",
         percent(r, "revised_accuracy"), percent(r, "correction_rate")] for name, r in results.items()])


def figure(folder: Path, results: dict[str, dict]) -> None:
    """RUN/figure.png: accuracy and length after each phase with 95 % intervals, and phase 2 as it went."""
    try:
        import matplotlib
    except ImportError:
        print("no figure: it needs matplotlib (pip install matplotlib)")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    names = list(results)
    for key, style, label in (("accuracy", "o-", "sampled"), ("accuracy_greedy", "s--", "greedy"), ("revised_accuracy", "^:", "revised")):
        values = np.array([100 * results[n][key] for n in names])
        low, high = np.array([[100 * e for e in results[n][key + "_ci"]] for n in names]).T
        axes[0].errorbar(names, values, np.maximum(0, [values - low, high - values]), fmt=style, capsize=3, color="black", label=label)
    axes[0].set(title="accuracy, test questions (95 % intervals)", ylabel="%", ylim=(0, 100))
    axes[0].legend()
    axes[1].bar(names, [results[n]["mean_tokens"] for n in names], color="lightgrey", edgecolor="black")
    axes[1].set(title="mean response", ylabel="tokens")
    steps = [s for s in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if s["phase"] in ("distil", "grpo", "sdft")]
    axes[2].set(title="on-policy training", xlabel="step", ylabel="nats")
    axes[2].plot([s.get("kl", np.nan) for s in steps], color="black", label="KL per response (nats)")
    reward = axes[2].twinx()
    reward.plot([100 * s["reward"] for s in steps], color="grey", linestyle="--", label="rollouts right (%)")
    reward.set(ylabel="%", ylim=(0, 100))
    axes[2].legend(handles=axes[2].lines + reward.lines, loc="center right")
    fig.savefig(folder / "figure.png", dpi=120)
    plt.close(fig)
