"""Does the reviser know what it writes, or copy it? (Runs on the embedded task.)

    python eval.py copied out/tiny-arith-0
    python eval.py copied out/compare/runs/*-4608-?        # several runs: means over them

One token is asked for: the last digit of a column's sum in the right answer y* to a test question,
behind all that stands before it there. Its probability is taken three times:

    alone     from the generator:                     pi(y*_t | x, y*_<t)
    to copy   from the reviser of a first answer that is wrong in another column, and right here
    to know   from the reviser of a first answer that is wrong in this column

Both revisers read one wrong sum and are told so: pi(y*_t | x, y_init, P_0, y*_<t). What it writes
to copy and not to know, it has read off the first answer. In phase 2 the teacher reads the
student's own answer, so where that is wrong it can teach what it knows alone.
"""

import itertools
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

import kit
import sdzero
from kit.errors import UserError
from kit.late import torch
from kit.options import option, parse_options
from kit.questions import column_addition
from kit.tables import table
from studies.localise import config_of
from studies.runs import checkpoints_of, is_run
from studies.statistics import bootstrapped, first_difference, mean_cell, over_runs

WAYS = ("alone", "to copy", "to know")


@dataclass
class CopiedConfig(sdzero.Config):
    runs: list = option((), "run folders of sdzero.py or baselines.py")


SHOWN = {"runs", "eval_questions", "eval_split", "device", "dtype"}


# --------------------------------------------------------------------------------------------------
# First answers with one wrong sum
# --------------------------------------------------------------------------------------------------
def with_a_slip(a: int, b: int, place: int, by: int) -> str:
    """The right answer to a + b, but that the sum in the column `place`, counted from the right,
    has a last digit that is `by` too large, and so has the result; its carry stays."""
    columns = itertools.count()

    def column(x, y, carry):
        total = x + y + carry
        return total // 10 * 10 + (total + by) % 10 if next(columns) == place else total

    return column_addition(a, b, column)


def slips_of(question: dict, digits: int, rng: random.Random) -> list[tuple[str, str]]:
    """For each column of a question: first answers that are wrong here, and in another column."""
    a, b = map(int, re.findall(r"\d+", question["prompt"])[:2])
    slips = []
    for place in range(digits):
        other = rng.choice([p for p in range(digits) if p != place])
        slips.append(tuple(with_a_slip(a, b, p, rng.randint(1, 9)) for p in (place, other)))
    return slips


def asked_for(run, question: dict, slips: tuple[str, str]) -> list[tuple[list, list]]:
    """(context, y* up to the token that is asked for), in each of WAYS."""

    def ids_of(text):
        return run.tokenizer.encode(text, add_special_tokens=False)

    context = sdzero.chat_ids(run.tokenizer, question["prompt"])
    right, here, elsewhere = map(ids_of, (question["demonstration"], *slips))
    response = right[: first_difference(right, here) + 1]
    firsts = [y + [run.end_ids[-1]] for y in (elsewhere, here)]
    contexts = [context, *(sdzero.reviser_ids(run, context, y, 0.0) for y in firsts)]
    return [(context, response) for context in contexts]


# --------------------------------------------------------------------------------------------------
# What a model makes of them
# --------------------------------------------------------------------------------------------------
def probabilities(run, model, asked: list[tuple[list, list]]) -> list[float]:
    """p(the response's last token | context, all tokens before it), for each pair."""
    found = [0.0] * len(asked)
    lengths = [len(context) + len(response) for context, response in asked]
    for rows in kit.losses.micro_batches(lengths, run.room.tokens):
        contexts, responses = zip(*(asked[i] for i in rows))
        with torch.no_grad():
            hidden = sdzero.response_hidden(model, contexts, responses)  # (N, H)
            nll = sdzero.nll_loss(model, hidden, sdzero.targets_of(model, responses))[1]  # (N,)
        last = [n - 1 for n in itertools.accumulate(map(len, responses))]
        for i, value in zip(rows, (-nll[last]).exp().tolist()):
            found[i] = value
    return found


def shares_of(run, model, questions: list[dict]) -> dict:
    """{way: the mean probability, way_ci: its 95 % interval over questions}."""
    rng = random.Random("copied")
    slips = [slips_of(q, run.cfg.digits, rng) for q in questions]
    asked = [asked_for(run, q, pair) for q, of_it in zip(questions, slips) for pair in of_it]
    shares = {}
    for way, pairs in zip(WAYS, zip(*asked)):
        found = torch.tensor(probabilities(run, model, pairs)).view(len(questions), -1)
        per_question = found.mean(1).tolist()  # of its columns
        shares[way] = sum(per_question) / len(per_question)
        shares[way + "_ci"] = bootstrapped(per_question)
    return shares


def copied(folder: Path, given: dict) -> dict[str, dict]:
    """{base, and each checkpoint of a run: its shares}. Raises UserError."""
    if not is_run(folder):
        raise UserError(f"{folder} is not a run folder that sdzero.py or baselines.py wrote")
    cfg = config_of(folder, given, CopiedConfig)
    if cfg.task != "arith" or cfg.digits < 2:
        raise UserError(
            f"{folder}: columns are known of --task arith alone, of two --digits or more"
        )
    questions = kit.questions.load_questions(cfg)
    tokenizer = kit.loading.load_tokenizer(cfg)
    found = {}
    for name in ("base", *checkpoints_of(folder)):
        place = cfg.model if name == "base" else str(folder / name)
        of_stage = replace(cfg, model=place)
        run, model = sdzero.prepare(of_stage, tokenizer, None, questions, trains=False)
        found[name] = shares_of(run, model.eval(), questions[cfg.eval_split])
    return found


def report(runs: list[dict[str, dict]]) -> str:
    """A row for each checkpoint's name: its shares in %, over the runs that have it."""
    rows = [["", "runs", *(f"{way}, %" for way in WAYS)]]
    for name in dict.fromkeys(name for run in runs for name in run):
        of_name = [run[name] for run in runs if name in run]
        summary = over_runs(of_name)
        rows.append([name, str(len(of_name)), *(mean_cell(summary[way]) for way in WAYS)])
    return table(rows)


def main(words: list[str]) -> int:
    """`eval.py copied`. Raises UserError."""
    given = parse_options(words, CopiedConfig, __doc__, SHOWN, prog="eval.py copied")
    folders = [Path(folder) for folder in given.pop("runs")]
    print(report([copied(folder, given) for folder in folders]))
    return 0
