"""Compare checkpoints on the same questions. Ten studies have a word of their own.

    python eval.py tiny out/tiny-arith-0/srt out/tiny-arith-0/sdzero --revise
    python eval.py Qwen/Qwen3-4B-Instruct-2507 out/mine/sdzero --task math --json eval.json
    python eval.py out/mine/sdzero --data FILE             # every question of a file
    python eval.py out/tiny-arith-0 out/tiny-arith-1       # whole runs: the mean over them

    python eval.py compare                       # trains every method at equal budgets of samples
    python eval.py compare --table ablations     # the same for parts of SD-Zero
    python eval.py tune                          # one search of settings for every method
    python eval.py localise out/tiny-arith-0     # where in an answer the reviser disagrees
    python eval.py copied out/tiny-arith-0       # does the reviser know what it writes?
    python eval.py evolve out/tiny-arith-0       # a run as it went
    python eval.py watch out/mine                # a run so far, as a table
    python eval.py page out/mine                 # a run on one HTML page
    python eval.py card out/mine                 # the README.md of its checkpoint
    python eval.py bench CKPT --bench aime24     # the paper's benchmarks, whole
    python eval.py paper out/mine                # the paper's tables, our rows beside them

For checkpoints it prints avg@k and pass@k at the sampling temperature, greedy accuracy, lengths and
truncation, each accuracy with a 95 % interval, and a paired test of every checkpoint against the
first. --revise adds the paper's generate-then-revise table. Where a checkpoint lies in a run
folder, the run's task, data, digits, seed and sampling settings are the defaults, so its test
questions are used; of a --data FILE that is given here, all are, unless --split says otherwise.
`python eval.py VERB --help` has more on each verb.
"""

import difflib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import kit
import sdzero
from kit.errors import UserError, exit_code
from kit.options import option, parse_options
from kit.tables import CORRECTION, net_correction, net_percent, percent, table
from studies import (
    benchmarks,
    card,
    compare,
    copied,
    evolve,
    localise,
    paper,
    run_page,
    tune,
    watch,
)
from studies.runs import (
    MEASURING,
    checkpoints_of,
    is_run,
    options_of_their_run,
    read_results,
    tell_of_other_seeds,
)
from studies.statistics import difference_cell, mean_cell, over_runs, paired_test, pass_at_k

VERBS = {"compare": compare.main, "localise": localise.main, "evolve": evolve.main}
VERBS |= {"watch": watch.main, "page": run_page.main, "card": card.main}
VERBS |= {"copied": copied.main, "bench": benchmarks.main, "paper": paper.main, "tune": tune.main}
SHOWN = {"checkpoints", "split", "revise", "json", "device", "dtype", *MEASURING}
SHOWN -= {"srt_questions", "distil_questions", "eval_split"}
ACCURACIES = ("accuracy", "accuracy_greedy")


@dataclass
class EvalConfig(sdzero.Config):
    checkpoints: list = option(
        (),
        "hub id, checkpoint folder, .gguf file or 'tiny', the first being what the others are "
        "compared with; or run folders",
    )
    split: Literal["", "all", "test", "val", "srt", "distil"] = option(
        "",
        "questions to ask: one of the four sets, or all of a --data file; empty: all of a file "
        "that is given here, else test",
        heading="report",
    )
    revise: bool = option(
        False, "add generate-then-revise: revised accuracy, and both rates of correction"
    )
    json: str = option("", "also write everything to this file")


# --------------------------------------------------------------------------------------------------
# Checkpoints, side by side
# --------------------------------------------------------------------------------------------------
def refuse_run_folders(checkpoints: list[str]) -> None:
    """Raise UserError for a run folder among the checkpoints."""
    for checkpoint in map(Path, checkpoints):
        if is_run(checkpoint):
            raise UserError(
                f"{checkpoint} is a run folder, not a checkpoint: give run folders alone, or "
                f"{checkpoint / (last_stage(checkpoint) or 'a checkpoint, once there is one')}"
            )


def last_stage(folder: Path) -> str:
    """The name of a run's last checkpoint; empty where it has none yet."""
    return (checkpoints_of(folder) or [""])[-1]


def split_of(given: dict, of_run: dict) -> str:
    """Which questions are asked: --split, --eval-split, or what they are unless these say so."""
    if given.get("split") or given.get("eval_split"):
        return given.get("split") or given["eval_split"]
    return "all" if given.get("data") else of_run.get("eval_split", "test")


