"""Two files of questions that a model of 135M parameters half knows: problems/largest.jsonl.gz (of
three numbers) and problems/mood.jsonl.gz (is who found, or lost, something happy or sad).

    python studies/make_problems.py

SmolLM2-135M-Instruct hardly revises by itself. So each question stands behind the same four worked
examples, as earlier turns: two are revised from wrong to right, one is answered at once, one is
right and rephrased. The phrases are the defaults of --phrase-if-wrong and --phrase-if-right.
"""

import gzip
import json
import random
import sys
from pathlib import Path

if not __package__:  # run as a file: modules are looked for beside it, but they are one above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdzero import Config

PROBLEMS = Path(__file__).resolve().parents[1] / "problems"
QUESTIONS = 1500
ASK = " Answer with \\boxed{}."
NAMES = "Tom Anna Ben Mia Sam Lucy Max Emma Leo Nina Paul Rosa Jack Lily Adam Kate".split()
THINGS = "ball book bike doll watch ring phone coat hat toy kite cup lamp bag shoe coin".split()
KINDS = "new old red blue green little big nice".split()
VERBS = {
    "happy": ["found", "won", "got", "loves", "was given", "is proud of"],
    "sad": ["lost", "broke", "misses", "dropped", "cannot find", "cries about"],
}
# question, first answer, its revision or ""
LARGEST_SHOWN = (
    ("Which is the largest of 53, 44 and 89?", "44", "89"),
    ("Which is the largest of 51, 66 and 29?", "66", ""),
    ("Which is the largest of 59, 43 and 52?", "43", "59"),
    ("Which is the largest of 17, 53 and 57?", "57", "57"),
)
MOOD_SHOWN = (
    ("Ida found the yellow box. Is Ida happy or sad?", "sad", "happy"),
    ("Otto got the yellow pen. Is Otto happy or sad?", "happy", ""),
    ("Ida lost the yellow pen. Is Ida happy or sad?", "happy", "sad"),
    ("Otto broke the yellow box. Is Otto happy or sad?", "sad", "sad"),
)


def largest(rng) -> tuple[str, str]:
    """Three numbers of two digits."""
    x, y, z = rng.sample(range(10, 100), 3)
    return f"Which is the largest of {x}, {y} and {z}?", str(max(x, y, z))


def mood(rng) -> tuple[str, str]:
    """What somebody did, or what happened to them: the verb tells."""
    answer, name = rng.choice(list(VERBS)), rng.choice(NAMES)
    what = f"{rng.choice(VERBS[answer])} the {rng.choice(KINDS)} {rng.choice(THINGS)}"
    return f"{name} {what}. Is {name} happy or sad?", answer


def turns(shown) -> list[dict]:
    """Worked examples as earlier turns of the chat."""
    said = []
    for question, first, revised in shown:
        phrase = Config.phrase_if_right if revised == first else Config.phrase_if_wrong
        more = f"\n\n{phrase}\n\n\\boxed{{{revised}}}" if revised else ""
        said.append({"role": "user", "content": question + ASK})
        said.append({"role": "assistant", "content": f"\\boxed{{{first}}}{more}"})
    return said


def rows(make, shown) -> list[dict]:
    """QUESTIONS different questions, none of them an example."""
    rng, found, examples = random.Random(make.__name__), {}, turns(shown)
    while len(found) < QUESTIONS:
        question, answer = make(rng)
        if (last := {"role": "user", "content": question + ASK}) not in examples:
            found[question] = {"prompt": [*examples, last], "answer": answer}
    return list(found.values())


def main() -> int:
    for make, shown in ((largest, LARGEST_SHOWN), (mood, MOOD_SHOWN)):
        text = "".join(json.dumps(row) + "\n" for row in rows(make, shown))
        file = PROBLEMS / f"{make.__name__}.jsonl.gz"
        file.write_bytes(gzip.compress(text.encode(), mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
