"""One search for every method: the same number of configurations, drawn from ranges that were
declared beforehand, and the winners on questions and seeds that nobody has looked at.

    python eval.py tune                          # goes on where it stopped, then the table
    python eval.py tune --rows SD-Zero,RFT --minutes 30
    python eval.py tune --ranges mine.json --log mine.jsonl

The ranges file says what is searched: {"draws", "seed", "measure", "rungs", "final", "rows"}. Of
each row `draws` configurations are drawn. A rung trains the best so many of the rung before with
its samples and seeds, and measures them on validation questions (successive halving). At each
number of samples the winner is the configuration with the best mean over its seeds; winners are
trained with the final seeds, and measured on test questions.

Where variants of SD-Zero share its phase 1 with the same settings, seed and samples, that is
trained once: OUT/phase1 keeps its weights. The results are the same, to the bit.

The log holds every configuration with its result, one line each: what it holds is not run again.
The default log comes with the repository: what it lacks is run first, so the table of finished
--rows is printed at once. A new --log repeats the search.
"""

import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import kit
import sdzero
from kit.errors import DeadEnd, UserError
from kit.options import check_ranges, flag_of, flags_line, option, parse_options
from kit.seeds import derived_seed
from kit.tables import table
from studies.compare import OURS, leads_of
from studies.programs import ROOT, config_of, program_has, stages_of
from studies.statistics import mean_cell, over_runs, pass_at_k

SEARCH = ROOT / "studies" / "search"
SHOWN = ("accuracy", "accuracy_greedy", "mean_tokens", "truncated")
REVISED = ("revised_accuracy", "correction_rate")
# what phase 1 does not depend on
LATER = "out distil_batch distil_lr divergence top_k teacher_ema jsd_beta tail term_clip".split()


@dataclass
class TuneConfig:
    ranges: str = option(str(SEARCH / "ranges.json"), "what is searched", heading="the search")
    log: str = option(str(SEARCH / "log.jsonl"), "every configuration and its result")
    rows: str = option("", "only these rows, with commas; empty: all")
    final: bool = option(True, "--no-final searches, and leaves the test questions alone")
    minutes: float = option(0.0, "begin no run after so many; 0: no limit", least=0)
    jobs: int = option(0, "runs at once, one thread each; 0: one per core", least=0)
    out: str = option("out/tune", "folder of the runs at hand, each removed once it is in the log")


class Trial(NamedTuple):
    """One run of the search."""

    row: str
    number: int  # of the configuration among the row's draws
    samples: int
    seed: int
    split: str  # the questions it is measured on: val, or test for a winner


# --------------------------------------------------------------------------------------------------
# What is tried
# --------------------------------------------------------------------------------------------------
def draws_of(row: str, search: dict) -> list[dict]:
    """The row's configurations: options drawn evenly from its ranges, no two of them alike. A
    variant's are those of the row it is a variant of, each with a draw from its own ranges."""
    described = search["rows"][row]
    generator = np.random.default_rng(derived_seed(search["seed"], row))

    def draw():
        return {k: v[generator.integers(len(v))] for k, v in described["ranges"].items()}

    if of := described.get("variant_of"):
        return [one | draw() for one in draws_of(of, search)]
    most, drawn = math.prod(map(len, described["ranges"].values())), []
    if most < search["draws"]:
        raise UserError(f"{row} has {most} configurations, not the {search['draws']} to be drawn")
    while len(drawn) < search["draws"]:
        if (one := draw()) not in drawn:
            drawn.append(one)
    return drawn


def options_of(trial: Trial, search: dict) -> dict:
    """The options of a trial's program."""
    row = search["rows"][trial.row]
    final = trial.split == search["final"]["measure"]["eval_split"]
    measure = search["final"]["measure"] if final else search["measure"]
    of = search["rows"][row.get("variant_of", trial.row)]
    options = {**draws_of(trial.row, search)[trial.number], **of["fixed"], **row["fixed"]}
    return {**options, **measure, "samples": trial.samples, "seed": trial.seed}


