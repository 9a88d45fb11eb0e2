"""Do training questions stand in a benchmark? Compared are words: letters and digits in small.

The instruction that this repository puts behind a question is no part of it. Runs of WORDS words in
a row are compared, as the makers of the training sets did; two contest problems may share one by
chance ("find the sum of all possible values of"), so how much of a question is shared counts too.
"""

import re

from kit import questions

WORDS = 8
INSTRUCTIONS = (
    questions.MATH_INSTRUCTION,
    questions.STDIN_INSTRUCTION,
    questions.CPP_INSTRUCTION,
    questions.FUNCTION_INSTRUCTION,
)


def words_of(question: dict, instruction: str = "") -> list[str]:
    """The words of a question, without its instruction, or the one that is given."""
    text = questions.question_in(question["prompt"])
    for one in (instruction, *INSTRUCTIONS):
        text = text.removesuffix(one)
    return re.findall(r"\w+", text.lower().replace("_", " "))


def runs_of(words: list[str]) -> set[int]:
    """Hashes of all runs of WORDS words."""
    starts = range(len(words) - WORDS + 1)
    return {hash(tuple(words[i : i + WORDS])) for i in starts}


def overlap(training: list[dict], benchmark: list[dict], instruction: str = "") -> dict:
    """Ids of the benchmark's questions that are the same as one trained on, word by word; that
    share half of their runs of words or more; and that share any."""
    texts, runs = set(), set()
    for question in training:
        words = words_of(question, instruction)
        texts.add(tuple(words))
        runs |= runs_of(words)
    found = {"same": [], "half": [], "any": []}
    for number, question in enumerate(benchmark, 1):
        name, words = question.get("id", str(number)), words_of(question, instruction)
        own = runs_of(words)
        shared = len(own & runs) / len(own) if own else 0.0
        if tuple(words) in texts:
            found["same"].append(name)
        if shared >= 0.5:
            found["half"].append(name)
        if shared:
            found["any"].append(name)
    return {"training": len(training), "questions": len(benchmark), **found}


def in_words(title: str, found: dict) -> str:
    """A line about what overlap() found."""
    parts = [
        f"{len(found['same'])} the same",
        f"{len(found['half'])} share half of their runs of {WORDS} words or more",
        f"{len(found['any'])} share any",
    ]
    names = list(dict.fromkeys(found["same"] + found["half"]))
    listed = f" ({', '.join(names[:5])}{', ...' * (len(names) > 5)})" if names else ""
    return f"{title}: of {found['questions']} questions {', '.join(parts)}{listed}"
