"""The memory plan: from the configuration alone, near what is measured, and never too large."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from toys import HERE, message_of

import sdzero
from kit import memory_plan
from kit.options import parse_options
from sdzero import Config
from studies.fake_step import step_bytes

# the public configurations of Qwen/Qwen3-4B-Instruct-2507 and allenai/Olmo-3-7B-Instruct, as far as
# memory depends on them
QWEN3_4B = dict(
    model_type="qwen3",
    architectures=["Qwen3ForCausalLM"],
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151936,
    tie_word_embeddings=True,
)
OLMO3_7B = dict(
    model_type="olmo3",
    architectures=["Olmo3ForCausalLM"],
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    vocab_size=100278,
    tie_word_embeddings=False,
)
PHASES = [f"phase {phase}: {part}" for phase in (1, 2) for part in ("rollouts", "training")]


def config_folder(folder, config):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    "config, parameters, smallest",
    [(QWEN3_4B, 4.02e9, 32), (OLMO3_7B, 7.30e9, 80)],
    ids=["Qwen3-4B", "Olmo-3-7B"],
)
def test_the_plan_needs_the_configuration_alone(tmp_path, capsys, config, parameters, smallest):
    folder = config_folder(tmp_path / "model", config)
    s = memory_plan.sizes(memory_plan.read_config(folder))
    assert s.parameters == pytest.approx(parameters, rel=0.005)
    assert sdzero.main(["--model", folder, "--plan"]) == 0
    out = capsys.readouterr().out
    assert f"smallest card: {smallest} GB" in out and all(phase in out for phase in PHASES)
    parts = "weights", "teacher", "gradients", "moments", "activations", "loss chunk", "KV cache"
    assert all(f"\n{part}" in out for part in parts)
    # its settings are options of sdzero.py, and fit
    line = next(line for line in out.splitlines() if line.startswith("80 GB"))
    options = line.split("  ")[-1].split()
    given = parse_options(["--dtype", "bfloat16", *options], Config, "")
    assert memory_plan.peak(s, Config(**given)) < 80e9
    assert given["micro_tokens"] > 4096 and given["rollout_batch"] >= 8


def test_a_model_for_which_no_card_is_large_enough(tmp_path, capsys):
    folder = config_folder(tmp_path / "large", {**QWEN3_4B, "num_hidden_layers": 600})
    assert sdzero.main(["--model", folder, "--plan"]) == 0
    assert "sharded" in capsys.readouterr().out
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
    s = SimpleNamespace(
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


def on_a_card_of(monkeypatch, size):
    """A stand-in for a model on a GPU of this many bytes."""
    config = transformers.Qwen3Config(**{k: v for k, v in QWEN3_4B.items() if k != "architectures"})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (size, size))
    return SimpleNamespace(device=torch.device("cuda"), config=config)


def test_settings_left_to_the_plan_are_filled_in(monkeypatch, capsys):
    model = on_a_card_of(monkeypatch, 80e9)
    cfg = Config(dtype="bfloat16", gradient_checkpointing=True)
    filled = memory_plan.fill_in(cfg, model)
    assert filled.micro_tokens >= 4608 and filled.rollout_batch >= 8
    assert memory_plan.peak(memory_plan.sizes(model.config), filled) < 76e9
    assert cfg.micro_tokens == cfg.rollout_batch == 0  # what was given is not changed in place
    assert f"--micro-tokens {filled.micro_tokens}" in capsys.readouterr().out

    model = on_a_card_of(monkeypatch, 141e9)
    filled = memory_plan.fill_in(Config(dtype="bfloat16", micro_tokens=5000), model)
    assert filled.micro_tokens == 5000 and filled.rollout_batch >= 32  # what was given stays

    model = on_a_card_of(monkeypatch, 1e9)
    filled = memory_plan.fill_in(Config(dtype="bfloat16"), model)
    assert filled.micro_tokens and filled.rollout_batch == 8
    assert "finds no room" in capsys.readouterr().out


def test_on_a_cpu_nothing_is_filled_in(model):
    cfg = Config()
    assert memory_plan.fill_in(cfg, model) is cfg


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
        sdzero.response_hidden(model, [[5] * 10] * 4, [[6] * 191] * 4)
    bytes_kept = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    planned = memory_plan.layer_activations(memory_plan.sizes(config), dtype.itemsize)
    assert planned == pytest.approx(bytes_kept / 800 / 3, rel=0.15)
