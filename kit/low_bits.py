"""Low precision that learns: bfloat16 weights with the bits that rounding drops, and an optimiser.

A bfloat16 has 8 bits of precision, so a step of 5e-6 on a weight of 0.1 rounds away. The 16 bits
that rounding drops are kept beside each weight: both halves together are the fp32 weight.
"""

import functools
from typing import NamedTuple

import torch

from kit import ranks, shards
from kit.offload import Ferry

SLICE = 2**20  # weights that are split, or stepped, at a time
SLICES_ON_GPU = 8  # of them there, whose kernels take less time than it takes to start them


# --------------------------------------------------------------------------------------------------
# fp32 <-> bfloat16 and the 16 bits that rounding drops
# --------------------------------------------------------------------------------------------------
def slice_on(device) -> int:
    return SLICE * SLICES_ON_GPU if torch.device(device).type == "cuda" else SLICE


@functools.cache
def thresholds(device):
    """(slice_on(device),) int32 in 1 .. 65535, the same in every process and every SLICE: a weight
    is rounded up where its dropped 16 bits reach its threshold."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 2**16, (SLICE,), generator=generator, dtype=torch.int32)
    return values.to(device).repeat(slice_on(device) // SLICE)


def split(w):
    """fp32 (n,), a slice at most -> (bfloat16, the lower 16 bits of w as int16), of which join()
    makes w again, exactly.

    Rounding is dithered: each weight has its own fixed threshold instead of one half. So the
    rounded weights follow their exact values on average from the first step on. With rounding to
    the nearest they do not: weights that start on the bfloat16 grid, as those of a bfloat16
    checkpoint, stay there for many steps of 5e-6, and those that start half-way between two points
    of it, as 8 % of a 4-bit GGUF's do, all jump at the first (SmolLM2's loss then fell three times
    as fast as in fp32).
    """
    bits = w.view(torch.int32)
    low = bits & 0xFFFF
    high = (bits >> 16) + (low >= thresholds(w.device)[: len(w)])
    return high.to(torch.int16).view(torch.bfloat16), low.to(torch.int16)


def join(high, low):
    """The fp32 weights (n,) that split() took apart."""
    low = low.to(torch.int32) & 0xFFFF
    rounded_up = (low >= thresholds(low.device)[: len(low)]).to(torch.int32)
    high = high.view(torch.int16).to(torch.int32) - rounded_up
    return ((high << 16) | low).view(torch.float32)


# --------------------------------------------------------------------------------------------------
# Parameters, whole models
# --------------------------------------------------------------------------------------------------
def exact(p):
    """fp32 values of a parameter, of its shape."""
    if p.dtype != torch.bfloat16:
        return p.data
    highs = p.data.reshape(-1).split(slice_on(p.device))
    lows = p.low_bits.to(p.device).view(-1).split(slice_on(p.device))
    return torch.cat([join(high, low) for high, low in zip(highs, lows)]).view(p.shape)


@torch.no_grad()
def split_weight(p) -> None:
    """Turn an fp32 weight into a bfloat16 weight plus the 16 bits that rounding dropped, kept
    beside it as `low_bits` (int16).

    A bfloat16 is the upper half of an fp32, so the two halves together *are* the fp32 weight: 4
    bytes, as an fp32 master alone.
    """
    highs, lows = zip(*(split(part) for part in p.data.reshape(-1).split(slice_on(p.device))))
    p.data, p.low_bits = torch.cat(highs).view(p.shape), torch.cat(lows).view(p.shape)


def split_weights(model) -> None:
    for p in model.parameters():
        split_weight(p)
    # buffers, such as rotary frequencies, stay fp32: rounding them shifts positions
    model.config.dtype = torch.bfloat16


def trained(model) -> list:
    """The parameters that training changes: all, or with adapters (--lora) theirs."""
    return [p for p in model.parameters() if p.requires_grad]


def copy_weights(model) -> list:
    """The fp32 weights that are trained, in CPU memory; put_weights brings them back."""
    return [exact(p).to("cpu", copy=True) for p in trained(model)]


def put_weights(model, saved: list) -> None:
    for p, weight in zip(trained(model), saved):
        half = p.low_bits if p.dtype == torch.bfloat16 else None
        p.data = weight.to(p.device, copy=True)
        if half is not None:
            split_weight(p)
            p.low_bits = p.low_bits.to(half.device)  # --offload keeps it in CPU memory


def take_halves(model) -> list:
    """The lower halves of split weights, None for the others; put_halves brings them back."""
    return [getattr(p, "low_bits", None) for p in model.parameters()]


def put_halves(model, saved: list, stay: bool = False) -> None:
    """Copies, beside the weights, or with `stay` in CPU memory, where --offload keeps them."""
    for p, low_bits in zip(model.parameters(), saved):
        if low_bits is not None:
            p.low_bits = low_bits.to("cpu" if stay else p.device, copy=True)


# --------------------------------------------------------------------------------------------------
# The optimiser
# --------------------------------------------------------------------------------------------------
class Part(NamedTuple):
    """A slice of a parameter, stepped at once."""

    grad: object  # (n,), as the weight's slice
    weight: object
    kept: list  # its moments, and the low half where the weight is split
    step: int


class SplitAdamW(torch.optim.AdamW):
    """AdamW for split weights, whose every step is taken on the fp32 value and split again, and for
    moments in bfloat16.

    Works through slices, so that its temporaries are small, and so that moments and low halves can
    stay in CPU memory (--offload). bfloat16 moments lose changes below 0.4 %, which is nothing
    beside the 5 % of g * g that enter exp_avg_sq at each step; with the usual beta2 of 0.999 it
    would be too much.
    """

    ferry = None

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            parts = []
            for p in group["params"]:
                if p.grad is not None:
                    parts += self.parts_of(p, group)
            if parts and self.ferries(group, parts[0].weight.device):
                work = functools.partial(ferried_part, parts, group)
                self.ferry.carry([part.kept for part in parts], work)
                continue
            for part in parts:
                for old, new in zip(part.kept, step_part(part, part.kept, group)):
                    old.copy_(new)

    def ferries(self, group: dict, device) -> bool:
        """Whether the states come to the GPU and go back at each step; makes the ferry for it."""
        if group["offload"] and device.type == "cuda":
            self.ferry = self.ferry or Ferry(device)
        return self.ferry is not None

    def parts_of(self, p, group: dict) -> list[Part]:
        """The slices of a parameter, whose step is counted."""
        state, is_split = self.state[p], p.dtype == torch.bfloat16
        if not state:
            self.begin(p, group)
        state["step"] += 1
        kept = [state["exp_avg"], state["exp_avg_sq"], *([p.low_bits] if is_split else [])]
        tensors = (t.view(-1).split(slice_on(p.device)) for t in (p.grad, p.data, *kept))
        return [Part(g, w, kept, state["step"]) for g, w, *kept in zip(*tensors)]

    def begin(self, p, group: dict) -> None:
        """Moments of zero, and the low half beside them, in the memory where they stay."""
        device = "cpu" if group["offload"] else p.device
        zeros = torch.zeros(p.shape, dtype=group["moments"], device=device)
        self.state[p].update(step=0, exp_avg=zeros, exp_avg_sq=zeros.clone())
        if p.dtype == torch.bfloat16:
            p.low_bits = p.low_bits.to(device)


def ferried_part(parts: list, group: dict, i: int, kept: list) -> list:
    return step_part(parts[i], kept, group)


def step_part(part: Part, kept: list, group: dict) -> list:
    """AdamW's step of a slice's weight; returns what `kept`, its moments and low half on the
    weight's device, become."""
    m, v, is_split = kept[0].float(), kept[1].float(), len(kept) == 3
    w = join(part.weight, kept[2]) if is_split else part.weight
    step_slice(w, part.grad.float(), m, v, step=part.step, group=group)
    if not is_split:
        return [m, v]
    high, low = split(w)
    part.weight.copy_(high)
    return [m, v, low]