def ranked(row: str, done: dict, samples: int) -> list[int]:
    """The row's configurations that were measured with so many samples: those with most seeds
    first, and of these the one with the best mean, or of two alike the one drawn first."""
    scores = defaultdict(list)
    for trial, result in done.items():
        if trial.row == row and trial.samples == samples and trial.split == "val":
            scores[trial.number].append(result["accuracy"])
    return sorted(scores, key=lambda n: (-len(scores[n]), -np.mean(scores[n]), n))


def trials_of(row: str, search: dict, done: dict, final: bool) -> list[Trial]:
    """The row's runs that can be begun: what is missing of its first unfinished rung; behind the
    last rung those of its winners."""
    numbers, before = list(range(search["draws"])), None
    for rung in search["rungs"]:
        if before:
            numbers = ranked(row, done, before["samples"])
        numbers = numbers[: rung["configurations"]]
        all_of_it = [
            Trial(row, n, rung["samples"], seed, "val") for seed in rung["seeds"] for n in numbers
        ]
        if missing := [trial for trial in all_of_it if trial not in done]:
            return missing
        before = rung
    split = search["final"]["measure"]["eval_split"]
    winners = winners_of(row, search, done) if final else {}
    trials = [
        Trial(row, n, samples, seed, split)
        for samples, n in winners.items()
        for seed in search["final"]["seeds"]
    ]
    return [trial for trial in trials if trial not in done]


def winners_of(row: str, search: dict, done: dict) -> dict[int, int]:
    """{samples: the best configuration}, at each number of samples that has more than one seed."""
    seeds = defaultdict(set)
    for rung in search["rungs"]:
        seeds[rung["samples"]] |= set(rung["seeds"])
    return {n: ranked(row, done, n)[0] for n, of_rung in seeds.items() if len(of_rung) > 1}


# --------------------------------------------------------------------------------------------------
# One run
# --------------------------------------------------------------------------------------------------
def be_quiet() -> None:
    """A worker prints nothing, and calculates with one thread."""
    sys.stdout = sys.stderr = open(os.devnull, "w")
    sdzero.torch.set_num_threads(1)


def run_trial(options: dict, out: str, phase1: str = "") -> dict:
    """Train with these options and measure the last stage alone: the base and the stages between
    are nobody's question here. A run that was killed goes on. Where training itself cannot go on,
    as where no revision is verified, the configuration is worth nothing. With a folder `phase1` a
    phase 1 that lies there is taken, and one that is not there yet is put there."""
    cfg = config_of({**options, "out": out})
    questions, tokenizer = kit.questions.load_questions(cfg), kit.loading.load_tokenizer(cfg)
    made = kit.run_folder.options_of(cfg), sdzero.content_of(cfg, questions, tokenizer)
    folder = kit.run_folder.RunFolder(cfg.out, *made, cfg.save_every)
    stages = stages_of(cfg)
    kept = phase1_file(cfg, made[1], phase1) if phase1 else None
    with sdzero.make_grader(cfg) as grader:
        run, model = sdzero.prepare(cfg, tokenizer, grader, questions, folder)
        try:
            for stage in folder.still_to_do(stages):
                shared = kept if stage.name == "srt" else None
                if shared and shared.is_file():
                    take_phase1(shared, folder, model)
                    continue
                stage.train(run, model)
                if shared:
                    keep_phase1(shared, folder, model)
        except DeadEnd as e:
            return {"accuracy": 0.0, "failed": str(e)}
        seconds = time.time() - folder.start
        final = cfg.eval_split == "test"
        asked = questions[cfg.eval_split]
        result = sdzero.evaluate(run, model, asked, stages[-1].name, revise=final)
    shown = {name: result[name] for name in (*SHOWN, *REVISED * final)}
    if final:
        shown["pass_at_k"] = pass_at_k(result["scores"], min(8, cfg.eval_samples))
    return shown | {"trained": folder.totals["trained"], "seconds": round(seconds, 1)}


def phase1_file(cfg, content: dict, phase1: str) -> Path:
    """Where the phase 1 lies of all runs with its options, on the same content and by this code."""
    options = {name: value for name, value in asdict(cfg).items() if name not in LATER}
    name = kit.loading.digest([options, content, kit.ownership.code_now()])
    return Path(phase1) / f"{name}.pt"


