"""The embedded model's own defaults: it is 20,000 times smaller, and learns at other rates."""

import json
from pathlib import Path

ALIASES = {
    "tiny": str(Path(__file__).resolve().parent.parent / "tiny"),
    "Qwen/Qwen3-4B-Instruct": "Qwen/Qwen3-4B-Instruct-2507",  # the hub lacks the bare name
}

# Found on validation questions (docs/results.md).
TINY = dict(
    device="cpu",  # where the numbers were found; its steps are too small for a GPU
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


def preset(model: str) -> dict:
    """A model's own defaults: TINY for the embedded one and for what was trained from it."""
    return TINY if is_tiny(model) else {}
