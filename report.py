"""What people look at: tables on the terminal, figures, a page. Everything here is made from plain results; nothing knows the method."""
import html
import json
import math
import re
from pathlib import Path

import numpy as np


def table(rows: list[list[str]]) -> str:
    """Left-aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def interval(scores) -> list[float]:
    """95 % Wilson interval of the mean of per-question scores (n,) in [0, 1].

    Questions are what was drawn at random, so an average over k samples of a question counts as one observation: its n is the
    number of coin tosses that would spread as much as the scores do.
    """
    scores = np.asarray(scores, float)
    n, p, z = len(scores), scores.mean(), 1.959964
    variance = scores.var(ddof=1) / n if n > 1 else 0.0
    if variance > 0:
        n = max(n, p * (1 - p) / variance)
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [max(0.0, float((centre - half) / (1 + z * z / n))), min(1.0, float((centre + half) / (1 + z * z / n)))]


def percent(result: dict, key: str) -> str:
    """A rate and its 95 % interval, in per cent."""
    return "-" if result[key] is None else "{:5.1f} [{:.1f}, {:.1f}]".format(*np.multiply(100, [result[key], *result[key + "_ci"]]))


def results_table(results: dict[str, dict]) -> str:
    """What a run prints at its end, and the README shows."""
    return table([["", "sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %", "correction rate %"]] + [
        [name, percent(r, "accuracy"), percent(r, "accuracy_greedy"), f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}",
         percent(r, "revised_accuracy"), percent(r, "correction_rate")] for name, r in results.items()])


REVISION_WORDS = re.compile(r"\b(wait|start(ing)? over|redo|wrong|mistake|correct(ion)?|re-?check|try again|rephrase|actually)\b", re.IGNORECASE)


def revision_words(samples: list[dict]) -> float:
    """Words of revising aloud per response, which SRT brings in and phase 2 takes out again (the paper's self-evolution)."""
    return float(np.mean([len(REVISION_WORDS.findall(s["text"])) for s in samples]))


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


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 50rem; color: #111; background: #fff; }}
.answer {{ font: 15px/1.9 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; margin: .3rem 0; }}
.answer span {{ border-radius: 2px; padding: 1px 0; }}
.peak {{ outline: 2px solid #111; }}
.first {{ text-decoration: underline 2px; text-underline-offset: 4px; }}
section {{ border-top: 1px solid #bbb; padding: .6rem 0; }}
small {{ color: #444; }}
</style></head><body>
<h1>{title}</h1>
<p>Each token of an answer is coloured by its reward, log student(token) - log reviser(token), where the reviser has read the whole
answer and its verdict: <span style="background:rgba(214,69,0,.8)">orange</span> where the reviser finds it less likely than the generator did
(phase 2 pushes it down), <span style="background:rgba(0,110,200,.6)">blue</span> where more. {scale} A <span class="peak">frame</span> marks the
highest reward of an answer{first}.</p>
{body}
</body></html>
"""


def token_page(title: str, kinds: dict[str, list[dict]]) -> str:
    """A self-contained HTML page of answers (tokens, token_reward, question, reward; first_wrong where known), without scripts."""
    rewards = [abs(r) for group in kinds.values() for s in group for r in s["token_reward"]]
    full, marks, body = float(np.quantile(rewards, 0.99)) or 1.0 if rewards else 1.0, False, []
    for kind, group in kinds.items():
        if not group:
            continue
        body.append(f"<h2>{html.escape(kind)}</h2>")
        for s in group:
            spans, peak = [], int(np.argmax(s["token_reward"]))
            for t, (token, reward) in enumerate(zip(s["tokens"], s["token_reward"])):
                alpha, rgb = min(1.0, abs(reward) / full) * 0.85, "214,69,0" if reward > 0 else "0,110,200"
                names = ["peak"] * (t == peak) + ["first"] * (t == s.get("first_wrong"))
                marks |= "first" in names
                of_class = f' class="{" ".join(names)}"' if names else ""
                spans.append(f'<span{of_class} style="background:rgba({rgb},{alpha:.2f})" title="{reward:+.3f}">{html.escape(token)}</span>')
            prompt, gold = s["question"]["prompt"], s["question"]["answer"]
            prompt = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            right = f"; right: {html.escape(gold)}" if isinstance(gold, str) else ""
            body.append(f'<section><div>{html.escape(prompt)}</div><div class="answer">{"".join(spans)}</div>'
                        f'<small>{"right" if s["reward"] else "wrong"}{right}; highest token reward {s["token_reward"][peak]:+.2f}, KL of the answer {sum(s["kl"]):.2f} nats</small></section>')
    return PAGE.format(title=html.escape(title), body="\n".join(body), scale=f"Full colour is {full:.2f} nats or more.",
                       first=', an <span class="first">underline</span> its first wrong token' if marks else "")
