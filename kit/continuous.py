"""Continuous batching on a GPU: a row that has finished makes room for the next one at once.

What transformers 5.23 does wrong beside training is guarded here; docs/memory_and_speed.md lists
it. Its cache has pages that a row takes as it grows, so rows at once are not counted as if each
reached --max-tokens. Nothing of it was measured on a GPU.
"""

import logging
import traceback

import torch

from kit import ranks

AT_ONCE, WITHOUT_FLASH = 256, 64  # rows, where --rollout-batch is 0
QUEUE = 4  # times as many are handed over at once, to refill from
# Of the memory that is free, for the cache and all that grows with it. The rest is for the layers:
# nothing else of a run needs memory while it samples.
CACHE_SHARE = 0.8
BATCH_TOKENS = 32  # read at once for each row at once: prompts go in piece by piece


def flash_kernel(model) -> str:
    """The flash attention that it will use in place of the model's own; "" where there is none."""
    from transformers.utils import import_utils
    from transformers.utils.generic import is_flash_attention_requested

    own = model.config._attn_implementation
    if model.dtype.itemsize > 2 or not model._supports_flash_attn:
        return ""  # flash kernels know no fp32
    if is_flash_attention_requested(requested_attention_implementation=own):
        return own
    for version in (3, 2):  # in the order of ContinuousBatchingManager.switch_to_cb_friendly_attn
        available = getattr(import_utils, f"is_flash_attn_{version}_available")
        if available(kernels_fallback_ok=True):
            return f"flash_attention_{version}"
    return ""


def at_once(model) -> int:
    """Rows in a batch where the user leaves that open."""
    return AT_ONCE if flash_kernel(model) else WITHOUT_FLASH


def described(model) -> str:
    """For the first lines of a run: what attention rollouts use, and what a missing one costs."""
    if kernel := flash_kernel(model):
        return f"continuous batching with {kernel}"
    return (
        f"continuous batching with {model.config._attn_implementation} attention. NO FLASH KERNEL: "
        "each step copies the keys of all rows and scores every row against all of them, so the "
        "time of a step grows with the square of the rows at once, which are "
        f"{WITHOUT_FLASH} instead of {AT_ONCE}; docs/running.md says how to install one"
    )


def sampler(model, config, room, fallback):
    """sample(prompts, seed) for in_batches; fallback(prompts, seed), of room.sequences at most,
    where continuous batching cannot run at all. A lack of memory is a MemoryError or torch's."""

    def sample(prompts, seed):
        if room.continuous is False:
            return fallback(prompts, seed)
        try:
            rows = generated(model, config, room.sequences, prompts, seed)
        except Exception as e:
            if lacks_room(e):
                raise MemoryError(str(e)) from None
            if room.continuous or is_memory(e):
                raise
            print(
                f"continuous batching does not run here ({type(e).__name__}: "
                f"{str(e).partition(chr(10))[0]}): going on with batches that end together"
            )
            room.continuous = False
            torch.manual_seed(seed)  # again: some tokens may have been drawn
            parts = range(0, len(prompts), room.sequences)
            return [row for a in parts for row in fallback(prompts[a : a + room.sequences], seed)]
        room.continuous = True
        return rows

    return sample


def is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error)


def lacks_room(error: Exception) -> bool:
    """Whether it is the cache that has too few pages, which it says in words of its own."""
    few = "num_sectors" in str(error) or "No requests can be scheduled" in str(error)
    return few and isinstance(error, (ValueError, RuntimeError))


def generated(model, config, requests: int, prompts: list, seed: int) -> list[list[int]]:
    """A row of new ids for each prompt, at most `requests` of them in a batch.

    generate_batch() itself is not used: it logs an error of its thread and returns what there is,
    and it hands requests over while that thread runs, so that what is sampled depends on when each
    arrives. Here all of them are there before the first step.
    """
    from transformers.generation.continuous_batching.utils import WorkloadHints

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)  # errors are raised
    own, manager, done = model.config._attn_implementation, None, {}
    hints = WorkloadHints(max(map(len, prompts)), config.max_new_tokens, len(prompts))
    try:
        manager = model.init_continuous_batching(config, settings(model, requests, seed), hints)
        names = manager.add_requests(prompts)
        manager.start()
        while len(done) < len(names):
            output = manager.get_result(timeout=1)
            if output is not None and output.is_finished():
                done[output.request_id] = output
            elif output is None and not manager.is_running():
                break
    finally:
        if manager is not None:
            # or its thread would go on to the end of all rows after a Ctrl-C
            manager.stop(block=True, hard_stop=True)
        if model.config._attn_implementation != own:  # stop() puts it back where it came to start
            model.set_attn_implementation(own)
    raise_what_went_wrong(manager, names, done)
    return [done[name].generated_tokens for name in names]


def settings(model, requests: int, seed: int):
    from transformers import ContinuousBatchingConfig

    return ContinuousBatchingConfig(
        max_requests_per_batch=requests,
        max_batch_tokens=max(256, BATCH_TOKENS * requests),
        max_memory_percent=CACHE_SHARE,
        # they would be captured anew at every call, and crash with several ranks
        use_cuda_graph=False,
        auto_switch_to_flash=bool(flash_kernel(model)),
        # transformers adds the rank, but a batch's rows must not depend on who samples it
        seed=seed - ranks.rank(),
    )


def raise_what_went_wrong(manager, names: list, done: dict) -> None:
    """Raise the error of the manager's thread, or of a request, as what it is."""
    status = manager.background_thread_status
    error, status.fatal_error = status.fatal_error, None
    if error is not None:
        traceback.clear_frames(error.__traceback__)  # they hold what was on the GPU
        raise error
    errors = [output.error for output in done.values() if output.error]
    if errors or len(done) < len(names):
        lost = len(names) - len(done) + len(errors)
        why = errors[0] if errors else "its thread has ended"
        raise RuntimeError(f"{lost} of {len(names)} requests have no answer: {why}")
