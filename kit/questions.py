"""Where the questions come from: generated additions, a local file, or the hub.

A question is a plain dict: "prompt" (text, or chat messages), "answer" (text, or tests for --task
code), and where there is a worked solution "demonstration" (text).

A new task is one function here that returns a list of questions, one line in load_questions, and
one word in sdzero.Config.task; its rewards live in verify.py.
"""

import csv
import io
import json
import random
from pathlib import Path

from kit.errors import UserError
from kit.hub import require_hub

MATH_INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
STDIN_INSTRUCTION = (
    "\nPlease write a Python program that reads standard input and writes standard output, in one "
    "```python block at the end."
)
FUNCTION_INSTRUCTION = "\nPlease write it in Python, in one ```python block at the end."

# the columns of a row that may hold its question and its answer, the first that is filled counts
QUESTION_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = ("answer", "final_answer", "target", "solution")
CODE_COLUMNS = ("description", *QUESTION_COLUMNS, "text")  # Codeforces; MBPP
WORKED_COLUMNS = ("demonstration", "solution", "answer")


# --------------------------------------------------------------------------------------------------
# The four sets
# --------------------------------------------------------------------------------------------------
def load_questions(cfg) -> dict[str, list[dict]]:
    """Disjoint sets {"srt", "distil", "val", "test"}: every question stands in exactly one of them,
    once.

    Raises UserError where the source has too few questions even after the sets are scaled down.
    """
    sizes = {
        "test": cfg.eval_questions,
        "val": cfg.eval_questions,
        "srt": cfg.srt_questions,
        "distil": cfg.distil_questions,
    }
    total = sum(sizes.values())
    sources = {  # a new task is one line here: mixed(your_questions())
        "arith": lambda: arith_questions(total, cfg.digits, cfg.seed),
        "math": lambda: mixed(hub_questions("math")),
        "code": lambda: mixed(hub_questions("code")),
    }
    if cfg.data:
        questions = mixed(file_questions(cfg.data, cfg.task))
    else:
        questions = sources[cfg.task]()
    questions = [q | {"prompt": asked(q["prompt"], cfg)} for q in questions]

    if len(questions) < total:
        sizes = scaled_down(sizes, len(questions))
        print(f"only {len(questions)} questions for {total}: the sets are scaled down to {sizes}")
    sets, start = {}, 0
    for name, n in sizes.items():
        sets[name] = questions[start : start + n]
        start += n
    return sets


def asked(prompt, cfg):
    """A question with --system and --instruction, which are the same in every phase. Earlier turns
    that came with it stay."""
    if isinstance(prompt, str):
        if cfg.instruction:
            prompt = prompt.removesuffix(MATH_INSTRUCTION) + cfg.instruction
        if not cfg.system:
            return prompt
        prompt = [{"role": "user", "content": prompt}]
    elif cfg.instruction:
        *earlier, last = prompt
        prompt = [*earlier, last | {"content": last["content"] + cfg.instruction}]
    if cfg.system and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": cfg.system}, *prompt]
    return prompt


def mixed(questions: list[dict]) -> list[dict]:
    """The different ones among the questions, in an order that is always the same.

    Raises UserError where they are too few for four sets.
    """
    # the same question with two answers would straddle two sets
    different = list({json.dumps(q["prompt"]): q for q in questions}.values())
    if len(different) < len(questions):
        print(f"{len(questions) - len(different)} repeated questions left out")
    # the sets of a data set do not change with --seed, or trained checkpoints could meet their own
    # questions in another's test set
    random.Random("questions").shuffle(different)
    if len(different) < 4:
        raise UserError(
            f"{len(different)} different questions are too few: the four sets need one each at "
            "least"
        )
    return different


