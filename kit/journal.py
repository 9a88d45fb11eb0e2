"""A journal of rollouts for what is only measured: the part of kit/run_folder.py that
kit/sampling.py asks for, without a run."""

import json
from pathlib import Path

from kit.errors import UserError


class Journal:
    """Batches of responses, in a file that a stopped measurement goes on from.

    settings: what the responses depend on beside their prompts. Raises UserError for a file that
    was begun with others.
    """

    def __init__(self, path: Path, settings: dict):
        self.path, self.places, self.totals = path, {}, {"timeouts": 0}
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"settings": settings}) + "\n")
        with path.open("rb+") as file:
            position = 0
            for line in file:
                try:
                    row = json.loads(line)
                    if position == 0:
                        check_settings(path, row["settings"], settings)
                    else:
                        self.places[row["key"]] = position
                except (ValueError, KeyError, TypeError):
                    pass  # a kill cut this line off: its batch is sampled again
                position += len(line)
            if position and not line.endswith(b"\n"):
                file.write(b"\n")

    def recall(self, key: str):
        """The batch under `key`, or None."""
        if key not in self.places:
            return None
        with self.path.open("rb") as file:
            file.seek(self.places[key])
            return json.loads(file.readline())["batch"]

    def remember(self, key: str, batch: list[list[int]]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "batch": batch}) + "\n")

    def stopping(self) -> bool:
        return False  # Ctrl-C interrupts at once; what was remembered stays


def check_settings(path: Path, saved: dict, settings: dict) -> None:
    """Raise UserError where what lies at `path` was measured with other settings."""
    saved, settings = (json.loads(json.dumps(s)) for s in (saved, settings))
    names = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    if names:
        differ = "; ".join(f"{n} {saved.get(n)} (now {settings.get(n)})" for n in names)
        raise UserError(
            f"{path} was measured with other settings: {differ}. Give another --out, or remove it"
        )
