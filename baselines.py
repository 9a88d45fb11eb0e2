"""The methods that SD-Zero is compared with, as the paper has them, on the pieces of sdzero.py.

    python baselines.py rft       rejection fine-tuning on the model's own right answers
    python baselines.py grpo      group-relative policy optimisation, as DAPO has it
    python baselines.py sdft      self-distillation from a teacher that is shown a demonstration
    python baselines.py sft       fine-tuning on demonstrations

They share rollouts, rewards, losses, evaluation and run folder with SD-Zero, and train on the
questions of both its phases. `eval.py compare` trains them all on the same number of samples.
"""

import math
import sys
from dataclasses import dataclass, fields
from typing import Literal

import kit
from kit.errors import DeadEnd, UserError, exit_code
from kit.late import F, torch
from kit.options import flag_of, flags_line, option, parse_options
from kit.presets import adapter_factor, recipe_of
from kit.recipes import following
from kit.seeds import derived_seed, shuffled
from sdzero import (
    Config,
    Row,
    Schedule,
    Stage,
    Training,
    accumulate,
    backward_kl,
    chat_ids,
    fine_tune,
    frozen_copy,
    make_config,
    on_policy,
    repeat,
    response_hidden,
    rollouts,
    show,
    srt_records,
    targets_of,
    train,
)


# --------------------------------------------------------------------------------------------------
# Configuration
# --------------------------------------------------------------------------------------------------
@dataclass
class BaselineConfig(Config):
    method: Literal["rft", "grpo", "sdft", "sft"] = option(
        "rft", "which baseline; the word after baselines.py", heading="the baseline"
    )
    epochs: int = option(3, "rft, sft: passes over the answers that are trained on", least=1)
    batch: int = option(
        4, "rft, sft: answers per optimiser step; grpo, sdft: rollouts per step", least=1
    )
    lr: float = option(5e-6, "learning rate (rft, sft: its peak, with a cosine)", above=0, most=1)
    weight_decay: float = option(1e-4, "AdamW's weight decay", least=0, most=1)
    beta2: float = option(0.95, "AdamW's second beta", above=0, most=0.9999)
    group: int = option(
        4, "grpo: answers per question; rft, sdft: the same where there is no --samples", least=1
    )
    rounds: int = option(
        1,
        "rft: samplings; after each the base is trained anew on all right answers",
        least=1,
    )
    on_revisions: bool = option(
        False, "rft: train on the base's verified revisions instead of its right answers"
    )
    updates: int = option(1, "grpo: optimiser steps on each batch of rollouts", least=1)
    clip: float = option(0.2, "grpo: the policy ratio counts only within 1 +- this", above=0)
    kl: float = option(
        0.001, "grpo: weight of the KL to the model that training started from", least=0
    )
    entropy: float = option(0.001, "grpo: weight of the entropy, which is rewarded", least=0)
    textbook: bool = option(
        False, "grpo: each answer counts the same, however long; off: each token does, as in DAPO"
    )
    cosine: bool = option(False, "sdft: the learning rate falls along a cosine")
    shown: Literal["demonstration", "answer"] = option(
        "demonstration", "sdft: what the teacher is shown; where a question lacks it, its answer"
    )


