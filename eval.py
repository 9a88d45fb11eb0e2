"""Compare checkpoints on the same questions, or methods on the same budget.

    python eval.py tiny out/tiny-arith-0/srt out/tiny-arith-0/sdzero --revise
    python eval.py Qwen/Qwen3-4B-Instruct-2507 out/mine/sdzero --task math --eval-samples 8 --json eval.json
    python eval.py out/tiny-arith-0 out/tiny-arith-1 out/tiny-arith-2      # whole runs: the mean over them of what each measured
    python eval.py compare                        # trains every method at several budgets and seeds: the paper's comparison
    python eval.py compare --table ablations      # the same for the ablations
    python eval.py localise out/tiny-arith-0      # where in an answer the reviser disagrees: figure and HTML page
    python eval.py evolve out/tiny-arith-0        # accuracy, length, revision words and KL as phase 2 went

For checkpoints it prints avg@k and pass@k at the sampling temperature, greedy accuracy, lengths and truncation, each accuracy with a 95 % interval,
and a paired test of every checkpoint against the first. --revise adds the paper's generate-then-revise table. Where a checkpoint
lies in a run folder, the run's task, data, digits, seed and sampling settings are the defaults, so its test questions are used.
"""
import json
import math
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

import sdzero
from options import option, parse_options
from report import curve, evolution_figure, interval, localisation_figure, percent, table, token_page
from runs import read_json, replace_file, write_json

SHOWN = {"checkpoints", "task", "data", "digits", "seed", "eval_questions", "eval_samples", "eval_split", "device", "dtype",
         "chat_template", "unsafe_exec", "rephrase_phrase", "correct_phrase", "temperature", "max_tokens", "rollout_batch", "revise", "json"}


@dataclass
class EvalConfig(sdzero.Config):
    checkpoints: list = option((), "hub id, checkpoint folder, .gguf file or 'tiny', the first being what the others are compared "
                                        "with; or run folders")
    revise: bool = option(False, "add generate-then-revise: revised accuracy and correction rate")
    json: str = option("", "also write everything to this file")


def run_settings(checkpoints: list[str]) -> dict:
    """The question and sampling settings of the first checkpoint that lies in a run folder; empty where none does."""
    for checkpoint in checkpoints:
        if (Path(checkpoint) / "results.json").is_file():
            raise sdzero.UserError(f"{checkpoint} is a run folder, not a checkpoint: give run folders alone, or {checkpoint}/sdzero")
        file = Path(checkpoint).parent / "config.json"
        if file.is_file() and Path(checkpoint).is_dir():
            saved = json.loads(file.read_text())
            names = {f.name for f in fields(sdzero.Config)} & (SHOWN | {"srt_questions", "distil_questions"}) - {"device", "dtype"}
            if "srt_questions" in saved:
                return {k: v for k, v in saved.items() if k in names}
    return {}


def pass_at_k(scores, k: int) -> float:
    """Unbiased estimate of P(at least one of k samples is right): mean over questions of 1 - C(n - c, k) / C(n, k).

    scores (questions, n) of 0 or 1; raises ValueError for k > n.
    """
    n = len(scores[0])
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples per question, not {n}")
    return float(np.mean([1 - math.comb(n - int(sum(row)), k) / math.comb(n, k) for row in scores]))


def paired_test(a, b, flips: int = 10_000, seed: int = 0) -> dict:
    """b - a for per-question scores (n,): mean, 95 % interval, and the two-sided p of a sign-flip test.

    If the two were equally good, each question's difference would be as likely with the other sign.
    """
    d = np.asarray(b, float) - np.asarray(a, float)
    half = 1.959964 * d.std(ddof=1) / math.sqrt(len(d)) if len(d) > 1 else float("inf")
    d_nonzero = d[d != 0]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (flips, len(d_nonzero)))  # (flips, questions that differ)
    extreme = np.abs(signs @ d_nonzero) >= abs(d_nonzero.sum()) - 1e-9
    return {"difference": float(d.mean()), "ci": [float(d.mean() - half), float(d.mean() + half)],
            "p": float((extreme.sum() + 1) / (flips + 1)), "wins": int((d > 0).sum()), "losses": int((d < 0).sum())}


