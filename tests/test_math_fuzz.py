"""What is put around right answers, at random: harm is never paid, mere dress always."""

import random

import pytest

RIGHT = [
    ("5", "5"),
    ("12", "12"),
    ("-3", "-3"),
    (r"\frac12", r"\frac{1}{2}"),
    ("0.25", "0.25"),
    (r"2\sqrt3", r"2\sqrt{3}"),
    (r"\frac{\pi}{3}", r"\frac{\pi}{3}"),
    ("1000", "1{,}000"),
    ("1, 2", "1, 2"),
    ("(1,2)", "(1,2)"),
    ("[0,1]", "[0,1]"),
]
# Words that scale, negate, retract or hedge: none of them is a unit or the beginning of a name.
WORDS = (
    "not no never maybe perhaps wrong incorrect invalid false rejected about approximately nearly "
    "roughly almost negative minus plus times half double twice triple thousand thousands "
    "thousandths hundred hundredths tenths million billion dozen halves thirds quarters squared "
    "cubed factorial inverse reciprocal opposite modulo mod or xor unless except otherwise oops "
    "nope wait retracted estimated imaginary undefined K M B k bn lakh crore gross minimum maximum "
    "less more fewer least most unknown impossible doubled halved square root power log ln tenfold "
    "negated removed crossed denied doubtful unsure guess approx circa hardly mistaken error null"
).split()
BEFORE = (
    r"\neq @\not= @x\neq @x\not=@\neg @\lnot @9@\sqrt x=@\sqrt{x}=@|x|=@\sin x=@\ln x=@2x=@x^2="
    r"@-x=@x/y=@>@<@\geq @\leq @\sim @x>@x<@x\geq @6, @6\text{ or }@6 or @1-@3+@7/@9\div @99 = "
    r"@99\to @\pm @99;@99:@e^@\log @\ngtr @\nless @x\notin @y+1=@\frac{x}{2}=@\max(x,y)=@\det A="
    r"@9_@i@xy=@\cancel "
).split("@")
BEHIND = (
    r"!@?@+1@-1@+@/7@/@\pm1@...@\to 99@=99@\neq 99@\approx 99@\pmod 7@\cdot 2@\times 3@x@y@t@d@i"
    r"@\pi@ or 99@, 99@; 99@\text{ or }99@ 99@\ 99@-99@:99@\cup 99@e5@\sqrt2@(B) 4@ (or 99)@\mod 3"
    r"@<@>@<99@\leq 99@%7@_2@'@= 99 = x@\frac{9}{8}@9@k@K@M@\text{K}@\text{M}@^x@\text{ mod }7@万"
).split("@")
# What does not change an answer
DRESS = (
    "{}@${}$@\\({}\\)@ {} @{}.@\\displaystyle {}@\\mathbf{{{}}}@\\text{{The answer is }}{}"
    "@\u200b{}\ufeff@{}\\,@**{}**@{{{}}}@\\quad {}"
).split("@")
NUMBERS = (
    "{}\\text{{ apples}}@{}\\text{{ ways}}@x={}@f(2)={}@{}\\text{{ cm}}@\\text{{Area}}={}@(C) {}"
).split("@")


def harmed(answer, rng):
    """An answer with something around it that makes another answer of it, or none."""
    word = " ".join(rng.sample(WORDS, rng.choice([1, 1, 1, 2])))
    return rng.choice(
        [
            rng.choice(BEFORE) + answer,
            answer + rng.choice(BEHIND),
            rf"{answer}\text{{ {word}}}",
            f"{answer} {word}",
            rf"\text{{{word} }}{answer}",
            rf"\text{{{answer} {word}}}",
            rf"\text{{{word} }}x={answer}",
            rf"{answer}\text{{ ({word})}}",
            rf"{answer}\text{{ apples {word}}}",
        ]
    )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_around_a_right_answer_is_paid_that_makes_it_another(math_grader, seed):
    rng = random.Random(seed)
    rows = [(gold, harmed(answer, rng)) for gold, answer in rng.choices(RIGHT, k=300)]
    # "negative 3" is -3: where the sign is said in a word, nothing was made another
    rows = [row for row in rows if row[0] != "-3" or row[1] not in ("negative 3", "minus 3")]
    rewards = math_grader.grade([rf"\boxed{{{text}}}" for _, text in rows], [g for g, _ in rows])
    assert [row for row, reward in zip(rows, rewards, strict=True) if reward] == []


def test_what_is_harmless_stays_paid(math_grader):
    rows = [(gold, form.format(answer)) for gold, answer in RIGHT for form in DRESS]
    rows += [(gold, form.format(answer)) for gold, answer in RIGHT[:6] for form in NUMBERS]
    rewards = math_grader.grade([rf"\boxed{{{text}}}" for _, text in rows], [g for g, _ in rows])
    assert [row for row, reward in zip(rows, rewards, strict=True) if not reward] == []
