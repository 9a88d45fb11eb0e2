"""Self-Distillation Zero (SD-Zero, arXiv 2604.12002) in one file.

A binary reward says only whether an answer is right. SD-Zero turns it into a target for every
token, with no teacher but the model itself. One set of weights plays two roles: the *generator*
sees a question x and writes y; the *reviser* sees x, y and a control phrase P_r, chosen by the
reward r, and writes a better answer.

  Phase 1, self-revision training (SRT).  Sample y_init, grade it, let the model revise it, keep the
    tuples whose revision is verified, and fine-tune on
    L_SRT = -log pi(y_revised | x, y_init, P_r)  -  log pi([y_init, P_r, y_revised] | x).
  Phase 2, on-policy self-distillation.  Freeze a copy as the teacher. Sample y from the student and
    grade it. Both then say of each token of y what else might stand there, the teacher after it has
    read all of y and its verdict: phase 1 has taught it to keep a right y and to leave a wrong one.
    Pull the student's distributions to the teacher's:
    sum_t KL( student(.|x, y_<t)  ||  teacher(.|x, y, P_r, y_<t) ).
    From time to time the teacher may be set to the student (--sync-every).
  (Both averaged over responses; --reduction mean averages over all tokens of a batch instead.)

    python sdzero.py                                              # embedded tiny model, on a CPU
    python sdzero.py --model Qwen/Qwen3-4B-Instruct --task math   # a real model, one GPU
    python sdzero.py --help                                       # every option

Read from top to bottom: configuration, prompts, rollouts, rewards, losses, phase 1, phase 2,
evaluation, main. Equation and section numbers are the paper's. `kit` is the machine room (out of
memory, several processes, resuming, loading, seeds): what makes this robust and fast, never the
idea. Of what was sampled, its trimming and its selection alone change or drop anything.

Words, one for one thing:
  question   a dict: "prompt" (text or chat messages), "answer" (the right one), and for baselines
             perhaps "demonstration" (a worked solution)
  context    the token ids in front of a response: chat(x), or the reviser's
  response   y, the token ids that the model then sampled; with its end token, if it came to one
  rollout    sampling a response from the policy, the model that is trained, and grading it
  sample     what a rollout gives, a dict: a response's ids, context, text, reward and question
  record     a dict, a line of revisions.jsonl: x, y_init (the first answer), P_r, y_revised (its
             revision); those that are kept are the paper's D_revision
  row        a sequence to train on: token ids, and where its targets start
  pass       rows that go through the model together; a step is one or more passes
"""

import copy
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

import kit
from kit.errors import DeadEnd
from kit.late import F, torch
from kit.options import check_ranges, flags_line, option, parse_options
from kit.presets import TINY, recipe_of, recipe_of_run
from kit.schedules import Schedule, warmup_and_cosine
from kit.seeds import derived_seed, permutation, shuffled
from kit.tables import mean, rate


