"""The memory plan: bytes of each phase, and the settings that fit a card.

All of it is computed from a model's configuration alone. studies/bench.py plan compares it with the
tensors of a step; nothing of it was measured on a GPU.
"""

import math
import os
from dataclasses import replace
from typing import NamedTuple

import torch

from kit import ranks
from kit.continuous import AT_ONCE, BATCH_TOKENS, CACHE_SHARE
from kit.errors import UserError
from kit.gpu import has_bfloat16, release
from kit.losses import HEAD_ROWS, chunk_rows
from kit.presets import ALIASES
from kit.sizes import Sizes, facts, known_sizes, read_config, sizes

CARDS = (12, 16, 24, 32, 40, 48, 80, 96, 141, 180)  # GB of memory of usual GPUs
RESERVE = 0.05  # of a card, for what the allocator cannot use
CONTEXT = 1e9  # a GPU's own: driver context, kernels, workspaces
PROCESS = 0.35e9  # a process on a CPU: Python, torch, transformers
PROMPT = 512  # tokens allowed for a prompt and a control phrase

PASS_TOKENS, ROLLOUTS = 2048, 64  # without a plan, where --micro-tokens and --rollout-batch are 0


# from fast to small, and what each costs
WAYS = (
    {},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "moments": "bfloat16"},
    {"gradient_checkpointing": True, "offload": True},
)
COSTS = {
    "gradient_checkpointing": "activations are computed twice, a third more time in training",
    "moments": "rounded to a bfloat16 each, so updates change by up to 0.4 %",
    "offload": "moments and low halves travel to the GPU and back in each step, the teacher's "
    "layers to it in each pass",
}
BATCHES = (0, 128, 64, 32, 16, 8)  # of rollouts; 0: continuous batching's own, AT_ONCE at most
OPEN = {"gradient_checkpointing": False, "moments": "float32", "offload": False}


# --------------------------------------------------------------------------------------------------
# Lengths
# --------------------------------------------------------------------------------------------------
def phases_of(cfg) -> tuple[int, ...]:
    """The phases that a run has. Of the baselines, those that fine-tune need what phase 1 needs,
    those on policy, with a second model beside the first, what phase 2 does."""
    if cfg.method == "sdzero":
        return (1, 2) if cfg.phase1 else (2,)
    return (2,) if cfg.method in ("sdft", "grpo") else (1,)


def longest(cfg, phase: int) -> int:
    """Tokens of the longest response of a phase."""
    return (cfg.distil_max_tokens if phase == 2 else 0) or cfg.max_tokens


def trained_row(cfg, phase: int) -> int:
    """Tokens of the longest row that gets a gradient. Phase 1's hold x, y_init, P_r, y_revised, as
    far as --srt-sequence lets them."""
    if phase == 1 and (cfg.l_revision or cfg.l_generation != "none"):
        return min(PROMPT + 2 * longest(cfg, 1), max(cfg.srt_sequence, PROMPT))
    return PROMPT + longest(cfg, phase)


def generated_row(cfg, phase: int) -> int:
    """Tokens of the longest row that is sampled. A revision stands behind a first answer."""
    evaluated = cfg.eval_max_tokens or cfg.max_tokens  # before phase 1, and in the midst of phase 2
    if phase == 1:
        return PROMPT + 2 * max(longest(cfg, 1), evaluated)
    in_between = cfg.rounds > 1 or cfg.eval_every
    return PROMPT + max(longest(cfg, 2), 2 * evaluated if in_between else 0)


def pass_tokens(cfg, phase: int) -> int:
    """Tokens of a pass: it holds one row at least."""
    return max(cfg.micro_tokens or PASS_TOKENS, trained_row(cfg, phase))


