"""How fast, how exact and how large the parts of a run are.

    python studies/bench.py kl --json kl.json                    # exact KL in chunks, and plainly
    python studies/bench.py step --model SmolLM2.gguf            # one step of phase 2 on 16 rows
    python studies/bench.py linear                               # as batch and length grow
    python studies/bench.py precision --model SmolLM2.gguf       # does bfloat16 learn?
    python studies/bench.py rollouts --model SmolLM2.gguf        # beginnings that rows share
    python studies/bench.py plan                                 # the plan of real models' steps
    python studies/bench.py gpu                                  # whoever has a GPU: all at once

`python -m studies.bench` is the same. Times are medians. "Peak" is the largest resident memory
(VmHWM, so Linux alone) of a process that does nothing else.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: modules are looked for beside it, but they are one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import subprocess
import tempfile
import time
from types import SimpleNamespace

import numpy as np

import kit
import sdzero
from kit.errors import UserError, exit_code
from kit.late import F, torch
from kit.options import Parser
from kit.tables import table
from studies import fake_step, gpu, rollouts
from studies.steps import (
    RESPONSES,
    backward_phase2,
    largest_pass,
    random_samples,
    row_lengths,
)


# --------------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------------
def resident(key: str = "VmRSS") -> int:
    """Bytes of this process in memory now (VmRSS), or at most since the last reset (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(key + ":")[1].split()[0])


