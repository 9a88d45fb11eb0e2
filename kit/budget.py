"""Which options exclude each other, how many questions a run takes, and how many responses that
makes."""

import math

from kit import ranks
from kit.errors import UserError


def check_contradictions(cfg) -> None:
    """Raise UserError, in one line, for options that exclude each other."""
    srt_alone, no_phase1 = cfg.method == "srt", not cfg.phase1
    gym = cfg.task.startswith("gym:")
    losses = cfg.l_revision or cfg.l_answer or cfg.l_generation != "none"
    excluded = [
        (srt_alone and no_phase1, "--method srt excludes --no-phase1: nothing is left to train"),
        (cfg.phase1 and not losses, "phase 1 has no loss: --l-revision, or --no-phase1"),
        (cfg.phase1 and not cfg.srt_questions, "phase 1 has no --srt-questions: or --no-phase1"),
        (no_phase1 and cfg.l_answer, "--l-answer is a loss of phase 1: --no-phase1 excludes it"),
        (no_phase1 and not cfg.filtered, "--no-filtered is of phase 1: --no-phase1 excludes it"),
        (no_phase1 and cfg.srt_share > 0, "--srt-share is phase 1's: --no-phase1 excludes it"),
        (srt_alone and cfg.srt_share > 0, "--method srt takes all: it excludes --srt-share"),
        (cfg.srt_share > 0 and not cfg.samples, "--srt-share is a share of --samples: give both"),
        (not srt_alone and not cfg.distil_questions, "phase 2 has no --distil-questions"),
        (gym and cfg.data, "--task gym:NAME makes its questions: it excludes --data"),
        (cfg.gym_options and not gym, "--gym-options are for --task gym:NAME"),
        (
            cfg.right_share and cfg.revise == "wrong",
            "--right-share asks for right first answers: --revise wrong revises none",
        ),
        (
            cfg.srt_in_turn and cfg.l_generation == "none",
            "--srt-in-turn trains Eq. 2 first: it needs --l-generation wrong, or all",
        ),
        (
            cfg.srt_in_turn and not cfg.l_revision,
            "--srt-in-turn trains Eq. 2 and then Eq. 1: --no-l-revision excludes it",
        ),
        (no_phase1 and cfg.right_share, "--right-share is phase 1's: --no-phase1 excludes it"),
        (no_phase1 and cfg.srt_in_turn, "--srt-in-turn is phase 1's: --no-phase1 excludes it"),
        (srt_alone and cfg.rounds > 1, "--rounds are phase 2's: --method srt excludes them"),
        (srt_alone and cfg.eval_every, "--eval-every is phase 2's: --method srt excludes it"),
        (cfg.shard and not (cfg.plan or ranks.launched()), "--shard is for torchrun's ranks"),
    ]
    for contradiction, line in excluded:
        if contradiction:
            raise UserError(line)


def divide(cfg) -> tuple[int, int]:
    """Questions of phase 1 and of phase 2. --samples caps the responses of both: the two numbers
    asked for (N1, N2) then say only in which ratio it is split. responses_of says what is used.

    Raises UserError where it is too small.
    """
    if not cfg.samples:
        return cfg.srt_questions, cfg.distil_questions
    per_question = cfg.first_answers * (1 + cfg.revisions)
    in_phase1 = cfg.srt_questions * per_question
    in_phase2 = cfg.distil_questions * cfg.distil_epochs
    share = cfg.srt_share or in_phase1 / (in_phase1 + in_phase2)
    if cfg.method == "srt":
        share = 1.0
    elif not cfg.phase1:
        share = 0.0
    n1 = min(round(share * cfg.samples / per_question), cfg.samples // per_question)
    n2 = (cfg.samples - n1 * per_question) // cfg.distil_epochs
    if (cfg.phase1 and not n1) or (cfg.method == "sdzero" and not n2):
        raise UserError(
            f"--samples {cfg.samples} are too few: a question of phase 1 takes {per_question}, one "
            f"of phase 2 {cfg.distil_epochs}, and --srt-share {share:.3g} goes to phase 1"
        )
    return n1, n2


def responses_of(cfg, srt_questions: int, distil_questions: int) -> dict[str, int]:
    """How many responses training generates, by kind."""
    first = srt_questions * cfg.first_answers if cfg.phase1 else 0
    in_phase2 = distil_questions * cfg.distil_epochs if cfg.method == "sdzero" else 0
    if cfg.distil_steps:
        in_phase2 = min(in_phase2, cfg.distil_steps * cfg.distil_batch)
    return {"first answers": first, "revisions": first * cfg.revisions, "rollouts": in_phase2}


def responses_of_baseline(cfg, questions: int) -> int:
    """How many responses a baseline samples, of so many questions."""
    if cfg.method == "sft":
        return 0
    return cfg.samples or cfg.group * questions


def use_of_samples(cfg, questions: dict) -> str:
    """What training takes of --samples, in words: less where a file has too few questions. Empty
    for the baselines, which ask their questions until all are taken."""
    if not cfg.samples or cfg.method not in ("sdzero", "srt"):
        return ""
    counts = responses_of(cfg, len(questions["srt"]), len(questions["distil"]))
    kinds = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    most = "at most " if cfg.revise == "wrong" else ""  # the right ones are left alone
    return f"of --samples {cfg.samples}, training uses {most}{sum(counts.values())}: {kinds}"


def kept_at_most(cfg, revisions: int) -> int:
    """Of so many revisions, those that phase 1 trains on if enough of them are verified."""
    return min(revisions, cfg.srt_records or revisions)


def distil_steps(cfg, questions: int) -> int:
    """Optimiser steps of phase 2, with so many questions."""
    steps = math.ceil(questions * cfg.distil_epochs / cfg.distil_batch)
    return min(steps, cfg.distil_steps or steps)


def check_rounds(cfg, srt_questions: int, distil_questions: int) -> None:
    """Raise UserError where so many questions give fewer steps of phase 2, or samples of rft, than
    there are rounds."""
    if cfg.method == "sdzero":
        most, what = distil_steps(cfg, distil_questions), "steps of phase 2"
    elif cfg.method == "rft":
        most, what = responses_of_baseline(cfg, srt_questions + distil_questions), "samples"
    else:
        return
    if cfg.rounds > most:
        raise UserError(f"--rounds {cfg.rounds} are more than the {most} {what}")