def questions_to_ask(cfg: EvalConfig, given: dict) -> list[dict]:
    """The questions of cfg.split; of all of a file the first --eval-questions, where that is given.
    Raises UserError."""
    if cfg.split != "all":
        return kit.questions.load_questions(cfg)[cfg.split]
    if not cfg.data:
        raise UserError("--split all is all of a --data file: give one, or --split test")
    asked = kit.questions.whole_file(cfg)
    return asked[: cfg.eval_questions] if "eval_questions" in given else asked


def evaluate_checkpoints(cfg: EvalConfig, asked: list[dict]) -> dict:
    """Ask every checkpoint the same questions; returns what --json writes."""
    k, results = cfg.eval_samples, {}
    with sdzero.make_grader(cfg) as grader:
        for checkpoint in cfg.checkpoints:
            run = model = None  # two models may not fit
            own = replace(cfg, model=checkpoint)
            tokenizer = kit.loading.load_tokenizer(own)
            kit.loading.check_prompts(tokenizer, asked, checkpoint)
            questions = {cfg.split: asked}
            run, model = sdzero.prepare(own, tokenizer, grader, questions, trains=False)
            result = sdzero.evaluate(run, model, asked, checkpoint, revise=cfg.revise)
            result["net_correction_rate"] = net_correction(result)
            ks = [j for j in range(1, k + 1) if j & (j - 1) == 0 or j == k]  # 1, 2, 4, ... and k
            result["pass_at_k"] = {str(j): pass_at_k(result["scores"], j) for j in ks}
            results[checkpoint] = result
    first, *others = results
    return {
        "questions": len(asked),
        "split": cfg.split,
        "samples_per_question": k,
        "temperature": cfg.eval_temperature or cfg.temperature,
        "checkpoints": results,
        "against_first": {name: paired(results[first], results[name]) for name in others},
    }


def paired(first: dict, other: dict) -> dict:
    """Paired tests of one evaluation against another on the same questions."""
    means = [np.mean(result["scores"], 1) for result in (first, other)]  # (questions,) each
    return {
        "accuracy": paired_test(*means),
        "accuracy_greedy": paired_test(first["greedy_scores"], other["greedy_scores"]),
    }


def checkpoints_report(out: dict, revise: bool) -> str:
    """The tables of what evaluate_checkpoints() returns."""
    text = [
        f"{out['questions']} {out['split']} questions, {out['samples_per_question']} samples each "
        f"at T = {out['temperature']}; 95 % intervals in brackets",
        accuracy_table(out),
    ]
    if revise:
        title = "generate, then revise (the first sample of each question)\n"
        text.append(f"{title}{revision_table(out['checkpoints'])}\n{CORRECTION}")
    if out["against_first"]:
        text.append("paired by question\n" + paired_table(out))
    return "\n\n".join(text)


def accuracy_table(out: dict) -> str:
    k = out["samples_per_question"]
    rows = [["checkpoint", f"avg@{k} %", f"pass@{k} %", "greedy %", "tokens", "cut off %"]]
    for name, r in out["checkpoints"].items():
        sampled, greedy = (percent(r, key) for key in ACCURACIES)
        pass_k, cut_off = f"{100 * r['pass_at_k'][str(k)]:.1f}", f"{100 * r['truncated']:.1f}"
        rows.append([name, sampled, pass_k, greedy, f"{r['mean_tokens']:.1f}", cut_off])
    return table(rows)


def revision_table(results: dict[str, dict]) -> str:
    tokens, accuracies = ["initial tokens", "revised tokens"], ["initial acc. %", "revised acc. %"]
    rows = [["checkpoint", *tokens, *accuracies, "mended %", "net correction %"]]
    for name, r in results.items():
        lengths = [f"{r[key]:.1f}" for key in ("initial_tokens", "revised_tokens")]
        rates = [percent(r, key) for key in ("revised_accuracy", "correction_rate")]
        first = f"{100 * r['initial_accuracy']:.1f}"
        rows.append([name, *lengths, first, *rates, net_percent(r)])
    return table(rows)