def compare(cfg: EvalConfig) -> dict:
    """Evaluate every checkpoint; returns what --json writes."""
    questions = sdzero.load_questions(cfg)[cfg.eval_split]
    results, k = {}, cfg.eval_samples
    with sdzero.make_grader(cfg) as grader:
        for checkpoint in cfg.checkpoints:
            cfg.model = checkpoint
            tokenizer, model = sdzero.load_tokenizer_and_model(cfg)
            end_ids = sdzero.end_token_ids(tokenizer, model)
            phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(cfg, model.config.model_type))
            r = sdzero.evaluate(model, tokenizer, grader, questions, cfg, phrases, end_ids, desc=checkpoint, revise=cfg.revise)
            r["pass_at_k"] = {str(j): pass_at_k(r["scores"], j) for j in range(1, k + 1) if j & (j - 1) == 0 or j == k}
            results[checkpoint] = r
    first = results[cfg.checkpoints[0]]
    tests = {name: {"accuracy": paired_test(np.mean(first["scores"], 1), np.mean(r["scores"], 1)),
                    "accuracy_greedy": paired_test(first["greedy_scores"], r["greedy_scores"])} for name, r in list(results.items())[1:]}
    return {"questions": len(questions), "split": cfg.eval_split, "samples_per_question": k, "temperature": cfg.temperature,
            "checkpoints": results, "against_first": tests}


