"""A run so far, as a table from its metrics.jsonl; nothing is loaded, so it is there at once.

    python eval.py watch out/mine
    watch -n 30 python eval.py watch out/mine          # again and again
    python eval.py watch out/mine --lines 40

A line is the mean over some steps in a row. docs/metrics.md says what each number is, what is
normal, and what to do when it isn't.
"""

from dataclasses import dataclass
from pathlib import Path

import kit
from kit.options import option, parse_options
from kit.tables import percent, table
from studies.runs import only_run_of, read_metrics, read_results

# heading -> (key of metrics.jsonl, factor, format)
COLUMNS = {
    "loss": ("loss", 1, ".4g"),
    "right %": ("reward", 100, ".1f"),
    "tokens": ("length", 1, ".1f"),
    "cut off %": ("truncated", 100, ".1f"),
    "KL": ("kl", 1, ".3g"),
    "grad norm": ("grad_norm", 1, ".3g"),
    "lr": ("lr", 1, ".2g"),
    "tokens/s": ("tokens_per_second", 1, ".0f"),
    "GiB": ("memory", 1, ".2f"),
}


@dataclass
class WatchConfig:
    run: list = option((), "run folder")
    lines: int = option(12, "most lines for each phase", least=1)


def by_phase(metrics: list[dict]) -> dict[str, list[dict]]:
    """{phase: its lines}, in the order in which the phases began."""
    phases = {}
    for line in metrics:
        phases.setdefault(line["phase"], []).append(line)
    return phases


def in_blocks(steps: list[dict], most: int) -> list[list[dict]]:
    """Steps in a row, as evenly as can be, in `most` blocks at most."""
    n = min(most, len(steps))
    return [steps[len(steps) * i // n : len(steps) * (i + 1) // n] for i in range(n)]


def mean_cell_of(block: list[dict], key: str, factor: float, form: str) -> str:
    """The mean of those steps that have the key; "-" where none has."""
    values = [line[key] for line in block if line.get(key) is not None]
    return format(factor * sum(values) / len(values), form) if values else "-"


def course_table(metrics: list[dict], most: int) -> str:
    """The steps of each phase in blocks."""
    rows = [["phase", "steps", *COLUMNS, "so far"]]
    for phase, steps in by_phase(metrics).items():
        for block in in_blocks(steps, most):
            first, last = block[0]["step"], block[-1]["step"]
            cells = [mean_cell_of(block, *column) for column in COLUMNS.values()]
            steps_cell = str(first) if first == last else f"{first}-{last}"
            rows.append([phase, steps_cell, *cells, kit.clock.spoken(block[-1]["seconds"])])
    return table(rows)


def state_of(folder: Path, last: dict) -> str:
    """Where the run stands, in a line."""
    marker = folder / kit.ownership.MARKER
    done = marker.is_file() and kit.files.read_json(marker).get("finished")
    left = "finished" if done else f"time left about {kit.clock.spoken(last.get('left', 0.0))}"
    late = f", {last['timeouts']} too slow to grade" if last["timeouts"] else ""
    return (
        f"{folder}: {left}; {last['samples']:,} responses of {last['tokens']:,} tokens{late}; "
        f"{last['trained']:,} target tokens trained on"
    )


def watched(folder: Path, most: int) -> str:
    """What `eval.py watch` prints. Raises UserError where there is no metrics.jsonl."""
    metrics, results = read_metrics(folder), read_results(folder)
    if not metrics:
        return f"{folder}: no step yet (the base is evaluated first, and first answers are sampled)"
    parts = [state_of(folder, metrics[-1]), course_table(metrics, most)]
    if results:
        rows = [["measured", "sampled acc. %", "greedy acc. %", "tokens", "cut off %"]]
        for name, r in results.items():
            rates = [percent(r, key) for key in ("accuracy", "accuracy_greedy")]
            rows.append([name, *rates, f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}"])
        parts.append(table(rows))
    return "\n\n".join(parts)


def main(words: list[str]) -> int:
    """`eval.py watch`. Raises UserError."""
    given = parse_options(words, WatchConfig, __doc__, prog="eval.py watch")
    cfg = WatchConfig(**given)
    kit.options.check_ranges(cfg)
    print(watched(only_run_of(cfg.run, "watch"), cfg.lines))
    return 0
