"""A training step without its memory: the bytes of a 7B model's step, counted on a laptop.

FakeTensorMode gives every tensor a shape and no data; MemTracker counts what lives at the same
time. The step is the project's own: its losses, its optimiser, its teacher.

What a GPU does otherwise: its allocator rounds and fragments (the plan's RESERVE), its driver and
kernels take a GB (CONTEXT), and its attention kernels keep one fp32 number per row and head, or
read padded keys. Nothing here knows what really is resident.
"""

import contextlib

import torch
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM

import kit
import sdzero
from studies.steps import backward_phase2, largest_pass, random_samples, row_lengths

PROMPT = 48


@contextlib.contextmanager
def without_data():
    """Within it tensors have shapes alone. What would read a number from one reads 0.0."""
    own = torch.Tensor.__float__
    torch.Tensor.__float__ = lambda self: 0.0
    kit.low_bits.thresholds.cache_clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        torch.Tensor.__float__ = own
        kit.low_bits.thresholds.cache_clear()  # it holds tensors without data


def step_bytes(config, cfg, phase: int, lengths: list[int]) -> dict:
    """{"tracked": bytes at the peak of a step on responses of these lengths, "kinds": its parts,
    "planned": what the plan says of it}; libraries are in neither."""
    samples = random_samples(lengths, PROMPT, config.get_text_config().vocab_size, 5)
    rows = row_lengths(samples)
    with without_data():
        kinds = tracked(config, cfg, phase, samples)
    tokens = largest_pass(rows, cfg.micro_tokens)
    parts = kit.memory_plan.step_parts(kit.sizes.sizes(config), cfg, phase, tokens, gpu=False)
    planned = sum(parts.values()) - parts["libraries"]
    return {"tracked": kinds.pop("Total"), "kinds": kinds, "planned": planned}


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
        rows = [sdzero.Row(s["context"] + s["ids"], [PROMPT]) for s in part]
        return sdzero.backward_nll(run, student, rows, 1)

    tracker = MemTracker()
    halves = [p.low_bits for p in student.parameters() if hasattr(p, "low_bits")]
    tracker.track_external(student, teacher, optimizer, *halves)
    with tracker:
        for rows in kit.losses.micro_batches(row_lengths(samples), cfg.micro_tokens):
            tracker.reset_mod_stats()  # to the tracker each pass is a step
            backward([samples[i] for i in rows])
        tracker.reset_mod_stats()  # nor has it to look at each module at each operation
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
