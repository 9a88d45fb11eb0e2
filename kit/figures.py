"""Figures, made from plain results; black, grey and line styles, told apart without colour."""

import json
from pathlib import Path

import numpy as np


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
    """(places, means, width): means of `width` steps in a row, a twentieth of all, at the place of the last of them."""
    width = max(1, len(values) // 20)
    return range(width - 1, len(values)), np.convolve(values, np.ones(width) / width, "valid") if len(values) else np.array([]), width


def figure(folder: Path, results: dict[str, dict]) -> None:
    """RUN/figure.png: accuracy and length after each phase with 95 % intervals, and phase 2 as it went."""
    if not (plt := pyplot()):
        return
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
    at, kl, width = moving_mean([s.get("kl", np.nan) for s in steps])
    axes[2].set(title="on-policy training" + f" (mean of {width} steps)" * (width > 1), xlabel="step", ylabel="nats")
    axes[2].plot(at, kl, color="black", label="KL per response (nats)")
    reward = axes[2].twinx()
    reward.plot(at, moving_mean([100 * s["reward"] for s in steps])[1], color="grey", linestyle="--", label="rollouts right (%)")
    reward.set(ylabel="%", ylim=(0, 100))
    axes[2].legend(handles=axes[2].lines + reward.lines, loc="center right")
    save(plt, fig, folder / "figure.png")


LINES = ("k-o", "k--s", "k:^", "k-.D", "k-v", "k--x", "k:P", "k-.*", "k-<")  # told apart without colour


def curve(path: Path, out: dict) -> None:
    """Accuracy against generated samples, one line per method, from what `eval.py compare` measured."""
    if not (plt := pyplot()):
        return
    methods = list(dict.fromkeys(r["method"] for r in out["rows"] if r["budget"] and r["samples"]["mean"]))
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, constrained_layout=True)
    for ax, key, title in zip(axes, ("accuracy", "accuracy_greedy"), ("sampled answers", "greedy answers")):
        for i, name in enumerate(methods):
            rows = sorted((r for r in out["rows"] if r["method"] == name), key=lambda r: r["budget"])
            places = [r["budget"] * 1.015 ** (i - len(methods) / 2) for r in rows]  # beside each other, so that the bars can be told apart
            mean, low, high = 100 * np.array([(r[key]["mean"], *(r[key]["ci"] or [np.nan] * 2)) for r in rows]).T
            bars = np.maximum(0, [mean - low, high - mean]) if np.isfinite(low).all() else None
            ax.errorbar(places, mean, bars, fmt=LINES[i % len(LINES)], capsize=2, linewidth=1, label=name)
        for r in out["rows"]:
            if not r["budget"] or not r["samples"]["mean"]:
                ax.axhline(100 * r[key]["mean"], color="grey", linewidth=0.8)
                ax.annotate(r["method"], (0.01, 100 * r[key]["mean"]), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
        budgets = sorted({r["budget"] for r in out["rows"] if r["budget"]})
        ax.set(title=title, xlabel="generated samples", xscale="log", ylim=(0, 104))
        ax.set_xticks(budgets, [f"{b:,}" for b in budgets])
        ax.minorticks_off()
    axes[0].set(ylabel="accuracy, % (mean over seeds, 95 % intervals)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    save(plt, fig, path)


def evolution_figure(path: Path, results: dict[str, dict], metrics: list[dict]) -> None:
    """Phase 2 against the samples so far: rollouts right, length, revision words, KL; and both accuracies before and after each round."""
    if not (plt := pyplot()):
        return
    steps = [m for m in metrics if m["phase"] in ("distil", "grpo", "sdft")]
    fig, axes = plt.subplots(1, 5, figsize=(17, 3.2), constrained_layout=True)
    shown = (("reward", 100, "rollouts right, %"), ("length", 1, "tokens of a rollout"), ("revision_words", 1, "revision words of a rollout"),
             ("kl", 1, "KL of a rollout, nats"))
    for ax, (key, scale, title) in zip(axes, shown):
        points = [(m["samples"], scale * m[key]) for m in steps if key in m]
        if points:
            x, y = np.array(points).T
            at, means, width = moving_mean(y)
            ax.plot(x, y, color="lightgrey", linewidth=1)
            ax.plot(x[at], means, color="black", label=f"mean of {width} steps")
        for m in steps:
            if m.get("synchronised"):
                ax.axvline(m["samples"], color="black", linestyle=":", linewidth=1)
        ax.set(title=title, xlabel="samples so far", ylim=(0, None))
    axes[0].legend(fontsize=8)
    names = list(results)
    for key, style, label in (("initial_accuracy", "o-", "initial"), ("revised_accuracy", "^--", "revised")):
        axes[4].plot(names, [100 * results[n][key] for n in names], style, color="black", label=label)
    axes[4].set(title="test questions, %", ylim=(0, 100))
    axes[4].tick_params(axis="x", rotation=30)
    axes[4].legend(fontsize=8)
    save(plt, fig, path)


def localisation_figure(path: Path, students: dict[str, dict]) -> None:
    """The paper's figure 4: an answer's token rewards, sorted and in 20 equal parts, averaged over wrong and over right answers."""
    if not (plt := pyplot()):
        return
    fig, axes = plt.subplots(1, len(students), figsize=(5.4 * len(students), 3.6), constrained_layout=True, squeeze=False)
    for ax, (name, result) in zip(axes[0], students.items()):
        for kind, hatch, colour, shift in (("wrong", "", "grey", -0.2), ("right", "///", "white", 0.2)):
            if b := result["buckets"].get(kind):
                ax.bar(np.arange(20) + shift, b["mean"], 0.4, yerr=b["half"], color=colour, edgecolor="black", hatch=hatch, linewidth=0.6,
                       error_kw={"linewidth": 0.7}, label=f"{result['answers'][kind]} {kind} answers")
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set(xlabel="% of an answer's tokens, highest reward first", ylabel="log student - log reviser, nats", title=f"answers of {name}")
        ax.set_xticks(range(1, 20, 2), [str(5 * (j + 1)) for j in range(1, 20, 2)])
        ax.legend()
    save(plt, fig, path)


