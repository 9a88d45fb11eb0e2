"""Losses of one value per token, fast and in little memory, and equal to sdzero.py's formulas.

For a 4B model the (T, V) logits outweigh everything else, so hidden states are projected chunk by
chunk and the logits are never whole in memory. It is exact: full vocabulary, no top-k.
"""

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from kit import gpu, ranks
from kit.errors import UserError

# Logits (tokens times vocabulary) in memory at once, in four copies; but 128 tokens at least.
CHUNK = 8_000_000
# Tokens whose part of a bfloat16 head's gradient is added at once. That is one rounding for each:
# for 128 tokens each, the sum over 32,768 is off by 2 %, and every time V x H numbers move.
HEAD_ROWS = 1024


# --------------------------------------------------------------------------------------------------
# The output embedding: hidden states (n, H) -> logits (n, V)
# --------------------------------------------------------------------------------------------------
def head_of(model):
    """(weight (V, H), bias (V,) or None, logits -> logits) of the output embedding."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None)  # Cohere
    scale = scale or 1 / (getattr(config, "logits_scaling", None) or 1)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    def finish(logits):
        logits = logits if scale == 1 else logits * scale
        return torch.tanh(logits / cap) * cap if cap else logits

    return head.weight, getattr(head, "bias", None), finish


def logits_of(hidden, head):
    """(n, H) -> (n, V), at least float32: a log-softmax over 150,000 bfloat16 logits is noise."""
    weight, bias, finish = head
    logits = project(hidden, weight, bias)
    return finish(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def project(hidden, weight, bias):
    """(n, H) -> (n, V), without a gradient of its own. A GPU sums products of bfloat16 in fp32:
    there the sum is not rounded."""
    if sums_in_fp32(weight):
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        return logits if bias is None else logits.add_(bias)
    return F.linear(hidden, weight, bias)


def sums_in_fp32(weight) -> bool:
    return weight.is_cuda and weight.dtype == torch.bfloat16 and not torch.is_grad_enabled()


def chunk_rows(vocabulary: int) -> int:
    """Tokens that are projected at once: a multiple of 16, which matrix products like, and enough
    that reading the head does not tell."""
    return max(128, CHUNK // vocabulary // 16 * 16)


# --------------------------------------------------------------------------------------------------
# The loss of each token, and its gradient
# --------------------------------------------------------------------------------------------------
class TokenLoss(torch.autograd.Function):
    """Sum of loss_fn(logits of hidden[a:b], slice(a, b)), the gradient taken chunk by chunk.

    A chunk's logits live just long enough to give its loss and d loss / d logits, from which the
    gradients of hidden states and head follow by two matrix products, as in backpropagation;
    nothing is computed twice. The head's is added for HEAD_ROWS tokens at a time where it is
    bfloat16: an fp32 sum would need 4 V H bytes more, this 2 V HEAD_ROWS.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, finish, loss_fn, chunk):
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        precise = torch.promote_types(hidden.dtype, torch.float32)
        per_token = torch.empty(len(hidden), device=hidden.device, dtype=precise)  # (N,)
        grad_h = torch.empty_like(hidden) if need_h else None
        grad_w = torch.zeros_like(weight) if need_w else None
        grad_b = torch.zeros_like(bias) if need_b else None
        held = None  # d loss / d logits of the last tokens, whose part of grad_w is to come
        if need_w and weight.dtype == torch.bfloat16 and chunk < min(HEAD_ROWS, len(hidden)):
            rows_held = min(HEAD_ROWS // chunk * chunk, len(hidden))
            held = torch.empty(rows_held, len(weight), device=weight.device, dtype=weight.dtype)

        for a in range(0, len(hidden), chunk):
            rows = slice(a, min(a + chunk, len(hidden)))
            raw = project(hidden[rows], weight, bias)  # (n, V)
            with torch.enable_grad():
                leaf = raw.to(precise).requires_grad_(need_h or need_w)
                losses = loss_fn(finish(leaf), rows)  # (n,)
            if losses.shape != (len(raw),):
                raise ValueError(
                    f"a loss gives one value per token, of shape {(len(raw),)}, no mean or sum; "
                    f"this one gave {tuple(losses.shape)}"
                )
            per_token[rows] = losses.detach()
            if need_h or need_w:
                del raw
                g = torch.autograd.grad(losses, leaf, torch.ones_like(losses))[0]  # (n, V)
                g = g.to(hidden.dtype)
                if need_h:
                    grad_h[rows] = g @ weight
                if need_w and held is None:
                    grad_w.addmm_(g.T, hidden[rows])
                elif need_w:
                    first = a // len(held) * len(held)  # of the tokens held
                    held[a - first : rows.stop - first] = g
                    if rows.stop in (first + len(held), len(hidden)):
                        part = hidden[first : rows.stop]
                        grad_w.addmm_(held[: len(part)].T, part)
                if need_b:
                    grad_b += g.sum(0)
                del leaf, losses, g  # or they would stay while the next chunk is made

        ctx.grads = grad_h, grad_w, grad_b
        ctx.mark_non_differentiable(per_token)
        return per_token.sum(), per_token

    @staticmethod
    def backward(ctx, grad_sum, _):
        grads, ctx.grads = ctx.grads, None  # or autograd would copy grad_w into .grad
        return *(g if g is None else g.mul_(grad_sum) for g in grads), None, None, None


def token_loss(model, hidden, loss_fn):
    """loss_fn(logits (n, V), chunk) -> (n,) over hidden states (N, H), projected by model's head.

    Returns the sum, which has a gradient, and the values of all tokens (N,), which have none.
    """
    weight, bias, finish = head_of(model)
    if not torch.is_grad_enabled():  # which an autograd.Function is not told
        hidden, weight = hidden.detach(), weight.detach()
        bias = None if bias is None else bias.detach()
    trim_heap(weight)  # the peak of a step is here
    return TokenLoss.apply(hidden, weight, bias, finish, loss_fn, chunk_rows(len(weight)))


class KLInPlace(torch.autograd.Function):
    """sdzero.kl in half the passes over (n, V) and half the copies that autograd would make. Its
    inputs stay as they are, and both get a gradient.

    d/da = p_a (log p_a - log p_b - KL) and d/db = p_b - p_a, written out.
    """

    @staticmethod
    def forward(ctx, a, b):
        p, terms = F.log_softmax(a, -1), F.log_softmax(b, -1)  # two buffers, for log p_a, log p_b
        ctx.p_b = terms.exp() if ctx.needs_input_grad[1] else None
        terms.neg_().add_(p)
        terms.mul_(p.exp_())  # p_a (log p_a - log p_b)
        kl = terms.sum(-1)
        # kl itself would make a cycle, and all of this wait for the collector
        ctx.p_a, ctx.terms, ctx.kl = p, terms, kl.detach()
        return kl

    @staticmethod
    def backward(ctx, grad):
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = ctx.terms.addcmul_(ctx.p_a, ctx.kl[:, None], value=-1).mul_(grad[:, None])
        if ctx.needs_input_grad[1]:
            grad_b = ctx.p_b.sub_(ctx.p_a).mul_(grad[:, None])
        ctx.p_a = ctx.p_b = ctx.terms = None  # overwritten: no second backward pass
        return grad_a, grad_b


def precise(loss):
    """A pass's loss, to be summed over passes: in float64, which Apple's GPUs lack."""
    return loss.float() if loss.device.type == "mps" else loss.double()


def trim_heap(head) -> None:
    """Give back what glibc's heap holds free between pieces in use, up to a pass's activations.

    For large models on a CPU alone: the pages are faulted in again later, which for a small model
    would cost more than it saves. Elsewhere than on Linux there is nothing to do.
    """
    if head.device.type != "cpu" or head.numel() <= 4e6:
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # macOS, musl; Windows
        pass


# --------------------------------------------------------------------------------------------------
# Passes that fit in memory
# --------------------------------------------------------------------------------------------------
@dataclass
class Room:
    """What fits in memory at once; it shrinks when memory runs out."""

    sequences: int  # generated at once
    tokens: int  # padding included, in one forward and backward pass
    # whether continuous batching has worked here (True), cannot run (False), or was not tried yet
    continuous: bool | None = None


def attempt(work):
    """work(), or None where memory ran out; by then all that work() held is free again."""
    try:
        return work()
    except MemoryError:
        pass
    except RuntimeError as e:  # a GPU's torch.OutOfMemoryError, and what the CPU's allocator says
        no_memory = "out of memory" in str(e) or "can't allocate memory" in str(e)
        if not (no_memory or isinstance(e, torch.OutOfMemoryError)):
            raise
    gpu.release()
    return None


def micro_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices grouped by similar length, longest first: rows x longest row within `budget` tokens.

    One row at least, and at most a tenth of a group padding, but below 1024 tokens padding is let
    be, since a pass over fewer costs about as much.
    """
    batches = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if batches:
            size = lengths[batches[-1][0]] * (len(batches[-1]) + 1)  # with row i
            padding = size - sum(lengths[j] for j in batches[-1]) - lengths[i]
        if not batches or size > budget or (size > 1024 and padding > size / 10):
            batches.append([])
        batches[-1].append(i)
    return batches


def in_passes(work, model, lengths: list[int], room: Room) -> float:
    """work(passes), which adds to the model's gradients, summed over ranks; returns its sum.

    passes: lists of indices of rows, each small enough for memory; ranks share the rows. Where
    memory runs out, the passes are halved and the rank's share starts again with clean gradients,
    since the failed backward pass has added to some of them.
    """
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    share = by_length[ranks.rank() :: ranks.world()]
    longest = max((lengths[i] for i in share), default=0)

    def passes():
        groups = micro_batches([lengths[i] for i in share], room.tokens)
        return [[share[j] for j in group] for group in groups]

    def whole_share():
        embedding = model.get_input_embeddings()
        if embedding.sparse:  # its sparse gradients add up in a dense one
            embedding.weight.grad = torch.zeros_like(embedding.weight)
        return work(passes())

    while (total := attempt(whole_share)) is None:
        model.zero_grad(set_to_none=True)
        tokens = max(max(lengths[i] for i in rows) * len(rows) for rows in passes())
        if tokens <= longest:
            raise UserError(
                f"memory ran out in a pass over one row of {tokens} tokens; try "
                "--gradient-checkpointing or a lower --max-tokens"
            )
        room.tokens = max(longest, tokens // 2)
        print(
            f"memory ran out in a pass over {tokens} tokens: going on with --micro-tokens "
            f"{room.tokens}"
        )
    ranks.sum_gradients(model)
    return sum(ranks.gather(float(total)))
