"""The embedded model's own defaults: it is 20,000 times smaller, and learns at other rates."""

import json
from pathlib import Path

from kit.errors import UserError
from kit.recipes import following, recipe

ALIASES = {
    "tiny": str(Path(__file__).resolve().parent.parent / "tiny"),
    "Qwen/Qwen3-4B-Instruct": "Qwen/Qwen3-4B-Instruct-2507",  # the hub lacks the bare name
}

# Found on validation questions (docs/results.md).
TINY = dict(
    device="cpu",  # where the numbers were found; its steps are too small for a GPU
    srt_questions=308,  # 1536 samples with phase 2: within 90 s; --samples 4608 learns far more
    distil_questions=304,
    eval_questions=150,
    temperature=1.0,
    max_tokens=160,
    rollout_batch=512,
    micro_tokens=2048,
    distil_temperature=0.0,
    eval_temperature=0.0,
    distil_max_tokens=0,
    eval_max_tokens=0,
    srt_records=0,
    phrase_if_wrong="",
    trim=True,
    l_generation="none",
    reduction="mean",
    srt_epochs=16,
    srt_batch=16,
    srt_lr=1e-3,
    distil_batch=4,
    distil_lr=3e-4,
    warmup_steps=10,
    decay=1.0,
    eval_samples=2,
)


def is_tiny(model: str) -> bool:
    """Whether `model` is the embedded model or was trained from it: its config.json says so."""
    file = Path(ALIASES.get(model, model)) / "config.json"
    try:
        return json.loads(file.read_text()).get("sdzero_family") == "tiny"
    except (OSError, ValueError, AttributeError):
        return False  # a hub id, a .gguf file; a damaged config is reported where it is loaded


RATES = "srt_lr", "distil_lr"  # the recipes' options that are learning rates


def adapter_factor(given: dict) -> int:
    """How many times higher the default learning rates are with adapters (--lora): 3 for the
    embedded model (found on validation questions); 10 otherwise, which the literature finds over
    many models (Schulman et al. 2025, LoRA Without Regret), and which was not tried here."""
    if not given.get("lora"):
        return 1
    return 3 if is_tiny(given.get("model", "tiny")) else 10


def recipe_of_run(cfg) -> dict:
    """The defaults that a run's recipe gave, whether or not they were kept."""
    return recipe_of({k: getattr(cfg, k) for k in ("recipe", "task", "model", "lora")})


def recipe_of(given: dict) -> dict:
    """The defaults of the options that were not given: the recipe that was asked for, or that of
    the model. With --lora its learning rates are higher (adapter_factor)."""
    name = given.get("recipe") or ("tiny" if is_tiny(given.get("model", "tiny")) else "paper")
    task = "math" if given.get("data") and "task" not in given else given.get("task", "math")
    if name == "tiny":
        values = TINY
    elif name in ("paper", "authors"):
        values = recipe(name, task)
    else:
        raise UserError(f"--recipe must be one of paper, authors, tiny, not {name!r}")
    rates = {rate: values[rate] * adapter_factor(given) for rate in RATES}
    return {**values, **rates, **following(given), "recipe": name}
