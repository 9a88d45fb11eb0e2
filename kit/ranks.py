"""Several processes (torchrun): each has the whole model and does its share.

Every loss is divided by the answers or tokens of the whole batch, so that sums over ranks make one
process of them.
"""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from kit import gpu

# A rank waits for the slowest one's batch of rollouts, which can take hours. One that dies is
# noticed all the same: torchrun ends the others.
PATIENCE = timedelta(days=7)


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ


def start(device: str) -> None:
    """Take this process's card, and join the other processes where torchrun started this one; then
    one rank talks. Tensors go over NCCL where they are on GPUs, objects over gloo."""
    on_gpu = gpu.prepare(device)
    if launched() and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(item) -> list:
    """`item` of every rank, in the order of ranks."""
    items = [item]
    if world() > 1:
        items = [None] * world()
        dist.all_gather_object(items, item)
    return items


def shared(items: list, work) -> list:
    """work(items), a list as long, of which every rank does each world-th item."""
    results = [None] * len(items)
    for r, part in enumerate(gather(work(items[rank() :: world()]))):
        results[r :: world()] = part
    return results


def sum_gradients(model) -> None:
    """Add up the ranks' gradients."""
    if world() == 1:
        return
    for p in filter(lambda p: p.requires_grad, model.parameters()):
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        dist.all_reduce(p.grad)


def leave_together() -> None:
    """End the process group once every rank is here: one that leaves while another still talks to
    it can take it down."""
    if dist.is_initialized():
        gather(None)
        dist.destroy_process_group()