# --------------------------------------------------------------------------------------------------
# Bytes. In the formulas w stands for the bytes of a weight or an activation.
# --------------------------------------------------------------------------------------------------
def memory(s: Sizes, cfg, gpu: bool = True) -> dict[str, dict[str, float]]:
    """{phase: {part: bytes}} of the settings in cfg, on one device."""
    phases = {}
    for phase in phases_of(cfg):
        lasting = lasting_parts(s, cfg, phase, gpu)
        if phase == 1:  # the optimiser is made after it
            lasting = {**lasting, "moments": 0}
        phases[f"phase {phase}: rollouts"] = {**lasting, **rollout_parts(s, cfg, phase, gpu)}
        tokens = pass_tokens(cfg, phase)
        phases[f"phase {phase}: training"] = step_parts(s, cfg, phase, tokens, gpu)
    return phases


def step_parts(s: Sizes, cfg, phase: int, tokens: int, gpu: bool = True) -> dict[str, float]:
    """{part: bytes} of a training step with passes of this many tokens."""
    parts = lasting_parts(s, cfg, phase, gpu)
    return {**parts, **training_parts(s, cfg, phase, tokens, gpu)}


def bytes_of_weight(cfg, gpu: bool) -> int:
    return 2 if cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and gpu) else 4


def trained_bytes(s: Sizes, cfg, gpu: bool) -> tuple[int, int]:
    """(how many weights are trained, the bytes of each): all, or fp32 adapters (--lora)."""
    return (s.adapters(cfg.lora), 4) if cfg.lora else (s.parameters, bytes_of_weight(cfg, gpu))


def lasting_parts(s: Sizes, cfg, phase: int, gpu: bool) -> dict[str, float]:
    """What stays from step to step. With --shard the ranks share moments and low halves; with
    --lora the teacher has the student's weights, and adapters of its own."""
    w, (n, trained) = bytes_of_weight(cfg, gpu), trained_bytes(s, cfg, gpu)
    moment, offloaded = 2 if cfg.moments == "bfloat16" else 4, cfg.offload and gpu
    kept = 0 if offloaded else n / (ranks.world() if cfg.shard else 1)
    parts = {"weights": s.parameters * w}
    if cfg.lora:
        parts["adapters"] = n * trained
    parts["low halves of the weights"] = 2 * kept if trained == 2 else 0
    parts["moments"] = 2 * kept * moment
    parts["libraries"] = CONTEXT if gpu else PROCESS
    if phase == 2:
        parts["teacher"] = n * trained - (teacher_on_host(s, cfg) if gpu else 0)
    return parts


def rollout_parts(s: Sizes, cfg, phase: int, gpu: bool = True) -> dict[str, float]:
    """What sampling takes; on a GPU, what continuous batching needs at least, for one of the
    longest rows (it takes CACHE_SHARE of what is free: cached_tokens)."""
    w, row = bytes_of_weight(cfg, gpu), generated_row(cfg, phase)
    batch = cfg.rollout_batch or (AT_ONCE if gpu else ROLLOUTS)
    if gpu:
        fixed, of_token = cache_bytes(s, batch, w)
        cache = row * of_token
        return {"KV cache": cache, "rows at once": fixed, "kept free": free_beside(cache + fixed)}
    return {
        "KV cache": batch * row * s.layers * 2 * s.key * w,
        "logits": batch * s.vocabulary * 4 * 4,
        "prompts read at once": layer_pass(s, batch * PROMPT, w),
    }


def cache_bytes(s: Sizes, batch: int, w: int) -> tuple[float, float]:
    """(bytes that `batch` rows at once cost, bytes of a cached token) of continuous batching as
    transformers 5.23 counts them, without a flash kernel: that would read the cache in place.

    Beside its keys and values, a cached token costs their copy for every query head, and for each
    token of a batch a place in two masks.
    """
    read = max(256, BATCH_TOKENS * batch)
    copied = (2 * s.query + s.key) * w
    of_batch = batch * (s.hidden * w + 4 * s.vocabulary)
    of_read = read * ((s.hidden + s.query + 2 * s.key) * w + copied + 2 * w * read + 96)
    return of_batch + of_read, s.layers * 2 * s.key * w + copied + 16 + 2 * w * read


def free_beside(taken: float) -> float:
    """What continuous batching leaves free where it takes so much."""
    return taken * (1 / CACHE_SHARE - 1)


