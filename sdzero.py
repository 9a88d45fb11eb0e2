"""Self-Distillation Zero (SD-Zero, arXiv 2604.12002) in one file.

A binary reward says only whether an answer is right. SD-Zero turns it into a target for every token, with no teacher but the
model itself. One set of weights plays two roles: the *generator* sees a question x and writes y; the *reviser* sees x, y and a
control phrase P_r, chosen by the reward r, and writes a better answer.

  Phase 1, self-revision training (SRT).  Sample y_init, grade it, let the model revise it, keep the tuples whose revision is
    verified, and fine-tune on   L_SRT = -log pi(y_revised | x, y_init, P_r)  -  log pi([y_init, P_r, y_revised] | x).
  Phase 2, on-policy self-distillation.  Freeze a copy as the teacher. Sample y from the student, grade it, and pull the student
    to what the teacher says of the same tokens once it has seen the whole answer and its verdict:
    sum_t KL( student(.|x, y_<t)  ||  teacher(.|x, y, P_r, y_<t) ).  From time to time the teacher may be set to the student.

    python sdzero.py                                              # embedded tiny model, arithmetic, a laptop's CPU
    python sdzero.py --model Qwen/Qwen3-4B-Instruct --task math   # a real model, one GPU
    python sdzero.py --help                                       # every option, with its default

Read from top to bottom: configuration, prompts, rollouts and rewards, losses, phase 1, phase 2, baselines, evaluation, main. The rewards
are in verify.py, where questions come from in questions.py, loading a model and stepping it in modeling.py, what a run writes in runs.py,
the command line in options.py.
"""
import contextlib
import copy
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tqdm import tqdm

import verify
from modeling import ALIASES, adamw, chunk_rows, copy_weights, end_token_ids, head_of, load_tokenizer_and_model, logits_of, plan, put_weights, trim_heap, update
from options import option, parse_options
from questions import UserError, load_questions
from report import figure, interval, results_table, revision_words
from runs import RunFolder, gather, leave_together, rank, replace_file, save_checkpoint, sum_gradients, world, write_json

# ----------------------------------------------------------------------------------------------------------------------------
# Configuration: one dataclass, which is also the --help. Defaults are the paper's; the embedded model has its own (TINY).
# ----------------------------------------------------------------------------------------------------------------------------


@dataclass
class Config:
    # what to train, on what
    model: str = option("tiny", "hub id, checkpoint folder or .gguf file; 'tiny' is the embedded model")
    task: Literal["arith", "math", "code"] = option("arith", "arith: generated additions; math: OpenR1-Math-220k; code: codeforces-cots")
    data: str = option("", "local .jsonl, .json, .csv or .parquet with questions, and answers (--task math, the default then) or tests (code)")
    digits: int = option(4, "arith: digits of each number")
    unsafe_exec: bool = option(False, "code: run generated programs even where this host cannot isolate them")
    out: str = option("", "run folder; empty: out/MODEL-TASK-METHOD-SEED, without sdzero. The same command again goes on where that run was stopped")
    fresh: bool = option(False, "discard what the run folder holds of an earlier run")
    save_every: int = option(20, "optimiser steps between two saved states; a resumed run repeats at most so many")
    seed: int = option(0, "seeds the questions' order, every sample and every shuffle")
    method: Literal["sdzero", "srt", "rft", "grpo", "sdft", "sft"] = option(
        "sdzero", "sdzero: both phases; srt: phase 1 alone; rft, grpo, sdft, sft: the paper's baselines, on the questions of both phases")
    samples: int = option(0, "generated responses that training may use, of any method; 0: as many as the other options come to")
    # questions: four disjoint sets
    srt_questions: int = option(6000, "N1: questions of phase 1 (paper: 6K of 15K)")
    distil_questions: int = option(9000, "N2: questions of phase 2 (paper: 9K of 15K)")
    eval_questions: int = option(500, "questions in each of the validation and test sets")
    # the model
    device: str = option("auto", "auto, cpu or cuda")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "auto: bfloat16 on a GPU, float32 on a CPU. bfloat16 keeps the bits that rounding drops, so that small steps count")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, about 30 % more time")
    chat_template: str = option("", "for a base model without one: 'plain' (Question:/Answer:), or a file with a Jinja template")
    rephrase_phrase: str = option("", "P_r for r = 1; empty: the model family's")
    correct_phrase: str = option("", "P_r for r = 0; empty: the model family's")
    # sampling
    temperature: float = option(0.7, "sampling temperature of all rollouts (the KL is always at temperature 1)")
    max_tokens: int = option(4096, "longest response, in tokens; a response cut off there is wrong and gets no end token")
    rollout_batch: int = option(0, "sequences generated at once; 0: 64 on a CPU, by the memory plan on a GPU")
    # phase 1
    phase1: bool = option(True, "--no-phase1 distils from the base itself (ablation: the paper finds almost no gain)")
    srt_share: float = option(0.0, "share of --samples that phase 1 takes; 0: in proportion to --srt-questions and --distil-questions")
    first_answers: int = option(1, "first answers y_init per question")
    revisions: int = option(3, "revisions y_revised per first answer")
    filtered: bool = option(True, "--no-filtered trains on unverified revisions too (ablation)")
    flip_reward: bool = option(False, "train on 1 - reward (ablation: must destroy the gain)")
    trim: bool = option(True, "cut repeating tails and chatty openings off what was sampled, at token boundaries")
    l_revision: bool = option(True, "train on -log pi(y_revised | x, y_init, P_r)")
    l_generation: Literal["wrong", "all", "none"] = option(
        "all", "train on -log pi([y_init, P_r, y_revised] | x) for tuples with a wrong first answer, for all, or for none")
    l_answer: bool = option(False, "train on -log pi(y_revised | x) too, which is not in the paper (README says what it gains)")
    srt_epochs: int = option(3, "passes over the kept tuples (rft, sft: over theirs)")
    srt_batch: int = option(64, "tuples per optimiser step")
    srt_lr: float = option(5e-6, "peak learning rate; cosine to 0 after 5 % warm-up")
    srt_weight_decay: float = option(1e-4, "AdamW weight decay in phase 1")
    # phase 2
    divergence: Literal["reverse", "forward", "mixed"] = option(
        "reverse", "KL(student||teacher), KL(teacher||student), or half of each")
    distil_epochs: int = option(1, "passes over the phase-2 questions")
    distil_batch: int = option(128, "rollouts per optimiser step, one for each question (grpo: --group for each)")
    distil_lr: float = option(5e-6, "learning rate; constant after --warmup-steps")
    warmup_steps: int = option(20, "linear warm-up of phase 2, in steps")
    decay: float = option(0.0, "share of each round's steps, the last ones, over which the learning rate falls to 0; 0: constant, as in the paper")
    distil_weight_decay: float = option(0.01, "AdamW weight decay in phase 2")
    sync_every: int = option(0, "set the teacher to the student every so many steps; 0: frozen teacher")
    rounds: int = option(1, "sdzero: parts of phase 2, before each of which the teacher is set to the student and evaluated; rft: samplings")
    kl_clip: float = option(0.0, "count a token's divergence as at most this; a token above it has no gradient. 0: off, as in the paper")
    grad_clip: float = option(1.0, "largest gradient norm, both phases")
    # baselines
    group: int = option(4, "grpo: responses per question; and of rft and sdft, where --samples does not say (the paper's 4)")
    grpo_updates: int = option(1, "grpo: optimiser steps per batch of rollouts")
    grpo_clip: float = option(0.2, "grpo: the policy ratio counts only within 1 +- this")
    grpo_kl: float = option(0.0, "grpo: weight of the KL to the model that training started from")
    on_revisions: bool = option(False, "rft: train on the base's verified revisions instead of its right answers (a control)")
    # memory
    micro_tokens: int = option(0, "tokens (padding included) per forward and backward pass, which the gradient does not depend on; "
                               "0: 2048 on a CPU, by the memory plan on a GPU")
    moments: Literal["float32", "bfloat16"] = option("float32", "AdamW's two moments; with the paper's betas bfloat16 learns the same")
    offload: bool = option(False, "keep moments and low halves of bfloat16 weights in CPU memory: exact, some seconds more per step")
    plan: bool = option(False, "print what the phases need in memory, and which settings fit, from the model's config.json; then stop")
    # evaluation
    eval_split: Literal["test", "val"] = option("test", "val: choose settings on validation questions, look at test ones once")
    eval_samples: int = option(4, "sampled answers per question (avg@k), besides one greedy answer and one revision")


