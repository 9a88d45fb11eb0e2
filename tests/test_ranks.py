"""Two processes (torchrun, gloo) are one: the gradient, the rollouts, and one that talks."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import warm
from toys import (
    HERE,
    CoinGrader,
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

import kit
import sdzero
from kit.errors import UserError

# one start of two processes for all tests; torchrun itself starts those of `bench.py gpu`
TWO_RANKS = """
import sys
sys.path[:0] = {paths!r}
import torch
import warm
import sdzero, test_ranks
from kit import ranks
ranks.start("cpu")
found = [test_ranks.losses_and_gradients(budget) for budget in {budgets!r}]
shared = ranks.shared(list(range(7)), lambda part: [10 * item for item in part])
torch.save((found, shared), {out!r} + str(ranks.rank()))
sys.exit(test_ranks.whole_run({checkpoint!r}, {out!r}))
"""
BUDGETS = [60, 100_000]  # with the second one rank is left without a pass
OPTIONS = """--srt-questions 24 --srt-epochs 2 --distil-questions 8 --eval-questions 4
    --eval-samples 1 --digits 2 --rollout-batch 8 --max-tokens 24 --srt-lr 1e-3"""


def whole_run(checkpoint, out):
    """Both phases on the random model, graded by a coin, as a command; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
        patch.setattr(kit.figures, "figure", lambda folder, results: None)
        return sdzero.main(["--model", checkpoint, *OPTIONS.split(), "--out", out])


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, checkpoint):
    """(what the two printed, where each put what it found, and the run)."""
    folder = tmp_path_factory.mktemp("ranks")
    script, paths = folder / "two.py", [str(HERE), str(HERE / "tests")]
    out = str(folder / "two")
    script.write_text(
        TWO_RANKS.format(paths=paths, budgets=BUDGETS, out=out, checkpoint=checkpoint)
    )
    both = warm.two_ranks(script, cwd=folder)
    assert [done.returncode for done in both] == [0, 0], both[0].stderr[-2000:]
    return both[0].stdout + both[1].stdout, folder


def losses_and_gradients(budget):
    """(loss, gradient) of phase 2 and of phase 1 on a few rows."""
    model, bundle, pairs = random_model(1), plain_run(small(micro_tokens=budget)), rows_of_ids(7)
    samples, teacher = with_teacher(bundle, as_samples(pairs)), random_model(2)
    kl = sdzero.backward_kl(bundle, model, teacher.requires_grad_(False), samples)
    of_kl = gradients(model)
    model.zero_grad()
    nll = sdzero.backward_nll(bundle, model, as_rows(pairs), sum(len(y) for _, y in pairs))
    return [(kl, of_kl), (nll, gradients(model))]


def test_two_ranks_give_the_gradient_of_one(two_ranks):
    for rank in "01":
        found, shared = torch.load(two_ranks[1] / f"two{rank}")
        assert shared == [0, 10, 20, 30, 40, 50, 60]
        for budget, of_two in zip(BUDGETS, found):
            for (loss, gradient), (one, of_one) in zip(of_two, losses_and_gradients(budget)):
                assert loss == pytest.approx(one, rel=1e-5)
                assert relative(gradient, of_one) < 1e-5


def test_a_run_under_two_ranks_is_the_run_of_one(two_ranks, checkpoint, capsys):
    """The first rank writes, the other is silent, and the rollouts are those of one process."""
    printed, folder = two_ranks
    assert whole_run(checkpoint, str(folder / "one")) == 0
    for stdout in (printed, capsys.readouterr().out):
        assert stdout.count("mended %") == 1
    two, one = (json.loads((folder / name / "results.json").read_text()) for name in ("two", "one"))
    assert two["base"] == one["base"] and list(two) == list(one) == ["base", "srt", "sdzero"]
    records = [lines_of(folder / name / "revisions.jsonl") for name in ("two", "one")]
    assert [r["revised_ids"] for r in records[0]] == [r["revised_ids"] for r in records[1]]
    metrics = [lines_of(folder / name / "metrics.jsonl") for name in ("two", "one")]
    assert [m["phase"] for m in metrics[0]] == [m["phase"] for m in metrics[1]]
    totals = [[m[-1][key] for key in ("samples", "trained")] for m in metrics]
    assert totals[0] == totals[1]


# --------------------------------------------------------------------------------------------------
# A GPU, played on a CPU
# --------------------------------------------------------------------------------------------------
@pytest.fixture
def calls(monkeypatch):
    """The calls of a machine with two GPUs, in order, as ("name", argument)."""
    made = []

    def record(name, result=None):
        return lambda *args, **kwargs: made.append((name, *args, *kwargs.items())) or result

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", record("set_device"))
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", record("enable_cudnn_sdp"))
    monkeypatch.setattr(torch.distributed, "init_process_group", record("init_process_group"))
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    yield made
    torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_rank_takes_its_own_card_before_anything_else(monkeypatch, calls, device):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    kit.ranks.start(device)
    assert [name for name, *_ in calls] == ["set_device", "enable_cudnn_sdp", "init_process_group"]
    (_, card), (_, cudnn), (_, backend, (_, patience)) = calls
    assert card == "cuda:1" and cudnn is False and backend == "cpu:gloo,cuda:nccl"
    assert patience > timedelta(days=1)  # a batch of rollouts can take hours
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert kit.loading.device_of(sdzero.Config(device=device)) == "cuda:1"


def test_a_command_takes_its_card_first(monkeypatch, calls):
    """main() of sdzero.py: nothing of a model, a question or a folder comes before."""

    def loads(*args):
        calls.append(("train",))
        raise UserError("stop here")

    monkeypatch.setattr(sdzero, "train", loads)
    monkeypatch.delenv("RANK", raising=False)
    assert sdzero.main(["--device", "cuda"]) == 2
    assert [name for name, *_ in calls] == ["set_device", "enable_cudnn_sdp", "train"]


def test_more_processes_than_cards_are_refused_in_one_line(monkeypatch, calls):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="2 GPU.*--nproc-per-node"):
        kit.ranks.start("auto")
    kit.ranks.start("cpu")
    assert not calls


def test_the_allocator_is_told_before_torch_comes(tmp_path):
    """... unless the user has told it something else."""
    source = "import kit, os, sys; print('torch' in sys.modules, os.environ.get('{}'))"
    name = "PYTORCH_ALLOC_CONF"
    env = {k: v for k, v in os.environ.items() if "ALLOC_CONF" not in k}
    told = []
    for more in ({}, {name: "mine"}, {"PYTORCH_CUDA_ALLOC_CONF": "theirs"}):
        command = [sys.executable, "-c", source.format(name)]
        how = dict(capture_output=True, text=True, cwd=HERE, env=env | more)
        told.append(subprocess.run(command, **how).stdout.split()[1])
    assert told == [
        "expandable_segments:True" if sys.platform == "linux" else "None",
        "mine",
        "None",
    ]
