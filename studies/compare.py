"""Every method, or every ablation of SD-Zero, on the same budgets of samples and several seeds.

    python eval.py compare                                     # SD-Zero, the baselines, three more
    python eval.py compare --table ablations --seeds 2         # parts of SD-Zero
    python eval.py compare --budgets 96 --seeds 1 --rows SD-Zero,RFT --eval-questions 10
    python eval.py compare --model Qwen/Qwen3-4B-Instruct --task math

A run is `python sdzero.py ...` or `python baselines.py METHOD ...` in a process and a folder of its
own, OUT/runs/ROW-BUDGET-SEED. Finished runs are kept and stopped ones go on: start the same command
again. Other options of these two programs hold for every row whose program has them, those of --own
for one row alone.

It prints means over seeds with 95 % t-intervals (of one seed: Wilson's, over questions), and how
far SD-Zero leads each row, paired by seed. Writes OUT/results.json and OUT/curve.png, or
OUT/ablations.json, and OUT/page.html, with all of it and the runs.
"""

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import baselines
import kit
import sdzero
from kit.errors import UserError
from kit.options import check_ranges, flag_of, option, parse_options
from kit.presets import is_tiny
from kit.tables import CORRECTION, net_correction, table
from studies import compare_page
from studies.page import own_page
from studies.programs import (
    command_of,
    config_of,
    last_stage_of,
    of_program,
    program_has,
)
from studies.runs import folder_of_row, own_folder, read_metrics, read_options, read_results
from studies.statistics import over_runs, pass_at_k

OURS = "SD-Zero"  # the row that the others are paired with
ACCURACIES = ("accuracy", "accuracy_greedy")


@dataclass
class CompareConfig(baselines.BaselineConfig):
    table: Literal["methods", "ablations"] = option(
        "methods",
        "methods: SD-Zero, the paper's baselines and three more; ablations: parts of SD-Zero",
        heading="the comparison",
    )
    seeds: int = option(5, "runs of each row, with seeds 0, 1, ...", least=1)
    budgets: str = option(
        "",
        "numbers of samples, with commas; empty: 1536,4608 with the embedded model, 15000,60000 "
        "with another; ablations: the largest",
    )
    rows: str = option(
        "", "only these rows of the table, with commas (names as they are printed); empty: all"
    )
    own: str = option("", "settings of single rows: 'GRPO: --lr 5e-6 --batch 16; RFT: --epochs 4'")
    jobs: int = option(
        0, "runs at once; 0: one per core with the embedded model, else one", least=0
    )
    out: str = option("out/compare", "folder of the runs, the table and the figure")


# Options that compare sets itself, or that make no sense for many runs; "" : of compare alone.
NOT_PASSED = {
    "seed": "it gives each run its seed: --seeds N",
    "samples": "it gives each run its samples: --budgets N,N",
    "method": "its rows are the methods: --rows",
    "fresh": "remove its folder to start anew",
    "plan": "ask sdzero.py --plan",
    **dict.fromkeys(("table", "seeds", "budgets", "rows", "own", "jobs", "out"), ""),
}
# What --help shows of the programs' options; all the others are options here too.
SHOWN = {"table", "seeds", "budgets", "rows", "own", "jobs", "out"}
SHOWN |= {"model", "task", "device", "data", "digits", "numbers", "largest", "unsafe_exec"}
SHOWN |= {"eval_questions", "eval_samples", "eval_split"}


# --------------------------------------------------------------------------------------------------
# The tables: {row: options of its program}. With a "method" of baselines.py it is that program's.
# --------------------------------------------------------------------------------------------------
def methods_table(given: dict) -> dict[str, dict]:
    """SD-Zero, the paper's baselines, and three rows that it lacks."""
    # the embedded model's presets are tuned for the default rows; these want other epochs
    tuned = is_tiny(given.get("model", sdzero.Config.model))

    def unless_given(name, epochs):
        return {name: epochs} if tuned and name not in given else {}

    return {
        OURS: {},
        "SD-Zero with L_answer": {"l_answer": True, **unless_given("srt_epochs", 32)},
        "SRT (phase 1 alone)": {"method": "srt"},
        "RFT": {"method": "rft"},
        "iterated RFT": {"method": "rft", "rounds": 8, **unless_given("epochs", 8)},
        "RFT on verified revisions": {
            "method": "rft",
            "on_revisions": True,
            **unless_given("epochs", 32),
        },
        "GRPO": {"method": "grpo"},
        "SDFT": {"method": "sdft"},
        "SFT on demonstrations": {"method": "sft"},
    }


