"""The memory plan: from the configuration alone, near what is measured, and never too large."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from toys import HERE, message_of

import kit
import sdzero
from kit import memory_plan, sizes
from kit.errors import UserError
from kit.options import parse_options
from kit.sizes import Sizes, facts, known_sizes
from sdzero import Config
from studies.fake_step import step_bytes

QWEN3_4B, OLMO3_7B = facts()["Qwen/Qwen3-4B"], facts()["allenai/Olmo-3-7B-Instruct"]
PHASES = [f"phase {phase}: {part}" for phase in (1, 2) for part in ("rollouts", "training")]


def config_folder(folder, config):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def no_hub(*_):
    raise AssertionError("the hub was asked")


def plan_of(capsys, *words) -> str:
    assert sdzero.main([*words, "--plan"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "model, parameters, smallest",
    [
        ("Qwen/Qwen3-4B-Instruct", 4.02e9, 40),
        ("allenai/Olmo-3-7B-Instruct", 7.30e9, 80),
        ("Qwen/Qwen3-1.7B", 1.72e9, 24),
    ],
)
def test_the_plan_of_a_known_model_needs_no_hub(monkeypatch, capsys, model, parameters, smallest):
    monkeypatch.setattr(sizes, "require_hub", no_hub)
    s = sizes.sizes(sizes.read_config(model))
    assert s.parameters == pytest.approx(parameters, rel=0.005)
    out = plan_of(capsys, "--model", model, "--task", "math")
    assert f"smallest card: {smallest} GB" in out and all(phase in out for phase in PHASES)
    parts = "weights", "teacher", "gradients", "moments", "activations", "loss chunk", "KV cache"
    assert all(f"\n{part}" in out for part in parts)
    assert "computed" in out and "\ndisk: two checkpoints" in out
    # its settings are options of sdzero.py, and fit
    line = next(line for line in out.splitlines() if line.startswith("80 GB"))
    options = line.split("  ")[-1].split()
    given = parse_options(["--dtype", "bfloat16", *options], Config, "")
    assert memory_plan.peak(s, Config(**given)) < 80e9


def test_a_folder_needs_its_configuration_alone(tmp_path, capsys):
    folder = config_folder(tmp_path / "model", QWEN3_4B)
    words = "--task", "math", "--out", "o"
    named = plan_of(capsys, "--model", "Qwen/Qwen3-4B", *words)
    assert plan_of(capsys, "--model", folder, *words).splitlines()[1:] == named.splitlines()[1:]
    # a stated throughput takes the place of the card's
    out = plan_of(capsys, "--model", folder, "--task", "math", "--tokens-per-second", "1000")
    rows = [line.split() for line in out.splitlines() if line.startswith(("40 GB", "80 GB"))]
    assert [row[4] for row in rows] == ["1000", "1000"]
    # the paper's lengths: 40,000 responses of phase 1, 9000 of phase 2, three evaluations
    tokens = 40_000 * 3700 + 9000 * 8192 + 3 * 5000 * 5200
    assert [float(row[5]) for row in rows] == [round(tokens / 1000 / 3600)] * 2


def test_a_model_for_which_no_card_is_large_enough(tmp_path, capsys):
    folder = config_folder(tmp_path / "large", {**QWEN3_4B, "num_hidden_layers": 600})
    assert "sharded" in plan_of(capsys, "--model", folder)
    assert "config.json" in message_of(capsys, sdzero.main, "--model", tmp_path, "--plan")


NARROW = dict(
    vocab_size=151936,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    tie_word_embeddings=True,
    eos_token_id=2,
)


def test_the_plan_is_near_the_resident_memory(tmp_path, tokenizer):
    """Phase 2's training in fp32, in a process of its own: its largest resident memory, all
    libraries in it, is within 15 % of the plan. (SmolLM2's, and bfloat16's, which most CPUs
    emulate, take minutes: docs/memory_and_speed.md has them.)"""
    model = str(tmp_path / "random")
    transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**NARROW)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    report = tmp_path / "step.json"
    command = [sys.executable, str(HERE / "studies" / "bench.py"), "step", "--model", model]
    command += ["--steps", "1", "--rows", "1", "--dtype", "float32", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert 0.85 < json.loads(report.read_text())["plan_over_measured"] < 1.15


@pytest.mark.parametrize(
    "phase, settings",
    [
        (2, dict(dtype="bfloat16")),
        (2, dict(dtype="bfloat16", moments="bfloat16", gradient_checkpointing=True)),
        (1, dict(dtype="bfloat16")),
        (2, dict(dtype="float32", divergence="mixed")),
    ],
    ids=["bfloat16", "smallest", "phase 1", "float32, mixed"],
)
def test_the_plan_is_near_what_a_step_holds(phase, settings):
    """The bytes of all tensors that live at a step's peak, by MemTracker, on a step without data:
    its largest sum is within 10 % of the plan."""
    cfg = Config(micro_tokens=500, **settings)
    config = transformers.Qwen3Config(**{**NARROW, "hidden_size": 256, "vocab_size": 30000})
    found = step_bytes(config, cfg, phase, [431, 400])
    assert 0.95 < found["planned"] / found["tracked"] < 1.1


def test_the_plan_counts_the_states_as_they_are():
    """bfloat16: 2 bytes each for weights, low halves, gradients and teacher, 8 for fp32 moments; a
    model of 1e9 parameters."""
    s = Sizes(
        parameters=10**9,
        vocabulary=1000,
        hidden=64,
        mlp=128,
        layers=2,
        query=64,
        key=64,
        normed=0,
        tied=True,
    )
    phases = memory_plan.memory(s, Config(micro_tokens=4096))
    training = phases["phase 2: training"]
    states = "weights", "low halves of the weights", "gradients", "teacher", "moments"
    assert [round(training[state] / 1e9) for state in states] == [2, 2, 2, 2, 8]
    assert "teacher" not in phases["phase 1: training"]
    assert phases["phase 1: rollouts"]["moments"] == 0
    off = memory_plan.memory(s, Config(micro_tokens=4096, offload=True))["phase 2: training"]
    assert off["moments"] == off["low halves of the weights"] == 0
    rough = memory_plan.memory(s, Config(micro_tokens=4096, moments="bfloat16"))
    assert rough["phase 2: training"]["moments"] == 4e9


def on_a_card_of(monkeypatch, size, host=256, capability=(9, 0)):
    """As if a GPU had this many GB, a tenth of them taken by somebody else."""
    memory = (size * 1e9, size * 1e9 / 0.9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: memory)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Card 1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(memory_plan, "ram_bytes", lambda: host * 1e9)


def bare(model, **given) -> Config:
    """The configuration of `python sdzero.py --model MODEL --task math`."""
    return sdzero.make_config(model=model, task="math", **given)


@pytest.mark.parametrize(
    "size, model, way",
    [
        (24, "Qwen/Qwen3-1.7B", "--offload"),
        (32, "Qwen/Qwen3-1.7B", "--moments bfloat16"),
        (40, "Qwen/Qwen3-4B-Instruct", "--offload"),
        (48, "Qwen/Qwen3-4B-Instruct", "--offload"),
        (80, "Qwen/Qwen3-4B-Instruct", "--gradient-checkpointing"),
        (80, "allenai/Olmo-3-7B-Instruct", "--offload"),
        (180, "Qwen/Qwen3-1.7B", ""),
    ],
)
def test_the_bare_command_starts(monkeypatch, capsys, size, model, way):
    """The settings choose themselves, and each is named with what it costs."""
    on_a_card_of(monkeypatch, size)
    cfg = bare(model)
    filled = memory_plan.fill_in(cfg, "cuda")
    s = sizes.sizes(sizes.read_config(model))
    assert memory_plan.peak(s, filled) < 0.95 * size * 1e9
    assert filled.micro_tokens >= 8192 + 512  # phase 2's longest row
    assert cfg.micro_tokens == 0 and cfg.offload is None  # what was given is not changed in place
    out = capsys.readouterr().out
    chosen = [line for line in out.splitlines() if line.startswith("chosen: ")]
    assert all(line.count(": ") == 2 for line in chosen)
    assert chosen[-1].startswith(f"chosen: {way}: ") if way else not chosen
    assert f"{size} GB that are free" in out and "two states" in out
    assert "of the longest" in out and "(computed)" in out
    assert ("the host keeps" in out) == (way == "--offload")


def test_ranks_share_the_hosts_memory(monkeypatch, capsys):
    """--offload of eight ranks needs eight times as much of it."""
    on_a_card_of(monkeypatch, 40, host=128)
    cfg = bare("Qwen/Qwen3-4B-Instruct")
    assert memory_plan.fill_in(cfg, "cuda").offload
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(UserError, match="the host needs 5. GB and has 16"):
        memory_plan.fill_in(cfg, "cuda")


def test_a_model_that_is_not_trained_needs_room_for_its_weights_alone(monkeypatch):
    """eval.py, bench and localise load checkpoints to sample from them."""
    on_a_card_of(monkeypatch, 25)
    cfg = bare("Qwen/Qwen3-4B-Instruct")
    with pytest.raises(UserError):
        memory_plan.fill_in(cfg, "cuda")
    filled = memory_plan.fill_in(cfg, "cuda", trains=False)
    assert not filled.offload and not filled.gradient_checkpointing and filled.rollout_batch == 64
    assert memory_plan.fill_in(replace(cfg, rollout_batch=8), "cuda", False).rollout_batch == 8
    on_a_card_of(monkeypatch, 8)
    with pytest.raises(UserError, match="not even to sample from: its weights take 9 GB"):
        memory_plan.fill_in(cfg, "cuda", trains=False)


def test_shorter_responses_are_no_longer_than_what_was_given():
    s = known_sizes("Qwen/Qwen3-4B")
    cfg = bare("Qwen/Qwen3-4B-Instruct", distil_max_tokens=1024)
    found = memory_plan.shorter(s, cfg, 24e9)
    assert (found.max_tokens, found.distil_max_tokens) == (4096, 1024)
    assert found.eval_max_tokens == 4096


def test_evaluations_in_the_midst_of_phase_2_are_planned_for():
    cfg = bare("Qwen/Qwen3-4B-Instruct")
    assert memory_plan.generated_row(cfg, 2) == memory_plan.PROMPT + cfg.distil_max_tokens
    for way in (replace(cfg, rounds=2), replace(cfg, eval_every=5)):
        assert memory_plan.generated_row(way, 2) == memory_plan.PROMPT + 2 * cfg.eval_max_tokens


def test_a_card_without_bfloat16_gets_float32(monkeypatch, capsys, checkpoint):
    """A T4, of which torch.cuda.is_bf16_supported() says yes: it emulates."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    on_a_card_of(monkeypatch, 16, capability=(7, 5))
    cfg = bare("Qwen/Qwen3-0.6B", lora=16, max_tokens=2048)
    filled = memory_plan.fill_in(cfg, "cuda")
    said = [line for line in capsys.readouterr().out.splitlines() if "bfloat16" in line]
    assert filled.dtype == "float32" and len(said) == 1 and "--dtype float32" in said[0]
    s = sizes.sizes(sizes.read_config(cfg.model))
    assert memory_plan.memory(s, filled)["phase 2: training"]["weights"] == 4 * s.parameters
    given = memory_plan.fill_in(replace(cfg, dtype="bfloat16"), "cuda")
    assert given.dtype == "bfloat16" and "no bfloat16" not in capsys.readouterr().out

    # a model that is loaded without the plan, as localise loads the others, is the same
    monkeypatch.setattr(kit.loading, "device_of", lambda cfg: "cuda:0")
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_: self)
    assert kit.loading.load_model(Config(model=checkpoint)).dtype == torch.float32
    on_a_card_of(monkeypatch, 16, capability=(8, 0))
    assert kit.loading.load_model(Config(model=checkpoint)).dtype == torch.bfloat16
    assert memory_plan.fill_in(cfg, "cuda").dtype == "auto"