def paired_table(out: dict) -> str:
    k, first = out["samples_per_question"], next(iter(out["checkpoints"]))
    rows = [["against " + first, "difference, points", "wins", "losses", "p (sign-flip test)"]]
    for name, tests in out["against_first"].items():
        for key, label in zip(ACCURACIES, (f"avg@{k}", "greedy")):
            t = tests[key]
            cells = [difference_cell(t), str(t["wins"]), str(t["losses"])]
            rows.append([f"{name} {label}", *cells, f"{t['p']:.4f}"])
    return table(rows)


# --------------------------------------------------------------------------------------------------
# Whole runs, averaged
# --------------------------------------------------------------------------------------------------
def mean_of_runs(folders: list[str]) -> dict:
    """{stage: {key: {"mean", "ci", "values"}}} over the results.json of several runs, for the
    stages that all of them have."""
    runs = [read_results(Path(folder)) for folder in folders]
    keys = (*ACCURACIES, "mean_tokens", "truncated", "revised_accuracy", "correction_rate")
    names = [*keys, *(f"{key}_ci" for key in keys)]
    summary = {}
    for stage in runs[0]:
        if all(stage in results for results in runs):
            measured = [results[stage] for results in runs]
            shown = [picked(result, names) for result in measured]
            nets = [{"net_correction_rate": net_correction(result)} for result in measured]
            summary[stage] = over_runs([one | net for one, net in zip(shown, nets)])
    return summary


def picked(result: dict, names: list[str]) -> dict:
    """Some of a result; None for what it lacks."""
    return {name: result.get(name) for name in names}


def runs_table(summary: dict, n: int) -> str:
    """Means over runs with 95 % t-intervals (of one run: Wilson's, over questions)."""
    columns = ["sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %"]
    columns += ["mended %", "net correction %"]
    rows = [[f"mean of {n} runs" if n > 1 else "1 run", *columns]]
    for stage, values in summary.items():
        scales = [1 if key == "mean_tokens" else 100 for key in values]
        rows.append([stage, *map(mean_cell, values.values(), scales)])
    return f"{table(rows)}\n{CORRECTION}"


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
def refuse_mistyped_verb(word: str) -> None:
    """Raise UserError for a word that is no checkpoint and nearly a verb."""
    near = difflib.get_close_matches(word, VERBS, 1)
    if near and not Path(word).exists():
        raise UserError(
            f"{word!r} is neither a verb nor a checkpoint; did you mean {near[0]}? (--help lists "
            "the verbs)"
        )


def check_output_file(file: str) -> None:
    """Raise UserError for a --json that could not be written once all is measured."""
    if file and not Path(file).parent.is_dir():
        raise UserError(f"--json {file}: there is no folder {Path(file).parent}")


def compare_checkpoints_or_runs(words: list[str]) -> int:
    """`eval.py CHECKPOINT ...` and `eval.py RUN ...`. Raises UserError."""
    if words:
        refuse_mistyped_verb(words[0])
    given = parse_options(words, EvalConfig, __doc__, SHOWN)
    names = given["checkpoints"]
    check_output_file(given.get("json", ""))
    if all(is_run(Path(name)) for name in names):
        out = mean_of_runs(names)
        print(runs_table(out, len(names)))
    else:
        refuse_run_folders(names)
        of_run = options_of_their_run(names)
        if "data" not in given:
            tell_of_other_seeds(names)
        split = split_of(given, of_run)
        # --revise of sdzero.py is another: which answers phase 1 revises
        options = {"model": names[0], "revise": False, **of_run}
        options |= {**kit.recipes.following(given), **given, "split": split}
        cfg = sdzero.make_config(EvalConfig, **options)
        out = evaluate_checkpoints(cfg, questions_to_ask(cfg, given))
        print(checkpoints_report(out, cfg.revise))
    if given.get("json"):
        kit.files.write_json(Path(given["json"]), out)
    return 0


def main(argv: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)

    def work():
        if words and words[0] in VERBS:
            return VERBS[words[0]](words[1:])
        return compare_checkpoints_or_runs(words)

    return exit_code("eval", work)


if __name__ == "__main__":
    sys.exit(main())

# What `uv run eval.py` installs (PEP 723), in versions that were tried (docs/running.md).
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.11", "transformers>=5.19", "datasets>=4.0",
#   "math-verify>=0.9", "numpy>=2.0", "tqdm>=4.66", "matplotlib>=3.9",
# ]
# ///
