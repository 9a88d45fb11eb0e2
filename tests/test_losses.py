"""Losses in chunks and in passes: the same numbers as by brute force, for every output embedding,
in little memory, and nothing computed twice."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from toys import (
    as_rows,
    as_samples,
    fake_model,
    gradients,
    plain_run,
    random_model,
    relative,
    response_logits,
    rows_of_ids,
    small,
    with_teacher,
)

import kit
import sdzero
from kit.errors import UserError
from kit.losses import micro_batches
from sdzero import Row

KINDS = ["reverse", "forward", "mixed"]
HEADS = [
    dict(),
    dict(bias=False),
    dict(final_logit_softcapping=2.0),
    dict(logit_scale=0.3),
    dict(bias=False, logits_scaling=4.0, final_logit_softcapping=1.5),
]


# --------------------------------------------------------------------------------------------------
# Against brute force
# --------------------------------------------------------------------------------------------------
def brute_logits(model, hidden):
    c = model.config
    logits = hidden @ model.head.weight.T
    if model.head.bias is not None:
        logits = logits + model.head.bias
    logits = logits * getattr(c, "logit_scale", 1.0) / getattr(c, "logits_scaling", 1.0)
    cap = getattr(c, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def brute_divergence(s, t, kind):
    p, q = torch.softmax(s, -1), torch.softmax(t, -1)
    reverse = (p * (p.log() - q.log())).sum(-1)
    forward = (q * (q.log() - p.log())).sum(-1)
    return {"reverse": reverse, "forward": forward, "mixed": (reverse + forward) / 2}[kind]


def leaves_of(model, hidden):
    leaves = hidden, model.head.weight, model.head.bias
    return [leaf for leaf in leaves if leaf is not None]


@pytest.mark.parametrize("chunk", [1, 3, 11, 1000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_divergence_and_gradient_equal_brute_force(monkeypatch, kind, head, chunk):
    monkeypatch.setattr(kit.losses, "chunk_rows", lambda vocabulary: chunk)
    # the teacher may be of another width
    student, teacher = fake_model(seed=1, **head), fake_model(hidden=5, seed=2, **head)
    hidden = (3 * torch.randn(11, 6, dtype=torch.float64)).requires_grad_()
    teacher_hidden = 3 * torch.randn(11, 5, dtype=torch.float64)
    leaves = leaves_of(student, hidden)
    teacher_logits = brute_logits(teacher, teacher_hidden).detach()
    expected = brute_divergence(brute_logits(student, hidden), teacher_logits, kind)
    expected_grads = torch.autograd.grad(expected.sum() * 0.37, leaves)

    cfg = small(divergence=kind)
    total, values = sdzero.distillation_loss(student, hidden, teacher, teacher_hidden, cfg)
    assert torch.allclose(values, expected, rtol=1e-10, atol=1e-12)
    assert torch.allclose(total, expected.sum(), rtol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(total * 0.37, leaves), expected_grads):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert teacher.head.weight.grad is None and not values.requires_grad


@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_nll_and_gradient_equal_brute_force(monkeypatch, head, chunk):
    monkeypatch.setattr(kit.losses, "chunk_rows", lambda vocabulary: chunk)
    model, targets = fake_model(seed=3, **head), torch.arange(9) * 5 % 17
    hidden = (3 * torch.randn(9, 6, dtype=torch.float64)).requires_grad_()
    leaves = leaves_of(model, hidden)
    probabilities = torch.softmax(brute_logits(model, hidden), -1)
    expected = -probabilities.log()[torch.arange(9), targets]
    expected_grads = torch.autograd.grad(expected.sum(), leaves)

    total, values = sdzero.nll_loss(model, hidden, targets)
    assert torch.allclose(values, expected, rtol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(total, leaves), expected_grads):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_kl_clip_stops_the_gradient_of_tokens_above_it(kind, clip):
    """min(KL, clip) per token; the gradient of the others is unchanged; 0 means no clip."""
    student, teacher = random_model(1, torch.float64), random_model(2, torch.float64)
    hidden, other = torch.randn(2, 9, 32, dtype=torch.float64)
    hidden.requires_grad_()
    logits = hidden @ student.lm_head.weight.T
    kl = brute_divergence(logits, (other @ teacher.lm_head.weight.T).detach(), kind)
    largest = float(kl.detach().median()) if clip else torch.inf
    expected = torch.autograd.grad(kl.clamp(max=largest).sum(), hidden)[0]
    cfg = small(divergence=kind, kl_clip=largest if clip else 0.0)
    total, values = sdzero.distillation_loss(student, hidden, teacher, other, cfg)
    gradient = torch.autograd.grad(total, hidden)[0]
    assert torch.allclose(values, kl.clamp(max=largest)) and torch.allclose(gradient, expected)
    assert (0 < int((gradient.abs().sum(-1) == 0).sum()) < 9) == clip


def test_divergences_are_what_their_names_say():
    s, t = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    for divergence in sdzero.DIVERGENCES.values():
        assert (divergence(s, t) > 0).all()
        nothing = torch.zeros(5, dtype=torch.float64)
        assert torch.allclose(divergence(s, s + 3.0), nothing, atol=1e-12)
    assert torch.equal(sdzero.forward_kl(s, t), sdzero.reverse_kl(t, s))
    assert not torch.allclose(sdzero.forward_kl(s, t), sdzero.reverse_kl(s, t))
    assert torch.allclose(sdzero.mixed_kl(s, t), sdzero.mixed_kl(t, s))  # symmetric


def test_a_new_loss_needs_no_gradient_of_its_own():
    """Jensen-Shannon divergence by autograd, through the same chunks."""

    def jensen_shannon(s, t):
        log_s, log_t = F.log_softmax(s, -1), F.log_softmax(t, -1)
        middle = torch.logaddexp(log_s, log_t) - np.log(2)
        of_s, of_t = log_s.exp() * (log_s - middle), log_t.exp() * (log_t - middle)
        return (of_s + of_t).sum(-1) / 2

    model, targets = random_model(1, torch.float64), torch.randn(9, 336, dtype=torch.float64)
    hidden = torch.randn(9, 32, dtype=torch.float64, requires_grad=True)

    def loss_fn(logits, rows):
        return jensen_shannon(logits, targets[rows])

    total, _ = kit.losses.token_loss(model, hidden, loss_fn)
    expected = jensen_shannon(hidden @ model.lm_head.weight.T, targets).sum()
    ours, theirs = (torch.autograd.grad(value, hidden)[0] for value in (total, expected))
    assert torch.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("form", [lambda losses: losses.mean(), lambda losses: losses[:, None]])
def test_a_loss_that_is_not_one_value_per_token_is_refused(form):
    """A mean would be logged as if it were right, and train with a part of its gradient."""
    hidden = torch.randn(9, 32, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="one value per token"):
        kit.losses.token_loss(
            random_model(1, torch.float64), hidden, lambda logits, _: form(logits[:, 0])
        )


def test_the_gradient_of_the_head_is_handed_over_without_a_copy():
    model = fake_model()
    hidden = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    total, _ = sdzero.nll_loss(model, hidden, torch.arange(4))
    places = [g.data_ptr() for g in total.grad_fn.grads if g is not None]
    total.backward()
    leaves = leaves_of(model, hidden)
    assert [leaf.grad.data_ptr() for leaf in leaves] == places


def off_by(ours, exact):
    return float((ours.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("tokens", [1000, 32768])
def test_the_gradient_of_a_bfloat16_head_is_added_in_large_blocks(monkeypatch, tokens):
    """A sum of bfloat16 loses a little with each term: of 256 blocks of 128 tokens 1 % and more."""
    monkeypatch.setattr(kit.losses, "chunk_rows", lambda vocabulary: 128)
    torch.manual_seed(0)
    hidden = (torch.randn(tokens, 16) + torch.randn(16) / 3).to(torch.bfloat16).requires_grad_()
    head = torch.nn.Linear(16, 64, bias=False, dtype=torch.bfloat16)
    g = (torch.randn(tokens, 64) / 10 - torch.rand(64) / 20).to(torch.bfloat16)
    config = SimpleNamespace()
    config.get_text_config = lambda: config
    model = SimpleNamespace(get_output_embeddings=lambda: head, config=config)
    total, _ = kit.losses.token_loss(model, hidden, lambda logits, rows: (logits * g[rows]).sum(-1))
    total.backward()

    h = hidden.detach()
    exact = g.double().T @ h.double()
    small, in_fp32 = torch.zeros_like(head.weight), torch.zeros(64, 16)
    for rows in torch.arange(tokens).split(128):
        small.addmm_(g[rows].T, h[rows])
        in_fp32 += g[rows].T @ h[rows]
    ours, of_small, of_fp32 = (off_by(found, exact) for found in (head.weight.grad, small, in_fp32))
    assert of_fp32 < 0.001 and ours < 0.008
    if tokens > 1024:
        assert of_small > 0.01 and ours < of_small / 2
    assert torch.equal(hidden.grad, g @ head.weight.detach())


def test_without_gradients_the_head_is_given_none():
    """log pi of GRPO's old policy is taken under no_grad: nothing of the head's size is made."""
    model, seen = random_model(), []

    def loss_fn(logits, chunk):
        seen.append(logits.requires_grad)
        return logits.sum(-1)

    hidden = torch.randn(5, model.config.hidden_size, requires_grad=True)
    kit.losses.token_loss(model, hidden, loss_fn)
    with torch.no_grad():
        kit.losses.token_loss(model, hidden, loss_fn)
    assert seen == [True, False]


def test_a_gpus_logits_of_a_bfloat16_head_are_not_rounded(monkeypatch):
    """torch.mm(..., out_dtype=float32), played on a CPU: loss and gradient near those in fp32."""
    mm, calls = torch.mm, []

    def in_fp32(a, b, out_dtype=None):
        calls.append(out_dtype)
        return mm(a.to(out_dtype), b.to(out_dtype))

    targets, found = torch.arange(40) % 17, []
    for kind in ("fp32", "bf16 of a CPU", "bf16 of a GPU"):
        model = fake_model(bias=True, seed=4)
        hidden = 3 * torch.randn(40, 6).to(torch.bfloat16)
        for p in model.head.parameters():
            p.data = 2 * p.data.to(torch.bfloat16)
        if kind == "fp32":
            hidden, _ = hidden.float(), model.head.float()
        if kind == "bf16 of a GPU":
            monkeypatch.setattr(torch, "mm", in_fp32)
            monkeypatch.setattr(kit.losses, "sums_in_fp32", lambda weight: True)
        values = sdzero.nll_loss(model, hidden.requires_grad_(), targets)[1]
        logits = kit.losses.logits_of(hidden.detach(), kit.losses.head_of(model))
        found.append((values, logits))
    (exact, exact_logits), (rounded, _), (ours, our_logits) = found
    assert set(calls) == {torch.float32} and torch.allclose(our_logits, exact_logits, atol=1e-5)
    assert torch.allclose(ours, exact, atol=1e-5) and not torch.allclose(rounded, exact, atol=1e-3)


def test_log_probs_of_a_row_alone_and_in_a_padded_batch_are_the_models_own(model):
    pairs = rows_of_ids(6, context=(2, 30), response=(1, 20))

    def log_probs(contexts, responses):
        with torch.no_grad():
            hidden = sdzero.response_hidden(model, contexts, responses)
            return -sdzero.nll_loss(model, hidden, sdzero.targets_of(model, responses))[1]

    batch = log_probs(*zip(*pairs)).split([len(y) for _, y in pairs])
    for (context, y), together in zip(pairs, batch):
        with torch.no_grad():
            logits = response_logits(model, context, y)
        plain = torch.log_softmax(logits, -1)[torch.arange(len(y)), torch.tensor(y)]
        assert torch.allclose(log_probs([context], [y]), plain, atol=1e-4)
        assert torch.allclose(together, plain, atol=1e-4)
        assert len(y) < 3 or plain.std() > 0.1


# --------------------------------------------------------------------------------------------------
# The output embedding of other architectures
# --------------------------------------------------------------------------------------------------
SIZE = dict(
    vocab_size=336,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=0.25,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=2,
)
ARCHITECTURES = {
    "Gemma2": dict(head_dim=8, final_logit_softcapping=2.0),
    "Cohere": dict(head_dim=8, logit_scale=0.0625),
    "Granite": dict(head_dim=8, logits_scaling=8.0),
    "Llama": dict(head_dim=8, tie_word_embeddings=False),
    "Olmo2": dict(),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_heads_of_other_architectures(name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZE, **ARCHITECTURES[name])
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    kit.loading.check_head(model)
    ((context, y),) = rows_of_ids(1, context=(9, 10), response=(8, 9))
    at = torch.arange(len(y)), torch.tensor(y)
    with torch.no_grad():
        plain = torch.log_softmax(response_logits(model, context, y), -1)[at]
        hidden = sdzero.response_hidden(model, [context], [y])
        ours = -sdzero.nll_loss(model, hidden, at[1])[1]
        raw = torch.log_softmax(F.linear(hidden, model.get_output_embeddings().weight), -1)[at]
    assert torch.allclose(ours, plain, atol=1e-4)
    if name in ("Gemma2", "Cohere", "Granite"):  # what was done to the logits mattered here
        assert not torch.allclose(raw, plain, atol=1e-2)


def test_a_head_that_does_something_else_is_refused():
    class Odd(transformers.Qwen3ForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 1.5
            return out

    with pytest.raises(UserError, match="logits"):
        kit.loading.check_head(Odd(random_model().config))
    kit.loading.check_head(random_model())


# --------------------------------------------------------------------------------------------------
# Passes
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("budget", [1, 10, 33, 64, 1000])
def test_passes_cover_every_row_once_within_the_budget(budget):
    lengths = np.random.default_rng(budget).integers(1, 40, 57).tolist()
    passes = micro_batches(lengths, budget)
    assert sorted(itertools.chain(*passes)) == list(range(57))
    for rows in passes:
        assert len(rows) == 1 or len(rows) * max(lengths[i] for i in rows) <= budget


@pytest.mark.parametrize("budget", [4096, 16384, 65536])
@pytest.mark.parametrize("rows", [64, 128, 512])
def test_padding_is_below_a_tenth(budget, rows):
    lengths = 200 + np.random.default_rng(rows).lognormal(6.5, 0.7, rows)
    lengths = lengths.clip(max=4096).astype(int).tolist()
    passes = micro_batches(lengths, budget)
    padded = sum(len(p) * max(lengths[i] for i in p) for p in passes)
    assert padded < sum(lengths) / 0.9


@pytest.mark.parametrize("rows", [64, 128, 512])
def test_padding_is_below_a_tenth_with_the_defaults(rows):
    """Responses of a few hundred tokens, log-normal: the student's rows, and the teacher's in the
    same passes, which read y twice."""
    lengths = np.random.default_rng(rows).lognormal(5.6, 0.6, rows)  # mean about 320
    lengths = lengths.clip(10, 2000).astype(int)
    student, teacher = (80 + lengths).tolist(), (96 + 2 * lengths).tolist()
    passes = micro_batches(student, 2048)
    for row in (student, teacher):
        padded = sum(len(p) * max(row[i] for i in p) for p in passes)
        assert padded < sum(row) / 0.9


def test_no_token_is_computed_twice_in_a_step():
    """Each row goes once through each model; padding alone comes on top of what the loss needs."""
    student, teacher, seen = random_model(1), random_model(2).requires_grad_(False), {}
    run = plain_run(small(micro_tokens=1500))

    def watch(name, model):
        def hook(module, args, kwargs):
            seen[name] = seen.get(name, 0) + kwargs["input_ids"].numel()

        model.model.register_forward_pre_hook(hook, with_kwargs=True)

    watch("context", student)
    watch("teacher_context", teacher)
    samples = as_samples(rows_of_ids(40, context=(40, 44), response=(60, 180)))
    sdzero.backward_kl(run, student, teacher, with_teacher(run, samples))
    for name, tokens in seen.items():
        needed = sum(len(s[name]) + len(s["ids"]) - 1 for s in samples)
        assert needed <= tokens < 1.1 * needed


def test_both_likelihoods_of_a_tuple_share_a_pass():
    pairs, model, calls = rows_of_ids(6), random_model(1, torch.float64), []
    rows = [Row(c + r, [1, len(c)] if i < 4 else [len(c)]) for i, (c, r) in enumerate(pairs)]
    for ids, starts in rows:
        for start in starts:
            logits = response_logits(model, ids[:start], ids[start:])
            loss = F.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum")
            (loss / 7).backward()
    expected = gradients(model)
    model.zero_grad()

    def hook(module, args, kwargs):
        calls.append(len(kwargs["input_ids"]))

    model.model.register_forward_pre_hook(hook, with_kwargs=True)
    sdzero.backward_nll(plain_run(small(micro_tokens=50)), model, rows, 7)
    assert relative(gradients(model), expected) < 1e-5 and sum(calls) == 6


def test_gradient_checkpointing_gives_the_same_gradient():
    run, found = plain_run(small()), []
    samples = with_teacher(run, as_samples(rows_of_ids(7)))
    for checkpointing in (False, True):
        student, calls = random_model(1), []
        if checkpointing:
            kwargs = {"use_reentrant": False}
            student.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
        hook = student.model.layers[0].self_attn.register_forward_pre_hook
        hook(lambda *args, calls=calls: calls.append(1))
        student.train()
        teacher = sdzero.frozen_copy(random_model(2))
        loss = sdzero.backward_kl(run, student, teacher, samples)
        found.append((loss, gradients(student), len(calls)))
    assert found[0][0] == found[1][0] and relative(found[1][1], found[0][1]) < 1e-5
    assert found[1][2] == 2 * found[0][2]  # the activations were really recomputed


# --------------------------------------------------------------------------------------------------
# Memory that runs out, and memory that is given back
# --------------------------------------------------------------------------------------------------
NO_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "CPU": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
}


class FailAbove(torch.autograd.Function):
    """Fails in the backward pass, when the layers above have added to their gradients, above
    `limit` tokens."""

    @staticmethod
    def forward(ctx, x, limit, error):
        ctx.failing = error if x.shape[0] * x.shape[1] > limit else None
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if ctx.failing:
            raise ctx.failing
        return grad, None, None


def failing_above(limit, error):
    model = random_model(1)
    layer = model.model.layers[1]
    layer.register_forward_hook(lambda module, args, out: FailAbove.apply(out, limit, error))
    return model


@pytest.mark.parametrize("error", NO_MEMORY)
@pytest.mark.parametrize("phase", [1, 2])
def test_a_pass_that_runs_out_of_memory_is_halved(capsys, phase, error):
    pairs, found = rows_of_ids(14), []
    for limit in (10**9, 60):
        model, run = failing_above(limit, NO_MEMORY[error]), plain_run(small(micro_tokens=10**6))
        if phase == 1:
            loss = sdzero.backward_nll(run, model, as_rows(pairs), 50)
        else:
            samples = with_teacher(run, as_samples(pairs))
            loss = sdzero.backward_kl(run, model, random_model(2).requires_grad_(False), samples)
        found.append((loss, gradients(model), run.room.tokens))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert relative(found[1][1], found[0][1]) < 1e-5
    assert found[1][2] < 120 < found[0][2]  # passes of 60 tokens at most
    assert "memory ran out" in capsys.readouterr().out


def test_a_single_row_that_does_not_fit_is_said_in_one_line():
    model = failing_above(5, NO_MEMORY["GPU"])
    with pytest.raises(UserError, match="--gradient-checkpointing"):
        sdzero.backward_nll(plain_run(small()), model, as_rows(rows_of_ids(8)), 50)


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_a_step_does_without_malloc_trim(monkeypatch, error):
    """ctypes.CDLL(None) is a TypeError on Windows; other C libraries have no malloc_trim."""
    called = []

    def no_library(name):
        called.append(name)
        raise error

    monkeypatch.setattr(kit.losses.ctypes, "CDLL", no_library)
    large = SimpleNamespace(device=torch.device("cpu"), numel=lambda: 5_000_000)
    kit.losses.trim_heap(large)
    assert called == [None]
    kit.losses.trim_heap(torch.zeros(8))  # a small model is not worth it
    assert called == [None]
