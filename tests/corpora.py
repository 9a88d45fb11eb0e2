"""The corpora: what the rewards must say of right, wrong and hostile answers and programs."""

import json
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def rows(name):
    """The rows of a file of tests/corpus, or of the repository."""
    path = TESTS / "corpus" / name
    if not path.exists():
        path = ROOT / name
    return [json.loads(line) for line in path.read_text().splitlines()]


def block(source):
    """A response with a program in it."""
    return f"```python\n{source}\n```"


def wrong_rows(grader, items, reference):
    """The rows that a grader sees otherwise than they say: an empty list if all is well."""
    responses = [row["response"] for row in items]
    verdicts = grader.explain(responses, [row[reference] for row in items])
    wrong = []
    for row, (reward, why) in zip(items, verdicts, strict=True):
        if reward != row["reward"]:
            wrong.append((row["kind"], row["response"], row[reference], why))
    return wrong