# What a method has instead of BaselineConfig's defaults: of a real model (the paper's), and of the
# embedded one.
SHORTER = dict(temperature=0.7, max_tokens=8192, eval_temperature=0.7, eval_max_tokens=32_768)
DEFAULTS = {
    "rft": {},  # Table 4, and 4 samples a question (C.2)
    "sft": {},
    # Table 5: 64 prompts, 4 samples each (Tables 3, 10; Table 5 itself has 8), constant 1e-6
    "grpo": dict(batch=256, weight_decay=0.01, lr=1e-6, warmup_steps=0, **SHORTER),
    # Table 6: 128 prompts, a cosine
    "sdft": dict(batch=128, weight_decay=0.01, cosine=True, **{**SHORTER, "temperature": 1.0}),
}
TEXTBOOK = dict(textbook=True, kl=0.0, entropy=0.0)
TINY = {
    "rft": dict(epochs=16, batch=16, lr=1e-3),
    "sft": dict(epochs=3, batch=16, lr=1e-3),
    "grpo": dict(batch=32, lr=5e-4, group=8, weight_decay=0.01, decay=0.0, **TEXTBOOK),
    "sdft": dict(batch=16, lr=1e-5, weight_decay=0.01),
}
# Which of SD-Zero's options the baselines lack, and which methods the others belong to.
NOT_HERE = {f.name for f in fields(Config) if f.name.startswith(("srt_", "distil_", "l_"))}
NOT_HERE = NOT_HERE - {"srt_questions", "distil_questions"}
NOT_HERE |= {"phase1", "sync_every", "plan", "tokens_per_second", "revision_records"}
OF_REVISIONS = ("trim", "revise", "right_share", "filtered")  # for --on-revisions alone
BELONGS = {
    "epochs": ("rft", "sft"),
    "group": ("grpo", "rft", "sdft"),
    "on_revisions": ("rft",),
    "rounds": ("rft",),
    "updates": ("grpo",),
    "clip": ("grpo",),
    "kl": ("grpo",),
    "entropy": ("grpo",),
    "textbook": ("grpo",),
    "shown": ("sdft",),
    "show_every": ("sdft",),
    "cosine": ("sdft",),
    "beta2": ("rft", "sft", "grpo", "sdft"),
    "warmup_steps": ("grpo", "sdft"),
    "decay": ("grpo", "sdft"),
    "divergence": ("sdft",),
    "kl_clip": ("sdft",),
    "top_k": ("sdft",),
    "reduction": ("rft", "sft", "sdft"),
    "eval_every": ("grpo", "sdft"),
    **dict.fromkeys(OF_REVISIONS, ("rft",)),
}


def lacks(name: str, options: dict) -> str:
    """Why the method of these options has no option of this name; empty where it has."""
    if name in NOT_HERE or options["method"] not in BELONGS.get(name, DEFAULTS):
        return f"{options['method']} has no {flag_of(name)}"
    if name in OF_REVISIONS and not options.get("on_revisions"):
        return f"{flag_of(name)} is for --on-revisions alone"
    return ""


def make_baseline_config(**given) -> BaselineConfig:
    """Options that were not given take the method's default. Raises UserError as make_config does,
    and for options that the method does not have."""
    method = given.get("method", "rft")
    if method not in DEFAULTS:
        raise UserError(f"the baselines are {', '.join(DEFAULTS)}, not {method!r}")
    for name in given:
        if why := lacks(name, {**given, "method": method}):
            raise UserError(why)
    if given.get("on_revisions") and given.get("rounds", 1) > 1:
        raise UserError("--on-revisions trains once on what was collected: --rounds excludes it")
    tiny = recipe_of(given)["recipe"] == "tiny"
    defaults = {**(TINY if tiny else DEFAULTS)[method], **following(given)}
    defaults["lr"] = defaults.get("lr", BaselineConfig.lr) * adapter_factor(given)
    if given.get("on_revisions") and given.get("samples"):
        defaults["srt_share"] = 1.0  # all of them are spent as phase 1 spends its own
    cfg = make_config(BaselineConfig, **{**defaults, **given, "method": method})
    samples = kit.budget.responses_of_baseline(cfg, cfg.srt_questions + cfg.distil_questions)
    if method == "grpo" and samples < cfg.group:
        raise UserError(f"--samples {samples} are less than one --group of {cfg.group}")
    if method == "grpo" and (cfg.group < 2 or cfg.batch % cfg.group):
        raise UserError(
            f"grpo compares the answers of a group: --group {cfg.group} must be above 1 and divide "
            f"--batch {cfg.batch}"
        )
    return cfg


def both_phases(run) -> list[dict]:
    return run.questions["srt"] + run.questions["distil"]


def budget(run) -> int:
    """How many responses a baseline may sample."""
    return kit.budget.responses_of_baseline(run.cfg, len(both_phases(run)))


def training(cfg: BaselineConfig) -> Training:
    return Training(cfg.epochs, cfg.batch, cfg.lr, cfg.weight_decay, cfg.beta2)


