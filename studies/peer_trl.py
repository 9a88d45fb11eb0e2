"""Phase 2 beside TRL's SDFTTrainer: time and memory of steps and of whole rounds, on a CPU.

    python studies/peer_trl.py --trl-python trl-env/bin/python --model SmolLM2.gguf

docs/peers.md says how to make trl-env, which is no requirement of this repository. Both sides get
the same fp32 weights, token ids, lengths, rows of a step, bound on the tokens of a pass, threads
and AdamW; each runs in fresh processes, in turns. "ours, bfloat16 moments" is a second run of ours.

  step    optimiser steps of exact reverse KL over the whole vocabulary on given responses of 54 to
          211 tokens: student forward and backward, teacher forward, clipping, AdamW
  round   rollout, reward and step; every response has --tokens tokens, so nothing is padding
  check   both compute the same loss and the same gradient norm, on a few rows of equal length

What stays unequal:
  - The weights of tokens in the loss. SDFTTrainer averages over a row's tokens, then over rows;
    phase 2 over all tokens of a step, or it sums (--reduction). With rows of equal length the means
    are one loss, so the check compares there; the arithmetic is the same at any length.
  - Passes. SDFTTrainer pads all rows of a step to its longest prompt and longest response, and
    takes equally many rows in each pass: here as many as stay within --micro-tokens. Ours are
    sorted by length. That is what each has, and `step` shows it; `round` has no such padding.
  - What prompts begin with in common (32 tokens at least) ours reads once: that concerns `round`,
    whose questions stand in one chat template. The ids of `step` are random.
  - The reward. SDFTTrainer has none; here it gets a regular expression. Ours is verify.Grader, in
    worker processes, whose memory is not counted. The table gives rewards a column of their own.
  - HF's training loop counts operations, decides about logging and steps a scheduler: all of it is
    in its seconds, as a user has it. Our round does without a run folder's log and saved states.
  - AdamW: SDFTTrainer spares biases and norms the weight decay.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: modules are looked for beside it, but they are one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import gc
import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import replace

import kit
import sdzero
from kit.errors import UserError, exit_code
from kit.late import torch
from kit.options import Parser
from kit.tables import table
from studies.bench import median_of, reset_peak, resident
from studies.steps import RESPONSES, random_samples

SIDES = {
    "ours": "float32",
    "TRL SDFTTrainer": "float32",
    "ours, bfloat16 moments": "bfloat16",
}
THEIRS = "TRL SDFTTrainer"
PARTS = ("step", "round")
SAME = 1e-4  # of a loss or a gradient norm, at most
CHECKED, PROMPT = 4, 48  # rows of the check at most; tokens of a prompt of random ids
WARM_UP = 8  # tokens of a response in the first step, which is not timed
VERSIONS = """
import importlib.metadata, json, platform, sys
found = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({**found, "python": platform.python_version()}))
"""
HAS = {
    "ours": [
        "fp32 weights, gradients and arithmetic; fp32 moments, torch's fused AdamW",
        "logits from hidden states in chunks, never whole; the KL's gradient written out",
        "passes of rows of similar length, padded on the right, no attention mask",
        "equal beginnings of prompts read once, in rollouts and in passes",
        "a sparse gradient of the input embedding; free heap given back before a loss",
        "no gradient checkpointing",
    ],
    THEIRS: [
        "fp32 weights, gradients and arithmetic (bf16=False); fp32 moments, torch's fused AdamW",
        "logits of all response tokens of a pass whole, of both models; log-softmax and KL by "
        "autograd",
        "rows padded to the step's longest prompt and response; attention masks",
        "no gradient checkpointing (gradient_checkpointing=False), no logs, no saved states",
    ],
    "ours, bfloat16 moments": ["as ours, but AdamW's two moments in bfloat16, slice by slice"],
}


# --------------------------------------------------------------------------------------------------
# The work, which both sides get as one dict
# --------------------------------------------------------------------------------------------------
def settings(args, n_questions: int):
    """Phase 2 with what the command line says; the rest does not enter a step."""
    return sdzero.make_config(
        model=args.model,
        device="cpu",
        dtype="float32",
        digits=4,
        srt_questions=1,
        distil_questions=n_questions,
        eval_questions=1,
        temperature=1.0,
        distil_temperature=0.0,
        max_tokens=args.tokens,
        distil_max_tokens=0,
        reduction="mean",
    )


def make_jobs(args, folder: str) -> dict[str, dict]:
    """{part: job}; the model is written to `folder` as fp32, whatever --model was."""
    cfg = settings(args, args.rows * (args.steps + 1))
    tokenizer = kit.loading.load_tokenizer(cfg)
    run, model = sdzero.prepare(cfg, tokenizer, grader=None, questions={})
    model.generation_config.eos_token_id = run.end_ids  # so that both suppress the same tokens
    kit.files.save_checkpoint(tokenizer, model, folder)
    common = {
        "folder": folder,
        "threads": args.threads,
        "batch": args.rows,
        "micro_tokens": args.micro_tokens,
        "tokens": args.tokens,
        "end_ids": run.end_ids,
        "phrases": [run.phrases.if_wrong, run.phrases.if_right],
        "lr": 5e-6,
    }
    lengths = [RESPONSES[i % len(RESPONSES)] for i in range(args.rows)]
    rows, warm = (given_rows(run, n) for n in (lengths, [WARM_UP] * args.rows))
    shortest = min(lengths[:CHECKED])
    checked = given_rows(run, [shortest] * min(CHECKED, args.rows))
    questions = kit.questions.load_questions(cfg)["distil"]
    asked = [
        {"context": sdzero.chat_ids(tokenizer, q["prompt"]), "answer": q["answer"]}
        for q in questions
    ]
    return {
        "check": common | {"part": "check", "batch": len(checked), "rows": checked},
        "step": common | {"part": "step", "rows": warm + args.steps * rows},
        "round": common | {"part": "round", "rows": asked},
    }


def given_rows(run, lengths: list[int]) -> list[dict]:
    """Prompts and responses of random ids, and what the teacher reads before a response."""
    rows = []
    for s in random_samples(lengths, PROMPT, len(run.tokenizer), run.end_ids[0]):
        teacher = sdzero.reviser_ids(run, s["context"], s["ids"], s["reward"])
        rows.append({"context": s["context"], "response": s["ids"], "teacher": teacher})
    return rows


# --------------------------------------------------------------------------------------------------
# Our side
# --------------------------------------------------------------------------------------------------
def our_side(job: dict) -> dict:
    """The job's steps, as peer_trl_side.py reports its own."""
    base = resident() / 1e6
    args = argparse.Namespace(model=job["folder"], tokens=job["tokens"])
    cfg = settings(args, len(job["rows"]))
    cfg = replace(cfg, moments=job["moments"], micro_tokens=job["micro_tokens"])
    with sdzero.make_grader(cfg) as grader:
        tokenizer = kit.loading.load_tokenizer(cfg)
        run, student = sdzero.prepare(cfg, tokenizer, grader, questions={})
        run = replace(run, end_ids=job["end_ids"])
        teacher = sdzero.frozen_copy(student)
        optimizer = kit.low_bits.adamw(student, job["lr"], 0.01, cfg)
        torch.set_num_threads(job["threads"])  # loading the embedded model sets one
        generates_exactly(student)
        loaded, steps = reset_peak() / 1e6, []
        for i in range(0, len(job["rows"]), job["batch"]):
            rows = job["rows"][i : i + job["batch"]]
            tokens = job["tokens"] if i else WARM_UP
            steps.append(our_step(run, (student, teacher, optimizer), rows, tokens))
    return {
        "steps": steps,
        "base_mb": base,
        "loaded_mb": loaded,
        "peak_mb": resident("VmHWM") / 1e6,
    }