# --------------------------------------------------------------------------------------------------
# Configuration: one dataclass, which is also the --help. Its defaults are the paper's: the table of
# each stands in kit/recipes.py. The embedded model has its own (kit/presets.py).
# --------------------------------------------------------------------------------------------------
@dataclass
class Config:
    model: str = option(
        "tiny", "hub id, checkpoint folder, .gguf file; tiny: embedded", heading="what to train"
    )
    task: Literal["arith", "countdown", "math", "code", "gym:NAME"] = option(
        "arith",
        "generated: arith, countdown, gym:NAME (a data set of reasoning-gym); math: "
        "OpenR1-Math-220k; code: codeforces-cots",
    )
    method: Literal["sdzero", "srt"] = option(
        "sdzero", "sdzero: both phases; srt: phase 1 alone (for the baselines see baselines.py)"
    )
    recipe: Literal["paper", "authors", "tiny"] = option(
        "paper", "whose settings: the paper's, its authors' code's, or the embedded model's own"
    )
    scale: float = option(1.0, "multiplies counts: questions, records, steps", above=0, most=10)
    out: str = option("", "run folder, where the same command goes on; empty: out/MODEL-TASK-SEED")
    fresh: bool = option(False, "discard the run that the run folder holds")
    save_every: int = option(20, "steps between saved states: what a kill can cost", least=1)
    save_minutes: float = option(20, "minutes between them, where that is earlier", above=0)
    track: Literal["tensorboard", "wandb", "trackio", None] = option(None, "metrics go there too")
    seed: int = option(0, "seeds the questions' order, every sample and every shuffle", least=0)
    samples: int = option(0, "budget of responses for training; 0: no limit", least=0)
    device: str = option("auto", "auto (cuda or cpu), cpu, cuda or mps")
    chat_template: str = option(
        "", "for a base model: 'plain' (Question:/Answer:), or a file with a Jinja template"
    )

    data: str = option(
        "", "file of questions and answers, or tests (docs/data.md)", heading="questions"
    )
    reward: str = option("", "FILE.py:function of your own, (response, question) -> 0 or 1")
    gym_options: str = option("", "gym: its difficulty, key=value,key=value")
    digits: int = option(4, "arith: digits of each number", least=1, most=18)
    numbers: int = option(4, "countdown: how many numbers a task has", least=2, most=8)
    largest: int = option(25, "countdown: the largest of them", least=2, most=100)
    srt_questions: int = option(10_000, "N1: questions of phase 1", least=0)
    distil_questions: int = option(9000, "N2: questions of phase 2", least=0)
    eval_questions: int = option(500, "size of the validation set, and of the test set", least=1)
    system: str = option("", "system message in front of every question; empty: none")
    instruction: str = option("", "what follows every question; empty: the task's own line")
    shots: int = option(0, "worked examples before every question, as earlier turns", least=0)
    unsafe_exec: bool = option(False, "code: run programs even where nothing isolates them")

    temperature: float = option(
        0.7, "of phase 1; if given, of all phases; the KL's is 1", above=0, heading="sampling"
    )
    distil_temperature: float = option(1.0, "of phase 2; 0: --temperature", least=0)
    eval_temperature: float = option(0.7, "of evaluation; 0: --temperature", least=0)
    top_p: float = option(1.0, "of phase 1: the likeliest tokens of this mass", above=0, most=1)
    distil_top_p: float = option(1.0, "of phase 2; 0: --top-p", least=0, most=1)
    eval_top_p: float = option(1.0, "of evaluation; 0: --top-p", least=0, most=1)
    max_tokens: int = option(
        16_384,
        "longest response of phase 1; if given, of all phases; one that is cut off there "
        "is wrong and gets no end token",
        least=1,
    )
    distil_max_tokens: int = option(8192, "longest of phase 2; 0: --max-tokens", least=0)
    eval_max_tokens: int = option(32_768, "longest of evaluation; 0: --max-tokens", least=0)
    rollout_batch: int = option(0, "responses at once; 0: by --plan, 64 on a CPU", least=0)

    phase1: bool = option(
        True, "--no-phase1 distils from the base itself (an ablation)", heading="phase 1 (SRT)"
    )
    srt_share: float = option(0.0, "phase 1's part of --samples; 0: as N1 to N2", least=0, most=1)
    first_answers: int = option(1, "first answers y_init per question", least=1)
    revisions: int = option(3, "revisions y_revised per first answer", least=1)
    revise: Literal["all", "wrong"] = option("all", "which first answers are revised")
    srt_records: int = option(
        6000, "verified revisions to keep, evenly over the questions; 0: all of them", least=0
    )
    right_share: float = option(
        0.0, "of these, the share whose first answer was right; 0: as it comes", least=0, most=0.99
    )
    phrase_if_right: str = option("Let me rephrase the above solution.", "P_r for r = 1")
    phrase_if_wrong: str = option(
        "Wait, this response is not correct, let me start over.",
        "P_r for r = 0; empty: the authors' code's for the model family",
    )
    filtered: bool = option(True, "--no-filtered keeps unverified revisions too (an ablation)")
    flip_reward: bool = option(False, "train on 1 - reward (an ablation: must destroy the gain)")
    trim: bool = option(False, "cut off repeating tails and chatty openings, by whole tokens")
    l_revision: bool = option(True, "train on -log pi(y_revised | x, y_init, P_r)  (Eq. 1)")
    l_generation: Literal["wrong", "all", "none"] = option(
        "all",
        "train on -log pi([y_init, P_r, y_revised] | x)  (Eq. 2); wrong: only if y_init was wrong",
    )
    l_answer: bool = option(False, "train on -log pi(y_revised | x) too, which is not in the paper")
    srt_in_turn: bool = option(
        False, "first Eq. 2 on records with a wrong first answer, then Eq. 1 on --revision-records"
    )
    revision_records: int = option(1000, "records for Eq. 1, right first answers first", least=1)
    srt_sequence: int = option(32_768, "longest row; longer ones are left out, counted", least=1)
    srt_epochs: int = option(3, "epochs over the kept records", least=1)
    srt_batch: int = option(4, "records per optimiser step", least=1)
    srt_lr: float = option(5e-6, "peak learning rate; then a cosine to 0", above=0, most=1)
    srt_weight_decay: float = option(1e-4, "AdamW's weight decay", least=0, most=1)
    srt_beta2: float = option(0.95, "AdamW's second beta; the first is 0.9", above=0, most=0.9999)
    reduction: Literal["sum", "mean"] = option(
        "sum",
        "in both phases: sum over a response's tokens, mean over responses (Eq. 1, 2, 4); or mean "
        "over the tokens of a batch",
    )

    divergence: Literal["reverse", "forward", "mixed"] = option(
        "reverse", "KL(student||teacher), Eq. 4; the other way round; half each", heading="phase 2"
    )
    top_k: int = option(0, "the teacher's likeliest tokens alone, renormalised; 0: all", least=0)
    distil_epochs: int = option(1, "epochs over the questions", least=1)
    distil_steps: int = option(0, "most optimiser steps; 0: no limit", least=0)
    distil_batch: int = option(128, "questions per optimiser step, one rollout for each", least=1)
    distil_lr: float = option(5e-6, "constant but for warm-up and --decay", above=0, most=1)
    warmup_steps: int = option(20, "steps of linear warm-up, in each round", least=0)
    decay: float = option(
        0.0, "share of each round, at its end, in which the rate falls to 0", least=0, most=1
    )
    distil_weight_decay: float = option(0.01, "AdamW's weight decay", least=0, most=1)
    distil_beta2: float = option(0.95, "AdamW's second beta", above=0, most=0.9999)
    sync_every: int = option(0, "steps between teacher := student; 0: frozen teacher", least=0)
    rounds: int = option(1, "parts of phase 2; teacher := student between two", least=1)
    show_every: int = option(0, "steps between responses shown, tokens in colour; 0: none", least=0)
    kl_clip: float = option(0.0, "cap on a token's divergence, flat above; 0: off", least=0)
    grad_clip: float = option(1.0, "largest gradient norm, in both phases", above=0)

    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "auto: bfloat16 on a GPU that has it, else float32", heading="memory"
    )
    gradient_checkpointing: bool | None = option(
        None, "compute activations twice: less memory; not given: by --plan, as the next two"
    )
    micro_tokens: int = option(0, "tokens of a pass; 0: by --plan, 2048 on a CPU", least=0)
    moments: Literal["float32", "bfloat16", None] = option(None, "AdamW's two moments")
    lora: int = option(0, "rank of adapters, trained on frozen weights (peft); 0: none", least=0)
    offload: bool | None = option(
        None, "moments, low halves of bfloat16 weights, and the teacher, in CPU memory: slower"
    )
    shard: bool = option(False, "with torchrun: moments and low halves, shared out over ranks")
    plan: bool = option(False, "print memory, cards that fit, hours (all computed); then stop")
    tokens_per_second: float = option(0, "of rollouts, for --plan; 0: by the card's data", least=0)

    eval_split: Literal["test", "val"] = option(
        "test", "val: for choosing settings; test: look at it once", heading="evaluation"
    )
    eval_every: int = option(0, "steps of phase 2 between evaluations (Fig. 5); 0: none", least=0)
    eval_samples: int = option(
        8, "sampled responses per question, besides a greedy one and a revision", least=1
    )


def make_config(cls=Config, /, **given) -> Config:
    """The options given, and a default for each other one: the recipe's, or cls's own.

    Raises UserError for a value out of its range, and for options that contradict each other.
    """
    cfg = cls(**{**recipe_of(given), **given})
    check_ranges(cfg)
    if cfg.scale != 1:
        cfg = replace(cfg, **kit.recipes.scaled(cfg))
    if cfg.data and cfg.task == "arith":
        cfg.task = "math"
    if not cfg.out:
        method = [cfg.method] if cfg.method != "sdzero" else []
        name = [Path(cfg.model).name.removesuffix(".gguf"), cfg.task, *method, str(cfg.seed)]
        cfg.out = str(Path("out") / "-".join(name).replace(":", "-"))
    kit.budget.check_contradictions(cfg)
    srt_questions, distil_questions = kit.budget.divide(cfg)
    cfg = replace(cfg, srt_questions=srt_questions, distil_questions=distil_questions)
    kit.budget.check_rounds(cfg, srt_questions, distil_questions)
    return cfg