# The embedded model is 20,000 times smaller and learns at other rates; found on validation questions (see README).
TINY = dict(srt_questions=924, distil_questions=912, temperature=1.0, max_tokens=160, rollout_batch=512, micro_tokens=2048, l_generation="none",
            srt_epochs=16, srt_batch=16, srt_lr=1e-3, distil_batch=4, distil_lr=3e-4, warmup_steps=10, decay=1.0, eval_samples=2)
TINY_BASELINES = {"grpo": dict(group=8, distil_batch=32, distil_lr=5e-4, decay=0.0), "sdft": dict(distil_batch=16, distil_lr=1e-5),
                  "sft": dict(srt_epochs=3)}


def is_tiny(model: str) -> bool:
    """Whether `model` is the embedded model or was trained from it: a local checkpoint of less than 5 MB."""
    weights = Path(ALIASES.get(model, model)) / "model.safetensors"
    return weights.is_file() and weights.stat().st_size < 5e6


def make_config(cls=Config, **given) -> Config:
    """Options that were not given take the paper's default, or TINY's where the model is tiny. Raises UserError for bad values."""
    preset = TINY | TINY_BASELINES.get(given.get("method"), {}) if is_tiny(given.get("model", Config.model)) else {}
    cfg = cls(**{**preset, **given})
    if cfg.data and cfg.task == "arith":
        cfg.task = "math"
    if not cfg.out:
        name = [Path(cfg.model).name.removesuffix(".gguf"), cfg.task, *[cfg.method] * (cfg.method != "sdzero"), str(cfg.seed)]
        cfg.out = str(Path("out") / "-".join(name))
    may_be_0 = ("seed", "sync_every", "warmup_steps", "srt_weight_decay", "distil_weight_decay", "rollout_batch", "micro_tokens", "kl_clip",
                "samples", "srt_share", "grpo_kl", "decay")
    for f in fields(Config):  # every number is a count or a size
        value = getattr(cfg, f.name)
        if f.type in (int, float) and not (value >= 0 if f.name in may_be_0 else value > 0):
            raise UserError(f"--{f.name.replace('_', '-')} must be {'at least' if f.name in may_be_0 else 'above'} 0, not {value}")
    if cfg.method == "grpo" and (cfg.group < 2 or cfg.distil_batch % cfg.group):
        raise UserError(f"--method grpo compares the answers of a group: --group {cfg.group} must be above 1 and divide --distil-batch "
                        f"{cfg.distil_batch}")
    if cfg.on_revisions and cfg.method != "rft":
        raise UserError(f"--on-revisions is a variant of --method rft, not of {cfg.method}")
    if cfg.samples:
        divide_samples(cfg)
    if cfg.phase1 and not (cfg.l_revision or cfg.l_answer) and cfg.l_generation == "none":
        raise UserError("phase 1 has no loss left: give --l-revision or --l-generation wrong|all, or --no-phase1")
    return cfg


def divide_samples(cfg: Config) -> None:
    """Set the numbers of questions so that training generates cfg.samples responses, and not one more."""
    per_question = cfg.first_answers * (1 + cfg.revisions)
    srt, distil = cfg.srt_questions * per_question, cfg.distil_questions * cfg.distil_epochs
    share = cfg.srt_share or srt / (srt + distil)
    if cfg.method == "srt" or cfg.on_revisions:
        share = 1.0
    elif cfg.method == "sdzero" and not cfg.phase1:
        share = 0.0
    cfg.srt_questions = round(share * cfg.samples / per_question)
    cfg.distil_questions = (cfg.samples - cfg.srt_questions * per_question) // cfg.distil_epochs
    if (share > 0 and not cfg.srt_questions) or (share < 1 and not cfg.distil_questions):
        raise UserError(f"--samples {cfg.samples} are too few: a question of phase 1 takes {per_question}")


# ----------------------------------------------------------------------------------------------------------------------------
# Prompts. Everything is built from token ids: what was sampled is never decoded and tokenised again.
# ----------------------------------------------------------------------------------------------------------------------------
def control_phrases(cfg: Config, model_type: str) -> tuple[str, str]:
    """(P_0, P_1): what the reviser is told after a wrong and after a right answer, in the wording natural to the family."""
    wrong = "Wrong. I need to redo all." if "olmo" in model_type.lower() else "Wait, this response is wrong. Let me correct it."
    return cfg.correct_phrase or wrong, cfg.rephrase_phrase or "Let me rephrase the above solution."


def chat_ids(tokenizer, prompt) -> list[int]:
    """chat(x): the ids of the user's turn (or of several turns) up to where the assistant's answer begins."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, enable_thinking=False))


def ids_in_running_text(tokenizer, text: str) -> list[int]:
    """The ids that `text` has between other text.

    Encoded alone it can come out differently: "\\n\\n" at the end of a string is one token for many tokenizers, and two before
    a word. So it is encoded between two neutral neighbours, and what they share no token with is returned.
    """
    for left, right in (("a", "The"), ("a", "1"), ("1", "The"), (".", "The"), ("a.", "a"), ("}", "The")):
        ids = tokenizer.encode(left + text + right, add_special_tokens=False)
        decoded = [tokenizer.decode(ids[:i], clean_up_tokenization_spaces=False) for i in range(len(ids) + 1)]
        if left in decoded and left + text in decoded:
            return ids[decoded.index(left):decoded.index(left + text)]
    raise UserError(f"the tokenizer merges {text!r} with every neighbour tried, so the reviser's prompt cannot be built")


def phrase_ids(tokenizer, phrases: tuple[str, str]) -> list[list[int]]:
    """Ids of "\\n\\n" + P_r + "\\n\\n" for r = 0 and r = 1."""
    return [ids_in_running_text(tokenizer, f"\n\n{p}\n\n") for p in phrases]


def without_end(response_ids: list[int], end_ids: list[int]) -> list[int]:
    """The response without its end token: what stands before a control phrase. A truncated response has none to remove."""
    return response_ids[:-1] if response_ids and response_ids[-1] in end_ids else response_ids


def reviser_ids(prompt_ids, response_ids, reward: float, phrases, end_ids) -> list[int]:
    """chat(x) + y + "\\n\\n" + P_r + "\\n\\n": the reviser's context, inside the assistant's turn. Both phases call this one."""
    return prompt_ids + without_end(response_ids, end_ids) + phrases[int(reward)]


# ----------------------------------------------------------------------------------------------------------------------------
# Rollouts
# ----------------------------------------------------------------------------------------------------------------------------
def derived_seed(*parts) -> int:
    """A seed for one step of one phase, so that no step's randomness depends on what ran before it."""
    return random.Random("/".join(map(str, parts))).getrandbits(31)


