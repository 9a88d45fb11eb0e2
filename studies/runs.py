"""What a run's folder says: its options, results and log."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import kit
import sdzero
from kit.errors import UserError
from studies import programs

# The options that decide which questions are asked, with which prompts, and how answers are
# sampled. A checkpoint is measured with its run's: then its numbers are the run's own.
MEASURING = (
    "task",
    "data",
    "reward",
    "gym_options",
    "digits",
    "numbers",
    "largest",
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
    "shots",
    "recipe",
    "temperature",
    "top_p",
    "max_tokens",
    "eval_temperature",
    "eval_top_p",
    "eval_max_tokens",
    "rollout_batch",
)


GENERATED = ("arith", "countdown")  # tasks whose sets depend on --seed
PHASE_OF = {"srt": "srt", "sdzero": "distil"}  # stages whose steps have another name


def is_run(folder: Path) -> bool:
    """Whether a run has measured something here; a comparison's results are no run's."""
    return (folder / "results.json").is_file() and bool(read_options(folder))


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


def options_of_their_run(checkpoints: list[str]) -> dict:
    """The measuring options of the first checkpoint that lies in a run folder; empty where none
    does."""
    for checkpoint in map(Path, checkpoints):
        if checkpoint.is_dir() and (saved := read_options(checkpoint.parent)):
            return measuring_options(saved)
    return {}


def tell_of_other_seeds(checkpoints: list[str]) -> None:
    """Say which checkpoints drew their generated questions with another seed than the first one,
    whose test questions are asked: they may have been trained on some of these."""
    options = {c: read_options(Path(c).parent) for c in checkpoints if Path(c).is_dir()}
    of_runs = [(c, saved) for c, saved in options.items() if saved]
    (first, its), *others = of_runs or [("", {})]
    for checkpoint, saved in others:
        generated = saved["task"] in GENERATED and not saved["data"]
        if generated and saved["task"] == its["task"] and saved["seed"] != its["seed"]:
            print(
                f"note: the test questions are those of {first} (--seed {its['seed']}); "
                f"{checkpoint} drew its own with --seed {saved['seed']}, and may have been trained "
                "on some of them"
            )


def command_of(saved: dict) -> str:
    """The command of a run with these options: those that are not their defaults, --out aside."""
    chosen = ("method", "model", "task", "data", "lora")
    options = {name: saved[name] for name in chosen if saved.get(name)}
    make = programs.maker_of(saved)
    usual = dict(vars(make(**options)))
    if saved.get("recipe", usual["recipe"]) != usual["recipe"]:  # it was asked for
        usual = vars(make(**options, recipe=saved["recipe"])) | {"recipe": None}
    first = {f.name: f.default for f in fields(sdzero.Config)}  # of what decides on the others
    usual |= {name: first[name] for name in chosen}
    # counts are saved as --scale left them
    given = {k: v for k, v in saved.items() if k in usual and v != usual[k]}
    given = {k: v for k, v in given.items() if k not in ("out", "scale")}
    if saved.get("on_revisions") and saved["samples"]:  # all of them are phase 1's there
        given = {k: v for k, v in given.items() if k not in ("srt_questions", "distil_questions")}
    given = programs.of_program(given, given)  # less what its method lacks
    _, program, *words = programs.command_of(given)
    return shlex.join(["python", str(Path(program).relative_to(programs.ROOT)), *words])


def read_results(folder: Path) -> dict:
    """{stage: what was measured behind it}; empty where nothing was yet."""
    return kit.files.read_results(folder)


def read_metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl. Raises UserError where there is none."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no metrics.jsonl")
    lines = file.read_text().splitlines()
    if lines and not lines[-1].endswith("}"):
        lines.pop()  # a full disk cut it off; the run mends it when it goes on
    return [json.loads(line) for line in lines]


def own_folder(out: Path, study: str, *files: str) -> None:
    """Take the folder of a study of many runs, or go on in it. Raises UserError, before anything is
    written, where it is somebody else's."""
    ownership, mark = kit.ownership.Ownership(out), {"study": study}
    if ownership.marker["options"] not in ({}, mark):
        raise UserError(f"--out {out} holds a run, not a comparison: give another --out")
    ownership.marker["options"] = mark
    ownership.claim(*files)


def folder_of_row(out: Path, row: str, budget: int, seed: int) -> Path:
    """Where a comparison in the folder `out` has a run of one of its rows."""
    name = re.sub("[^a-z0-9]+", "-", row.lower()).strip("-")
    return out / "runs" / f"{name}-{budget}-{seed}"


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


def lines_of_stage(metrics: list[dict], stage: str) -> list[dict]:
    """The metrics' lines of a stage; all of them where it has none of its own."""
    phase = PHASE_OF.get(stage, stage)
    return [line for line in metrics if line["phase"].split(" ")[0] == phase] or metrics


def checkpoints_of(folder: Path) -> list[str]:
    """The names of a run's measured checkpoints, in the order in which they were made."""
    return [name for name in read_results(folder) if (folder / name / "config.json").is_file()]


# --------------------------------------------------------------------------------------------------
# Which row of the paper's tables a checkpoint is
# --------------------------------------------------------------------------------------------------
BASELINES = {"sft": "SFT", "rft": "RFT", "grpo": "GRPO", "sdft": "SDFT"}


def paper_place(checkpoint: str) -> tuple[str, str]:
    """(family, row) of a checkpoint, family being "" where the paper has none such."""
    path = Path(checkpoint)
    saved = read_options(path.parent) if path.is_dir() else {}
    model = str(saved.get("model", checkpoint))
    return family_of(model), row_of(saved, path.name) if saved else "base"


def family_of(model: str) -> str:
    return next((family for family in ("qwen", "olmo") if family in Path(model).name.lower()), "")


# Controls, ablations and variants that the paper's tables lack: options that are off there.
NOT_THERE = ("on_revisions", "flip_reward", "l_answer", "teacher_ema", "term_clip", "tail")
NOT_THERE += ("kl_clip", "right_share")


def as_in_the_paper(saved: dict) -> bool:
    """Whether a run's method is the paper's, and no control or ablation that it does not have."""
    if any(saved.get(name) for name in NOT_THERE):
        return False
    iterated = saved.get("method") == "rft" and saved.get("rounds", 1) > 1
    blind = saved.get("phrase_if_right", "r") == saved.get("phrase_if_wrong", "w")
    wrong_alone = saved.get("l_generation") == "wrong" and not saved.get("srt_in_turn")
    usual = saved.get("divergence", "reverse") == "reverse" and saved.get("filtered", True)
    return usual and not (iterated or blind or wrong_alone)


def row_of(saved: dict, stage: str) -> str:
    """What the paper calls the method of a run's stage; empty where it has none such."""
    method = saved.get("method", "sdzero")
    if stage != "base" and not as_in_the_paper(saved):
        return ""
    if stage == "base" or method in BASELINES:
        row = BASELINES[method] if stage == method else "base" * (stage == "base")
        alone = row == "SDFT" and saved.get("shown") == "answer"
        return "SDFT, final answers only" if alone else row
    if stage == "sdzero":
        whole = saved.get("l_revision", True) and saved.get("l_generation", "all") != "none"
        return ("SD-Zero" if whole else "") if saved.get("phase1", True) else "phase 2 only"
    if stage != "srt" or saved.get("l_answer"):
        return ""
    if not saved.get("l_revision", True):
        return "SRT, L_generation only"
    return "SRT" if saved.get("l_generation", "all") != "none" else "SRT, L_revision only"
