"""The memory plan: bytes of each phase, computed from the model's configuration alone."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kit.errors import UserError
from kit.hub import require_hub
from kit.losses import chunk_rows
from kit.presets import ALIASES
from kit.tables import table

CARDS = (12, 16, 24, 32, 40, 48, 80, 96, 141, 180)  # GB of memory of usual GPUs
RESERVE = 0.05  # of a card, for what the allocator cannot use
CONTEXT = 1e9  # a GPU's own: driver context, kernels, workspaces
PROCESS = 0.35e9  # a process on a CPU: Python, torch, transformers
PROMPT = 512  # tokens allowed for a prompt and a control phrase

PASS_TOKENS, ROLLOUTS = 2048, 64  # without a plan, where --micro-tokens and --rollout-batch are 0

# from fast to small: more time, same gradient (moments: nearly the same)
WAYS = (
    {},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "moments": "bfloat16"},
    {"gradient_checkpointing": True, "offload": True},
)


# --------------------------------------------------------------------------------------------------
# The model
# --------------------------------------------------------------------------------------------------
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


def read_config(model: str):
    """The transformers configuration of a folder that may hold config.json alone, a .gguf file or a
    hub id."""
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
    )


# --------------------------------------------------------------------------------------------------
# Bytes. In the formulas w stands for the bytes of a weight or an activation.
# --------------------------------------------------------------------------------------------------
def memory(s: Sizes, cfg, gpu: bool = True) -> dict[str, dict[str, float]]:
    """{phase: {part: bytes}} of the settings in cfg, on one device."""
    w = 2 if cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and gpu) else 4
    lasting = lasting_parts(s, cfg, w, gpu)
    rollouts = rollout_parts(s, cfg, w, gpu)
    teacher = {"teacher": s.parameters * w}
    return {
        "phase 1: rollouts": {**lasting, "moments": 0, **rollouts},
        "phase 1: training": {**lasting, **training_parts(s, cfg, w, phase=1)},
        "phase 2: rollouts": {**lasting, **teacher, **rollouts},
        "phase 2: training": {**lasting, **teacher, **training_parts(s, cfg, w, phase=2)},
    }


def lasting_parts(s: Sizes, cfg, w: int, gpu: bool) -> dict[str, float]:
    """What stays from step to step."""
    n, offloaded = s.parameters, cfg.offload and gpu
    moment = 2 if cfg.moments == "bfloat16" else 4
    return {
        "weights": n * w,
        "low halves of the weights": 0 if w == 4 or offloaded else 2 * n,
        "moments": 0 if offloaded else 2 * n * moment,
        "libraries": CONTEXT if gpu else PROCESS,
    }


def rollout_parts(s: Sizes, cfg, w: int, gpu: bool) -> dict[str, int]:
    """What sampling takes."""
    batch, row = cfg.rollout_batch or ROLLOUTS, PROMPT + cfg.max_tokens
    parts = {
        "KV cache": batch * row * s.layers * 2 * s.key * w,
        "logits": batch * s.vocabulary * 4 * 4,
    }
    if not gpu:  # a GPU's continuous batching reads prompts in small parts
        parts["prompts read at once"] = layer_pass(s, batch * PROMPT, w)
    return parts


def training_parts(s: Sizes, cfg, w: int, phase: int) -> dict[str, int]:
    """What a forward and a backward pass take."""
    tokens = cfg.micro_tokens or PASS_TOKENS
    layer = layer_activations(s, w)
    kept = s.layers * s.hidden * w + layer if cfg.gradient_checkpointing else s.layers * layer
    working = layer_pass(s, tokens, w)
    chunk = min(chunk_rows(s.vocabulary), tokens) * s.vocabulary * logit_bytes(cfg, w, phase)
    # the teacher's pass has twice the tokens; the backward pass begins where the chunk's memory is
    # free again
    activations = max(kept * tokens + max(0, working - chunk), 2 * working)

    head = s.vocabulary * s.hidden * w
    # at the end of the backward pass, where a tied embedding's two gradients are added in a third
    # tensor, activations are gone
    third = max(0, head - activations - chunk) if s.tied else 0
    return {
        "gradients": s.parameters * w,
        "activations": activations,
        "loss chunk": chunk,
        "gradient of the output embedding": head + third,
    }


def logit_bytes(cfg, w: int, phase: int) -> int:
    """Bytes that a chunk's loss and gradient take per logit, all copies that live at one time."""
    if phase == 1:  # the logits in fp32, their log-softmax, its gradient, theirs
        return 16
    raw = 0 if w == 4 else w  # the product, before it is fp32
    of_divergence = {"reverse": 8, "forward": 12, "mixed": 20}[cfg.divergence]
    return raw + 4 + 4 + of_divergence  # student's and teacher's logits, what KLInPlace keeps