def generates_exactly(model) -> None:
    """From now on responses have max_new_tokens tokens: no end token can be sampled. TRL's side
    does it with the same setting."""
    generate = model.generate

    def exactly(generation_config, **inputs):
        generation_config.min_new_tokens = generation_config.max_new_tokens
        return generate(generation_config=generation_config, **inputs)

    model.generate = exactly


def our_step(run, models: tuple, rows: list[dict], tokens: int) -> dict:
    """One turn of sdzero.on_policy's loop, with a clock: the rollout only where no responses are
    given."""
    student, teacher, optimizer = models
    start, cpu = time.perf_counter(), time.process_time()
    clock = start
    times = {}

    def since() -> float:
        nonlocal clock
        before, clock = clock, time.perf_counter()
        return clock - before

    if "answer" in rows[0]:
        run = replace(run, cfg=replace(run.cfg, max_tokens=tokens))
        contexts = [row["context"] for row in rows]
        responses = sdzero.generate(run, student, contexts, seed=tokens)
        assert all(len(y) == tokens for y in responses), "responses ended early"
        # an end token, or it would be wrong unread
        responses = [y[:-1] + run.end_ids[:1] for y in responses]
        times["rollout"] = since()
        samples = sdzero.grade(run, rows, contexts, responses)
        for sample, context in zip(samples, sdzero.reviser_contexts(run, samples)):
            sample["teacher_context"] = context
        times["reward"] = since()
    else:
        samples = [
            {"context": r["context"], "ids": r["response"], "teacher_context": r["teacher"]}
            for r in rows
        ]
    student.train()
    loss = sdzero.backward_kl(run, student, teacher, samples)
    since()
    norm = sdzero.update(student, optimizer, 5e-6, run.cfg.grad_clip)
    times["update"] = since()
    times |= {"seconds": clock - start, "cpu": time.process_time() - cpu}
    return times | {"loss": loss, "norm": norm}


