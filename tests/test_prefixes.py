"""What rows begin with alike is computed once, and nothing else changes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import gradients, plain_run, random_model, relative, response_logits, small
from transformers.cache_utils import DynamicLayer

import sdzero
from kit import prefixes
from studies import bench

PAD = 2


def prompts_of(shared: int, rests: list[int], times: int = 1, seed: int = 0) -> list[list[int]]:
    """Prompts that begin with `shared` tokens alike and go on with so many of their own, each of
    them `times` times."""
    g = np.random.default_rng(seed)
    start = g.integers(3, 330, shared).tolist()
    return sdzero.repeat([start + g.integers(3, 330, n).tolist() for n in rests], times)


SHAPES = {
    "one beginning": (40, [3, 3, 3, 3], 1),
    "one beginning, different lengths": (40, [1, 9, 4, 7], 1),
    "each prompt four times": (0, [12, 5, 9], 4),
    "both": (30, [6, 1, 3], 3),
    "all alike": (0, [17], 6),
    "one beginning, and one of them ends there": (30, [0, 5, 2, 4], 1),
    "one token": (0, [1], 5),
}


@pytest.fixture(scope="module")
def models():
    """Rotary positions, with as many key heads as query heads and with fewer."""
    return random_model(num_key_value_heads=4), random_model()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ids_are_those_without_sharing(shape, models, monkeypatch):
    prompts = prompts_of(*SHAPES[shape])
    run = plain_run(small(max_tokens=10))
    for model in models:
        for seed in range(3):
            monkeypatch.setattr(prefixes, "SAVED", 0.0)
            shared = sdzero.generate(run, model, prompts, seed)
            with monkeypatch.context() as patch:
                patch.setattr(prefixes, "can_share", lambda model: False)
                assert shared == sdzero.generate(run, model, prompts, seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_different_token_is_read_once(shape, models, monkeypatch):
    """Those of the cache and those that are left to read. And what the last one gives is what the
    whole model gives for this row alone."""
    monkeypatch.setattr(prefixes, "SAVED", 0.0)
    prompts, model, seen = prompts_of(*SHAPES[shape]), models[1], []
    count = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    with torch.no_grad():
        ids, mask, cache = prefixes.prefilled(model, prompts, PAD)
        start, rests, times = SHAPES[shape]
        held = cache["past_key_values"].get_seq_length()
        assert held == (ids.shape[1] - 1 if times > 1 else prefixes.shared_length(prompts))
        left = ids.shape[1] - held
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -left:]  # (B, left)
        how = {"attention_mask": mask, "position_ids": positions, **cache}
        logits = model(input_ids=ids[:, -left:], **how).logits  # (B, left, V)
    count.remove()
    own = max(rests) if len(rests) > 1 else 0
    longest = max(map(len, prompts)) - 1
    assert sum(seen) - len(prompts) <= max(longest, start + len(rests) * own)
    for row, prompt in enumerate(prompts):
        alone = response_logits(model, prompt, [5])[0]  # what predicts the first token
        torch.testing.assert_close(logits[row, -1], alone, rtol=1e-4, atol=1e-5)


def test_what_saves_little_is_left_alone(models):
    different = prompts_of(0, [9, 8, 7])
    ids, mask, cache = prefixes.prefilled(models[0], different, PAD)
    assert cache["past_key_values"].get_seq_length() == 0
    assert (
        ids.tolist()[2][:3] == [PAD, PAD, different[2][0]] and mask.tolist()[2] == [0, 0] + [1] * 7
    )


def test_a_layer_with_room_holds_what_a_growing_one_holds():
    """Prompts, tokens, rows that are copied or dropped, tokens that are taken back."""
    roomy, growing = prefixes.RoomyLayer(), DynamicLayer()
    generator = torch.Generator().manual_seed(0)
    changes = [
        lambda layer: None,
        lambda layer: layer.batch_repeat_interleave(2),
        lambda layer: layer.crop(-4),
        lambda layer: layer.batch_select_indices(torch.tensor([5, 0])),
        lambda layer: layer.reset(),
    ]
    for change, rows in zip(changes, (3, 6, 6, 2, 4)):
        change(roomy), change(growing)
        for n in (5, *[1] * 2 * prefixes.AHEAD):
            new = torch.randn(2, rows, 4, n, 8, generator=generator)  # (2, B, heads, n, D)
            for held, expected in zip(roomy.update(*new), growing.update(*new)):
                assert torch.equal(held, expected)
        assert roomy.get_seq_length() == growing.get_seq_length()


def test_a_layer_with_room_copies_what_it_holds_once_in_a_while():
    layer, places = prefixes.RoomyLayer(), set()
    for _ in range(3 * prefixes.AHEAD):
        keys, _ = layer.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
        places.add(keys.data_ptr())
    assert len(places) <= 4


def test_models_to_which_padding_between_makes_a_difference_do_not_share():
    """A sliding window counts the padding that would stand between."""

    def told(input_ids, position_ids=None): ...

    def model(forward=told, supported=True, **config):
        text = SimpleNamespace(**config)
        return SimpleNamespace(
            config=SimpleNamespace(get_text_config=lambda: text),
            base_model=SimpleNamespace(forward=forward),
            _supports_default_dynamic_cache=lambda: supported,
        )

    assert prefixes.can_share(model(layer_types=["full_attention"] * 3, sliding_window=None))
    assert prefixes.can_share(model())
    assert not prefixes.can_share(model(layer_types=["full_attention", "sliding_attention"]))
    assert not prefixes.can_share(model(layer_types=["linear_attention", "full_attention"]))
    assert not prefixes.can_share(model(sliding_window=512))
    assert not prefixes.can_share(model(supported=False))  # RWKV: no such cache
    assert not prefixes.can_share(model(forward=lambda input_ids: None))  # MPT: a bias by place


@pytest.mark.parametrize("alike", [0, 20, 40])
def test_hidden_states_of_a_pass_and_their_gradients(alike, models, monkeypatch):
    """Rows of a training pass: the same states and the same gradient, fewer tokens read."""
    monkeypatch.setattr(prefixes, "ALIKE", 10)
    rows = prompts_of(alike, [9, 2, 14, 5])
    contexts, responses = [row[: alike + 1] for row in rows], [row[alike + 1 :] for row in rows]
    results = []
    for shares in (True, False):
        model = random_model()
        with monkeypatch.context() as patch:
            if not shares:
                patch.setattr(prefixes, "can_share", lambda model: False)
            hidden = sdzero.response_hidden(model, contexts, responses)  # (N, H)
            hidden.square().sum().backward()
        results.append((hidden.detach(), gradients(model)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    assert relative(results[0][1], results[1][1]) < 1e-5


def test_a_shared_pass_reads_its_beginning_once(models):
    model, seen = models[0], []
    count = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rows = prompts_of(50, [9, 9, 9])
    sdzero.response_hidden(model, [row[:52] for row in rows], [row[52:] for row in rows])
    count.remove()
    assert seen == [(1, 50), (3, 8)]


def test_the_benchmark_of_rollouts(capsys):
    words = ["--rows", "8", "--times", "2", "--prompt", "60", "--shared", "50", "--repeats", "1"]
    assert bench.main(["rollouts", *words]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["same_ids"] and found["times_as_fast"] > 0 and found["rows"] == 8
