"""Rollouts, robust and fast: batches of similar length, continuous batching on a GPU, running out
of memory, several ranks, and the journal that a stopped run goes on from.
"""

import contextlib
import hashlib
import itertools
import json
from typing import NamedTuple

import torch
from tqdm import tqdm

from kit import ranks
from kit.errors import UserError
from kit.losses import attempt
from kit.seeds import derived_seed


def continuous(model) -> bool:
    """A GPU replaces finished rows at once; on a CPU that is slower than batches that end
    together."""
    return model.device.type == "cuda" and hasattr(model, "generate_batch")


def engine(model) -> str:
    return "continuous batching" if continuous(model) else "batches sorted by length"


def left_padded(prompts: list[list[int]], pad: int, device):
    """Prompts as one batch that ends together: (ids, mask), both (B, T)."""
    length = max(map(len, prompts))
    ids = [[pad] * (length - len(p)) + p for p in prompts]
    mask = [[0] * (length - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@contextlib.contextmanager
def plain_distribution(model):
    """Within it the checkpoint's own generation config is empty.

    generate() fills whatever is None in the given config from the checkpoint's own: suppressed
    tokens, biases, guidance ... The losses are about the distribution without them.
    """
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    model.eval()  # also makes gradient checkpointing leave the KV cache alone
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=gpu_of(model)):
            yield
    finally:
        model.generation_config = own


def gpu_of(model) -> list:
    return [model.device] if model.device.type == "cuda" else []


def continuous_batching(model, config, room):
    """sample(prompts, seed) for in_batches: rows are replaced as they finish."""
    from transformers import ContinuousBatchingConfig

    def sample(prompts, seed):
        settings = ContinuousBatchingConfig(max_requests_per_batch=room.sequences, seed=seed)
        done = model.generate_batch(
            prompts, generation_config=config, continuous_batching_config=settings
        )
        rows = [o.generated_tokens for o in done.values() if o.is_finished() and not o.error]
        # its thread reports an error, such as no memory, only by what is missing
        return rows if len(rows) == len(prompts) else None

    return sample


class Job(NamedTuple):
    """A batch to sample: what it is called in the journal, its seed, and its prompts' ids."""

    key: str
    seed: int
    prompts: list


def in_batches(run, model, prompts: list[list[int]], sample, seed: int, label: str) -> list:
    """sample(prompts of a batch, its seed) for all prompts, batched by length -> rows of ids.

    Each row ends behind its first end token. Every rank takes each world-th batch. With a `label`
    there is a progress bar, and the run can be stopped between two batches.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    # continuous batching wants a queue to refill from
    size = (run.cfg.rollout_batch or 64) * (8 if continuous(model) else 1)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    jobs = []
    for n, batch in enumerate(batches):
        ids = [prompts[i] for i in batch]
        key = key_of(label, seed, n * size, ids)
        jobs.append(Job(key, derived_seed(seed, n * size), ids))

    responses, world = [[] for _ in prompts], ranks.world()
    quiet = {"disable": not label or ranks.rank() > 0, "mininterval": 1.0}
    with tqdm(total=len(prompts), desc=label, unit="rollout", **quiet) as bar:
        for first in range(0, len(jobs), world):
            found = recalled_or_sampled(run, model, sample, jobs[first : first + world])
            for batch, rows in zip(batches[first : first + world], found):
                for i, row in zip(batch, rows):
                    responses[i] = row
                bar.update(len(batch))
            if label and run.folder and run.folder.stopping():
                raise KeyboardInterrupt
    return responses


def recalled_or_sampled(run, model, sample, jobs: list[Job]) -> list:
    """The rows of one job for each rank: from the journal of a run that was stopped after it had
    paid for them, or sampled now."""
    found = [run.folder.recall(job.key) if run.folder else None for job in jobs]
    if all(found):
        return found
    mine = []
    for job in jobs[ranks.rank() :][:1]:
        rows = with_room(run.room, model, sample, job.prompts, job.seed)
        mine.append(cut_behind_end(rows, run.end_ids))
    found = list(itertools.chain(*ranks.gather(mine)))
    if run.folder:
        for job, rows in zip(jobs, found):
            run.folder.remember(job.key, rows)
    return found


@contextlib.contextmanager
def counted_timeouts(run):
    """Within it the answers that all ranks' graders find too slow are added to the run's count."""
    late = run.grader.timeouts
    yield
    if run.folder:
        run.folder.totals["timeouts"] += sum(ranks.gather(run.grader.timeouts - late))


def key_of(label: str, seed: int, start: int, prompts: list[list[int]]) -> str:
    """A batch's key in the journal. It carries the prompts' ids: a batch can never be recalled for
    another question."""
    digest = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()[:16]
    return f"{label}/{seed}/{start}/{digest}"


def cut_behind_end(rows: list[list[int]], end_ids: list[int]) -> list[list[int]]:
    """The padding behind a response is an end token too: cut behind the first."""
    return [row[: first_end(row, end_ids)] for row in rows]


def first_end(row: list[int], end_ids: list[int]) -> int:
    return next((t + 1 for t, token in enumerate(row) if token in end_ids), len(row))


def with_room(room, model, sample, prompts: list, seed: int) -> list[list[int]]:
    """sample(prompts, seed), with half as many sequences at once where memory runs out."""

    def in_parts():
        rows = []
        size = len(prompts) if continuous(model) else room.sequences
        torch.manual_seed(seed)
        for start in range(0, len(prompts), size):
            part = sample(prompts[start : start + size], seed)
            if part is None:
                return None
            rows += part
        return rows

    while (rows := attempt(in_parts)) is None:
        now = min(room.sequences, len(prompts))
        if now == 1:
            raise UserError("memory ran out while one sequence was generated; lower --max-tokens")
        room.sequences = now // 2
        print(f"memory ran out with {now} sequences at once: going on with {now // 2}")
    return rows
