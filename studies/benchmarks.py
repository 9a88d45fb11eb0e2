"""Checkpoints on the paper's eight benchmarks, whole, as the paper measures: 8 samples at T = 0.7.

    python eval.py bench Qwen/Qwen3-4B-Instruct out/mine/srt out/mine/sdzero
    python eval.py bench out/mine/sdzero --bench aime24,math --revise
    python eval.py bench tiny --bench aime24=FILE.jsonl --max-tokens 160     # a local file

avg@k is the mean accuracy over k samples a question, pass@j the unbiased estimate that one of j is
right (1 - C(n-c, j) / C(n, j), c of n right). Intervals are of 95 % and count questions, not
samples: Wilson's for avg@k, bootstrapped for pass@j. Every checkpoint is paired with the first.
Below a row of a model that the paper has stands the paper's. Training questions (of the first
checkpoint's run, or --training FILE) are looked for in every benchmark.

OUT holds a folder a checkpoint with a file a benchmark. The same command goes on where it was
stopped, batch by batch; what is complete is not asked again.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import kit
import sdzero
from kit.benchmarks import BENCHMARKS, benchmark_questions, chosen, days
from kit.errors import UserError
from kit.options import option, parse_options
from kit.tables import CORRECTION, mean, net_correction, net_percent, percent, table
from studies.paper_tables import TABLE_1
from studies.runs import is_run, options_of_their_run, own_folder, paper_place
from studies.statistics import bootstrapped, difference_cell, paired_test, passes

SHOWN = {"checkpoints", "bench", "lcb_from", "lcb_until", "training", "revise", "paper", "out"}
SHOWN |= {"temperature", "max_tokens", "eval_samples", "seed", "data", "unsafe_exec"}
SHOWN |= {"device", "dtype", "rollout_batch", "chat_template"}
# What a benchmark does not take over from the run of the first checkpoint
OWN = {"task", "temperature", "max_tokens", "top_p", "eval_samples", "eval_split", "rollout_batch"}
OWN |= {"eval_temperature", "eval_max_tokens", "eval_top_p", "seed"}
OWN |= {"reward", "gym_options"}
RUN_OF = {"math": "openr1", "code": "codeforces"}  # the task of a run: its own held-out questions


@dataclass
class BenchConfig(sdzero.Config):
    checkpoints: list = option((), "hub id, checkpoint folder, .gguf file or 'tiny'")
    bench: str = option(
        ",".join(BENCHMARKS), "benchmarks, with commas; NAME=FILE: a local file", heading="bench"
    )
    lcb_from: str = option("", "LiveCodeBench: problems of this day, or month (2024-08), and later")
    lcb_until: str = option("", "LiveCodeBench: problems of this day, or month, and earlier")
    training: str = option("", "file of training questions to look for; empty: the run's own")
    revise: bool = option(False, "also one revision of every sample (the paper's Tables 9, 11, 12)")
    paper: Literal["auto", "qwen", "olmo", "none"] = option("auto", "whose rows of Table 1 to show")
    out: str = option("out/bench", "folder of the results; the same command goes on there")


# --------------------------------------------------------------------------------------------------
# One benchmark, one checkpoint
# --------------------------------------------------------------------------------------------------
def slug_of(checkpoint: str) -> str:
    """A checkpoint's folder in OUT."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", checkpoint).strip("-.") or "checkpoint"


def settings_of(cfg: BenchConfig, checkpoint: str, questions: list[dict], tokenizer) -> dict:
    """What a measurement depends on."""
    model_type = kit.loading.model_type(checkpoint)
    return {
        "checkpoint": kit.loading.weights_fingerprint(checkpoint),
        "questions": kit.loading.digest(questions),
        "chat template": kit.loading.digest(tokenizer.chat_template),
        "phrases": list(sdzero.control_phrases(cfg, model_type)),
        "samples": cfg.eval_samples,
        **sampling_of(cfg),
        "seed": cfg.seed,
        "dtype": cfg.dtype,
    }