def ablations_table(given: dict, samples: int) -> dict[str, dict]:
    """SD-Zero with one part taken away or changed, at a budget of so many samples."""
    rows = {
        OURS: {},
        "L_revision only": {"l_revision": True, "l_generation": "none"},
        "L_generation only": {"l_revision": False, "l_generation": "all"},
        "both": {"l_revision": True, "l_generation": "all"},
        "L_generation of wrong answers only": {"l_generation": "wrong"},
        "with L_answer": {"l_answer": True},
        "no SRT": {"phase1": False},
        "unfiltered revisions": {"filtered": False},
        "flipped reward": {"flip_reward": True},
        "phase 1 gets 1/3": {"srt_share": 1 / 3},
        "phase 1 gets 2/3": {"srt_share": 2 / 3},
        "phase 1 gets 9/10": {"srt_share": 0.9},
        "forward KL": {"divergence": "forward"},
        "mixed KL": {"divergence": "mixed"},
        "2 rounds": {"rounds": 2},
        "4 rounds": {"rounds": 4},
        "teacher synchronised every 16 steps": {"sync_every": 16},
    }
    tiny = is_tiny(given.get("model", sdzero.Config.model))
    del rows["L_revision only" if tiny else "both"]  # which is SD-Zero's default there

    usual = sdzero.make_config(**of_program(given, {}), samples=samples)
    first = usual.srt_questions * usual.first_answers * (1 + usual.revisions)
    more = samples * 3 // 2
    longer = {"samples": more, "srt_share": first / more}  # only phase 2 is longer
    return {
        **rows,
        "phase 2 longer": longer,
        "phase 2 longer, 2 rounds": {**longer, "rounds": 2},
    }


def table_of(name: str, given: dict, samples: int) -> dict[str, dict]:
    return methods_table(given) if name == "methods" else ablations_table(given, samples)


def left_out(given: dict, rows: dict[str, dict]) -> str:
    """What is said of options that some rows' programs lack; empty where all have them. Raises
    UserError for an option that no row has."""
    lacking = []
    for name in given:
        without = [row for row, options in rows.items() if not program_has(name, options)]
        if len(without) == len(rows):
            raise UserError(f"none of these rows has {flag_of(name)}: {', '.join(rows)}")
        if without:
            lacking.append(f"{flag_of(name)} for {', '.join(without)}")
    return "left out where a program lacks it: " + "; ".join(lacking) if lacking else ""


# --------------------------------------------------------------------------------------------------
# One run
# --------------------------------------------------------------------------------------------------
class Job(NamedTuple):
    row: str
    budget: int
    seed: int
    options: dict  # of its program, "out" among them


def run_once(job: Job, threads: int, siblings: list[Path]) -> Path:
    """Start the job's program and wait for it, unless its folder holds it complete; returns the
    folder.

    siblings: folders of runs with the same seed, any of which may have evaluated the base already.
    Raises UserError: with the last line of the run's log where it failed.
    """
    cfg = config_of(job.options)
    folder = Path(cfg.out)
    kit.run_folder.check_options(cfg, kit.run_folder.options_of(cfg))
    ownership = kit.ownership.Ownership(folder)
    if ownership.begun() and ownership.marker.get("finished"):
        return folder

    ownership.claim("log.txt")
    if not read_results(folder) and (base := base_from(siblings, cfg)):
        ownership.claim("results.json")
        kit.files.write_json(folder / "results.json", {"base": base})

    command, log = command_of(job.options), folder / "log.txt"
    with log.open("w") as f:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        ended = subprocess.run(command, stdout=f, stderr=subprocess.STDOUT, env=environment)
    if ended.returncode:
        said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise UserError(
            f"{shlex.join(command)} ended with code {ended.returncode}; its log says: {said[-1]}"
        )
    return folder