def step_slice(w, g, m, v, step: int, group: dict) -> None:
    """AdamW's formulas on fp32 weights w, gradients g and moments m, v (n,), in place."""
    lr, decay, (b1, b2) = group["lr"], group["weight_decay"], group["betas"]
    m.lerp_(g, 1 - b1)
    v.lerp_(g.square(), 1 - b2)
    scale = v.div(1 - b2**step).sqrt_().add_(group["eps"])
    w.mul_(1 - lr * decay).addcdiv_(m, scale, value=-lr / (1 - b1**step))


def adamw(model, lr: float, weight_decay: float, cfg, beta2: float = 0.95):
    """AdamW, whose first beta is 0.9 (Table 4); SplitAdamW where weights or moments are bfloat16
    or states are kept off the GPU. With --shard, and other ranks, states are shared out."""
    options = dict(lr=lr, betas=(0.9, beta2), weight_decay=weight_decay)
    parameters = trained(model)
    moments = getattr(torch, cfg.moments or "float32")
    offload = cfg.offload and parameters[0].device.type != "mps"  # which has the CPU's memory
    group = {"params": parameters, "moments": moments, "offload": offload}
    kind = SplitAdamW
    whole = parameters[0].dtype != torch.bfloat16 and moments == torch.float32
    if whole and not offload:
        kind, group, options["fused"] = torch.optim.AdamW, {"params": parameters}, True
    if cfg.shard and ranks.world() > 1:
        return shards.sharded(kind, group, options)
    return kind([group], **options)
