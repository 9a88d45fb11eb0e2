"""The variants of phase 2: each loss against its formula, and what each does to a run."""

import math

import pytest
import torch
import torch.nn.functional as F
from toys import (
    as_samples,
    gradients,
    lines_of,
    message_of,
    plain_run,
    random_model,
    rows_of_ids,
    small,
    weights_of,
    with_teacher,
)

import kit
import sdzero
from kit.errors import UserError
from studies import localise, variants
from studies.variants import VariantConfig, loss_of_tokens, make_variant_config


def logits_and_targets(n=5, v=11, seed=0):
    g = torch.Generator().manual_seed(seed)
    p, q = torch.randn(n, v, generator=g) * 2, torch.randn(n, v, generator=g) * 2
    return p.double(), q.double(), torch.randint(0, v, (n,), generator=g)


def loss(p, q, targets, **options):
    return loss_of_tokens(VariantConfig(**options), p, q, targets)


def test_without_a_variant_the_loss_is_sdzeros_own():
    p, q, targets = logits_and_targets()
    for name, divergence in sdzero.DIVERGENCES.items():
        assert torch.equal(loss(p, q, targets, divergence=name), divergence(p, q))


def test_jensen_shannon_is_its_formula_and_symmetric_at_one_half():
    p, q, targets = logits_and_targets()
    for beta in (0.1, 0.5, 0.9):
        a, b = p.softmax(-1), q.softmax(-1)
        m = beta * b + (1 - beta) * a
        plain = beta * (b * (b / m).log()).sum(-1) + (1 - beta) * (a * (a / m).log()).sum(-1)
        found = loss(p, q, targets, divergence="jsd", jsd_beta=beta)
        torch.testing.assert_close(found, plain)
    half = {"divergence": "jsd", "jsd_beta": 0.5}
    torch.testing.assert_close(loss(p, q, targets, **half), loss(q, p, targets, **half))
    assert (loss(p, q, targets, **half) <= math.log(2)).all()


def test_jensen_shannon_near_its_ends_is_a_kl():
    """JSD / (1 - beta) -> KL(student || teacher) for beta -> 1; JSD / beta -> the forward KL."""
    p, q, targets = logits_and_targets()
    near_one = loss(p, q, targets, divergence="jsd", jsd_beta=0.99999) / 0.00001
    torch.testing.assert_close(near_one, sdzero.reverse_kl(p, q), rtol=1e-2, atol=1e-3)
    near_zero = loss(p, q, targets, divergence="jsd", jsd_beta=0.00001) / 0.00001
    torch.testing.assert_close(near_zero, sdzero.forward_kl(p, q), rtol=1e-2, atol=1e-3)


def test_the_sampled_tokens_gradient_is_on_average_that_of_the_reverse_kl():
    p, q, _ = logits_and_targets(n=1)
    p.requires_grad_()
    average = torch.zeros_like(p)
    for token in range(p.shape[-1]):  # the expectation over y ~ p, in full
        one = loss(p, q, torch.tensor([token]), divergence="sampled").sum()
        average += p.detach().softmax(-1)[0, token] * torch.autograd.grad(one, p)[0]
    whole = torch.autograd.grad(sdzero.kl(p, q).sum(), p)[0]
    torch.testing.assert_close(average, whole)


def test_a_penalty_lowers_doubted_tokens_and_leaves_the_others():
    p, q, _ = logits_and_targets(n=2)
    p.requires_grad_()
    likeliest = q.argmax(-1)
    targets = torch.stack([likeliest[0], (likeliest[1] + 1) % q.shape[-1]])
    found = loss(p, q, targets, divergence="penalty")
    gradient = torch.autograd.grad(found.sum(), p)[0]
    assert not gradient[0].any()
    after = (p - 0.1 * gradient)[1].log_softmax(-1)[targets[1]]
    assert after < p[1].log_softmax(-1)[targets[1]]


@pytest.mark.parametrize("k", [1, 4, 10])
def test_the_tail_is_one_more_token(k):
    p, q, targets = logits_and_targets()
    a, b = p.softmax(-1), q.softmax(-1)
    top = q.topk(k).indices
    a = torch.cat([a.gather(-1, top), 1 - a.gather(-1, top).sum(-1, keepdim=True)], -1)
    b = torch.cat([b.gather(-1, top), 1 - b.gather(-1, top).sum(-1, keepdim=True)], -1)
    plain = (a * (a / b).log()).sum(-1)
    torch.testing.assert_close(loss(p, q, targets, top_k=k, tail=True), plain)
    assert (plain <= sdzero.kl(p, q) + 1e-9).all()  # coarser distributions are nearer


def test_with_all_tokens_the_tail_is_never_empty():
    p, q, targets = logits_and_targets()
    p.requires_grad_()
    found = loss(p, q, targets, top_k=99, tail=True)
    torch.testing.assert_close(found, sdzero.kl(p, q))
    assert torch.autograd.grad(found.sum(), p)[0].isfinite().all()


