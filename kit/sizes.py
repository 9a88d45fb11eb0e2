"""The lengths of a model that memory and time depend on, from its configuration alone."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from kit.errors import UserError
from kit.hub import require_hub
from kit.presets import ALIASES


@dataclass
class Sizes:
    """The lengths that memory depends on."""

    parameters: int
    vocabulary: int
    hidden: int
    mlp: int
    layers: int
    query: int  # of all heads together, as the next two
    key: int  # and value
    normed: int  # queries and keys that a norm of their own reads; 0: there is none
    tied: bool  # input and output embedding are one
    window: int = 0  # that some layers look back; 0: all see the whole row
    sliding: int = 0  # how many layers those are

    def adapters(self, rank: int) -> int:
        """Parameters of a pair of thin matrices beside each linear layer of every decoder layer."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key)
        return rank * self.layers * (attention + 3 * (self.hidden + self.mlp))


@functools.cache
def facts() -> dict[str, dict]:
    """The configurations of the models that README names, as far as memory depends on them."""
    return json.loads(Path(__file__).with_name("models.json").read_text())


def read_config(model: str):
    """The transformers configuration of a folder that may hold config.json alone, a .gguf file, a
    model of models.json, for which no hub is asked, or a hub id. Raises UserError."""
    from transformers import AutoConfig

    name = ALIASES.get(model, model)
    try:
        if name.endswith(".gguf"):
            return AutoConfig.from_pretrained(Path(name).parent, gguf_file=Path(name).name)
        if not Path(name).is_dir():
            if name in facts():
                return AutoConfig.for_model(**facts()[name])
            known = ", ".join(facts())
            advice = f"The plan needs a folder with its config.json, or one of {known}."
            require_hub(name, "model", advice)
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError, IndexError) as e:  # IndexError: a .gguf file that was cut off
        raise UserError(f"--model {model}: no usable config.json: {str(e).splitlines()[0]}") from e


def sizes(config) -> Sizes:
    """The sizes of a configuration's model. Parameters are counted on a model without storage, so
    this holds for any architecture."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    c = config.get_text_config()
    heads = c.num_attention_heads
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // heads
    query = heads * head_dim
    key = (getattr(c, "num_key_value_heads", None) or heads) * head_dim
    sliding = (getattr(c, "layer_types", None) or []).count("sliding_attention")
    has_norms = any(name.endswith(("q_norm", "k_norm")) for name, _ in model.named_modules())
    return Sizes(
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary=c.vocab_size,
        hidden=c.hidden_size,
        mlp=getattr(c, "intermediate_size", None) or 4 * c.hidden_size,
        layers=c.num_hidden_layers,
        query=query,
        key=key,
        normed=query + key if has_norms else 0,
        tied=bool(c.tie_word_embeddings),
        window=(getattr(c, "sliding_window", None) or 0) if sliding else 0,
        sliding=sliding,
    )


@functools.cache
def known_sizes(name: str) -> Sizes:
    """The sizes of a model of models.json."""
    return sizes(read_config(name))