def attempt(work):
    """work(), or None where memory ran out; by then all that work() held is free again."""
    try:
        return work()
    except RuntimeError as e:  # a GPU's torch.OutOfMemoryError, and what the CPU's allocator says
        if not (isinstance(e, torch.OutOfMemoryError) or "out of memory" in str(e) or "can't allocate memory" in str(e)):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def engine(model) -> str:
    """How rollouts are made: a GPU replaces finished rows at once; on a CPU that is slower than batches that end together."""
    return "continuous batching" if model.device.type == "cuda" and hasattr(model, "generate_batch") else "batches sorted by length"


@torch.no_grad()
def generate(model, prompts: list[list[int]], cfg: Config, end_ids: list[int], seed: int, greedy=False, desc="", folder=None,
             key="") -> list[list[int]]:
    """One response per prompt, as ids; its last id is in end_ids, or else it was cut off at cfg.max_tokens.

    Samples from the model's whole distribution at cfg.temperature: top-k, top-p and penalties that the checkpoint's generation
    config may set are off, since the losses are about the plain distribution. Prompts are batched by length; every rank takes
    each world-th batch. A batch that `folder` (a RunFolder) holds under `key` was paid for before the run was stopped. Where
    memory runs out, half as many sequences are generated at once from then on.
    """
    from transformers import GenerationConfig
    sampling = {"do_sample": False} if greedy else {"do_sample": True, "temperature": cfg.temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(max_new_tokens=cfg.max_tokens, eos_token_id=end_ids, pad_token_id=end_ids[0], **sampling)
    # generate() fills whatever is None here from the checkpoint's own generation config (suppressed tokens, biases, guidance ...)
    own, model.generation_config = model.generation_config, GenerationConfig()
    model.eval()  # also makes gradient checkpointing leave the KV cache alone
    device, responses, continuous = model.device, [[] for _ in prompts], engine(model) == "continuous batching"
    at_once = cfg.rollout_batch or 64
    size = at_once * 8 if continuous else at_once  # continuous batching wants a queue to refill from
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))

    def continuous_batching(rows, seed):
        from transformers import ContinuousBatchingConfig
        settings = ContinuousBatchingConfig(max_requests_per_batch=min(at_once, model.rollout_limit), seed=seed)
        done = model.generate_batch([prompts[i] for i in rows], generation_config=config, continuous_batching_config=settings)
        done = [output.generated_tokens for output in done.values() if output.is_finished() and not output.error]
        return done if len(done) == len(rows) else None  # its thread reports an error, such as no memory, only by what is missing

    def left_padded(rows, seed):
        torch.manual_seed(seed)
        output = []
        for part in (rows[i:i + model.rollout_limit] for i in range(0, len(rows), model.rollout_limit)):
            length = max(len(prompts[i]) for i in part)
            input_ids = torch.tensor([[end_ids[0]] * (length - len(prompts[i])) + prompts[i] for i in part], device=device)  # (B, T)
            mask = torch.tensor([[0] * (length - len(prompts[i])) + [1] * len(prompts[i]) for i in part], device=device)  # (B, T)
            output += model.generate(input_ids=input_ids, attention_mask=mask, generation_config=config)[:, length:].tolist()
        return output

    def sample(rows, seed):
        model.rollout_limit = getattr(model, "rollout_limit", at_once)
        while (batch := attempt(lambda: (continuous_batching if continuous else left_padded)(rows, seed))) is None:
            now = min(model.rollout_limit, len(rows))
            if now == 1:
                raise UserError("memory ran out while one sequence was generated; lower --max-tokens")
            model.rollout_limit = now // 2
            print(f"memory ran out with {now} sequences at once: going on with {now // 2}")
        for row in batch:  # the padding behind a response is an end token too: cut behind the first
            del row[next((t + 1 for t, token in enumerate(row) if token in end_ids), len(row)):]
        return batch

    with contextlib.ExitStack() as stack:
        stack.callback(setattr, model, "generation_config", own)
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        bar = stack.enter_context(tqdm(total=len(prompts), desc=desc, unit="rollout", disable=not desc or rank() > 0, mininterval=1.0))
        for first in range(0, len(order), size * world()):
            starts = range(first, min(first + size * world(), len(order)), size)  # one batch per rank
            batches = [folder and folder.recall(f"{key}/{start}") for start in starts]
            paid = all(batches)
            if not paid:
                mine = [sample(order[start:start + size], derived_seed(seed, start)) for start in starts[rank():rank() + 1]]
                batches = sum(gather(mine), [])
            for start, batch in zip(starts, batches):
                for i, row in zip(order[start:start + size], batch):
                    responses[i] = row
                if folder and not paid:
                    folder.remember(f"{key}/{start}", batch)
                bar.update(len(batch))
            if desc and folder and folder.stopping():
                raise KeyboardInterrupt
    return responses


