"""Rows to grade, for the command line."""

from grading.golds import read_gold
from grading.programs.fields import is_empty
from grading.programs.formats import load_tests

# The columns of a gold answer; a solution counts where a row has no tests, which it would pass
GOLDS = ("gold", "answer", "final_answer", "target")


def jobs_of(rows):
    """What to grade among rows, and what cannot be graded.

    Returns ({task: [(number, response, reference)]}, {number: (0.0, why it is a bad row)}), where
    the number is the row's place in the list.
    """
    jobs, bad = {"math": [], "code": []}, {}
    for number, row in enumerate(rows):
        try:
            if isinstance(row, str):  # why it could not be read
                raise ValueError(row)
            if not isinstance(row, dict) or "response" not in row:
                raise ValueError("no response")
            task, reference = reference_of(row)
            jobs[task].append((number, row["response"], reference))
        except ValueError as error:
            bad[number] = (0.0, f"bad row: {error}")
    return jobs, bad


def reference_of(row):
    """("math", gold answer) or ("code", tests) of a row; ValueError, saying why, if it has none."""
    reason = None
    for column in GOLDS:
        if not is_empty(row.get(column)):
            try:
                return "math", read_gold(row[column])
            except ValueError as error:
                reason = reason or error
    try:
        return "code", load_tests(row)
    except ValueError as error:
        reason = reason or error
    if not is_empty(row.get("solution")):
        try:
            return "math", read_gold(row["solution"])
        except ValueError:
            pass
    raise reason


def failures(verdicts, places, most):
    """The lines that say which rows failed and why, `most` of them at most."""
    failed = [
        f"{place}: {why}"
        for place, (reward, why) in zip(places, verdicts, strict=True)
        if reward != 1.0
    ]
    more = [f"... and {len(failed) - most} more"] if len(failed) > most else []
    return failed[:most] + more


def totals(verdicts):
    """The accuracy, and how many rows were bad."""
    rows, right = len(verdicts), sum(reward == 1.0 for reward, _ in verdicts)
    bad = sum(why.startswith("bad row") for _, why in verdicts)
    return f"accuracy {right}/{rows} = {right / max(1, rows):.3f}   bad rows {bad}"
