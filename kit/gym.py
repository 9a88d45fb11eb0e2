"""--task gym:NAME: the data sets of reasoning-gym, which make a question from a seed and a place.

Its own scorers are the rewards (grading/gym.py). The package is optional, and imported here alone.
The four sets take seeds from ranges that cannot meet, and a question that stands in one of them is
left out of the next: small data sets repeat themselves.
"""

import ast
import dataclasses
import difflib
import json

from kit.errors import UserError

INSTRUCTION = (
    "\nPlease reason step by step, and put your final answer within <answer> and </answer>."
)
RANGE = 2**22  # seeds of a set: an entry's is its data set's plus its place
RANGES = 1000  # of them, below 2**32, which is where numpy's seeds end
SETS = ("test", "val", "srt", "distil", "shots")
SEEDS = RANGES // len(SETS)  # seeds of runs; higher ones are refused
TRIES = 20  # entries made, at most, for each question wanted


def package():
    """reasoning_gym. Raises UserError where it is missing, or something that it needs."""
    try:
        import reasoning_gym
    except ImportError as e:
        raise UserError(
            f"--task gym:NAME needs reasoning-gym ({e}): pip install reasoning-gym"
        ) from None
    return reasoning_gym


def check_name(name: str, known) -> None:
    """Raise UserError for a name that reasoning-gym lacks, with near ones."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 3, 0.5) or [n for n in known if name in n][:3]
    hint = f"; near it: {', '.join(near)}" if near else ""
    raise UserError(f"--task gym:{name}: reasoning-gym has no such data set of {len(known)}{hint}")


def options_in(text: str) -> dict:
    """ "key=value,key=[1,2]" -> {key: value}; a bare word is text. Raises UserError."""
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not key=value")
        return {keyword.arg: value_of(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError, TypeError):
        raise UserError(
            f"--gym-options {text!r}: give key=value,key=value, as in min_terms=2,max_terms=4"
        ) from None


def value_of(node):
    """A literal, or a bare word as text. Raises ValueError."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def made(name: str, options: dict, seed: int, size: int):
    """A data set. Raises UserError for an unknown name or option, and for a value it refuses."""
    gym = package()
    check_name(name, gym.factory.DATASETS)
    fields = [f.name for f in dataclasses.fields(gym.factory.DATASETS[name][1])]
    known = [field for field in fields if field not in ("seed", "size")]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"--gym-options {key}: {hint}gym:{name} has {', '.join(known)}")
    try:
        return gym.create_dataset(name, seed=seed, size=size, **options)
    except Exception as e:  # its validation asserts, raises ValueError, TypeError ...
        words = " ".join(str(e).split()) or type(e).__name__
        raise UserError(f"--gym-options: gym:{name} refuses {options}: {words}") from None


def gym_questions(cfg, sizes: dict[str, int]) -> list[dict]:
    """Different questions for the sets of these sizes, one set behind the other. Raises UserError
    where the data set has too few."""
    name, options = cfg.task.removeprefix("gym:"), options_in(cfg.gym_options)
    if cfg.seed >= SEEDS:
        raise UserError(f"--task gym:NAME has other questions for --seed 0 to {SEEDS - 1} alone")
    questions, seen = [], set()
    for of_set, n in sizes.items():  # a set's seeds are the same, whichever others there are
        seed = (cfg.seed * len(SETS) + SETS.index(of_set)) * RANGE
        found = questions_from(name, options, seed, n, seen)
        if len(found) < n:
            raise UserError(
                f"gym:{name} has only {len(found)} more different questions for the {n} of the "
                f"set {of_set}: ask for fewer (--scale, --eval-questions), or make them harder "
                "(--gym-options)"
            )
        questions += found
    return questions


def questions_from(name: str, options: dict, seed: int, n: int, seen: set) -> list[dict]:
    """Up to n questions that are not in `seen`, which they are added to."""
    if not n:
        return []
    size = min(TRIES * n, RANGE)
    entries, found = made(name, options, seed, size), []
    for place in range(size):
        entry = entries[place]
        if entry["question"] not in seen:
            seen.add(entry["question"])
            where = {"name": name, "options": options, "seed": seed, "size": size, "place": place}
            found.append(question_of(entry, where))
        if len(found) == n:
            break
    return found


def question_of(entry: dict, where: dict) -> dict:
    """An entry as a question. "gym" says how a worker makes it again."""
    answer = entry["answer"]
    answer = answer if isinstance(answer, str) else json.dumps(answer, default=str)
    return {"prompt": entry["question"] + INSTRUCTION, "answer": answer, "gym": where}