def keep_phase1(file: Path, folder, model) -> None:
    made = {"model": model.state_dict(), "totals": folder.totals}
    made["seconds"] = time.time() - folder.start
    file.parent.mkdir(parents=True, exist_ok=True)
    mine = folder.path / file.name  # another worker may be at the same one
    sdzero.torch.save(made, mine)
    mine.replace(file)


def take_phase1(file: Path, folder, model) -> None:
    made = sdzero.torch.load(file)
    model.load_state_dict(made["model"])
    folder.totals |= made["totals"]
    folder.start = time.time() - made["seconds"]


# --------------------------------------------------------------------------------------------------
# All runs
# --------------------------------------------------------------------------------------------------
def read_log(file: Path, search: dict) -> dict[Trial, dict]:
    """{trial: its result}. A line that a kill cut off is left out, and said so. Raises UserError
    where a run had other options than this search gives it."""
    done = {}
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            record = json.loads(line)
            trial = Trial(*(record[name] for name in Trial._fields))
            options, done[trial] = record["options"], record["result"]
        except (ValueError, KeyError):
            print(f"{file}: left out a line that cannot be read: {line[:60]}")
            continue
        if trial.row in search["rows"] and not is_of(trial, options, search):
            raise UserError(
                f"{file} is the log of another search: {trial.row} #{trial.number} has other "
                "options there than --ranges gives it. Give --log a new file"
            )
    return done


def is_of(trial: Trial, options: dict, search: dict) -> bool:
    """Whether this search gives the trial these options."""
    return trial.number < search["draws"] and options == options_of(trial, search)


def write_line(file: Path, trial: Trial, options: dict, result: dict) -> None:
    line = json.dumps({**trial._asdict(), "options": options, "result": result}) + "\n"
    with file.open("a+b") as f:
        if size := f.tell():
            f.seek(size - 1)
            if f.read() != b"\n":  # a kill cut that line off
                f.write(b"\n")
        f.write(line.encode())


def search_all(cfg: TuneConfig, search: dict, rows: list[str]) -> dict[Trial, dict]:
    """Run what the log lacks, some runs at once; returns {trial: result}."""
    log, began = Path(cfg.log), time.time()
    log.parent.mkdir(parents=True, exist_ok=True)
    done, running = read_log(log, search), {}
    workers = cfg.jobs or os.cpu_count()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, be_quiet) as pool:
        while True:
            ready = [t for row in rows for t in trials_of(row, search, done, cfg.final)]
            late = cfg.minutes and time.time() - began > 60 * cfg.minutes
            for trial in [] if late else ready:
                if len(running) < workers and trial not in running.values():
                    job = options_of(trial, search), str(folder_of(trial, cfg, search))
                    phase1 = str(Path(cfg.out) / "phase1") if shares(trial.row, search) else ""
                    running[pool.submit(run_trial, *job, phase1)] = trial
            if not running:
                return done
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial = running.pop(future)
                done[trial] = future.result()
                write_line(log, trial, options_of(trial, search), done[trial])
                print(f"[{len(done)}] {in_words(trial, done[trial])}", flush=True)
                shutil.rmtree(folder_of(trial, cfg, search), ignore_errors=True)


def shares(row: str, search: dict) -> bool:
    """Whether the row is a variant, or has variants: others have the same phase 1."""
    variants = {name: one.get("variant_of") for name, one in search["rows"].items()}
    return bool(variants[row]) or row in variants.values()


def folder_of(trial: Trial, cfg: TuneConfig, search: dict) -> Path:
    place = list(search["rows"]).index(trial.row)
    return Path(cfg.out) / "-".join(str(value) for value in (place, *trial[1:]))


def in_words(trial: Trial, result: dict) -> str:
    what = f"{trial.row} #{trial.number}, {trial.samples} samples, seed {trial.seed}"
    if "failed" in result:
        return f"{what}: {result['failed']}"
    accuracy, seconds = 100 * result["accuracy"], result["seconds"]
    return f"{what}: {accuracy:.1f} % of {trial.split} questions, {seconds:.0f} s"


