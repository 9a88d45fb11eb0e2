"""--lora: adapters on frozen weights, against plain formulas and against full fine-tuning."""

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F
from toys import (
    Killed,
    as_rows,
    as_samples,
    lines_of,
    message_of,
    plain_run,
    random_model,
    relative,
    response_logits,
    rows_of_ids,
    run_through_kills,
    small,
    with_teacher,
)
from transformers import AutoModelForCausalLM

import baselines
import sdzero
from baselines import make_baseline_config
from kit.adapters import ALPHA, add_adapters, lora_layers, merged
from kit.low_bits import adamw, trained
from kit.run_folder import RunFolder
from sdzero import make_config

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None,
    reason="peft not installed: pip install --no-deps peft accelerate psutil",
)
RANK = 4
WEIGHTS = "adapter_model.safetensors"


def with_adapters(rank=RANK, dtype=torch.float32, moved=0.05, **changes):
    """The random model with adapters that have moved from where they start."""
    model = random_model(**changes)
    add_adapters(model, rank, seed=0, dtype=dtype)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trained(model):
            p += moved * torch.randn_like(p)
    return model


def greedy(model, n=12):
    ids = torch.tensor([context for context, _ in rows_of_ids(6, context=(7, 8))])
    how = dict(do_sample=False, max_new_tokens=n, pad_token_id=0, eos_token_id=None)
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 60)[None]).logits.float()


# --------------------------------------------------------------------------------------------------
# Student and teacher
# --------------------------------------------------------------------------------------------------
@needs_peft
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_teacher_is_the_student_until_a_step_and_again_when_synchronised(dtype):
    student = with_adapters(dtype=dtype)
    teacher = sdzero.frozen_copy(student)
    assert torch.equal(greedy(student), greedy(teacher))
    before = logits(teacher)
    assert torch.equal(logits(student), before)
    optimizer = adamw(student, 1e-2, 0.0, small())
    sdzero.backward_nll(plain_run(small()), student, as_rows(rows_of_ids(5)), 20)
    sdzero.update(student, optimizer, 1e-2, 1.0)
    assert torch.equal(logits(teacher), before) and not torch.equal(logits(student), before)
    teacher.load_state_dict(student.state_dict())
    assert torch.equal(logits(student), logits(teacher))


@needs_peft
def test_the_teacher_costs_an_adapter_alone():
    student = with_adapters()
    teacher = sdzero.frozen_copy(student)
    own = {p.data_ptr() for p in student.parameters()}
    extra = sum(p.numel() for p in teacher.parameters() if p.data_ptr() not in own)
    assert extra == sum(p.numel() for p in trained(student)) > 0
    assert not any(p.requires_grad for p in teacher.parameters())
    # without adapters the teacher is a whole model, as ever
    student = random_model()
    teacher = sdzero.frozen_copy(student)
    assert all(p.data_ptr() != q.data_ptr() for p, q in zip(*map(list_of, (student, teacher))))


def list_of(model):
    return list(model.parameters())


@needs_peft
def test_training_moves_the_fp32_adapters_alone():
    """The model starts as it was; nothing frozen gets a gradient, a moment or another value."""
    plain = random_model()
    model = with_adapters(dtype=torch.bfloat16, moved=0.0)
    assert relative(logits(model), logits(random_model(dtype=torch.bfloat16))) < 0.02
    assert {p.dtype for p in trained(model)} == {torch.float32}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert len(frozen) == len(list_of(plain)) and {p.dtype for p in frozen} == {torch.bfloat16}
    before = [p.clone() for p in frozen]
    optimizer = adamw(model, 1e-2, 0.01, small())
    for _ in range(2):
        sdzero.backward_nll(plain_run(small()), model, as_rows(rows_of_ids(5)), 20)
        assert all(p.grad is None for p in frozen)
        sdzero.update(model, optimizer, 1e-2, 1.0)
    assert all(torch.equal(p, q) for p, q in zip(frozen, before))
    assert len(optimizer.state) == len(trained(model)) == 2 * len(lora_layers(model))
    assert all(p.abs().sum() > 0 for p in trained(model))


# --------------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------------
def by_formula(model, loss_of):
    """The gradients of A and B, layer after layer, of loss_of(compute), where compute(context,
    response) are the logits of the plain model with W + (alpha / r) B A in place of W."""
    plain, weights, leaves = random_model(), {}, []
    for name, layer in lora_layers(model):
        A = layer.lora_A["default"].weight.detach().clone().requires_grad_()
        B = layer.lora_B["default"].weight.detach().clone().requires_grad_()
        W = plain.get_submodule(name).weight.detach()
        weights[name + ".weight"] = W + ALPHA / RANK * B @ A
        leaves += [A, B]

    def compute(context, response):
        ids = {"input_ids": torch.tensor([context + response])}
        out = torch.func.functional_call(plain, weights, kwargs=ids)
        return out.logits[0, len(context) - 1 : -1]

    grads = torch.autograd.grad(loss_of(compute), leaves)
    return torch.cat([g.flatten() for g in grads])


def adapter_gradients(model):
    return torch.cat([p.grad.flatten() for p in trained(model)])