def cached_tokens(s: Sizes, cfg, phase: int, room: float) -> int:
    """Tokens that continuous batching's cache holds on a GPU with `room` bytes."""
    lasting = lasting_parts(s, cfg, phase, gpu=True) | ({"moments": 0} if phase == 1 else {})
    fixed, of_token = cache_bytes(s, cfg.rollout_batch or AT_ONCE, bytes_of_weight(cfg, True))
    return max(0, int(((room - sum(lasting.values())) * CACHE_SHARE - fixed) / of_token))


def training_parts(s: Sizes, cfg, phase: int, tokens: int, gpu: bool) -> dict[str, float]:
    """What a forward and a backward pass over this many tokens take."""
    w, (n, trained) = bytes_of_weight(cfg, gpu), trained_bytes(s, cfg, gpu)
    layer = layer_activations(s, w) + (adapter_activations(s, cfg.lora) if cfg.lora else 0)
    working, of_teacher = layer_pass(s, tokens, w), 0
    chunk = min(chunk_rows(s.vocabulary), tokens) * s.vocabulary * logit_bytes(cfg, w, phase, gpu)
    if w == 2 and not cfg.lora:  # what the head's gradient is still to be added of (TokenLoss)
        chunk += min(HEAD_ROWS, tokens) * s.vocabulary * w
    row, checkpoints = min(tokens, trained_row(cfg, phase)), cfg.gradient_checkpointing
    kept = tokens * s.layers * (s.hidden * w if checkpoints else layer)
    # one layer's again, then the backward pass through it, where the chunk's memory is free again
    masks = mask_bytes(s, row, w * (1 if checkpoints else s.sliding))
    backward = kept + masks + (tokens * layer if checkpoints else 0) + working - chunk
    loss = kept + (0 if checkpoints else masks) + tokens * s.hidden * (4 + 4 * w)  # the last norm
    if phase == 2:  # its pass has twice the tokens, and keeps nothing
        of_teacher = 2 * working + mask_bytes(s, 2 * row, w)
    activations = max(loss, backward, of_teacher)

    # the head's gradient, which adapters do not need
    head = 0 if cfg.lora else s.vocabulary * s.hidden * w
    # at the end of the backward pass, where a tied embedding's two gradients are added in a third
    # tensor, activations are gone
    third = max(0, head - activations - chunk) if s.tied else 0
    return {
        "gradients": n * trained,
        "activations": activations,
        "loss chunk": chunk,
        "gradient of the output embedding": head + third,
    }


def mask_bytes(s: Sizes, row: int, w: int) -> int:
    """Bytes of the mask of layers that look back a window alone, and of its copies of w bytes per
    place, for rows longer than the window; layers that see the whole row need none."""
    return row**2 * (1 + w) if s.sliding and row > s.window else 0


def logit_bytes(cfg, w: int, phase: int, gpu: bool) -> int:
    """Bytes that a chunk's loss and gradient take per logit, all copies that live at one time."""
    if phase == 1:  # the logits in fp32, their log-softmax, its gradient, theirs
        return 16
    raw = 0 if w == 4 or gpu else w  # the product, before it is fp32; a GPU makes it so
    of_divergence = {"reverse": 8, "forward": 12}.get(cfg.divergence, 20)  # mixed, or a fork's own
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


def adapter_activations(s: Sizes, rank: int) -> int:
    """Bytes more per token and decoder layer where adapters are trained: each of seven linear
    layers keeps its input in fp32, and what the first thin matrix makes of it."""
    return 4 * (5 * s.hidden + s.query + s.mlp) + 4 * 7 * rank


def layer_pass(s: Sizes, tokens: int, w: int) -> int:
    """Bytes that one layer works with, forward or backward, beside what is kept."""
    return tokens * w * (4 * s.hidden + 3 * s.mlp)


def peak(s: Sizes, cfg, kind: str = "", gpu: bool = True) -> float:
    """Bytes of the phase that needs most, of all or of those whose name ends in `kind`."""
    phases = memory(s, cfg, gpu).items()
    return max(sum(parts.values()) for phase, parts in phases if phase.endswith(kind))