def report(out: dict, revise: bool) -> str:
    """The tables of compare()'s result."""
    results, k = out["checkpoints"], out["samples_per_question"]
    text = [f"{out['questions']} {out['split']} questions, {k} samples each at T = {out['temperature']}; 95 % intervals in brackets",
            table([["checkpoint", f"avg@{k} %", f"pass@{k} %", "greedy %", "tokens", "cut off %"]] + [
                [name, percent(r, "accuracy"), f"{100 * r['pass_at_k'][str(k)]:.1f}", percent(r, "accuracy_greedy"),
                 f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}"] for name, r in results.items()])]
    if revise:
        text.append("generate, then revise (the first sample of each question)\n" + table(
            [["checkpoint", "initial tokens", "revised tokens", "initial acc. %", "revised acc. %", "correction rate %"]] + [
                [name, f"{r['initial_tokens']:.1f}", f"{r['revised_tokens']:.1f}", f"{100 * r['initial_accuracy']:.1f}",
                 percent(r, "revised_accuracy"), percent(r, "correction_rate")] for name, r in results.items()]))
    if out["against_first"]:
        rows = [["against " + next(iter(results)), "difference, points", "wins", "losses", "p (sign-flip test)"]]
        for name, tests in out["against_first"].items():
            for key, label in (("accuracy", f"avg@{k}"), ("accuracy_greedy", "greedy")):
                t = tests[key]
                rows.append([f"{name} {label}", f"{100 * t['difference']:+.1f} [{100 * t['ci'][0]:+.1f}, {100 * t['ci'][1]:+.1f}]",
                             str(t["wins"]), str(t["losses"]), f"{t['p']:.4f}"])
        text.append("paired by question\n" + table(rows))
    return "\n\n".join(text)


T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t for 1 to 9 degrees of freedom


def over_seeds(values) -> tuple[float, float, float]:
    """Mean of one value per seed and its 95 % t-interval (infinite for a single seed)."""
    values = np.asarray(values, float)
    n = len(values)
    t = math.inf if n < 2 else T_975[n - 2] if n - 2 < len(T_975) else 1.96 + 2.5 / (n - 1)
    half = t * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.inf
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def over_runs(runs: list[dict]) -> dict:
    """{key: {"mean", "ci", "values"}} over seeds; of a single run its own interval over questions, None where there is none.

    A correction rate is left out where no answer was wrong.
    """
    summary = {}
    for key in [k for k in runs[0] if not k.endswith("_ci")]:
        values = [r[key] for r in runs if r[key] is not None]
        mean, *ci = over_seeds(values) if values else (None, math.inf, math.inf)
        own = runs[0].get(key + "_ci") if len(runs) == 1 else None
        summary[key] = {"mean": mean, "ci": ci if math.isfinite(ci[0]) else own, "values": values}
    return summary


def mean_cell(value: dict, scale: float = 100.0, digits: int = 1, bounds: bool = True) -> str:
    """One of over_runs as a table shows it: mean [low, high]."""
    brackets = " [{:.{d}f}, {:.{d}f}]".format(*(scale * x for x in value["ci"]), d=digits) if bounds and value["ci"] else ""
    return "-" if value["mean"] is None else f"{scale * value['mean']:.{digits}f}{brackets}"


def summarise(folders: list[str]) -> dict:
    """{stage: {key: {"mean", "ci", "values"}}} over the results.json of several runs, for the stages that all of them have."""
    runs = [read_results(Path(f)) for f in folders]
    keys = ("accuracy", "accuracy_greedy", "mean_tokens", "truncated", "revised_accuracy", "correction_rate")
    names = [*keys, *(f"{key}_ci" for key in keys)]
    return {stage: over_runs([{key: r[stage].get(key) for key in names} for r in runs]) for stage in runs[0] if all(stage in r for r in runs)}


def summary_table(summary: dict, n: int) -> str:
    """Mean over runs with 95 % t-intervals (of one run: Wilson's, over questions)."""
    rows = [[f"mean of {n} runs", "sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %", "correction rate %"]]
    return table(rows + [[stage] + [mean_cell(v, 1 if k == "mean_tokens" else 100) for k, v in values.items()] for stage, values in summary.items()])


# ----------------------------------------------------------------------------------------------------------------------------
# compare: every method at the same budgets of samples, over several seeds
# ----------------------------------------------------------------------------------------------------------------------------
def rows_of(name: str, samples: int, **given) -> dict[str, dict]:
    """{row: options of sdzero.py} of a table at a budget of so many samples, beside those `given` for every row."""
    tiny = sdzero.is_tiny(given.get("model", sdzero.Config.model))
    if name == "methods":
        epochs = lambda n: {"srt_epochs": n} if tiny and "srt_epochs" not in given else {}  # noqa: E731 - tuned as TINY was
        return {"SD-Zero": {}, "SD-Zero with L_answer": {"l_answer": True, **epochs(32)}, "SRT (phase 1 alone)": {"method": "srt"},
                "RFT": {"method": "rft"}, "iterated RFT": {"method": "rft", "rounds": 8, **epochs(8)},
                "RFT on verified revisions": {"method": "rft", "on_revisions": True, **epochs(32)}, "GRPO": {"method": "grpo"},
                "SDFT": {"method": "sdft"}, "SFT on demonstrations": {"method": "sft"}}
    usual = sdzero.make_config(**given, samples=samples)
    first = usual.srt_questions * usual.first_answers * (1 + usual.revisions)
    longer = {"samples": samples * 3 // 2, "srt_share": first / (samples * 3 // 2)}  # only phase 2 is longer
    rows = {"SD-Zero": {}, "L_revision only": {"l_revision": True, "l_generation": "none"},
            "L_generation only": {"l_revision": False, "l_generation": "all"}, "both": {"l_revision": True, "l_generation": "all"},
            "L_generation of wrong answers only": {"l_generation": "wrong"}, "with L_answer": {"l_answer": True}, "no SRT": {"phase1": False},
            "unfiltered revisions": {"filtered": False}, "flipped reward": {"flip_reward": True}, "phase 1 gets 1/3": {"srt_share": 1 / 3},
            "phase 1 gets 2/3": {"srt_share": 2 / 3}, "phase 1 gets 9/10": {"srt_share": 0.9}, "forward KL": {"divergence": "forward"},
            "mixed KL": {"divergence": "mixed"}, "2 rounds": {"rounds": 2}, "4 rounds": {"rounds": 4},
            "teacher synchronised every 16 steps": {"sync_every": 16},
            "phase 2 longer": longer, "phase 2 longer, 2 rounds": {**longer, "rounds": 2}}
    del rows["L_revision only" if tiny else "both"]  # which is SD-Zero's default there
    return rows


@dataclass
class CompareConfig(sdzero.Config):
    table: Literal["methods", "ablations"] = option("methods", "methods: SD-Zero, the paper's baselines and two more; ablations: parts of SD-Zero")
    seeds: int = option(5, "runs of each row, with seeds 0, 1, ...")
    budgets: str = option("", "numbers of samples, with commas; empty: 1536,4608 with the embedded model, 15000,60000 with another; "
                                     "ablations: the largest")
    rows: str = option("", "only these rows of the table, with commas (names as they are printed); empty: all")
    jobs: int = option(0, "runs at once; 0: one per core with the embedded model, else one")


def as_flags(options: dict) -> list[str]:
    """Options as a command line of sdzero.py."""
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        flags += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return flags


def train_once(options: dict, threads: int, shared: list[Path]) -> Path:
    """Run sdzero.py with these options in a process of its own, unless its folder is complete; returns the folder.

    The evaluation of the base is taken from a run folder in `shared` that has it: of one seed it is the same for every row.
    Raises UserError with the last line of the run's log where it failed.
    """
    cfg = sdzero.make_config(**options)
    folder = Path(cfg.out)
    results = read_results(folder)
    if not {"base", cfg.method} <= set(results) or (folder / "state").exists() or not same_options(folder, cfg, [f.name for f in fields(sdzero.Config)]):
        folder.mkdir(parents=True, exist_ok=True)
        asked = ["model", "task", "data", "digits", "seed", "dtype", "device", "temperature", "max_tokens", "rollout_batch", "eval_questions",
                 "eval_samples", "eval_split", "chat_template", "rephrase_phrase", "correct_phrase"]
        for other in shared if not results else ():
            if (base := read_results(other).get("base")) and same_options(other, cfg, asked):
                write_json(folder / "results.json", {"base": base})
                break
        command = [sys.executable, str(Path(sdzero.__file__).resolve()), *as_flags(options)]
        with (folder / "log.txt").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}).returncode
        if code:
            lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise sdzero.UserError(f"{shlex.join(command)} ended with code {code}; its log says: {lines[-1]}")
    return folder


def read_results(folder: Path) -> dict:
    return read_json(folder / "results.json") if (folder / "results.json").is_file() else {}


def same_options(folder: Path, cfg, names) -> bool:
    """Whether the run in `folder` was started with cfg's values of these options."""
    saved = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return all(saved.get(name) == getattr(cfg, name) for name in names if name != "fresh")


def measured(folder: Path, method: str) -> dict:
    """What the table shows of one run, and of its base."""
    def shown(r):
        rates = {key: r[key] for name in ("accuracy", "accuracy_greedy", "revised_accuracy", "correction_rate") for key in (name, name + "_ci")}
        return {**rates, "pass_at_8": pass_at_k(r["scores"], min(8, len(r["scores"][0]))), "mean_tokens": r["mean_tokens"]}

    results, last = read_results(folder), json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    totals = {"samples": last["samples"], "trained_tokens": last["trained"], "seconds": last["seconds"]}
    return {"run": {**totals, **shown(results[method])}, "base": {**dict.fromkeys(totals, 0), **shown(results["base"])}}


def compare_methods(given: dict) -> dict:
    """Train every row of the table at every budget with every seed; returns what results.json holds.

    Options of sdzero.py that were given hold for every run. Runs are resumed and finished ones are kept, so that the same command
    goes on after a stop.
    """
    own = {f.name for f in fields(CompareConfig)} - {f.name for f in fields(sdzero.Config)} | {"out", "seed", "samples", "method", "fresh"}
    cfg, passed = sdzero.make_config(CompareConfig, **given), {k: v for k, v in given.items() if k not in own}
    tiny = sdzero.is_tiny(cfg.model)
    if tiny:
        passed = {"eval_samples": 8, "eval_questions": 250, **passed}
    out = Path(given.get("out") or "out/compare")
    try:
        budgets = sorted({int(b) for b in (cfg.budgets or ("1536,4608" if tiny else "15000,60000")).split(",")})
    except ValueError:
        raise sdzero.UserError(f"--budgets {cfg.budgets}: give whole numbers with commas, as in 1536,4608") from None
    budgets = budgets if cfg.table == "methods" or cfg.budgets else budgets[-1:]
    rows = {budget: rows_of(cfg.table, budget, **passed) for budget in budgets}
    names = list(rows[budgets[0]])
    chosen = [name.strip() for name in cfg.rows.split(",")] if cfg.rows else names
    if unknown := set(chosen) - set(names):
        raise sdzero.UserError(f"--rows: no row {', '.join(map(repr, unknown))} in this table; there are {', '.join(map(repr, names))}")
    todo = []  # (seed, budget, row, options)
    for seed in range(cfg.seeds):
        for budget in budgets[::-1]:
            for row in chosen:
                options = {"samples": budget, **passed, **rows[budget][row], "seed": seed}
                folder = out / "runs" / f"{re.sub('[^a-z0-9]+', '-', row.lower()).strip('-')}-{budget}-{seed}"
                todo.append((seed, budget, row, {**options, "out": str(folder)}))
    for *_, options in todo:
        sdzero.make_config(**options)  # a bad option is said before the first run, not after hours
    out.mkdir(parents=True, exist_ok=True)
    jobs = cfg.jobs or (os.cpu_count() if tiny else 1)
    done, failed, threads = {}, [], max(1, os.cpu_count() // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {}
        for job in todo:
            shared = [Path(o["out"]) for seed, _, _, o in todo if seed == job[0]]
            futures[pool.submit(train_once, job[3], threads, shared)] = job
        try:
            for n, future in enumerate(as_completed(futures), 1):
                seed, budget, row, options = futures[future]
                try:
                    done[row, budget, seed] = r = measured(future.result(), options.get("method", "sdzero"))
                    print(f"[{n}/{len(todo)}] {row}, {budget} samples, seed {seed}: {100 * r['run']['accuracy']:.1f} % sampled, "
                          f"{100 * r['run']['accuracy_greedy']:.1f} % greedy, {r['run']['seconds']:.0f} s", flush=True)
                except sdzero.UserError as e:
                    failed.append(str(e))
                    print(f"[{n}/{len(todo)}] {row}, {budget} samples, seed {seed}: {e}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the runs at hand have had the Ctrl-C too, and save
            raise
    table, bases = [], {seed: r["base"] for (_, _, seed), r in done.items()}
    if bases:
        table.append({"method": "base", "budget": 0, **over_runs(list(bases.values()))})
    for budget in budgets:
        for row in chosen:
            runs = {seed: done[row, budget, seed]["run"] for seed in range(cfg.seeds) if (row, budget, seed) in done}
            if runs:
                line = {"method": row, "budget": budget, "seeds": sorted(runs), **over_runs(list(runs.values()))}
                ours = {seed: done["SD-Zero", budget, seed]["run"] for seed in runs if ("SD-Zero", budget, seed) in done}
                if row != "SD-Zero" and ours:  # paired by seed: the same questions and the same samples' seeds
                    line["sdzero_leads_by"] = over_runs([{key: ours[s][key] - runs[s][key] for key in ("accuracy", "accuracy_greedy")} for s in ours])
                table.append(line)
    return {"table": cfg.table, "model": cfg.model, "task": cfg.task, "options": passed, "rows": table, "failed": failed}


def comparison_table(out: dict) -> str:
    """The table that compare prints: means over seeds, with 95 % t-intervals (of one seed: Wilson's, over questions)."""
    mean = lambda value, scale=1.0, digits=0: mean_cell(value, scale, digits, bounds=False)  # noqa: E731
    rows = [["method", "samples", "trained tokens", "seconds", "sampled acc. %", "greedy acc. %", "pass@8 %", "tokens", "revised acc. %",
             "correction rate %", "SD-Zero leads by (sampled)"]]
    for r in out["rows"]:
        lead = r.get("sdzero_leads_by", {}).get("accuracy")
        rows.append([r["method"], mean(r["samples"]), mean(r["trained_tokens"]), mean(r["seconds"]), mean_cell(r["accuracy"]), mean_cell(r["accuracy_greedy"]),
                     mean(r["pass_at_8"], 100, 1), mean(r["mean_tokens"], 1, 1), mean_cell(r["revised_accuracy"]), mean_cell(r["correction_rate"]),
                     mean_cell(lead) if lead else ""])
    return table(rows)


# ----------------------------------------------------------------------------------------------------------------------------
# localise: where in an answer the reviser disagrees (the paper's figure 4)
# ----------------------------------------------------------------------------------------------------------------------------
@dataclass
class LocaliseConfig(sdzero.Config):
    run: list = option((), "run folder of sdzero.py")
    answers: int = option(200, "sampled answers, to as many test questions")
    students: str = option("base,srt,sdzero", "whose answers, with commas: base and the checkpoints in RUN; what RUN lacks is left out")
    shown: int = option(6, "wrong and right answers of each student on the HTML page")


def buckets(values, n: int = 20) -> np.ndarray:
    """Values of one answer's tokens, the largest first, in n equal parts: the mean of each (n,). Short answers share tokens."""
    values, count = np.sort(np.asarray(values, float))[::-1], len(values)
    return np.array([values[j * count // n:max(j * count // n + 1, -(-(j + 1) * count // n))].mean() for j in range(n)])


def top_share(values, share: float = 0.1) -> float:
    """The part of a sum of non-negative values that lies in the largest `share` of them."""
    values = np.sort(np.asarray(values, float))[::-1]
    return float(values[:math.ceil(share * len(values))].sum() / values.sum()) if values.sum() > 0 else math.nan


def first_difference(ids: list[int], right: list[int]) -> int | None:
    """Place of the first token of an answer that is not that of the right one; None where there is none."""
    return next((t for t, token in enumerate(ids) if t >= len(right) or token != right[t]), None)


def token_rewards(student, teacher, samples: list[dict], cfg) -> None:
    """Give each sample "token_reward", log student(y_t | x, y_<t) - log teacher(y_t | x, y, P_r, y_<t), and "kl", phase 2's loss, per token.

    Positive where the reviser, who has read the whole answer and its verdict, finds the token less likely than the generator did.
    """
    for rows in sdzero.micro_batches([len(s["teacher_context"]) + len(s["ids"]) for s in samples], cfg.micro_tokens or 2048):
        ids = [samples[i]["ids"] for i in rows]
        targets = torch.tensor([t for r in ids for t in r], device=student.device)  # (N,)
        with torch.no_grad():
            hidden, teacher_hidden = (sdzero.response_hidden(model, [samples[i][key] for i in rows], ids)  # (N, H)
                                      for model, key in ((student, "context"), (teacher, "teacher_context")))
            reward = sdzero.nll_loss(teacher, teacher_hidden, targets)[1] - sdzero.nll_loss(student, hidden, targets)[1]  # (N,)
            kl = sdzero.distillation_loss(student, hidden, teacher, teacher_hidden, cfg.divergence)[1]  # (N,)
        lengths = [len(r) for r in ids]
        for i, r, k in zip(rows, reward.split(lengths), kl.split(lengths)):
            samples[i]["token_reward"], samples[i]["kl"] = r.tolist(), k.tolist()


def scored_answers(student, tokenizer, teacher, grader, questions, cfg, end_ids, phrases) -> list[dict]:
    """Sampled answers of `student` to the questions, with every token's reward and, on the embedded task, the place of the first wrong one."""
    samples = sdzero.rollouts(student, tokenizer, grader, questions, [sdzero.chat_ids(tokenizer, q["prompt"]) for q in questions], cfg, end_ids,
                              sdzero.derived_seed("localise", cfg.seed), desc="answers")
    for s in samples:
        s["teacher_context"] = sdzero.reviser_ids(s["context"], s["ids"], s["reward"], phrases, end_ids)
        s["tokens"] = [tokenizer.decode([t]) for t in s["ids"]]
        if cfg.task == "arith" and not s["reward"]:  # the right transcript is known
            right = tokenizer.encode(s["question"]["demonstration"], add_special_tokens=False) + [end_ids[-1]]
            s["first_wrong"] = first_difference(s["ids"], right)
    token_rewards(student, teacher, samples, cfg)
    return samples


def localisation(samples: list[dict]) -> dict:
    """The figures of one student's answers: token rewards in buckets, concentration of the KL, and where it peaks."""
    out = {"answers": {}, "buckets": {}, "top_tenth_of_kl": {}, "kl_per_answer": {}}
    for kind, reward in (("wrong", 0), ("right", 1)):
        group = [s for s in samples if s["reward"] == reward]
        out["answers"][kind] = len(group)
        if group:
            curves = np.array([buckets(s["token_reward"]) for s in group])  # (answers, 20)
            half = 1.96 * curves.std(0, ddof=1) / math.sqrt(len(group)) if len(group) > 1 else np.zeros(20)
            out["buckets"][kind] = {"mean": curves.mean(0).tolist(), "half": half.tolist()}
            out["top_tenth_of_kl"][kind] = float(np.nanmean([top_share(s["kl"]) for s in group]))
            out["kl_per_answer"][kind] = float(np.mean([sum(s["kl"]) for s in group]))
    placed = [s for s in samples if s.get("first_wrong") is not None]
    if placed:
        hits = [float(np.argmax(s["token_reward"]) == s["first_wrong"]) for s in placed]
        out["peak_at_first_wrong_token"] = {"share": float(np.mean(hits)), "ci": interval(hits), "answers": len(hits),
                                            "by_chance": float(np.mean([1 / len(s["ids"]) for s in placed]))}
    return out


def localise(given: dict) -> dict:
    """Sample answers, score their tokens, write RUN/localise.json, .png and .html; returns what the json holds.

    The reviser is phase 2's teacher: RUN/srt, or the base where the run had no phase 1.
    """
    folder = Path(given["run"][0])
    if not (folder / "config.json").is_file():
        raise sdzero.UserError(f"{folder} is not a run folder: it has no config.json")
    names = {f.name for f in fields(sdzero.Config)} - {"plan", "fresh"}
    cfg = sdzero.make_config(LocaliseConfig, **{**{k: v for k, v in read_json(folder / "config.json").items() if k in names}, "flip_reward": False,
                                                "samples": 0, **given})
    checkpoints = {"base": cfg.model, **{name: str(folder / name) for name in cfg.students.split(",") if (folder / name).is_dir()}}
    checkpoints = {name: path for name, path in checkpoints.items() if name in cfg.students.split(",")}
    reviser = str(folder / "srt") if (folder / "srt").is_dir() else cfg.model
    if not checkpoints:
        raise sdzero.UserError(f"--students {cfg.students}: {folder} has none of them; base is always there")
    questions = sdzero.load_questions(cfg)[cfg.eval_split][:cfg.answers]
    tokenizer, teacher = sdzero.load_tokenizer_and_model(replace(cfg, model=reviser))
    end_ids = sdzero.end_token_ids(tokenizer, teacher)
    phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(cfg, teacher.config.model_type))
    result, page = {"reviser": reviser, "students": {}}, {}
    with sdzero.make_grader(cfg) as grader:
        for name, path in checkpoints.items():
            student = sdzero.load_tokenizer_and_model(replace(cfg, model=path))[1]
            samples = scored_answers(student, tokenizer, teacher, grader, questions, cfg, end_ids, phrases)
            result["students"][name] = localisation(samples)
            for kind, reward in (("wrong", 0), ("right", 1)):
                page[f"{kind} answers of {name}"] = [s for s in samples if s["reward"] == reward][:cfg.shown]
    write_json(folder / "localise.json", result)
    localisation_figure(folder / "localise.png", result["students"])
    text = token_page(f"Where the reviser disagrees: {folder.name}", page)
    replace_file(folder / "localise.html", lambda p: p.write_text(text, encoding="utf-8"))
    print(f"page: {folder / 'localise.html'}")
    return result


def localisation_report(result: dict) -> str:
    """localise's tables."""
    students = result["students"]
    columns = [(name, kind, r) for name, r in students.items() for kind in r["buckets"]]
    text = [f"read again by {result['reviser']}; mean token reward in nats, an answer's tokens sorted by it",
            table([["part", *(f"{name}, {kind}" for name, kind, _ in columns)]] + [
                [f"{5 * j}-{5 * j + 5} %", *(f"{r['buckets'][kind]['mean'][j]:+.3f}" for _, kind, r in columns)] for j in range(20)]), "",
            table([["answers of", "", "number", "KL of an answer, nats", "share of the KL in its top 10 % of tokens, %"]] + [
                [name, kind, str(r["answers"][kind]), f"{r['kl_per_answer'][kind]:.2f}", f"{100 * r['top_tenth_of_kl'][kind]:.1f}"]
                for name, kind, r in columns])]
    for name, r in students.items():
        if p := r.get("peak_at_first_wrong_token"):
            text.append(f"{name}: the highest token reward is the first wrong token in {100 * p['share']:.1f} % [{100 * p['ci'][0]:.1f}, "
                        f"{100 * p['ci'][1]:.1f}] of {p['answers']} wrong answers (by chance: {100 * p['by_chance']:.1f} %)")
    return "\n".join(text)


# ----------------------------------------------------------------------------------------------------------------------------
# evolve: how a run went (the paper's self-evolution)
# ----------------------------------------------------------------------------------------------------------------------------
def evolution(folder: Path) -> str:
    """Write RUN/evolution.png; returns the table of initial and revised accuracy before and after each round."""
    if not (folder / "metrics.jsonl").is_file() or not (results := read_results(folder)):
        raise sdzero.UserError(f"{folder} is not the folder of a finished run: it lacks metrics.jsonl or results.json")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evolution_figure(folder / "evolution.png", results, metrics)
    return table([["", "initial acc. %", "revised acc. %", "tokens", "revised tokens", "revision words"]] + [
        [name, f"{100 * r['initial_accuracy']:.1f}", f"{100 * r['revised_accuracy']:.1f}", f"{r['initial_tokens']:.1f}", f"{r['revised_tokens']:.1f}",
         f"{r['revision_words']:.2f}"] for name, r in results.items()])


def main(argv: list[str] | None = None) -> int:
    command, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    try:
        if command == "compare":
            given = parse_options(rest, CompareConfig, __doc__)
            out = compare_methods(given)
            folder = Path(given.get("out") or "out/compare")
            write_json(folder / ("results.json" if out["table"] == "methods" else "ablations.json"), out)
            print(comparison_table(out))
            if out["table"] == "methods":
                curve(folder / "curve.png", out)
            for line in out["failed"]:
                print(f"failed: {line}", file=sys.stderr)
            return 1 if out["failed"] else 0
        if command == "localise":
            print(localisation_report(localise(parse_options(rest, LocaliseConfig, __doc__, {"answers", "students", "shown", "device", "unsafe_exec"}))))
            return 0
        if command == "evolve":
            print(evolution(Path(rest[0]) if rest else Path("out/tiny-arith-0")))
            return 0
        given = parse_options(argv, EvalConfig, __doc__, SHOWN)
        if all((Path(c) / "results.json").is_file() for c in given["checkpoints"]):
            out = summarise(given["checkpoints"])
            print(summary_table(out, len(given["checkpoints"])))
            if given.get("json"):
                write_json(Path(given["json"]), out)
            return 0
        given.setdefault("model", given["checkpoints"][0])
        cfg = sdzero.make_config(EvalConfig, **{**run_settings(given["checkpoints"]), **given})
        out = compare(cfg)
        print(report(out, cfg.revise))
        if cfg.json:
            write_json(Path(cfg.json), out)
    except sdzero.UserError as e:
        print(f"eval: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("eval: stopped. The same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
