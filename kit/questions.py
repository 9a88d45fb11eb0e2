"""Where the questions come from: generated additions, a local file, or the hub.

A question is a plain dict {"prompt": text or chat messages, "answer": str, or tests for --task code}, and where there is a worked
solution "demonstration": str. A new task is one function here that returns a list of them, one line in load_questions, and one word
in sdzero.Config.task; its rewards live in verify.py.
"""
import csv
import io
import json
import random
from pathlib import Path

from kit.errors import UserError
from kit.hub import require_hub

MATH_INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
STDIN_INSTRUCTION = "\nPlease write a Python program that reads standard input and writes standard output, in one ```python block at the end."
FUNCTION_INSTRUCTION = "\nPlease write it in Python, in one ```python block at the end."
QUESTION_COLUMNS, ANSWER_COLUMNS = ("problem", "question", "prompt"), ("answer", "final_answer", "target", "solution")
CODE_COLUMNS = ("description", *QUESTION_COLUMNS, "text")  # Codeforces; MBPP


def column_addition(a: int, b: int, column=lambda x, y, carry: x + y + carry) -> str:
    """Columns from the right, "7+5+0=12;" (digit + digit + carry = sum), then the boxed sum. column(x, y, carry) gives each sum."""
    width, carry, steps, digits = len(str(max(a, b))), 0, [], []
    for x, y in zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width))):
        total = column(int(x), int(y), carry)
        steps.append(f"{x}+{y}+{carry}={total:02d};")
        digits.append(str(total % 10))
        carry = total // 10
    return "".join(steps) + "\\boxed{" + (str(carry) if carry else "") + "".join(reversed(digits)) + "}"


def arith_questions(n: int, digits: int, seed: int) -> list[dict]:
    """n different additions of two numbers with `digits` digits."""
    low, high = 10 ** (digits - 1), 10**digits
    if n > (high - low) ** 2 // 2:
        raise UserError(f"--digits {digits} has only {(high - low) ** 2} additions, too few for {n} questions; use more digits")
    rng, pairs = random.Random(f"arith-{seed}"), {}
    while len(pairs) < n:
        pairs[rng.randrange(low, high), rng.randrange(low, high)] = None
    return [{"prompt": f"Add {a}+{b} column by column and box the sum.", "answer": str(a + b), "demonstration": column_addition(a, b)}
            for a, b in pairs]


def hub_questions(task: str) -> list[dict]:
    """open-r1/OpenR1-Math-220k, or open-r1/codeforces-cots. Raises UserError when the hub is out of reach."""
    name, columns = "open-r1/OpenR1-Math-220k", ["problem", "answer", "solution"]
    advice = "Give local questions with --data FILE, or use --task arith."
    if task == "code":  # each problem stands there once for every solution by R1, which are not used
        name, columns = "open-r1/codeforces-cots", ["title", "description", "input_format", "output_format", "examples", "note", "time_limit",
                                                    "memory_limit"]
        advice = "Give local problems with --data FILE; --data problems/code.jsonl has 36 easy ones."
    require_hub(name, "dataset", advice)
    import datasets
    rows = datasets.load_dataset(name, *["solutions"] * (task == "code"), split="train").select_columns(columns)
    return questions_of(enumerate(rows, 1), task, name)


