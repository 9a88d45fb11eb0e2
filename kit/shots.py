"""--shots: solved questions in front of every other one, as earlier turns of the chat."""

import kit
from kit.errors import UserError


def behind_examples(sets: dict, examples: list[dict]) -> dict:
    """The sets' questions behind these solved ones."""
    turns = [turn for q in examples for turn in [*without_system(q), answer_turn(q)]]
    if not turns:
        return sets
    return {name: [q | {"prompt": behind(turns, q)} for q in qs] for name, qs in sets.items()}


def behind(turns: list[dict], question: dict) -> list[dict]:
    """A question's turns behind earlier ones; its own system message comes first."""
    own = without_system(question)
    system = kit.questions.as_turns(question["prompt"])[: -len(own)]
    return [*system, *turns, *own]


def without_system(question: dict) -> list[dict]:
    """A question's turns, but for a system message at their beginning."""
    turns = kit.questions.as_turns(question["prompt"])
    return turns[turns[0]["role"] == "system" :]


def answer_turn(question: dict) -> dict:
    """What a worked example answers: its demonstration, or its answer in the task's form."""
    content, answer = demonstration_of(question), question["answer"]
    if not content and isinstance(answer, dict):
        raise UserError("--shots: a question that has tests needs a demonstration to be shown")
    if not content and kit.questions.is_blank(answer):
        asked = kit.questions.question_in(question["prompt"])[:60]
        raise UserError(f"--shots: there is neither answer nor demonstration of {asked!r}")
    form = "<answer>{}</answer>" if "gym" in question else "\\boxed{{{}}}"
    return {"role": "assistant", "content": content or form.format(answer)}


def demonstration_of(question: dict) -> str:
    """A question's worked solution, if it has one that is text; else empty."""
    worked = question.get("demonstration")
    return worked if isinstance(worked, str) and worked.strip() else ""


def refuse_examples(cfg) -> None:
    """Raise UserError for --shots where all questions are asked, so that none is left to show."""
    if cfg.shots:
        raise UserError(
            "--shots shows questions of a task that are in none of its four sets: not here"
        )
