"""The paper's tables 1, 3 and 7 to 13, and our rows beside them: reproduced, or not.

    python eval.py bench Qwen/Qwen3-4B-Instruct-2507 out/mine/srt out/mine/sdzero --revise
    python eval.py paper out/mine out/grpo

takes what `eval.py bench` measured (--bench FOLDER, by default out/bench) of the checkpoints of the
runs given and of the model that they started from, and what the runs say of samples and tokens.
Below each of the paper's rows stands ours, the mean where several runs are the same method, and
nothing where nothing was measured. Runs of a model that the paper lacks stand beside Qwen's rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import kit
from kit.benchmarks import BENCHMARKS
from kit.errors import UserError
from kit.options import option, parse_options
from kit.presets import ALIASES
from kit.tables import mean, table
from studies import paper_tables as paper
from studies.runs import (
    family_of,
    is_run,
    lines_of_stage,
    read_metrics,
    read_options,
    read_results,
    row_of,
)

TITLES = {benchmark.title: name for name, benchmark in BENCHMARKS.items()}


@dataclass
class PaperConfig:
    runs: list = option((), "run folders of sdzero.py or baselines.py")
    bench: str = option("out/bench", "what eval.py bench wrote")
    json: str = option("", "also write our rows to this file")


class Entry(NamedTuple):
    """A checkpoint of ours, and the paper's row that it belongs to."""

    family: str
    row: str
    options: dict  # of its run
    folder: Path
    stage: str
    bench: dict  # {benchmark: what eval.py bench measured}


# --------------------------------------------------------------------------------------------------
# Ours
# --------------------------------------------------------------------------------------------------
def measured_in(folder: Path) -> dict[str, dict]:
    """{checkpoint, resolved: {benchmark: result}} of a folder of eval.py bench."""
    found = {}
    for file in sorted(folder.glob("*/*.json")):
        result = kit.files.read_json(file)
        if isinstance(result, dict) and "benchmark" in result:
            name = identity(result["checkpoint"])
            found.setdefault(name, {})[result["benchmark"]] = result
    return found


def identity(checkpoint: str) -> str:
    """A checkpoint under one name, however its folder, or README's short name of it, is written."""
    checkpoint = ALIASES.get(checkpoint, checkpoint)
    return str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint


def entries_of(runs: list[str], bench: Path) -> list[Entry]:
    """Every stage of the runs, and their bases once each. Raises UserError."""
    measured, entries, bases = measured_in(bench), [], set()
    for folder in map(Path, runs):
        saved = read_options(folder)
        if not is_run(folder):
            raise UserError(f"{folder} is not the folder of a run that has measured anything")
        family = family_of(str(saved["model"])) or "qwen"
        for stage in read_results(folder):
            checkpoint = saved["model"] if stage == "base" else str(folder / stage)
            name = identity(str(checkpoint))
            if stage == "base" and name in bases:
                continue
            bases |= {name} if stage == "base" else set()
            if row := row_of(saved, stage):
                of_it = measured.get(name, {})
                entries.append(Entry(family, row, saved, folder, stage, of_it))
    return entries


def of_row(entries: list[Entry], family: str, row: str) -> list[Entry]:
    return [e for e in entries if e.family == family and e.row == row]


def averages(entries: list[Entry], titles, value_of) -> list[float | None]:
    """A mean over entries for each benchmark, in per cent, then the mean of these where all of them
    were measured."""
    cells = []
    for title in titles:
        results = [e.bench[TITLES[title]] for e in entries if TITLES[title] in e.bench]
        values = [value_of(result) for result in results]
        values = [100 * value for value in values if value is not None]
        cells.append(mean(values) if values else None)
    return [*cells, mean(cells) if None not in cells else None]


def accuracy(result: dict) -> float:
    return result["accuracy"]


def pass_at_8(result: dict) -> float | None:
    return result["pass_at_k"].get("8", {}).get("value")


