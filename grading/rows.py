"""A file of rows to grade, for the command line."""

import json

from grading.programs.formats import load_tests


def read_rows(path):
    """What to grade, and what cannot be graded.

    Returns ({task: [(line, response, reference)]}, {line: (0.0, why it is a bad row)}).
    """
    jobs, bad = {"math": [], "code": []}, {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or "response" not in row:
                    raise ValueError("no response")
                gold = row.get("gold", row.get("answer"))
                if gold is not None:
                    jobs["math"].append((number, row["response"], gold))
                else:
                    jobs["code"].append((number, row["response"], load_tests(row)))
            except ValueError as error:
                bad[number] = (0.0, f"bad row: {error}")
    return jobs, bad