def sampling_of(cfg: BenchConfig) -> dict:
    """The sampling settings of an evaluation."""
    names = ("temperature", "top_p", "max_tokens")
    return {name: getattr(cfg, f"eval_{name}") or getattr(cfg, name) for name in names}


class Bench:
    """The results of a command in OUT, and what is loaded to make those that are missing."""

    def __init__(self, cfg: BenchConfig, questions: dict[str, list[dict]]):
        self.cfg, self.questions, self.graders, self.loaded = cfg, questions, {}, (None, None)

    def result(self, checkpoint: str, name: str) -> dict:
        """What was measured of a checkpoint on a benchmark; measured now where it was not."""
        own, asked = replace(self.cfg, model=checkpoint), self.questions[name]
        tokenizer = kit.loading.load_tokenizer(own)
        settings = settings_of(own, checkpoint, asked, tokenizer)
        folder = Path(self.cfg.out) / slug_of(checkpoint)
        file, rollouts = folder / f"{name}.json", folder / f"{name}.rollouts.jsonl"
        if file.is_file():
            found = kit.files.read_json(file)
            kit.journal.check_settings(file, found["settings"], settings)
            if found["revise"] or not self.cfg.revise:
                return found
        journal = kit.journal.Journal(rollouts, settings)
        run, model = self.prepared(checkpoint, own, tokenizer, BENCHMARKS[name].task)
        kit.loading.check_prompts(tokenizer, asked, checkpoint)
        found = measured(replace(run, folder=journal), model, asked, f"{checkpoint} {name}")
        found = {"settings": settings, "benchmark": name, "checkpoint": checkpoint, **found}
        kit.files.write_json(file, found)
        rollouts.unlink()
        return found

    def prepared(self, checkpoint: str, own: BenchConfig, tokenizer, task: str):
        """(run, model), loaded once for all benchmarks of a checkpoint."""
        if task not in self.graders:
            self.graders[task] = sdzero.make_grader(replace(own, task=task))
        if self.loaded[0] != checkpoint:
            self.loaded = (None, None)  # two models may not fit
            made = sdzero.prepare(own, tokenizer, self.graders[task], {}, trains=False)
            self.loaded = checkpoint, made
        run, model = self.loaded[1]
        return replace(run, grader=self.graders[task]), model

    def close(self):
        for grader in self.graders.values():
            grader.__exit__(None, None, None)


def measured(run, model, questions: list[dict], label: str) -> dict:
    """k samples a question, and with --revise one revision of each."""
    run = sdzero.in_phase(run, "eval")
    cfg = run.cfg
    k, seed = cfg.eval_samples, kit.seeds.derived_seed("bench", cfg.seed)
    contexts = [sdzero.chat_ids(run.tokenizer, q["prompt"]) for q in questions]
    many = sdzero.repeat(questions, k), sdzero.repeat(contexts, k)
    samples = sdzero.rollouts(run, model, *many, seed, label)
    scores = np.array([s["reward"] for s in samples]).reshape(-1, k)  # (n, k)
    result = {
        "n": len(questions),
        "k": k,
        "ids": [q.get("id", "") for q in questions],
        **kit.tables.rate("accuracy", scores.mean(1)),
        "pass_at_k": {str(j): pass_of(scores.tolist(), j) for j in range(1, k + 1)},
        "mean_tokens": mean(len(s["ids"]) for s in samples),
        "truncated": mean(not s["finished"] for s in samples),
        "timeouts": run.folder.totals["timeouts"],
        "scores": scores.tolist(),
        "revise": {},
    }
    if cfg.revise:
        revised = sdzero.generate_then_revise(run, model, samples, seed + 1, f"{label} revised")
        # samples of one question are no independent evidence: no interval over them
        plain = {key: value for key, value in revised.items() if not key.endswith("_ci")}
        result["revise"] = {**plain, "net_correction_rate": net_correction(revised)}
    return result


def pass_of(scores, j: int) -> dict:
    """pass@j with its interval."""
    terms = passes(scores, j)
    return {"value": mean(terms), "ci": bootstrapped(terms)}