def layer_activations(s: Sizes, w: int) -> int:
    """Bytes that autograd keeps per token and decoder layer.

    A norm keeps its input in fp32, what it normalised and its output; attention keeps q, k, v, its
    output and that output again as the next matrix product reads it; a gated MLP keeps four tensors
    of its width.
    """
    norms = (4 + 2 * w) * 2 * s.hidden + (4 + w) * s.normed
    attention = w * (3 * s.query + 2 * s.key)
    return norms + attention + 4 * w * s.mlp


def layer_pass(s: Sizes, tokens: int, w: int) -> int:
    """Bytes that one layer works with, forward or backward, beside what is kept."""
    return tokens * w * (4 * s.hidden + 3 * s.mlp)


def peak(s: Sizes, cfg, kind: str = "", gpu: bool = True) -> float:
    """Bytes of the phase that needs most, of all or of those whose name ends in `kind`."""
    phases = memory(s, cfg, gpu).items()
    return max(sum(parts.values()) for phase, parts in phases if phase.endswith(kind))


# --------------------------------------------------------------------------------------------------
# Settings that fit
# --------------------------------------------------------------------------------------------------
def fitted(s: Sizes, cfg, card: float, **changes):
    """cfg with changes and the largest passes and rollout batches that fit `card` bytes; None where
    not even the smallest do.

    A pass holds one row at least, so --micro-tokens below the longest row saves nothing.
    """
    cfg = replace(cfg, **changes)
    row, room = PROMPT + cfg.max_tokens, card * (1 - RESERVE)
    passes = [tokens for tokens in (32768, 16384, 8192) if tokens > row] + [row]
    batches = [256, 128, 64, 32, 16, 8]
    if cfg.micro_tokens:
        passes = [cfg.micro_tokens]
    if cfg.rollout_batch:
        batches = [cfg.rollout_batch]

    def fits(kind, **settings):
        return peak(s, replace(cfg, **settings), kind) <= room

    tokens = next((n for n in passes if fits("training", micro_tokens=n)), None)
    batch = next((n for n in batches if fits("rollouts", rollout_batch=n)), None)
    if tokens and batch:
        return replace(cfg, micro_tokens=tokens, rollout_batch=batch)
    return None


def smallest(cfg):
    """cfg with the smallest passes and rollout batches, where it leaves them open."""
    return replace(
        cfg,
        micro_tokens=cfg.micro_tokens or PROMPT + cfg.max_tokens,
        rollout_batch=cfg.rollout_batch or 8,
    )


def fastest(s: Sizes, cfg, card: float):
    """The fastest of the WAYS that fit `card` bytes, in bfloat16; None where none does."""
    for way in WAYS:
        if found := fitted(s, cfg, card, dtype="bfloat16", **way):
            return found
    return None


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
        found = smallest(cfg)
    print(
        f"by the memory plan: --micro-tokens {found.micro_tokens} --rollout-batch "
        f"{found.rollout_batch}, {peak(s, found) / 1e9:.1f} GB of {card / 1e9:.0f}"
    )
    return found


