"""Two processes (torchrun, gloo) are one: the gradient, the rollouts, and one that talks."""

import json
import os
import subprocess
import sys

import pytest
import torch
from toys import (
    HERE,
    as_rows,
    as_samples,
    gradients,
    lines_of,
    plain_run,
    random_model,
    relative,
    rows_of_ids,
    small,
    with_teacher,
)

import sdzero

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
TWO_RANKS = """
import sys
sys.path[:0] = {paths!r}
import torch
import torch.distributed as dist
import test_ranks
from kit import ranks
dist.init_process_group("gloo")
found = [test_ranks.losses_and_gradients(budget) for budget in {budgets!r}]
shared = ranks.shared(list(range(7)), lambda part: [10 * item for item in part])
torch.save((found, shared), {out!r} + str(ranks.rank()))
ranks.leave_together()
"""
BUDGETS = [60, 100_000]  # with the second one rank is left without a pass


def run(words, **how):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, **how)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def losses_and_gradients(budget):
    """(loss, gradient) of phase 2 and of phase 1 on a few rows."""
    model, bundle, pairs = random_model(1), plain_run(small(micro_tokens=budget)), rows_of_ids(7)
    samples, teacher = with_teacher(bundle, as_samples(pairs)), random_model(2)
    kl = sdzero.backward_kl(bundle, model, teacher.requires_grad_(False), samples)
    of_kl = gradients(model)
    model.zero_grad()
    nll = sdzero.backward_nll(bundle, model, as_rows(pairs), sum(len(y) for _, y in pairs))
    return [(kl, of_kl), (nll, gradients(model))]


def test_two_ranks_give_the_gradient_of_one(tmp_path):
    script, paths = tmp_path / "two.py", [str(HERE), str(HERE / "tests")]
    text = TWO_RANKS.format(paths=paths, budgets=BUDGETS, out=str(tmp_path / "rank"))
    script.write_text(text)
    run([*TORCHRUN, script], cwd=HERE)
    for rank in "01":
        found, shared = torch.load(tmp_path / f"rank{rank}")
        assert shared == [0, 10, 20, 30, 40, 50, 60]
        for budget, of_two in zip(BUDGETS, found):
            for (loss, gradient), (one, of_one) in zip(of_two, losses_and_gradients(budget)):
                assert loss == pytest.approx(one, rel=1e-5)
                assert relative(gradient, of_one) < 1e-5


def test_a_run_under_two_ranks_is_the_run_of_one(tmp_path):
    """The first rank writes, the other is silent, and the rollouts are those of one process."""
    options = """--srt-questions 24 --srt-epochs 2 --distil-questions 8 --eval-questions 4
        --eval-samples 1 --digits 2 --rollout-batch 8 --max-tokens 60"""
    words = [HERE / "sdzero.py", *options.split(), "--out"]
    for name, launcher in (("two", TORCHRUN), ("one", [])):
        done = run([*launcher, *words, tmp_path / name], cwd=tmp_path)
        assert done.stdout.count("mended %") == 1
    two, one = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("two", "one")
    )
    assert two["base"] == one["base"] and list(two) == list(one) == ["base", "srt", "sdzero"]
    records = [lines_of(tmp_path / name / "revisions.jsonl") for name in ("two", "one")]
    assert [r["revised_ids"] for r in records[0]] == [r["revised_ids"] for r in records[1]]
    metrics = [lines_of(tmp_path / name / "metrics.jsonl") for name in ("two", "one")]
    assert [m["phase"] for m in metrics[0]] == [m["phase"] for m in metrics[1]]
    totals = [[m[-1][key] for key in ("samples", "trained")] for m in metrics]
    assert totals[0] == totals[1]
