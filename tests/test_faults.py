"""Whole runs through faults: they end with the results that they have without."""

import json
import os

import pytest
import torch
from test_losses import FailAbove
from toys import addition, lines_of, plain_run, random_model, small, train

import sdzero
import verify

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def fails_above(monkeypatch, tokens: int, rows: int):
    """From here on models lack memory for longer backward passes and for more rows at once."""
    load, generate = sdzero.kit.loading.load_model, type(random_model()).generate

    def load_failing(cfg):
        model = load(cfg)
        # only where there is a gradient: a pass without needs far less
        model.model.layers[1].register_forward_hook(
            lambda module, args, out: FailAbove.apply(out, tokens, NO_MEMORY)
        )
        return model

    def generate_failing(self, input_ids, **kwargs):
        if len(input_ids) > rows:
            raise NO_MEMORY
        return generate(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(sdzero.kit.loading, "load_model", load_failing)
    monkeypatch.setattr(type(random_model()), "generate", generate_failing)


def test_a_run_that_lacks_memory_ends_with_the_same_results(
    tmp_path, checkpoint, coin, monkeypatch, capsys
):
    """In rollouts, and in the backward passes of both phases."""
    how = dict(micro_tokens=400, temperature=1e-3)  # samples do not hang on who is in a batch
    found = []
    for fault in (False, True):
        if fault:
            fails_above(monkeypatch, tokens=90, rows=4)
        folder = tmp_path / str(fault)
        train(small(checkpoint, out=str(folder), **how))
        results = json.loads((folder / "results.json").read_text())
        steps = [line for line in lines_of(folder / "metrics.jsonl") if "loss" in line]
        found.append((results, steps, capsys.readouterr().out))
    (whole, steps, said), (short, short_steps, short_said) = found
    assert "memory ran out" not in said and "with --micro-tokens" in short_said
    assert "sequences at once: going on with" in short_said and short == whole
    assert {step["phase"] for step in steps} == {"srt", "distil"}
    for one, other in zip(steps, short_steps, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_rewards_are_the_same_where_a_worker_of_the_grader_dies(monkeypatch, tokenizer, model):
    answers = [r"\boxed{\frac{2}{4}}", r"\boxed{\frac{2}{5}}", r"\boxed{\sqrt{8}}"] * 2
    ids = [tokenizer.encode(text, add_special_tokens=False) + [2] for text in answers]
    questions = [{**addition(1, 2), "answer": r"\frac{1}{2}"}] * 6
    monkeypatch.setattr(sdzero, "generate", lambda *args, **kwargs: ids)
    with verify.Grader("math", workers=1) as grader:
        run = plain_run(small(), end_ids=[2])
        run.tokenizer, run.grader = tokenizer, grader
        found = []
        for _ in range(2):
            samples = sdzero.rollouts(run, model, questions, [[5]] * 6, 0)
            found.append([sample["reward"] for sample in samples])
            os.kill(grader.pool.idle.queue[0].process.pid, 9)
    assert found[0] == found[1] == [1.0, 0.0, 0.0] * 2 and grader.timeouts == 0