def disk_bytes(s: Sizes, cfg, gpu: bool = True) -> tuple[float, float]:
    """(bytes of a checkpoint, of a saved state) in the run folder, which holds two of each."""
    w, (n, trained) = bytes_of_weight(cfg, gpu), trained_bytes(s, cfg, gpu)
    low, moment = 2 if trained == 2 else 0, 2 if cfg.moments == "bfloat16" else 4
    return s.parameters * w, n * (2 * trained + low + 2 * moment)  # student, teacher, the rest


def host_bytes(s: Sizes, cfg) -> float:
    """Bytes in the host's memory that --offload takes, of each rank."""
    return states_on_host(s, cfg) + (teachers_home(s, cfg) if 2 in phases_of(cfg) else 0)


def states_on_host(s: Sizes, cfg) -> float:
    """Moments and low halves: they come and go with each step."""
    n, trained = trained_bytes(s, cfg, gpu=True)
    moment = 2 if cfg.moments == "bfloat16" else 4
    return n * (2 * moment + (2 if trained == 2 else 0)) if cfg.offload else 0


def teacher_on_host(s: Sizes, cfg) -> float:
    """What the GPU is spared of the teacher: its layers but two. All come with each pass. With
    --lora it has no weights of its own."""
    embeddings = s.vocabulary * s.hidden * (1 if s.tied else 2)
    layers = (s.parameters - embeddings) * max(0, 1 - 2 / s.layers)
    return layers * bytes_of_weight(cfg, gpu=True) if cfg.offload and not cfg.lora else 0


def teachers_home(s: Sizes, cfg) -> float:
    """The teacher's layers in pinned memory, where each weight takes the next power of two."""
    if not cfg.offload or cfg.lora:
        return 0
    weights = [s.hidden * s.query] * 2 + [s.hidden * s.key] * 2 + [s.hidden * s.mlp] * 3
    w = bytes_of_weight(cfg, gpu=True)
    return s.layers * sum(2 ** math.ceil(math.log2(n * w)) for n in weights)


# --------------------------------------------------------------------------------------------------
# Settings that fit
# --------------------------------------------------------------------------------------------------
def settled(cfg, way: dict):
    """cfg with a way of WAYS for what was left open: None is what nobody gave."""
    open_ones = {name: default for name, default in OPEN.items() if getattr(cfg, name) is None}
    return replace(cfg, **{name: way.get(name, default) for name, default in open_ones.items()})


def batches_open_to(cfg) -> tuple[int, ...]:
    """The rollout batches to choose from, the largest first: the one that was given, or all."""
    return (cfg.rollout_batch,) if cfg.rollout_batch else BATCHES


def fitted(s: Sizes, cfg, card: float, **changes):
    """cfg with changes and the largest passes and rollout batches that fit `card` bytes; None where
    not even the smallest do. What it leaves open is off."""
    cfg = settled(replace(cfg, **changes), {})
    room = card * (1 - RESERVE)
    rows = {trained_row(cfg, phase) for phase in phases_of(cfg)}  # a pass holds one at least
    sizes_of_pass = {tokens for tokens in (32768, 16384) if tokens > min(rows)} | rows
    passes = sorted(sizes_of_pass, reverse=True)
    batches = batches_open_to(cfg)
    if cfg.micro_tokens:
        passes = [cfg.micro_tokens]

    def fits(kind, **settings):
        return peak(s, replace(cfg, **settings), kind) <= room

    tokens = next((n for n in passes if fits("training", micro_tokens=n)), None)
    batch = next((n for n in batches if fits("rollouts", rollout_batch=n)), None)
    if tokens is None or batch is None:
        return None
    return replace(cfg, micro_tokens=tokens, rollout_batch=batch)


