"""--offload: a teacher whose layers are at home in CPU memory is the same teacher."""

import pytest
import torch
from toys import (
    as_samples,
    gradients,
    plain_run,
    random_model,
    relative,
    rows_of_ids,
    small,
    with_teacher,
)

import kit
import sdzero
from kit.memory_plan import host_bytes, memory, teacher_on_host
from kit.sizes import known_sizes
from sdzero import Config

IDS = torch.arange(12).reshape(2, 6)


def streamed_copy(model):
    return kit.on_host.streamed(sdzero.frozen_copy(model), "cpu")


def places(model):
    return [p.data_ptr() for layer in model.base_model.layers for p in layer.parameters()]


def test_it_reads_the_same_and_its_weights_come_home():
    model = random_model(1)
    teacher = streamed_copy(model)
    home, reading = places(teacher), []
    layers = teacher.base_model.layers
    for layer in layers:
        layer.register_forward_hook(lambda *_: reading.append(places(teacher)), prepend=True)
    with torch.no_grad():
        assert torch.equal(teacher(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)
    assert places(teacher) == home and len(reading) == len(layers)
    per_layer = len(home) // len(layers)
    for i, there in enumerate(reading):  # the layer that reads is away, all others are at home
        away = [t for t, (now, then) in enumerate(zip(there, home)) if now != then]
        assert away == list(range(i * per_layer, (i + 1) * per_layer))


def test_it_is_synchronised_and_saved_as_any_other():
    model, teacher = random_model(1), streamed_copy(random_model(2))
    home = places(teacher)
    teacher.load_state_dict(model.state_dict())
    assert places(teacher) == home
    with torch.no_grad():
        assert torch.equal(teacher(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)
    for name, tensor in kit.adapters.own_state(teacher, model).items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_an_error_while_it_reads_leaves_its_weights_at_home():
    teacher = streamed_copy(random_model(1))
    home = places(teacher)

    def breaks(*_):
        raise RuntimeError("out of memory")

    teacher.base_model.layers[1].mlp.register_forward_hook(breaks)
    with pytest.raises(RuntimeError, match="out of memory"), torch.no_grad():
        teacher(input_ids=IDS)
    assert places(teacher) == home


def test_phase_2_has_the_same_gradient_with_it():
    found = []
    for keep in (lambda teacher: teacher, lambda teacher: kit.on_host.streamed(teacher, "cpu")):
        student, bundle = random_model(1), plain_run(small())
        samples, teacher = with_teacher(bundle, as_samples(rows_of_ids(5))), random_model(2)
        loss = sdzero.backward_kl(bundle, student, keep(teacher), samples)
        found.append((loss, gradients(student)))
    assert found[0][0] == found[1][0] and relative(found[1][1], found[0][1]) == 0


def test_on_a_cpu_nothing_moves():
    teacher = sdzero.frozen_copy(random_model(1), offload=True)
    assert not any(layer._forward_pre_hooks for layer in teacher.base_model.layers)


def test_the_plan_counts_the_teacher_where_it_is():
    s, cfg = known_sizes("Qwen/Qwen3-4B"), Config(micro_tokens=4096)
    kept = memory(s, cfg)["phase 2: training"]["teacher"]
    moved = memory(s, Config(micro_tokens=4096, offload=True))["phase 2: training"]["teacher"]
    on_host = teacher_on_host(s, Config(offload=True))
    assert kept == moved + on_host and moved < 0.2 * kept and teacher_on_host(s, cfg) == 0
    states = host_bytes(s, Config(offload=True, method="srt"))  # there is no teacher in phase 1
    # pinned memory is given in powers of two: a layer's 202 MB take 285
    assert host_bytes(s, Config(offload=True)) == states + s.layers * (
        2 * 2**25 + 2 * 2**23 + 3 * 2**26
    )
    assert teacher_on_host(s, Config(offload=True, lora=8)) == 0
