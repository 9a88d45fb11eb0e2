"""The paper's two training sets on the hub: which of their rows are questions (Sec. 3.1, App. C.1).

The paper names the data sets, "competition and olympiad level, with verified solutions", and 7.5K
of C++ and 7.5K of Python; neither columns nor order. What is followed here:

  OpenR1-Math     the default part; a row whose `source` is one of COMPETITIONS, whose
                  `question_type` is no proof, and of whose solutions by DeepSeek-R1 at least one is
                  marked true in `correctness_math_verify`. The first of these is what the baselines
                  sft and sdft are shown.
  codeforces-cots `solutions` asked for in C++ and `solutions_py` in Python, a problem once in each
                  (it stands there once for every solution by R1). Interactive problems are left
                  out. The tests are the statement's `examples`.

Columns are those of the data sets' cards; where one is missing a run stops and says so.
"""

from collections import Counter

import kit
from kit.errors import UserError
from kit.hub import require_hub

OPENR1 = "open-r1/OpenR1-Math-220k"
OPENR1_COLUMNS = ("uuid", "problem", "answer", "solution", "source", "question_type")
OPENR1_COLUMNS += ("correctness_math_verify",)
# The sources of NuminaMath-1.5 that are contests; the others are school exercises and synthetic
COMPETITIONS = {"olympiads", "olympiads_ref", "amc_aime", "aops_forum", "cn_contest"}
COMPETITIONS |= {"inequalities", "number_theory"}

CODEFORCES = "open-r1/codeforces-cots"
CODEFORCES_COLUMNS = ("id", "title", "description", "input_format", "output_format", "examples")
CODEFORCES_COLUMNS += ("note", "time_limit", "memory_limit")
LANGUAGES = {"solutions": "cpp", "solutions_py": "python"}  # of the parts, and what they ask for


def openr1() -> list[dict]:
    """The questions of OpenR1-Math. Raises UserError where it is out of reach, or has changed."""
    advice = "Give local questions with --data FILE, or use --task arith."
    return openr1_questions(hub_rows(OPENR1, "default", OPENR1_COLUMNS, advice))


def with_generations(sets: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The sets of OpenR1-Math, whose training questions have DeepSeek-R1's first solution that is
    marked right as "demonstration", where there is one, in place of the `solution` column. Only
    these rows are read: all of them together are some GB."""
    columns = ("uuid", "generations", "correctness_math_verify")
    rows = hub_rows(OPENR1, "default", columns, "Give local questions with --data FILE.")
    training = {q["id"] for name in ("srt", "distil") for q in sets[name]}
    shown = {}
    for place, uuid in enumerate(rows["uuid"]):
        if uuid in training:
            row = rows[place]
            verdicts = row["correctness_math_verify"] or ()
            right = [text for text, good in zip(row["generations"] or (), verdicts) if good]
            shown |= {uuid: {"demonstration": right[0]}} if right else {}
    print(
        f"{OPENR1}: {len(shown)} of {len(training)} questions with a right solution by DeepSeek-R1"
    )
    return {name: [q | shown.get(q["id"], {}) for q in part] for name, part in sets.items()}


def codeforces() -> list[dict]:
    """The questions of codeforces-cots in both languages; in Python alone where there is no C++
    compiler, which is said. Raises UserError as openr1() does."""
    from verify import cpp_compiler  # the rewards are imported where they are used

    advice = "Give local problems with --data FILE; --data problems/code.jsonl has 36 easy ones."
    parts = {}
    for part, language in LANGUAGES.items():
        if language == "cpp" and not cpp_compiler():
            print("neither g++ nor clang++ is found: no problem is asked in C++, all in Python")
        else:
            parts[language] = hub_rows(CODEFORCES, part, CODEFORCES_COLUMNS, advice)
    return codeforces_questions(parts)


def hub_rows(name: str, part: str, columns: tuple, advice: str):
    """The rows of a part of a data set on the hub, with these columns alone, and
    interaction_format where there is one."""
    require_hub(name, "dataset", advice)
    import datasets

    rows = datasets.load_dataset(name, part, split="train")
    check_form(name, rows.column_names, columns)
    optional = {"interaction_format"} & set(rows.column_names)
    return rows.select_columns([*columns, *optional])


def check_form(name: str, found, wanted) -> None:
    """Raise UserError where a data set lacks columns that are read."""
    if missing := [column for column in wanted if column not in found]:
        raise UserError(
            f"{name} has changed its form: no column {', '.join(missing)} among "
            f"{', '.join(sorted(map(str, found))) or '(none)'}. Give its rows with --data FILE"
        )


def openr1_questions(rows) -> list[dict]:
    """Questions of those rows of OpenR1-Math that are of a competition and were solved."""
    kept = kept_rows(rows, OPENR1, OPENR1_COLUMNS, why_not_openr1)
    return kit.questions.questions_of(kept, "math", OPENR1)


def why_not_openr1(row: dict) -> str:
    """Why a row is none of the paper's; empty where it is."""
    if row["source"] not in COMPETITIONS:
        return "of no competition"
    if row["question_type"] == "proof" or str(row["answer"]).strip().lower() == "proof":
        return "proofs"
    return "" if any(row["correctness_math_verify"] or ()) else "without a verified solution"


def codeforces_questions(parts: dict) -> list[dict]:
    """Questions of {language: rows of codeforces-cots}. "version_of" is the same in both."""
    questions = []
    for language, rows in parts.items():
        name = f"{CODEFORCES} in {language}"
        kept = kept_rows(rows, name, CODEFORCES_COLUMNS, first_of_each_problem())
        asked = [(number, {**row, "language": language}) for number, row in kept]
        for q in kit.questions.questions_of(asked, "code", name):
            questions.append(q | {"id": f"{q['id']} in {language}", "version_of": q["id"]})
    return questions


def first_of_each_problem():
    """why_not(row) for kept_rows: a problem stands in a part once for every solution."""
    seen = set()

    def why_not(row: dict) -> str:
        if row["id"] in seen:
            return "further solutions of the same problem"
        seen.add(row["id"])
        return "interactive" if row.get("interaction_format") else ""

    return why_not


def kept_rows(rows, name: str, columns: tuple, why_not) -> list[tuple[int, dict]]:
    """(number, row) of the rows that why_not(row) has nothing against; prints how many were left
    out, and why. Raises UserError for a row that lacks a column."""
    kept, left_out = [], Counter()
    for number, row in enumerate(rows, 1):
        if not kept and not left_out:
            check_form(name, row, columns)
        if why := why_not(row):
            left_out[why] += 1
        else:
            kept.append((number, row))
    reasons = "".join(f"; {n} {why}" for why, n in left_out.items())
    print(f"{name}: {len(kept)} of {len(kept) + left_out.total()} rows are questions{reasons}")
    return kept
