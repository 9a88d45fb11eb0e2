"""Files that a kill, or a full disk, leaves whole."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from kit.errors import UserError


def read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise UserError(f"{path} is damaged ({e}). Restore it, or start anew with --fresh") from e


def hash_of(path: Path) -> str:
    """Of all that is in the file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()[:16]


def differing(saved: dict, now: dict) -> list[str]:
    """The names whose values are not the same in both, those that one of them lacks among them."""
    return [name for name in {**saved, **now} if saved.get(name) != now.get(name)]


def read_results(folder: Path) -> dict:
    """results.json of a run, empty where there is none yet."""
    file = folder / "results.json"
    return read_json(file) if file.is_file() else {}


def replace_file(path: Path, write) -> None:
    """write(temporary path), then put it in place: a reader, or a kill, meets the old file or the
    new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as e:  # torch.save turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, e) from e


def cannot_write(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be written ({str(error).splitlines()[0]}). What was saved before is still "
        "good: mend that and start the same command again"
    )


def write_json(path: Path, data) -> None:
    replace_file(path, lambda p: p.write_text(json.dumps(data, indent=1) + "\n"))


def file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def save_checkpoint(tokenizer, model, folder: Path) -> None:
    """A folder that AutoModelForCausalLM.from_pretrained and --model load. Raises UserError where
    it cannot be written; then nothing of it is left, which may be what the disk has room for."""
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (OSError, RuntimeError, SafetensorError) as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise cannot_write(folder, e) from e
