"""The memory plan: bytes of each phase, computed from the model's configuration alone."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import torch

from kit.errors import UserError
from kit.hub import require_hub
from kit.losses import chunk_rows
from kit.presets import ALIASES
from kit.tables import table

CARDS = (12, 16, 24, 32, 40, 48, 80, 96, 141, 180)  # GB of memory of usual GPUs
RESERVE = 0.05  # of a card, for what the allocator cannot use
CONTEXT, PROCESS = 1e9, 0.35e9  # a GPU's own: driver context, kernels, workspaces; a process on a CPU: Python, torch, transformers
PROMPT = 512  # tokens allowed for a prompt and a control phrase
# from fast to small: more time, same gradient (moments: nearly the same)
WAYS = ({}, {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "moments": "bfloat16"}, {"gradient_checkpointing": True, "offload": True})


def read_config(model: str):
    """The transformers configuration of a folder that may hold config.json alone, a .gguf file or a hub id."""
    from transformers import AutoConfig
    name = ALIASES.get(model, model)
    try:
        if name.endswith(".gguf"):
            return AutoConfig.from_pretrained(Path(name).parent, gguf_file=Path(name).name)
        if not Path(name).is_dir():
            require_hub(name, "model", "The plan needs a folder with its config.json.")
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as e:
        raise UserError(f"--model {model}: no usable config.json: {str(e).splitlines()[0]}") from e


def sizes(config) -> SimpleNamespace:
    """The lengths that memory depends on. Parameters are counted on a model without storage, so this holds for any architecture."""
    from transformers import AutoModelForCausalLM
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    c = config.get_text_config()
    heads, head_dim = c.num_attention_heads, getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    norms = {name.split(".")[-1]: len(p.weight) for name, p in model.named_modules() if name.endswith(("q_norm", "k_norm"))}
    kv = (getattr(c, "num_key_value_heads", None) or heads) * head_dim
    return SimpleNamespace(parameters=sum(p.numel() for p in model.parameters()), vocabulary=c.vocab_size, hidden=c.hidden_size,
                           mlp=getattr(c, "intermediate_size", None) or 4 * c.hidden_size, layers=c.num_hidden_layers, query=heads * head_dim,
                           key=kv, normed=heads * head_dim + kv if norms else 0, tied=bool(c.tie_word_embeddings))


def layer_activations(s: SimpleNamespace, w: int) -> int:
    """Bytes that autograd keeps per token and decoder layer; w bytes per value.

    A norm keeps its input in fp32, what it normalised and its output; attention keeps q, k, v, its output and that output again
    as the next matrix product reads it; a gated MLP keeps four tensors of its width.
    """
    return (4 + 2 * w) * 2 * s.hidden + (4 + w) * s.normed + w * (3 * s.query + 2 * s.key) + 4 * w * s.mlp


def memory(s: SimpleNamespace, cfg, gpu: bool = True) -> dict[str, dict[str, float]]:
    """{phase: {part: bytes}} of the settings in cfg, on one device."""
    w = 2 if cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and gpu) else 4
    off = cfg.offload and gpu
    row, micro, n = PROMPT + cfg.max_tokens, cfg.micro_tokens or 2048, s.parameters
    lasting = {"weights": n * w, "low halves of the weights": 0 if w == 4 or off else 2 * n,
               "moments": 0 if off else n * 2 * (2 if cfg.moments == "bfloat16" else 4), "libraries": CONTEXT if gpu else PROCESS}
    layer = layer_activations(s, w)
    kept = s.layers * s.hidden * w + layer if cfg.gradient_checkpointing else s.layers * layer
    layer_pass = micro * w * (4 * s.hidden + 3 * s.mlp)  # what one layer works with, forward or backward, beside what is kept
    chunk = min(chunk_rows(s.vocabulary), micro) * s.vocabulary * (16 if w == 4 else 20)
    # the teacher's pass has twice the tokens; the backward pass begins where the chunk's memory is free again
    activations = max(kept * micro + max(0, layer_pass - chunk), 2 * layer_pass)
    head = s.vocabulary * s.hidden * w
    # at the end of the backward pass, where a tied embedding's two gradients are added in a third tensor, activations are gone
    head_gradient = head + (max(0, head - activations - chunk) if s.tied else 0)
    training = {"gradients": n * w, "activations": activations, "KL chunk": chunk, "gradient of the output embedding": head_gradient}
    rollout = {"KV cache": (cfg.rollout_batch or 64) * row * s.layers * 2 * s.key * w, "logits": (cfg.rollout_batch or 64) * s.vocabulary * 4 * 4}
    if not gpu:  # a GPU's continuous batching reads prompts in small parts
        rollout["prompts read at once"] = (cfg.rollout_batch or 64) * PROMPT * w * (4 * s.hidden + 3 * s.mlp)
    teacher = {"teacher": n * w}
    return {"phase 1: rollouts": {**lasting, "moments": 0, **rollout}, "phase 1: training": {**lasting, **training},
            "phase 2: rollouts": {**lasting, **teacher, **rollout}, "phase 2: training": {**lasting, **teacher, **training}}


def peak(s, cfg, kind="", gpu=True) -> float:
    """Bytes of the phase that needs most, of all or of those whose name ends in `kind`."""
    return max(sum(parts.values()) for phase, parts in memory(s, cfg, gpu).items() if phase.endswith(kind))


def fitted(s, cfg, card: float, **changes):
    """cfg with changes and the largest passes and rollout batches that fit `card` bytes; None where not even the smallest do.

    A pass holds one row at least, so --micro-tokens below the longest row saves nothing.
    """
    row, room, cfg = PROMPT + cfg.max_tokens, card * (1 - RESERVE), dataclasses.replace(cfg, **changes)
    passes = [cfg.micro_tokens] if cfg.micro_tokens else [m for m in (32768, 16384, 8192) if m > row] + [row]
    batches = [cfg.rollout_batch] if cfg.rollout_batch else (256, 128, 64, 32, 16, 8)
    micro = next((m for m in passes if peak(s, dataclasses.replace(cfg, micro_tokens=m), "training") <= room), 0)
    batch = next((b for b in batches if peak(s, dataclasses.replace(cfg, rollout_batch=b), "rollouts") <= room), 0)
    return dataclasses.replace(cfg, micro_tokens=micro, rollout_batch=batch) if micro and batch else None


def fill_in(cfg, model):
    """cfg with the --micro-tokens and --rollout-batch that were left to the plan; on a CPU, cfg."""
    if model.device.type == "cpu" or (cfg.micro_tokens and cfg.rollout_batch):
        return cfg
    card, s = torch.cuda.mem_get_info(model.device)[1], sizes(model.config)
    found = fitted(s, cfg, card)
    if not found:
        print(
            f"the memory plan finds no room on this card of {card / 1e9:.0f} GB; --plan shows "
            "settings with less need"
        )
        found = dataclasses.replace(
            cfg,
            micro_tokens=cfg.micro_tokens or PROMPT + cfg.max_tokens,
            rollout_batch=cfg.rollout_batch or 8,
        )
    print(
        f"by the memory plan: --micro-tokens {found.micro_tokens} --rollout-batch "
        f"{found.rollout_batch}, {peak(s, found) / 1e9:.1f} GB of {card / 1e9:.0f}"
    )
    return found


def flags(cfg) -> str:
    """The memory settings of cfg as options."""
    return " ".join([f"--micro-tokens {cfg.micro_tokens}", f"--rollout-batch {cfg.rollout_batch}"]
                    + ["--gradient-checkpointing"] * cfg.gradient_checkpointing + ["--moments bfloat16"] * (cfg.moments == "bfloat16")
                    + ["--offload"] * cfg.offload)


def plan(cfg) -> str:
    """What --plan prints."""
    s, here = sizes(read_config(cfg.model)), torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0
    found = {}  # GB -> the fastest way that fits
    for card in CARDS:
        settings = next(filter(None, (fitted(s, cfg, card * 1e9, **{"dtype": "bfloat16", **way}) for way in WAYS)), None)
        if settings:
            found[card] = settings
    # the table shows what was asked for where it fits, else the settings for 80 GB, or for the smallest card
    asked = (fitted(s, cfg, here) if here else None) or found.get(80) or next(iter(found.values()), dataclasses.replace(
        cfg, micro_tokens=cfg.micro_tokens or PROMPT + cfg.max_tokens, rollout_batch=cfg.rollout_batch or 8))
    phases, gb = memory(s, asked), lambda x: f"{x / 1e9:.1f}" if x else "-"
    parts = dict.fromkeys(name for phase in phases.values() for name in phase)
    rows = [["GB on one GPU", *phases]] + [[part, *(gb(p.get(part, 0)) for p in phases.values())] for part in parts]
    rows += [["together", *(gb(sum(p.values())) for p in phases.values())]]
    text = [f"{cfg.model}: {s.parameters / 1e9:.3g}e9 parameters; responses of up to {cfg.max_tokens} tokens\nwith {flags(asked)}", table(rows)]
    if here:
        needs = peak(s, asked)
        text.append(f"{torch.cuda.get_device_name()}, {here / 1e9:.0f} GB: this {'fits' if needs <= here * (1 - RESERVE) else 'does not fit'}")
    else:
        cpu = dataclasses.replace(cfg, offload=False, micro_tokens=cfg.micro_tokens or 2048, rollout_batch=cfg.rollout_batch or 64)
        ram, needs = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), peak(s, cpu, gpu=False)
        verdict = "fit" if needs <= ram * 0.9 else "do not fit"
        text.append(f"no GPU here; on this CPU with {ram / 1e9:.0f} GB: {needs / 1e9:.1f} GB, libraries included, {verdict}, with {flags(cpu)}")
    if found:
        text += ["the fastest settings that fit:\n" + table([["card", "needs GB", "settings"]] + [
            [f"{card} GB", gb(peak(s, settings)), flags(settings)] for card, settings in found.items()]), f"smallest card: {min(found)} GB"]
        if any(settings.offload for settings in found.values()):
            text[-1] += f"; with --offload the host keeps {10 * s.parameters / 1e9:.0f} GB more"
    else:
        text.append(f"No single GPU of up to {CARDS[-1]} GB holds this model's states; they would have to be sharded, which this program does not do.")
    return "\n\n".join(text)