def test_the_longest_rows_are_those_of_each_phase():
    """Phase 1 trains on two responses, and a revision is sampled behind a first answer."""
    cfg = Config(max_tokens=1000, distil_max_tokens=700, eval_max_tokens=900)
    rows = [memory_plan.trained_row(cfg, phase) for phase in (1, 2)]
    assert rows == [512 + 2000, 512 + 700]
    assert [memory_plan.generated_row(cfg, phase) for phase in (1, 2)] == [512 + 2000, 512 + 700]
    assert memory_plan.trained_row(replace(cfg, l_revision=False), 1) == 512 + 2000
    alone = replace(cfg, l_revision=False, l_generation="none", l_answer=True)
    assert memory_plan.trained_row(alone, 1) == 512 + 1000
    assert memory_plan.generated_row(replace(cfg, rounds=2), 2) == 512 + 1800


def test_continuous_batching_has_its_share_of_what_is_free():
    s, cfg = known_sizes("Qwen/Qwen3-4B"), Config(dtype="bfloat16", rollout_batch=64)
    lasting = memory_plan.lasting_parts(s, cfg, 2, gpu=True)
    free = 20e9
    tokens = memory_plan.cached_tokens(s, cfg, 2, sum(lasting.values()) + free)
    fixed, each = memory_plan.cache_bytes(s, 64, 2)
    assert fixed + tokens * each == pytest.approx(0.8 * free, rel=1e-3)
    # what a run must have is room for one of the longest rows
    parts = memory_plan.memory(s, cfg)["phase 2: rollouts"]
    least = parts["KV cache"] / each
    assert least == memory_plan.generated_row(cfg, 2)
    room = memory_plan.cached_tokens(s, cfg, 2, sum(parts.values()))
    assert room == pytest.approx(least, rel=1e-3)


