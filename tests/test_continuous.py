"""Continuous batching beside training, on a CPU: the same answers, nothing left behind, and faults
that are called what they are."""

import gc
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import transformers
from toys import as_rows, gradients, plain_run, random_model, rows_of_ids, small
from transformers.generation.continuous_batching import PagedAttentionCache, continuous_api
from transformers.generation.continuous_batching import distributed as cb_distributed

import kit
import sdzero
from kit.errors import UserError

PROMPTS = [c for c, _ in rows_of_ids(6, seed=3, context=(1, 40))]
Manager = continuous_api.ContinuousBatchingManager


def use_a_little_cache(monkeypatch, blocks=32):
    settings = kit.continuous.settings

    def with_a_little_cache(*args):
        found = settings(*args)
        found.num_blocks, found.page_size = blocks, 16
        return found

    monkeypatch.setattr(kit.continuous, "settings", with_a_little_cache)


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """transformers collects garbage twice a call: not all that torch has imported each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def on_gpu(monkeypatch):
    """As on a GPU: continuous batching, with a small cache."""
    monkeypatch.setattr(kit.sampling, "continuous", lambda model: True)
    use_a_little_cache(monkeypatch)


def bundle(**changes):
    cfg = small(**{"max_tokens": 12, **changes})
    return replace(plain_run(cfg, end_ids=[2, 150]), room=kit.losses.Room(64, 2048))


def greedy(run, model, prompts=PROMPTS):
    return sdzero.generate(run, model, prompts, 0, greedy=True)


def plain_greedy(model, prompts=PROMPTS, **changes):
    """What generate() answers, a prompt at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit.sampling, "continuous", lambda model: False)
        return greedy(bundle(**changes), model, prompts)


# --------------------------------------------------------------------------------------------------
# Beside training
# --------------------------------------------------------------------------------------------------
def test_the_same_greedy_answers_and_other_samples_for_another_seed(on_gpu, model):
    run, expected = bundle(), plain_greedy(model)
    assert greedy(run, model) == expected and run.room.continuous
    one, again, two = (sdzero.generate(run, model, PROMPTS, seed) for seed in (1, 1, 2))
    assert one == again and one != expected and one != two


def test_training_goes_on_as_if_there_had_been_no_rollouts(on_gpu):
    """Attention that knows no pages, as it was; and the next rollouts see the new weights."""
    found = []
    for sampled in (False, True):
        model = random_model(1)
        model.set_attn_implementation("eager")  # for which continuous batching takes another one
        if sampled:
            greedy(bundle(), model)
        assert model.config._attn_implementation == "eager"
        model.train()
        loss = sdzero.backward_nll(bundle(), model, as_rows(rows_of_ids(7)), 9)
        found.append((loss, gradients(model)))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    before = greedy(bundle(), model)
    with torch.no_grad():
        model.lm_head.weight.copy_(random_model(2).lm_head.weight)
    assert before != greedy(bundle(), model) == plain_greedy(model)


def test_samples_do_not_depend_on_when_requests_arrive(on_gpu, monkeypatch, model):
    """Handed to a thread that samples already, they would: 7 of 16 rows came out the same."""
    expected = sdzero.generate(bundle(), model, PROMPTS, 5)
    add = Manager.add_request

    def late(self, *args, **kwargs):
        time.sleep(0.03)
        return add(self, *args, **kwargs)

    monkeypatch.setattr(Manager, "add_request", late)
    assert sdzero.generate(bundle(), model, PROMPTS, 5) == expected


