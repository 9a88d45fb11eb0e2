"""A run on one page: RUN/page.html, a file of its own that asks the network for nothing.

    python eval.py page out/mine
    python eval.py page out/mine --maps 0        # loads no model: no heat maps
    python eval.py page out/compare              # what `eval.py compare` measured

Results with intervals, curves of every logged number, three records of phase 1 as they were
sampled, heat maps of first answers (each token coloured by how much the reviser disagrees, as in
`eval.py localise`; scored by RUN/srt, which phase 2 starts from), and every option.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import kit
import sdzero
from kit.options import option, parse_options
from kit.tables import CORRECTION, net_percent, percent
from studies import compare_page, localise
from studies.page import curve, escaped, filled, html_table, own_page, write
from studies.runs import command_of, only_run_of, read_metrics, read_options, read_results
from studies.watch import by_phase, state_of

CURVES = {  # key of metrics.jsonl -> (title, factor)
    "loss": ("loss", 1),
    "reward": ("answers right, %", 100),
    "length": ("tokens of an answer", 1),
    "truncated": ("cut off, %", 100),
    "kl": ("KL of an answer, nats", 1),
    "revision_words": ("keywords of revising", 1),
    "grad_norm": ("gradient norm", 1),
    "lr": ("learning rate", 1),
}
RECORDS = 3  # of phase 1 that are shown


@dataclass
class PageConfig(sdzero.Config):
    run: list = option((), "run folder of sdzero.py or baselines.py, or compare's")
    maps: int = option(3, "heat maps of first answers; 0: none", least=0, heading="page")


# --------------------------------------------------------------------------------------------------
# Sections
# --------------------------------------------------------------------------------------------------
def results_section(results: dict[str, dict]) -> str:
    heading = ["", "sampled acc. %", "greedy acc. %", "tokens", "cut off %", "revised acc. %"]
    rows = [[*heading, "mended %", "net correction %", "questions"]]
    for name, r in results.items():
        rates = [percent(r, key) for key in ("accuracy", "accuracy_greedy")]
        lengths = [f"{r['mean_tokens']:.1f}", f"{100 * r['truncated']:.1f}"]
        revised = [percent(r, key) for key in ("revised_accuracy", "correction_rate")]
        rows.append([name, *rates, *lengths, *revised, net_percent(r), str(r["n"])])
    note = f"95 % intervals over questions in brackets.\n{CORRECTION}"
    return f"<h2>Results</h2>\n{html_table(rows)}\n<p><small>{escaped(note)}</small></p>"


def curves_section(metrics: list[dict]) -> str:
    """The curves of every phase that has steps."""
    parts = ["<h2>Curves</h2>"]
    for phase, steps in by_phase(metrics).items():
        figures = []
        for key, (title, factor) in CURVES.items():
            of_key = [line for line in steps if line.get(key) is not None and "loss" in line]
            if of_key:
                values = [factor * line[key] for line in of_key]
                figures.append(curve(title, values, [line["step"] for line in of_key]))
        if figures:
            parts.append(f'<h3>{escaped(phase)}</h3>\n<div class="curves">')
            parts += [*figures, "</div>"]
    return "\n".join(parts)


def shown_records(records: list[dict]) -> list[dict]:
    """Kept records of different questions, those that correct a wrong answer first."""
    kept = sorted((r for r in records if r["kept"]), key=lambda r: r["init_reward"])
    different = {json.dumps(r["prompt"]): r for r in reversed(kept)}
    return list(different.values())[::-1][:RECORDS]


def records_section(records: list[dict]) -> str:
    parts = ["<h2>Records of phase 1</h2>"]
    for r in shown_records(records):
        prompt = kit.questions.question_in(r["prompt"])
        verdict = "right" if r["init_reward"] else "wrong"
        revised = "verified" if r["revised_reward"] else "not verified"
        parts.append(
            f"<section><p>{escaped(prompt)}</p>\n<small>first answer, {verdict}</small>"
            f"<pre>{escaped(r['init_text'])}</pre>\n<small>control phrase</small>"
            f"<pre>{escaped(r['control_phrase'])}</pre>\n<small>revision, {revised}; right: "
            f"{escaped(r['answer'])}</small><pre>{escaped(r['revised_text'])}</pre></section>"
        )
    if len(parts) == 1:
        parts.append("<p>No revision was kept.</p>")
    return "\n".join(parts)


def maps_section(answers: list[dict]) -> str:
    """Heat maps of answers that score_answers() made."""
    full = kit.token_page.full_colour({"": answers})
    parts = [
        "<h2>Where the reviser disagrees</h2>\n<p><small>First answers of phase 1. Orange: a token "
        "less likely to the reviser, who has read the whole answer and its verdict, than to the "
        f"generator (phase 2 pushes it down); blue: more likely. Full colour is {full:.2f} nats or "
        "more; the frame marks the highest.</small></p>"
    ]
    parts += [kit.token_page.answer_section(answer, full) for answer in answers]
    return "\n".join(parts)


def options_section(saved: dict) -> str:
    rows = [["option", "value"], *([kit.options.flag_of(k), v] for k, v in saved.items())]
    return (
        f"<h2>Options</h2>\n<pre>{escaped(command_of(saved))}</pre>\n<details><summary>every option"
        f"</summary>\n{html_table(rows, 'options')}\n</details>"
    )


# --------------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------------
def scored_firsts(folder: Path, cfg, records: list[dict], n: int) -> list[dict]:
    """n first answers of different questions, wrong ones first, each token with its reward by the
    model of RUN/srt as generator and as reviser."""
    checkpoint = folder / "srt"
    if not n or not records or not (checkpoint / "config.json").is_file():
        return []
    cfg = replace(cfg, model=str(checkpoint))
    tokenizer = kit.loading.load_tokenizer(cfg)
    run, model = sdzero.prepare(cfg, tokenizer, None, {}, trains=False)
    model.requires_grad_(False)
    different = {json.dumps(r["prompt"]): r for r in records}
    samples = []
    for r in sorted(different.values(), key=lambda r: (r["init_reward"], len(r["init_ids"])))[:n]:
        ids, context = r["init_ids"], r["prompt_ids"]
        question = {"prompt": r["prompt"], "answer": r["answer"]}
        reviser_reads = sdzero.reviser_ids(run, context, ids, r["init_reward"])
        read = {"context": context, "teacher_context": reviser_reads, "ids": ids}
        tokens = [tokenizer.decode([token]) for token in ids]
        samples.append({**read, "question": question, "reward": r["init_reward"], "tokens": tokens})
    localise.add_token_rewards(run, model, model, samples)
    return samples


def page_of(folder: Path, saved: dict, records: list[dict], answers: list[dict]) -> str:
    """The whole page, as text."""
    metrics, results = read_metrics(folder), read_results(folder)
    about = state_of(folder, metrics[-1]) if metrics else "no step yet"
    parts = [results_section(results)] if results else []
    parts += [curves_section(metrics)] if metrics else []
    parts += [records_section(records)] if records else []
    parts += [maps_section(answers)] if answers else []
    parts.append(options_section(saved))
    return filled(f"{saved.get('method', 'run')}: {folder.resolve().name}", about, parts)


def main(words: list[str]) -> int:
    """`eval.py page`. Raises UserError."""
    shown = {"run", "maps", "device", "dtype"}
    given = parse_options(words, PageConfig, __doc__, shown, prog="eval.py page")
    if len(given["run"]) == 1 and compare_page.is_comparison(Path(given["run"][0])):
        compare_page.write_page(Path(given["run"][0]))
        return 0
    folder = only_run_of(given["run"], "page")
    own_page(folder)
    cfg, saved = localise.config_of(folder, given, PageConfig), read_options(folder)
    file = folder / "revisions.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    answers = scored_firsts(folder, cfg, records, cfg.maps)
    write(folder, page_of(folder, saved, records, answers))
    return 0