def test_what_was_given_by_hand_stays(monkeypatch, capsys):
    on_a_card_of(monkeypatch, 180)
    filled = memory_plan.fill_in(bare("Qwen/Qwen3-1.7B", offload=True), "cuda")
    assert filled.offload and not filled.gradient_checkpointing
    assert "chosen: --offload" not in capsys.readouterr().out
    on_a_card_of(monkeypatch, 48)
    given = dict(micro_tokens=9000, rollout_batch=16)
    filled = memory_plan.fill_in(bare("Qwen/Qwen3-4B", **given), "cuda")
    assert filled.micro_tokens == 9000 and filled.rollout_batch == 16
    # the same by the command line, where "no" is not the same as nothing
    cfg = bare("Qwen/Qwen3-4B", **parse_options(["--no-offload"], Config, ""))
    with pytest.raises(UserError, match="--no-offload"):
        memory_plan.fill_in(cfg, "cuda")
    moments = bare("Qwen/Qwen3-1.7B", moments="float32")
    on_a_card_of(monkeypatch, 32)
    assert memory_plan.fill_in(moments, "cuda").moments == "float32"


def test_where_nothing_fits_the_run_stops_before_the_model_is_loaded(monkeypatch, tmp_path):
    """In one line that names the smallest card and the nearest model."""
    on_a_card_of(monkeypatch, 24)
    monkeypatch.setattr(kit.loading, "device_of", lambda cfg: "cuda")
    monkeypatch.setattr(kit.loading, "load_model", no_hub)
    with pytest.raises(UserError) as stopped:
        sdzero.prepare(bare("Qwen/Qwen3-4B-Instruct"), None, None, {})
    line = str(stopped.value)
    assert "\n" not in line and "smallest card for it has 40 GB" in line
    assert "--model Qwen/Qwen3-1.7B would work" in line
    assert "or this one with --max-tokens 4096" in line
    on_a_card_of(monkeypatch, 32)  # states fit, and rows of 4096 tokens
    with pytest.raises(UserError, match="or this one with --max-tokens 8192"):
        memory_plan.fill_in(bare("Qwen/Qwen3-4B-Instruct"), "cuda")
    on_a_card_of(monkeypatch, 48)  # each of two cards (torchrun)
    with pytest.raises(UserError, match="or this one with --max-tokens 8192"):
        memory_plan.fill_in(bare("allenai/Olmo-3-7B-Instruct"), "cuda")
    on_a_card_of(monkeypatch, 80, host=32)
    with pytest.raises(UserError, match="host needs 90 GB and has 32"):
        memory_plan.fill_in(bare("allenai/Olmo-3-7B-Instruct"), "cuda")
    on_a_card_of(monkeypatch, 1)
    with pytest.raises(UserError, match="no model that is known here fits"):
        memory_plan.fill_in(bare("Qwen/Qwen3-0.6B"), "cuda")


