"""The embedded model's own defaults: it is 20,000 times smaller, and learns at other rates."""

import json
from dataclasses import fields
from pathlib import Path

ALIASES = {
    "tiny": str(Path(__file__).resolve().parent.parent / "tiny"),
    "Qwen/Qwen3-4B-Instruct": "Qwen/Qwen3-4B-Instruct-2507",  # the hub lacks the bare name
}

# Found on validation questions (docs/results.md).
TINY = dict(
    srt_questions=924,
    distil_questions=912,
    temperature=1.0,
    max_tokens=160,
    rollout_batch=512,
    micro_tokens=2048,
    l_generation="none",
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


RATES = "srt_lr", "distil_lr", "lr"  # the options that are learning rates


def adapter_factor(given: dict) -> int:
    """How many times higher the default learning rates are with adapters (--lora): 3 for the
    embedded model (found on validation questions); 10 otherwise, which the literature finds over
    many models (Schulman et al. 2025, LoRA Without Regret), and which was not tried here."""
    if not given.get("lora"):
        return 1
    return 3 if is_tiny(given.get("model", "tiny")) else 10


def adapter_rates(cls, given: dict) -> dict:
    """given, and with --lora a learning rate in place of each that was not given: adapter_factor
    times that of whole weights, the preset's or the default of the dataclass cls."""
    if not given.get("lora"):
        return given
    defaults = {f.name: f.default for f in fields(cls)} | preset(given.get("model", cls.model))
    rates = {n: adapter_factor(given) * v for n, v in defaults.items() if n in RATES}
    return rates | given


def preset(model: str) -> dict:
    """A model's own defaults: TINY for the embedded one and for what was trained from it."""
    return TINY if is_tiny(model) else {}
