"""What a GPU is told before the first tensor goes there. Nothing of it was measured on one."""

import gc
import os
import sys
from pathlib import Path

import torch

from kit.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None


def card(device: str) -> str:
    """--device as one device: "auto" and "cuda" are this process's own GPU under torchrun."""
    if device == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device in ("auto", "cuda") else device


def has_bfloat16(device: str) -> bool:
    """Whether a device calculates with bfloat16. Not torch.cuda.is_bf16_supported(): that says yes
    of cards before Ampere too (T4, V100), which only emulate it, slowly."""
    device = torch.device(device)
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 8


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices itself; elsewhere they are slower than fp32's.
    True where the system does not say."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else "amx_bf16"
    return any(flag in text for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def weights_are_low(cfg, device: str) -> bool:
    """Whether --dtype means bfloat16 there: "auto" does on a card of cuda's that has it."""
    on_cuda = torch.device(device).type == "cuda"
    return cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and on_cuda and has_bfloat16(device))


def peak_memory() -> float:
    """GiB: the most that tensors held on this process's GPU so far; without one, the most that the
    process held; 0 where the system does not say."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    if resource is None:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def release() -> None:
    """Give back what the cache of a GPU's allocator holds, behind a run out of memory."""
    on_apple = torch.backends.mps.is_available()
    if torch.cuda.is_available() or on_apple:
        gc.collect()  # what the traceback's frames held in cycles
        (torch.mps if on_apple else torch.cuda).empty_cache()


def prepare(device: str) -> bool:
    """Make the card of --device the current one and set it up; False where the run is on a CPU.

    Raises UserError where this machine has fewer cards than torchrun started processes.
    """
    name = card(device)
    if not name.startswith("cuda") or not torch.cuda.is_available():
        return False  # loading.device_of says what is wrong with --device
    index, cards = name.partition(":")[2] or "0", torch.cuda.device_count()
    if index.isdigit() and int(index) >= cards:
        raise UserError(
            f"there is no {name}: this machine has {cards} GPU(s). With torchrun, give "
            "--nproc-per-node as many processes as it has"
        )
    torch.cuda.set_device(name)  # first: a library that asks for "cuda" must not land on card 0
    torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for every new shape
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # for --dtype float32
    return True
