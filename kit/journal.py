"""The journal of rollouts: batches of responses in a file, which what was stopped goes on from."""

import json
from pathlib import Path

from kit.errors import UserError


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
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"settings": settings}) + "\n")
        with path.open("rb") as file:
            first = file.readline()
        try:
            check_settings(path, json.loads(first)["settings"], settings)
        except (ValueError, KeyError, TypeError):
            pass  # cut off, as any line can be
        self.read()

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
