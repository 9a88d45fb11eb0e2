"""A training step without its memory: the bytes of a 7B model's step, counted on a laptop.

FakeTensorMode gives every tensor a shape and no data; MemTracker counts what lives at the same
time. The step is the project's own: its losses, its optimiser, its teacher.

What a GPU does otherwise: its allocator rounds and fragments (the plan's RESERVE), its driver and
kernels take a GB (CONTEXT), and its attention kernels keep one fp32 number per row and head, or
read padded keys. Nothing here knows what really is resident.
"""

import contextlib
import time
import warnings
from dataclasses import replace

import torch
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM, masking_utils

import kit
import sdzero
from kit.tables import table
from studies.steps import backward_phase2, largest_pass, random_samples, row_lengths

MODELS = ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B-Instruct-2507", "allenai/Olmo-3-7B-Instruct")
LIMITS = {}  # of responses: the recipe's
SLICES = 256  # of a large model's weights in a step, whose slices would be thousands of operations


@contextlib.contextmanager
def without_data(parameters: int):
    """Within it tensors have shapes alone. What would read a number from one reads 0.0."""
    own, own_slice = torch.Tensor.__float__, kit.low_bits.SLICE
    torch.Tensor.__float__ = lambda self: 0.0
    # or transformers, which cannot read that no rows are packed, would make masks that no run has
    packed = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    kit.low_bits.SLICE = max(own_slice, parameters // SLICES)
    kit.low_bits.thresholds.cache_clear()
    try:
        with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True):
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            yield
    finally:
        torch.Tensor.__float__, kit.low_bits.SLICE = own, own_slice
        masking_utils.find_packed_sequence_indices = packed
        kit.low_bits.thresholds.cache_clear()  # it holds tensors without data


def plan(args) -> dict:
    """The plan beside what a step holds, for phase 1's and phase 2's longest rows of known models,
    in the settings that the plan chooses for a card of args.card GB."""
    found = []
    lines = [["model", "settings", "phase", "tokens", "tracked GB", "planned GB", "plan / tracked"]]
    for name in args.models.split(","):
        config = kit.sizes.read_config(name)
        cfg = sdzero.make_config(model=name, task="math", dtype="bfloat16", **LIMITS)
        s = kit.sizes.sizes(config)
        cfg = kit.memory_plan.fastest(s, cfg, args.card * 1e9) or kit.memory_plan.smallest(cfg)
        # what is offloaded is elsewhere; here there is one device alone
        settings, cfg = kit.memory_plan.flags(cfg), replace(cfg, offload=False)
        for phase in (1, 2):
            began, prompt = time.time(), kit.memory_plan.PROMPT
            row = kit.memory_plan.trained_row(cfg, phase)
            rows = [row - prompt] * max(1, cfg.micro_tokens // row)  # one pass
            result = step_bytes(config, cfg, phase, rows, prompt)
            ratio, seconds = result["planned"] / result["tracked"], time.time() - began
            found.append({"model": name, "settings": settings, "phase": phase, **result})
            found[-1] |= {"ratio": ratio, "seconds": seconds}
            gb = [f"{result[key] / 1e9:.2f}" for key in ("tracked", "planned")]
            tokens = str(len(rows) * row)
            lines.append([name, settings, str(phase), tokens, *gb, f"{ratio:.3f}"])
            print(lines[-1], f"{seconds:.0f} s", flush=True)
    print(table(lines))
    return {"steps": found}


def step_bytes(config, cfg, phase: int, lengths: list[int], prompt: int = 48) -> dict:
    """{"tracked": bytes at the peak of a step on responses of these lengths, "kinds": its parts,
    "planned": what the plan says of it}; libraries are in neither."""
    samples = random_samples(lengths, prompt, config.get_text_config().vocab_size, 5)
    rows = row_lengths(samples)
    s = kit.sizes.sizes(config)
    with without_data(s.parameters):
        kinds = tracked(config, cfg, phase, samples)
    tokens = largest_pass(rows, cfg.micro_tokens)
    parts = kit.memory_plan.step_parts(s, cfg, phase, tokens, gpu=False)
    planned = sum(parts.values()) - parts["libraries"]
    return {"tracked": kinds.pop("Total"), "kinds": kinds, "planned": planned}


class Tracker(MemTracker):
    """MemTracker of the whole alone: its look at every module at every operation would take most of
    the time."""

    def _update_peak_stats(self, peak_state):
        for device, kinds in self._curr_mem_snap.items():
            total = kinds["Total"]
            if self._peak_mem.get(device, 0) < total:
                self._peak_mem[device], self._peak_mem_snap[device] = total, dict(kinds)


def tracked(config, cfg, phase: int, samples: list[dict]) -> dict[str, int]:
    """{kind: bytes} at the peak of a step; within without_data()."""
    student = model_without_data(config, cfg)
    teacher = teacher_of(student) if phase == 2 else None
    optimizer = kit.low_bits.adamw(student, cfg.distil_lr, 0.0, cfg)
    begin(student, optimizer, cfg)
    room = kit.losses.Room(sequences=64, tokens=cfg.micro_tokens)
    run = sdzero.Run(cfg, None, None, {}, sdzero.Phrases([9, 10], [7, 8]), [5], room)

    def backward(part):
        if phase == 2:
            return backward_phase2(run, student, teacher, part)
        rows = [sdzero.Row(s["context"] + s["ids"], [len(s["context"])]) for s in part]
        return sdzero.backward_nll(run, student, rows, 1)

    for p in student.parameters():
        p.grad = torch.empty_like(p)  # as an earlier pass of the step has left it
    tracker = Tracker()
    halves = [p.low_bits for p in student.parameters() if hasattr(p, "low_bits")]
    tracker.track_external(student, teacher, optimizer, *halves)
    with tracker:
        for rows in kit.losses.micro_batches(row_lengths(samples), cfg.micro_tokens):
            tracker.reset_mod_stats()  # to the tracker each pass is a step
            backward([samples[i] for i in rows])
        sdzero.update(student, optimizer, cfg.distil_lr, cfg.grad_clip)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    return {str(kind).split(".")[-1]: n for kind, n in peak.items()}


def model_without_data(config, cfg):
    """What load_model and prepare make, of the right shapes."""
    dtype = getattr(torch, cfg.dtype)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    model.config.dtype = dtype
    if dtype == torch.bfloat16:
        for p in model.parameters():
            p.low_bits = torch.empty(p.shape, dtype=torch.int16)
    if cfg.gradient_checkpointing:
        kwargs = {"use_reentrant": False}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    return model


def teacher_of(student):
    """A frozen copy, but MemTracker hooks every parameter that it meets, and wants them to require
    a gradient. None is taken: phase 2 runs the teacher without."""
    teacher = sdzero.frozen_copy(student)
    return teacher.requires_grad_(True)


def begin(model, optimizer, cfg) -> None:
    """The moments, which a first step makes."""
    if isinstance(optimizer, kit.low_bits.SplitAdamW):
        for p in model.parameters():
            optimizer.begin(p, optimizer.param_groups[0])
        return
    for p in model.parameters():
        p.grad = torch.empty_like(p)
    sdzero.update(model, optimizer, cfg.distil_lr, cfg.grad_clip)
