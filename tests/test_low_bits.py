"""bfloat16 weights that lose nothing, and the optimiser that learns with them."""

import contextlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from toys import new_folder, random_model, relative, small, train
from transformers import AutoModelForCausalLM

import kit
import sdzero
from kit.low_bits import (
    SplitAdamW,
    adamw,
    copy_weights,
    exact,
    put_weights,
    split_weights,
    take_halves,
)
from sdzero import Config


def one_weight(values):
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(values.clone())
    module.config = SimpleNamespace()
    return module


def test_split_weights_lose_nothing():
    torch.manual_seed(0)
    anything = torch.randint(-(2**31), 2**31 - 1, (200_000,), dtype=torch.int64)
    # zeros, denormals, the largest
    edges = [0, -(2**31), 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F7F8000 - 1, -0x7FFFFFFF]
    grid = torch.arange(0x3F7F0000, 0x3F810000, 0x4000)  # 0x...8000 lies half-way between two
    bits = torch.cat([anything, torch.tensor(edges), grid]).to(torch.int32)
    w = bits.view(torch.float32)
    w = torch.cat([w[w.isfinite()], torch.randn(1000), -torch.randn(1000) * 1e-3])
    module = one_weight(w)
    split_weights(module)
    assert module.w.dtype == torch.bfloat16 and module.w.low_bits.element_size() == 2
    assert torch.equal(exact(module.w).view(torch.int32), w.view(torch.int32))
    close = w.abs() < 1e38
    error = (module.w.detach().float() - w)[close].abs()
    assert (error <= w[close].abs() * 2**-7 + 1e-40).all()  # to one of two neighbours


@pytest.mark.parametrize("start", ["on the grid", "half-way", "anywhere"])
def test_rounded_weights_follow_small_steps_on_average(start):
    """Wherever weights start between two bfloat16, one step of 5e-6 moves the rounded ones by 5e-6
    on average."""
    torch.manual_seed(0)
    w = 0.5 + torch.rand(400_000) / 2  # two neighbouring bfloat16 are 2**-8 apart here
    if start != "anywhere":
        bits = w.view(torch.int32).bitwise_and(-(2**16))
        w = bits.bitwise_or(0x8000 if start == "half-way" else 0).view(torch.float32)
    module = one_weight(w)
    split_weights(module)
    before = module.w.detach().float()
    module.w.grad = -torch.ones_like(module.w)
    adamw(module, 5e-6, 0.0, Config()).step()
    moved = module.w.detach().float() - before
    assert moved.mean() == pytest.approx(5e-6, rel=0.25)
    assert 0 < (moved != 0).float().mean() < 0.01


def test_small_steps_count_in_bfloat16():
    """30 steps at 5e-6: on split weights they add up as in fp32; in plain bfloat16 most weights
    never move."""
    torch.manual_seed(0)
    start = 0.02 * torch.randn(5000)
    split, full, plain = map(one_weight, (start, start, start.to(torch.bfloat16)))
    split_weights(split)
    how = dict(lr=5e-6, betas=(0.9, 0.95), weight_decay=0.01)
    optimizers = [
        adamw(split, 5e-6, 0.01, Config()),
        adamw(full, 5e-6, 0.01, Config()),
        torch.optim.AdamW(plain.parameters(), **how),
    ]
    assert isinstance(optimizers[0], SplitAdamW) and type(optimizers[1]) is torch.optim.AdamW
    drift = torch.randn(5000)
    for _ in range(30):
        gradient = (drift + torch.randn(5000)).to(torch.bfloat16)
        for module, optimizer in zip((split, full, plain), optimizers):
            module.w.grad = gradient.to(module.w.dtype)
            optimizer.step()
    moved = full.w.detach() - start
    assert torch.allclose(exact(split.w), full.w.detach(), rtol=0, atol=1e-7)
    assert relative(exact(split.w) - start, moved) < 1e-3
    assert (plain.w.detach() != start.to(torch.bfloat16)).float().mean() < 0.3


def walk(cfg, dtype, steps=40):
    """Weights after noisy steps of 1e-3, as fp32."""
    torch.manual_seed(0)
    module = one_weight(0.02 * torch.randn(30, 100))
    drift = torch.randn(30, 100)
    if dtype == torch.bfloat16:
        split_weights(module)
    optimizer = adamw(module, 1e-3, 0.01, cfg)
    for _ in range(steps):
        module.w.grad = (drift + torch.randn(30, 100)).to(dtype)
        optimizer.step()
    return exact(module.w)


