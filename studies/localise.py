"""Where in an answer does the reviser disagree? (The paper's figure 4.)

    python eval.py localise out/tiny-arith-0
    python eval.py localise out/tiny-arith-0 --students base,sdzero --answers 50

Answers to test questions are sampled from each checkpoint of a run and read again by the reviser,
which is phase 2's teacher: RUN/srt, or the base where the run has no phase 1. A token's reward is
log student(y_t | x, y_<t) - log reviser(y_t | x, y, P_r, y_<t): positive where the reviser, who has
read the whole answer and its verdict, finds the token less likely than the generator did.

The paper's figure sorts an answer's tokens, cuts them into 20 equal parts, and averages over 200
wrong and 200 right answers. By what, it says in two ways: the KL over the whole vocabulary, or the
absolute reward. Both are given, and the signed reward.

Writes RUN/localise.json, RUN/localise.png, RUN/localise.html (every token, coloured) and
RUN/localise.svg (the first wrong answer of the model that phase 2 starts from).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import kit
import sdzero
from kit.errors import UserError
from kit.late import torch
from kit.options import option, parse_options
from kit.questions import question_in
from kit.seeds import derived_seed
from kit.tables import mean, rate, table
from studies.runs import checkpoints_of, measuring_options, only_run_of, read_options
from studies.statistics import buckets, first_difference, top_share

KINDS = {"wrong": 0.0, "right": 1.0}  # of answers: their rewards
PARTS = 20  # of an answer's tokens, sorted
WAYS = {  # what tokens are sorted by, and averaged
    "reward": lambda s: s["token_reward"],
    "absolute reward": lambda s: np.abs(s["token_reward"]),
    "KL": lambda s: s["kl"],
}
FILES = ("localise.json", "localise.png", "localise.html", "localise.svg")
SHOWN = {"run", "answers", "draws", "students", "shown", "device", "dtype", "unsafe_exec"}


@dataclass
class LocaliseConfig(sdzero.Config):
    run: list = option((), "run folder of sdzero.py or baselines.py")
    answers: int = option(200, "wrong answers, and right ones", least=1, heading="localise")
    draws: int = option(4, "answers to each test question, at most, to find them", least=1)
    students: str = option(
        "", "whose answers, with commas: base, or a checkpoint of RUN; empty: all of them"
    )
    shown: int = option(6, "wrong and right answers of each student on the HTML page", least=0)


# --------------------------------------------------------------------------------------------------
# Tokens and their rewards
# --------------------------------------------------------------------------------------------------
def scored_answers(run, student, reviser, questions: list[dict]) -> list[dict]:
    """Sampled answers of the student, cfg.answers of each kind where cfg.draws find so many, with
    every token's reward and, on the embedded task, the place of the first wrong token."""
    samples = answers_of_both_kinds(run, student, questions)
    for s in samples:
        s["teacher_context"] = sdzero.reviser_ids(run, s["context"], s["ids"], s["reward"])
        s["tokens"] = kit.tokens.texts_of(run.tokenizer, s["ids"])
        if run.cfg.task == "arith" and not s["reward"]:  # the right transcript is known
            text = s["question"]["demonstration"]
            right = run.tokenizer.encode(text, add_special_tokens=False) + [run.end_ids[-1]]
            s["first_wrong"] = first_difference(s["ids"], right)
    add_token_rewards(run, student, reviser, samples)
    return samples


def answers_of_both_kinds(run, student, questions: list[dict]) -> list[dict]:
    """Up to cfg.answers wrong and as many right answers; every question is answered once before any
    is again."""
    contexts, cfg = [sdzero.chat_ids(run.tokenizer, q["prompt"]) for q in questions], run.cfg
    found = {kind: [] for kind in KINDS}
    for draw in range(cfg.draws):
        seed = derived_seed("localise", cfg.seed, *[draw] * bool(draw))
        samples = sdzero.rollouts(run, student, questions, contexts, seed, "answers")
        for kind, of_it in found.items():
            of_it += of_kind(samples, kind)[: cfg.answers - len(of_it)]
        if all(len(of_it) == cfg.answers for of_it in found.values()):
            break
    return [sample for of_it in found.values() for sample in of_it]


