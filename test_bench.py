"""The memory plan, what keeps memory small, and what goes on when it runs out.   pytest -q test_bench.py"""
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

import bench
import modeling
import sdzero
from sdzero import Config, UserError
from test_sdzero import END_IDS, as_samples, gradients, random_model, relative, rows_of_ids, small, smollm2, tokenizer  # noqa: F401

# the public configurations of Qwen/Qwen3-4B-Instruct-2507 and allenai/Olmo-3-7B-Instruct, as far as memory depends on them
QWEN3_4B = dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=True)
OLMO3_7B = dict(model_type="olmo3", architectures=["Olmo3ForCausalLM"], hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                num_attention_heads=32, num_key_value_heads=32, vocab_size=100278, tie_word_embeddings=False)


def config_folder(folder, config):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


# ----------------------------------------------------------------------------------------------------------------------------
# The plan
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config,parameters,smallest", [(QWEN3_4B, 4.02e9, 32), (OLMO3_7B, 7.30e9, 80)], ids=["Qwen3-4B", "Olmo-3-7B"])
def test_plan_from_the_configuration_alone(tmp_path, capsys, config, parameters, smallest):
    folder = config_folder(tmp_path / "model", config)
    s = modeling.sizes(modeling.read_config(folder))
    assert s.parameters == pytest.approx(parameters, rel=0.005)
    assert sdzero.main(["--model", folder, "--plan"]) == 0
    out = capsys.readouterr().out
    assert f"smallest card: {smallest} GB" in out
    for phase in ("phase 1: rollouts", "phase 1: training", "phase 2: rollouts", "phase 2: training"):
        assert phase in out
    for part in ("weights", "teacher", "gradients", "moments", "activations", "KL chunk", "KV cache"):
        assert f"\n{part}" in out
    line = next(line for line in out.splitlines() if line.startswith("80 GB"))
    options = line.split("  ")[-1].split()  # they are options of sdzero.py, and fit
    given = sdzero.parse_options(["--dtype", "bfloat16", *options], sdzero.Config, "")
    assert modeling.peak(s, Config(**given)) < 80e9 and given["micro_tokens"] > 4096 and given["rollout_batch"] >= 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["SmolLM2-135M", "random, vocabulary 151,936"])