@needs_peft
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_of_a_batch_is_that_of_the_plain_formula(checkpointing):
    model, run, pairs = with_adapters(), plain_run(small(micro_tokens=40)), rows_of_ids(6)
    if checkpointing:
        kwargs = {"use_reentrant": False}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
        model.train()
    n = sum(len(y) for _, y in pairs)
    sdzero.backward_nll(run, model, as_rows(pairs), n)

    def nll(compute):
        targets = [torch.tensor(y) for _, y in pairs]
        each = [F.cross_entropy(compute(*pair), t) * len(t) for pair, t in zip(pairs, targets)]
        return sum(each) / n

    assert relative(adapter_gradients(model), by_formula(model, nll)) < 1e-4

    model.zero_grad()
    samples, teacher = with_teacher(run, as_samples(pairs)), with_adapters(moved=0.0)
    sdzero.backward_kl(run, model, teacher.requires_grad_(False), samples)
    n = sum(len(s["ids"]) for s in samples)

    def kl(compute):
        total = 0.0
        for s in samples:
            p = F.log_softmax(compute(s["context"], s["ids"]), -1)
            q = response_logits(teacher, s["teacher_context"], s["ids"]).detach()
            total = total + (p.exp() * (p - F.log_softmax(q, -1))).sum()
        return total / n

    assert relative(adapter_gradients(model), by_formula(model, kl)) < 1e-4


@needs_peft
def test_an_adapter_of_full_rank_follows_full_fine_tuning():
    """Let A^T A = 1 / s^2, s = alpha / r, and train B. A step of -lr dL/dB = -lr s G A^T moves W by
    s (-lr s G A^T) A = -lr G: gradient descent on W itself, step after step. A has as many rows as
    W has columns, so this needs the rank to be that of the matrices."""
    sizes = dict(intermediate_size=32)  # all matrices read 32 values
    full, model = random_model(**sizes), random_model(**sizes)
    add_adapters(model, 32, seed=0)
    s, names = ALPHA / 32, {name + ".weight" for name, _ in lora_layers(model)}
    torch.manual_seed(2)
    for _, layer in lora_layers(model):
        A = layer.lora_A["default"].weight.requires_grad_(False)
        A.copy_(torch.linalg.qr(torch.randn(32, 32))[0] / s)
    for name, p in full.named_parameters():
        p.requires_grad_(name in names)
    start = [p.detach().clone() for p in trained(full)]
    run, rows, losses = plain_run(small()), as_rows(rows_of_ids(8)), []
    for one in (full, model):
        optimizer = torch.optim.SGD(trained(one), lr=0.0)
        for _ in range(8):
            losses.append(sdzero.backward_nll(run, one, rows, 30))
            sdzero.update(one, optimizer, 0.1, 1e9)
    assert losses[:8] == pytest.approx(losses[8:], rel=1e-4) and losses[7] < 0.8 * losses[0]
    ends = dict(merged(model).named_parameters())
    for (name, p), w in zip([x for x in full.named_parameters() if x[0] in names], start):
        assert relative(ends[name].detach() - w, p.detach() - w) < 1e-3, name


# --------------------------------------------------------------------------------------------------
# Saved both ways
# --------------------------------------------------------------------------------------------------
@needs_peft
@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_both_checkpoints_compute_what_the_model_computes(tmp_path, tokenizer, dtype, close):
    import peft

    random_model().save_pretrained(tmp_path / "base")
    model, run = with_adapters(dtype=dtype), RunFolder(str(tmp_path / "run"), {}, {}, 20)
    for _ in range(2):  # the second replaces the first
        run.checkpoint("srt", tokenizer, model)
    assert {"srt/model.safetensors", "srt/adapter/adapter_config.json"} <= set(files_of(run))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "srt")
    assert whole.dtype == dtype and not hasattr(whole, "peft_config")
    assert relative(logits(whole), logits(model)) < close
    assert relative(logits(random_model()), logits(model)) > 10 * close
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype)
    adapter = peft.PeftModel.from_pretrained(base, tmp_path / "run" / "srt" / "adapter")
    assert torch.equal(logits(adapter), logits(model))


def files_of(run):
    """What the run says are its files: all that are there."""
    there = [p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()]
    assert set(there) <= {"run.json", *run.ownership.marker["files"]}
    return there


@needs_peft
def test_merging_leaves_the_model_as_it_is():
    model = with_adapters()
    before = logits(model)
    plain = merged(model)
    assert relative(logits(plain), before) < 1e-5 and torch.equal(logits(model), before)
    assert not lora_layers(plain) and len(lora_layers(model)) == 14
    assert merged(plain) is plain


# --------------------------------------------------------------------------------------------------
# Whole runs
# --------------------------------------------------------------------------------------------------
RUNS = [
    {"method": "sdzero", "sync_every": 2},
    {"method": "sdzero", "dtype": "bfloat16", "gradient_checkpointing": True},
    {"method": "rft", "rounds": 2},
    {"method": "grpo", "kl": 0.1, "updates": 2, "group": 2},
    {"method": "sdft", "moments": "bfloat16"},
    {"method": "sft"},
]


