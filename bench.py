"""How fast, how exact and how large the parts of a run are.

    python bench.py kl --json kl.json                              # exact KL in chunks against the plain formulation
    python bench.py step --model SmolLM2.gguf --json step.json     # one step of phase 2 on 16 rows of fixed lengths
    python bench.py linear                                         # time and memory as batch and length grow
    python bench.py precision --model SmolLM2.gguf                 # loss curves in fp32, split bfloat16 and plain bfloat16

Times are medians. "Peak" is the largest resident memory (VmHWM) of a process that does nothing else.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

import modeling
import report
import sdzero

# ----------------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------------
def resident(key: str = "VmRSS") -> int:
    """Bytes of this process in memory now (VmRSS), or at most since the last reset (VmHWM). Linux."""
    return 1024 * int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])


def reset_peak() -> int:
    """Make VmHWM start from now; returns the memory in use."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices itself; elsewhere they are slower than fp32's."""
    return any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))


def child(*args) -> dict:
    """Run this file in a fresh process; its last line is JSON."""
    done = subprocess.run([sys.executable, __file__, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(values) -> float:
    return float(statistics.median(values))


# ----------------------------------------------------------------------------------------------------------------------------
# kl: exact reverse KL, chunk by chunk and plainly
# ----------------------------------------------------------------------------------------------------------------------------
def plain_kl(student, hidden, teacher, teacher_hidden):
    """What one would write first: both (T, V) logits whole, and autograd."""
    log_s = F.log_softmax(student.head(hidden), -1)
    with torch.no_grad():
        log_t = F.log_softmax(teacher.head(teacher_hidden), -1)
    return (log_s.exp() * (log_s - log_t)).sum()


def kl_once(args) -> dict:
    """Forward and backward pass of one formulation; gradients go to args.save if that is given."""
    def fake_model(seed):
        g = torch.Generator().manual_seed(seed)
        head = torch.nn.Linear(args.hidden, args.vocabulary, bias=False)
        with torch.no_grad():
            head.weight.normal_(0, 2.5 / args.hidden**0.5, generator=g)
        config = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
        return SimpleNamespace(head=head, get_output_embeddings=lambda: head, config=config), torch.randn(args.tokens, args.hidden, generator=g)

    (student, hidden), (teacher, teacher_hidden) = fake_model(0), fake_model(1)
    teacher.head.requires_grad_(False)
    with torch.no_grad():  # a teacher near the student, as in training
        teacher.head.weight.mul_(0.3).add_(student.head.weight)
        teacher_hidden.mul_(0.3).add_(hidden)
    loss_of = plain_kl if args.which == "plain" else lambda *a: sdzero.distillation_loss(*a)[0]
    loss_of(student, hidden[:2].requires_grad_(), teacher, teacher_hidden[:2]).backward()  # threads and libraries are there now
    student.head.weight.grad = None
    hidden = hidden.detach().requires_grad_()
    before, start = reset_peak(), time.perf_counter()
    loss = loss_of(student, hidden, teacher, teacher_hidden)
    loss.backward()
    seconds, grads = time.perf_counter() - start, (hidden.grad, student.head.weight.grad)
    extra = resident("VmHWM") - before - sum(g.nbytes for g in grads)
    if args.save:
        for name, g in zip("hw", grads):
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
                runs[which].append(child("kl-once", which, *shape, *save))
                print(which, runs[which][-1], flush=True)
        plain, ours = ([np.load(f"{folder}/{which}-{name}.npy", mmap_mode="r") for name in "hw"] for which in runs)
        errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(ours, plain)]
    value = lambda which, key: median(r[key] for r in runs[which])  # noqa: E731
    return {"tokens": args.tokens, "vocabulary": args.vocabulary, "hidden": args.hidden, "threads": torch.get_num_threads(),
            "memory_ratio": value("chunked", "extra_mb") / value("plain", "extra_mb"),
            "time_ratio": value("chunked", "seconds") / value("plain", "seconds"),
            "loss_rel_err": abs(runs["chunked"][0]["loss"] / runs["plain"][0]["loss"] - 1), "grad_rel_err": max(errors), "runs": runs}


# ----------------------------------------------------------------------------------------------------------------------------
# step: one optimiser step of phase 2
# ----------------------------------------------------------------------------------------------------------------------------
RESPONSES = [185, 155, 77, 55, 93, 74, 163, 60, 86, 108, 211, 91, 58, 154, 116, 54]


def samples_of(lengths, prompt, vocabulary, end_id, seed=0) -> list[dict]:
    """Rows of random ids as rollouts() gives them; every second one counts as right."""
    ids = lambda n: g.integers(vocabulary // 8, vocabulary - 1, n).tolist()  # noqa: E731
    g = np.random.default_rng(seed)
    return [{"context": ids(prompt), "ids": ids(n - 1) + [end_id], "finished": True, "reward": float(i % 2)} for i, n in enumerate(lengths)]


def step(args) -> dict:
    """Training steps on fixed rows, timed; the whole process counts for the peak."""
    base = resident()
    cfg = sdzero.make_config(model=args.model, device="cpu", dtype=args.dtype, moments=args.moments, micro_tokens=args.micro_tokens,
                             gradient_checkpointing=args.gradient_checkpointing, max_tokens=256)
    tokenizer, student = sdzero.load_tokenizer_and_model(cfg)
    end_ids = sdzero.end_token_ids(tokenizer, student)
    phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(cfg, student.config.model_type))
    teacher, optimizer = sdzero.frozen_copy(student), sdzero.adamw(student, cfg.distil_lr, cfg.distil_weight_decay, cfg)
    loaded, seconds, losses = resident("VmHWM"), [], []
    responses = RESPONSES[:args.rows]
    samples = samples_of(responses, 48, len(tokenizer), end_ids[0])
    student.train()
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        losses.append(sdzero.distil_on(student, teacher, samples, cfg, phrases, end_ids))
        sdzero.update(student, optimizer, cfg.distil_lr, cfg.grad_clip)
        seconds.append(time.perf_counter() - start)
    lengths = [len(s["context"]) + len(s["ids"]) for s in samples]  # so few rows may leave the largest pass below --micro-tokens
    largest = max(len(rows) * max(lengths[i] for i in rows) for rows in sdzero.micro_batches(lengths, cfg.micro_tokens))
    as_run = replace(cfg, micro_tokens=largest)
    planned = sum(modeling.memory(modeling.sizes(student.config), as_run, gpu=False)["phase 2: training"].values())
    return {"tokens_per_second": sum(responses) / median(seconds[1:] or seconds), "peak_mb": resident("VmHWM") / 1e6, "precision":
            ("bfloat16 arithmetic and gradients; weights fp32, kept as a bfloat16 and its 16 lower bits (split)" if args.dtype == "bfloat16" else
             "fp32 weights, gradients and arithmetic") + f"; {args.moments} moments",
            "micro_tokens": cfg.micro_tokens, "largest_pass": largest, "base_mb": base / 1e6, "loaded_mb": loaded / 1e6, "plan_mb": planned / 1e6,
            "plan_over_measured": planned / resident("VmHWM"), "threads": torch.get_num_threads(), "seconds": seconds, "losses": losses}


# ----------------------------------------------------------------------------------------------------------------------------
# linear: growth with batch and length
# ----------------------------------------------------------------------------------------------------------------------------
def linear_once(args) -> dict:
    """A step of a random model on args.rows rows of args.tokens response tokens."""
    from transformers import Qwen3Config, Qwen3ForCausalLM
    torch.manual_seed(0)
    student = Qwen3ForCausalLM(Qwen3Config(vocab_size=32000, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8,
                                           num_key_value_heads=4, head_dim=32, max_position_embeddings=8192))
    teacher, cfg = sdzero.frozen_copy(student), sdzero.Config(micro_tokens=2048)
    rows = lambda n, length: samples_of([length] * n, 32, 32000, 5)  # noqa: E731
    work = lambda samples: sdzero.distil_on(student, teacher, samples, cfg, [[7, 8], [9, 10]], [5])  # noqa: E731
    work(rows(1, 64))
    before, start = reset_peak(), time.perf_counter()
    work(rows(args.rows, args.tokens))
    return {"seconds": time.perf_counter() - start, "extra_mb": (resident("VmHWM") - before) / 1e6}


def linear(args) -> dict:
    """Seconds and memory per response token at 1, 2, 4 and 8 times the batch and the length."""
    out, table = [], [["rows", "tokens each", "s per 1000 tokens", "extra peak MB", "kB per token"]]
    for rows, tokens in [(4 * k, 128) for k in (1, 2, 4, 8)] + [(4, 128 * k) for k in (2, 4, 8)]:
        runs = [child("linear-once", "--rows", rows, "--tokens", tokens) for _ in range(args.repeats)]
        seconds, extra, n = median(r["seconds"] for r in runs), median(r["extra_mb"] for r in runs), rows * tokens
        out.append({"rows": rows, "tokens": tokens, "seconds_per_token": seconds / n, "extra_mb": extra})
        table.append([str(rows), str(tokens), f"{1000 * seconds / n:.2f}", f"{extra:.0f}", f"{1000 * extra / n:.0f}"])
    print(report.table(table))
    return {"growth": out}


# ----------------------------------------------------------------------------------------------------------------------------
# precision: does bfloat16 learn?
# ----------------------------------------------------------------------------------------------------------------------------
def precision(args) -> dict:
    """Loss curves of the same fine-tuning steps at 5e-6; "deviation" is the largest relative one from fp32's curve."""
    curves = {}
    for name in args.modes.split(","):
        cfg = sdzero.make_config(model=args.model, device="cpu", dtype="bfloat16" if name == "split bf16" else "float32", micro_tokens=args.micro_tokens,
                                 moments="bfloat16" if "moments" in name else "float32")
        tokenizer, model = sdzero.load_tokenizer_and_model(cfg)
        optimizer = sdzero.adamw(model, args.lr, 0.0, cfg)
        if name == "plain bf16":
            model.to(torch.bfloat16)
            optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
        end, examples = sdzero.end_token_ids(tokenizer, model)[0], []
        for a, b in np.random.default_rng(0).integers(10, 100, (args.rows, 2)).tolist():  # an answer this model would not give by itself
            answer = f"Tens: {a // 10}+{b // 10}={a // 10 + b // 10}. Ones: {a % 10}+{b % 10}={a % 10 + b % 10}. \\boxed{{{a + b}}}"
            examples.append((sdzero.chat_ids(tokenizer, f"Add {a}+{b} by columns."), tokenizer.encode(answer, add_special_tokens=False) + [end]))
        model.train()
        curves[name] = []
        for _ in range(args.steps):
            curves[name].append(sdzero.train_on(model, examples, sum(len(t) for _, t in examples), cfg))
            sdzero.update(model, optimizer, args.lr, 1.0)
            print(name, len(curves[name]), round(curves[name][-1], 4), flush=True)
    deviation = {name: max(abs(a / b - 1) for a, b in zip(curve, curves["fp32"])) for name, curve in curves.items()}
    print(report.table([["", "first loss", "last loss", "largest deviation from fp32 %"]] + [
        [name, f"{c[0]:.4f}", f"{c[-1]:.4f}", f"{100 * deviation[name]:.2f}"] for name, c in curves.items()]))
    return {"lr": args.lr, "curves": curves, "deviation": deviation}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("kl", "kl-once", "step", "linear", "linear-once", "precision"):
        p = commands.add_parser(name)
        p.add_argument("--json", default="", help="also write the result to this file")
        p.add_argument("--repeats", type=int, default=3)
        if name.startswith("kl"):
            if name == "kl-once":
                p.add_argument("which", choices=["plain", "chunked"])
            for option, default in (("--tokens", 2048), ("--vocabulary", 151936), ("--hidden", 1024)):
                p.add_argument(option, type=int, default=default)
            p.add_argument("--save", default="")
        if name in ("step", "precision"):
            p.add_argument("--model", required=True, help="folder or .gguf file")
            p.add_argument("--micro-tokens", type=int, default=300)
        if name == "step":
            p.add_argument("--steps", type=int, default=5)
            p.add_argument("--rows", type=int, default=len(RESPONSES), help="fewer rows than the benchmark's, for a quick look")
            p.add_argument("--dtype", default="bfloat16" if fast_bfloat16() else "float32", choices=["float32", "bfloat16"])
            p.add_argument("--moments", default="bfloat16", choices=["float32", "bfloat16"])
            p.add_argument("--gradient-checkpointing", action="store_true")
        if name == "precision":
            p.add_argument("--steps", type=int, default=12)
            p.add_argument("--rows", type=int, default=6)
            p.add_argument("--lr", type=float, default=5e-6)
            p.add_argument("--modes", default="fp32,fp32 with bf16 moments,split bf16,plain bf16")
        if name == "linear-once":
            p.add_argument("--rows", type=int)
            p.add_argument("--tokens", type=int)
    args = parser.parse_args(argv)
    try:
        result = {"kl": kl, "kl-once": kl_once, "step": step, "linear": linear, "linear-once": linear_once, "precision": precision}[args.command](args)
    except sdzero.UserError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    if args.json:
        sdzero.write_json(Path(args.json), result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
