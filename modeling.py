"""The model: loading it, its output embedding, an optimiser that learns in bfloat16, and what a run needs in memory.

Nothing here knows the method. `cfg` is a sdzero.Config throughout.
"""
import ctypes
import dataclasses
import functools
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from questions import UserError, require_hub
from report import table

HERE = Path(__file__).resolve().parent
ALIASES = {"tiny": str(HERE / "tiny"), "Qwen/Qwen3-4B-Instruct": "Qwen/Qwen3-4B-Instruct-2507"}  # the hub lacks the bare name
CHUNK = 8_000_000  # logits (tokens times vocabulary) in memory at once, in four copies; but 128 tokens at least (chunk_rows)


# ----------------------------------------------------------------------------------------------------------------------------
# The model and its tokenizer
# ----------------------------------------------------------------------------------------------------------------------------
PLAIN_TEMPLATE = ("{% for m in messages %}{{ {'user': 'Question: ', 'assistant': 'Answer: ', 'system': ''}[m['role']] + m['content'] "
                  "+ (eos_token if m['role'] == 'assistant' else '') + '\n\n' }}{% endfor %}"
                  "{% if add_generation_prompt %}Answer:{% endif %}")


def load_tokenizer_and_model(cfg):
    """(tokenizer, model) from a hub id, a folder or a GGUF file; weights in cfg.dtype on cfg.device, dropout off.

    Raises UserError for a model that cannot be had, has no chat template, or whose logits are not its output embedding of the
    last hidden states (the losses project those themselves, see TokenLoss).
    """
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    name, source = ALIASES.get(cfg.model, cfg.model), {}
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise UserError(f"--model {name}: no such file")
        try:
            import accelerate, gguf  # noqa: E401, F401  (transformers imports them when it reads the file)
        except ImportError:
            raise UserError("a .gguf file needs two packages more: pip install gguf accelerate") from None
        name, source = str(Path(name).parent), {"gguf_file": Path(name).name}
    elif Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError(f"--model {name}: the folder has no config.json, so it is not a Hugging Face checkpoint")
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        require_hub(name, "model", "Use the embedded default (--model tiny), a local checkpoint folder or a .gguf file.")
    else:
        raise UserError(f"--model {name}: no such folder or file")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source)
        # fp32 first: bfloat16 training needs the bits below bfloat16 (split_weights)
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **source)
    except (OSError, ValueError) as e:
        raise UserError(f"--model {cfg.model} cannot be loaded: {str(e).splitlines()[0]}") from e
    if "gguf_file" in source:  # its weights are plain fp32 now; save_pretrained refuses what still calls itself quantised
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
    if cfg.chat_template:
        if cfg.chat_template != "plain" and not Path(cfg.chat_template).is_file():
            raise UserError(f"--chat-template {cfg.chat_template}: no such file (nor the word plain)")
        tokenizer.chat_template = PLAIN_TEMPLATE if cfg.chat_template == "plain" else Path(cfg.chat_template).read_text()
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer of {cfg.model} has no chat template (a base model?). Use the instruct version, or give "
                        "--chat-template plain (Question: ... Answer:), or --chat-template FILE with a Jinja template.")
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    device = cfg.device if cfg.device != "auto" else (gpu if torch.cuda.is_available() else "cpu")
    try:
        torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: no such device; use auto, cpu or cuda") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    for module in model.modules():  # student and teacher are compared token by token: no noise in either
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):  # attention takes its rate as a number, without a Dropout module
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    check_head(model)
    if cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and device != "cpu"):
        split_weights(model)
    model.to(device)
    if device == "cpu":  # a pass touches few rows of it; a dense gradient would be cleared and added in full for each (accumulate)
        model.get_input_embeddings().sparse = True
    if device != "cpu" and not (cfg.micro_tokens and cfg.rollout_batch):
        fill_in(cfg, model.config, torch.cuda.mem_get_info(device)[1])
    if cfg.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    trim_heap(model.get_output_embeddings().weight)
    return tokenizer, model