def test_plan_is_near_the_measured_peak(tmp_path, tokenizer, name, dtype):  # noqa: F811
    """Phase 2's training in a process of its own: its largest resident memory, all libraries in it, is within 15 % of the plan."""
    if name == "SmolLM2-135M":
        model = smollm2()
    else:
        model = str(tmp_path / "random")
        config = transformers.Qwen3Config(vocab_size=151936, hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8,
                                          num_key_value_heads=4, head_dim=64, tie_word_embeddings=True, eos_token_id=2)
        transformers.Qwen3ForCausalLM(config).save_pretrained(model)
        tokenizer.save_pretrained(model)
    done = subprocess.run([sys.executable, bench.__file__, "step", "--model", model, "--steps", "1", "--rows", "3", "--dtype", dtype,
                           "--json", str(tmp_path / "step.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert 0.85 < json.loads((tmp_path / "step.json").read_text())["plan_over_measured"] < 1.15


def test_plan_counts_the_states_as_they_are():
    """bfloat16: 2 bytes each for weights, low halves, gradients and teacher, 8 for fp32 moments; a model of 1e9 parameters."""
    s = SimpleNamespace(parameters=10**9, vocabulary=1000, hidden=64, mlp=128, layers=2, query=64, key=64, normed=0, tied=True)
    phases = modeling.memory(s, Config(micro_tokens=4096))
    assert [round(phases["phase 2: training"][k] / 1e9) for k in ("weights", "low halves of the weights", "gradients", "teacher", "moments")] == [2, 2, 2, 2, 8]
    assert "teacher" not in phases["phase 1: training"] and phases["phase 1: rollouts"]["moments"] == 0
    small = modeling.memory(s, Config(micro_tokens=4096, offload=True))["phase 2: training"]
    assert small["moments"] == small["low halves of the weights"] == 0
    assert modeling.memory(s, Config(micro_tokens=4096, moments="bfloat16"))["phase 2: training"]["moments"] == 4e9


def test_a_model_for_which_no_card_is_large_enough(tmp_path, capsys):
    folder = config_folder(tmp_path / "large", {**QWEN3_4B, "num_hidden_layers": 600})
    assert sdzero.main(["--model", folder, "--plan"]) == 0 and "sharded" in capsys.readouterr().out
    assert sdzero.main(["--model", str(tmp_path), "--plan"]) == 2 and "config.json" in capsys.readouterr().err


def test_settings_left_to_the_plan_are_filled_in():
    config = transformers.Qwen3Config(**{k: v for k, v in QWEN3_4B.items() if k != "architectures"})
    cfg = Config(dtype="bfloat16", gradient_checkpointing=True)
    modeling.fill_in(cfg, config, 80e9)
    assert cfg.micro_tokens >= 4608 and cfg.rollout_batch >= 8 and modeling.peak(modeling.sizes(config), cfg) < 76e9
    cfg = Config(dtype="bfloat16", micro_tokens=5000)
    modeling.fill_in(cfg, config, 141e9)
    assert cfg.micro_tokens == 5000 and cfg.rollout_batch >= 32  # what was given stays


WIDE = dict(vocab_size=64, hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4,
            pad_token_id=0, bos_token_id=None, eos_token_id=2)


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
    measured = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own) / 800 / 3
    assert modeling.layer_activations(modeling.sizes(config), dtype.itemsize) == pytest.approx(measured, rel=0.15)


# ----------------------------------------------------------------------------------------------------------------------------
# Losses
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["reverse", "forward", "mixed"])
def test_clipped_divergence(kind):
    """min(KL, clip) per token: the gradient of a token above the clip is zero, that of the others is unchanged."""
    student, teacher = random_model(1, torch.float64), random_model(2, torch.float64)
    hidden, other = torch.randn(2, 9, 32, dtype=torch.float64)
    hidden.requires_grad_()
    s = F.log_softmax(hidden @ student.lm_head.weight.T, -1)
    t = F.log_softmax(other @ teacher.lm_head.weight.T, -1).detach()
    reverse, forward = (s.exp() * (s - t)).sum(-1), (t.exp() * (t - s)).sum(-1)
    kl = {"reverse": reverse, "forward": forward, "mixed": (reverse + forward) / 2}[kind]
    clip = float(kl.median())
    expected = torch.autograd.grad(kl.clamp(max=clip).sum(), hidden)[0]
    total, per_token = sdzero.distillation_loss(student, hidden, teacher, other, kind, clip)
    gradient = torch.autograd.grad(total, hidden)[0]
    assert torch.allclose(per_token, kl.clamp(max=clip)) and torch.allclose(gradient, expected)
    assert 0 < int((gradient.abs().sum(-1) == 0).sum()) < 9


def test_a_new_loss_needs_no_gradient_of_its_own():
    """Jensen-Shannon divergence by autograd, through the same chunks."""
    def jensen_shannon(s, t):
        log_s, log_t = F.log_softmax(s, -1), F.log_softmax(t, -1)
        middle = torch.logaddexp(log_s, log_t) - np.log(2)
        return ((log_s.exp() * (log_s - middle)).sum(-1) + (log_t.exp() * (log_t - middle)).sum(-1)) / 2

    model, targets = random_model(1, torch.float64), torch.randn(9, 336, dtype=torch.float64)
    hidden = torch.randn(9, 32, dtype=torch.float64, requires_grad=True)
    total, _ = sdzero.token_loss(hidden, sdzero.head_of(model), lambda logits, rows: jensen_shannon(logits, targets[rows]))
    expected = torch.autograd.grad(jensen_shannon(hidden @ model.lm_head.weight.T, targets).sum(), hidden)[0]
    assert torch.allclose(torch.autograd.grad(total, hidden)[0], expected, rtol=1e-9)


def test_gradient_of_the_head_is_handed_over_without_a_copy():
    head = torch.nn.Linear(8, 50, bias=False)
    model = SimpleNamespace(get_output_embeddings=lambda: head, config=modeling.SimpleNamespace(get_text_config=lambda: None))
    hidden = torch.randn(4, 8, requires_grad=True)
    total, _ = sdzero.nll_loss(model, hidden, torch.arange(4))
    places = [g.data_ptr() for g in total.grad_fn.grads if g is not None]
    total.backward()
    assert [hidden.grad.data_ptr(), head.weight.grad.data_ptr()] == places


def test_kl_benchmark_reports_what_the_issue_asks_for(tmp_path):
    assert bench.main(["kl", "--tokens", "256", "--vocabulary", "40000", "--hidden", "64", "--repeats", "1", "--json", str(tmp_path / "kl.json")]) == 0
    report = json.loads((tmp_path / "kl.json").read_text())
    assert report["loss_rel_err"] < 1e-5 and report["grad_rel_err"] < 1e-5
    assert report["memory_ratio"] > 0 and report["time_ratio"] > 0 and len(report["runs"]["plain"]) == 1


# ----------------------------------------------------------------------------------------------------------------------------
# Passes
# ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("budget", [4096, 16384, 65536])
@pytest.mark.parametrize("rows", [64, 128, 512])
def test_padding_is_below_a_tenth(budget, rows):
    lengths = (200 + np.random.default_rng(rows).lognormal(6.5, 0.7, rows)).clip(max=4096).astype(int).tolist()
    padded = sum(len(b) * max(lengths[i] for i in b) for b in sdzero.micro_batches(lengths, budget))
    assert padded < sum(lengths) / 0.9


@pytest.mark.parametrize("rows", [64, 128, 512])
def test_padding_is_below_a_tenth_with_the_defaults(rows, prompt=80, phrase=16, budget=2048):
    """Responses of a few hundred tokens, log-normal: the student's rows, and the teacher's in the same passes, which read y twice."""
    lengths = np.random.default_rng(rows).lognormal(5.6, 0.6, rows).clip(10, 2000).astype(int)  # mean about 320
    student, teacher = (prompt + lengths).tolist(), (prompt + phrase + 2 * lengths).tolist()
    passes = sdzero.micro_batches(student, budget)
    for row in (student, teacher):
        assert sum(len(p) * max(row[i] for i in p) for p in passes) < sum(row) / 0.9


def test_no_token_is_computed_twice_in_a_step(phrases=((3, 4), (5, 6))):
    """Every row goes once through each model; padding is all that comes on top of what the loss needs."""
    student, teacher, seen = random_model(1), random_model(2).requires_grad_(False), {}
    for name, m in (("student", student), ("teacher", teacher)):
        m.model.register_forward_pre_hook(lambda module, args, kwargs, name=name: seen.setdefault(name, []).append(kwargs["input_ids"].numel()), with_kwargs=True)
    samples = as_samples(rows_of_ids(40, context=(40, 44), response=(60, 180)))
    sdzero.distil_on(student, teacher, samples, small(micro_tokens=1500), [list(p) for p in phrases], END_IDS)
    for name, context in (("student", "context"), ("teacher", "teacher_context")):
        assert sum(seen[name]) < 1.1 * sum(len(s[context]) + len(s["ids"]) - 1 for s in samples)


def test_revision_and_generation_losses_share_a_pass():
    rows, m, calls = rows_of_ids(6), random_model(1, torch.float64), []
    examples = [(c, r) for c, r in rows] + [(c[:1], c[1:] + r) for c, r in rows[:4]] + rows[:1]  # the first row's revision counts twice
    for c, r in examples:
        logits = m(input_ids=torch.tensor([c + r])).logits[0, len(c) - 1:-1]
        (F.cross_entropy(logits, torch.tensor(r), reduction="sum") / 7).backward()
    expected = gradients(m)
    m.zero_grad()
    m.model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(len(kwargs["input_ids"])), with_kwargs=True)
    sdzero.train_on(m, examples, 7, small(micro_tokens=50))
    assert relative(gradients(m), expected) < 1e-5 and sum(calls) == 6