# --------------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------------
def report(out: dict, family_asked: str) -> str:
    """What bench prints, from what it writes into bench.json."""
    results, names = out["checkpoints"], out["benchmarks"]
    text = [
        f"{out['k']} samples a question at T = {out['temperature']}, at most {out['max_tokens']} "
        "tokens; 95 % intervals over questions in brackets",
        average_table(results, names, family_asked),
        pass_table(results, names),
    ]
    if out["against_first"]:
        text.append(paired_table(out))
    if any(r["revise"] for of_one in results.values() for r in of_one.values()):
        text.append(revision_table(results, names))
    return "\n\n".join([*text, "\n".join(out["overlap"])])


def average_table(results: dict, names: list[str], family_asked: str) -> str:
    """avg@k, and the paper's row below each that it has."""
    titles = [BENCHMARKS[name].title for name in names]
    k = next(iter(next(iter(results.values())).values()))["k"]
    rows = [[f"avg@{k} %", *titles, "mean of these"]]
    for checkpoint, of_one in results.items():
        cells = [percent(of_one[name], "accuracy").strip() for name in names]
        average = mean(of_one[name]["accuracy"] for name in names)
        rows.append([checkpoint, *cells, f"{100 * average:.1f}"])
        family, method = paper_place(checkpoint)
        family = family if family_asked == "auto" else family_asked
        if row := TABLE_1.get(family, {}).get(method):
            places = [list(BENCHMARKS).index(name) for name in names]
            theirs = [row[place] for place in places]
            cells = [f"{value:.1f}" for value in (*theirs, mean(theirs))]
            rows.append([f"  the paper's {method} ({family}, avg@8)", *cells])
    return table(rows)


def pass_table(results: dict, names: list[str]) -> str:
    """pass@1 .. pass@k, the last with its interval; length."""
    k = next(iter(next(iter(results.values())).values()))["k"]
    heading = [f"pass@{j} %" for j in range(1, k + 1)]
    rows = [["", "questions", *heading, "tokens", "cut off %"]]
    for checkpoint, of_one in results.items():
        for name in names:
            r = of_one[name]
            cells = [f"{100 * r['pass_at_k'][str(j)]['value']:.1f}" for j in range(1, k + 1)]
            low, high = (f"{100 * x:.1f}" for x in r["pass_at_k"][str(k)]["ci"])
            cells[-1] += f" [{low}, {high}]"
            length = [f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}"]
            title = f"{checkpoint} {BENCHMARKS[name].title}"
            rows.append([title, str(r["n"]), *cells, *length])
    return table(rows)


def paired_table(out: dict) -> str:
    first = next(iter(out["checkpoints"]))
    rows = [[f"against {first}", "difference, points", "wins", "losses", "p (sign-flip test)"]]
    for checkpoint, tests in out["against_first"].items():
        for name, t in tests.items():
            cells = [difference_cell(t), str(t["wins"]), str(t["losses"])]
            rows.append([f"{checkpoint} {BENCHMARKS[name].title}", *cells, f"{t['p']:.4f}"])
    return table(rows)


def revision_table(results: dict, names: list[str]) -> str:
    """Generate, then revise: one revision of each sample."""
    columns = ["first tokens", "revised tokens", "first acc. %", "revised acc. %"]
    rows = [["one revision of each sample", *columns, "mended %", "net correction %"]]
    for checkpoint, of_one in results.items():
        for name in names:
            if r := of_one[name]["revise"]:
                tokens = [f"{r[key]:.1f}" for key in ("initial_tokens", "revised_tokens")]
                keys = ("initial_accuracy", "revised_accuracy", "correction_rate")
                rates = ["-" if r[key] is None else f"{100 * r[key]:.1f}" for key in keys]
                title = f"{checkpoint} {BENCHMARKS[name].title}"
                rows.append([title, *tokens, *rates, net_percent(r)])
    return f"{table(rows)}\n{CORRECTION}"


