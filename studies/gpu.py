"""What to run once on a card: `python studies/bench.py gpu` replaces the plan's estimates.

In under 10 minutes: losses and gradients beside the CPU's, tokens a second of rollouts, seconds and
memory of both phases' steps in each setting, beside the plan, and two ranks where there are two
cards. It ends with a table and a JSON file. Without a GPU it does the same at toy size, so that it
works the first time somebody has one; its numbers then mean nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kit
import sdzero
from kit.errors import UserError
from kit.late import torch
from kit.presets import ALIASES
from kit.tables import table
from studies.steps import (
    backward_phase2,
    largest_pass,
    random_ids,
    random_samples,
    row_lengths,
)

TOY = dict(
    model_type="qwen3",
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=512,
    tie_word_embeddings=True,
)
LIKE = "Qwen/Qwen3-0.6B"  # on a GPU: a random model of this one's sizes
SETTINGS = {
    "plain": {},
    "--gradient-checkpointing": {"gradient_checkpointing": True},
    "--moments bfloat16": {"moments": "bfloat16"},
    "--offload": {"offload": True},
    "--lora 16": {"lora": 16},
}
CLOSE = {"float32": 0.01, "bfloat16": 0.1}  # relative errors of gradients (TF32; 8 bits)


# --------------------------------------------------------------------------------------------------
# Models and rows
# --------------------------------------------------------------------------------------------------
def random_folder(folder: Path, facts: dict) -> str:
    """A checkpoint of random weights, with the embedded model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(**facts, eos_token_id=2)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(ALIASES["tiny"]).save_pretrained(folder)
    return str(folder)


def settings_of(args, model: str, device: str, **given):
    """The configuration of a part; nothing is left to the plan, which is what is checked."""
    limits = dict(max_tokens=args.tokens, distil_max_tokens=0, eval_max_tokens=0)
    states = {"gradient_checkpointing": False, "moments": "float32", "offload": False}
    passes = dict(micro_tokens=4 * args.tokens, rollout_batch=args.rows)
    own = {**limits, **states, **passes, "task": "math", "temperature": 1.0, **given}
    return sdzero.make_config(model=model, device=device, **own)


def prepared(cfg):
    return sdzero.prepare(cfg, kit.loading.load_tokenizer(cfg), grader=None, questions={})