# --------------------------------------------------------------------------------------------------
# What --plan prints
# --------------------------------------------------------------------------------------------------
def plan(cfg) -> str:
    """What --plan prints."""
    s = sizes(read_config(cfg.model))
    here = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0
    of_card = {card: found for card in CARDS if (found := fastest(s, cfg, card * 1e9))}
    # the table shows what was asked for where it fits, else the settings for 80 GB, or for the
    # smallest card
    shown = fitted(s, cfg, here) if here else None
    shown = shown or of_card.get(80) or next(iter(of_card.values()), smallest(cfg))

    about = (
        f"{cfg.model}: {s.parameters / 1e9:.3g}e9 parameters; responses of up to {cfg.max_tokens} "
        f"tokens\nwith {flags(shown)}"
    )
    on_this = gpu_line(s, shown, here) if here else cpu_line(s, cfg)
    return "\n\n".join([about, parts_table(s, shown), on_this, *cards_text(s, of_card)])


def parts_table(s: Sizes, cfg) -> str:
    """The GB of every part in every phase."""
    phases, every_part = memory(s, cfg), {}
    for of_phase in phases.values():
        every_part |= of_phase
    rows = [["GB on one GPU", *phases]]
    for part in every_part:
        rows.append([part, *(gigabytes(of_phase.get(part, 0)) for of_phase in phases.values())])
    totals = (sum(of_phase.values()) for of_phase in phases.values())
    rows.append(["together", *(gigabytes(total) for total in totals)])
    return table(rows)


def gpu_line(s: Sizes, cfg, card: float) -> str:
    """Whether the settings fit this machine's GPU."""
    fits = peak(s, cfg) <= card * (1 - RESERVE)
    return (
        f"{torch.cuda.get_device_name()}, {card / 1e9:.0f} GB: this "
        f"{'fits' if fits else 'does not fit'}"
    )


def cpu_line(s: Sizes, cfg) -> str:
    """What the settings need on this machine's CPU, and whether they fit."""
    cfg = replace(
        cfg,
        offload=False,
        micro_tokens=cfg.micro_tokens or PASS_TOKENS,
        rollout_batch=cfg.rollout_batch or ROLLOUTS,
    )
    ram, needs = ram_bytes(), peak(s, cfg, gpu=False)
    needed = f"{needs / 1e9:.1f} GB, libraries included"
    if ram is None:
        return f"no GPU here; on this CPU, whose RAM is not known: {needed}, with {flags(cfg)}"
    verdict = "fit" if needs <= ram * 0.9 else "do not fit"
    return (
        f"no GPU here; on this CPU with {ram / 1e9:.0f} GB: {needed}, {verdict}, with {flags(cfg)}"
    )


def ram_bytes() -> int | None:
    """This machine's memory; None where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; some lack the names
        return None


def cards_text(s: Sizes, of_card: dict) -> list[str]:
    """The settings for each usual card, and the smallest of them."""
    if not of_card:
        return [
            f"No single GPU of up to {CARDS[-1]} GB holds this model's states; they would have to "
            "be sharded, which this program does not do."
        ]
    rows = [["card", "needs GB", "settings"]]
    for card, cfg in of_card.items():
        rows.append([f"{card} GB", gigabytes(peak(s, cfg)), flags(cfg)])
    smallest_card = f"smallest card: {min(of_card)} GB"
    if any(cfg.offload for cfg in of_card.values()):
        in_host = 10 * s.parameters / 1e9
        smallest_card += f"; with --offload the host keeps {in_host:.0f} GB more"
    return ["the fastest settings that fit:\n" + table(rows), smallest_card]


def gigabytes(n: float) -> str:
    return f"{n / 1e9:.1f}" if n else "-"


def flags(cfg) -> str:
    """The memory settings of cfg as options."""
    words = [f"--micro-tokens {cfg.micro_tokens}", f"--rollout-batch {cfg.rollout_batch}"]
    if cfg.gradient_checkpointing:
        words.append("--gradient-checkpointing")
    if cfg.moments == "bfloat16":
        words.append("--moments bfloat16")
    if cfg.offload:
        words.append("--offload")
    return " ".join(words)
