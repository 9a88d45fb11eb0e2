"""Rewards of your own: function(response, row) -> 0 or 1 of a Python file, asked in workers."""

import json
from pathlib import Path

from grading.bounds import MATH_SECONDS, START_SECONDS
from grading.workers import OnPool, Pool, Worker, cores

GYM_REWARD = str(Path(__file__).resolve().with_name("gym.py")), "score"  # file, function
SHOWN = 200  # characters of a row or a response in a message


class OwnGrader(OnPool):
    """Grades batches by a function of a file, in warm worker processes; thread-safe.

    The bounds are those of mathematics (grading/bounds.py), memory counted on top of what loading
    the file takes. What takes too long is a 0.0, and is counted in .timeouts. Whatever else goes
    wrong (no such name, an exception, another value than 0 or 1, a worker that died) raises
    `error`, with the function and the row: a reward that silently is 0 would be trained on.
    """

    wants_rows = True  # grade() takes the questions' dicts, not their answers

    def __init__(self, file, name, error=ValueError, workers=None):
        self.file, self.name, self.error = str(Path(file).resolve()), name, error
        self.tried()
        self.pool = Pool("own", (self.file, name), workers or cores(), MATH_SECONDS)

    def tried(self):
        """Load the file once, in a process of its own. Raises self.error."""
        worker = Worker("own", self.file, self.name)
        said = worker.ask(None, START_SECONDS)
        if not isinstance(said, dict):
            raise self.error(f"{self.file} could not be loaded (it hung, or its process died)")
        worker.dismiss()
        if "fault" in said:
            raise self.error(said["fault"])

    def grade(self, responses, rows):
        """[0.0 or 1.0] for each response to the question of its row. Raises self.error."""
        pairs = list(zip(responses, rows, strict=True))
        items = [{"response": response, "row": plain(row)} for response, row in pairs]
        rewards = []
        for (right, why), item in zip(self.pool.ask(items), items, strict=True):
            if why and why != "time-out":
                raise self.error(
                    f"{self.name} of {self.file}: {why}; for the row {short(item['row'])} and the "
                    f"response {short(item['response'])}"
                )
            rewards.append(float(right))
        return rewards


def plain(row):
    """A row as its JSON says it: what JSON lacks (a date) becomes text."""
    return json.loads(json.dumps(row, default=str))


def short(value):
    """A value on one line, its end cut off where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."