def read_rows(path: str) -> list[tuple[int, dict | str]]:
    """(line number, row) of a local file; a row that does not parse is the string that says why. Raises UserError."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"--data {path}: no such file")
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet
            return list(enumerate(pyarrow.parquet.read_table(file).to_pylist(), 1))
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(text, newline=""))
            return [(reader.line_num, row) for row in reader]
        if file.suffix == ".json":
            rows = json.loads(text)
            rows = next((v for v in rows.values() if isinstance(v, list)), [rows]) if isinstance(rows, dict) else rows
            return list(enumerate(rows, 1))
        if file.suffix != ".jsonl":
            raise UserError(f"--data {path}: unknown ending {file.suffix!r}; use .jsonl, .json, .csv or .parquet")
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"--data {path}: cannot be read as {file.suffix[1:]}: {e}") from e
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would also cut at U+2028 inside a string
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as e:
                rows.append((number, f"not JSON ({e.msg})"))
    return rows


def question_of(row: dict, task: str) -> dict:
    """A row with the usual columns -> {"prompt", "answer"}, the answer being the tests for --task code, and "demonstration" where the
    row has a worked solution (sft and sdft use it). Raises ValueError, saying why not.

    The question is text, or a list of chat messages that ends with the user's (earlier turns then serve as examples).
    """
    question = next((row[c] for c in (CODE_COLUMNS if task == "code" else QUESTION_COLUMNS) if row.get(c)), None)
    if task == "code":
        from verify import load_tests  # the rewards are imported where they are used

        answer = load_tests(row)
        instruction = STDIN_INSTRUCTION if answer["kind"] == "stdin" else FUNCTION_INSTRUCTION
        if row.get("test_list"):  # MBPP's problems do not name the function; its tests do
            instruction = f"\nIt must pass this test:\n{answer['code'][0]}" + instruction
        if row.get("input_format") or row.get("output_format"):
            parts = {"": row.get("title"), "Problem:": question, "Input:": row.get("input_format"), "Output:": row.get("output_format"),
                     "Examples:": "\n".join(f"{x}\n->\n{y}" for x, y in answer["cases"]), "Note:": row.get("note")}
            question = "\n\n".join(f"{heading}\n{text}".strip() for heading, text in parts.items() if text)
    else:
        answer, instruction = next((row[c] for c in ANSWER_COLUMNS if row.get(c) not in (None, "")), None), MATH_INSTRUCTION
        if isinstance(answer, bool) or not isinstance(answer, (str, int, float)) or answer != answer or not str(answer).strip():
            raise ValueError("no answer")
        answer = str(answer).strip()
    texts = [(c, row[c].strip()) for c in ("demonstration", "solution", "answer") if isinstance(row.get(c), str) and row[c].strip()]
    worked = next((t for c, t in texts if "####" in t or (c != "answer" and t != answer)), None)  # GSM8K's answers end in #### 42
    if worked and task == "code" and "```" not in worked:
        worked = f"```python\n{worked}\n```"
    extra = {"demonstration": worked} if worked else {}
    if isinstance(question, str) and question.strip():
        return {"prompt": question.strip() + instruction, "answer": answer, **extra}
    if (isinstance(question, list) and all(isinstance(m, dict) and isinstance(m.get("content"), str) and m.get("role") for m in question)
            and question[-1]["role"] == "user"):
        return {"prompt": question, "answer": answer, **extra}
    raise ValueError("the question is neither text nor chat messages that end with the user's" if question else "no question")


def questions_of(rows, task: str, source: str) -> list[dict]:
    """(number, row) pairs -> questions. Bad rows are printed with their numbers and left out.

    Raises UserError where no row is usable, naming the columns looked for and found.
    """
    questions, bad, columns = [], [], set()
    for number, row in rows:
        try:
            if not isinstance(row, dict):
                raise ValueError(row if isinstance(row, str) else f"not an object but {type(row).__name__}")
            columns.update(str(c) for c in row)
            questions.append(question_of(row, task))
        except ValueError as e:
            bad.append((number, e))
    if not questions:
        wanted = (f"a question in {', '.join(CODE_COLUMNS)} and tests in inputs and outputs, a list of {{input, output}}, test_list, or test "
                  f"and entry_point" if task == "code" else f"a question in {', '.join(QUESTION_COLUMNS)} and an answer in {', '.join(ANSWER_COLUMNS)}")
        raise UserError(f"{source}: no usable row among {len(bad)}. Looked for {wanted}; found the columns "
                        f"{', '.join(sorted(columns)) or '(none)'}" + "".join(f"; line {n}: {why}" for n, why in bad[:1]) + ".")
    if bad:
        print(f"{source}: {len(bad)} of {len(bad) + len(questions)} rows left out: "
              + "; ".join(f"line {n}: {why}" for n, why in bad[:10]) + ("; ..." if len(bad) > 10 else ""))
    return questions


def file_questions(path: str, task: str = "math") -> list[dict]:
    """The questions of a local file (read_rows says which kinds)."""
    return questions_of(read_rows(path), task, f"--data {path}")


def load_questions(cfg) -> dict[str, list[dict]]:
    """Disjoint sets {"srt", "distil", "val", "test"}: every question stands in exactly one of them, once.

    Raises UserError where the source has too few questions even after the sets are scaled down.
    """
    sizes = {"test": cfg.eval_questions, "val": cfg.eval_questions, "srt": cfg.srt_questions, "distil": cfg.distil_questions}
    total = sum(sizes.values())
    if cfg.task == "arith":
        rows = arith_questions(total, cfg.digits, cfg.seed)
    else:
        rows = file_questions(cfg.data, cfg.task) if cfg.data else hub_questions(cfg.task)
        unique = {json.dumps(r["prompt"]): r for r in rows}  # the same question with two answers would straddle two sets
        if len(unique) < len(rows):
            print(f"{len(rows) - len(unique)} repeated questions left out")
        rows = list(unique.values())
        # the sets of a data set do not change with --seed, or trained checkpoints could meet their own questions in another's test set
        random.Random("questions").shuffle(rows)
        if len(rows) < 4:
            raise UserError(f"{len(rows)} different questions are too few: the four sets need one each at least")
        if len(rows) < total:
            sizes = {name: n and 1 + (n - 1) * (len(rows) - 4) // (total - 4) for name, n in sizes.items()}
            print(f"only {len(rows)} questions for {total}: the sets are scaled down to {sizes}")
    sets, start = {}, 0
    for name, n in sizes.items():
        sets[name], start = rows[start:start + n], start + n
    return sets