# ----------------------------------------------------------------------------------------------------------------------------
# Memory that runs out
# ----------------------------------------------------------------------------------------------------------------------------
ERRORS = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
          RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")]


class FailAbove(torch.autograd.Function):
    """Fails in the backward pass, when the layers above have added to their gradients, above `limit` tokens."""

    @staticmethod
    def forward(ctx, x, limit, error):
        ctx.failing = error if x.shape[0] * x.shape[1] > limit else None
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if ctx.failing:
            raise ctx.failing
        return grad, None, None


@pytest.mark.parametrize("error", ERRORS, ids=["GPU", "CPU"])
@pytest.mark.parametrize("phase", ["srt", "distil"])
def test_a_pass_that_runs_out_of_memory_is_halved(capsys, phase, error):
    rows, found = rows_of_ids(14), []
    for limit in (10**9, 60):
        m, cfg = random_model(1), small(micro_tokens=10**6)
        m.model.layers[1].register_forward_hook(lambda module, args, out, limit=limit: FailAbove.apply(out, limit, error))
        if phase == "srt":
            loss = sdzero.train_on(m, rows, 50, cfg)
        else:
            loss = sdzero.distil_on(m, random_model(2).requires_grad_(False), as_samples(rows), cfg, [[3, 4], [5, 6]], END_IDS)
        found.append((loss, gradients(m), cfg.micro_tokens))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5) and relative(found[1][1], found[0][1]) < 1e-5
    assert found[1][2] < 120 < found[0][2] and "memory ran out" in capsys.readouterr().out  # passes of 60 tokens at most