def to_text(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def make_grader(cfg: Config):
    """The verifier of cfg.task. Says how programs are isolated, and raises UserError where that is less than --task code wants."""
    if cfg.task == "code":
        print(f"sandbox: {verify.sandbox_level()[1]}", flush=True)
    try:
        return verify.Grader("code" if cfg.task == "code" else "math", unsafe=cfg.unsafe_exec)
    except RuntimeError as e:
        raise UserError(str(e)) from None


def rollouts(model, tokenizer, grader, questions: list[dict], contexts: list[list[int]], cfg: Config, end_ids, seed, edit=None,
             folder=None, **kwargs) -> list[dict]:
    """Sample one response per context and grade it: dicts with context, ids, finished, text, answer and reward (0.0 or 1.0).

    A response that was cut off is wrong, whatever it says so far. `edit(ids) -> ids` may shorten a response before it is graded.
    """
    samples = []
    for question, context, ids in zip(questions, contexts, generate(model, contexts, cfg, end_ids, seed, folder=folder, **kwargs)):
        ids = edit(ids) if edit else ids
        samples.append({"context": context, "ids": ids, "finished": ids[-1] in end_ids, "text": to_text(tokenizer, ids),
                        "question": question})
    late = grader.timeouts
    mine = [s for s in samples[rank()::world()] if s["finished"]]
    rewards = list(map(iter, gather(grader.grade([s["text"] for s in mine], [s["question"]["answer"] for s in mine]))))
    for i, sample in enumerate(samples):
        sample["reward"] = next(rewards[i % world()]) if sample["finished"] else 0.0
        if cfg.flip_reward:
            sample["reward"] = 1.0 - sample["reward"]
    if folder:
        folder.timeouts += sum(gather(grader.timeouts - late))
    return samples


CHATTY = re.compile(r"\s*(you('|\u2019| a)re (absolutely |completely |quite )?(right|correct)|(i )?apologi[sz]e|my apologies|"
                    r"(i'm |i am )?sorry|thank(s| you) for|(good|great) (catch|point))"
                    r"[^\n]*?([.!?]+(?=\s|$)|\n)\s*", re.IGNORECASE)  # the point in 3.5 ends no sentence


def trim(tokenizer, ids: list[int], end_ids, chatty: bool = False) -> list[int]:
    """Cut a repeating tail down to one copy and, if `chatty`, an opening such as "You're absolutely right!" off.

    Only whole sampled tokens are removed, and the end token stays if there was one: nothing is tokenised again. A tail counts as
    repeating when at least 32 tokens hold at least 4 copies of the same up to 128 tokens.
    """
    body = without_end(ids, end_ids)
    end = ids[len(body):]
    for period in range(1, min(128, len(body) // 4) + 1):
        same = 0
        while same + period < len(body) and body[-1 - same] == body[-1 - same - period]:
            same += 1
        if same + period >= max(4 * period, 32):
            body = body[:len(body) - same]
            break
    match = CHATTY.match(to_text(tokenizer, body)) if chatty else None
    if match:
        for i in range(1, len(body)):
            opening = to_text(tokenizer, body[:i])
            if opening.rstrip() == match.group().rstrip() and to_text(tokenizer, body[i:i + 1]).strip():
                body = body[i:]
                break
            if len(opening) > match.end() + 8:  # no token boundary there: leave it as it was sampled
                break
    return body + end


# ----------------------------------------------------------------------------------------------------------------------------
# Losses. Each is a function of logits (n, V) that gives one value per token (n,); hidden states are projected chunk by chunk so
# that the (T, V) logits, which for a 4B model outweigh everything else, are never whole in memory.
# ----------------------------------------------------------------------------------------------------------------------------
class KL(torch.autograd.Function):
    """KL(a || b) per token in nats over the full vocabulary: sum_v p_a (log p_a - log p_b). Logits (n, V), (n, V) -> (n,)

    The gradients are written out, d/da = p_a (log p_a - log p_b - KL) and d/db = p_b - p_a, because autograd would make twice as
    many passes over (n, V) and keep twice as many copies. Any differentiable function of logits can stand beside this one.
    """

    @staticmethod
    def forward(ctx, a, b):
        p, terms = F.log_softmax(a, -1), F.log_softmax(b, -1)  # two buffers, for log p_a and log p_b at first
        ctx.p_b = terms.exp() if ctx.needs_input_grad[1] else None
        terms.neg_().add_(p)
        terms.mul_(p.exp_())  # p_a (log p_a - log p_b)
        kl = terms.sum(-1)
        ctx.p_a, ctx.terms, ctx.kl = p, terms, kl.detach()  # kl itself would make a cycle, and all of this wait for the collector
        return kl

    @staticmethod
    def backward(ctx, grad):
        grad_a = ctx.terms.addcmul_(ctx.p_a, ctx.kl[:, None], value=-1).mul_(grad[:, None]) if ctx.needs_input_grad[0] else None
        grad_b = ctx.p_b.sub_(ctx.p_a).mul_(grad[:, None]) if ctx.needs_input_grad[1] else None
        ctx.p_a = ctx.p_b = ctx.terms = None  # overwritten: no second backward pass
        return grad_a, grad_b


def reverse_kl(student_logits, teacher_logits):
    """KL(student || teacher) per token. (n, V), (n, V) -> (n,)"""
    return KL.apply(student_logits, teacher_logits)


def forward_kl(student_logits, teacher_logits):
    """KL(teacher || student) per token. (n, V), (n, V) -> (n,)"""
    return KL.apply(teacher_logits, student_logits)


def mixed_kl(student_logits, teacher_logits):
    """The symmetric mixture: half reverse, half forward. (n, V), (n, V) -> (n,)"""
    return (reverse_kl(student_logits, teacher_logits) + forward_kl(student_logits, teacher_logits)) / 2


DIVERGENCES = {"reverse": reverse_kl, "forward": forward_kl, "mixed": mixed_kl}


class TokenLoss(torch.autograd.Function):
    """sum of loss_fn(logits of hidden[a:b], slice(a, b)), with the gradient taken chunk by chunk in the forward pass.

    A chunk's logits live just long enough to give its loss and d loss / d logits, from which the gradients of hidden states and
    head follow by two matrix products, as in backpropagation; nothing is computed twice.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, finish, loss_fn, chunk):
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        per_token = torch.empty(len(hidden), device=hidden.device, dtype=torch.promote_types(hidden.dtype, torch.float32))  # (N,)
        grad_h = torch.empty_like(hidden) if need_h else None
        grad_w = torch.zeros_like(weight) if need_w else None
        grad_b = torch.zeros_like(bias) if need_b else None
        for a in range(0, len(hidden), chunk):
            rows = slice(a, min(a + chunk, len(hidden)))
            raw = F.linear(hidden[rows], weight, bias)  # (n, V)
            with torch.enable_grad():
                leaf = raw.to(per_token.dtype).requires_grad_(need_h or need_w)
                losses = loss_fn(finish(leaf), rows)  # (n,)
            per_token[rows] = losses.detach()
            if need_h or need_w:
                del raw
                g = torch.autograd.grad(losses, leaf, torch.ones_like(losses))[0].to(hidden.dtype)  # (n, V)
                if need_h:
                    grad_h[rows] = g @ weight
                if need_w:
                    grad_w.addmm_(g.T, hidden[rows])
                if need_b:
                    grad_b += g.sum(0)
                del leaf, losses, g  # or they would stay while the next chunk is made
        ctx.grads = grad_h, grad_w, grad_b
        ctx.mark_non_differentiable(per_token)
        return per_token.sum(), per_token

    @staticmethod
    def backward(ctx, grad_sum, _):
        grads, ctx.grads = ctx.grads, None  # nothing else may hold them, or autograd would copy grad_w into .grad
        return *(g if g is None else g.mul_(grad_sum) for g in grads), None, None, None


def token_loss(hidden, head, loss_fn):
    """(sum, per-token values (N,) without gradient) of loss_fn(logits, rows) over hidden states (N, H)."""
    trim_heap(head[0])  # the peak of a step is here
    return TokenLoss.apply(hidden, *head, loss_fn, chunk_rows(len(head[0])))


def nll_loss(model, hidden, targets, weights=None):
    """Cross-entropy -log pi(targets) in nats: SRT's likelihoods. hidden (N, H), targets (N,), weights (N,) -> sum, (N,)"""
    def loss_fn(logits, rows):
        nll = F.cross_entropy(logits, targets[rows], reduction="none")
        return nll if weights is None else nll * weights[rows]

    return token_loss(hidden, head_of(model), loss_fn)


def distillation_loss(student, hidden, teacher, teacher_hidden, divergence: str = "reverse", clip: float = 0.0):
    """Phase 2's divergence over N tokens, each at most `clip` if that is above 0; teacher_hidden (N, H') has no gradient. -> sum, (N,)"""
    teacher_head = head_of(teacher)

    def loss_fn(logits, rows):
        with torch.no_grad():
            teacher_logits = logits_of(teacher_hidden[rows], teacher_head)  # (n, V)
        losses = DIVERGENCES[divergence](logits, teacher_logits)
        return losses.clamp(max=clip) if clip else losses

    return token_loss(hidden, head_of(student), loss_fn)


def response_hidden(model, contexts: list[list[int]], responses: list[list[int]]):
    """Last hidden states that predict the response tokens, rows one after the other: (sum of response lengths, H).

    Rows are padded on the right and attend causally, so padding changes nothing and no mask is needed: attention takes its fast
    path. The last response token is predicted, never read.
    """
    rows = [c + r[:-1] for c, r in zip(contexts, responses)]
    width = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)  # (B, T)
    places = [i * width + t for i, (c, row) in enumerate(zip(contexts, rows)) for t in range(len(c) - 1, len(row))]
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state  # (B, T, H)
    return hidden.flatten(0, 1)[torch.tensor(places, device=model.device)]


@torch.no_grad()
def log_probs(model, contexts, responses):
    """log pi(response token | context, earlier response tokens), rows one after the other: (sum of response lengths,)"""
    targets = torch.tensor([t for r in responses for t in r], device=model.device)
    return -nll_loss(model, response_hidden(model, contexts, responses), targets)[1]


def micro_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices grouped by similar length: rows x longest row stays within `budget` tokens (one row at least), a tenth of them padding.

    Below 1024 tokens padding is let be, since a pass over fewer costs about as much.
    """
    batches, order = [], sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    for i in order:
        size = lengths[batches[-1][0]] * (len(batches[-1]) + 1) if batches else 0  # tokens, if row i went into the last batch
        if not batches or size > budget or (size > 1024 and size - sum(lengths[j] for j in batches[-1]) - lengths[i] > size / 10):
            batches.append([])
        batches[-1].append(i)
    return batches


def accumulate(model, lengths: list[int], cfg: Config, loss_of) -> float:
    """Add the gradient of loss_of(rows), summed over micro-batches of rows, to the model's, which has none yet; returns that sum.

    Ranks share the rows. Where memory runs out, cfg.micro_tokens is halved and the rank's share starts again with clean gradients,
    since the failed backward pass has added to some of them.
    """
    share = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)[rank()::world()]
    longest = max((lengths[i] for i in share), default=0)

    def batches():
        return [[share[j] for j in rows] for rows in micro_batches([lengths[i] for i in share], cfg.micro_tokens or 2048)]

    def whole_share():
        loss, embedding = 0.0, model.get_input_embeddings()
        if embedding.sparse:  # its sparse gradients add up in a dense one
            embedding.weight.grad = torch.zeros_like(embedding.weight)
        for rows in batches():
            part = loss_of(rows)
            part.backward()
            loss += part.detach().double()
        return float(loss)

    while (loss := attempt(whole_share)) is None:
        model.zero_grad(set_to_none=True)
        tokens = max(max(lengths[i] for i in rows) * len(rows) for rows in batches())
        if tokens <= longest:
            raise UserError(f"memory ran out in a pass over one row of {tokens} tokens; try --gradient-checkpointing or a lower --max-tokens")
        cfg.micro_tokens = max(longest, tokens // 2)
        print(f"memory ran out in a pass over {tokens} tokens: going on with --micro-tokens {cfg.micro_tokens}")
    sum_gradients(model)
    return sum(gather(loss))


# ----------------------------------------------------------------------------------------------------------------------------
# Phase 1: self-revision training (SRT)
# ----------------------------------------------------------------------------------------------------------------------------
def collect_revisions(model, tokenizer, grader, questions, cfg: Config, phrases, end_ids, folder: RunFolder) -> list[dict]:
    """First answers and revisions of them: one dict per tuple, with every field, and "kept" with the reason "why".

    A tuple is kept if its revision is verified (unless cfg.filtered is off), and not the same as an earlier one of that first answer.
    """
    questions = [q for q in questions for _ in range(cfg.first_answers)]
    prompts = [chat_ids(tokenizer, q["prompt"]) for q in questions]
    edit = (lambda ids: trim(tokenizer, ids, end_ids)) if cfg.trim else None
    first = rollouts(model, tokenizer, grader, questions, prompts, cfg, end_ids, derived_seed(cfg.seed, "init"), edit,
                     desc="phase 1: first answers", folder=folder, key="init")
    folder.log("init", 0, **folder.count(first))
    questions, first = ([x for x in xs for _ in range(cfg.revisions)] for xs in (questions, first))
    contexts = [reviser_ids(y["context"], y["ids"], y["reward"], phrases, end_ids) for y in first]
    edit = (lambda ids: trim(tokenizer, ids, end_ids, chatty=True)) if cfg.trim else None
    revised = rollouts(model, tokenizer, grader, questions, contexts, cfg, end_ids, derived_seed(cfg.seed, "revise"), edit,
                       desc="phase 1: revisions", folder=folder, key="revise")
    folder.log("revise", 0, **folder.count(revised))
    records, seen = [], set()
    for question, y, z in zip(questions, first, revised):
        key = (tuple(y["context"]), tuple(y["ids"]), tuple(z["ids"]))
        why = "truncated" if not z["finished"] else "wrong" if not z["reward"] else "duplicate" if key in seen else "verified"
        seen.add(key)
        records.append({"prompt": question["prompt"], "answer": question["answer"], "why": why,
                        "kept": why == "verified" or (why != "duplicate" and not cfg.filtered),
                        "init_reward": y["reward"], "init_finished": y["finished"], "init_text": y["text"],
                        "control_phrase": to_text(tokenizer, phrases[int(y["reward"])]).strip(),
                        "revised_reward": z["reward"], "revised_finished": z["finished"], "revised_text": z["text"],
                        "prompt_ids": y["context"], "init_ids": y["ids"], "revised_context": z["context"], "revised_ids": z["ids"]})
    return records


def srt_examples(record: dict, cfg: Config, end_ids) -> list[tuple[list[int], list[int]]]:
    """(context, target) pairs of one tuple: L_revision's and L_generation's, in ids exactly as they were sampled.

    With cfg.l_answer also what was revised to, as if it had been answered at once; for the control, cfg.on_revisions, that alone.
    """
    examples = [(record["prompt_ids"], record["revised_ids"])] if cfg.l_answer or cfg.on_revisions else []
    if cfg.on_revisions:
        return examples
    if cfg.l_revision:
        examples.append((record["revised_context"], record["revised_ids"]))
    if cfg.l_generation == "all" or (cfg.l_generation == "wrong" and not record["init_reward"]):
        whole = record["revised_context"] + record["revised_ids"]  # chat(x), y_init without its end, P_r, y_revised with its end
        examples.append((record["prompt_ids"], whole[len(record["prompt_ids"]):]))
    return examples


def train_on(model, examples, normaliser: int, cfg: Config) -> float:
    """Add the gradient of (summed cross-entropy of the targets) / normaliser to the model's; returns that loss in nats.

    L_revision and L_generation of a tuple score parts of the same ids: those share one pass, and their tokens count twice.
    """
    starts = {}  # ids of a row -> where the target of each of its examples starts
    for context, target in examples:
        starts.setdefault((*context, *target), []).append(len(context))
    rows = [(list(ids), sorted(s)) for ids, s in starts.items()]

    def loss_of(batch):
        contexts, responses = [rows[i][0][:rows[i][1][0]] for i in batch], [rows[i][0][rows[i][1][0]:] for i in batch]
        targets = torch.tensor([t for r in responses for t in r], device=model.device)  # (N,)
        counts = [sum(s <= t for s in rows[i][1]) for i in batch for t in range(rows[i][1][0], len(rows[i][0]))]
        weights = torch.tensor(counts, device=model.device)  # (N,)
        return nll_loss(model, response_hidden(model, contexts, responses), targets, weights)[0] / normaliser

    return accumulate(model, [len(ids) for ids, _ in rows], cfg, loss_of)


def fine_tune(model, rows: list[list[tuple]], cfg: Config, folder: RunFolder, phase: str) -> None:
    """Minimise -log pi(target | context), averaged over the target tokens of a batch of rows, each a list of (context, target)."""
    optimizer, steps_per_epoch = adamw(model, cfg.srt_lr, cfg.srt_weight_decay, cfg), math.ceil(len(rows) / cfg.srt_batch)
    steps = cfg.srt_epochs * steps_per_epoch
    start = folder.restore(model, optimizer) if folder.saved.get("phase") == phase else 0
    model.train()
    bar = tqdm(range(start, steps), f"{phase}: fine-tuning", steps, initial=start, unit="step", mininterval=1.0, disable=rank() > 0)
    for step in bar:
        folder.checkpoint(phase, step, model, optimizer)
        epoch, first = step // steps_per_epoch, step % steps_per_epoch * cfg.srt_batch
        order = random.Random(derived_seed(cfg.seed, phase, epoch)).sample(range(len(rows)), len(rows))
        examples = [e for i in order[first:first + cfg.srt_batch] for e in rows[i]]
        loss = train_on(model, examples, folder.count_trained(len(t) for _, t in examples), cfg)
        warmup = max(1, round(0.05 * steps))
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup)))
        lr = cfg.srt_lr * min((step + 1) / warmup, cosine)
        try:
            norm = update(model, optimizer, lr, cfg.grad_clip)
        except FloatingPointError as e:
            folder.broken_step(phase, step, examples, e)
        folder.log(phase, step, loss=loss, grad_norm=norm, lr=lr)
        bar.set_postfix(loss=f"{loss:.3f}")
    folder.save_state(phase, steps, model)


def srt(model, records: list[dict], cfg: Config, end_ids, folder: RunFolder) -> None:
    """Fine-tune on the kept tuples: L_SRT = L_revision + L_generation."""
    rows = list(filter(None, (srt_examples(r, cfg, end_ids) for r in records if r["kept"])))
    if not rows:
        raise UserError(f"none of {len(records)} revisions was verified, so there is nothing to train on. Ask easier questions, sample "
                        "more (--srt-questions, --revisions), or start from a stronger model.")
    fine_tune(model, rows, cfg, folder, "srt")


# ----------------------------------------------------------------------------------------------------------------------------
# Phase 2: on-policy self-distillation
# ----------------------------------------------------------------------------------------------------------------------------
def imitate(student, teacher, samples: list[dict], cfg: Config) -> float:
    """Add the gradient of the divergence, averaged over all response tokens of the batch, to the student's; returns that loss.

    Student and teacher read the same y behind different contexts. Its tokens, the end token included, are scored at every
    position. A truncated y has no end token, so none is scored.
    """
    normaliser = sum(len(s["ids"]) for s in samples)

    def loss_of(rows):
        responses = [samples[i]["ids"] for i in rows]
        with torch.no_grad():
            teacher_hidden = response_hidden(teacher, [samples[i]["teacher_context"] for i in rows], responses)  # (N, H)
        hidden = response_hidden(student, [samples[i]["context"] for i in rows], responses)  # (N, H)
        return distillation_loss(student, hidden, teacher, teacher_hidden, cfg.divergence, cfg.kl_clip)[0] / normaliser

    # the student's length counts: a teacher's row is twice as long, but a pass without gradients needs far less memory
    return accumulate(student, [len(s["context"]) + len(s["ids"]) for s in samples], cfg, loss_of)


def distil_on(student, teacher, samples: list[dict], cfg: Config, phrases, end_ids) -> float:
    """Phase 2's step: the student at chat(x) imitates the reviser, which has read chat(x) + y + P_r."""
    for s in samples:
        s["teacher_context"] = reviser_ids(s["context"], s["ids"], s["reward"], phrases, end_ids)
    return imitate(student, teacher, samples, cfg)


def frozen_copy(model):
    """The teacher: the same weights, no gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def on_policy(student, teacher, tokenizer, grader, questions, cfg: Config, end_ids, folder: RunFolder, phase: str, learn, updates=1,
              at_round=None) -> None:
    """The loop of every on-policy method: sample from the student, grade, learn(samples), which adds a gradient, and step.

    `questions` come in the order of their use, cfg.distil_batch at a step. The teacher is set to the student every cfg.sync_every steps,
    and before each of cfg.rounds equal parts but the first, when at_round(part) is called too. Each part has a learning-rate schedule
    of its own: a teacher is best set to a student that has settled.
    """
    optimizer, steps = adamw(student, cfg.distil_lr, cfg.distil_weight_decay, cfg), math.ceil(len(questions) / cfg.distil_batch)
    ends = [steps * i // cfg.rounds for i in range(1, cfg.rounds + 1)]  # of the rounds: the step after their last
    start = folder.restore(student, optimizer, teacher) if folder.saved.get("phase") == phase else 0
    bar = tqdm(range(start, steps), phase, steps, initial=start, unit="step", mininterval=1.0, disable=rank() > 0)
    for step in bar:
        folder.checkpoint(phase, step, student, optimizer, teacher)
        ended = sum(end <= step for end in ends)
        first, end = [0, *ends][ended], ends[ended]
        synchronised = step > 0 and (step == first or (cfg.sync_every > 0 and step % cfg.sync_every == 0))
        if synchronised and step == first and at_round:
            at_round(ended)
        if synchronised:
            teacher.load_state_dict(student.state_dict())
        batch = questions[step * cfg.distil_batch:(step + 1) * cfg.distil_batch]
        samples = rollouts(student, tokenizer, grader, batch, [chat_ids(tokenizer, q["prompt"]) for q in batch], cfg, end_ids,
                           derived_seed(cfg.seed, phase, step, "rollout"), folder=folder, key=f"{phase} {step}")
        left = (end - step) / (end - first) / cfg.decay if cfg.decay else 1.0
        lr, stats = cfg.distil_lr * min(1.0, (step - first + 1) / max(1, cfg.warmup_steps), left), folder.count(samples)
        for _ in range(updates):
            student.train()
            loss = learn(samples)
            folder.count_trained(len(s["ids"]) for s in samples)
            try:
                norm = update(student, optimizer, lr, cfg.grad_clip)
            except FloatingPointError as e:
                folder.broken_step(phase, step, [{k: v for k, v in s.items() if not torch.is_tensor(v)} for s in samples], e)
        distilled = {} if phase == "grpo" else {"kl": loss * stats["length"], "synchronised": synchronised}
        folder.log(phase, step, loss=loss, grad_norm=norm, lr=lr, revision_words=revision_words(samples), **stats, **distilled)
        bar.set_postfix(reward=f"{stats['reward']:.2f}", loss=f"{loss:.3f}", length=f"{stats['length']:.0f}")
    folder.save_state(phase, steps, student)


def shuffled(questions: list[dict], n: int, cfg: Config, name: str) -> list[dict]:
    """n questions in random order: all of them once, then all of them again in another order, and so on."""
    order = []
    while len(order) < n:
        epoch = len(order) // len(questions)
        order += random.Random(derived_seed(cfg.seed, name, epoch)).sample(range(len(questions)), len(questions))
    return [questions[i] for i in order[:n]]


def distil(student, tokenizer, grader, questions, cfg: Config, phrases, end_ids, folder: RunFolder, at_round=None) -> None:
    """Phase 2: on-policy rollouts, reward, KL to the reviser, update."""
    teacher, questions = frozen_copy(student), shuffled(questions, cfg.distil_epochs * len(questions), cfg, "distil")
    on_policy(student, teacher, tokenizer, grader, questions, cfg, end_ids, folder, "distil",
              lambda samples: distil_on(student, teacher, samples, cfg, phrases, end_ids), at_round=at_round)


# ----------------------------------------------------------------------------------------------------------------------------
# Baselines, in their textbook form. They share the rollouts, rewards and losses above, and the questions of both phases.
# ----------------------------------------------------------------------------------------------------------------------------
def budget(questions: list[dict], cfg: Config) -> int:
    """How many responses a baseline may sample."""
    return cfg.samples or cfg.group * len(questions)


def rft(model, tokenizer, grader, questions, cfg: Config, end_ids, folder: RunFolder) -> None:
    """Rejection fine-tuning: sample y ~ pi(.|x), keep the right ones, and maximise sum_i r_i log pi(y_i | x_i).

    With cfg.rounds > 1 it is expert iteration: each round samples its part of the budget from the model so far and trains the
    base anew on every right answer up to then.
    """
    base, kept, done = copy_weights(model) if cfg.rounds > 1 else None, {}, int(folder.saved.get("phase", "rft 0").split()[-1])
    questions = shuffled(questions, budget(questions, cfg), cfg, "rft")
    for r in range(1, cfg.rounds + 1):
        part = questions[len(questions) * (r - 1) // cfg.rounds:len(questions) * r // cfg.rounds]
        samples = rollouts(model, tokenizer, grader, part, [chat_ids(tokenizer, q["prompt"]) for q in part], cfg, end_ids,
                           derived_seed(cfg.seed, "rft", r), desc=f"rft {r}: samples", folder=folder, key=f"rft {r}")
        kept |= {(*s["context"], *s["ids"]): (s["context"], s["ids"]) for s in samples if s["reward"]}  # each answer once
        if r < done:
            continue  # a resumed run has trained this round: its samples came from the journal
        if r > done:
            folder.log(f"rft {r} samples", 0, kept=len(kept), **folder.count(samples))
        if not kept:
            raise UserError(f"none of {len(samples)} samples was right, so there is nothing to train on. Ask easier questions, or sample more")
        if r > 1:
            put_weights(model, base)
        fine_tune(model, [[pair] for pair in kept.values()], cfg, folder, f"rft {r}")


def sft(model, tokenizer, questions, cfg: Config, end_ids, folder: RunFolder) -> None:
    """Supervised fine-tuning on given demonstrations d: minimise -log pi(d | x)."""
    with_one = [q for q in questions if q.get("demonstration")]
    if not with_one:
        raise UserError("--method sft needs demonstrations: a column named demonstration, solution, or an answer that ends in #### 42")
    end = [tokenizer.eos_token_id if tokenizer.eos_token_id in end_ids else end_ids[0]]
    rows = [[(chat_ids(tokenizer, q["prompt"]), tokenizer.encode(q["demonstration"], add_special_tokens=False) + end)] for q in with_one]
    fine_tune(model, rows, cfg, folder, "sft")


def what_is_right(question: dict) -> str:
    return question["answer"] if isinstance(question["answer"], str) else "what passes its tests"


def sdft_prompt(question: dict):
    """What SDFT's teacher is asked: the question, with a demonstration of an answer, or with its final answer where there is none."""
    if question.get("demonstration"):
        hint = f"\n\nThis is an example of a right answer:\n{question['demonstration']}\n\nNow answer in your own words."
    else:
        hint = f"\n\nThe final answer is {what_is_right(question)}. Now work it out in your own words."
    *earlier, last = [{"role": "user", "content": question["prompt"]}] if isinstance(question["prompt"], str) else question["prompt"]
    return [*earlier, {**last, "content": last["content"] + hint}]


def sdft(student, tokenizer, grader, questions, cfg: Config, end_ids, folder: RunFolder) -> None:
    """Self-distillation fine-tuning: sum_t KL(student(.|x, y_<t) || teacher(.|x, demonstration, y_<t)) at y ~ student(.|x)."""
    teacher, questions = frozen_copy(student), shuffled(questions, budget(questions, cfg), cfg, "sdft")

    def learn(samples):
        for s in samples:
            s["teacher_context"] = chat_ids(tokenizer, sdft_prompt(s["question"]))
        return imitate(student, teacher, samples, cfg)

    on_policy(student, teacher, tokenizer, grader, questions, cfg, end_ids, folder, "sdft", learn)


def advantages(rewards):
    """A_i = (r_i - mean(r)) / (std(r) + 1e-4) within each group: rewards (groups, G) -> (groups, G)"""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def grpo_loss(log_prob, old, advantage, clip: float, reference=None, beta: float = 0.0):
    """-min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta (pi_ref / pi - log(pi_ref / pi) - 1) with rho = pi / pi_old. All (n,) -> (n,)"""
    ratio = (log_prob - old).exp()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    if reference is None:
        return loss
    gap = reference - log_prob
    return loss + beta * (gap.exp() - gap - 1)


def grpo_on(student, reference, samples: list[dict], cfg: Config) -> float:
    """Add GRPO's gradient to the student's: 1/G sum_i 1/|y_i| sum_t grpo_loss, averaged over the questions; returns that loss."""
    device, lengths = student.device, [len(s["context"]) + len(s["ids"]) for s in samples]
    A = advantages(torch.tensor([s["reward"] for s in samples], device=device).view(-1, cfg.group)).flatten().tolist()
    # the first pass over a batch is its own pi_old
    for name, model in (("old", student if cfg.grpo_updates > 1 else None), ("reference", reference)):
        for rows in micro_batches(lengths, cfg.micro_tokens or 2048) if model is not None and name not in samples[0] else ():
            found = log_probs(model, [samples[i]["context"] for i in rows], [samples[i]["ids"] for i in rows])
            for i, values in zip(rows, found.split([len(samples[i]["ids"]) for i in rows])):
                samples[i][name] = values  # (T,)

    def loss_of(rows):
        responses = [samples[i]["ids"] for i in rows]
        targets = torch.tensor([t for r in responses for t in r], device=device)  # (N,)
        weights, advantage = torch.tensor([(1 / len(r) / len(samples), A[i]) for i, r in zip(rows, responses) for _ in r], device=device).T
        old, ref = (torch.cat([samples[i][n] for i in rows]) if n in samples[0] else None for n in ("old", "reference"))  # (N,)

        def token_losses(logits, part):
            log_prob = -F.cross_entropy(logits, targets[part], reduction="none")
            return weights[part] * grpo_loss(log_prob, log_prob.detach() if old is None else old[part], advantage[part], cfg.grpo_clip,
                                             None if ref is None else ref[part], cfg.grpo_kl)

        return token_loss(response_hidden(student, [samples[i]["context"] for i in rows], responses), head_of(student), token_losses)[0]

    return accumulate(student, lengths, cfg, loss_of)


def grpo(student, tokenizer, grader, questions, cfg: Config, end_ids, folder: RunFolder) -> None:
    """Group-relative policy optimisation: a policy gradient whose baseline is the mean reward of a group of answers to one question."""
    reference = frozen_copy(student) if cfg.grpo_kl else None
    questions = [q for q in shuffled(questions, budget(questions, cfg) // cfg.group, cfg, "grpo") for _ in range(cfg.group)]
    on_policy(student, reference, tokenizer, grader, questions, replace(cfg, sync_every=0, rounds=1), end_ids, folder, "grpo",
              lambda samples: grpo_on(student, reference, samples, cfg), updates=cfg.grpo_updates)


# ----------------------------------------------------------------------------------------------------------------------------
# Evaluation
# ----------------------------------------------------------------------------------------------------------------------------
def evaluate(model, tokenizer, grader, questions, cfg: Config, phrases, end_ids, desc="", revise: bool = True, folder=None) -> dict:
    """Accuracy of cfg.eval_samples sampled and one greedy answer, and generate-then-revise of the first sample.

    correction_rate is the share of wrong first answers that revising turns right (None if none was wrong). Seeds and questions
    are the same for every model, so that differences are paired. "scores" holds what each question got.
    """
    cfg = replace(cfg, flip_reward=False)
    k, seed = cfg.eval_samples, derived_seed("evaluate", cfg.seed)
    prompts = [chat_ids(tokenizer, q["prompt"]) for q in questions]
    run = lambda name, qs, contexts, seed, **kw: rollouts(  # noqa: E731
        model, tokenizer, grader, qs, contexts, cfg, end_ids, seed, desc=f"{desc} {name}", folder=folder, key=f"{desc} {name}", **kw)
    sampled = run("sampled", [q for q in questions for _ in range(k)], [p for p in prompts for _ in range(k)], seed)
    greedy = run("greedy", questions, prompts, seed, greedy=True)
    per_question = np.array([s["reward"] for s in sampled]).reshape(-1, k)  # (n, k)
    mean = lambda values: float(np.mean(list(values)))  # noqa: E731
    result = {"accuracy": mean(per_question), "accuracy_ci": interval(per_question.mean(1)),
              "accuracy_greedy": mean(s["reward"] for s in greedy), "accuracy_greedy_ci": interval([s["reward"] for s in greedy]),
              "mean_tokens": mean(len(s["ids"]) for s in sampled), "truncated": mean(not s["finished"] for s in sampled),
              "n": len(questions), "samples_per_question": k, "revision_words": revision_words(sampled)}
    if revise:
        first = sampled[::k]
        contexts = [reviser_ids(y["context"], y["ids"], y["reward"], phrases, end_ids) for y in first]
        revised = run("revised", questions, contexts, seed + 1)
        corrected = [z["reward"] for y, z in zip(first, revised) if not y["reward"]]
        result |= {"initial_accuracy": mean(y["reward"] for y in first), "initial_tokens": mean(len(y["ids"]) for y in first),
                   "revised_accuracy": mean(z["reward"] for z in revised), "revised_tokens": mean(len(z["ids"]) for z in revised),
                   "revised_accuracy_ci": interval([z["reward"] for z in revised]),
                   "correction_rate": mean(corrected) if corrected else None,
                   "correction_rate_ci": interval(corrected) if corrected else None}
    return result | {"scores": per_question.tolist(), "greedy_scores": [s["reward"] for s in greedy]}


# ----------------------------------------------------------------------------------------------------------------------------
# Main
# ----------------------------------------------------------------------------------------------------------------------------
def show(title: str, text: str) -> None:
    print(f"\n--- {title} ---\n{text}\n", flush=True)


def run(cfg: Config) -> dict[str, dict]:
    """Both phases and the evaluations around them, from where the run folder stands; returns results.json's content."""
    folder = RunFolder(cfg)

    def ask_to_stop(*_):
        folder.stop = True
        print("\nstopping as soon as the step at hand is saved; Ctrl-C again stops at once", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, ask_to_stop)
    if not {"base", cfg.method} <= set(folder.results):
        train(cfg, folder)
    if folder.writes:
        figure(folder.path, folder.results)
        shutil.rmtree(folder.path / "state")
    print(f"\n{folder.results['base']['n']} {cfg.eval_split} questions, {cfg.eval_samples} samples each at T = {cfg.temperature}; "
          "95 % intervals in brackets")
    print(results_table(folder.results))
    print(f"\n{folder.path}/ holds " + ", ".join(sorted(p.name for p in folder.path.iterdir())))
    return folder.results


def train(cfg: Config, folder: RunFolder) -> None:
    """Evaluate the base; phase 1, evaluate, phase 2, evaluate, or a baseline, evaluate."""
    grader, sets = make_grader(cfg), load_questions(cfg)
    tokenizer, model = load_tokenizer_and_model(cfg)
    end_ids = end_token_ids(tokenizer, model)
    phrases = phrase_ids(tokenizer, control_phrases(cfg, model.config.model_type))
    phase = folder.saved.get("phase")
    print(f"{cfg.model}: {model.num_parameters():,} parameters, {model.dtype}, on {model.device}; rollouts by {engine(model)}; run folder "
          f"{folder.path}; questions: " + ", ".join(f"{name} {len(questions)}" for name, questions in sets.items())
          + (f"; going on from {phase} step {folder.saved['step']}" if phase else ""))
    both = sets["srt"] + sets["distil"]
    prompt = chat_ids(tokenizer, both[0]["prompt"])
    answer = tokenizer.encode("(a wrong answer)", add_special_tokens=False)
    show("the generator's prompt", tokenizer.decode(prompt))
    show("the reviser's prompt", tokenizer.decode(reviser_ids(prompt, answer, 0.0, phrases, end_ids)))

    with grader:
        def measure(name):
            if name not in folder.results:
                began = time.time()
                folder.results[name] = evaluate(model, tokenizer, grader, sets[cfg.eval_split], cfg, phrases, end_ids, f"evaluate {name}:",
                                                folder=folder)
                folder.start += time.time() - began  # the log's seconds are those of training
                if folder.writes:
                    write_json(folder.path / "results.json", folder.results)

        def checkpoint(name):
            if folder.writes:
                save_checkpoint(tokenizer, model, folder.path / name)
            measure(name)

        measure("base")
        if (cfg.method in ("sdzero", "srt") and cfg.phase1 or cfg.on_revisions) and phase != "distil":
            file = folder.path / "revisions.jsonl"
            if phase == "srt":
                records = [json.loads(line) for line in file.read_text().splitlines()]
            else:
                records = collect_revisions(model, tokenizer, grader, sets["srt"], cfg, phrases, end_ids, folder)
                if folder.writes:
                    replace_file(file, lambda p: p.write_text("".join(json.dumps(r) + "\n" for r in records)))
                folder.save_state("srt", 0, model)
            kept = [r for r in records if r["kept"]]
            reasons = {why: sum(r["why"] == why for r in records) for why in ("verified", "wrong", "truncated", "duplicate")}
            print(f"{len(records)} tuples: {reasons}; of the kept, {sum(not r['init_reward'] for r in kept)} correct a wrong answer", flush=True)
            for r in sorted(kept, key=lambda r: r["init_reward"])[:1]:
                show(f"a kept tuple (right: {what_is_right(r)})", "\n\n".join((r["init_text"], r["control_phrase"], r["revised_text"])))
            srt(model, records, cfg, end_ids, folder)
            if not cfg.on_revisions:
                checkpoint("srt")
        if cfg.method == "sdzero":
            distil(model, tokenizer, grader, sets["distil"], cfg, phrases, end_ids, folder, at_round=lambda r: measure(f"round {r}"))
        elif cfg.method == "rft" and not cfg.on_revisions:
            rft(model, tokenizer, grader, both, cfg, end_ids, folder)
        elif cfg.method == "grpo":
            grpo(model, tokenizer, grader, both, cfg, end_ids, folder)
        elif cfg.method == "sdft":
            show("the prompt of SDFT's teacher", tokenizer.decode(chat_ids(tokenizer, sdft_prompt(both[0]))))
            sdft(model, tokenizer, grader, both, cfg, end_ids, folder)
        elif cfg.method == "sft":
            sft(model, tokenizer, both, cfg, end_ids, folder)
        if cfg.method != "srt":
            checkpoint(cfg.method)
        if folder.timeouts:
            print(f"{folder.timeouts} answers could not be graded in time and counted as wrong")


def main(argv: list[str] | None = None) -> int:
    try:
        cfg = make_config(**parse_options(argv, Config, __doc__, epilog=f"With the embedded model the defaults are instead: {TINY}"))
        if cfg.plan:
            print(plan(cfg))
            return 0
        if "RANK" in os.environ and not dist.is_initialized():  # started by torchrun
            dist.init_process_group("nccl" if torch.cuda.is_available() and cfg.device != "cpu" else "gloo")
        if rank() > 0:
            sys.stdout = open(os.devnull, "w")  # one rank talks
        run(cfg)
        leave_together()
    except UserError as e:
        print(f"sdzero: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"sdzero: {e.filename or 'a file'}: {e.strerror or e}. What was saved before is still good: mend that and start the same "
              "command again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sdzero: stopped. The same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
