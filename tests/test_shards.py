"""--shard: two ranks (torchrun, gloo) that share out states end as one process does."""

import pytest
import torch
import warm
from toys import (
    HERE,
    as_rows,
    fingerprint,
    message_of,
    plain_run,
    random_model,
    relative,
    rows_of_ids,
    small,
    weights_of,
)

import baselines
import sdzero
from kit.low_bits import adamw, exact, split_weights
from kit.run_folder import RunFolder
from sdzero import make_config

KINDS = {
    "fp32": dict(dtype="float32"),
    "split": dict(dtype="bfloat16", offload=True),
}
SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import torch
import warm
import torch.distributed as dist
import test_shards
from kit import ranks
dist.init_process_group("gloo")
torch.save(test_shards.on_this_rank({folder!r}), {folder!r} + "/rank" + str(ranks.rank()))
ranks.leave_together()
"""
STEPS, HALFWAY = 4, 2
# how far two ranks end from one process: they add up gradients in another order, in bfloat16 too
CLOSE = {"fp32": 1e-4, "split": 0.1}


def train(folder, kind, shard, until=STEPS, phase="srt"):
    """Steps on a few rows, from the state in `folder` on, or from the start; the state then saved.
    Returns (model, optimiser)."""
    cfg = small(shard=shard, **KINDS[kind])
    model, rows = random_model(), as_rows(rows_of_ids(9))
    if cfg.dtype == "bfloat16":
        split_weights(model)
    run = RunFolder(str(folder), {}, {}, save_every=100)
    optimizer = adamw(model, 1e-2, 0.01, cfg)
    first = run.restore(model, optimizer) if run.saved else 0
    for _ in range(first, until):
        sdzero.backward_nll(plain_run(cfg), model, rows, 40)
        sdzero.update(model, optimizer, 1e-2, 1.0)
    run.save_state(phase, until, model, optimizer)
    if run.writes:
        run.locked.close()
    return model, optimizer


def weights(saved: dict):
    """All weights of a saved state, in fp32."""
    flat, names = [], [name for name, _ in random_model().named_parameters()]
    for name, low in zip(names, saved["low_bits"]):
        weight = saved["model"][name]
        if low is not None:
            weight.low_bits = low
        flat.append(exact(weight).flatten())
    return torch.cat(flat)


def on_this_rank(folder) -> dict:
    """What both ranks do, sharded and not; its results."""
    found = {}
    for kind in KINDS:
        model, optimizer = train(f"{folder}/whole-{kind}", kind, shard=True)
        unshared = train(f"{folder}/unshared-{kind}", kind, shard=False)[0]
        train(f"{folder}/two-then-one-{kind}", kind, shard=True, until=HALFWAY)
        train(f"{folder}/one-then-two-{kind}", kind, shard=True)
        halves = [getattr(p, "low_bits", None) for p in model.parameters()]
        found[kind] = {
            "moments": sum(s["exp_avg"].numel() for s in optimizer.optim.state.values()),
            "halves": sum(low.numel() for low in halves if low is not None),
            "weights": fingerprint(model),
            "unshared": fingerprint(unshared),
        }
    return found


def state_of(folder) -> dict:
    return torch.load(folder / "state" / "latest.pt")


def test_two_ranks_with_half_the_states_each_end_as_one_process(tmp_path):
    """... whether they do all steps, or the first or the last half of them."""
    for kind in KINDS:
        train(tmp_path / f"one-then-two-{kind}", kind, shard=False, until=HALFWAY)
        train(tmp_path / f"one-{kind}", kind, shard=False)
    script, paths = tmp_path / "two.py", [str(HERE), str(HERE / "tests")]
    script.write_text(SCRIPT.format(paths=paths, folder=str(tmp_path)))
    for done in warm.two_ranks(script, cwd=HERE):
        assert done.returncode == 0, done.stderr[-2000:]
    ranks = [torch.load(tmp_path / f"rank{r}") for r in range(2)]
    n = sum(p.numel() for p in random_model().parameters())
    start = weights_of(random_model())
    for kind in KINDS:
        for what in ("moments", "halves"):
            shares = [rank[kind][what] for rank in ranks]
            expected = 0 if (kind, what) == ("fp32", "halves") else n
            assert sum(shares) == expected and max(shares) <= 0.6 * expected + 1
        # every rank has the weights, and they are those of ranks that share nothing
        assert len({rank[kind][x] for rank in ranks for x in ("weights", "unshared")}) == 1
        train(tmp_path / f"two-then-one-{kind}", kind, shard=False)
        names = ("one", "whole", "unshared", "two-then-one", "one-then-two")
        states = [state_of(tmp_path / f"{name}-{kind}") for name in names]
        ends = [weights(state) for state in states]
        for name, end in zip(names, ends):
            assert relative(end - start, ends[0] - start) < CLOSE[kind], (kind, name)
        assert torch.equal(ends[1], ends[2])
        for state in states:  # the file does not tell how many ranks wrote it
            assert all(s["step"] == STEPS for s in state["optimizer"])


def test_one_process_has_nothing_to_share_out():
    model = random_model()
    assert type(adamw(model, 1e-3, 0.0, small(shard=True))) is torch.optim.AdamW


def test_shard_without_torchrun_is_one_line(capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    for main, words in ((sdzero.main, []), (baselines.main, ["sft"])):
        message = message_of(capsys, main, *words, "--shard")
        assert "--shard" in message and "torchrun" in message
    assert make_config(shard=True, plan=True).shard  # a plan may be made anywhere
    monkeypatch.setenv("RANK", "0")
    assert make_config(shard=True).shard


def test_a_run_is_the_same_run_with_and_without_shard(monkeypatch):
    from kit.run_folder import options_of

    monkeypatch.setenv("RANK", "0")
    assert options_of(make_config(shard=True)) == options_of(make_config())
    assert options_of(make_config(lora=4)) != options_of(make_config(lora=2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_put_back_to_the_bit_in_one_process(tmp_path, kind):
    train(tmp_path / "parts", kind, shard=False, until=HALFWAY)
    train(tmp_path / "parts", kind, shard=False)
    train(tmp_path / "whole", kind, shard=False)
    ends = [weights(state_of(tmp_path / name)) for name in ("parts", "whole")]
    assert torch.equal(*ends)