def samples_of(args, run, vocabulary: int) -> list[dict]:
    """Responses of a quarter of the limit up to all of it."""
    lengths = [max(2, args.tokens * (i % 4 + 1) // 4) for i in range(args.rows)]
    return random_samples(lengths, args.prompt, vocabulary, run.end_ids[0])


def backward(run, model, teacher, phase: int, samples: list[dict]) -> float:
    """A phase's gradient on these samples; returns the loss. Phase 1's rows hold each response
    twice, as y_init and y_revised."""
    if phase == 2:
        return backward_phase2(run, model, teacher, [dict(s) for s in samples])
    rows = []
    for s in samples:
        context = sdzero.reviser_ids(run, s["context"], s["ids"], s["reward"])
        rows.append(sdzero.Row(context + s["ids"], [len(s["context"]), len(context)]))
    return sdzero.backward_nll(run, model, rows, sum(len(s["ids"]) for s in samples))


# --------------------------------------------------------------------------------------------------
# The parts
# --------------------------------------------------------------------------------------------------
def gradients(args, model: str, device: str, dtype: str) -> dict:
    """{phase: (loss, gradient as one vector)} on one device."""
    found = {}
    for phase in (1, 2):
        cfg = settings_of(args, model, device, dtype=dtype)
        run, student = prepared(cfg)
        teacher = sdzero.frozen_copy(student)
        with torch.no_grad():  # a teacher near the student, as in training
            for p in teacher.parameters():
                p.mul_(1.01)
        loss = backward(run, student, teacher, phase, samples_of(args, run, TOY["vocab_size"]))
        found[phase] = loss, flat_gradient(student)
    return found


def flat_gradient(model):
    dense = (p.grad.to_dense() if p.grad.is_sparse else p.grad for p in model.parameters())
    return torch.cat([g.float().flatten().cpu() for g in dense])


def exactness(args, folder: Path, device: str) -> list[dict]:
    """Losses and gradients of a small model beside those of the CPU in fp32."""
    model, rows = random_folder(folder / "toy", TOY), []
    args = replace_args(args, tokens=min(args.tokens, 64), rows=4, prompt=16)
    truth = gradients(args, model, "cpu", "float32")
    for dtype in CLOSE:
        for phase, (loss, gradient) in gradients(args, model, device, dtype).items():
            true_loss, true = truth[phase]
            error = float((gradient - true).norm() / true.norm())
            row = {"part": f"gradient, phase {phase}, {dtype}", "relative error": error}
            row["loss error"] = abs(loss / true_loss - 1)
            rows.append(row | {"ok": error < CLOSE[dtype] and row["loss error"] < CLOSE[dtype]})
    return rows


def replace_args(args, **changes):
    return type(args)(**{**vars(args), **changes})


def rollouts(args, model: str, device: str) -> list[dict]:
    """Tokens a second of args.rows responses; the random model ends few of them early."""
    import numpy as np

    run, student = prepared(settings_of(args, model, device))
    g, vocabulary = np.random.default_rng(0), student.config.get_text_config().vocab_size
    prompts = [random_ids(g, vocabulary, args.prompt) for _ in range(args.rows)]
    sdzero.generate(run, student, prompts[:1], 0)  # kernels and libraries are there then
    reset_peak(device)
    began = time.perf_counter()
    responses = sdzero.generate(run, student, prompts, 1)
    seconds, tokens = time.perf_counter() - began, sum(map(len, responses))
    row = {"part": "rollouts", "seconds": seconds, "tokens a second": tokens / seconds}
    expected = ""
    if device != "cpu":
        s, card = kit.sizes.sizes(student.config), torch.cuda.mem_get_info()[1]
        expected = kit.hours.rollout_speed(s, run.cfg, card)
    return [row | {"planned": expected, "peak GB": peak(device), "ok": len(responses) == args.rows}]


def step(args, model: str, device: str, phase: int, name: str) -> dict:
    """Seconds and memory of a phase's step in one setting, beside the plan."""
    cfg = settings_of(args, model, device, **SETTINGS[name])
    run, student = prepared(cfg)
    teacher = sdzero.frozen_copy(student, cfg.offload) if phase == 2 else None
    optimizer = kit.low_bits.adamw(student, 1e-6, 0.0, cfg)
    samples = samples_of(args, run, student.config.get_text_config().vocab_size)
    student.train()
    seconds, losses = [], []
    for _ in range(2):  # the first one makes the moments
        reset_peak(device)
        began = time.perf_counter()
        losses.append(backward(run, student, teacher, phase, samples))
        sdzero.update(student, optimizer, 1e-6, cfg.grad_clip)
        seconds.append(time.perf_counter() - began)
    lengths = row_lengths(samples)
    tokens = sum(lengths)
    if phase == 1:
        lengths = [2 * n for n in lengths]
    s, on_gpu = kit.sizes.sizes(student.config), device != "cpu"
    parts = kit.memory_plan.step_parts(
        s, cfg, phase, largest_pass(lengths, cfg.micro_tokens), on_gpu
    )
    planned = sum(parts.values()) - (parts["libraries"] if on_gpu else 0)
    row = {"part": f"step, phase {phase}, {name}", "seconds": seconds[-1], "loss": losses[-1]}
    row |= {"tokens a second": tokens / seconds[-1], "peak GB": peak(device)}
    return row | {"planned": planned / 1e9, "ok": all(map(bool, losses))}


def two_ranks(args, folder: Path, device: str) -> list[dict]:
    """The gradient of two ranks beside one process's, on a small model."""
    model, out = str(folder / "toy"), folder / "ranks.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(args.port), str(Path(__file__).resolve()), model, device]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    began = time.perf_counter()
    as_rank(model, device, str(out))
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise UserError(f"two ranks ended with code {done.returncode}: {done.stderr[-1500:]}")
    alone, together = (json.loads(line) for line in out.read_text().splitlines())
    error = abs(together["norm"] / alone["norm"] - 1)
    row = {"part": "two ranks", "seconds": time.perf_counter() - began, "relative error": error}
    return [row | {"ok": error < 1e-3 and together["ranks"] == 2}]


def as_rank(model: str, device: str, out: str) -> None:
    """This process, or one of two_ranks: the norm of phase 1's gradient, added to a file."""
    device = "cuda" if device != "cpu" else device
    kit.ranks.start(device)
    limits = dict(max_tokens=32, distil_max_tokens=0, eval_max_tokens=0, dtype="float32")
    cfg = sdzero.make_config(model=model, device=device, task="math", micro_tokens=128, **limits)
    run, student = prepared(cfg)
    samples = random_samples([9, 30, 14, 21], 16, TOY["vocab_size"], run.end_ids[0])
    backward(run, student, None, 1, samples)
    if kit.ranks.rank() == 0:
        line = {"norm": float(flat_gradient(student).norm()), "ranks": kit.ranks.world()}
        with Path(out).open("a") as f:
            f.write(json.dumps(line) + "\n")
    kit.ranks.leave_together()


# --------------------------------------------------------------------------------------------------
# Memory, and the whole list
# --------------------------------------------------------------------------------------------------
def reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> float | None:
    """GB of tensors at most since the last reset; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else None


def gpu(args) -> dict:
    """All parts in turn; one that fails is reported as what it is, and the next one begins."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    toy = device == "cpu"
    args.json = args.json or "gpu.json"
    kit.gpu.prepare(device)
    small = dict(tokens=24, rows=4, prompt=16) if toy else dict(tokens=2048, rows=64, prompt=256)
    args = replace_args(args, **{k: v for k, v in small.items() if not getattr(args, k)})
    ranks = args.ranks if toy else min(2, torch.cuda.device_count())
    began, rows = time.time(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = args.model or random_folder(
            folder / "model", TOY if toy else kit.sizes.facts()[LIKE]
        )
        parts = {"exactness": lambda: exactness(args, folder, device)}
        parts["rollouts"] = lambda: rollouts(args, model, device)
        for name in SETTINGS:
            for phase in (1, 2):
                parts[f"step, phase {phase}, {name}"] = lambda phase=phase, name=name: [
                    step(args, model, device, phase, name)
                ]
        if ranks > 1:
            parts["two ranks"] = lambda: two_ranks(args, folder, device)
        for name, part in parts.items():
            rows += attempted(name, part, time.time() - began < 60 * args.minutes)
    print(table_of(rows))
    card = torch.cuda.get_device_name() if not toy else "no GPU: toy size, the numbers mean nothing"
    return {
        "card": card,
        "model": args.model or ("random, toy" if toy else f"random, as {LIKE}"),
        "torch": torch.__version__,
        "rows": rows,
        "seconds": time.time() - began,
        "ok": all(row["ok"] for row in rows),
    }


def attempted(name: str, part, in_time: bool) -> list[dict]:
    """The rows of a part, or why there are none."""
    if not in_time:
        return [{"part": name, "error": "left out: --minutes are over", "ok": False}]
    print(name, "...", flush=True)
    try:
        return part()
    except (UserError, RuntimeError, MemoryError, ValueError, TypeError, ImportError) as e:
        return [{"part": name, "error": f"{type(e).__name__}: {str(e)[:500]}", "ok": False}]


def table_of(rows: list[dict]) -> str:
    columns = ["seconds", "tokens a second", "peak GB", "planned", "relative error"]
    lines = [["part", *columns, "ok"]]
    for row in rows:
        shown = [f"{row[key]:.4g}" if row.get(key) else "-" for key in columns]
        lines.append([row["part"], *shown, "yes" if row["ok"] else row.get("error", "no")[:60]])
    return table(lines)


if __name__ == "__main__":
    as_rank(*sys.argv[1:])