def test_a_clipped_term_is_flat_and_the_others_stay():
    p, q, targets = logits_and_targets()
    torch.testing.assert_close(loss(p, q, targets, term_clip=1e9), sdzero.kl(p, q))
    a, b = p.softmax(-1), q.softmax(-1)
    plain = (a * (a / b).log()).clamp(max=0.05).sum(-1)
    torch.testing.assert_close(loss(p, q, targets, term_clip=0.05), plain)


# --------------------------------------------------------------------------------------------------
# A batch, and a run
# --------------------------------------------------------------------------------------------------
def batch_of(cfg):
    run = plain_run(cfg)
    return run, with_teacher(run, as_samples(rows_of_ids(5)))


def gradient_of(backward, cfg):
    student, teacher = random_model(), random_model(seed=1)
    run, samples = batch_of(cfg)
    value = backward(run, student, teacher, samples)
    return value, gradients(student)


@pytest.mark.parametrize("tokens", [60, 4000])
def test_a_batchs_gradient_is_sdzeros_and_does_not_depend_on_the_passes(tokens):
    cfg = VariantConfig(reduction="mean", micro_tokens=tokens)
    ours, theirs = (gradient_of(f, cfg) for f in (variants.backward_variant, sdzero.backward_kl))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-7)


def test_an_averaged_teacher_follows_the_student():
    student, teacher = random_model(), random_model(seed=1)
    a, b = weights_of(teacher), weights_of(student)
    variants.average(teacher, student, 0.75)
    torch.testing.assert_close(weights_of(teacher), 0.75 * a + 0.25 * b)
    assert torch.equal(weights_of(student), b)


def test_a_run_of_a_variant(coin, checkpoint, tmp_path):
    options = {"divergence": "jsd", "teacher_ema": 0.5}
    cfg = VariantConfig(**{**vars(small(checkpoint, out=str(tmp_path / "run"))), **options})
    results = sdzero.train(cfg, variants.stages_of(cfg))
    assert list(results) == ["base", "srt", "sdzero"]
    assert localise.config_of(tmp_path / "run", {}).divergence == "reverse"  # it can be looked at
    kls = [
        x["loss"] for x in lines_of(tmp_path / "run" / "metrics.jsonl") if x["phase"] == "distil"
    ]
    assert all(0 < kl < math.log(2) for kl in kls)


def test_options_that_exclude_each_other(capsys):
    def message(*words):
        return message_of(capsys, variants.main, *words)

    assert "--top-k" in message("--tail")
    assert "one token" in message("--divergence", "sampled", "--top-k", 4)
    assert "reverse" in message("--term-clip", 1, "--divergence", "jsd")
    assert "phase 2" in message("--method", "srt", "--teacher-ema", 0.9)
    assert "--sync-every" in message("--teacher-ema", 0.9, "--sync-every", 5)
    assert make_variant_config(top_k=4, tail=True).tail


def test_a_teacher_in_cpu_memory_is_averaged_there(monkeypatch):
    """--offload: its weights are at home on another device than the student's."""
    teacher, student = random_model(1), random_model(2)
    came, lerp = [], torch.Tensor.lerp_

    def lerp_(ours, theirs, weight):
        came.append((ours.device.type, theirs.device.type))
        return lerp(ours, theirs, weight)

    monkeypatch.setattr(torch.Tensor, "lerp_", lerp_)
    variants.average(teacher.to("meta"), student, 0.75)
    assert set(came) == {("meta", "meta")}


def test_an_average_in_bfloat16_is_refused_before_anything_is_trained(monkeypatch):
    """Of adapters it is one of float32, whatever the frozen weights are."""
    with pytest.raises(UserError, match="float32"):
        make_variant_config(teacher_ema=0.9, dtype="bfloat16")
    monkeypatch.setattr(kit.gpu, "weights_are_low", lambda cfg, device: True)
    with pytest.raises(UserError, match="float32"):
        make_variant_config(teacher_ema=0.9)
    assert make_variant_config(teacher_ema=0.9, dtype="float32").teacher_ema == 0.9
    assert make_variant_config(teacher_ema=0.9, lora=8).lora == 8


def test_a_plan_trains_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sdzero, "train", lambda *_: pytest.fail("trained"))
    out = tmp_path / "run"
    assert variants.main(["--plan", "--divergence", "jsd", "--out", str(out)]) == 0
    assert "GB" in capsys.readouterr().out and not out.exists()


def test_cross_entropy_of_the_sampled_token_is_its_log_probability():
    p, q, targets = logits_and_targets()
    log_p = F.log_softmax(p, -1).gather(-1, targets[:, None])[:, 0]
    log_q = F.log_softmax(q, -1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(variants.sampled_loss(p, q, targets), (log_p - log_q) * log_p)