def test_samples_do_not_depend_on_the_rank_that_draws_them(on_gpu, monkeypatch, model):
    """transformers adds the rank to the seed."""
    config = transformers.GenerationConfig(
        max_new_tokens=12, do_sample=True, top_k=0, eos_token_id=2, pad_token_id=2
    )
    generated = partial(kit.continuous.generated, model, config, 64, PROMPTS, 5)
    expected = generated()
    monkeypatch.setattr(cb_distributed, "_is_torch_distributed_initialized", lambda: True)
    for name, value in (("is_initialized", True), ("get_rank", 3), ("get_world_size", 4)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    assert generated() == expected


def test_ctrl_c_does_not_wait_for_the_rows_at_work(on_gpu, monkeypatch, model):
    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Manager, "get_result", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        sdzero.generate(bundle(max_tokens=450, temperature=1e6), model, PROMPTS, 0)
    assert threading.active_count() == before
    assert model.config._attn_implementation == "sdpa"


def test_a_flash_kernel_is_used_in_half_precision_alone(monkeypatch):
    """It knows no fp32, so --dtype float32 keeps its attention; and the first lines say which."""
    from transformers.utils import import_utils

    model, half = random_model(), random_model(dtype=torch.bfloat16)
    none, described = "NO FLASH KERNEL", kit.continuous.described
    assert none in described(model) and none in described(half) and "sdpa" in described(half)
    assert kit.continuous.at_once(half) == 64
    monkeypatch.setattr(import_utils, "is_flash_attn_2_available", lambda kernels_fallback_ok: True)
    assert none in described(model)
    assert described(half) == "continuous batching with flash_attention_2"
    assert kit.continuous.at_once(half) == 256
    assert kit.sampling.engine(model) == "batches sorted by length with sdpa attention"


# --------------------------------------------------------------------------------------------------
# Faults
# --------------------------------------------------------------------------------------------------
NO_ROOM = {
    "its cache": MemoryError("Memory footprint 9 is more than available memory 8"),
    "its pages": ValueError("Invalid values: max_batch_tokens = 256, num_sectors = -3"),
    "the GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
}


def cache_fails(monkeypatch, error, above=0):
    """The cache of more than `above` requests raises error, in the thread that makes it."""
    init, asked = PagedAttentionCache.__init__, []

    def failing(self, config, continuous_batching_config, *args, **kwargs):
        asked.append(continuous_batching_config.max_requests_per_batch)
        if asked[-1] > above:
            raise error
        init(self, config, continuous_batching_config, *args, **kwargs)

    monkeypatch.setattr(PagedAttentionCache, "__init__", failing)
    return asked


@pytest.mark.parametrize("error", NO_ROOM)
def test_a_lack_of_memory_halves_the_requests(on_gpu, monkeypatch, capsys, model, error):
    asked, run = cache_fails(monkeypatch, NO_ROOM[error], above=2), bundle()
    assert greedy(run, model) == plain_greedy(model)
    assert asked == [64, 3, 1] and run.room.sequences == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("memory ran out" in line for line in lines)


def test_a_request_that_the_whole_cache_does_not_hold_is_said_in_one_line(monkeypatch, model):
    monkeypatch.setattr(kit.sampling, "continuous", lambda model: True)
    use_a_little_cache(monkeypatch, blocks=2)
    run = bundle()
    with pytest.raises(UserError, match="--max-tokens"):
        greedy(run, model, [[5] * 60])
    assert greedy(run, model, [[5] * 9]) == plain_greedy(model, [[5] * 9])


def test_where_it_cannot_run_generate_takes_over_with_one_line(on_gpu, monkeypatch, capsys, model):
    asked = cache_fails(monkeypatch, TypeError("no such keyword\nmore"))
    run = bundle()
    expected = plain_greedy(model)
    assert greedy(run, model) == expected and greedy(run, model) == expected
    out = capsys.readouterr().out
    assert asked == [64] and out.count("\n") == 1  # it is not tried again
    assert "TypeError: no such keyword" in out and "memory" not in out
    # whose own lack of memory is met as ever
    real, sizes = type(model).generate, []

    def failing(self, input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 3:
            raise NO_ROOM["the GPU"]
        return real(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model), "generate", failing)
    assert greedy(run, model) == expected and sizes == [6, 3, 3]


def test_an_error_once_it_has_worked_is_raised_as_what_it_is(on_gpu, monkeypatch, model):
    run = bundle()
    greedy(run, model)
    before = threading.active_count()
    for error in (TypeError("a bug"), RuntimeError("CUDA error: an illegal memory access")):
        with monkeypatch.context() as patch:
            cache_fails(patch, error)
            with pytest.raises(type(error), match=str(error)):
                greedy(run, model)
    assert run.room.sequences == 64 and threading.active_count() == before
    with monkeypatch.context() as patch:  # a request that its thread drops

        def drop(self, request_id):
            self.active_requests[request_id].error = "lost"

        patch.setattr(continuous_api.Scheduler, "finish_request", drop)
        patch.setattr(Manager, "is_running", lambda self: False)
        patch.setattr(Manager, "get_result", lambda self, timeout: None)
        with pytest.raises(RuntimeError, match="6 of 6 requests have no answer"):
            greedy(run, model)


# --------------------------------------------------------------------------------------------------
# Which rows go together
# --------------------------------------------------------------------------------------------------
def sizes_of(prompts, **changes):
    run = plain_run(small(max_tokens=88, **changes))
    batches = kit.sampling.batches_of(run, random_model(), prompts)
    assert sorted(i for batch in batches for i in batch) == list(range(len(prompts)))
    return [len(batch) for batch in batches]


def test_a_batch_has_fewer_rows_where_prompts_are_longer(monkeypatch):
    short, long = [[5] * 40] * 100, [[5] * 1112] * 70  # 88 more tokens: 128, and twice 600
    assert sizes_of(short) == [64, 36] and sizes_of(short, rollout_batch=30) == [30, 30, 30, 10]
    assert sizes_of(long) == [32, 32, 6] and sizes_of(long, rollout_batch=1) == [1] * 70
    assert sizes_of(short + long) == [64, 36, 32, 32, 6]
    monkeypatch.setattr(kit.sampling, "continuous", lambda model: True)
    assert sizes_of(long, rollout_batch=10) == [40, 30]  # it counts its pages itself


def test_every_rank_has_work(monkeypatch):
    monkeypatch.setattr(kit.ranks, "world", lambda: 4)
    prompts = [[5] * 9] * 50
    assert sizes_of(prompts) == [13, 13, 13, 11]
    assert sizes_of(prompts, rollout_batch=30) == [30, 20]  # asked for: the samples of one process
    monkeypatch.setattr(kit.sampling, "continuous", lambda model: True)
    assert sizes_of(prompts) == sizes_of(prompts, rollout_batch=30) == [13, 13, 13, 11]
    assert sizes_of([[5] * 9] * 4000) == [256] * 15 + [160]
