"""The machine room: what makes a run robust and fast, and what surrounds the method: its options'
sums, its data. No equation of the paper stands here alone.

    errors       UserError: what the user can mend, said in one line
    late         torch, imported when it is first used
    options      a dataclass as a command line
    recipes      the paper's settings and the authors' code's, with their tables
    presets      which models are of the embedded model's family
    budget       questions and responses of a run, with and without --samples
    clock        time left, at the speed that was measured
    sizes        a model's sizes, from its config.json
    hours        hours of a run, from a card's data sheet
    plan_page    what --plan prints
    schedules    learning rates, rounds and synchronisations
    seeds        seeds that depend on nothing before them
    hub          is the hub there?
    rows         files of rows: .jsonl, .json, .csv, .parquet, packed, in folders
    journal      rollouts of what is only measured, so that it can go on
    hub_data     the paper's training sets: which of their rows are questions
    countdown    numbers and a target, generated (the paper's App. G)
    gym          --task gym:NAME, the data sets of reasoning-gym
    benchmarks   the paper's eight benchmarks, and what their rows look like
    overlap      do training questions stand in a benchmark?
    questions    where questions come from: generated, a local file, the hub
    shots        --shots: solved questions in front of the others
    rewards      the verifier of a task, or --reward
    gguf_files   a .gguf file is looked through once
    loading      a model and its tokenizer, and what identifies them
    sampling     batches, out of memory, the journal of rollouts
    prefixes     what many rows begin with, computed once
    continuous   continuous batching on a GPU, and what it does wrong beside training
    tokens       ids and texts of tokens, and what chat templates are given
    selection    which revisions are trained on where there are too many
    trimming     cleaning of what phase 1 sampled
    losses       per-token losses in chunks, the fast KL, passes that fit in memory
    adapters     --lora: low-rank adapters, by peft
    low_bits     bfloat16 weights that learn, and an optimiser for them
    memory_plan  what a run needs in memory, from the model's config.json alone
    gpu          what a GPU is told before its first tensor
    offload      slices of states that go to the GPU and back, while it calculates
    on_host      a teacher whose layers come to the GPU as it reads
    alarms       warnings that save a day
    ranks        several processes (torchrun)
    shards       --shard: moments and low halves on one rank each
    files        files that a kill leaves whole
    ownership    a run owns only what it made
    run_folder   what a run writes, and how it goes on after a kill
    tables       tables and intervals
    figures      figures
    trackers     --track: the same numbers in tensorboard, wandb or trackio
    shades       colours of tokens, on a page and in a terminal
    disagreement what phase 2 shows of a step: entropy, and --show-every's answer
    token_page   a page of answers with coloured tokens
    token_picture  one answer with coloured tokens, as SVG or PNG

A room is imported when it is first used (`kit.losses.token_loss`), so that `--help` does not wait
for torch.
"""

import importlib
import os
import sys
from pathlib import Path

# Rollouts and training passes take turns in blocks of ever other sizes: without this a GPU's memory
# falls to pieces. Read by torch when it is imported; there is no such thing on Windows.
if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

ROOMS = {file.stem for file in Path(__file__).parent.glob("*.py")} - {"__init__"}


def __getattr__(name: str):
    if name in ROOMS:
        return importlib.import_module(f"kit.{name}")
    raise AttributeError(f"module 'kit' has no room {name!r}")
