"""Where the questions come from: generated additions, a local file, or the hub.

A question is a plain dict: "prompt" (text, or chat messages), "answer" (text; tests for --task
code; numbers and target for --task countdown), where there is a worked solution "demonstration"
(text), and where it is not generated "id", what its data set calls it, or its line.

A new task is one function here that returns a list of questions, one line in load_questions, and
one word in sdzero.Config.task. It is graded as mathematics; if it is something else, --reward or
sdzero.make_grader says how.
"""

import functools
import json
import random

import kit
from kit.countdown import countdown_questions
from kit.errors import UserError
from kit.rows import Unreadable, place, read_rows, readable

MATH_INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
STDIN_INSTRUCTION = (
    "\nPlease write a Python program that reads standard input and writes standard output, in one "
    "```python block at the end."
)
CPP_INSTRUCTION = (
    "\nPlease write a C++17 program that reads standard input and writes standard output, in one "
    "```cpp block at the end."
)
FUNCTION_INSTRUCTION = "\nPlease write it in Python, in one ```python block at the end."

# the columns of a row that may hold its question and its answer, the first that is filled counts
QUESTION_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = ("answer", "final_answer", "target", "solution")
# Codeforces; MBPP; LiveCodeBench
CODE_COLUMNS = ("description", *QUESTION_COLUMNS, "text", "question_content")
TEST_COLUMNS = ("inputs", "input_output", "tests", "test_cases", "test_list", "entry_point")
WORKED_COLUMNS = ("demonstration", "solution", "answer")
ID_COLUMNS = ("id", "uuid", "unique_id", "question_id", "task_id", "problem_idx", "problem_id")


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
        **({"shots": cfg.shots} if cfg.shots else {}),  # the same, however much is trained on
        "srt": cfg.srt_questions,
        "distil": cfg.distil_questions,
    }
    total = sum(sizes.values())
    sources = {  # a new task is one line here: mixed(your_questions())
        "arith": lambda: arith_questions(total, cfg.digits, cfg.seed),
        "countdown": lambda: countdown_questions(total, cfg.numbers, cfg.largest, cfg.seed),
        "math": lambda: mixed(hub_questions("math")),
        "code": lambda: mixed(hub_questions("code")),
    }
    if cfg.data:
        questions = mixed(file_questions(cfg.data, kind_of_rows(cfg), template_of(cfg)))
    elif cfg.task.startswith("gym:"):
        questions = kit.gym.gym_questions(cfg, sizes)  # each set from seeds of its own
    else:
        questions = sources[cfg.task]()
    questions = without_versions_of(questions, held_out=2 * cfg.eval_questions)
    questions = as_asked(questions, cfg)

    if len(questions) < total:
        sizes = scaled_down(sizes, len(questions))
        print(f"only {len(questions)} questions for {total}: the sets are scaled down to {sizes}")
    sets, start = {}, 0
    for name, n in sizes.items():
        sets[name] = questions[start : start + n]
        start += n
    sets = kit.shots.behind_examples(sets, sets.pop("shots", []))
    if cfg.method in ("sft", "sdft") and cfg.task == "math" and not cfg.data:
        sets = kit.hub_data.with_generations(sets)
    return sets


def as_asked(questions: list[dict], cfg) -> list[dict]:
    """The questions with --system and --instruction."""
    return [q | {"prompt": asked(q["prompt"], cfg)} for q in questions]


def asked(prompt, cfg):
    """A question with --system and --instruction, which are the same in every phase. Earlier turns
    that came with it stay."""
    if isinstance(prompt, str):
        if cfg.instruction:
            for of_task in (MATH_INSTRUCTION, kit.gym.INSTRUCTION):
                prompt = prompt.removesuffix(of_task)
            prompt += cfg.instruction
        if not cfg.system:
            return prompt
        prompt = as_turns(prompt)
    elif cfg.instruction:
        *earlier, last = prompt
        prompt = [*earlier, last | {"content": last["content"] + cfg.instruction}]
    if cfg.system and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": cfg.system}, *prompt]
    return prompt


def as_turns(prompt) -> list[dict]:
    """A prompt as chat messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def question_in(prompt) -> str:
    """The text of a prompt's last turn."""
    return as_turns(prompt)[-1]["content"]


def mixed(questions: list[dict]) -> list[dict]:
    """The different ones among the questions, in an order that is always the same.

    Raises UserError where they are too few for four sets.
    """
    different = once_each(questions)
    # the sets of a data set do not change with --seed, or trained checkpoints could meet their own
    # questions in another's test set
    random.Random("questions").shuffle(different)
    if len(different) < 4:
        raise UserError(
            f"{len(different)} different questions are too few: the four sets need one each at "
            "least"
        )
    return one_version_first(different)