def test_a_divergence_of_a_forks_own_is_planned_as_the_largest():
    s, cfg = known_sizes("Qwen/Qwen3-4B"), bare("Qwen/Qwen3-4B")
    chunks = {}
    for name in ("reverse", "mixed", "jensen"):
        parts = memory_plan.memory(s, replace(cfg, divergence=name))["phase 2: training"]
        chunks[name] = parts["loss chunk"]
    assert chunks["jensen"] == chunks["mixed"] > chunks["reverse"]


def test_on_a_cpu_nothing_is_filled_in():
    cfg = Config()
    assert memory_plan.fill_in(cfg, "cpu") is cfg


def test_adapters_need_neither_moments_of_all_weights_nor_a_second_model():
    """--lora: frozen weights, fp32 adapters, no copy."""
    s = known_sizes("Qwen/Qwen3-4B")
    adapters = 36 * 16 * (2 * (2560 + 4096) + 2 * (2560 + 1024) + 3 * (2560 + 9728))
    assert s.adapters(16) == adapters
    limits = dict(max_tokens=4096, distil_max_tokens=0, eval_max_tokens=0)
    cfg = Config(lora=16, gradient_checkpointing=True, dtype="bfloat16", **limits)
    parts = memory_plan.memory(s, cfg)["phase 2: training"]
    assert parts["weights"] == 2 * s.parameters and parts["teacher"] == 4 * adapters
    assert parts["moments"] == 8 * adapters and parts["gradients"] == 4 * adapters
    assert parts["low halves of the weights"] == 0
    assert memory_plan.peak(s, cfg) < 0.95 * 16e9
    olmo = known_sizes("allenai/Olmo-3-7B-Instruct")
    assert memory_plan.shorter(olmo, Config(lora=16, dtype="bfloat16"), 24e9).max_tokens >= 2048