def test_bfloat16_moments_and_offload_walk_the_same_way():
    start, full = walk(Config(), torch.float32, 0), walk(Config(), torch.float32)
    rough = Config(moments="bfloat16")
    assert relative(walk(Config(offload=True), torch.float32) - start, full - start) < 1e-4
    assert relative(walk(rough, torch.float32) - start, full - start) < 0.01
    split = walk(Config(), torch.bfloat16)
    assert torch.equal(split, walk(Config(offload=True), torch.bfloat16))
    assert relative(walk(rough, torch.bfloat16) - start, split - start) < 0.01


class Stream:
    """A CUDA stream that is as lazy as it may be: it copies when an event is waited for."""

    log, current = [], None

    def __init__(self, device=None):
        self.todo = []

    def record_event(self):
        return SimpleNamespace(synchronize=partial(self.run, len(self.todo)))

    def run(self, upto):
        for i, copy in enumerate(self.todo[:upto]):
            if copy:
                copy()
                self.todo[i] = None

    def wait_event(self, event):
        event.synchronize()

    def wait_stream(self, stream):
        self.log.append("waits for the calculation")


@pytest.fixture
def streams(monkeypatch):
    """A GPU's streams, on a CPU, and slices of 700 numbers."""
    main, empty = Stream(), torch.empty

    @contextlib.contextmanager
    def within(stream):
        Stream.current = stream
        yield
        Stream.current = None

    def copy(target, source):
        Stream.log.append("copies")
        Stream.current.todo.append(lambda: target.copy_(source))

    def unpinned(*size, pin_memory=False, **how):
        return empty(*size, **how)

    def ferries(self, group, device):
        self.ferry = self.ferry or (kit.offload.Ferry(device) if group["offload"] else None)
        return group["offload"]

    Stream.log.clear()
    for name, fake in (("Stream", Stream), ("stream", within), ("current_stream", lambda _: main)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch, "empty", unpinned)
    monkeypatch.setattr(kit.offload, "copy", copy)
    monkeypatch.setattr(SplitAdamW, "ferries", ferries)
    monkeypatch.setattr(kit.low_bits, "SLICE", 700)
    kit.low_bits.thresholds.cache_clear()
    yield Stream.log
    kit.low_bits.thresholds.cache_clear()


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offloaded_states_come_and_go_without_mixing_up(streams, moments, dtype):
    """Through two lanes whose copies happen as late as their events allow: the same bits."""
    cfg = Config(moments=moments, offload=True)
    ferried = walk(cfg, dtype, steps=6)
    copies = len(streams)
    assert copies > 6 * 5 * 2  # in and out, of five slices
    assert streams[::-1].index("copies") < streams[::-1].index("waits for the calculation")
    kept = walk(replace(cfg, offload=False), dtype, steps=6)
    assert len(streams) == copies and (dtype is torch.bfloat16) <= torch.equal(ferried, kept)
    assert torch.allclose(ferried, kept, atol=1e-7)


def test_the_next_slice_is_on_its_way_while_one_is_calculated(streams):
    ferry, order = kit.offload.Ferry("cpu"), []
    slices = [[torch.full((3,), float(i))] for i in range(4)]

    def work(i, kept):
        order.append((i, len(ferry.lanes[0].stream.todo)))
        return [kept[0] + 10]

    ferry.carry(slices, work)
    assert [part[0].tolist() for part in slices] == [[10.0 + i] * 3 for i in range(4)]
    # copies begun when slice 0, 1, 2, 3 is calculated: it and the next one in, those before out
    assert order == [(0, 2), (1, 4), (2, 6), (3, 7)]


def test_a_gpus_larger_slices_round_as_small_ones(monkeypatch):
    """A weight's threshold depends on its place alone."""
    w = torch.randn(8 * 64)
    monkeypatch.setattr(kit.low_bits, "SLICE", 64)
    thresholds = kit.low_bits.thresholds.__wrapped__
    monkeypatch.setattr(kit.low_bits, "thresholds", thresholds)
    small_slices = [kit.low_bits.split(part) for part in w.split(64)]
    monkeypatch.setattr(kit.low_bits, "slice_on", lambda device: 8 * 64)
    high, low = kit.low_bits.split(w)
    assert torch.equal(high, torch.cat([h for h, _ in small_slices]))
    assert torch.equal(kit.low_bits.join(high, low), w)


