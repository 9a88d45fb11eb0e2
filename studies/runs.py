"""What a run's folder says: its options, results and log."""

import json
from pathlib import Path

import kit
from kit.errors import UserError

# The options that decide which questions are asked, with which prompts, and how answers are
# sampled. A checkpoint is measured with its run's: then its numbers are the run's own.
MEASURING = (
    "task",
    "data",
    "digits",
    "seed",
    "srt_questions",
    "distil_questions",
    "eval_questions",
    "eval_samples",
    "eval_split",
    "chat_template",
    "unsafe_exec",
    "phrase_if_right",
    "phrase_if_wrong",
    "system",
    "instruction",
    "recipe",
    "temperature",
    "top_p",
    "max_tokens",
    "eval_temperature",
    "eval_top_p",
    "eval_max_tokens",
    "rollout_batch",
)


def is_run(folder: Path) -> bool:
    """Whether a run has measured something here."""
    return (folder / "results.json").is_file()


def read_options(folder: Path) -> dict:
    """The options of the run in `folder`; empty where it is not a run's."""
    file = folder / "config.json"
    saved = kit.files.read_json(file) if file.is_file() else {}
    # a model's folder has a config.json too, of another kind
    return saved if isinstance(saved, dict) and "srt_questions" in saved else {}


def measuring_options(saved: dict) -> dict:
    """What of a run's options a later measurement takes over, whichever program made the run."""
    options = {name: saved[name] for name in MEASURING if name in saved}
    # a set that was empty for the run may be empty here: nothing is trained
    if not saved["srt_questions"]:
        options["phase1"] = False
    elif not saved["distil_questions"]:
        options["method"] = "srt"
    return options


def read_results(folder: Path) -> dict:
    """{stage: what was measured behind it}; empty where nothing was yet."""
    return kit.files.read_results(folder)


def read_metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl. Raises UserError where there is none."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def only_run_of(folders: list[str], verb: str) -> Path:
    """The one run folder that a study is about. Raises UserError."""
    if len(folders) != 1:
        raise UserError(f"{verb} takes one run folder, not {len(folders)}")
    folder = Path(folders[0])
    if not read_options(folder):
        raise UserError(
            f"{folder} is not a run folder: it has no config.json of a run. Give the folder that "
            "sdzero.py or baselines.py wrote, such as out/tiny-arith-0"
        )
    return folder
