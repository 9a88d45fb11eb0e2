"""Low-rank adapters (LoRA, arXiv 2106.09685): beside each linear layer, a product of two thin
matrices is trained, and the layer's own weight W stays as it is.

    y = W x + (ALPHA / r) B A x        A (r, in), B (out, r); B starts at 0, so the model as it was

`peft` puts them into the model in place, so losses, sampling and checks see the same model. They
are fp32, and trained; everything else is frozen, and bfloat16 where the model is. The output
embedding, the input embedding and the norms have no adapter.
"""

import copy
from pathlib import Path

import torch

from kit.errors import UserError
from kit.low_bits import trained
from kit.seeds import derived_seed

ALPHA = 32  # with 1 / r in front, one learning rate serves all ranks
NAME = "default"  # of the adapter, as peft calls its first
PREFIX = "base_model.model."  # before each name in a file that peft wrote


def peft():
    """The module. Raises UserError where it is missing."""
    try:
        import peft
    except ImportError as e:
        raise UserError(
            f"--lora needs the package peft ({e}): pip install --no-deps peft accelerate psutil"
        ) from None
    return peft


# --------------------------------------------------------------------------------------------------
# Into the model
# --------------------------------------------------------------------------------------------------
def add_adapters(model, rank: int, seed: int, dtype=torch.float32) -> None:
    """Freeze the model, in `dtype`, and give each of its linear layers an adapter of this rank.

    Raises UserError where peft is missing, and for a rank above that of every matrix.
    """
    lora = peft()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    most = max(min(m.weight.shape) for m in linear)
    if rank > most:
        raise UserError(f"--lora {rank}: the largest rank of this model's matrices is {most}")
    for p in model.parameters():
        p.data = p.data.to(dtype)  # to the nearest: it is never trained
    model.config.dtype = dtype
    config = lora.LoraConfig(
        r=rank,
        lora_alpha=ALPHA,
        target_modules="all-linear",  # but for the output embedding
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.name_or_path,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "lora"))
        lora.inject_adapter_in_model(config, model, NAME)
    for p in trained(model):
        p.data = p.data.float()
    n = sum(p.numel() for p in trained(model))
    print(f"--lora {rank}: {n:,} weights are trained, in adapters; the model's own are frozen")


def adapted(model) -> bool:
    return hasattr(model, "peft_config")


def lora_layers(model) -> list[tuple[str, torch.nn.Module]]:
    """(name, layer) of each layer with an adapter."""
    return [(n, m) for n, m in model.named_modules() if hasattr(m, "get_delta_weight")]


# --------------------------------------------------------------------------------------------------
# The teacher: another adapter on the same weights
# --------------------------------------------------------------------------------------------------
def shared(model) -> dict:
    """The memo of copy.deepcopy that makes a copy share this model's frozen weights, so that it has
    but adapters of its own; empty where all weights are trained."""
    if not adapted(model):
        return {}
    return {id(p): p for p in model.parameters() if not p.requires_grad}


def own_state(model, like) -> dict:
    """state_dict() of a model without the frozen weights: those of `like`, which is trained."""
    if not adapted(like):
        return model.state_dict()
    names = {name for name, p in like.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name in names}


def load_own_state(model, state: dict) -> None:
    """Bring back what own_state() took."""
    model.load_state_dict({**model.state_dict(), **state})


# --------------------------------------------------------------------------------------------------
# Saved both ways
# --------------------------------------------------------------------------------------------------
def merged(model):
    """A model without adapters that computes the same: W + (ALPHA / r) B A in place of each W.

    The sum is taken in fp32 and rounded to W's dtype, which can swallow a small change of a
    bfloat16: the adapter beside it loses nothing. New weights are in CPU memory; the others are
    the given model's. A model without adapters is returned as it is.
    """
    if not adapted(model):
        return model
    plain = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for name, layer in lora_layers(plain):
        linear = layer.base_layer
        whole = linear.weight.data.float() + layer.get_delta_weight(NAME).float()
        whole = whole.to(linear.weight.dtype).cpu()
        linear.weight = torch.nn.Parameter(whole, requires_grad=False)
        plain.set_submodule(name, linear)
    del plain.peft_config
    return plain


def save_adapter(model, folder: Path) -> None:
    """The adapter in a folder of its own, as peft writes it and PeftModel.from_pretrained reads it.
    A model without one writes nothing."""
    if not adapted(model):
        return
    from safetensors.torch import save_file

    folder.mkdir()
    weights = peft().get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {PREFIX + name: w.contiguous().cpu() for name, w in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(model.peft_config[NAME])
    config.target_modules = sorted(config.target_modules)
    config.inference_mode = True
    config.save_pretrained(str(folder))