def reset_peak() -> int:
    """Make VmHWM start from now; returns the memory in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def in_fresh_process(*words) -> dict:
    """Run this file with these words; the last line that it prints is its result."""
    command = [sys.executable, str(Path(__file__).resolve()), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"{words[0]} ended with code {ended.returncode}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def median_of(runs: list[dict], key: str) -> float:
    return float(np.median([run[key] for run in runs]))


# --------------------------------------------------------------------------------------------------
# kl: exact reverse KL, chunk by chunk and plainly
# --------------------------------------------------------------------------------------------------
def plain_kl(student, hidden, teacher, teacher_hidden):
    """What one would write first: both (T, V) logits whole, and autograd."""
    log_s = F.log_softmax(student.head(hidden), -1)  # (T, V)
    with torch.no_grad():
        log_t = F.log_softmax(teacher.head(teacher_hidden), -1)  # (T, V)
    return (log_s.exp() * (log_s - log_t)).sum()


def chunked_kl(student, hidden, teacher, teacher_hidden):
    """What phase 2 computes."""
    return sdzero.distillation_loss(student, hidden, teacher, teacher_hidden, sdzero.Config())[0]


def only_a_head(args, seed: int):
    """(what has just an output embedding (V, H), hidden states (T, H))"""
    g = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(args.hidden, args.vocabulary, bias=False)
    with torch.no_grad():
        head.weight.normal_(0, 2.5 / args.hidden**0.5, generator=g)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    model = SimpleNamespace(head=head, get_output_embeddings=lambda: head, config=config)
    return model, torch.randn(args.tokens, args.hidden, generator=g)


def kl_once(args) -> dict:
    """Forward and backward pass of one formulation; gradients go to args.save if that is given."""
    (student, hidden), (teacher, teacher_hidden) = only_a_head(args, 0), only_a_head(args, 1)
    teacher.head.requires_grad_(False)
    with torch.no_grad():  # a teacher near the student, as in training
        teacher.head.weight.mul_(0.3).add_(student.head.weight)
        teacher_hidden.mul_(0.3).add_(hidden)
    loss_of = plain_kl if args.which == "plain" else chunked_kl

    # once on two tokens: threads and libraries are there then
    loss_of(student, hidden[:2].requires_grad_(), teacher, teacher_hidden[:2]).backward()
    student.head.weight.grad = None
    hidden = hidden.detach().requires_grad_()

    before, start = reset_peak(), time.perf_counter()
    loss = loss_of(student, hidden, teacher, teacher_hidden)
    loss.backward()
    seconds = time.perf_counter() - start
    gradients = {"h": hidden.grad, "w": student.head.weight.grad}
    extra = resident("VmHWM") - before - sum(g.nbytes for g in gradients.values())
    if args.save:
        for name, g in gradients.items():
            np.save(f"{args.save}-{name}.npy", g.numpy())
    return {"seconds": seconds, "extra_mb": extra / 1e6, "loss": float(loss.detach())}


def kl(args) -> dict:
    """Both formulations in turn, each time in a fresh process."""
    runs = {"plain": [], "chunked": []}
    shape = ["--tokens", args.tokens, "--vocabulary", args.vocabulary, "--hidden", args.hidden]
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for which in runs:
                save = ["--save", f"{folder}/{which}"] if repeat == 0 else []
                runs[which].append(in_fresh_process("kl-once", which, *shape, *save))
                print(which, runs[which][-1], flush=True)
        errors = [relative_error(folder, name) for name in "hw"]

    def ratio(key):
        plain, chunked = (median_of(runs[which], key) for which in ("plain", "chunked"))
        return chunked / plain

    losses = [runs[which][0]["loss"] for which in ("plain", "chunked")]
    return {
        "tokens": args.tokens,
        "vocabulary": args.vocabulary,
        "hidden": args.hidden,
        "threads": torch.get_num_threads(),
        "memory_ratio": ratio("extra_mb"),
        "time_ratio": ratio("seconds"),
        "loss_rel_err": abs(losses[1] / losses[0] - 1),
        "grad_rel_err": max(errors),
        "runs": runs,
    }


def relative_error(folder: str, name: str) -> float:
    """How far the chunked formulation's gradient is from the plain one's."""
    files = [f"{folder}/{which}-{name}.npy" for which in ("plain", "chunked")]
    plain, chunked = (np.load(file, mmap_mode="r") for file in files)
    return float(np.linalg.norm(chunked - plain) / np.linalg.norm(plain))


# --------------------------------------------------------------------------------------------------
# step: one optimiser step of phase 2
# --------------------------------------------------------------------------------------------------
PRECISIONS = {
    "bfloat16": "bfloat16 arithmetic and gradients; weights fp32, kept as a bfloat16 and its 16 "
    "lower bits (split)",
    "float32": "fp32 weights, gradients and arithmetic",
}


def step(args) -> dict:
    """Training steps on fixed rows, timed; the whole process counts for the peak."""
    base = resident()
    cfg = sdzero.make_config(
        model=args.model,
        device="cpu",
        dtype=args.dtype,
        moments=args.moments,
        micro_tokens=args.micro_tokens,
        gradient_checkpointing=args.gradient_checkpointing,
        max_tokens=256,
    )
    tokenizer = kit.loading.load_tokenizer(cfg)
    run, student = sdzero.prepare(cfg, tokenizer, grader=None, questions={})
    teacher = sdzero.frozen_copy(student)
    optimizer = kit.low_bits.adamw(student, cfg.distil_lr, cfg.distil_weight_decay, cfg)
    loaded, seconds, losses = resident("VmHWM"), [], []

    responses = RESPONSES[: args.rows]
    samples = random_samples(responses, 48, len(tokenizer), run.end_ids[0])
    student.train()
    # so that moments, libraries and threads are there
    backward_phase2(run, student, teacher, random_samples([8], 8, len(tokenizer), run.end_ids[0]))
    sdzero.update(student, optimizer, cfg.distil_lr, cfg.grad_clip)
    for _ in range(args.steps):
        start = time.perf_counter()
        losses.append(backward_phase2(run, student, teacher, samples))
        sdzero.update(student, optimizer, cfg.distil_lr, cfg.grad_clip)
        seconds.append(time.perf_counter() - start)

    largest = largest_pass(row_lengths(samples), cfg.micro_tokens)
    planned = planned_bytes(student.config, cfg, largest)
    return {
        "tokens_per_second": sum(responses) / float(np.median(seconds)),
        "peak_mb": resident("VmHWM") / 1e6,
        "precision": f"{PRECISIONS[args.dtype]}; {args.moments} moments",
        "micro_tokens": cfg.micro_tokens,
        "largest_pass": largest,
        "base_mb": base / 1e6,
        "loaded_mb": loaded / 1e6,
        "plan_mb": planned / 1e6,
        "plan_over_measured": planned / resident("VmHWM"),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "losses": losses,
    }


def planned_bytes(config, cfg, tokens: int) -> float:
    """What the memory plan says of phase 2's training on a CPU, in passes of this many tokens."""
    s = kit.sizes.sizes(config)
    return sum(kit.memory_plan.step_parts(s, cfg, 2, tokens, gpu=False).values())