# The options that an evaluation of the base depends on, beside which questions are asked.
BASE = ("model", "task", "data", "digits", "numbers", "largest", "seed", "dtype", "device")
BASE += ("temperature", "max_tokens")
BASE += ("rollout_batch", "eval_questions", "eval_samples", "eval_split", "chat_template")
BASE += ("phrase_if_right", "phrase_if_wrong", "system", "instruction", "shots", "top_p")
BASE += ("eval_temperature", "eval_top_p", "eval_max_tokens", "reward", "gym_options")


def base_from(siblings: list[Path], cfg: sdzero.Config) -> dict | None:
    """The evaluation of the base from another run's folder: of one seed it is the same for every
    row."""
    for folder in siblings:
        base = read_results(folder).get("base")
        if base and same_base(read_options(folder), base, cfg):
            return base
    return None


def same_base(saved: dict, base: dict, cfg: sdzero.Config) -> bool:
    """Whether a run with the options `saved` asked the base what cfg's would ask."""
    if any(saved.get(name) != getattr(cfg, name) for name in BASE):
        return False
    if cfg.task == "arith":
        return True
    # where a file has fewer questions than are wanted, the test set shrinks with the others
    sets = ("srt_questions", "distil_questions")
    theirs, ours = sum(saved[name] for name in sets), sum(getattr(cfg, name) for name in sets)
    whole = base["n"] == cfg.eval_questions and theirs >= ours
    return whole or all(saved[name] == getattr(cfg, name) for name in sets)


def measured(folder: Path, stage: str) -> dict:
    """{"run", "base"}: what the table shows of a run's last stage, and of its base."""
    results, last = read_results(folder), read_metrics(folder)[-1]
    totals = {
        "samples": last["samples"],
        "trained_tokens": last["trained"],
        "seconds": last["seconds"],
    }
    nothing = dict.fromkeys(totals, 0)
    of_run, of_base = totals | shown_of(results[stage]), nothing | shown_of(results["base"])
    after_srt = results.get("srt", {})
    of_run |= {f"srt_{name}": after_srt.get(name) for name in ("accuracy", "accuracy_ci")}
    return {"run": of_run, "base": of_base}


def shown_of(result: dict) -> dict:
    """The accuracies of an evaluation, with their intervals, and the length of an answer."""
    shown = {}
    for name in (*ACCURACIES, "revised_accuracy", "correction_rate"):
        shown[name], shown[name + "_ci"] = result[name], result[name + "_ci"]
    shown["net_correction_rate"] = net_correction(result)
    scores = result["scores"]
    shown["k"] = min(8, len(scores[0]))
    shown["pass_at_k"] = pass_at_k(scores, shown["k"])
    return shown | {"mean_tokens": result["mean_tokens"]}


# --------------------------------------------------------------------------------------------------
# All runs
# --------------------------------------------------------------------------------------------------
def passed_to_programs(given: dict) -> dict:
    """The options that go to the runs: of those on the command line all but compare's own, and
    larger evaluations of the embedded model. Raises UserError."""
    for name in given:
        if advice := NOT_PASSED.get(name):
            raise UserError(f"compare has no {flag_of(name)}: {advice}")
    passed = {name: value for name, value in given.items() if name not in NOT_PASSED}
    if is_tiny(given.get("model", sdzero.Config.model)):
        return {"eval_samples": 8, "eval_questions": 250, **passed}
    return passed


def budgets_of(cfg: CompareConfig) -> list[int]:
    """--budgets, smallest first. Raises UserError."""
    default = "1536,4608" if is_tiny(cfg.model) else "15000,60000"
    try:
        budgets = sorted({int(word) for word in (cfg.budgets or default).split(",")})
    except ValueError:
        raise UserError(
            f"--budgets {cfg.budgets}: give whole numbers with commas, as in 1536,4608"
        ) from None
    if budgets[0] < 1:
        raise UserError(f"--budgets {cfg.budgets}: a budget is 1 sample at least")
    return budgets if cfg.table == "methods" or cfg.budgets else budgets[-1:]


