"""A run owns only what it made.

`run.json` is its marker: it lists every file that the run has made, and says what the run is (its
options, and the content that counts). What the marker does not list is somebody else's: it is never
overwritten, moved or removed.
"""

import contextlib
import os
from pathlib import Path

from kit.errors import UserError
from kit.files import file_size, read_json, write_json
from kit.presets import ALIASES

MARKER = "run.json"


class Ownership:
    """The marker of a run's folder: what the run is, and which files it has made.

    Raises UserError, before anything is written, where the folder is somebody else's.
    """

    def __init__(self, path: Path):
        self.path, self.marker = path, {"files": [], "options": {}, "content": {}}
        self.seen = set()  # every name that was in the marker
        try:
            if (path / MARKER).is_file():
                self.marker |= self.checked(read_json(path / MARKER))
                self.seen |= {*self.marker["files"]}
            elif path.is_dir() and any(p.name != MARKER + ".tmp" for p in path.iterdir()):
                raise UserError(
                    f"--out {path} is not empty and was not made by a run (it has no {MARKER}): "
                    "give another --out, or move away what is there"
                )
            elif path.exists() and not path.is_dir():
                raise UserError(f"--out {path} is a file, not a folder: give another --out")
        except OSError as e:
            raise UserError(f"--out {path} cannot be read: {e.strerror}") from e

    def checked(self, marker) -> dict:
        """The marker's content, if a run wrote it: names inside the folder alone, for one thing."""
        good = isinstance(marker, dict) and isinstance(marker.get("files"), list)
        for name in marker["files"] if good else ():
            good = good and isinstance(name, str) and not Path(name).is_absolute()
            good = good and ".." not in Path(name).parts
        if not good:
            raise UserError(f"{self.path / MARKER} was not written by a run: give another --out")
        return marker

    def begun(self) -> bool:
        """Whether the run has anything to go on from, or to lose."""
        journal = self.path / "state" / "rollouts.jsonl"
        paid = (self.path / "results.json").is_file() or file_size(journal) > 0
        return bool(self.marker["options"]) and paid

    def write_marker(self) -> None:
        """What another process has entered meanwhile, a study of a run that is under way, stays."""
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / MARKER
        entered = self.checked(read_json(file))["files"] if file.is_file() else []
        self.marker["files"] += [name for name in entered if name not in self.seen]
        self.seen |= {*self.marker["files"]}
        write_json(file, self.marker)

    def claim(self, *names: str) -> None:
        """Enter names into the marker before they are made. Raises UserError for one that exists
        and is not the run's."""
        new = [name for name in names if name not in self.marker["files"]]
        for name in new:
            if os.path.lexists(self.path / name):
                raise UserError(
                    f"{self.path / name} was not made by this run and would be overwritten: move "
                    "it away, or give another --out"
                )
        if new:
            self.enter(*new)

    def enter(self, *names: str) -> None:
        """Enter files that a library has just made for the run, under names of its own choice."""
        self.marker["files"] += [name for name in names if name not in self.marker["files"]]
        self.write_marker()

    def remove(self, *names: str) -> None:
        """Remove these files of the run's, and the folders that are empty then."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()
        for folder in {parent for name in names for parent in Path(name).parents} - {Path(".")}:
            with contextlib.suppress(OSError):  # there is something of somebody else's in it
                (self.path / folder).rmdir()

    def inside(self, folder: str) -> list[str]:
        return [name for name in self.marker["files"] if Path(name).parts[0] == folder]

    def forget(self, *names: str) -> None:
        self.marker["files"] = [name for name in self.marker["files"] if name not in names]


def own(folder: Path, *names: str) -> None:
    """Enter files that are about to be written into a run's folder (a study's figure, say) into
    its marker, so that --fresh removes them too. Raises UserError where that is somebody's."""
    ownership = Ownership(folder)
    ownership.path.mkdir(parents=True, exist_ok=True)
    ownership.claim(*names)


def refuse_data_folder(out: str, data: str) -> None:
    """Raise UserError where --out lies in the folder of --data, which would be read with it."""
    if data and Path(data).is_dir() and Path(data).resolve() in Path(out).resolve().parents:
        raise UserError(
            f"--out {out} is in the folder of --data {data}, where what a run writes would be read "
            "as questions: give another --out"
        )


def refuse_model_folder(out: str, model: str) -> None:
    """Raise UserError where --out is the model's own folder or one above it."""
    source = Path(ALIASES.get(model, model))
    if not source.exists():
        return  # a hub id
    source = source.resolve()
    folder, path = source if source.is_dir() else source.parent, Path(out).resolve()
    # by what they are, not by name: a file system may ignore case
    same = [path.exists() and path.samefile(one) for one in (folder, *folder.parents)]
    if any(same):
        where = "the folder of" if same[0] else "above"
        raise UserError(
            f"--out {out} is {where} --model {model}, which a run must not write over: give "
            "another --out"
        )