# --------------------------------------------------------------------------------------------------
# The tables: {title: [heading, row, row, ...]}
# --------------------------------------------------------------------------------------------------
def cell(value, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def pair(name: str, theirs, ours, n: int) -> list[list[str]]:
    """The paper's row, and ours below it."""
    label = f"  ours{f', {n} runs' if n > 1 else ''}"
    return [[name, *map(cell, theirs)], [label, *map(cell, ours)]]


def benchmark_table(entries, rows: dict, family: str, titles, value_of=accuracy) -> list:
    """Tables 1, 7, 8 and 10: a row a method, a column a benchmark."""
    lines = [[paper.FAMILIES[family], *titles, "average"]]
    for row, theirs in rows.items():
        found = of_row(entries, family, row)
        lines += pair(row, theirs, averages(found, titles, value_of), len(found))
    return lines


def samples_table(entries: list[Entry]) -> list:
    """Table 3, and tokens (App. C.2) of our runs."""
    lines = [["", "samples", "epochs", "sampled tokens", "trained tokens"]]
    for row, (samples, epochs) in paper.TABLE_3.items():
        found = of_row(entries, "qwen", "SD-Zero" if row == "phase 2" else row)
        spent = [spent_by(e, apart=row == "phase 2") for e in found]
        ours = [mean(values) for values in zip(*spent)] if spent else [None] * 4
        lines.append([row, cell(samples, 0), cell(epochs, 0), "", ""])
        lines.append(
            ["  ours", cell(ours[0], 0), cell(ours[1], 1), *(cell(x, 0) for x in ours[2:])]
        )
    return lines


def spent_by(entry: Entry, apart: bool) -> tuple[float, ...]:
    """(samples, epochs, sampled tokens, trained tokens) up to the end of a stage; of its own phase
    alone where `apart`."""
    metrics = read_metrics(entry.folder)
    steps = lines_of_stage(metrics, entry.stage)
    last, before = steps[-1], metrics[max(0, metrics.index(steps[0]) - 1)]
    keys = ("samples", "tokens", "trained")
    totals = [last.get(key, 0) - (before.get(key, 0) if apart else 0) for key in keys]
    return totals[0], epochs_of(entry, totals[0]), *totals[1:]


def epochs_of(entry: Entry, samples: int) -> float:
    """Passes over the questions, or over the kept records or answers that are trained on."""
    options, stage = entry.options, entry.stage
    if stage in ("grpo", "sdft"):
        at_once = options["group"] if stage == "grpo" else 1
        return samples / max(1, at_once * (options["srt_questions"] + options["distil_questions"]))
    names = {"srt": "srt_epochs", "sdzero": "distil_epochs"}
    return options.get(names.get(stage, "epochs"), 1)


def revision_rows(entries: list[Entry], rows: tuple) -> list:
    """Tables 9, 11 and 12: generate, then revise on AIME24."""
    columns = ["avg gen.", "first tokens", "revised tokens", "first acc.", "revised acc."]
    lines = [["AIME24", *columns, "net correction rate"]]
    for row in rows:
        found = of_row(entries, "qwen", row)
        revised = [e.bench["aime24"]["revise"] for e in found if "aime24" in e.bench]
        revised = [r for r in revised if r]
        keys = ("initial_tokens", "revised_tokens", "initial_accuracy", "revised_accuracy")
        keys += ("net_correction_rate",)
        average = averages(found, paper.BENCHMARKS, accuracy)[-1]
        ours = [average, *(mean_of(revised, key, 1 if "tokens" in key else 100) for key in keys)]
        lines += pair(row, paper.REVISED[row], ours, len(found))
    return lines


def mean_of(results: list[dict], key: str, scale: float) -> float | None:
    values = [scale * r[key] for r in results if r.get(key) is not None]
    return mean(values) if values else None


def grpo_name(entry: Entry) -> str:
    """What Table 10 calls a run of GRPO: answers a question, and epochs over the questions."""
    epochs = epochs_of(entry, read_metrics(entry.folder)[-1]["samples"])
    return f"GRPO, {entry.options['group']} samples, {round(2 * epochs) / 2:g} epoch"


def with_variants(entries: list[Entry]) -> list[Entry]:
    """The entries, and GRPO's again by their names in Table 10."""
    return entries + [e._replace(row=grpo_name(e)) for e in entries if e.row == "GRPO"]


def split_table(entries: list[Entry]) -> list:
    """Table 13: how the questions are divided among the phases."""
    lines = [["N1 + N2", "SRT", "SD-Zero"]]
    for (n1, n2), theirs in paper.TABLE_13.items():
        ours = []
        for row in ("SRT", "SD-Zero"):
            found = of_row(entries, "qwen", row)
            found = [e for e in found if abs(share_of(e.options) - n1 / (n1 + n2)) < 0.02]
            ours.append(averages(found, paper.BENCHMARKS, accuracy)[-1])
        lines += pair(f"{n1:,} + {n2:,}", theirs, ours, 1)
    return lines


def share_of(options: dict) -> float:
    """Phase 1's part: records kept, or where all are, questions; of these and phase 2's."""
    n1 = options.get("srt_records") or options["srt_questions"]
    return n1 / max(1, n1 + options["distil_questions"])


def tables_of(entries: list[Entry]) -> dict[str, list]:
    eight, six = paper.BENCHMARKS, paper.MATH
    tables = {}
    for family, rows in paper.TABLE_1.items():
        title = f"Table 1, avg@8, {family}"
        tables[title] = benchmark_table(entries, rows, family, eight)
    tables["Table 3, samples of training"] = samples_table(entries)
    for family, rows in paper.TABLE_7.items():
        title = f"Table 7, pass@8, {family}"
        tables[title] = benchmark_table(entries, rows, family, six, pass_at_8)
    variants = with_variants(entries)
    for number, title, rows in (
        (8, "what SDFT's teacher is shown", paper.TABLE_8),
        (10, "samples of GRPO", paper.TABLE_10),
    ):
        tables[f"Table {number}, avg@8, {title}"] = benchmark_table(variants, rows, "qwen", six)
    for number, title, rows in (
        (9, "generate, then revise", paper.TABLE_9),
        (11, "losses of phase 1", paper.TABLE_11),
        (12, "phases", paper.TABLE_12),
    ):
        tables[f"Table {number}, {title}"] = revision_rows(entries, rows)
    tables["Table 13, split of the questions, average of the eight"] = split_table(entries)
    numbers = sorted(tables, key=lambda title: int(title.split(",")[0].split()[1]))
    return {title: tables[title] for title in numbers}


def main(words: list[str]) -> int:
    """`eval.py paper`. Raises UserError."""
    given = parse_options(words, PaperConfig, __doc__, prog="eval.py paper")
    cfg = PaperConfig(**given)
    if cfg.json and not Path(cfg.json).parent.is_dir():
        raise UserError(f"--json {cfg.json}: there is no folder {Path(cfg.json).parent}")
    entries = entries_of(cfg.runs, Path(cfg.bench))
    tables = tables_of(entries)
    print("\n\n".join(f"{title}\n{table(lines)}" for title, lines in tables.items()))
    measured = sum(bool(e.bench) for e in entries)
    print(
        f"\n{len(entries)} checkpoints of {len(cfg.runs)} runs have a row here; {measured} of them "
        f"stand in {cfg.bench} (eval.py bench measures them)"
    )
    if cfg.json:
        kit.files.write_json(Path(cfg.json), tables)
    return 0
