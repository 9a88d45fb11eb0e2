"""What is an answer, and which answers are the same."""

import random
import time

import pytest
from corpora import rows, wrong_rows

import verify


@pytest.mark.parametrize(
    "response, answer",
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed 7", "7"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("work\n#### 42", "42"),
        ("#### 41\n#### 42\n", "42"),
        ("#### 41\n" + r"\boxed{42}", "42"),
        ("The answer is 42.", "42"),
        ("The final answer is: $3.14$. Good.", "$3.14$"),
        ("**Final Answer**: $42$", "$42$"),
        ("**Final Answer**\n\n42", "42"),
        ("### Answer\n\\[\n42\n\\]", "42"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("#### Step 1\nThe answer would be 42.", "42"),
        ("#### **1,080**", "1,080"),
        ("Answer: It is not 34.", "It is not 34"),
        ("**Final Answer**\n\n", None),
        ("Answer: 7", "7"),
        ("the answer is 42 because 6 * 7 = 42", "42"),
        (r"\boxed{42", None),
        (r"\boxed{41} no, \boxed{4", None),
        ("42", None),
        ("So x = 42", None),
        ("The answer is", None),
        ("", None),
        (None, None),
        (42, None),
        (b"\\boxed{1}", None),
    ],
)
def test_final_answer(response, answer):
    assert verify.final_answer(response) == answer


def test_math_corpus(math_grader):
    assert wrong_rows(math_grader, rows("math.jsonl"), "gold") == []


def test_hostile_answers(math_grader):
    items = rows("math_hostile.jsonl")
    assert len(items) > 400 and not any(row["reward"] for row in items)
    assert wrong_rows(math_grader, items, "gold") == []


def test_answers_that_hang_or_eat_memory(math_grader):
    million = 10**6
    hostile = [
        r"\boxed{\dfrac{5^{(5^{(5^{(5^5)})} - 4)} - 5}{16}}",
        r"\boxed{" + "7" * million + "}",
        r"\boxed{" + "{" * 5000 + "5" + "}" * 5000 + "}",
        r"\boxed{" * 100_000,
        r"\boxed{5" + "{" * million,
        r"\boxed{((9!)!)!}",
        r"\boxed{" + "+".join(["x"] * 400) + "}",
        r"\boxed{" + r"\frac{1}{" * 200 + "5" + "}" * 201,
        r"\boxed{3^{99999999999}}",
        r"\boxed{(x+1)^{500}(x+2)^{500}}",
        "the answer is " * 100_000,
        r"\boxed{" + "1," * 480 + "}",
        "\0" * million,
        "answer" + " " * million,
        "answer" + "*" * million,
        "answer \\[" * 100_000,
        r"\boxed{(9^{99999})^{99999}}",
        r"\boxed{\binom{1000000000}{500000000}}",
        r"\boxed{\{" + ",".join(f"x_{{{n}}}" for n in range(100)) + r"\}}",
    ]
    started = time.monotonic()
    assert math_grader.grade(hostile, ["5"] * len(hostile)) == [0.0] * len(hostile)
    assert math_grader.grade(hostile[:1], [r"\dfrac{5^{3121} - 5}{16}"]) == [0.0]
    assert time.monotonic() - started < 2 * verify.MATH_SECONDS + 30
    assert math_grader.grade([r"\boxed{\frac{1}{2}}"], ["0.5"]) == [1.0]  # and it still works


def test_odd_arguments_are_a_zero_and_no_exception():
    for response, gold in [
        (None, "5"),
        (5, "5"),
        (r"\boxed{5}", None),
        (r"\boxed{5}", ["5"]),
        (r"\boxed{5}", ""),
        (b"5", b"5"),
        (r"\boxed{1}", True),
        (r"\boxed{\ud800}", "5"),
        ("\ud800", "\ud800"),
        ([], {}),
    ]:
        assert verify.math_reward(response, gold) == 0.0
    assert verify.math_reward(r"\boxed{5}", 5) == 1.0
    assert verify.math_reward(r"\boxed{0.5}", 0.5) == 1.0


def rewards_of(grader, pairs):
    """The rewards of pairs (answer, gold)."""
    return grader.grade([rf"\boxed{{{a}}}" for a, _ in pairs], [str(b) for _, b in pairs])


def test_random_integers_are_equal_to_themselves_only(math_grader):
    rng = random.Random(0)
    pairs = []
    for _ in range(300):
        a = rng.choice([rng.randrange(-99, 99), rng.randrange(10**40)])
        pairs += [(a, a), (a, a + rng.choice([-1, 1, 10, -a - a or 1]))]
    assert rewards_of(math_grader, pairs) == [float(a == b) for a, b in pairs]


def test_random_integers_in_other_spellings(math_grader):
    rng = random.Random(0)
    spelled = [
        lambda n: f"{n:,}",
        lambda n: f"{n:,}".replace(",", r"\,"),
        lambda n: f"{n:,}".replace(",", "{,}"),
        lambda n: f"${n}$",
        lambda n: f"{n}.0",
        lambda n: f"x = {n}",
        lambda n: rf"{n}\text{{ cm}}",
    ]
    pairs = []
    for spell in spelled:
        for _ in range(10):
            n = rng.randrange(10 ** rng.randrange(1, 12))
            pairs += [(spell(n), n), (spell(n), n + 1)]
    assert rewards_of(math_grader, pairs) == [1.0, 0.0] * (len(pairs) // 2)


def test_random_fractions(math_grader):
    rng = random.Random(1)
    responses, golds, wanted = [], [], []
    for _ in range(150):
        p, q, k = rng.randrange(-50, 50) or 7, rng.randrange(2, 50), rng.randrange(1, 9)
        form = rng.choice([r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d", r"$\tfrac{%d}{%d}$"])
        for off in (0, 1):
            responses.append(r"\boxed{%s}" % (form % (k * p + off, k * q)))
            golds.append(rf"\frac{{{p}}}{{{q}}}")
            wanted.append(float(off == 0))
    assert math_grader.grade(responses, golds) == wanted


def test_random_text_is_a_reward_and_no_exception(math_grader):
    rng = random.Random(2)
    pieces = (
        r"\frac \sqrt { } { } ( ) [ ] \{ \} ^ _ 1 2 30 0.5 x y \pi \text{ } \boxed{ , ; = < \le "
        r"\cup \infty + - / \cdot % $ & \\ \begin{pmatrix} \end{pmatrix} : or and \pm ! é \ud800 ."
    ).split(" ")

    def some_latex():
        length = rng.randrange(1, 14)
        return "".join(rng.choice(pieces) + rng.choice(["", "", " "]) for _ in range(length))

    def some_characters():
        codes = [
            rng.choice([rng.randrange(32, 127), rng.randrange(0x3000)])
            for _ in range(rng.randrange(30))
        ]
        return "".join(map(chr, codes))

    texts = [some_latex() for _ in range(300)] + [some_characters() for _ in range(100)]
    golds = texts[1:] + texts[:1]
    responses = [r"\boxed{" + text + "}" for text in texts]
    first = math_grader.grade(responses, golds)
    assert set(first) <= {0.0, 1.0}
    assert math_grader.grade(responses[::-1], golds[::-1]) == first[::-1], (
        "the order of the batch must not matter"
    )