def scaled_down(sizes: dict[str, int], questions: int) -> dict[str, int]:
    """Sizes of sets in the same proportion, for so many questions; a set that had any keeps one."""
    total = sum(sizes.values())
    return {name: n and 1 + (n - 1) * (questions - 4) // (total - 4) for name, n in sizes.items()}


# --------------------------------------------------------------------------------------------------
# Generated additions
# --------------------------------------------------------------------------------------------------
def arith_questions(n: int, digits: int, seed: int) -> list[dict]:
    """n different additions of two numbers with `digits` digits."""
    low, high = 10 ** (digits - 1), 10**digits
    if n > (high - low) ** 2 // 2:
        raise UserError(
            f"--digits {digits} has only {(high - low) ** 2} additions, too few for {n} questions; "
            "use more digits"
        )
    rng, pairs = random.Random(f"arith-{seed}"), {}
    while len(pairs) < n:
        pairs[rng.randrange(low, high), rng.randrange(low, high)] = None
    return [
        {
            "prompt": f"Add {a}+{b} column by column and box the sum.",
            "answer": str(a + b),
            "demonstration": column_addition(a, b),
        }
        for a, b in pairs
    ]


def column_addition(a: int, b: int, column=lambda x, y, carry: x + y + carry) -> str:
    """Columns from the right, "7+5+0=12;" (digit + digit + carry = sum), then the boxed sum.

    column(x, y, carry) gives each sum.
    """
    width, carry, steps, digits = len(str(max(a, b))), 0, [], []
    for x, y in zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width))):
        total = column(int(x), int(y), carry)
        steps.append(f"{x}+{y}+{carry}={total:02d};")
        digits.append(str(total % 10))
        carry = total // 10
    leading = str(carry) if carry else ""
    return "".join(steps) + "\\boxed{" + leading + "".join(reversed(digits)) + "}"


# --------------------------------------------------------------------------------------------------
# Questions of others: the hub, a local file
# --------------------------------------------------------------------------------------------------
def hub_questions(task: str) -> list[dict]:
    """open-r1/OpenR1-Math-220k, or open-r1/codeforces-cots.

    Raises UserError when the hub is out of reach.
    """
    if task == "code":
        # each problem stands there once for every solution by R1, which are not used
        name, subset = "open-r1/codeforces-cots", ["solutions"]
        columns = ["title", "description", "input_format", "output_format", "examples", "note"]
        columns += ["time_limit", "memory_limit"]
        advice = (
            "Give local problems with --data FILE; --data problems/code.jsonl has 36 easy ones."
        )
    else:
        name, subset = "open-r1/OpenR1-Math-220k", []
        columns = ["problem", "answer", "solution"]
        advice = "Give local questions with --data FILE, or use --task arith."
    require_hub(name, "dataset", advice)
    import datasets

    rows = datasets.load_dataset(name, *subset, split="train").select_columns(columns)
    return questions_of(enumerate(rows, 1), task, name)


def file_questions(path: str, task: str = "math") -> list[dict]:
    """The questions of a local file (read_rows says which kinds)."""
    return questions_of(read_rows(path), task, f"--data {path}")