def smallest(cfg):
    """cfg with the smallest passes and rollout batches, where it leaves them open."""
    cfg = settled(cfg, WAYS[-1])
    row = min(trained_row(cfg, phase) for phase in phases_of(cfg))
    micro_tokens, rollout_batch = cfg.micro_tokens or row, cfg.rollout_batch or 8
    return replace(cfg, micro_tokens=micro_tokens, rollout_batch=rollout_batch)


def fastest(s: Sizes, cfg, card: float, host: float = math.inf):
    """The fastest of the WAYS that fit `card` bytes, and `host` bytes beside it, and keep to what
    was given; None where none does."""
    for way in WAYS:
        found = fitted(s, settled(cfg, way), card)
        if found and host_bytes(s, found) <= host * (1 - RESERVE):
            return found
    return None


def shorter(s: Sizes, cfg, card: float, host: float = math.inf):
    """The fastest way that fits with responses of 8192, 4096 or 2048 tokens at most in all phases,
    as --max-tokens gives them; None where none does."""
    for limit in (8192, 4096, 2048):
        if limit < cfg.max_tokens:
            own = {name: getattr(cfg, name) for name in ("distil_max_tokens", "eval_max_tokens")}
            limits = {"max_tokens": limit, **{k: min(limit, n or limit) for k, n in own.items()}}
            if found := fastest(s, replace(cfg, **limits), card, host):
                return found
    return None


def smallest_card(s: Sizes, cfg) -> int | None:
    """GB of the smallest usual card that some way fits; None where there is none."""
    return next((card for card in CARDS if fastest(s, cfg, card * 1e9)), None)


def nearest_model(s: Sizes, cfg, card: float) -> str | None:
    """The largest of the known models, smaller than this one, that fits `card` bytes, of the same
    kind where there is one; None where none fits."""
    kind = family(ALIASES.get(cfg.model, cfg.model))
    smaller = [name for name in facts() if known_sizes(name).parameters < 0.98 * s.parameters]
    smaller.sort(key=lambda name: (family(name) == kind, known_sizes(name).parameters))
    fits = (name for name in reversed(smaller) if fastest(known_sizes(name), cfg, card))
    return next(fits, None)


def family(model: str) -> str:
    """The beginning of a model's name: Qwen3, Olmo, SmolLM2."""
    return model.split("/")[-1].split("-")[0].lower()


class Card(NamedTuple):
    """What a GPU has for this run."""

    free: float  # bytes
    name: str


def card_of(device) -> Card:
    """The card of a device; several ranks choose by the fullest of theirs."""
    free = min(ranks.gather(torch.cuda.mem_get_info(device)[0]))
    return Card(free, torch.cuda.get_device_name(device))


def fill_in(cfg, device: str, trains: bool = True):
    """cfg with the settings that were left to the plan, from the memory that is free; on a CPU, and
    where no card says what it has (mps), cfg. To be called before the model is loaded. Raises
    UserError where nothing fits."""
    if torch.device(device).type != "cuda":
        return cfg
    release()  # what another model's tensors left in the allocator's cache
    card, s = card_of(device), sizes(read_config(cfg.model))
    if cfg.dtype == "auto" and not has_bfloat16(device):
        print(f"chosen: --dtype float32: {card.name} has no bfloat16; weights take twice the room")
        cfg = replace(cfg, dtype="float32")
    if not trains:
        return for_sampling(s, cfg, card)
    found = fastest(s, cfg, card.free, host_share())
    if not found:
        raise UserError(no_room(s, cfg, card))
    for line in choice_lines(s, cfg, found, card):
        print(line)
    return found


def for_sampling(s: Sizes, cfg, card: Card):
    """cfg for a model that is not trained: its weights are all that lasts, and the rollout batch is
    the largest that fits beside them. Raises UserError."""
    cfg = settled(cfg, {})
    weights = s.parameters * bytes_of_weight(cfg, gpu=True) + CONTEXT
    for batch in batches_open_to(cfg):
        found = replace(cfg, rollout_batch=batch)
        if weights + sum(rollout_parts(s, found, 1).values()) <= card.free * (1 - RESERVE):
            return found
    raise UserError(
        f"{cfg.model} does not fit the {card.free / 1e9:.0f} GB that are free on {card.name}, not "
        f"even to sample from: its weights take {weights / 1e9:.0f} GB. A shorter --max-tokens (of "
        "evaluation: --eval-max-tokens) or a smaller --rollout-batch may"
    )