def schedule(cfg: BaselineConfig, rollouts: int, **more) -> Schedule:
    """One round, no synchronisation."""
    steps = math.ceil(rollouts / cfg.batch)
    return Schedule(
        cfg.method,
        steps=steps,
        batch=cfg.batch,
        lr_peak=cfg.lr,
        warmup=cfg.warmup_steps,
        decay=cfg.decay,
        weight_decay=cfg.weight_decay,
        beta2=cfg.beta2,
        cosine=cfg.cosine,
        **more,
    )


# --------------------------------------------------------------------------------------------------
# Fine-tuning on answers
# --------------------------------------------------------------------------------------------------
RIGHT = "right_answers.jsonl"  # rft's, of a run folder


def answer_row(context: list[int], response: list[int]) -> list[Row]:
    """A tuple of one row: -log pi(response | context)."""
    return [Row(context + response, [len(context)])]


def rft(run, model) -> None:
    """Rejection fine-tuning: sample y ~ pi(.|x), keep the right ones, and maximise
    sum_i r_i log pi(y_i | x_i).

    With --rounds it is expert iteration: each round samples its part of the budget from the model
    so far, and trains the base anew on every right answer up to then.
    """
    cfg, questions = run.cfg, shuffled(both_phases(run), budget(run), run.cfg.seed, "rft")
    base = kit.low_bits.copy_weights(model) if cfg.rounds > 1 else None
    done = int(run.folder.saved.get("phase", "rft 0").split()[-1])  # a resumed run's
    right = run.folder.read_rows(RIGHT) if done else []  # the right answers of all rounds so far
    right = [answer for answer in right if answer["round"] <= done]
    for r in range(done or 1, cfg.rounds + 1):
        part = questions[len(questions) * (r - 1) // cfg.rounds : len(questions) * r // cfg.rounds]
        if r > done:
            contexts = [chat_ids(run.tokenizer, q["prompt"]) for q in part]
            seed = derived_seed(cfg.seed, "rft", r)
            samples = rollouts(run, model, part, contexts, seed, f"rft {r}: samples")
            of_round = [s for s in samples if s["reward"]]
            right += [{"round": r, "context": s["context"], "ids": s["ids"]} for s in of_round]
            run.folder.write_rows(RIGHT, right)
        rows = [answer_row(answer["context"], answer["ids"]) for answer in right]
        kept = {tuple(row.ids): [row] for [row] in rows}  # once each
        if r > done:
            run.folder.log(f"rft {r} samples", 0, kept=len(kept), **run.folder.count(samples))
        if not kept:
            raise DeadEnd(
                f"none of {len(part)} samples was right, so there is nothing to train on. Ask "
                "easier questions, or sample more"
            )
        if r > 1:
            kit.low_bits.put_weights(model, base)
        fine_tune(run, model, list(kept.values()), f"rft {r}", training(cfg))


def rft_on_revisions(run, model) -> None:
    """A control that the paper lacks: phase 1 with the generator as its target,
    -log pi(y_revised | x)."""
    kept = [r for r in srt_records(run, model) if r["kept"]]
    rows = [answer_row(r["prompt_ids"], r["revised_ids"]) for r in kept]
    fine_tune(run, model, rows, "srt", training(run.cfg))


def sft(run, model) -> None:
    """Supervised fine-tuning on given demonstrations d: minimise -log pi(d | x)."""
    with_one = [q for q in both_phases(run) if kit.shots.demonstration_of(q)]
    if not with_one:
        raise UserError(
            "sft needs demonstrations: a column named demonstration, solution, or an answer that "
            "ends in #### 42"
        )
    tokenizer, end_ids = run.tokenizer, run.end_ids
    end = [tokenizer.eos_token_id if tokenizer.eos_token_id in end_ids else end_ids[0]]
    rows = []
    for q in with_one:
        demonstration = tokenizer.encode(q["demonstration"], add_special_tokens=False)
        rows.append(answer_row(chat_ids(tokenizer, q["prompt"]), demonstration + end))
    fine_tune(run, model, rows, "sft", training(run.cfg))


# --------------------------------------------------------------------------------------------------
# Self-distillation fine-tuning
# --------------------------------------------------------------------------------------------------
def sdft_prompt(question: dict, shown: str = "demonstration"):
    """What SDFT's teacher is asked: the question, with a demonstration of an answer, or with its
    final answer where there is none, or where that alone is asked for (Table 8)."""
    demonstration, right = kit.shots.demonstration_of(question), question["answer"]
    if demonstration and shown == "demonstration":
        hint = (
            f"\n\nThis is an example of a right answer:\n{demonstration}\n\nNow answer in your own "
            "words."
        )
    elif kit.questions.is_blank(right):
        asked = kit.questions.question_in(question["prompt"])[:60]
        raise UserError(f"sdft has neither a demonstration nor an answer of {asked!r} to show")
    else:
        right = "what passes its tests" if isinstance(right, dict) else right
        hint = f"\n\nThe final answer is {right}. Now work it out in your own words."
    *earlier, last = kit.questions.as_turns(question["prompt"])
    return [*earlier, {**last, "content": last["content"] + hint}]


def sdft(run, student) -> None:
    """sum_t KL(student(.|x, y_<t) || teacher(.|x, demonstration, y_<t)) at y ~ student(.|x)."""
    teacher = frozen_copy(student, run.cfg.offload)
    questions = shuffled(both_phases(run), budget(run), run.cfg.seed, "sdft")
    # of all questions: one that has nothing to show is said before anything is sampled
    prompts = [sdft_prompt(q, run.cfg.shown) for q in both_phases(run)]
    first = chat_ids(run.tokenizer, prompts[0])
    show("the prompt of SDFT's teacher", run.tokenizer.decode(first))

    def backward(samples):
        for s in samples:
            s["teacher_context"] = chat_ids(
                run.tokenizer, sdft_prompt(s["question"], run.cfg.shown)
            )
        return backward_kl(run, student, teacher, samples)

    on_policy(run, student, teacher, questions, schedule(run.cfg, len(questions)), backward)


# --------------------------------------------------------------------------------------------------
# Group-relative policy optimisation
# --------------------------------------------------------------------------------------------------
def advantages(rewards):
    """A_i = (r_i - mean(r)) / (std(r) + 1e-4) within each group: (groups, G) -> (groups, G)"""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def policy_loss(log_prob, old, advantage, clip: float):
    """-min(rho A, clip(rho, 1 - eps, 1 + eps) A) with rho = pi / pi_old. All (n,) -> (n,)"""
    ratio = (log_prob - old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def kl_estimate(log_prob, reference):
    """pi_ref / pi - log(pi_ref / pi) - 1, an estimate of KL(pi || pi_ref). (n,), (n,) -> (n,)"""
    gap = reference - log_prob
    return gap.exp() - gap - 1


def entropy_of(logits):
    """-sum_v p log p in nats. (n, V) -> (n,)"""
    log_p = F.log_softmax(logits, -1)  # (n, V)
    return -(log_p.exp() * log_p).sum(-1)


def remember_log_probs(run, model, samples: list[dict], name: str) -> None:
    """Give each sample, under `name`, log pi(y_t | x, y_<t) of each of its tokens (T,), in fp32."""
    lengths = [len(s["context"]) + len(s["ids"]) for s in samples]
    for rows in kit.losses.micro_batches(lengths, run.room.tokens):
        batch = [samples[i] for i in rows]
        responses = [s["ids"] for s in batch]
        with torch.no_grad():
            hidden = response_hidden(model, [s["context"] for s in batch], responses)  # (N, H)
            values = log_probs_of(model, hidden, targets_of(model, responses))  # (N,)
        for s, of_sample in zip(batch, values.split([len(y) for y in responses])):
            s[name] = of_sample


def log_probs_of(model, hidden, targets):
    """log pi(target) at N tokens: hidden (N, H), targets (N,) -> (N,) without gradient"""

    def loss_fn(logits, chunk):
        return -F.cross_entropy(logits, targets[chunk], reduction="none")  # (n,)

    return kit.losses.token_loss(model, hidden, loss_fn)[1]


def backward_grpo(run, student, samples: list[dict]) -> float:
    """Add GRPO's gradient to the student's: the mean over all tokens of the batch (DAPO's
    token-level loss), or with --textbook 1/G sum_i 1/|y_i| sum_t, averaged over the questions;
    returns that loss."""
    cfg, device = run.cfg, student.device
    rewards = torch.tensor([s["reward"] for s in samples], device=device)
    A = advantages(rewards.view(-1, cfg.group)).flatten().tolist()
    tokens = sum(len(s["ids"]) for s in samples)

    def loss_of(indices):
        batch = [samples[i] for i in indices]
        responses = [s["ids"] for s in batch]
        targets = targets_of(student, responses)  # (N,)
        weights, advantage = [], []
        for i, y in zip(indices, responses):
            weights += [1 / len(y) / len(samples) if cfg.textbook else 1 / tokens] * len(y)
            advantage += [A[i]] * len(y)
        weights = torch.tensor(weights, device=device)  # (N,)
        advantage = torch.tensor(advantage, device=device)  # (N,)
        old, reference = (
            torch.cat([s[name] for s in batch]) if name in batch[0] else None  # (N,)
            for name in ("old", "reference")
        )

        def loss_fn(logits, chunk):
            log_prob = -F.cross_entropy(logits, targets[chunk], reduction="none")  # (n,)
            # the first update on a batch is its own pi_old
            of_old = log_prob.detach() if old is None else old[chunk]
            loss = policy_loss(log_prob, of_old, advantage[chunk], cfg.clip)
            if reference is not None:
                loss = loss + cfg.kl * kl_estimate(log_prob, reference[chunk])
            if cfg.entropy:
                loss = loss - cfg.entropy * entropy_of(logits)
            return weights[chunk] * loss

        hidden = response_hidden(student, [s["context"] for s in batch], responses)  # (N, H)
        return kit.losses.token_loss(student, hidden, loss_fn)[0]

    lengths = [len(s["context"]) + len(s["ids"]) for s in samples]
    return accumulate(run, student, lengths, loss_of)


def grpo(run, student) -> None:
    """A policy gradient whose baseline is the mean reward of a group of answers to one question."""
    cfg = run.cfg
    reference = frozen_copy(student, cfg.offload) if cfg.kl else None
    groups = shuffled(both_phases(run), budget(run) // cfg.group, cfg.seed, "grpo")
    questions = repeat(groups, cfg.group)

    def backward(samples):
        if cfg.updates > 1 and "old" not in samples[0]:
            remember_log_probs(run, student, samples, "old")
        if reference is not None and "reference" not in samples[0]:
            remember_log_probs(run, reference, samples, "reference")
        return backward_grpo(run, student, samples)

    how = schedule(cfg, len(questions), updates=cfg.updates, distils=False)
    on_policy(run, student, reference, questions, how, backward)


# --------------------------------------------------------------------------------------------------
# Main
# --------------------------------------------------------------------------------------------------
def stages_of(cfg: BaselineConfig) -> list[Stage]:
    if cfg.on_revisions:
        return [Stage("rft", "srt", rft_on_revisions)]
    method = {"rft": rft, "sft": sft, "grpo": grpo, "sdft": sdft}[cfg.method]
    return [Stage(cfg.method, cfg.method, method)]


def main(argv: list[str] | None = None) -> int:
    def work():
        words = list(sys.argv[1:] if argv is None else argv)
        if words and not words[0].startswith("-"):
            words = ["--method", *words]
        shown = {f.name for f in fields(BaselineConfig)} - NOT_HERE
        epilog = "\n".join(
            f"the embedded model's own defaults, {name}: {flags_line(values)}"
            for name, values in TINY.items()
        )
        given = parse_options(words, BaselineConfig, __doc__, shown, epilog)
        if "method" not in given:
            raise UserError(f"which baseline? python baselines.py {'|'.join(DEFAULTS)} ...")
        cfg = make_baseline_config(**given)
        kit.ranks.start(cfg.device)
        train(cfg, stages_of(cfg))
        kit.ranks.leave_together()

    return exit_code("baselines", work)


if __name__ == "__main__":
    sys.exit(main())

# What `uv run baselines.py` installs (PEP 723), in versions that were tried (docs/running.md).
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.11", "transformers>=5.19", "datasets>=4.0",
#   "math-verify>=0.9", "numpy>=2.0", "tqdm>=4.66", "matplotlib>=3.9",
# ]
# ///