# --------------------------------------------------------------------------------------------------
# linear: growth with batch and length
# --------------------------------------------------------------------------------------------------
def linear_once(args) -> dict:
    """A step of a random model on args.rows rows of args.tokens response tokens."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32000,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=8192,
    )
    student = Qwen3ForCausalLM(config)
    teacher = sdzero.frozen_copy(student)
    phrases, room = sdzero.Phrases([9, 10], [7, 8]), kit.losses.Room(sequences=64, tokens=2048)
    run = sdzero.Run(sdzero.Config(), None, None, {}, phrases, [5], room)

    def work(rows, tokens):
        backward_phase2(run, student, teacher, random_samples([tokens] * rows, 32, 32000, 5))

    work(1, 64)  # threads and libraries are there now
    before, start = reset_peak(), time.perf_counter()
    work(args.rows, args.tokens)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_mb": (resident("VmHWM") - before) / 1e6}


def linear(args) -> dict:
    """Seconds and memory per response token at 1, 2, 4 and 8 times the batch and the length."""
    growth, lines = (
        [],
        [["rows", "tokens each", "s per 1000 tokens", "extra peak MB", "kB per token"]],
    )
    sizes = [(4 * k, 128) for k in (1, 2, 4, 8)] + [(4, 128 * k) for k in (2, 4, 8)]
    for rows, tokens in sizes:
        words = ["linear-once", "--rows", rows, "--tokens", tokens]
        runs = [in_fresh_process(*words) for _ in range(args.repeats)]
        seconds, extra = (median_of(runs, key) for key in ("seconds", "extra_mb"))
        each = seconds / (rows * tokens)
        growth.append(
            {"rows": rows, "tokens": tokens, "seconds_per_token": each, "extra_mb": extra}
        )
        memory = [f"{extra:.0f}", f"{1000 * extra / (rows * tokens):.0f}"]
        lines.append([str(rows), str(tokens), f"{1000 * each:.2f}", *memory])
    print(table(lines))
    return {"growth": growth}


# --------------------------------------------------------------------------------------------------
# precision: does bfloat16 learn?
# --------------------------------------------------------------------------------------------------
def precision(args) -> dict:
    """Loss curves of the same fine-tuning steps in each mode; "deviation" is the largest relative
    one from fp32's curve."""
    modes = args.modes.split(",")
    if "fp32" not in modes:
        raise UserError("--modes: fp32 is what the others are compared with")
    curves = {name: loss_curve(args, name) for name in modes}
    deviation, lines = {}, [["", "first loss", "last loss", "largest deviation from fp32 %"]]
    for name, curve in curves.items():
        deviation[name] = max(abs(a / b - 1) for a, b in zip(curve, curves["fp32"]))
        losses = [f"{curve[0]:.4f}", f"{curve[-1]:.4f}"]
        lines.append([name, *losses, f"{100 * deviation[name]:.2f}"])
    print(table(lines))
    return {"lr": args.lr, "curves": curves, "deviation": deviation}


def loss_curve(args, mode: str) -> list[float]:
    """The loss at each of args.steps steps on the same answers."""
    cfg = sdzero.make_config(
        model=args.model,
        device="cpu",
        dtype="bfloat16" if mode == "split bf16" else "float32",
        micro_tokens=args.micro_tokens,
        moments="bfloat16" if "moments" in mode else "float32",
    )
    run, model = sdzero.prepare(cfg, kit.loading.load_tokenizer(cfg), grader=None, questions={})
    optimizer = kit.low_bits.adamw(model, args.lr, 0.0, cfg)
    if mode == "plain bf16":
        model.to(torch.bfloat16)
        how = {"lr": args.lr, "betas": (0.9, 0.95), "weight_decay": 0.0}
        optimizer = torch.optim.AdamW(model.parameters(), **how)
    rows = unusual_answers(run, args.rows)
    targets = sum(len(row.ids) - start for row in rows for start in row.starts)

    model.train()
    curve = []
    for _ in range(args.steps):
        curve.append(sdzero.backward_nll(run, model, rows, targets))
        sdzero.update(model, optimizer, args.lr, 1.0)
        print(mode, len(curve), round(curve[-1], 4), flush=True)
    return curve