def trim_heap(head) -> None:
    """Give back what glibc's heap holds free between pieces in use, which without this grows to a pass's activations once more.

    For large models on a CPU alone: the pages are faulted in again later, which for a small model would cost more than it saves.
    """
    if head.device.type == "cpu" and head.numel() > 4e6 and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def end_token_ids(tokenizer, model) -> list[int]:
    """Every token that ends a response: the generation config's, and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    ends += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    # ChatML models whose configuration names only <|endoftext|> still end their turn with <|im_end|>
    ends += [i for i in tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|eot_id|>"]) if i not in (None, tokenizer.unk_token_id)]
    if not ends:
        raise UserError("neither the model's generation config nor its tokenizer names an end token, so no response could end")
    return sorted(set(ends))


# ----------------------------------------------------------------------------------------------------------------------------
# The output embedding: the losses project hidden states themselves
# ----------------------------------------------------------------------------------------------------------------------------
def head_of(model):
    """(weight (V, H), bias (V,) or None, logits -> logits) of the output embedding."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)  # Cohere; Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    def finish(logits):
        logits = logits if scale == 1 else logits * scale
        return torch.tanh(logits / cap) * cap if cap else logits

    return head.weight, getattr(head, "bias", None), finish


def logits_of(hidden, head):
    """(n, H) -> (n, V), at least float32: a log-softmax over 150,000 bfloat16 logits is noise."""
    weight, bias, finish = head
    logits = F.linear(hidden, weight, bias)
    return finish(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def chunk_rows(vocabulary: int) -> int:
    """Tokens that are projected at once: a multiple of 16, which matrix products like, and enough that reading the head does not tell."""
    return max(128, CHUNK // vocabulary // 16 * 16)


@torch.no_grad()
def check_head(model) -> None:
    """Raise UserError unless this model's logits are what head_of makes of its last hidden states."""
    if model.get_output_embeddings() is None:
        raise UserError(f"{type(model).__name__} has no output embedding, so its token distributions cannot be computed")
    model.eval()
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size  # (1, 8)
    ours = logits_of(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0], head_of(model))
    if not torch.allclose(ours, model(input_ids=ids).logits[0].float(), rtol=1e-3, atol=1e-3):
        raise UserError(f"{type(model).__name__} changes its logits after the output embedding in a way this program does not know")


# ----------------------------------------------------------------------------------------------------------------------------
# Low precision that learns: bfloat16 weights with the bits that rounding drops, and an optimiser for them
# ----------------------------------------------------------------------------------------------------------------------------
SLICE = 2**20  # weights that are split, or stepped, at a time


@functools.cache
def thresholds(device):
    """(SLICE,) int32 in 1 .. 65535, the same in every process: a weight is rounded up where its dropped 16 bits reach its threshold."""
    return torch.randint(1, 2**16, (SLICE,), generator=torch.Generator().manual_seed(0), dtype=torch.int32).to(device)


def split(w):
    """fp32 (n,), n <= SLICE -> (bfloat16, the lower 16 bits of w as int16), which join() makes w again, exactly.

    Rounding is dithered: each weight has its own fixed threshold instead of one half. So the rounded weights follow their exact
    values on average from the first step on. With rounding to the nearest they do not: weights that start on the bfloat16 grid, as
    those of a bfloat16 checkpoint, stay there for many steps of 5e-6, and those that start half-way between two points of it, as
    8 % of a 4-bit GGUF's do, all jump at the first (SmolLM2's loss then fell three times as fast as in fp32).
    """
    bits = w.view(torch.int32)
    low = bits & 0xFFFF
    high = (bits >> 16) + (low >= thresholds(w.device)[:len(w)])
    return high.to(torch.int16).view(torch.bfloat16), low.to(torch.int16)


def join(high, low):
    """The fp32 weights (n,) that split() took apart."""
    low = low.to(torch.int32) & 0xFFFF
    high = high.view(torch.int16).to(torch.int32) - (low >= thresholds(low.device)[:len(low)]).to(torch.int32)
    return ((high << 16) | low).view(torch.float32)


def exact(p):
    """fp32 values of a parameter, of its shape."""
    if p.dtype != torch.bfloat16:
        return p.data
    halves = zip(p.data.reshape(-1).split(SLICE), p.low_bits.to(p.device).view(-1).split(SLICE))
    return torch.cat([join(*pair) for pair in halves]).view(p.shape)


@torch.no_grad()
def split_weight(p) -> None:
    """Turn an fp32 weight into a bfloat16 weight plus the 16 bits that rounding dropped, kept beside it as `low_bits` (int16).

    A bfloat16 is the upper half of an fp32, so the two halves together *are* the fp32 weight: 4 bytes, as an fp32 master alone.
    """
    halves = [split(part) for part in p.data.reshape(-1).split(SLICE)]
    p.data, p.low_bits = (torch.cat(half).view(p.shape) for half in zip(*halves))


def split_weights(model) -> None:
    for p in model.parameters():
        split_weight(p)
    model.config.dtype = torch.bfloat16  # buffers, such as rotary frequencies, stay fp32: rounding them shifts positions


def copy_weights(model) -> list:
    """The fp32 weights, in CPU memory; put_weights brings them back."""
    return [exact(p).to("cpu", copy=True) for p in model.parameters()]


def put_weights(model, saved: list) -> None:
    for p, weight in zip(model.parameters(), saved):
        is_split, p.data = p.dtype == torch.bfloat16, weight.to(p.device, copy=True)
        if is_split:
            split_weight(p)


class SplitAdamW(torch.optim.AdamW):
    """AdamW for split weights, whose every step is taken on the fp32 value and split again, and for moments in bfloat16.

    Works through slices of a million weights, so that its temporaries are small, and so that moments and low halves can stay
    in CPU memory (--offload). bfloat16 moments lose changes below 0.4 %, which is nothing beside the 5 % of g * g that enter
    exp_avg_sq at each step; with the usual beta2 of 0.999 it would be too much.
    """

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, (b1, b2), eps, decay = group["lr"], group["betas"], group["eps"], group["weight_decay"]
            for p in (p for p in group["params"] if p.grad is not None):
                state, is_split = self.state[p], p.dtype == torch.bfloat16
                if not state:
                    zeros = torch.zeros(p.shape, dtype=group["moments"], device="cpu" if group["offload"] else p.device)
                    state.update(step=0, exp_avg=zeros, exp_avg_sq=zeros.clone())
                    if is_split:
                        p.low_bits = p.low_bits.to(zeros.device)
                state["step"] += 1
                kept = [p.data, state["exp_avg"], state["exp_avg_sq"], p.low_bits if is_split else p.data]
                for g, *stored in zip(*(t.view(-1).split(SLICE) for t in [p.grad, *kept])):
                    w, m, v, low = (t.to(p.device) for t in stored)
                    g, m, v = g.float(), m.float(), v.float()
                    w = join(w, low) if is_split else w
                    m.lerp_(g, 1 - b1)
                    v.lerp_(g.square(), 1 - b2)
                    scale = v.div(1 - b2 ** state["step"]).sqrt_().add_(eps)
                    w.mul_(1 - lr * decay).addcdiv_(m, scale, value=-lr / (1 - b1 ** state["step"]))
                    w, low = split(w) if is_split else (w, w)
                    for old, new in zip(stored, (w, m, v, low)):
                        old.copy_(new)


def adamw(model, lr: float, weight_decay: float, cfg):
    """AdamW with the paper's betas; SplitAdamW where weights or moments are bfloat16 or states are kept off the GPU."""
    options = dict(lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)
    if next(model.parameters()).dtype != torch.bfloat16 and cfg.moments == "float32" and not cfg.offload:
        return torch.optim.AdamW(model.parameters(), fused=True, **options)
    return SplitAdamW([{"params": list(model.parameters()), "moments": getattr(torch, cfg.moments), "offload": cfg.offload}], **options)


def update(model, optimizer, lr: float, grad_clip: float) -> float:
    """Clip, step, clear; returns the gradient norm before clipping. Raises FloatingPointError, and steps not, if it is not finite."""
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip))
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradient norm became {norm}")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


# ----------------------------------------------------------------------------------------------------------------------------
# The memory plan: bytes, computed from the model's configuration
# ----------------------------------------------------------------------------------------------------------------------------
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


def fill_in(cfg, config, card: float) -> None:
    """Set the --micro-tokens and --rollout-batch that were left to the plan."""
    s = sizes(config)
    found = fitted(s, cfg, card)
    if not found:
        print(f"the memory plan finds no room on this card of {card / 1e9:.0f} GB; --plan shows settings with less need")
        found = dataclasses.replace(cfg, micro_tokens=cfg.micro_tokens or PROMPT + cfg.max_tokens, rollout_batch=cfg.rollout_batch or 8)
    cfg.micro_tokens, cfg.rollout_batch = found.micro_tokens, found.rollout_batch
    print(f"by the memory plan: --micro-tokens {cfg.micro_tokens} --rollout-batch {cfg.rollout_batch}, {peak(s, cfg) / 1e9:.1f} GB of {card / 1e9:.0f}")


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
