"""How many questions a run takes, and how many responses that makes."""

from kit.errors import UserError


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
    return {"first answers": first, "revisions": first * cfg.revisions, "rollouts": in_phase2}