# --------------------------------------------------------------------------------------------------
# Prompts. Everything is built from token ids: what was sampled is never decoded and encoded again.
# --------------------------------------------------------------------------------------------------
class Phrases(NamedTuple):
    """P_r: what the reviser is told, as text or as ids, after a right and after a wrong answer."""

    if_right: object
    if_wrong: object


def control_phrases(cfg: Config, model_type: str) -> Phrases:
    """The texts of P_1 and P_0 (Sec. 2.1); where P_0 is empty, the authors' code's."""
    wrong = "Wait, this response is wrong. Let me correct it."
    if "olmo" in model_type.lower():
        wrong = "Wrong. I need to redo all."
    return Phrases(cfg.phrase_if_right, cfg.phrase_if_wrong or wrong)


def phrase_ids(tokenizer, phrases: Phrases) -> Phrases:
    """The ids that "\\n\\n" + P_r + "\\n\\n" has inside a text: alone it may be split otherwise."""
    delimited = [f"\n\n{text}\n\n" for text in phrases]
    return Phrases(*(kit.tokens.ids_in_running_text(tokenizer, text) for text in delimited))


def chat_ids(tokenizer, prompt) -> list[int]:
    """chat(x): the ids of the user's turn, or of several turns, up to where a response begins."""
    messages = kit.questions.as_turns(prompt)  # [{"role": "user", "content": prompt}]
    how = {"add_generation_prompt": True, **kit.tokens.template_values(tokenizer)}
    return list(tokenizer.apply_chat_template(messages, **how))