def add_token_rewards(run, student, reviser, samples: list[dict]) -> None:
    """Give each sample "token_reward", log student(y_t | x, y_<t) - log reviser(y_t | x, y, P_r,
    y_<t), and "kl", Eq. 4's divergence there, whatever the run's was: a number per token."""
    cfg = replace(run.cfg, kl_clip=0.0, divergence="reverse", top_k=0)
    lengths = [len(s["teacher_context"]) + len(s["ids"]) for s in samples]
    for rows in kit.losses.micro_batches(lengths, run.room.tokens):
        batch = [samples[i] for i in rows]
        responses = [s["ids"] for s in batch]
        with torch.no_grad():
            contexts = [s["context"] for s in batch]
            hidden = sdzero.response_hidden(student, contexts, responses)  # (N, H)
            contexts = [s["teacher_context"] for s in batch]
            reviser_hidden = sdzero.response_hidden(reviser, contexts, responses)  # (N, H)

            targets = sdzero.targets_of(student, responses)  # (N,)
            nll_of_student = sdzero.nll_loss(student, hidden, targets)[1]  # (N,)
            reward = sdzero.nll_loss(reviser, reviser_hidden, targets)[1] - nll_of_student  # (N,)
            kl = sdzero.distillation_loss(student, hidden, reviser, reviser_hidden, cfg)[1]  # (N,)

        sizes = [len(y) for y in responses]
        for s, of_reward, of_kl in zip(batch, reward.split(sizes), kl.split(sizes)):
            s["token_reward"], s["kl"] = of_reward.tolist(), of_kl.tolist()


# --------------------------------------------------------------------------------------------------
# What they add up to
# --------------------------------------------------------------------------------------------------
def of_kind(samples: list[dict], kind: str) -> list[dict]:
    return [s for s in samples if s["reward"] == KINDS[kind]]


def localisation(samples: list[dict]) -> dict:
    """One student's answers in numbers: tokens in parts, sorted in three ways; concentration of the
    KL, and where the reward peaks."""
    result = {"answers": {}, "buckets": {}, "top_tenth_of_kl": {}, "kl_per_answer": {}}
    result["buckets"] = {way: {} for way in WAYS}
    for kind in KINDS:
        group = of_kind(samples, kind)
        result["answers"][kind] = len(group)
        if group:
            for way, value_of in WAYS.items():
                result["buckets"][way][kind] = mean_curve([value_of(s) for s in group])
            result["top_tenth_of_kl"][kind] = float(np.nanmean([top_share(s["kl"]) for s in group]))
            result["kl_per_answer"][kind] = mean(sum(s["kl"]) for s in group)
    placed = [s for s in samples if s.get("first_wrong") is not None]
    if placed:
        result["peak_at_first_wrong_token"] = hits_of_the_peak(placed)
    return result


def mean_curve(group: list) -> dict:
    """Values of each answer's tokens, sorted and in equal parts, averaged over answers; "half" of a
    95 % interval."""
    curves = np.array([buckets(values, PARTS) for values in group])  # (answers, parts)
    half = np.zeros(PARTS)
    if len(group) > 1:
        half = 1.96 * curves.std(0, ddof=1) / math.sqrt(len(group))
    return {"mean": curves.mean(0).tolist(), "half": half.tolist()}


def hits_of_the_peak(placed: list[dict]) -> dict:
    """How often the highest reward of a wrong answer is on its first wrong token."""
    hits = [float(np.argmax(s["token_reward"]) == s["first_wrong"]) for s in placed]
    share = rate("share", hits)
    return {
        "share": share["share"],
        "ci": share["share_ci"],
        "answers": len(hits),
        "by_chance": mean(1 / len(s["ids"]) for s in placed),
    }


# --------------------------------------------------------------------------------------------------
# The study
# --------------------------------------------------------------------------------------------------
def config_of(folder: Path, given: dict, cls=LocaliseConfig):
    """The run's own settings, and over them the options given: a configuration of class cls."""
    saved = read_options(folder)
    names = ("model", "device", "dtype", "micro_tokens")
    of_run = {name: saved[name] for name in names if name in saved}
    return sdzero.make_config(cls, **{**measuring_options(saved), **of_run, **given})


def students_of(folder: Path, cfg: LocaliseConfig) -> dict[str, str]:
    """{name: checkpoint} of those whose answers are looked at. Raises UserError."""
    there = {"base": cfg.model, **{name: str(folder / name) for name in checkpoints_of(folder)}}
    wanted = [name.strip() for name in cfg.students.split(",")] if cfg.students else list(there)
    for name in wanted:
        if name not in there:
            raise UserError(f"--students: {folder} has no {name!r}; there are {', '.join(there)}")
    return {name: there[name] for name in wanted}


