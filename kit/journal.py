"""The journal of rollouts: batches of responses in a file, which what was stopped goes on from."""

import json
from pathlib import Path

from kit.errors import UserError
from kit.files import differing, replace_file


class Batches:
    """A file with a line for each batch, under its key."""

    def __init__(self, path: Path):
        self.path, self.places = path, {}  # {key: where its line begins}

    def read(self, writes: bool = True) -> None:
        """Find the batches that are there. A last line that a kill cut off is ended, so that the
        next one stands alone; not where another process `writes`."""
        with self.path.open("rb+" if writes else "rb") as file:
            position = 0
            for line in file:
                try:
                    self.places[json.loads(line)["key"]] = position
                except (ValueError, KeyError, TypeError):
                    pass  # a kill, or a full disk, cut this line off: its batch is sampled again
                position += len(line)
            if writes and position and not line.endswith(b"\n"):
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


class Journal(Batches):
    """The journal of what is only measured: the part of kit/run_folder.py that kit/sampling.py asks
    for, without a run.

    settings: what the responses depend on beside their prompts. Raises UserError for a file that
    was begun with others.
    """

    def __init__(self, path: Path, settings: dict):
        super().__init__(path)
        self.totals = {"timeouts": 0}
        if begun := settings_in(path):
            check_settings(path, begun, settings)
        else:  # or what it was begun with cannot be read: nobody knows what the rest answers
            path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"settings": settings}) + "\n"
            replace_file(path, lambda p: p.write_text(line))
        self.read()

    def stopping(self) -> bool:
        return False  # Ctrl-C interrupts at once; what was remembered stays


def settings_in(path: Path) -> dict:
    """What the journal at `path` was begun with; empty where there is none that can be read."""
    try:
        with path.open("rb") as file:
            return dict(json.loads(file.readline())["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_settings(path: Path, saved: dict, settings: dict) -> None:
    """Raise UserError where what lies at `path` was measured with other settings."""
    saved, settings = (json.loads(json.dumps(s)) for s in (saved, settings))
    if names := differing(saved, settings):
        differ = "; ".join(f"{n} {saved.get(n)} (now {settings.get(n)})" for n in names)
        raise UserError(
            f"{path} was measured with other settings: {differ}. Give another --out, or remove it"
        )