# --------------------------------------------------------------------------------------------------
# Both in turns
# --------------------------------------------------------------------------------------------------
def run_ours(job: dict) -> dict:
    return fresh([sys.executable, str(Path(__file__).resolve()), "--our-side"], job)


def run_theirs(python: str, job: dict) -> dict:
    return fresh([python, str(Path(__file__).resolve().with_name("peer_trl_side.py"))], job)


def fresh(command: list[str], job: dict) -> dict:
    """The last line that a new process prints; its job goes through a file."""
    how = {"capture_output": True, "text": True}
    how["env"] = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job))
        ended = subprocess.run([*command, str(file)], **how)
    if ended.returncode:
        raise UserError(f"{command[0]}, {job['part']}: {last_line(ended.stderr)}")
    return json.loads(last_line(ended.stdout))


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def versions_of(python: str, packages: list[str]) -> dict:
    """Of the packages that this interpreter finds. Raises UserError where one is missing."""
    try:
        command = [python, "-c", VERSIONS, *packages]
        ended = subprocess.run(command, capture_output=True, text=True)
        return json.loads(last_line(ended.stdout))
    except OSError as e:
        why = e.strerror
    except ValueError:
        why = last_line(ended.stderr)
    raise UserError(
        f"--trl-python {python} cannot run TRL's SDFTTrainer ({why}): give the interpreter of an "
        "environment made as docs/peers.md says"
    )