def once_each(questions: list[dict]) -> list[dict]:
    """The different ones among the questions; says how many were repeated, and how often one came
    back with another answer."""
    different, contradictions = {}, []
    for question in questions:
        key = json.dumps(question["prompt"])  # with two answers it would straddle two sets
        earlier = different.get(key, question)
        if earlier.get("answer") != question.get("answer"):
            contradictions.append(question["prompt"])
        different[key] = question
    if len(different) < len(questions):
        told = f"{len(questions) - len(different)} repeated questions left out"
        if contradictions:
            n, first = len(contradictions), str(contradictions[0])[:60]
            told += f"; {n} came with another answer, as {first!r}: the last counts"
        print(told)
    return list(different.values())


def one_version_first(questions: list[dict]) -> list[dict]:
    """Where several have one "version_of" (a problem is asked in C++ and in Python): one version
    of every problem, the next kind of version from problem to problem; then the others, from the
    last problem to the first."""
    versions = {}
    for number, question in enumerate(questions):
        versions.setdefault(question.get("version_of", number), []).append(question)
    firsts, others = [], []
    for turn, of_problem in enumerate(versions.values()):
        of_problem = sorted(of_problem, key=lambda q: q.get("id", ""))
        firsts.append(of_problem.pop(turn % len(of_problem)))
        others += of_problem
    return firsts + others[::-1]


def without_versions_of(questions: list[dict], held_out: int) -> list[dict]:
    """The questions less those behind the first `held_out`, the test and validation questions, that
    are another version of one of these."""
    problems = {q["version_of"] for q in questions[:held_out] if "version_of" in q}
    rest = [q for q in questions[held_out:] if q.get("version_of") not in problems]
    return questions[:held_out] + rest


def whole_file(cfg) -> list[dict]:
    """Every question of --data, once, in the file's order. Raises UserError."""
    kit.shots.refuse_examples(cfg)
    return as_asked(once_each(file_questions(cfg.data, kind_of_rows(cfg), template_of(cfg))), cfg)


def ids_of(sets: dict[str, list[dict]]) -> dict[str, list[str]]:
    """{set: the ids of its questions}, the held-out ones first; empty where they are generated."""
    order = sorted(sets, key=lambda name: ("test", "val", "srt", "distil").index(name))
    ids = {name: [q["id"] for q in sets[name] if "id" in q] for name in order}
    return ids if any(ids.values()) else {}


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
    """open-r1/OpenR1-Math-220k, or open-r1/codeforces-cots: kit/hub_data.py says which rows.

    Raises UserError when the hub is out of reach.
    """
    return {"math": kit.hub_data.openr1, "code": kit.hub_data.codeforces}[task]()


def file_questions(path: str, task: str = "math", refusal=None) -> list[dict]:
    """The questions of a local file, or a folder of them (kit/rows.py says which kinds).

    refusal(messages) says why the chat template refuses them, or None.
    """
    name = f"--data {path}"
    return questions_of(read_rows(path, name), task, name, refusal)


def kind_of_rows(cfg) -> str:
    """How rows of --data are read: as the task's, or, with --reward, as they are ("own")."""
    return "own" if cfg.reward else cfg.task


def template_of(cfg):
    """refusal(messages) for file_questions. Loads the tokenizer when it is first asked, as only
    questions in chat messages have roles that a template may refuse; a model that has none is told
    of by the run that loads it."""
    from kit.loading import load_tokenizer, refusal

    @functools.cache
    def tokenizer():
        try:
            return load_tokenizer(cfg)
        except UserError:
            return None

    return lambda messages: tokenizer() and refusal(tokenizer(), messages)


# --------------------------------------------------------------------------------------------------
# A row with the usual columns -> a question
# --------------------------------------------------------------------------------------------------
def questions_of(rows, task: str, source: str, refusal=None) -> list[dict]:
    """(number, row) pairs -> questions. Bad rows are printed with their numbers and left out.

    Raises UserError where no row is usable, naming the columns looked for and found.
    """
    questions, bad, columns = [], [], set()
    for number, row in rows:
        try:
            if isinstance(row, Unreadable):
                raise ValueError(row)
            if not isinstance(row, dict):
                raise ValueError(f"not an object but {type(row).__name__}")
            columns.update(str(column) for column in row)
            question = question_of(row, task)
            why = isinstance(question["prompt"], list) and refusal and refusal(question["prompt"])
            if why:
                raise ValueError(f"the chat template refuses it: {why}")
            questions.append(question | {"id": id_of(row, number)})
        except ValueError as e:
            bad.append(f"{place(number)}: {e}")

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


def id_of(row: dict, number) -> str:
    """What the data set calls a row, else its line."""
    named = [row[column] for column in ID_COLUMNS if isinstance(row.get(column), (str, int))]
    return next((str(name) for name in named if str(name).strip()), place(number))


