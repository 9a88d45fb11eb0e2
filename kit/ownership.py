"""A run owns only what it made.

`run.json` is its marker: it lists every file that the run has made, and says what the run is (its
options, and the content that counts). What the marker does not list is somebody else's: it is never
overwritten, moved or removed.
"""

import contextlib
import os
from pathlib import Path

from kit.errors import UserError
from kit.files import differing, file_size, hash_of, read_json, write_json
from kit.presets import ALIASES

MARKER = "run.json"
HOME = Path(__file__).parent.parent
CODE = [HOME / "sdzero.py", HOME / "baselines.py"]


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
            good = good and Path(name).parts and ".." not in Path(name).parts
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
        """Remove these files of the run's, and the folders that are empty then. Behind a link that
        stands in a folder's place they are somebody else's, whatever their names."""
        for name in names:
            if any((self.path / folder).is_symlink() for folder in Path(name).parents[:-1]):
                continue
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()
        for folder in {parent for name in names for parent in Path(name).parents} - {Path(".")}:
            with contextlib.suppress(OSError):  # there is something of somebody else's in it
                (self.path / folder).rmdir()

    def tell_of_changed_code(self) -> None:
        """Code is no part of what a run is, or a comment would end it; but whoever has changed a
        loss should know that what is done stays as it was."""
        began = self.marker.get("code", {})
        if changed := differing(began, code_now()) if began else []:
            print(
                f"note: {' and '.join(changed)} changed since the run in {self.path} began; what "
                "it has done stays as it was (--fresh does it anew)"
            )

    def inside(self, folder: str) -> list[str]:
        return [name for name in self.marker["files"] if Path(name).parts[0] == folder]

    def forget(self, *names: str) -> None:
        self.marker["files"] = [name for name in self.marker["files"] if name not in names]


def code_now() -> dict[str, str]:
    """{file: hash} of the method's own files."""
    return {file.name: hash_of(file) for file in CODE if file.is_file()}


def differ(path: Path, marker: dict, options: dict, content: dict) -> None:
    """Raise UserError, naming each difference, where the marker is of a run with other options, or
    on other content: its old answers would be trained on new questions."""
    saved = marker["options"]
    changed = [
        f"{name} {saved.get(name)!r} (now {value!r})"
        for name, value in options.items()
        if saved.get(name) != value and name != "out"  # the folder may have been moved
    ]
    if changed:
        raise UserError(
            f"{path} holds a run with other options: {', '.join(changed)}. Give those, another "
            "--out, or --fresh to discard it"
        )
    saved = marker.get("content", {})
    if changed := differing(saved, content):
        raise UserError(
            f"{path} holds a run on other content; what changed: {'; '.join(changed)}. Bring that "
            "back, give another --out, or --fresh to discard the run"
        )


def refuse_study(ownership: Ownership, options: dict) -> None:
    """Raise UserError where the folder is a study's, whose results a run would discard."""
    saved = ownership.marker["options"]
    if saved and not set(saved) & set(options):
        raise UserError(
            f"{ownership.path} does not hold a run, but what a study wrote: give another --out"
        )


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
