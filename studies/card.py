"""The model card of a run's checkpoint: its README.md, as the hub reads it.

    python eval.py card out/mine --license apache-2.0
    hf upload me/mine out/mine/sdzero                       # all that is left

Base model, data, method, options, results with intervals and the command stand in it: what the run
knows. Read it before you publish it, and add what the run cannot know: what the model is for.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import kit
from kit.errors import UserError
from kit.options import flag_of, option, parse_options
from kit.tables import net_percent, percent
from studies.runs import (
    checkpoints_of,
    command_of,
    lines_of_stage,
    only_run_of,
    read_metrics,
    read_options,
    read_results,
)

PAPER = "https://arxiv.org/abs/2604.12002"
METHODS = {
    "sdzero": "SD-Zero: self-revision training (phase 1), then on-policy self-distillation from "
    "the model as its own reviser (phase 2)",
    "srt": "self-revision training, SD-Zero's phase 1 alone",
    "rft": "rejection fine-tuning, a baseline of SD-Zero",
    "grpo": "GRPO, a baseline of SD-Zero",
    "sdft": "self-distillation from demonstrations, a baseline of SD-Zero",
    "sft": "supervised fine-tuning, a baseline of SD-Zero",
}
DATA = {
    "math": "open-r1/OpenR1-Math-220k",
    "code": "open-r1/codeforces-cots",
    "arith": "generated additions",
    "countdown": "generated Countdown tasks",
}


@dataclass
class CardConfig:
    run: list = option((), "run folder")
    license: str = option("other", "the card's licence: the base model's says which are allowed")
    stage: str = option("", "checkpoint of the run; empty: its last")


def stage_of(folder: Path, wanted: str) -> str:
    """The checkpoint that the card is of. Raises UserError where there is none."""
    there = checkpoints_of(folder)
    if not there:
        raise UserError(f"{folder} has no measured checkpoint yet: let its run go on")
    if wanted and wanted not in there:
        raise UserError(f"--stage {wanted}: {folder} has {', '.join(there)}")
    return wanted or there[-1]


def quoted(value) -> str:
    """Text as YAML has it, whatever is in it: JSON's strings are YAML's."""
    return json.dumps(str(value), ensure_ascii=False)


def header(saved: dict, stage: str, licence: str) -> list[str]:
    """The YAML header."""
    task = saved["task"]
    lines = [
        "---",
        f"base_model: {quoted(saved['model'])}",
        f"license: {quoted(licence)}",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in ("self-distillation", saved["method"], stage)),
    ]
    if "/" in DATA.get(task, "") and not saved["data"]:
        lines += ["datasets:", f"- {DATA[task]}"]
    return [*lines, "---"]


def data_of(saved: dict) -> str:
    """Where the questions came from, in words."""
    if saved["data"]:
        return f"questions of the file {Path(saved['data']).name}"
    if saved["task"].startswith("gym:"):
        return (
            f"reasoning-gym's data set {saved['task'][4:]} {saved.get('gym_options', '')}".strip()
        )
    return DATA[saved["task"]]


def markdown_table(rows: list[list[str]]) -> list[str]:
    """Rows as Markdown; the first is the heading."""
    clean = [[str(c).replace("|", "\\|").replace("\n", "\\n").strip() for c in r] for r in rows]
    lines = [f"| {' | '.join(row)} |" for row in clean]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def results_rows(results: dict[str, dict]) -> list[list[str]]:
    heading = ["", "sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %"]
    rows = [[*heading, "net correction %"]]
    for name, r in results.items():
        rates = [percent(r, key) for key in ("accuracy", "accuracy_greedy")]
        lengths = [f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}"]
        revised = percent(r, "revised_accuracy")
        rows.append([name, *rates, *lengths, revised, net_percent(r)])
    return rows


def card_of(folder: Path, stage: str, licence: str) -> str:
    """The card, as Markdown."""
    saved, results, metrics = read_options(folder), read_results(folder), read_metrics(folder)
    measured, last = results[stage], lines_of_stage(metrics, stage)[-1]
    name = f"{Path(saved['model']).name}, {saved['method']}, stage {stage}"
    where = "with nothing around it" if saved.get("unsafe_exec") else "in a sandbox"
    code = f"`--task code` ran what it wrote {where}. " if saved["task"] == "code" else ""
    options = [["option", "value"], *([f"`{flag_of(k)}`", f"`{v}`"] for k, v in saved.items())]
    return "\n".join(
        [
            *header(saved, stage, licence),
            "",
            f"# {name}",
            "",
            f"Trained from `{saved['model']}` by {METHODS[saved['method']]} ([paper]({PAPER})), "
            f"with a reward that says only right or wrong, on {data_of(saved)}: "
            f"{last['samples']:,} sampled responses of {last['tokens']:,} tokens. {code}"
            f"The checkpoint is the run's `{stage}`.",
            "",
            "## Results",
            "",
            f"{measured['n']} {saved['eval_split']} questions of the same source, which were not "
            f"trained on, {measured['samples_per_question']} samples each; 95 % intervals in "
            "brackets. One run with one seed. *Revised* is after one more turn that is told the "
            "true verdict: no accuracy to deploy.",
            "",
            *markdown_table(results_rows(results)),
            "",
            "## How it was made",
            "",
            "```",
            command_of(saved),
            "```",
            "",
            "<details><summary>every option</summary>",
            "",
            *markdown_table(options),
            "",
            "</details>",
            "",
        ]
    )


def main(words: list[str]) -> int:
    """`eval.py card`. Raises UserError."""
    cfg = CardConfig(**parse_options(words, CardConfig, __doc__, prog="eval.py card"))
    folder = only_run_of(cfg.run, "card")
    stage = stage_of(folder, cfg.stage)
    name = f"{stage}/README.md"
    kit.ownership.own(folder, name)
    text = card_of(folder, stage, cfg.license)
    kit.files.replace_file(folder / name, lambda p: p.write_text(text, encoding="utf-8"))
    print(f"card: {folder / name}")
    if cfg.license == "other":
        print("its licence is 'other': give --license before you publish it")
    return 0