def to_text(tokenizer, ids: list[int]) -> str:
    """What ids say: for people and graders, never to be encoded again."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def without_end(response: list[int], end_ids: list[int]) -> list[int]:
    """The response without its end token, if it has one: a response that was cut off has none."""
    return response[:-1] if response and response[-1] in end_ids else response


def reviser_ids(run, context: list[int], response: list[int], reward: float) -> list[int]:
    """chat(x) + y + "\\n\\n" + P_r + "\\n\\n": the reviser's context, all in the assistant's turn.

    The one idea of the paper; both phases build it here. y loses its end token, or the turn would
    be over (a y that was cut off has none to lose). What follows is its revision in phase 1, and
    y once more, as it was sampled, in phase 2.
    """
    phrase = phrase_for(run, reward)
    return context + without_end(response, run.end_ids) + phrase


def phrase_for(run, reward: float) -> list[int]:
    """P_r, as ids."""
    return run.phrases.if_right if reward else run.phrases.if_wrong


def reviser_contexts(run, samples: list[dict]) -> list[list[int]]:
    """What the reviser reads of each sample."""
    return [reviser_ids(run, s["context"], s["ids"], s["reward"]) for s in samples]


# --------------------------------------------------------------------------------------------------
# Rollouts
# --------------------------------------------------------------------------------------------------
@dataclass
class Run:
    """What all parts of a run share, made once by prepare()."""

    cfg: Config
    tokenizer: object
    grader: object  # grade(texts, answers) -> rewards
    questions: dict  # "srt", "distil", "val" and "test": each question stands in one of them
    phrases: Phrases  # as ids, with the blank lines around them
    end_ids: list  # every token that ends a response
    room: object  # what fits in memory at once (kit.losses.Room)
    folder: object = None  # kit.run_folder.RunFolder; None where a model is only sampled from


def in_phase(run: Run, phase: str) -> Run:
    """The run with the sampling settings of phase "distil" or "eval", where it has its own."""
    cfg, names = run.cfg, ("temperature", "top_p", "max_tokens")
    own = {name: getattr(cfg, f"{phase}_{name}") or getattr(cfg, name) for name in names}
    # settled now: an evaluation between two steps of phase 2 falls back on these, not on phase 2's
    own |= {f"eval_{name}": getattr(cfg, f"eval_{name}") or getattr(cfg, name) for name in names}
    return replace(run, cfg=replace(cfg, **own))


def generate(
    run: Run, model, contexts: list[list[int]], seed: int, label: str = "", greedy: bool = False
) -> list[list[int]]:
    """One response per context, as ids: y ~ pi(.|context) at cfg.temperature, or the greedy one.

    Its last id is an end token, or else it was cut off at cfg.max_tokens. Every token can be
    sampled, as in the losses (unless --top-p says else): no top-k, no penalties.
    """
    from transformers import GenerationConfig

    cfg = run.cfg
    sampling = {"temperature": cfg.temperature, "top_k": 0, "top_p": cfg.top_p, "do_sample": True}
    config = GenerationConfig(
        max_new_tokens=cfg.max_tokens,
        eos_token_id=run.end_ids,
        pad_token_id=run.end_ids[0],
        **({"do_sample": False} if greedy else sampling),
    )

    def sample_batch(batch, _seed):  # torch has been seeded with it
        ids, mask, cache = kit.prefixes.prefilled(model, batch, run.end_ids[0])  # (B, T), (B, T)
        inputs = {"input_ids": ids, "attention_mask": mask, **cache}  # equal beginnings: read once
        output = model.generate(**inputs, generation_config=config)
        return output[:, ids.shape[1] :].tolist()  # (B, new tokens), padded behind the first end

    if kit.sampling.continuous(model):
        sample_batch = kit.continuous.sampler(model, config, run.room, fallback=sample_batch)
    with kit.sampling.plain_distribution(model):  # eval mode, without the checkpoint's own settings
        return kit.sampling.in_batches(run, model, contexts, sample_batch, seed, label)


def rollouts(
    run: Run, model, questions: list[dict], contexts: list[list[int]], seed: int, label: str = ""
) -> list[dict]:
    """Sample one response per context, and grade it."""
    responses = generate(run, model, contexts, seed, label)
    return grade(run, questions, contexts, responses)


# --------------------------------------------------------------------------------------------------
# Rewards
# --------------------------------------------------------------------------------------------------
def make_grader(cfg: Config):
    """The verifier of cfg.task, verify.Grader: a context manager with grade(texts, answers), a 0.0
    or 1.0 each, and timeouts, how many texts took too long. Your own can stand here."""
    return kit.rewards.verifier(cfg)


def grade(run: Run, questions: list, contexts: list, responses: list) -> list[dict]:
    """The reward check (Sec. 2): r(y, a) = 1 if the final answer of y is a, else 0 -> samples.

    A response that was cut off is wrong, whatever it says (but for --flip-reward); none is empty.
    """
    samples = [
        {
            "question": question,
            "context": context,
            "ids": ids,
            "finished": ids[-1] in run.end_ids,
            "text": to_text(run.tokenizer, ids),
            "reward": 0.0,
        }
        for question, context, ids in zip(questions, contexts, responses)
    ]

    def rewards_of(some):
        texts = [sample["text"] for sample in some]
        rewards = run.grader.grade(texts, kit.rewards.references(run.grader, some))
        return kit.rewards.checked(rewards, some)

    finished = [sample for sample in samples if sample["finished"]]
    with kit.sampling.counted_timeouts(run):
        rewards = kit.ranks.shared(finished, rewards_of)
    for sample, reward in zip(finished, rewards):
        sample["reward"] = reward
    if run.cfg.flip_reward:
        for sample in samples:
            sample["reward"] = 1.0 - sample["reward"]
    return samples


# --------------------------------------------------------------------------------------------------
# Losses. Each divergence is a function of logits (n, V), at least fp32: one value per token (n,).
# kit.losses.token_loss makes the logits of N tokens from hidden states, chunk by chunk (slices of
# the N), and differentiates each chunk's before it makes the next: (N, V) is never in memory.
# --------------------------------------------------------------------------------------------------
def kl(p_logits, q_logits):
    """KL(p || q) = sum_v p(v) (log p(v) - log q(v)) in nats, over the whole vocabulary, at
    temperature 1. (n, V), (n, V) -> (n,)"""
    log_p, log_q = F.log_softmax(p_logits, -1), F.log_softmax(q_logits, -1)  # (n, V), (n, V)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def fast_kl(p_logits, q_logits):
    """kl() in half the memory and time, tested equal to it in value and in both gradients; its
    inputs stay as they are. To train on the formula itself, return kl(p_logits, q_logits) here."""
    return kit.losses.KLInPlace.apply(p_logits, q_logits)


def reverse_kl(student_logits, teacher_logits):
    """KL(student || teacher), the divergence of Eq. 4. (n, V), (n, V) -> (n,)"""
    return fast_kl(student_logits, teacher_logits)


def forward_kl(student_logits, teacher_logits):
    """KL(teacher || student). (n, V), (n, V) -> (n,)"""
    return fast_kl(teacher_logits, student_logits)


def mixed_kl(student_logits, teacher_logits):
    """Half reverse, half forward. (n, V), (n, V) -> (n,)"""
    both = reverse_kl(student_logits, teacher_logits) + forward_kl(student_logits, teacher_logits)
    return both / 2


DIVERGENCES = {"reverse": reverse_kl, "forward": forward_kl, "mixed": mixed_kl}


def distillation_loss(student, hidden, teacher, teacher_hidden, cfg: Config):
    """Phase 2's divergence at N tokens, from the hidden states that predict them.

    hidden (N, H), teacher_hidden (N, H) without gradient -> (sum, to train on; the values (N,)
    without gradient, for studies)
    """
    divergence, teacher_head = DIVERGENCES[cfg.divergence], kit.losses.head_of(teacher)

    def loss_fn(logits, chunk):
        with torch.no_grad():
            teacher_logits = kit.losses.logits_of(teacher_hidden[chunk], teacher_head)  # (n, V)
        if cfg.top_k:  # what lies outside is not seen at all: this is not Eq. 4
            teacher_logits, top = teacher_logits.topk(min(cfg.top_k, logits.shape[-1]))  # (n, k)
            logits = logits.gather(-1, top)  # (n, k)
        losses = divergence(logits, teacher_logits)  # (n,)
        return losses.clamp(max=cfg.kl_clip) if cfg.kl_clip else losses

    return kit.losses.token_loss(student, hidden, loss_fn)


def nll_loss(model, hidden, targets, weights=None):
    """Cross-entropy -log pi(target) at N tokens, in nats: the terms of Eq. 1 and 2.

    hidden (N, H), targets (N,), weights (N,) -> (sum, to train on; values (N,), for studies)
    """

    def loss_fn(logits, chunk):
        nll = F.cross_entropy(logits, targets[chunk], reduction="none")  # (n,)
        return nll if weights is None else nll * weights[chunk]

    return kit.losses.token_loss(model, hidden, loss_fn)


def response_hidden(model, contexts: list[list[int]], responses: list[list[int]]):
    """The last layer's hidden states, where they predict response tokens, row after row: (N, H).

        read     c0    c1    c2    y0    y1           (y2, the last, is predicted, never read)
        keep               h(c2) h(y0) h(y1)
        predict              y0    y1    y2

    Rows are padded on the right and attention is causal, so no token sees padding, and without a
    mask attention takes its fast path.
    """
    rows = [context + response[:-1] for context, response in zip(contexts, responses)]
    width = max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    input_ids = torch.tensor(padded, device=model.device)  # (B, T)
    hidden = kit.prefixes.last_hidden(model, input_ids, rows)  # (B, T, H), by base_model
    kept = []  # places in the flattened (B * T, H)
    for i, (context, row) in enumerate(zip(contexts, rows)):
        kept += range(i * width + len(context) - 1, i * width + len(row))
    return hidden.flatten(0, 1)[torch.tensor(kept, device=model.device)]


def targets_of(model, responses: list[list[int]]):
    """The tokens of all responses, row after row: (N,)"""
    return torch.tensor([token for y in responses for token in y], device=model.device)


def accumulate(run: Run, model, lengths: list[int], loss_of) -> float:
    """Add the gradient of loss_of(all rows) to the model's, pass by pass; returns that loss.

    loss_of(indices of a pass's rows) divides by what the whole step has (tokens, records, samples),
    so the gradient does not depend on how rows are put into passes. lengths: tokens of each row.
    in_passes puts them so that they fit in memory, begins anew where they did not (so no gradient
    may stand there before), and sums over processes.
    """

    def work(passes):
        total = 0.0
        for indices in passes:
            loss = loss_of(indices)
            loss.backward()  # adds to .grad
            total += kit.losses.precise(loss.detach())
        return total

    return kit.losses.in_passes(work, model, lengths, run.room)


def update(model, optimizer, lr: float, grad_clip: float) -> float:
    """One optimiser step on the accumulated gradient; returns its norm before clipping.

    Raises FloatingPointError, before it steps, where the norm is not finite.
    """
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip))
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradient norm became {norm}")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


# --------------------------------------------------------------------------------------------------
# Phase 1: self-revision training (Sec. 2.1)
# --------------------------------------------------------------------------------------------------
def collect_revisions(run: Run, model) -> list[dict]:
    """First answers and their revisions: one record per revision, kept or not, and why."""
    cfg, questions = run.cfg, repeat(run.questions["srt"], run.cfg.first_answers)
    contexts = [chat_ids(run.tokenizer, q["prompt"]) for q in questions]
    seed = derived_seed(cfg.seed, "init")
    responses = generate(run, model, contexts, seed, "phase 1: first answers")  # y_init ~ pi(.|x)
    first_answers = grade(run, questions, contexts, kit.trimming.trimmed(run, responses))
    run.folder.log("init", 0, **run.folder.count(first_answers))

    to_revise = [y for y in first_answers if cfg.revise == "all" or not y["reward"]]
    if not to_revise:
        raise DeadEnd("every first answer is right: with --revise wrong none is left to revise")
    firsts = repeat(to_revise, cfg.revisions)  # each as often as it is revised
    questions = [first["question"] for first in firsts]
    contexts = reviser_contexts(run, firsts)
    seed = derived_seed(cfg.seed, "revise")
    responses = generate(run, model, contexts, seed, "phase 1: revisions")  # ~ pi(.|x, y_init, P_r)
    responses = kit.trimming.trimmed(run, responses, openings=True)
    revisions = grade(run, questions, contexts, responses)
    run.folder.log("revise", 0, **run.folder.count(revisions))

    records, seen = [], set()
    for first, revised in zip(firsts, revisions):
        ids = (tuple(first["context"]), tuple(first["ids"]), tuple(revised["ids"]))
        records.append(record_of(run, first, revised, why_kept(revised, repeated=ids in seen)))
        seen.add(ids)
    kit.selection.drop_surplus(records, cfg)  # --srt-records, --right-share
    return records


def repeat(items: list, times: int) -> list:
    """Each item `times` times in a row."""
    return [item for item in items for _ in range(times)]


def why_kept(revised: dict, repeated: bool) -> str:
    """What a revision is: a duplicate (first answer and revision have the ids of an earlier
    record's), truncated, wrong, or verified."""
    if repeated:
        return "duplicate"
    if not revised["finished"]:
        return "truncated"
    return "verified" if revised["reward"] else "wrong"


def record_of(run: Run, first: dict, revised: dict, why: str) -> dict:
    """A line of revisions.jsonl; D_revision are the records whose revision was kept (Sec. 2.1)."""
    return {
        "prompt": first["question"]["prompt"],
        "answer": first["question"].get("answer"),
        "why": why,
        "kept": why == "verified" or (why != "duplicate" and not run.cfg.filtered),
        "init_reward": first["reward"],
        "init_finished": first["finished"],
        "init_text": first["text"],
        "control_phrase": to_text(run.tokenizer, phrase_for(run, first["reward"])).strip(),
        "revised_reward": revised["reward"],
        "revised_finished": revised["finished"],
        "revised_text": revised["text"],
        "prompt_ids": first["context"],
        "init_ids": first["ids"],
        "revised_context": revised["context"],
        "revised_ids": revised["ids"],
    }


class Row(NamedTuple):
    """A sequence to train on: ids[start:] is a target, for each start; starts are ascending.

    Eq. 1 and Eq. 2 score parts of the same ids, so one row and one pass serve both. A token of both
    targets counts twice:   ids  x  y_init  P_r  y_revised   starts behind x and behind P_r
                         weight  0    1      1       2
    """

    ids: list
    starts: list


def srt_rows(record: dict, cfg: Config) -> list[Row]:
    """The rows of one record, in sampled ids (less what trimming cut): Eq. 1 + Eq. 2 (Eq. 3).

    Eq. 2 has y_init as a target too, wrong ones included: the model learns to catch its mistake.
    """
    prompt, context = record["prompt_ids"], record["revised_context"]
    starts = []
    if cfg.l_generation == "all" or (cfg.l_generation == "wrong" and not record["init_reward"]):
        starts.append(len(prompt))  # y_init without its end, P_r, y_revised with its end
    if cfg.l_revision:
        starts.append(len(context))
    rows = [Row(context + record["revised_ids"], starts)] if starts else []
    if cfg.l_answer:
        rows.insert(0, Row(prompt + record["revised_ids"], [len(prompt)]))
    return rows


def backward_nll(run: Run, model, rows: list[Row], normaliser: int) -> float:
    """Add the gradient of (-sum log pi(targets)) / normaliser to the model's; returns that loss."""

    def loss_of(indices):
        in_pass = [rows[i] for i in indices]
        contexts = [row.ids[: row.starts[0]] for row in in_pass]  # what is not scored
        responses = [row.ids[row.starts[0] :] for row in in_pass]  # what is
        weights = []  # of each token: how many targets contain it
        for row in in_pass:
            for t in range(row.starts[0], len(row.ids)):
                weights.append(sum(start <= t for start in row.starts))
        weights = torch.tensor(weights, device=model.device)  # (N,)
        hidden = response_hidden(model, contexts, responses)  # (N, H)
        return nll_loss(model, hidden, targets_of(model, responses), weights)[0] / normaliser

    return accumulate(run, model, [len(row.ids) for row in rows], loss_of)


class Training(NamedTuple):
    """How rows are fine-tuned on."""

    epochs: int
    batch: int  # records per step
    lr: float  # peak
    weight_decay: float
    beta2: float


def fine_tune(run: Run, model, records: list[list[Row]], phase: str, how: Training) -> None:
    """Minimise -log pi(target), summed over the targets' tokens and averaged over the records of a
    batch; with --reduction mean averaged over all their tokens (a token in two targets counts
    twice, in the sum and in its divisor). A record comes as its rows."""
    steps_per_epoch = math.ceil(len(records) / how.batch)
    steps = how.epochs * steps_per_epoch
    optimizer = kit.low_bits.adamw(model, how.lr, how.weight_decay, run.cfg, how.beta2)
    model.train()
    for step in run.folder.steps(phase, steps, model, optimizer):
        epoch, offset = step // steps_per_epoch, step % steps_per_epoch * how.batch
        order = permutation(len(records), run.cfg.seed, phase, epoch)
        batch = order[offset : offset + how.batch]
        rows = [row for i in batch for row in records[i]]
        tokens = sum(len(row.ids) - start for row in rows for start in row.starts)
        normaliser = len(batch) if run.cfg.reduction == "sum" else tokens
        loss = backward_nll(run, model, rows, normaliser)
        run.folder.count_trained(tokens)
        lr = how.lr * warmup_and_cosine(step, steps)
        with run.folder.keeps_bad_batch(phase, step, rows):
            norm = update(model, optimizer, lr, run.cfg.grad_clip)
        run.folder.log(phase, step, loss=loss, grad_norm=norm, lr=lr)


def srt_records(run: Run, model) -> list[dict]:
    """What collect_revisions gives, or gave before the run was stopped; saved and counted."""
    if run.folder.saved.get("phase", "").startswith("srt"):
        records = run.folder.read_rows("revisions.jsonl")
    else:
        records = collect_revisions(run, model)
        run.folder.write_rows("revisions.jsonl", records)
        run.folder.save_state("srt", 0, model)
    kept = [r for r in records if r["kept"]]
    counts = dict(Counter(r["why"] for r in records))
    corrected = sum(not r["init_reward"] for r in kept)
    percent = 100 * corrected / max(1, len(kept))
    print(
        f"{len(records)} revisions: {counts}; {len(kept)} kept, {corrected} ({percent:.0f} %) of "
        "which correct a wrong answer"
    )
    if not kept:
        n = counts.get("truncated")
        cut_off = f" {n} were cut off at --max-tokens {run.cfg.max_tokens}." if n else ""
        raise DeadEnd(
            f"none of {len(records)} revisions was verified, so there is nothing to train on."
            f"{cut_off} Ask easier questions, sample more "
            "(--srt-questions, --revisions), or start from a stronger model."
        )
    shown = min(kept, key=lambda r: r["init_reward"])
    texts = shown["init_text"], shown["control_phrase"], shown["revised_text"]
    show("a kept revision", "\n\n".join(texts))
    return records


def srt(run: Run, model) -> None:
    """Phase 1: collect revisions, and fine-tune on those that are kept."""
    cfg = run.cfg
    records = [record for record in srt_records(run, model) if record["kept"]]
    how = Training(cfg.srt_epochs, cfg.srt_batch, cfg.srt_lr, cfg.srt_weight_decay, cfg.srt_beta2)
    if not cfg.srt_in_turn:
        fine_tune(run, model, rows_of_each(records, cfg), "srt", how)
        return
    # the authors' code: Eq. 2 on records whose first answer was wrong, then Eq. 1 on others
    for_eq1, for_eq2 = kit.selection.in_turn(records, cfg.revision_records)
    if for_eq2 and run.folder.saved.get("phase") != "srt 2":
        alone = replace(cfg, l_revision=False, l_generation="wrong")
        fine_tune(run, model, rows_of_each(for_eq2, alone), "srt", how)
    fine_tune(run, model, rows_of_each(for_eq1, replace(cfg, l_generation="none")), "srt 2", how)


def rows_of_each(records: list[dict], cfg: Config) -> list[list[Row]]:
    """The rows of each record that has any, but for rows longer than --srt-sequence. Raises DeadEnd
    where none is left."""
    fitting, too_long = [], 0
    for rows in (srt_rows(record, cfg) for record in records):
        short = [row for row in rows if len(row.ids) <= cfg.srt_sequence]
        too_long += len(rows) - len(short)
        if short:
            fitting.append(short)
    if too_long:
        print(f"{too_long} rows are longer than --srt-sequence {cfg.srt_sequence}: left out")
    if not fitting:
        raise DeadEnd(
            f"no row is left to train on: of {len(records)} kept revisions, {too_long} rows are "
            f"longer than --srt-sequence {cfg.srt_sequence}, and the rest has nothing that is "
            "trained on (--l-generation wrong takes wrong first answers alone)"
        )
    return fitting


# --------------------------------------------------------------------------------------------------
# Phase 2: on-policy self-distillation (Sec. 2.2)
# --------------------------------------------------------------------------------------------------
def backward_kl(run: Run, student, teacher, samples: list[dict], loss_of_pass=None) -> float:
    """Add the gradient of Eq. 4, averaged over the samples, to the student's (with --reduction mean
    over all their tokens); returns that loss.

    Student and teacher read the same y behind different contexts: a sample's "context" and its
    "teacher_context", which distil() adds. All tokens of y are scored, the end token among them; a
    truncated y is scored too, but has no end token. Another loss can stand in the place of Eq. 4's:
    loss_of_pass(samples of a pass, hidden (N, H), teacher_hidden (N, H)) -> (sum, values (N,)).
    """

    def divergence(in_pass, hidden, teacher_hidden):
        return distillation_loss(student, hidden, teacher, teacher_hidden, run.cfg)

    tokens = sum(len(s["ids"]) for s in samples)
    normaliser = len(samples) if run.cfg.reduction == "sum" else tokens

    def loss_of(indices):
        in_pass = [samples[i] for i in indices]
        responses = [s["ids"] for s in in_pass]
        with torch.no_grad():
            contexts = [s["teacher_context"] for s in in_pass]
            teacher_hidden = response_hidden(teacher, contexts, responses)  # (N, H)
        hidden = response_hidden(student, [s["context"] for s in in_pass], responses)  # (N, H)
        loss, values = (loss_of_pass or divergence)(in_pass, hidden, teacher_hidden)
        kit.disagreement.note(in_pass, values, student, hidden)  # for people; trains nothing
        return loss / normaliser

    # the student's lengths count: a teacher's row has y twice, but without gradients it keeps no
    # activations
    return accumulate(run, student, [len(s["context"]) + len(s["ids"]) for s in samples], loss_of)


def frozen_copy(model, offload: bool = False):
    """The teacher: the same weights, no gradients. With --lora all but the adapters are shared."""
    teacher = copy.deepcopy(model, kit.adapters.shared(model)).requires_grad_(False).eval()
    return kit.on_host.layers_on_host(teacher) if offload else teacher


def on_policy(run: Run, student, teacher, questions: list[dict], schedule, backward) -> None:
    """The loop of every on-policy method: synchronise, sample, grade, backward, update.

    `questions` come in the order of their use; backward(samples) adds a gradient to the student's
    and returns the loss.
    """
    phase, cfg = schedule.phase, run.cfg
    lr, weight_decay, beta2 = schedule.lr_peak, schedule.weight_decay, schedule.beta2
    optimizer = kit.low_bits.adamw(student, lr, weight_decay, cfg, beta2)
    for step in run.folder.steps(phase, schedule.steps, student, optimizer, teacher):
        if number := schedule.round_begun(step):
            measure(run, student, f"round {number}")
        elif cfg.eval_every and step and step % cfg.eval_every == 0:
            measure(run, student, f"step {step}")
        if schedule.synchronises(step):
            teacher.load_state_dict(student.state_dict())

        batch = questions[step * schedule.batch : (step + 1) * schedule.batch]
        contexts = [chat_ids(run.tokenizer, q["prompt"]) for q in batch]
        seed = derived_seed(run.cfg.seed, phase, step, "rollout")
        samples = rollouts(run, student, batch, contexts, seed)  # y ~ student(.|x)
        stats = run.folder.count(samples)  # mean reward, "length", share cut off ...

        student.train()
        stats |= {"lr": schedule.lr(step), "revision_words": kit.tables.revision_words(samples)}
        for _ in range(schedule.updates):
            stats["loss"] = backward(samples)
            run.folder.count_trained(sum(len(s["ids"]) for s in samples))
            with run.folder.keeps_bad_batch(phase, step, samples):
                stats["grad_norm"] = update(student, optimizer, stats["lr"], run.cfg.grad_clip)
        if schedule.distils:  # "kl": nats of a response
            stats["kl"] = stats["loss"] * (stats["length"] if cfg.reduction == "mean" else 1)
            stats["synchronised"] = schedule.synchronises(step)
            stats |= kit.disagreement.told(run, step, samples)  # "entropy"; shows one
        run.folder.log(phase, step, **stats)


def distil(run: Run, student, add_gradient=None) -> None:
    """Phase 2: the student at chat(x) imitates the reviser, which has read chat(x) + y + P_r. A
    loss that is no divergence comes as add_gradient, in backward_kl's place."""
    cfg = run.cfg
    run = in_phase(run, "distil")
    teacher = frozen_copy(student, cfg.offload)
    n = cfg.distil_epochs * len(run.questions["distil"])
    questions = shuffled(run.questions["distil"], n, cfg.seed, "distil")
    schedule = Schedule(
        "distil",
        steps=kit.budget.distil_steps(cfg, len(run.questions["distil"])),
        batch=cfg.distil_batch,
        lr_peak=cfg.distil_lr,
        warmup=cfg.warmup_steps,
        decay=cfg.decay,
        weight_decay=cfg.distil_weight_decay,
        beta2=cfg.distil_beta2,
        rounds=cfg.rounds,
        sync_every=cfg.sync_every,
    )

    def backward(samples):
        for sample, context in zip(samples, reviser_contexts(run, samples)):
            sample["teacher_context"] = context
        return (add_gradient or backward_kl)(run, student, teacher, samples)

    on_policy(run, student, teacher, questions, schedule, backward)


# --------------------------------------------------------------------------------------------------
# Evaluation
# --------------------------------------------------------------------------------------------------
def evaluate(run: Run, model, questions: list[dict], name: str, revise: bool = True) -> dict:
    """Accuracy of cfg.eval_samples sampled and one greedy response, and generate-then-revise of the
    first sample (Sec. 3.2).

    Seeds and questions are the same for every model, so that differences are paired. "scores" holds
    what each question got.
    """
    run = in_phase(replace(run, cfg=replace(run.cfg, flip_reward=False)), "eval")
    k, seed = run.cfg.eval_samples, derived_seed("evaluate", run.cfg.seed)
    contexts = [chat_ids(run.tokenizer, q["prompt"]) for q in questions]

    many = repeat(questions, k), repeat(contexts, k)
    sampled = rollouts(run, model, *many, seed, f"evaluate {name}: sampled")
    responses = generate(run, model, contexts, seed, f"evaluate {name}: greedy", greedy=True)
    greedy = grade(run, questions, contexts, responses)

    scores = np.array([s["reward"] for s in sampled]).reshape(-1, k)  # (n, k)
    result = {
        **rate("accuracy", scores.mean(1)),
        **rate("accuracy_greedy", [s["reward"] for s in greedy]),
        "mean_tokens": mean(len(s["ids"]) for s in sampled),
        "truncated": mean(not s["finished"] for s in sampled),
        "n": len(questions),
        "samples_per_question": k,
        "revision_words": kit.tables.revision_words(sampled),
    }
    if revise:
        label = f"evaluate {name}: revised"
        result |= generate_then_revise(run, model, sampled[::k], seed + 1, label)
    return result | {"scores": scores.tolist(), "greedy_scores": [s["reward"] for s in greedy]}


def generate_then_revise(run: Run, model, firsts: list[dict], seed: int, label: str) -> dict:
    """One revision of each first answer, given its reward.

    correction_rate is the share of wrong first answers that revising turns right; None if none was
    wrong. (The paper's is net: right answers that revising spoils are subtracted.)
    """
    contexts = reviser_contexts(run, firsts)
    revisions = rollouts(run, model, [first["question"] for first in firsts], contexts, seed, label)
    both = zip(firsts, revisions)
    corrected = [revised["reward"] for first, revised in both if not first["reward"]]
    return {
        "initial_accuracy": mean(first["reward"] for first in firsts),
        "initial_tokens": mean(len(first["ids"]) for first in firsts),
        "revised_tokens": mean(len(revised["ids"]) for revised in revisions),
        **rate("revised_accuracy", [revised["reward"] for revised in revisions]),
        **rate("correction_rate", corrected),
    }


def measure(run: Run, model, name: str) -> None:
    """Evaluate the model, unless a stopped run has done it, and enter it into results.json."""
    if name not in run.folder.results:
        began = time.time()
        result = evaluate(run, model, run.questions[run.cfg.eval_split], name)
        run.folder.keep_result(name, result, seconds=time.time() - began)


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
class Stage(NamedTuple):
    """What ends in a checkpoint: phase 1, phase 2."""

    name: str  # of the checkpoint and its results: "srt", "sdzero"
    phase: str  # of its steps in states and metrics: "srt", "distil"
    train: object  # train(run, model) -> None


def stages_of(cfg: Config) -> list[Stage]:
    """SD-Zero: phase 1, then phase 2."""
    phase1 = [Stage("srt", "srt", srt)] if cfg.phase1 else []
    phase2 = [Stage("sdzero", "distil", distil)] if cfg.method == "sdzero" else []
    return phase1 + phase2


def train(cfg: Config, stages: list[Stage]) -> dict[str, dict]:
    """All stages and the evaluations around them, from where the run folder stands on; returns
    results.json's content."""
    options = kit.run_folder.options_of(cfg)
    kit.ownership.refuse_model_folder(cfg.out, cfg.model)
    kit.ownership.refuse_data_folder(cfg.out, cfg.data)
    kit.run_folder.check_options(cfg, options)
    questions, tokenizer = kit.questions.load_questions(cfg), kit.loading.load_tokenizer(cfg)
    kit.budget.check_rounds(cfg, len(questions["srt"]), len(questions["distil"]))  # of a short file
    kit.loading.check_prompts(tokenizer, sum(questions.values(), []), cfg.model)
    content = content_of(cfg, questions, tokenizer)
    folder = kit.run_folder.RunFolder(cfg.out, options, content, cfg.save_every, cfg.fresh)
    folder.belongs_to(cfg)
    folder.keep_ids(kit.questions.ids_of(questions))
    if not folder.finished:
        with make_grader(cfg) as grader, kit.run_folder.stops_when_asked(folder):
            run, model = prepare(cfg, tokenizer, grader, questions, folder)
            introduce(run, model)
            measure(run, model, "base")
            for stage in folder.still_to_do(stages):
                stage.train(run, model)  # a stopped one: from its saved weights
                folder.checkpoint(stage.name, tokenizer, model)
                measure(run, model, stage.name)
        folder.finish_with(kit.figures.figure)
    base = folder.results["base"]
    print(
        f"\n{base['n']} {cfg.eval_split} questions, {cfg.eval_samples} samples each at T = "
        f"{cfg.eval_temperature or cfg.temperature}; 95 % intervals in brackets"
    )
    print(kit.tables.results_table(folder.results))
    print(f"\n{folder.path}/ holds " + ", ".join(sorted(p.name for p in folder.path.iterdir())))
    return folder.results


def content_of(cfg: Config, questions: dict, tokenizer) -> dict[str, str]:
    """What a run depends on beside its options. It must not go on where this changes: its journal's
    responses would meet other questions."""
    phrases = phrase_ids(tokenizer, control_phrases(cfg, kit.loading.model_type(cfg.model)))
    run = Run(cfg, tokenizer, None, questions, phrases, end_ids=[], room=None)  # no model yet
    prompt = chat_ids(tokenizer, any_question(run)["prompt"])  # serves as a response too
    prompts = [prompt, reviser_ids(run, prompt, prompt, 0.0), reviser_ids(run, prompt, prompt, 1.0)]
    return {
        "the questions": kit.loading.digest(questions),
        "the chat template": kit.loading.digest(tokenizer.chat_template),
        "the prompts (tokenizer, phrases or code)": kit.loading.digest(prompts),
        **kit.rewards.fingerprint(cfg),
        **kit.loading.weights_fingerprint(cfg.model),
    }


def any_question(run: Run) -> dict:
    return (run.questions["srt"] + run.questions["distil"])[0]


def prepare(cfg: Config, tokenizer, grader, questions: dict, folder=None, trains: bool = True):
    """(run, model): the model is loaded, and the settings that depend on it are made."""
    cfg = kit.memory_plan.fill_in(cfg, kit.loading.device_of(cfg), trains)
    model = kit.loading.load_model(cfg)
    if cfg.gradient_checkpointing:
        kwargs = {"use_reentrant": False}
        # what transformers 5 calls gradient checkpointing
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    phrases = phrase_ids(tokenizer, control_phrases(cfg, model.config.model_type))
    end_ids = kit.loading.end_token_ids(tokenizer, model)
    room = kit.sampling.room_for(cfg, model)
    return Run(cfg, tokenizer, grader, questions, phrases, end_ids, room, folder), model


def introduce(run: Run, model) -> None:
    """What is about to be trained, how much it will sample, and both prompts."""
    cfg, folder = run.cfg, run.folder
    print(
        f"{cfg.model}: {model.num_parameters():,} parameters, {model.dtype}, on {model.device}; "
        f"rollouts by {kit.sampling.engine(model)}; run folder {folder.path}"
    )
    kept = {k: v for k, v in recipe_of_run(cfg).items() if getattr(cfg, k) == v}
    print(f"by --recipe {cfg.recipe}: " + flags_line(kept))
    print("questions: " + ", ".join(f"{name} {len(qs)}" for name, qs in run.questions.items()))
    if used := kit.budget.use_of_samples(cfg, run.questions):
        print(used)
    if folder.saved:
        print(f"going on from {folder.saved['phase']} step {folder.saved['step']}")
    prompt = chat_ids(run.tokenizer, any_question(run)["prompt"])
    wrong = run.tokenizer.encode("(a wrong answer)", add_special_tokens=False)
    folder.alarms.look_at_template(run.tokenizer, cfg)
    show("the generator's prompt", run.tokenizer.decode(prompt))
    show("the reviser's prompt", run.tokenizer.decode(reviser_ids(run, prompt, wrong, 0.0)))


def show(title: str, text: str) -> None:
    print(f"\n--- {title} ---\n{text}\n", flush=True)


def main(argv: list[str] | None = None) -> int:
    def work():
        about = __doc__.partition("Read from top")[0]  # of this file's docstring
        epilog = "the embedded model's own defaults: " + flags_line(TINY)
        cfg = make_config(**parse_options(argv, Config, about, epilog=epilog))
        if cfg.plan:
            print(kit.plan_page.plan(cfg))
            return
        kit.ranks.start(cfg.device)
        train(cfg, stages_of(cfg))
        kit.ranks.leave_together()

    return kit.errors.exit_code("sdzero", work)


if __name__ == "__main__":
    sys.exit(main())

# What `uv run sdzero.py` installs (PEP 723), in versions that were tried (docs/running.md).
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.11", "transformers>=5.19", "datasets>=4.0",
#   "math-verify>=0.9", "numpy>=2.0", "tqdm>=4.66", "matplotlib>=3.9",
# ]
# ///