@pytest.mark.parametrize("low_precision", [False, True])
def test_weights_are_put_back_exactly(low_precision):
    """What iterated RFT starts each round from."""
    model = random_model()
    if low_precision:
        split_weights(model)
    before, saved = [exact(p).clone() for p in model.parameters()], copy_weights(model)
    for _ in range(2):
        optimizer = adamw(model, 1e-2, 0.0, small())
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        sdzero.update(model, optimizer, 1e-2, 1.0)
        assert not any(torch.equal(exact(p), w) for p, w in zip(model.parameters(), before))
        put_weights(model, saved)
        assert all(torch.equal(exact(p), w) for p, w in zip(model.parameters(), before))


def on_meta(model):
    """The model somewhere else than in CPU memory, as on a GPU; its low halves stay where they
    are."""
    halves, model = take_halves(model), model.to("meta")
    model.tie_weights()
    for p, half in zip(model.parameters(), halves):
        p.low_bits = half
    return model


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
@pytest.mark.parametrize("offload", [True, False])
def test_a_resumed_run_keeps_offloaded_states_in_cpu_memory(tmp_path, offload):
    model, cfg = random_model(), small(offload=offload)
    split_weights(model)
    optimizer = adamw(model, 1e-2, 0.0, cfg)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    sdzero.update(model, optimizer, 1e-2, 1.0)
    new_folder(tmp_path / "run").save_state("srt", 1, model, optimizer)
    again, folder = on_meta(model), new_folder(tmp_path / "run")
    optimizer = adamw(again, 1e-2, 0.0, cfg)
    assert folder.restore(again, optimizer) == 1
    place = "cpu" if offload else "meta"
    for p in again.parameters():
        p.grad = torch.ones_like(p)
        parts = optimizer.parts_of(p, optimizer.param_groups[0])
        assert {kept.device.type for part in parts for kept in part.kept} == {place}


def test_weights_that_are_put_back_leave_their_halves_where_they_were():
    model = random_model()
    split_weights(model)
    saved = copy_weights(model)
    for p in model.parameters():
        p.low_bits = p.low_bits.to(
            "meta"
        )  # another device, as CPU memory is beside a GPU's weights
    put_weights(model, saved)
    assert {p.low_bits.device.type for p in model.parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_what_shares_the_cpus_memory_offloads_nothing():
    """mps: its states are where its weights are."""
    weight = SimpleNamespace(device=torch.device("mps"), dtype=torch.bfloat16, requires_grad=True)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit.low_bits, "SplitAdamW", lambda groups, **_: made.append(groups[0]))
        adamw(SimpleNamespace(parameters=lambda: [weight]), 1e-3, 0.0, Config(offload=True))
    assert made[0]["offload"] is False


@pytest.mark.parametrize(
    "changes",
    [
        dict(dtype="bfloat16"),
        dict(gradient_checkpointing=True),
        dict(dtype="bfloat16", gradient_checkpointing=True, sync_every=2),
        dict(dtype="bfloat16", moments="bfloat16", offload=True),
    ],
    ids=["bf16", "checkpointing", "both", "moments"],
)
def test_precision_and_memory_options_run_both_phases(tmp_path, checkpoint, coin, changes):
    before = AutoModelForCausalLM.from_pretrained(checkpoint)
    results = train(small(checkpoint, out=str(tmp_path / "run"), **changes))
    assert set(results) == {"base", "srt", "sdzero"}
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "sdzero")
    assert after.dtype == (torch.bfloat16 if "dtype" in changes else torch.float32)
    pairs = list(zip(after.parameters(), before.parameters()))
    assert all(a.isfinite().all() for a, _ in pairs)
    assert any(not torch.equal(a.float(), b) for a, b in pairs)


def test_the_thresholds_are_the_same_in_every_process():
    """Student and teacher, and all ranks, round alike."""
    values = kit.low_bits.thresholds(torch.device("cpu"))
    assert values.min() >= 1 and values.max() <= 65535
    again = kit.low_bits.thresholds.__wrapped__(torch.device("cpu"))
    assert torch.equal(values, again)
