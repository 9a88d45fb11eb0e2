"""SD-Zero with one part of phase 2 exchanged for what other papers have in its place.

    python studies/variants.py --teacher-ema 0.99                   # an averaged teacher
    python studies/variants.py --divergence jsd --jsd-beta 0.5      # generalised Jensen-Shannon
    python studies/variants.py --divergence sampled                 # the policy-gradient form
    python studies/variants.py --top-k 16 --tail                    # the rest as one more token
    python studies/variants.py --term-clip 0.1                      # each vocabulary term clipped

and two controls that ask whether the reviser's distribution matters, or its reading of the reward:

    python studies/variants.py --divergence penalty                 # a fixed penalty alone
    python sdzero.py --phrase-if-right "$P0" --phrase-if-wrong "$P0"    # reads no verdict
    python sdzero.py --phrase-if-right " " --phrase-if-wrong " "        # reads no phrase

The rest is sdzero.py, and so are all other options. `eval.py tune` searches settings for each.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if not __package__:  # run as a file: modules are looked for beside it, but they are one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import kit
import sdzero
from kit.errors import UserError, exit_code
from kit.late import F, torch
from kit.options import option, parse_options


@dataclass
class VariantConfig(sdzero.Config):
    teacher_ema: float = option(
        0.0,
        "after each step teacher := this * teacher + (1 - this) * student; 0: off",
        least=0,
        most=0.9999,
        heading="variants of phase 2",
    )
    divergence: Literal["reverse", "forward", "mixed", "jsd", "sampled", "penalty"] = option(
        "reverse",
        "jsd: between both and their mixture; sampled: the sampled token alone, as a policy "
        "gradient; penalty: against a sampled token that is not the teacher's likeliest",
    )
    jsd_beta: float = option(0.5, "the teacher's share of the mixture", above=0, most=0.999)
    tail: bool = option(False, "what --top-k leaves out is one more token")
    term_clip: float = option(0.0, "cap on each vocabulary term of the KL; 0: off", least=0)


def make_variant_config(**given) -> VariantConfig:
    """Raises UserError as sdzero.make_config does, and for options that exclude each other."""
    cfg = sdzero.make_config(VariantConfig, **given)
    alone = cfg.divergence in ("sampled", "penalty")
    excluded = [
        (cfg.tail and not cfg.top_k, "--tail is what --top-k leaves out: give both"),
        (alone and cfg.top_k, f"--divergence {cfg.divergence} sees one token: not with --top-k"),
        (alone and cfg.kl_clip, f"--divergence {cfg.divergence} excludes --kl-clip"),
        (cfg.term_clip and cfg.divergence != "reverse", "--term-clip is for the reverse KL"),
        (cfg.method == "srt", "these are variants of phase 2: not with --method srt"),
        (cfg.teacher_ema and cfg.sync_every, "--teacher-ema excludes --sync-every"),
        (
            cfg.teacher_ema and not cfg.lora and in_bfloat16(cfg),
            "--teacher-ema in bfloat16 would be rounded away: give --dtype float32",
        ),
    ]
    for contradiction, line in excluded:
        if contradiction:
            raise UserError(line)
    return cfg


def in_bfloat16(cfg) -> bool:
    """Whether the weights are, that an average would be taken of; adapters are not."""
    if cfg.dtype != "auto":  # without torch
        return cfg.dtype == "bfloat16"
    return kit.gpu.weights_are_low(cfg, kit.loading.device_of(cfg))


# --------------------------------------------------------------------------------------------------
# Losses at n tokens: student's and teacher's logits (n, V), the sampled tokens (n,) -> (n,)
# --------------------------------------------------------------------------------------------------
def jsd(logits, teacher_logits, beta: float):
    """beta KL(teacher || m) + (1 - beta) KL(student || m), with m = beta teacher + (1 - beta)
    student (GKD, arXiv 2306.13649). (n, V), (n, V) -> (n,)"""
    log_p, log_q = F.log_softmax(logits, -1), F.log_softmax(teacher_logits, -1)  # (n, V) each
    weights = torch.tensor([1 - beta, beta], dtype=log_p.dtype, device=log_p.device).log()
    log_m = torch.logaddexp(log_p + weights[0], log_q + weights[1])  # (n, V)
    return beta * sdzero.kl(log_q, log_m) + (1 - beta) * sdzero.kl(log_p, log_m)


def term_clipped_kl(logits, teacher_logits, most: float):
    """sum_v min(p(v) (log p(v) - log q(v)), most). (n, V), (n, V) -> (n,)"""
    log_p, log_q = F.log_softmax(logits, -1), F.log_softmax(teacher_logits, -1)  # (n, V) each
    return (log_p.exp() * (log_p - log_q)).clamp(max=most).sum(-1)


def sampled_loss(logits, teacher_logits, targets):
    """(log p(y) - log q(y)), held fixed, times log p(y): over y ~ p its gradient is that of the
    reverse KL. (n, V), (n, V), (n,) -> (n,)"""
    log_p = -F.cross_entropy(logits, targets, reduction="none")  # (n,)
    log_q = -F.cross_entropy(teacher_logits, targets, reduction="none")  # (n,)
    return (log_p - log_q).detach() * log_p


def penalty(logits, teacher_logits, targets):
    """log p(y) where y is not the teacher's likeliest token a, else 0: a reward of -1 there. At one
    token it says no more than that y is doubted; over y ~ p its gradient is that of -p(a), so the
    likeliest token is a target after all, and of q nothing else counts. -> (n,)"""
    log_p = -F.cross_entropy(logits, targets, reduction="none")  # (n,)
    return log_p * (teacher_logits.argmax(-1) != targets)


def with_tail(logits, top):
    """Log-probabilities of the tokens top (n, k) and of all others together: (n, k + 1)"""
    log_p = F.log_softmax(logits, -1)  # (n, V)
    inside = torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, top, True)  # (n, V)
    rest = log_p.masked_fill(inside, -torch.inf).logsumexp(-1, keepdim=True)  # (n, 1)
    return torch.cat([log_p.gather(-1, top), rest], -1)


def loss_of_tokens(cfg: VariantConfig, logits, teacher_logits, targets):
    """The variant's loss, as sdzero.distillation_loss has it for the divergences of sdzero.py."""
    if cfg.divergence in ("sampled", "penalty"):
        of_one = sampled_loss if cfg.divergence == "sampled" else penalty
        return of_one(logits, teacher_logits, targets)
    if cfg.top_k:
        top = teacher_logits.topk(min(cfg.top_k, logits.shape[-1] - cfg.tail)).indices  # (n, k)
        cut = with_tail if cfg.tail else lambda of_all, top: of_all.gather(-1, top)
        logits, teacher_logits = cut(logits, top), cut(teacher_logits, top)
    if cfg.divergence == "jsd":
        losses = jsd(logits, teacher_logits, cfg.jsd_beta)
    elif cfg.term_clip:
        losses = term_clipped_kl(logits, teacher_logits, cfg.term_clip)
    else:
        losses = sdzero.DIVERGENCES[cfg.divergence](logits, teacher_logits)
    return losses.clamp(max=cfg.kl_clip) if cfg.kl_clip else losses