def localise(folder: Path, cfg: LocaliseConfig) -> dict:
    """Sample answers, score their tokens, write localise.json, .png, .html and .svg into the run's
    folder; returns what the json holds."""
    students = students_of(folder, cfg)
    kit.ownership.own(folder, *FILES)
    path = folder / "srt" if (folder / "srt" / "config.json").is_file() else cfg.model
    cfg = replace(cfg, model=str(path))
    questions = kit.questions.load_questions(cfg)
    asked = questions[cfg.eval_split]
    result, page = {"reviser": cfg.model, "students": {}}, {}

    with sdzero.make_grader(cfg) as grader:
        tokenizer = kit.loading.load_tokenizer(cfg)
        run, reviser = sdzero.prepare(cfg, tokenizer, grader, questions, trains=False)
        reviser.requires_grad_(False)
        for name, checkpoint in students.items():
            student = None  # three models may not fit
            student = kit.loading.load_model(replace(cfg, model=checkpoint)).requires_grad_(False)
            samples = scored_answers(run, student, reviser, asked)
            result["students"][name] = localisation(samples)
            for kind in KINDS:
                page[f"{kind} answers of {name}"] = of_kind(samples, kind)[: cfg.shown]

    kit.files.write_json(folder / "localise.json", result)
    kit.figures.localisation_figure(folder / "localise.png", result["students"])
    title = f"Where the reviser disagrees: {folder.name}"
    text = kit.token_page.token_page(title, page)
    file = folder / "localise.html"
    kit.files.replace_file(file, lambda p: p.write_text(text, encoding="utf-8"))
    print(f"page: {file}")
    if wrong := page.get("wrong answers of srt") or page.get("wrong answers of base"):
        picture = picture_of(wrong[0])
        kit.files.replace_file(folder / "localise.svg", lambda p: p.write_text(picture, "utf-8"))
    return result


def picture_of(sample: dict) -> str:
    """A wrong answer as a picture, with a line about the colours."""
    peak = max(sample["token_reward"])
    caption = [
        "Orange: less likely to the reviser, who has read all of it and its verdict, than to the",
        f"generator that wrote it. Frame: where that differs most, by {peak:.1f} nats.",
    ]
    if "first_wrong" in sample:
        caption.append("Line: the first wrong token.")
    right = sample["question"]["answer"]
    question = " ".join(question_in(sample["question"]["prompt"]).split())
    title = question if len(question) < 70 else "A wrong answer"
    title += f" (right: {right})" * isinstance(right, str)
    return kit.token_picture.token_picture(sample, title, caption)


def localisation_report(result: dict) -> str:
    """The tables of what localise() returns."""
    columns = []  # (student, kind, its numbers) of each group of answers that is not empty
    for name, r in result["students"].items():
        columns += [(name, kind, r) for kind in r["kl_per_answer"]]

    share_heading = "share of the KL in its top 10 % of tokens, %"
    kl = [["answers of", "", "number", "KL of an answer, nats", share_heading]]
    for name, kind, r in columns:
        nats, share = f"{r['kl_per_answer'][kind]:.2f}", f"{100 * r['top_tenth_of_kl'][kind]:.1f}"
        kl.append([name, kind, str(r["answers"][kind]), nats, share])

    lines = [f"read again by {result['reviser']}"]
    for way in WAYS:
        heading = f"mean {way} of a token in nats, an answer's tokens sorted by it"
        lines += [heading, parts_table(columns, way), ""]
    lines.append(table(kl))
    for name, r in result["students"].items():
        if hits := r.get("peak_at_first_wrong_token"):
            share, low, high = (f"{100 * x:.1f}" for x in (hits["share"], *hits["ci"]))
            lines.append(
                f"{name}: the highest token reward is the first wrong token in {share} % [{low}, "
                f"{high}] of {hits['answers']} wrong answers (by chance: "
                f"{100 * hits['by_chance']:.1f} %)"
            )
    return "\n".join(lines)


def parts_table(columns: list[tuple], way: str) -> str:
    """A row for each part of an answer's tokens, sorted one way."""
    parts = [["part", *(f"{name}, {kind}" for name, kind, _ in columns)]]
    for j in range(PARTS):
        values = [f"{r['buckets'][way][kind]['mean'][j]:+.3f}" for _, kind, r in columns]
        parts.append([f"{100 * j // PARTS}-{100 * (j + 1) // PARTS} %", *values])
    return table(parts)


def main(words: list[str]) -> int:
    """`eval.py localise`. Raises UserError."""
    given = parse_options(words, LocaliseConfig, __doc__, SHOWN, prog="eval.py localise")
    folder = only_run_of(given["run"], "localise")
    print(localisation_report(localise(folder, config_of(folder, given))))
    return 0