def read_rows(path: str) -> list[tuple[int, dict | str]]:
    """(line number, row) of a local .jsonl, .json, .csv or .parquet file; a row that does not parse
    is the string that says why. Raises UserError."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"--data {path}: no such file")
    try:
        if file.suffix == ".parquet":
            return parquet_rows(file)
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".csv":
            return csv_rows(text)
        if file.suffix == ".json":
            return json_rows(text)
    except Exception as e:
        raise UserError(f"--data {path}: cannot be read as {file.suffix[1:]}: {e}") from e
    if file.suffix == ".jsonl":
        return jsonl_rows(text)
    raise UserError(
        f"--data {path}: unknown ending {file.suffix!r}; use .jsonl, .json, .csv or .parquet"
    )


def parquet_rows(file: Path) -> list[tuple[int, dict]]:
    import pyarrow.parquet

    return list(enumerate(pyarrow.parquet.read_table(file).to_pylist(), 1))


def csv_rows(text: str) -> list[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [(reader.line_num, row) for row in reader]


def json_rows(text: str) -> list[tuple[int, dict]]:
    """A list of rows; or an object whose first list has the rows, or that is itself the one row."""
    rows = json.loads(text)
    if isinstance(rows, dict):
        rows = next((value for value in rows.values() if isinstance(value, list)), [rows])
    return list(enumerate(rows, 1))


def jsonl_rows(text: str) -> list[tuple[int, dict | str]]:
    rows = []
    # splitlines() would also cut at U+2028 inside a string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as e:
                rows.append((number, f"not JSON ({e.msg})"))
    return rows


# --------------------------------------------------------------------------------------------------
# A row with the usual columns -> a question
# --------------------------------------------------------------------------------------------------
def questions_of(rows, task: str, source: str) -> list[dict]:
    """(number, row) pairs -> questions. Bad rows are printed with their numbers and left out.

    Raises UserError where no row is usable, naming the columns looked for and found.
    """
    questions, bad, columns = [], [], set()
    for number, row in rows:
        try:
            if isinstance(row, str):
                raise ValueError(row)
            if not isinstance(row, dict):
                raise ValueError(f"not an object but {type(row).__name__}")
            columns.update(str(column) for column in row)
            questions.append(question_of(row, task))
        except ValueError as e:
            bad.append(f"line {number}: {e}")

    if not questions:
        found = ", ".join(sorted(columns)) or "(none)"
        raise UserError(
            f"{source}: no usable row among {len(bad)}. Looked for {columns_wanted(task)}; found "
            f"the columns {'; '.join([found, *bad[:1]])}."
        )
    if bad:
        more = ["..."] if len(bad) > 10 else []
        print(
            f"{source}: {len(bad)} of {len(bad) + len(questions)} rows left out: "
            + "; ".join(bad[:10] + more)
        )
    return questions


def columns_wanted(task: str) -> str:
    if task == "code":
        return (
            f"a question in {', '.join(CODE_COLUMNS)} and tests in inputs and outputs, a list of "
            "{input, output}, test_list, or test and entry_point"
        )
    return (
        f"a question in {', '.join(QUESTION_COLUMNS)} and an answer in {', '.join(ANSWER_COLUMNS)}"
    )


def question_of(row: dict, task: str) -> dict:
    """A row with the usual columns -> {"prompt", "answer"}, the answer being the tests for --task
    code, and "demonstration" where the row has a worked solution (sft and sdft use it).

    The question is text, or a list of chat messages that ends with the user's (earlier turns then
    serve as examples). Raises ValueError, saying why not.
    """
    columns = CODE_COLUMNS if task == "code" else QUESTION_COLUMNS
    question = next((row[column] for column in columns if row.get(column)), None)
    if task == "code":
        question, answer, instruction = code_question(row, question)
    else:
        answer, instruction = plain_answer(row), MATH_INSTRUCTION

    worked = worked_solution(row, task, answer)
    extra = {"demonstration": worked} if worked else {}
    if isinstance(question, str) and question.strip():
        return {"prompt": question.strip() + instruction, "answer": answer, **extra}
    if asks_in_chat(question):
        return {"prompt": question, "answer": answer, **extra}
    if question:
        raise ValueError("the question is neither text nor chat messages that end with the user's")
    raise ValueError("no question")


def asks_in_chat(question) -> bool:
    """Whether it is a list of chat messages that ends with the user's."""
    return (
        isinstance(question, list)
        and all(is_message(message) for message in question)
        and question[-1]["role"] == "user"
    )


def is_message(message) -> bool:
    is_text = isinstance(message, dict) and isinstance(message.get("content"), str)
    return bool(is_text and message.get("role"))


def plain_answer(row: dict) -> str:
    """The answer of a row: text, or a number. Raises ValueError."""
    answer = next((row[c] for c in ANSWER_COLUMNS if row.get(c) not in (None, "")), None)
    is_plain = isinstance(answer, (str, int, float)) and not isinstance(answer, bool)
    if not is_plain or answer != answer or not str(answer).strip():  # NaN is not itself
        raise ValueError("no answer")
    return str(answer).strip()


def worked_solution(row: dict, task: str, answer) -> str | None:
    """The first text of a row that is more than its answer (GSM8K's answers end in #### 42)."""
    for column in WORKED_COLUMNS:
        text = row[column].strip() if isinstance(row.get(column), str) else ""
        if text and ("####" in text or (column != "answer" and text != answer)):
            is_bare_code = task == "code" and "```" not in text
            return f"```python\n{text}\n```" if is_bare_code else text
    return None


def code_question(row: dict, question) -> tuple[object, dict, str]:
    """(question, tests, instruction) of a programming problem. Raises ValueError for bad tests."""
    from verify import load_tests  # the rewards are imported where they are used

    tests = load_tests(row)
    instruction = STDIN_INSTRUCTION if tests["kind"] == "stdin" else FUNCTION_INSTRUCTION
    if row.get("test_list"):  # MBPP's problems do not name the function; its tests do
        instruction = f"\nIt must pass this test:\n{tests['code'][0]}" + instruction
    if row.get("input_format") or row.get("output_format"):
        question = codeforces_statement(row, question, tests.get("cases", ()))
    return question, tests, instruction


def codeforces_statement(row: dict, question, cases: list) -> str:
    """All parts of a problem that the row has, under headings."""
    parts = {
        "": row.get("title"),
        "Problem:": question,
        "Input:": row.get("input_format"),
        "Output:": row.get("output_format"),
        "Examples:": "\n".join(f"{given}\n->\n{wanted}" for given, wanted in cases),
        "Note:": row.get("note"),
    }
    return "\n\n".join(f"{heading}\n{text}".strip() for heading, text in parts.items() if text)