# --------------------------------------------------------------------------------------------------
# Phase 2
# --------------------------------------------------------------------------------------------------
def backward_variant(run, student, teacher, samples: list[dict]) -> float:
    """sdzero.backward_kl with the variant's loss; the teacher goes after the student first."""
    if run.cfg.teacher_ema:
        average(teacher, student, run.cfg.teacher_ema)
    teacher_head = kit.losses.head_of(teacher)

    def loss_of_pass(in_pass, hidden, teacher_hidden):
        targets = sdzero.targets_of(student, [s["ids"] for s in in_pass])  # (N,)

        def loss_fn(logits, chunk):
            with torch.no_grad():
                teacher_logits = kit.losses.logits_of(teacher_hidden[chunk], teacher_head)  # (n, V)
            return loss_of_tokens(run.cfg, logits, teacher_logits, targets[chunk])

        return kit.losses.token_loss(student, hidden, loss_fn)

    return sdzero.backward_kl(run, student, teacher, samples, loss_of_pass)


def average(teacher, student, keep: float) -> None:
    """teacher := keep * teacher + (1 - keep) * student. Before the first step the two are equal."""
    with torch.no_grad():
        for ours, theirs in zip(teacher.parameters(), student.parameters()):
            if ours is not theirs:  # with --lora all but the adapters are shared
                ours.lerp_(theirs.to(ours.device), 1 - keep)  # --offload keeps ours on the CPU


def distil_variant(run, student) -> None:
    sdzero.distil(run, student, add_gradient=backward_variant)


def stages_of(cfg: VariantConfig) -> list:
    """SD-Zero's, with the variant's phase 2."""
    *phase1, phase2 = sdzero.stages_of(cfg)
    return [*phase1, phase2._replace(train=distil_variant)]


def main(argv: list[str] | None = None) -> int:
    def work():
        cfg = make_variant_config(**parse_options(argv, VariantConfig, __doc__))
        if cfg.plan:
            print(kit.plan_page.plan(cfg))
            return
        kit.ranks.start(cfg.device)
        sdzero.train(cfg, stages_of(cfg))
        kit.ranks.leave_together()

    return exit_code("variants", work)


if __name__ == "__main__":
    sys.exit(main())
