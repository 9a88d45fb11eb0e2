"""The verifier of a task, from verify.py, which a run imports here and nowhere else (but for
--task code): a fork with a grader of its own can leave it behind."""

from pathlib import Path

from kit.errors import UserError
from kit.loading import digest


def verifier(cfg):
    """verify.Grader of cfg.task, or verify.OwnGrader of --reward and of reasoning-gym's scorers.
    Says how programs are isolated; raises UserError where that is less than --task code wants, or
    where a function of --reward cannot be loaded."""
    try:
        import verify
    except ImportError as e:
        raise UserError(
            f"the rewards are missing ({e}): bring verify.py and grading/, or let make_grader in "
            "sdzero.py return a grader of your own"
        ) from e
    if cfg.reward:
        return verify.OwnGrader(*file_and_function(cfg.reward), error=UserError)
    if cfg.task.startswith("gym:"):
        return verify.OwnGrader(*verify.GYM_REWARD, error=UserError)
    if cfg.task == "code":
        print(f"sandbox: {verify.sandbox_level()[1]}", flush=True)
    try:
        task = cfg.task if cfg.task in ("code", "countdown") else "math"
        return verify.Grader(task, unsafe=cfg.unsafe_exec)
    except RuntimeError as e:
        raise UserError(str(e)) from None


def file_and_function(reward: str) -> tuple[str, str]:
    """--reward FILE.py:function in its two parts. Raises UserError where there is no such file."""
    file, _, name = reward.rpartition(":")
    if not file or not name.isidentifier():
        raise UserError(f"--reward {reward}: give FILE.py:function, as in mine.py:reward")
    if not Path(file).is_file():
        raise UserError(f"--reward {reward}: there is no file {file}")
    return file, name


def references(grader, samples: list[dict]) -> list:
    """What a grader compares responses with: the answers, or the questions' whole dicts."""
    questions = [sample["question"] for sample in samples]
    if getattr(grader, "wants_rows", False):
        return questions
    return [question["answer"] for question in questions]


def checked(rewards: list, samples: list[dict]) -> list[float]:
    """The rewards of a grader, which may be one of your own. Raises UserError where they are not a
    0 or a 1 for each sample: half a reward would count as right, a lacking one as wrong."""
    rewards = list(rewards)
    if len(rewards) != len(samples):
        raise UserError(f"the grader gave {len(rewards)} rewards for {len(samples)} responses")
    for reward, sample in zip(rewards, samples):
        if reward not in (0, 1):
            raise UserError(f"the grader gave {reward!r}, not 0 or 1, for {sample['text'][:60]!r}")
    return [float(reward) for reward in rewards]


def fingerprint(cfg) -> dict[str, str]:
    """{what: a hash} of the file of --reward, a part of what a run is (sdzero.content_of)."""
    if not cfg.reward:
        return {}
    text = Path(file_and_function(cfg.reward)[0]).read_text(encoding="utf-8", errors="replace")
    return {"the file of --reward": digest(text)}