def chosen_rows(cfg: CompareConfig, names: list[str]) -> list[str]:
    """--rows, or all of the table's. Raises UserError."""
    if not cfg.rows:
        return names
    chosen = [name.strip() for name in cfg.rows.split(",")]
    if unknown := [name for name in chosen if name not in names]:
        raise UserError(
            f"--rows: no row {', '.join(map(repr, unknown))} in this table; there are "
            f"{', '.join(map(repr, names))}"
        )
    return list(dict.fromkeys(chosen))


def own_settings(cfg: CompareConfig, table: dict[str, dict]) -> dict[str, dict]:
    """{row: its options} of --own. Raises UserError."""
    found = {}
    for clause in filter(str.strip, cfg.own.split(";")):
        row, _, words = (text.strip() for text in clause.partition(":"))
        if row not in table:
            raise UserError(f"--own: no row {row!r} in this table; there are {', '.join(table)}")
        if row in found:
            raise UserError(f"--own names {row} twice")
        try:
            words = shlex.split(words)
        except ValueError as e:
            raise UserError(f"--own, {row}: {str(e).lower()} in {words!r}") from None
        found[row] = parse_options(words, CompareConfig, "", prog=f"--own, {row}")
        for name in found[row]:
            if name in (*NOT_PASSED, *BASE, "recipe") or not program_has(name, table[row]):
                raise UserError(f"--own: {flag_of(name)} cannot be {row}'s own")
    return found


def jobs_of(cfg: CompareConfig, passed: dict) -> list[Job]:
    """Every run of the comparison, seed by seed, the longest first.

    Raises UserError: a bad option is said before the first run, not after hours.
    """
    budgets = budgets_of(cfg)
    tables = {budget: table_of(cfg.table, passed, budget) for budget in budgets}
    rows = chosen_rows(cfg, list(tables[budgets[0]]))
    if said := left_out(passed, {row: tables[budgets[0]][row] for row in rows}):
        print(said)
    own = own_settings(cfg, tables[budgets[0]])

    jobs = []
    for seed in range(cfg.seeds):
        for budget in budgets[::-1]:
            for row in rows:
                of_table = tables[budget][row]
                options = {"samples": budget, **of_program(passed, of_table), **of_table}
                options |= own.get(row, {})
                options["seed"] = seed
                options["out"] = str(folder_of_row(Path(cfg.out), row, budget, seed))
                jobs.append(Job(row, budget, seed, options))
    for job in jobs:
        config_of(job.options)
    return jobs