def columns_wanted(task: str) -> str:
    if task == "own":
        return f"a question in {', '.join(QUESTION_COLUMNS)}"
    if task == "countdown":
        return "numbers in numbers or nums, and their target in target"
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
    if task == "countdown":
        return kit.countdown.question_of(row)
    if task == "own":
        return own_question(row)
    columns = CODE_COLUMNS if task == "code" else QUESTION_COLUMNS
    question = first_filled(row, columns)
    if task == "code":
        question, answer, instruction = code_question(row, question)
    else:
        answer, instruction = plain_answer(row), MATH_INSTRUCTION

    worked = worked_solution(row, task, answer)
    extra = {"demonstration": worked} if worked else {}
    if isinstance(question, str) and question.strip():
        question = question.strip() + instruction
    elif not asks_in_chat(question):
        what = "the question is neither text nor chat messages that end with the user's"
        raise ValueError(what if question else "no question")
    found = {"prompt": question, "answer": answer, **extra}
    for name, value in found.items():
        if not readable(json.dumps(value, ensure_ascii=False)):
            raise ValueError(f"the {name} holds half a character (a lone surrogate)")
    return found


def own_question(row: dict) -> dict:
    """A row for a --reward of one's own: all its columns as they are, the question with nothing
    behind it (--instruction adds), an answer if it has one. Raises ValueError."""
    row = {name: value for name, value in row.items() if name != "version_of"}  # codeforces' own
    text = json.dumps(row, default=str, ensure_ascii=False)  # dates and the like as text
    if not readable(text):
        raise ValueError("it holds half a character (a lone surrogate)")
    row = json.loads(text)
    question = first_filled(row, QUESTION_COLUMNS)
    if not isinstance(question, str) and not asks_in_chat(question):
        raise ValueError("no question, as text or as chat messages that end with the user's")
    answer = first_filled(row, ANSWER_COLUMNS)
    worked = worked_solution(row, "math", answer=None)
    extra = {"demonstration": worked} if worked else {}
    return {**row, "prompt": question, "answer": "" if answer is None else answer, **extra}


def asks_in_chat(question) -> bool:
    """Whether it is a list of chat messages that ends with the user's."""
    return (
        isinstance(question, list)
        and all(is_message(message) for message in question)
        and question[-1]["role"] == "user"
    )


def is_message(message) -> bool:
    is_text = isinstance(message, dict) and isinstance(message.get("content"), str)
    return bool(is_text and message.get("role") and isinstance(message["role"], str))


def plain_answer(row: dict) -> str:
    """The answer of a row, the first that an answer could equal. Raises ValueError."""
    reasons, has_tests = [], not all(is_blank(row.get(column)) for column in TEST_COLUMNS)
    for column in ANSWER_COLUMNS:
        value = row.get(column)
        if is_blank(value):
            continue
        if column == "solution" and has_tests:
            reasons.append("it has tests, and a solution alone: give --task code")
            continue
        try:
            return gold_text(value)
        except ValueError as e:
            reasons.append(str(e))
    raise ValueError((reasons or ["no answer" + ", but tests: give --task code" * has_tests])[0])


def first_filled(row: dict, columns: tuple):
    """What stands in the first of these columns that is not blank; None where all are."""
    return next((row[column] for column in columns if not is_blank(row.get(column))), None)


def is_blank(value) -> bool:
    """None, NaN, a text of blanks, an empty list."""
    return value in (None, []) or value != value or isinstance(value, str) and not value.strip()


def gold_text(value) -> str:
    """An answer as text. Raises ValueError where the verifier says that nothing could equal it; a
    fork without verify.py takes all text and numbers, as only its own grader can tell."""
    try:
        from verify import read_gold  # the rewards are imported where they are used
    except ModuleNotFoundError:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError("no answer") from None
        return str(value).strip()
    return read_gold(value)


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
    from verify import cpp_compiler, load_tests  # the rewards are imported where they are used

    tests = load_tests(row)
    instruction = STDIN_INSTRUCTION if tests["kind"] == "stdin" else FUNCTION_INSTRUCTION
    if tests.get("language") == "cpp":
        instruction = CPP_INSTRUCTION
        if not cpp_compiler():
            raise ValueError("it is to be answered in C++, and there is neither g++ nor clang++")
    if row.get("test_list") and "code" in tests:  # MBPP's problems name the function in their tests
        instruction = f"\nIt must pass this test:\n{tests['code'][0]}" + instruction
    if starter := row.get("starter_code") if tests["kind"] != "stdin" else None:
        instruction = f"\nIt begins with this code:\n{str(starter).rstrip()}" + instruction
    elif tests["kind"] == "call":
        instruction = f"\nIt must define the function {tests['entry']}." + instruction
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
