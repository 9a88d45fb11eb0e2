"""--offload: the teacher's layers stay in CPU memory, and each is copied to the GPU for as long as
it calculates. Nothing is copied back: these weights change only when the teacher is synchronised.
Not measured on a GPU.
"""

import torch

from kit.adapters import adapted


def layers_on_host(model):
    """The model, its layers' weights in CPU memory; embeddings and head stay where they are. A
    model on a CPU, or on mps, which has the CPU's memory, is left as it is, and so is one that
    shares its weights (--lora)."""
    if model.device.type in ("cpu", "mps") or adapted(model):
        return model
    return streamed(model, model.device)


def streamed(model, device):
    """The model, each layer's weights at home in CPU memory, and copies of them on `device` while
    the layer calculates. Between two passes its state_dict() is what is at home. Its layers are its
    longest list of modules."""
    lists = [m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList)]
    for layer in max(lists, key=len):
        stream(layer, device)
    return model


def stream(layer, device) -> None:
    """Its weights at home, and their copies on `device` while it calculates."""
    homes = [(p, at_home(p.data)) for p in layer.parameters()]

    def come(*_):
        for p, home in homes:
            p.data = home.to(device, non_blocking=True, copy=True)

    def go(*_):
        for p, home in homes:
            p.data = home

    go()
    layer.register_forward_pre_hook(come)
    layer.register_forward_hook(go, always_call=True)


def at_home(tensor):
    """A copy in CPU memory, pinned where there is a GPU that reads it."""
    return tensor.cpu().pin_memory() if torch.cuda.is_available() else tensor.cpu()