# --------------------------------------------------------------------------------------------------
# The table
# --------------------------------------------------------------------------------------------------
def final_rows(search: dict, rows: list[str], done: dict) -> list[dict]:
    """One line for each row and number of samples: its winner over the final seeds, of which one
    that had nothing to train on is right nowhere."""
    split, lines = search["final"]["measure"]["eval_split"], []
    lacking = dict.fromkeys((*SHOWN, *REVISED, "pass_at_k", "trained", "seconds"))
    finals = {}  # {(row, samples): {seed: result}}
    for trial, result in done.items():
        if trial.split == split:
            if "failed" in result:
                result = {**lacking, "accuracy": 0.0, "accuracy_greedy": 0.0}
            finals.setdefault((trial.row, trial.samples), {})[trial.seed] = result
    for samples in sorted({samples for _, samples in finals}):
        for row in rows:
            if not (runs := finals.get((row, samples))):
                continue
            number = winners_of(row, search, done)[samples]
            line = {"row": row, "samples": samples, "seeds": sorted(runs)}
            line["options"] = draws_of(row, search)[number]
            line["failed"] = sum(result["seconds"] is None for result in runs.values())
            of_row = [t for t in done if t.row == row]
            line["tried"] = len({t.number for t in of_row})
            line["tried_here"] = len({t.number for t in of_row if t.samples == samples})
            line |= over_runs(list(runs.values()))
            leads = leads_of(finals.get((OURS, samples), {}), runs) if row != OURS else []
            lines.append(line | ({"lead": over_runs(leads)["accuracy"]} if leads else {}))
    return lines


def final_table(lines: list[dict]) -> str:
    """tried: configurations of the row; here: those that came as far as these samples."""
    rows = [["samples", "row", "tried (here)", "sampled acc. %", "greedy acc. %", "revised acc. %"]]
    rows[0] += ["tokens", "trained tokens", "seconds", f"{OURS} leads by", "settings found"]
    for line in lines:
        cells = [mean_cell(line[name]) for name in ("accuracy", "accuracy_greedy")]
        cells += [mean_cell(line["revised_accuracy"]), mean_cell(line["mean_tokens"], 1)]
        cells += [mean_cell(line[name], 1, 0, False) for name in ("trained", "seconds")]
        lead = mean_cell(line["lead"]) if "lead" in line else ""
        settings = flags_line(line["options"])
        failed = f" ({line['failed']} of {len(line['seeds'])} failed)" if line["failed"] else ""
        tried = f"{line['tried']} ({line['tried_here']})"
        start = [str(line["samples"]), line["row"] + failed, tried]
        rows.append([*start, *cells, lead, settings])
    return table(rows)


def read_search(file: str) -> dict:
    """The ranges file. Raises UserError."""
    search = kit.files.read_json(Path(file))
    needed = {"draws", "seed", "measure", "rungs", "final", "rows"}
    if not isinstance(search, dict) or (lacking := needed - set(search)):
        lacking = ", ".join(sorted(lacking if isinstance(search, dict) else needed))
        raise UserError(f"{file} is not a ranges file: it lacks {lacking}")
    some = search["rungs"][0]
    for row, described in search["rows"].items():
        named = {**described["ranges"], **described["fixed"]}
        if unknown := [name for name in named if not program_has(name, named)]:
            raise UserError(f"{file}, {row}: its program has no {', '.join(map(flag_of, unknown))}")
        for number in range(search["draws"]):
            trial = Trial(row, number, some["samples"], some["seeds"][0], "val")
            config_of(options_of(trial, search))
    return search


def main(words: list[str]) -> int:
    """`eval.py tune`. Raises UserError."""
    cfg = TuneConfig(**parse_options(words, TuneConfig, __doc__, prog="eval.py tune"))
    check_ranges(cfg)
    search = read_search(cfg.ranges)
    rows = [row.strip() for row in cfg.rows.split(",")] if cfg.rows else list(search["rows"])
    if unknown := [row for row in rows if row not in search["rows"]]:
        raise UserError(f"no such row: {', '.join(unknown)}. There are {', '.join(search['rows'])}")
    done = search_all(cfg, search, rows)
    left = sum(len(trials_of(row, search, done, cfg.final)) for row in rows)
    lines = final_rows(search, rows, done)
    if lines:
        print(final_table(lines))
    else:
        print("no winner has been measured on test questions yet")
    print(f"{len(done)} runs are in {cfg.log}" + (f"; at least {left} are left" if left else ""))
    return 0