# --------------------------------------------------------------------------------------------------
# Training questions in benchmarks
# --------------------------------------------------------------------------------------------------
def overlaps(cfg: BenchConfig, of_run: dict, questions: dict[str, list[dict]]) -> list[str]:
    """A line for each benchmark, or one that says why there is none."""
    if cfg.training:
        task = {BENCHMARKS[name].task for name in questions}
        task = cfg.task if len(task) > 1 or cfg.task == "code" else task.pop()
        source, training = cfg.training, kit.questions.file_questions(cfg.training, task)
    elif of_run.get("task") in RUN_OF:
        sets = kit.questions.load_questions(replace(cfg, task=of_run["task"]))
        source, training = "the run", sets["srt"] + sets["distil"]
    else:
        return ["training questions in the benchmarks: not looked for, as none are known"]
    lines = [f"training questions ({source}: {len(training)}) in the benchmarks"]
    for name, asked in questions.items():
        found = kit.overlap.overlap(training, asked, cfg.instruction)
        lines.append(kit.overlap.in_words(BENCHMARKS[name].title, found))
    return lines


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
def config_of(given: dict) -> tuple[BenchConfig, dict]:
    """(settings, the options of the first checkpoint's run). Raises UserError."""
    names = given["checkpoints"]
    for name in names:
        if is_run(Path(name)):
            raise UserError(f"{name} is a run folder: give its checkpoints, such as {name}/sdzero")
    of_run = options_of_their_run(names)
    taken = {name: value for name, value in of_run.items() if name not in OWN}
    # --revise of sdzero.py is another: which answers phase 1 revises
    options = {"model": names[0], "revise": False, **taken, **given}
    cfg = sdzero.make_config(BenchConfig, **options)
    return cfg, of_run


def questions_of(cfg: BenchConfig, of_run: dict) -> dict[str, list[dict]]:
    """{benchmark: its questions}. Raises UserError."""
    days(cfg)
    questions = {}
    for name, file in chosen(cfg.bench).items():
        task = BENCHMARKS[name].task
        # a run's --data is the source of the held-out questions of its own task alone
        data = cfg.data if RUN_OF.get(of_run.get("task", task)) == name else ""
        questions[name] = benchmark_questions(name, file, replace(cfg, task=task, data=data))
    return questions


def main(words: list[str]) -> int:
    """`eval.py bench`. Raises UserError."""
    given = parse_options(words, BenchConfig, __doc__, SHOWN, prog="eval.py bench")
    cfg, of_run = config_of(given)
    out = Path(cfg.out)
    questions = questions_of(cfg, of_run)
    own_folder(out, "bench", "bench.json", *files_of(cfg, list(questions)))
    lines = overlaps(cfg, of_run, questions)
    bench, results = Bench(cfg, questions), {}
    try:
        for checkpoint in cfg.checkpoints:
            results[checkpoint] = {name: bench.result(checkpoint, name) for name in questions}
    finally:
        bench.close()
    first, *others = results.values()
    tests = {name: against(first, other) for name, other in zip(list(results)[1:], others)}
    summary = {
        "benchmarks": list(questions),
        "k": cfg.eval_samples,
        **sampling_of(cfg),
        "checkpoints": results,
        "against_first": tests,
        "overlap": lines,
    }
    kit.files.write_json(out / "bench.json", summary)
    print(report(summary, cfg.paper))
    return 0


def files_of(cfg: BenchConfig, names: list[str]) -> list[str]:
    """What a command may write into OUT, beside bench.json."""
    files = []
    for checkpoint in cfg.checkpoints:
        folder = slug_of(checkpoint)
        files += [f"{folder}/{name}.{end}" for name in names for end in ("json", "rollouts.jsonl")]
    return files


def against(first: dict, other: dict) -> dict:
    """Paired tests on every benchmark."""
    tests = {}
    for name in first:
        means = [np.mean(result[name]["scores"], 1) for result in (first, other)]  # (n,) each
        tests[name] = paired_test(*means)
    return tests
