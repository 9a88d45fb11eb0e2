"""The verifier of a task, from verify.py, which a run imports here and nowhere else (but for
--task code): a fork with a grader of its own can leave it behind."""

from kit.errors import UserError


def verifier(cfg):
    """verify.Grader of cfg.task. Says how programs are isolated; raises UserError where that is
    less than --task code wants."""
    try:
        import verify
    except ImportError as e:
        raise UserError(
            f"the rewards are missing ({e}): bring verify.py and grading/, or let make_grader in "
            "sdzero.py return a grader of your own"
        ) from e
    if cfg.task == "code":
        print(f"sandbox: {verify.sandbox_level()[1]}", flush=True)
    try:
        task = cfg.task if cfg.task in ("code", "countdown") else "math"
        return verify.Grader(task, unsafe=cfg.unsafe_exec)
    except RuntimeError as e:
        raise UserError(str(e)) from None