def run_all(jobs: list[Job], at_once: int) -> tuple[dict, list[str]]:
    """({(row, budget, seed): measured()}, what was said of the runs that failed)"""
    done, failed, started = {}, [], {}
    threads = max(1, os.cpu_count() // at_once)
    with ThreadPoolExecutor(at_once) as pool:
        for job in jobs:
            siblings = [Path(other.options["out"]) for other in jobs if other.seed == job.seed]
            started[pool.submit(run_once, job, threads, siblings)] = job
        try:
            for n, future in enumerate(as_completed(started), 1):
                job = started[future]
                label = f"[{n}/{len(jobs)}] {job.row}, {job.budget} samples, seed {job.seed}"
                try:
                    r = measured(future.result(), last_stage_of(config_of(job.options)))
                    done[job[:3]] = r
                    print(f"{label}: {in_short(r['run'])}", flush=True)
                except UserError as e:
                    failed.append(str(e))
                    print(f"{label}: {e}", flush=True)
        except KeyboardInterrupt:
            # the runs at hand have had the Ctrl-C too, and save
            pool.shutdown(cancel_futures=True)
            raise
    return done, failed


def in_short(run: dict) -> str:
    sampled, greedy = (f"{100 * run[name]:.1f} %" for name in ACCURACIES)
    return f"{sampled} sampled, {greedy} greedy, {run['seconds']:.0f} s"


def comparison_rows(jobs: list[Job], done: dict) -> list[dict]:
    """The table: over seeds, the base first, then row after row at each budget."""
    bases = {job.seed: done[job[:3]]["base"] for job in jobs if job[:3] in done}
    if not bases:
        return []
    runs_of = {}  # {(row, budget): {seed: run}}, smallest budget first, rows as in the table
    for job in sorted(jobs, key=lambda job: job.budget):
        runs = runs_of.setdefault((job.row, job.budget), {})
        if job[:3] in done:
            runs[job.seed] = done[job[:3]]["run"]

    lines = [{"method": "base", "budget": 0, **over_runs(list(bases.values()))}]
    for (row, budget), runs in runs_of.items():
        if not runs:
            continue
        line = {"method": row, "budget": budget, "seeds": list(runs)}
        line |= over_runs(list(runs.values()))
        if row != OURS and (leads := leads_of(runs_of.get((OURS, budget), {}), runs)):
            line["sdzero_leads_by"] = over_runs(leads)
        lines.append(line)
    return lines


def leads_of(ours: dict, theirs: dict) -> list[dict]:
    """SD-Zero's accuracies less another row's, for each seed that both have: the same questions,
    and the same seeds of samples."""
    leads = []
    for seed, run in theirs.items():
        if seed in ours:
            leads.append({name: ours[seed][name] - run[name] for name in ACCURACIES})
    return leads


def comparison_table(out: dict) -> str:
    """What compare prints."""
    return f"{table(compare_page.cells_of(out))}\n{CORRECTION}"


def short_of_samples(rows: list[dict]) -> list[str]:
    """What is said of rows that took less than their budget, as of a file with few questions."""
    lines = []
    for row in rows:
        samples = row["samples"]["mean"]
        if 0 < samples < 0.9 * row["budget"]:
            took = f"{row['method']} took {samples:.0f} of {row['budget']} samples"
            lines.append(f"{took}: not the budget of the others. Has the file too few questions?")
    return lines


def keep_content(out: Path, cfg: sdzero.Config) -> None:
    """Enter what all runs depend on, beside their options, into the marker. Raises UserError where
    it is not what it was: finished runs are not measured again, and would stand beside others."""
    ownership = kit.ownership.Ownership(out)
    content = {**kit.rewards.fingerprint(cfg), **kit.loading.weights_fingerprint(cfg.model)}
    for file in kit.rows.files_of(cfg.data) if cfg.data else ():
        name = file.name if file == Path(cfg.data) else file.relative_to(cfg.data)
        content[f"--data, {name}"] = kit.files.hash_of(file)
    saved = ownership.marker["content"]
    changed = kit.files.differing(saved, content)
    if saved and changed:
        raise UserError(
            f"{out} holds a comparison of runs on other content; what changed: "
            f"{'; '.join(changed)}. Bring that back, or give another --out"
        )
    ownership.marker["content"] = content
    ownership.write_marker()


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
def main(words: list[str]) -> int:
    """`eval.py compare`; 1 where a run failed. Raises UserError."""
    given = parse_options(words, CompareConfig, __doc__, SHOWN, prog="eval.py compare")
    passed = passed_to_programs(given)
    cfg = CompareConfig(**given)
    check_ranges(cfg)
    jobs = jobs_of(cfg, passed)
    out, methods = Path(cfg.out), cfg.table == "methods"
    file = out / compare_page.FILES[cfg.table]
    own_folder(out, "compare", file.name, *["curve.png"] * methods)
    keep_content(out, config_of(jobs[0].options))
    own_page(out)

    cores = os.cpu_count() if is_tiny(cfg.model) else 1
    done, failed = run_all(jobs, cfg.jobs or cores)
    about = {"table": cfg.table, "model": cfg.model, "task": config_of(jobs[0].options).task}
    rows = comparison_rows(jobs, done)
    options = passed | ({"own": cfg.own} if cfg.own else {})
    result = {**about, "options": options, "rows": rows, "failed": failed}
    kit.files.write_json(file, result)
    print(comparison_table(result))
    if methods:
        kit.figures.curve(out / "curve.png", result)
    compare_page.write_page(out)
    for line in short_of_samples(rows):
        print(line)
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0
