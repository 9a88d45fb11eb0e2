"""Countdown (the paper's App. G): reach a target from given numbers, each used once.

Questions are generated, and every one has an answer: numbers are drawn and joined two at a time by
random operations, and what comes out is the target. How the paper makes its own is not stated. The
verifier is grading/countdown.py. With other sizes, for --data FILE:

    python -m kit.countdown --numbers 3 --largest 20 --questions 2000 > countdown.jsonl
"""

import argparse
import json
import random

from kit.errors import UserError, exit_code

INSTRUCTION = (
    "Join the numbers {numbers} by +, -, * and /, using each exactly once and parentheses where "
    "needed, so that the result is {target}. Please reason step by step, and put the expression "
    "within \\boxed{{}}."
)
NUMBERS, LARGEST, TARGET = 4, 25, 100  # how many, the largest of them, and the largest target


def countdown_questions(n: int, numbers=NUMBERS, largest=LARGEST, seed=0) -> list[dict]:
    """n different questions with so many numbers from 1 to `largest`. Raises UserError where there
    are not that many."""
    rng, found, tries = random.Random(f"countdown-{seed}"), {}, 0
    while len(found) < n:
        drawn = sorted(rng.randint(1, largest) for _ in range(numbers))
        value, expression = joined(rng, [(x, str(x)) for x in drawn])
        if 1 <= value <= TARGET:
            found.setdefault((*drawn, value), expression)
        tries += 1
        if tries > 1000 + 200 * n:
            raise UserError(f"{numbers} numbers up to {largest} have too few tasks for {n}")
    return [asked(list(key[:-1]), key[-1], expression) for key, expression in found.items()]


def joined(rng, parts: list[tuple[int, str]]) -> tuple[int, str]:
    """(value, expression) of all parts, joined two at a time; no fraction on the way."""
    while len(parts) > 1:
        rng.shuffle(parts)
        (a, left), (b, right), *parts = parts
        choices = [(a + b, "+"), (a - b, "-"), (a * b, "*")]
        if b and a % b == 0:
            choices.append((a // b, "/"))
        value, sign = rng.choice(choices)
        # the outermost parentheses go below
        parts.append((value, f"({left}{sign}{right})"))
    value, expression = parts[0]
    return value, expression[1:-1] if expression.startswith("(") else expression


def asked(numbers: list[int], target: int, expression: str = "") -> dict:
    """A question, with its solution where one is known."""
    names = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    question = {
        "prompt": INSTRUCTION.format(numbers=names, target=target),
        "answer": {"numbers": numbers, "target": target},
    }
    worked = {"demonstration": f"\\boxed{{{expression}}}"} if expression else {}
    return question | worked


def question_of(row: dict) -> dict:
    """The question of a row with numbers (or nums) and target. Raises ValueError."""
    numbers, target = row.get("numbers") or row.get("nums"), row.get("target")
    whole = isinstance(numbers, list) and len(numbers) > 1
    for value in [*numbers, target] if whole else [None]:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**9:
            raise ValueError("no list of two or more whole numbers, and a whole target")
    return asked(numbers, target, str(row.get("expression") or ""))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, default=NUMBERS, help="how many (default 4)")
    parser.add_argument("--largest", type=int, default=LARGEST, help="the largest (default 25)")
    parser.add_argument("--questions", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)

    def work():
        if options.numbers < 2 or options.largest < 1 or options.questions < 1:
            raise UserError("two numbers are the least, from 1 on, and one question")
        sizes = (options.questions, options.numbers, options.largest, options.seed)
        for q in countdown_questions(*sizes):
            expression = q["demonstration"].removeprefix("\\boxed{").removesuffix("}")
            print(json.dumps({**q["answer"], "expression": expression}))

    return exit_code("kit.countdown", work)


if __name__ == "__main__":
    raise SystemExit(main())