@needs_peft
@pytest.mark.parametrize("options", RUNS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_method_trains_adapters_and_goes_on_to_the_same_bits(
    tmp_path, checkpoint, coin, monkeypatch, options
):
    given = dict(model=checkpoint, digits=2, eval_questions=3, temperature=1.0, max_tokens=8)
    given |= dict(revisions=2, eval_samples=1, samples=24, save_every=1, lora=RANK)
    given |= dict(srt_questions=4, distil_questions=12)
    if options["method"] == "sdzero":
        given |= dict(srt_epochs=2, srt_batch=4, srt_lr=1e-2, distil_batch=4, distil_lr=1e-2)
        make, module = make_config, sdzero
    else:
        given |= dict(batch=4, lr=1e-2)
        make, module = make_baseline_config, baselines

    def run(name):
        cfg = make(**{**given, **options}, out=str(tmp_path / name))
        return sdzero.train(cfg, module.stages_of(cfg))

    run("whole")
    save_state, sizes = RunFolder.save_state, []

    def killing(self, phase, step, *state, **more):
        save_state(self, phase, step, *state, **more)
        sizes.append((self.path / "state" / "latest.pt").stat().st_size)
        if step in (1, 3) and phase not in killed:
            killed.append(phase)
            raise Killed

    killed = []
    run_through_kills(monkeypatch, killing, lambda: run("stopped"))
    assert killed
    stage = options["method"]
    for name in ("results.json", f"{stage}/model.safetensors", f"{stage}/adapter/{WEIGHTS}"):
        whole, stopped = (tmp_path / folder / name for folder in ("whole", "stopped"))
        assert whole.read_bytes() == stopped.read_bytes()
    plain = AutoModelForCausalLM.from_pretrained(checkpoint)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / stage).named_parameters()
    before = dict(plain.named_parameters())
    moved = {name for name, p in after if not torch.equal(p, before[name].to(p.dtype))}
    assert moved and all("proj" in name for name in moved)
    assert lines_of(tmp_path / "whole" / "metrics.jsonl")[-1]["trained"] > 0


@needs_peft
def test_a_saved_state_holds_the_adapters_alone(tmp_path):
    student = with_adapters()
    teacher, folder = sdzero.frozen_copy(student), RunFolder(str(tmp_path / "run"), {}, {}, 20)
    folder.save_state("distil", 1, student, adamw(student, 1e-3, 0.0, small()), teacher)
    saved = folder.load_state()
    for name in ("model", "teacher"):
        assert sum(w.numel() for w in saved[name].values()) == sum(
            p.numel() for p in trained(student)
        )
    fresh, folder.saved = with_adapters(moved=0.0), saved
    other = sdzero.frozen_copy(fresh)
    assert folder.restore(fresh, adamw(fresh, 1e-3, 0.0, small()), other) == 1
    assert torch.equal(logits(fresh), logits(student)) and torch.equal(logits(other), logits(fresh))


# --------------------------------------------------------------------------------------------------
# Options
# --------------------------------------------------------------------------------------------------
def test_adapters_have_learning_rates_of_their_own():
    real = {"model": "Qwen/Qwen3-4B-Instruct"}
    for given, factor in (({}, 3), (real, 10)):
        whole, lora = make_config(**given), make_config(**given, lora=8)
        assert lora.srt_lr == pytest.approx(factor * whole.srt_lr)
        assert lora.distil_lr == pytest.approx(factor * whole.distil_lr)
        for method in ("rft", "sft", "grpo", "sdft"):
            whole, lora = (make_baseline_config(method=method, lora=r, **given) for r in (0, 8))
            assert lora.lr == pytest.approx(factor * whole.lr)
    assert make_config(lora=8, srt_lr=1e-4).srt_lr == 1e-4
    assert make_baseline_config(method="rft", lora=8, lr=1e-4).lr == 1e-4


@needs_peft
def test_the_same_seed_gives_the_same_adapters_whatever_came_before():
    torch.manual_seed(5)
    a = random_model()
    add_adapters(a, RANK, seed=3)
    b, c = random_model(), random_model()
    torch.randn(7)
    add_adapters(b, RANK, seed=3)
    add_adapters(c, RANK, seed=4)
    assert all(torch.equal(p, q) for p, q in zip(trained(a), trained(b)))
    assert any(not torch.equal(p, q) for p, q in zip(trained(a), trained(c)))


def test_what_lora_cannot_do_is_one_line(tmp_path, capsys, checkpoint, monkeypatch, coin):
    words = ["--model", checkpoint, "--out", tmp_path / "run"]
    assert "--lora must be at least 0" in message_of(capsys, sdzero.main, *words, "--lora", -1)
    if importlib.util.find_spec("peft") is not None:
        message = message_of(capsys, sdzero.main, *words, "--lora", 33)
        assert "--lora 33" in message and "32" in message
    monkeypatch.setitem(sys.modules, "peft", None)
    message = message_of(capsys, sdzero.main, *words, "--lora", 4)
    assert "pip install --no-deps peft" in message
