"""Which family a model belongs to: the embedded one learns at other rates than a real model."""

import json
from pathlib import Path

ALIASES = {
    "tiny": str(Path(__file__).resolve().parent.parent / "tiny"),
    "Qwen/Qwen3-4B-Instruct": "Qwen/Qwen3-4B-Instruct-2507",  # the hub lacks the bare name
}


def is_tiny(model: str) -> bool:
    """Whether `model` is the embedded model or was trained from it: its config.json says so."""
    file = Path(ALIASES.get(model, model)) / "config.json"
    try:
        return json.loads(file.read_text()).get("sdzero_family") == "tiny"
    except (OSError, ValueError, AttributeError):
        return False  # a hub id, a .gguf file; a damaged config is reported where it is loaded