def unusual_answers(run, n: int) -> list:
    """Rows with answers that a model would not give by itself."""
    rows = []
    for a, b in np.random.default_rng(0).integers(10, 100, (n, 2)).tolist():
        tens, ones = (a // 10, b // 10), (a % 10, b % 10)
        answer = (
            f"Tens: {tens[0]}+{tens[1]}={sum(tens)}. Ones: {ones[0]}+{ones[1]}={sum(ones)}. "
            f"\\boxed{{{a + b}}}"
        )
        context = sdzero.chat_ids(run.tokenizer, f"Add {a}+{b} by columns.")
        target = run.tokenizer.encode(answer, add_special_tokens=False) + [run.end_ids[0]]
        rows.append(sdzero.Row(context + target, [len(context)]))
    return rows


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
COMMANDS = {
    "kl": kl,
    "kl-once": kl_once,
    "step": step,
    "linear": linear,
    "linear-once": linear_once,
    "precision": precision,
    "rollouts": rollouts.rollouts,
    "plan": fake_step.plan,
    "gpu": gpu.gpu,
}


def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="bench.py", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    of = {name: commands.add_parser(name) for name in COMMANDS}
    for p in of.values():
        p.add_argument("--json", default="", help="also write the result to this file")
        p.add_argument("--repeats", type=int, default=3)

    of["kl-once"].add_argument("which", choices=["plain", "chunked"])
    for p in (of["kl"], of["kl-once"]):
        p.add_argument("--tokens", type=int, default=2048)
        p.add_argument("--vocabulary", type=int, default=151936)
        p.add_argument("--hidden", type=int, default=1024)
        p.add_argument("--save", default="", help=argparse.SUPPRESS)

    for p in (of["step"], of["precision"]):
        p.add_argument("--model", required=True, help="folder or .gguf file")
        p.add_argument("--micro-tokens", type=int, default=300)
    p = of["step"]
    p.add_argument("--steps", type=int, default=5)
    fewer = "fewer rows than the benchmark's, for a quick look"
    p.add_argument("--rows", type=int, default=len(RESPONSES), help=fewer)
    usual = "bfloat16" if kit.gpu.cpu_has_bfloat16() else "float32"
    p.add_argument("--dtype", default=usual, choices=["float32", "bfloat16"])
    p.add_argument("--moments", default="bfloat16", choices=["float32", "bfloat16"])
    p.add_argument("--gradient-checkpointing", action="store_true")

    p = of["rollouts"]
    p.add_argument("--model", default="tiny", help="folder or .gguf file")
    p.add_argument("--rows", type=int, default=32)
    p.add_argument("--times", type=int, default=1, help="how often each prompt stands there")
    p.add_argument("--prompt", type=int, default=123, help="its tokens")
    p.add_argument("--shared", type=int, default=100, help="of them, those that all begin with")
    p.add_argument("--tokens", type=int, default=8, help="of an answer")

    p = of["precision"]
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--rows", type=int, default=6)
    p.add_argument("--lr", type=float, default=5e-6)
    p.add_argument("--modes", default="fp32,fp32 with bf16 moments,split bf16,plain bf16")

    p = of["gpu"]
    p.add_argument("--model", default="", help="empty: random weights")
    p.add_argument("--minutes", type=float, default=9, help="no part begins behind them")
    p.add_argument("--ranks", type=int, default=0, help="on a CPU: 2 tries two ranks too")
    p.add_argument("--port", type=int, default=29511, help="for the two ranks")
    for name in ("tokens", "rows", "prompt"):
        p.add_argument(f"--{name}", type=int, default=0, help="0: by the device")

    p = of["plan"]
    p.add_argument("--models", default=",".join(fake_step.MODELS), help="names of kit/models.json")
    p.add_argument("--card", type=int, default=80, help="GB, for which settings are chosen")

    of["linear-once"].add_argument("--rows", type=int, required=True)
    of["linear-once"].add_argument("--tokens", type=int, required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work():
        args = make_parser().parse_args(argv)
        result = COMMANDS[args.command](args)
        if args.json:
            kit.files.write_json(Path(args.json), result)
        print(json.dumps(result))

    return exit_code("bench", work)


if __name__ == "__main__":
    sys.exit(main())
