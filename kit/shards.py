"""States shared out over ranks (--shard): the moments of a weight, and its low half, are on one
rank alone, which steps it and hands the new weight to the others.

It is torch's ZeroRedundancyOptimizer. FSDP2's fully_shard would share out weights and gradients
too, but each of its forward passes is a meeting of all ranks: here a rank has as many passes and
rollout batches as its rows need, perhaps none, and halves them on its own where memory runs out.
"""

import torch
import torch.distributed as dist

from kit import ranks


def sharded(kind, group: dict, options: dict):
    """An optimiser of class `kind` for one group of parameters, each with its state on one rank."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    optimizer = ZeroRedundancyOptimizer([group], optimizer_class=kind, **options)
    drop_other_halves(group["params"], optimizer)
    return optimizer


def own(optimizer):
    """The optimiser of this rank's parameters: a sharded one's inner one, or else itself."""
    return getattr(optimizer, "optim", optimizer)


def stepped_here(optimizer) -> set:
    """The parameters that are stepped on this rank."""
    return {p for group in own(optimizer).param_groups for p in group["params"]}


def drop_other_halves(parameters, optimizer) -> None:
    """Forget the low halves of weights that another rank steps."""
    here = stepped_here(optimizer)
    for p in parameters:
        if p not in here:
            p.low_bits = None


def on_first_rank(items: list) -> list:
    """The items, of which the first rank gets those that are None there from a rank that has them.

    One after the other, in CPU memory: all ranks' states together need not fit anywhere else.
    """
    found, has = list(items), ranks.gather([item is not None for item in items])
    for i in range(len(items)):
        owner = next((r for r, of_rank in enumerate(has) if of_rank[i]), 0)
        if owner and ranks.rank() == owner:
            dist.send_object_list([in_cpu_memory(items[i])], dst=0)
        elif owner and ranks.rank() == 0:
            box = [None]
            dist.recv_object_list(box, src=owner)
            found[i] = box[0]
    return found


def in_cpu_memory(item):
    """A tensor, or a dict with tensors, off the GPU."""
    if isinstance(item, dict):
        return {name: in_cpu_memory(value) for name, value in item.items()}
    return item.cpu() if torch.is_tensor(item) else item