def test_sharded_states_are_divided_by_the_cards(monkeypatch):
    s = known_sizes("Qwen/Qwen3-4B")
    monkeypatch.setattr(memory_plan.ranks, "world", lambda: 4)
    whole = memory_plan.memory(s, Config())["phase 2: training"]
    parts = memory_plan.memory(s, Config(shard=True))["phase 2: training"]
    for part in ("moments", "low halves of the weights"):
        assert parts[part] == whole[part] / 4
    assert parts["weights"] == whole["weights"] and parts["gradients"] == whole["gradients"]


WIDE = dict(
    vocab_size=64,
    hidden_size=128,
    intermediate_size=320,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=4,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=2,
)


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Qwen2", "Olmo3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(kind, dtype):
    config = getattr(transformers, f"{kind}Config")(**WIDE)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype)
    kept, own = {}, {p.untyped_storage()._cdata for p in model.parameters()}

    def keep(t):
        kept[t.untyped_storage()._cdata] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        sdzero.response_hidden(model, [[5 + row] * 10 for row in range(4)], [[6] * 191] * 4)
    bytes_kept = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    planned = memory_plan.layer_activations(sizes.sizes(config), dtype.itemsize)
    assert planned == pytest.approx(bytes_kept / 800 / 3, rel=0.15)
