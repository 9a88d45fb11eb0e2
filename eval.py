"""Compare checkpoints on the same questions, with the same seeds.

    python eval.py tiny out/tiny-arith-0/srt out/tiny-arith-0/sdzero --revise
    python eval.py Qwen/Qwen3-4B-Instruct-2507 out/mine/sdzero --task math --eval-samples 8 --json eval.json
    python eval.py out/tiny-arith-0 out/tiny-arith-1 out/tiny-arith-2      # whole runs: the mean over them of what each measured

Prints avg@k and pass@k at the sampling temperature, greedy accuracy, lengths and truncation, each accuracy with a 95 % interval,
and a paired test of every checkpoint against the first. --revise adds the paper's generate-then-revise table. Where a checkpoint
lies in a run folder, the run's task, data, digits, seed and sampling settings are the defaults, so its test questions are used.
"""
import json
import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

import sdzero
from report import percent, table

SHOWN = {"checkpoints", "task", "data", "digits", "seed", "eval_questions", "eval_samples", "eval_split", "device", "dtype",
         "chat_template", "unsafe_exec", "rephrase_phrase", "correct_phrase", "temperature", "max_tokens", "rollout_batch", "revise", "json"}


@dataclass
class EvalConfig(sdzero.Config):
    checkpoints: list = sdzero.option((), "hub id, checkpoint folder, .gguf file or 'tiny', the first being what the others are compared "
                                        "with; or run folders")
    revise: bool = sdzero.option(False, "add generate-then-revise: revised accuracy and correction rate")
    json: str = sdzero.option("", "also write everything to this file")


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


def summarise(folders: list[str]) -> dict:
    """{stage: {key: {"mean", "ci", "values"}}} over the results.json of several runs, for the stages that all of them have."""
    runs = [json.loads((Path(f) / "results.json").read_text()) for f in folders]
    keys = ("accuracy", "accuracy_greedy", "mean_tokens", "truncated", "revised_accuracy", "correction_rate")
    summary = {}
    for stage in [s for s in runs[0] if all(s in r for r in runs)]:
        summary[stage] = {}
        for key in keys:
            values = [r[stage][key] for r in runs if r[stage].get(key) is not None]
            mean, low, high = over_seeds(values) if values else (math.nan, math.nan, math.nan)
            summary[stage][key] = {"mean": mean, "ci": [low, high], "values": values}
    return summary


def summary_table(summary: dict, n: int) -> str:
    """Mean over runs with 95 % t-intervals."""
    scale = {"mean_tokens": 1}
    cell = lambda v, s: f"{s * v['mean']:.1f} [{s * v['ci'][0]:.1f}, {s * v['ci'][1]:.1f}]"  # noqa: E731
    rows = [[f"mean of {n} runs", "sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %", "correction rate %"]]
    return table(rows + [[stage] + [cell(v, scale.get(k, 100)) for k, v in values.items()] for stage, values in summary.items()])


def main(argv: list[str] | None = None) -> int:
    try:
        given = sdzero.parse_options(argv, EvalConfig, __doc__, SHOWN)
        if all((Path(c) / "results.json").is_file() for c in given["checkpoints"]):
            out = summarise(given["checkpoints"])
            print(summary_table(out, len(given["checkpoints"])))
            if given.get("json"):
                sdzero.write_json(Path(given["json"]), out)
            return 0
        given.setdefault("model", given["checkpoints"][0])
        cfg = sdzero.make_config(EvalConfig, **{**run_settings(given["checkpoints"]), **given})
        out = compare(cfg)
        print(report(out, cfg.revise))
        if cfg.json:
            sdzero.write_json(Path(cfg.json), out)
    except sdzero.UserError as e:
        print(f"eval: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