def test_a_single_row_that_does_not_fit_is_said_in_one_line():
    m = random_model(1)
    m.model.layers[1].register_forward_hook(lambda module, args, out: FailAbove.apply(out, 5, ERRORS[0]))
    with pytest.raises(UserError, match="--gradient-checkpointing"):
        sdzero.train_on(m, rows_of_ids(8), 50, small())


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shape"):
        sdzero.attempt(lambda: torch.ones(2).reshape(3) if 1 else None)


@pytest.mark.parametrize("error", ERRORS, ids=["GPU", "CPU"])
def test_a_rollout_batch_that_runs_out_of_memory_is_halved(monkeypatch, capsys, error):
    m, prompts, cfg = random_model(), [c for c, _ in rows_of_ids(9)], small(max_tokens=10, rollout_batch=8)
    expected, real, sizes = sdzero.generate(m, prompts, cfg, [2], 0, greedy=True), type(m).generate, []

    def failing(self, input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 3:
            raise error
        return real(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(m), "generate", failing)
    assert sdzero.generate(m, prompts, cfg, [2], 0, greedy=True) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 1] and m.rollout_limit == 2 and "memory ran out" in capsys.readouterr().out


def test_continuous_batching_gives_the_same_greedy_answers(monkeypatch):
    m, prompts, cfg = random_model(), [c for c, _ in rows_of_ids(6, seed=3, context=(1, 40))], small(max_tokens=12)
    expected = sdzero.generate(m, prompts, cfg, [2, 150], 0, greedy=True)
    assert sdzero.engine(m) == "batches sorted by length"
    monkeypatch.setattr(sdzero, "engine", lambda model: "continuous batching")
    assert sdzero.generate(m, prompts, cfg, [2, 150], 0, greedy=True) == expected
    one, two = (sdzero.generate(m, prompts, cfg, [2, 150], seed) for seed in (1, 2))
    assert one != expected and one != two


# ----------------------------------------------------------------------------------------------------------------------------
# The optimiser
# ----------------------------------------------------------------------------------------------------------------------------
def walk(cfg, dtype, steps=40):
    """Weights after noisy steps of 1e-3, as fp32."""
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.w, module.config = torch.nn.Parameter(0.02 * torch.randn(30, 100)), SimpleNamespace()
    drift = torch.randn(30, 100)
    if dtype == torch.bfloat16:
        modeling.split_weights(module)
    optimizer = sdzero.adamw(module, 1e-3, 0.01, cfg)
    for _ in range(steps):
        module.w.grad = (drift + torch.randn(30, 100)).to(dtype)
        optimizer.step()
    return modeling.exact(module.w)


def test_bfloat16_moments_and_offload_walk_the_same_way():
    start, full = walk(Config(), torch.float32, 0), walk(Config(), torch.float32)
    assert relative(walk(Config(offload=True), torch.float32) - start, full - start) < 1e-4
    assert relative(walk(Config(moments="bfloat16"), torch.float32) - start, full - start) < 0.01
    split = walk(Config(), torch.bfloat16)
    assert torch.equal(split, walk(Config(offload=True), torch.bfloat16))
    assert relative(walk(Config(moments="bfloat16"), torch.bfloat16) - start, split - start) < 0.01