def no_room(s: Sizes, cfg, card: Card) -> str:
    """What to say where nothing fits."""
    given = [name for name in (*OPEN, "micro_tokens", "rollout_batch") if getattr(cfg, name)]
    given += [f"no_{name}" for name in OPEN if getattr(cfg, name) is False]
    line = f"{cfg.model} does not fit the {card.free / 1e9:.0f} GB that are free on {card.name}"
    if given:
        line += " with " + " ".join("--" + name.replace("_", "-") for name in given)
    if offloaded := fastest(s, cfg, card.free):
        needs, has = host_bytes(s, offloaded) / 1e9, host_share() / 1e9
        line += f" but by --offload, for which the host needs {needs:.0f} GB and has {has:.0f}"
        line += " for each of its ranks" if ranks.world() > 1 else ""
    least, near = smallest_card(s, cfg), nearest_model(s, cfg, card.free)
    line += f": the smallest card for it has {least} GB" if least else ": no single card holds it"
    line += f"; here --model {near} would work" if near else "; no model that is known here fits"
    if short := shorter(s, cfg, card.free, host_share()):
        line += f", or this one with --max-tokens {short.max_tokens}"
    return f"{line}. python sdzero.py --model {cfg.model} --plan shows more"


def choice_lines(s: Sizes, cfg, found, card: Card) -> list[str]:
    """What was chosen, each setting with what it costs, and what the run will need."""
    lines = [
        f"by the memory plan for the {card.free / 1e9:.0f} GB that are free on {card.name}: "
        f"{flags(found)}; {peak(s, found, 'training') / 1e9:.1f} GB in training (computed)"
    ]
    for name, cost in COSTS.items():
        if getattr(cfg, name) is None and getattr(found, name) != OPEN[name]:
            lines.append(f"chosen: {flag_of(found, name)}: {cost}")
    if needs := host_bytes(s, found):
        lines.append(f"the host keeps {needs / 1e9:.0f} GB for --offload")
    return [*lines, cache_line(s, found, card.free), disk_line(s, found)]


def cache_line(s: Sizes, cfg, card: float) -> str:
    """What continuous batching takes of a card of this many bytes, and has room for."""
    phase = phases_of(cfg)[-1]  # the teacher is there too
    tokens = cached_tokens(s, cfg, phase, card * (1 - RESERVE))
    rows = tokens // generated_row(cfg, phase)
    return (
        f"continuous batching takes {CACHE_SHARE:.0%} of what is free while it samples: in phase "
        f"{phase} room for {tokens:,} tokens, {rows} rows of the longest"
    )


def disk_line(s: Sizes, cfg) -> str:
    checkpoint, state = disk_bytes(s, cfg)
    return (
        f"disk: two checkpoints of {checkpoint / 1e9:.1f} GB and, while the run lasts, two states "
        f"of up to {state / 1e9:.1f} GB: {2 * (checkpoint + state) / 1e9:.0f} GB in {cfg.out}"
    )


def ram_bytes() -> int | None:
    """This machine's memory; None where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf; some lack the names
        return None


def host_share() -> float:
    """Bytes of this machine's memory for each rank on it; infinite where they are not known."""
    return (ram_bytes() or math.inf) / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def flag_of(cfg, name: str) -> str:
    value, flag = getattr(cfg, name), "--" + name.replace("_", "-")
    return flag if value is True else f"{flag} {value}"


def flags(cfg) -> str:
    """The memory settings of cfg as options."""
    words = [f"--micro-tokens {cfg.micro_tokens}"]
    if cfg.rollout_batch:
        words.append(f"--rollout-batch {cfg.rollout_batch}")
    on = (name for name, default in OPEN.items() if getattr(cfg, name) not in (None, default))
    return " ".join([*words, *(flag_of(cfg, name) for name in on)])
