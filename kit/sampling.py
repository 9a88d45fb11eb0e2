"""Rollouts, robust and fast: batches of similar length, or continuous batching on a GPU, running
out of memory, several ranks, and the journal that a stopped run goes on from.
"""

import contextlib
import hashlib
import itertools
import json
import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from kit import continuous as cb
from kit import ranks
from kit.errors import UserError
from kit.losses import Room, attempt
from kit.seeds import derived_seed

ROWS, PROMPT = 64, 512  # rows at once on a CPU; prompt tokens that a number of rows allows for


def continuous(model) -> bool:
    """A GPU replaces finished rows at once; on a CPU that is slower than batches that end
    together."""
    return model.device.type == "cuda" and hasattr(model, "init_continuous_batching")


def engine(model) -> str:
    if continuous(model):
        return cb.described(model)
    return f"batches sorted by length with {model.config._attn_implementation} attention"


def rows_at_once(cfg, model) -> int:
    """--rollout-batch, or what suits the engine."""
    return cfg.rollout_batch or (cb.at_once(model) if continuous(model) else ROWS)


def room_for(cfg, model) -> Room:
    return Room(sequences=rows_at_once(cfg, model), tokens=cfg.micro_tokens or 2048)


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
    jobs, batches = [], batches_of(run, model, prompts)
    for start, batch in zip(starts_of(batches), batches):
        ids = [prompts[i] for i in batch]
        jobs.append(Job(key_of(label, seed, start, ids), derived_seed(seed, start), ids))

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


def batches_of(run, model, prompts: list) -> list[list[int]]:
    """Indices of prompts by length, one list for each batch.

    --rollout-batch is rows of PROMPT + --max-tokens tokens, padding included; where prompts are
    longer, as a reviser's, fewer rows take as much memory. Continuous batching counts pages itself
    and gets a queue to refill from. Every rank has work, where a seed need not give one process's
    samples: not with a --rollout-batch on a CPU.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    rows, longest = rows_at_once(run.cfg, model), math.inf
    for_each_rank = math.ceil(len(prompts) / ranks.world())
    if continuous(model):
        rows = min(cb.QUEUE * rows, for_each_rank)
    else:
        longest = rows * (PROMPT + run.cfg.max_tokens)
        rows = rows if run.cfg.rollout_batch else min(rows, for_each_rank)
    batches = []
    for i in order:
        size = len(batches[-1]) + 1 if batches else 0  # with row i, the longest
        if not batches or size > rows or size * (len(prompts[i]) + run.cfg.max_tokens) > longest:
            batches.append([])
        batches[-1].append(i)
    return batches


def starts_of(batches: list[list]) -> list[int]:
    """The place of each batch's first row among all rows."""
    return list(itertools.accumulate(map(len, batches), initial=0))[:-1]


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
        whole = continuous(model) and room.continuous is not False
        size = len(prompts) if whole else room.sequences
        torch.manual_seed(seed)
        for start in range(0, len(prompts), size):
            rows += sample(prompts[start : start + size], seed)
        return rows

    while (rows := attempt(in_parts)) is None:
        now = min(room.sequences, len(prompts))
        if now == 1:
            raise UserError("memory ran out while one sequence was generated; lower --max-tokens")
        room.sequences = now // 2
        print(f"memory ran out with {now} sequences at once: going on with {now // 2}")
    return rows
