"""The paper's eight benchmarks (Sec. 3.1): where they are, and what their rows look like.

The paper gives no sizes (but two), versions, months or prompts; sizes here are those that its
printed values fit. Columns are those of the data sets' cards. A benchmark is asked whole; OpenR1
and Codeforces are the held-out questions of the training sets.
"""

import datetime
import json
from pathlib import Path
from typing import NamedTuple

import kit
from kit.errors import UserError
from kit.hub import require_hub
from kit.options import flag_of


class Benchmark(NamedTuple):
    title: str  # as the paper's tables have it
    task: str  # whose verifier grades it
    source: str  # on the hub; empty: the held-out questions of the task's training set
    split: str
    columns: tuple[str, ...]  # its question, its answer or tests, its id
    size: int  # questions; 0: it depends on dates


LCB = "livecodebench/code_generation_lite"
LCB_COLUMNS = ("question_content", "private_test_cases", "question_id", "contest_date")
LCB_COLUMNS += ("public_test_cases", "starter_code", "metadata")
AIME24 = ("problem", "answer", "id")
AIME25, HMMT = AIME24, ("problem", "answer", "problem_idx")
AMO, MATH = ("prompt", "answer", "question_id"), ("problem", "answer", "unique_id")

BENCHMARKS = {
    "aime24": Benchmark("AIME24", "math", "HuggingFaceH4/aime_2024", "train", AIME24, 30),
    "aime25": Benchmark("AIME25", "math", "math-ai/aime25", "test", AIME25, 30),
    "hmmt25": Benchmark("HMMT25", "math", "MathArena/hmmt_feb_2025", "train", HMMT, 30),
    "amobench": Benchmark("AMOBench", "math", "meituan-longcat/AMO-Bench", "test", AMO, 50),
    "openr1": Benchmark("OpenR1", "math", "", "", (), 500),
    "math": Benchmark("MATH", "math", "HuggingFaceH4/MATH-500", "test", MATH, 500),
    "codeforces": Benchmark("Codeforces", "code", "", "", (), 500),
    "lcb": Benchmark("LCB", "code", LCB, "test", LCB_COLUMNS, 0),
}
LCB_FILES = ("test.jsonl", *(f"test{n}.jsonl" for n in range(2, 7)))  # releases 1 to 6


def chosen(words: str) -> dict[str, str]:
    """ "aime24,math=FILE" -> {"aime24": "", "math": "FILE"}. Raises UserError."""
    names = {}
    for word in words.split(","):
        name, _, file = word.strip().partition("=")
        if name not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise UserError(f"--bench {word.strip()!r} is no benchmark; there are {known}")
        names[name] = file
    return names


def days(cfg) -> tuple[datetime.date | None, datetime.date | None]:
    """--lcb-from and --lcb-until: a day, or a month from its first day or to its last; None where
    one is not given. Raises UserError."""
    first, last = (day(getattr(cfg, name), flag_of(name)) for name in ("lcb_from", "lcb_until"))
    if last and len(cfg.lcb_until) <= 7:  # to the day before the next month's first
        next_month = last + datetime.timedelta(days=31)
        last = next_month.replace(day=1) - datetime.timedelta(days=1)
    return first, last


def day(text: str, option: str) -> datetime.date | None:
    """A day, or the first of a month; None for an empty text. Raises UserError."""
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(text if len(text) > 7 else text + "-01")
    except ValueError:
        raise UserError(f"{option} {text!r} is no date: give 2024-08 or 2024-08-01") from None


def benchmark_questions(name: str, file: str, cfg) -> list[dict]:
    """The questions of a benchmark, from a local file or the hub; of cfg: eval_questions, data and
    the training sets' sizes (held-out questions), lcb_from and lcb_until.

    Raises UserError where it is out of reach or has another form; bad rows are counted and named.
    """
    benchmark = BENCHMARKS[name]
    if not benchmark.source and not file:
        return kit.questions.load_questions(cfg)["test"]
    source = f"--bench {name}={file}" if file else benchmark.source
    rows = kit.rows.read_rows(file, source) if file else hub_rows(benchmark)
    rows = of_the_form(rows, benchmark, source, strict=not file)
    if name == "lcb":
        rows = released(rows, *days(cfg))
    questions = kit.questions.questions_of(rows, benchmark.task, source)
    kit.shots.refuse_examples(cfg)
    questions = kit.questions.as_asked(kit.questions.once_each(questions), cfg)
    if benchmark.size and len(questions) != benchmark.size:
        print(f"{source}: {len(questions)} questions, where {benchmark.title} has {benchmark.size}")
    return questions


def hub_rows(benchmark: Benchmark):
    """(number, row) of a benchmark on the hub, one at a time. Raises UserError."""
    advice = "Give a local copy: --bench NAME=FILE."
    require_hub(benchmark.source, "dataset", advice)
    if benchmark.source == LCB:  # its loader is a script, which `datasets` no longer runs
        yield from lcb_rows()
        return
    import datasets

    yield from enumerate(datasets.load_dataset(benchmark.source, split=benchmark.split), 1)


def lcb_rows():
    """(number, row) of all releases of LiveCodeBench: some GB, so line by line."""
    import huggingface_hub

    for name in LCB_FILES:
        path = huggingface_hub.hf_hub_download(LCB, name, repo_type="dataset")
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{name} line {number}", json.loads(line)


def of_the_form(rows, benchmark: Benchmark, source: str, strict: bool):
    """The rows with the columns that kit/questions.py reads. A file may have those already; what
    comes from the hub (strict) must have the columns of its card. Raises UserError."""
    checked = False
    for number, row in rows:
        if isinstance(row, dict):
            renames = bool(benchmark.columns) and set(benchmark.columns) <= set(row)
            if strict and not checked:
                kit.hub_data.check_form(source, row, benchmark.columns)
            checked = True
            if renames and benchmark.task == "math":
                question, answer, name = benchmark.columns
                row = {"problem": row[question], "answer": row[answer], "id": row[name]}
        yield number, row


def released(rows, first: datetime.date | None, last: datetime.date | None):
    """The rows whose contest_date is within two days; all where neither is given. A row without a
    date is left to be told of as unreadable, where a day was given."""
    left_out = 0
    for number, row in rows:
        if (first or last) and isinstance(row, dict):
            try:
                when = datetime.date.fromisoformat(str(row.get("contest_date"))[:10])
            except ValueError:
                row = kit.rows.Unreadable(f"contest_date is {row.get('contest_date')!r}, no date")
            else:
                if (first and when < first) or (last and when > last):
                    left_out += 1
                    continue
        yield number, row
    if left_out:
        print(f"LiveCodeBench: {left_out} problems of other dates left out")
