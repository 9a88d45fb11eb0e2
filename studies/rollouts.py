"""How much faster rollouts are where what their prompts have in common is read once."""

import time

import numpy as np

import kit
import sdzero
from kit.late import torch
from studies.steps import random_ids

ONE_BY_ONE = 2.0  # kit.prefixes.SAVED above 1: nothing is shared


def few_shot_prompts(args, vocabulary: int) -> list[list[int]]:
    """`rows` prompts of `prompt` tokens: all begin with the same worked examples, `shared` of their
    tokens, and each stands there `times` times in a row."""
    g = np.random.default_rng(0)
    examples = random_ids(g, vocabulary, args.shared)
    different = [
        examples + random_ids(g, vocabulary, args.prompt - args.shared)
        for _ in range(args.rows // args.times)
    ]
    return sdzero.repeat(different, args.times)


def rollouts(args) -> dict:
    """The same rollouts with and without sharing, in turns; the same ids or not."""
    cfg = sdzero.make_config(
        model=args.model, device="cpu", dtype="float32", max_tokens=args.tokens, temperature=0.7
    )
    tokenizer = kit.loading.load_tokenizer(cfg)
    run, model = sdzero.prepare(cfg, tokenizer, grader=None, questions={})
    prompts, usual = few_shot_prompts(args, len(tokenizer)), kit.prefixes.SAVED
    seconds, found = {"plain": [], "shared": []}, {"plain": [], "shared": []}
    try:
        for i in range(args.repeats):
            for name in seconds:
                kit.prefixes.SAVED = usual if name == "shared" else ONE_BY_ONE
                start = time.perf_counter()
                found[name].append(sdzero.generate(run, model, prompts, seed=i))
                seconds[name].append(time.perf_counter() - start)
    finally:
        kit.prefixes.SAVED = usual
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "rows": len(prompts),
        "prompt_tokens": args.prompt,
        "shared_tokens": args.shared,
        "copies_of_a_prompt": args.times,
        "answer_tokens": args.tokens,
        "threads": torch.get_num_threads(),
        "same_ids": found["plain"] == found["shared"],
        "seconds": medians,
        "times_as_fast": medians["plain"] / medians["shared"],
        "runs": seconds,
    }