def compare(args) -> dict:
    """All of it, as one dict."""
    packages = ["torch", "transformers", "accelerate", "trl"]
    versions = {
        "TRL": versions_of(args.trl_python, packages),
        "ours": versions_of(sys.executable, packages[:2]),
    }
    runs = {name: {part: [] for part in PARTS} for name in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        jobs = make_jobs(args, folder)
        gc.collect()  # the model, before anything is measured beside it
        check = compared(args, jobs["check"])
        for part in PARTS * args.repeats:
            for name, moments in SIDES.items():
                job = jobs[part] | {"moments": moments}
                found = run_theirs(args.trl_python, job) if name == THEIRS else run_ours(job)
                runs[name][part].append(found)
                seconds = [round(step["seconds"], 2) for step in found["steps"]]
                print(f"{name}, {part}: {seconds} s, {found['peak_mb']:.0f} MB", flush=True)
    return {
        "machine": machine(args),
        "versions": versions,
        "model": args.model,
        "rows": args.rows,
        "response_tokens": {
            "step": sum(RESPONSES[i % len(RESPONSES)] for i in range(args.rows)),
            "round": args.rows * args.tokens,
        },
        "micro_tokens": args.micro_tokens,
        "has": HAS,
        "check": check,
        "medians": {name: medians(of_parts) for name, of_parts in runs.items()},
        "runs": runs,
    }


def compared(args, job: dict) -> dict:
    """Both sides' loss and gradient norm on the same rows, and how far they are apart. Raises
    UserError where that is more than rounding: times would be of different work."""
    job = job | {"moments": "float32"}
    ours = run_ours(job)["steps"][0]
    theirs = run_theirs(args.trl_python, job)["steps"][0]
    found = {name: {"ours": ours[name], "TRL": theirs[name]} for name in ("loss", "norm")}
    for both in found.values():
        both["difference"] = abs(both["ours"] - both["TRL"])
        if both["difference"] > SAME * both["ours"]:
            raise UserError(f"the two sides do not compute the same on the same rows: {found}")
    return found


def machine(args) -> dict:
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "load_at_the_end": os.getloadavg()[0],
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def medians(of_parts: dict) -> dict:
    """Of each part: the median of all timed steps' seconds, and of the processes' peaks."""
    found = {}
    for part, processes in of_parts.items():
        steps = [step for process in processes for step in process["steps"][1:]]
        pieces = [name for name in ("rollout", "reward", "update") if name in steps[0]]
        pieces = pieces if part == "round" else ["update"]
        of_part = {name: median_of(steps, name) for name in ("seconds", "cpu", *pieces)}
        rest = [s["seconds"] - sum(s[name] for name in pieces) for s in steps]
        of_part["gradient"] = median_of([{"gradient": seconds} for seconds in rest], "gradient")
        of_part |= {name: median_of(processes, name) for name in ("loaded_mb", "peak_mb")}
        found[part] = of_part
    return found


def report(result: dict) -> str:
    """The medians, and ours divided by TRL's."""
    heading = ["", "step: s", "CPU s", "gradient", "update", "peak MB"]
    heading += ["round: s", "CPU s", "rollout", "reward", "gradient", "update", "peak MB"]
    pieces = ("seconds", "cpu", "rollout", "reward", "gradient", "update", "peak_mb")
    places = [("step", name) for name in pieces if name not in ("rollout", "reward")]
    places += [("round", name) for name in pieces]
    lines, theirs = [heading], result["medians"][THEIRS]
    for name, found in result["medians"].items():
        values = [found[part][key] for part, key in places]
        formats = [".0f" if key == "peak_mb" else ".3f" for _, key in places]
        lines.append([name, *(f"{value:{how}}" for value, how in zip(values, formats))])
    for name, found in result["medians"].items():
        if name != THEIRS:
            ratios = [found[part][key] / theirs[part][key] for part, key in places]
            cells = [f"{ratio:.2f}" for ratio in ratios]
            cells[places.index(("round", "reward"))] = "-"  # two different ones
            lines.append([f"{name} / TRL", *cells])
    check = result["check"]
    return (
        f"{table(lines)}\n"
        f"the same rows: loss {check['loss']['ours']:.6f} and {check['loss']['TRL']:.6f}, gradient "
        f"norm {check['norm']['ours']:.6f} and {check['norm']['TRL']:.6f}"
    )


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="peer_trl.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--trl-python", default="", help="interpreter of TRL's environment")
    parser.add_argument("--model", default="tiny", help="folder, .gguf file or hub id")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--tokens", type=int, default=96, help="of a response in a round")
    parser.add_argument("--steps", type=int, default=2, help="timed in each process")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind")
    parser.add_argument("--micro-tokens", type=int, default=300, help="of a pass, at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", default="", help="also write the result to this file")
    parser.add_argument("--our-side", default="", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work():
        args = make_parser().parse_args(argv)
        if args.our_side:
            print(json.dumps(our_side(json.loads(Path(args.our_side).read_text()))))
            return
        if not args.trl_python:
            raise UserError("--trl-python: give the interpreter of an environment with TRL")
        if min(args.rows, args.steps, args.repeats, args.threads) < 1 or args.tokens <= WARM_UP:
            raise UserError(
                f"--rows, --steps, --repeats and --threads are 1 at least, --tokens {WARM_UP + 1}"
            )
        result = compare(args)
        print(report(result))
        print(json.dumps(result))
        if args.json:
            kit.files.write_json(Path(args.json), result)

    return exit_code("peer_trl", work)


if __name__ == "__main__":
    sys.exit(main())
