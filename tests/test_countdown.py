"""Countdown: its questions have answers, and its verifier believes no expression that cheats."""

import json
from fractions import Fraction
from itertools import product

import pytest
from toys import lines_of, message_of, write_lines

import kit
import sdzero
import verify
from grading.countdown import judge_countdown
from kit.countdown import countdown_questions
from kit.errors import UserError
from kit.questions import file_questions, load_questions

TASK = {"numbers": [3, 5, 7, 25], "target": 50}


def reward(text: str, task=TASK) -> float:
    with verify.Grader("countdown") as grader:
        return grader.grade([text], [task])[0]


# --------------------------------------------------------------------------------------------------
# The verifier
# --------------------------------------------------------------------------------------------------
def test_right_expressions():
    numbers, target = [3, 5, 7, 25], 54
    for text in (
        "25+5*7-3-3",
        "25 + 5 * 7 - 3 - 3",
    ):
        assert not judge_countdown(text, numbers, target)[0]  # 3 is used twice
    for text in (
        "25+5*7-3",
        "(25 + (5 * 7)) - 3",
        "5*7+25-3 = 57",
        "25+5\\times 7-3",
        "25+5\\cdot7-3",
        "25 + 5\u00d77 \u2212 3",
        "\\left(25+5*7\\right)-3",
        "$25+5*7-3$",
        "[25+5*7]-3",
    ):
        assert judge_countdown(text, numbers, 57) == (True, "it gives 57"), text
        assert reward(f"So \\boxed{{{text}}}.", {"numbers": numbers, "target": 57}) == 1.0, text
    # fractions on the way are exact
    assert judge_countdown("8/(3-8/3)", [3, 3, 8, 8], 24)[0]
    assert judge_countdown("(1/3)*3*7*1", [1, 1, 3, 3, 7], 7)[0]
    assert not judge_countdown("1/3+1/3+1/3", [1, 3, 1, 3, 1, 3], 0)[0]
    assert judge_countdown("8\u00f72", [2, 8], 4)[0] and judge_countdown("8\\div2", [8, 2], 4)[0]


@pytest.mark.parametrize(
    "text",
    [
        "57",  # the target itself
        "25+5*7-3+0",
        "25+5*7",  # not all of them
        "25+5*7-3*1",
        "25+5*7-3 = 58",
        "57 = 25+5*7-3 = 57",
        "25+57-3*",
        "2 5+5*7-3",  # concatenation
        "25+5 7-3",
        "(25)(5)7-3",
        "25+5*7--3",
        "-3+25+5*7",
        "+25+5*7-3",
        "25+5**7-3",
        "25+5^7-3",
        "25+5*7-3.0",
        "25+5e0*7-3",
        "25+5//7-3",
        "25+5%7-3",
        "25+5*7-3!",
        "25_0+5*7-3",
        "\u0662\u0665+5*7-3",  # digits of another script
        "25/(5-5)*7-3",
        "(25+5*7-3",
        "25+5*7-3)",
        "()",
        "",
        "=57",
        "__import__('os').system('true')",
        "[x for x in (57,)][0]",
        "lambda: 57",
        "57 if 25+5*7-3 else 0",
        "25+5*7-3;57",
        "25+5*7-3#",
        "x",
        "\\frac{25}{5}",
        "9**9**9**9",
        "9" * 300,
        "(" * 150 + "25+5*7-3" + ")" * 150,
        "25+5*7-3+" * 60,
        "*".join(["25"] * 130),
        "25+5*7-3\x00",
        "25+5*7\n-3\nimport os",
    ],
)
def test_what_cheats_or_is_none_is_wrong(text):
    right, why = judge_countdown(text, [3, 5, 7, 25], 57)
    assert not right and why
    assert reward(f"\\boxed{{{text}}}", {"numbers": [3, 5, 7, 25], "target": 57}) == 0.0


def test_division_by_zero_and_repeated_numbers():
    assert judge_countdown("1/(2-2)", [1, 2, 2], 0) == (False, "it divides by zero")
    assert judge_countdown("2+2", [2, 2], 4)[0] and not judge_countdown("2+2", [2, 3], 4)[0]
    assert not judge_countdown("2*2", [2, 2, 2], 4)[0]


def test_it_agrees_with_a_search_of_all_expressions():
    """(a o b) o c and a o (b o c) of all orders: what Python calculates with fractions."""
    numbers, checked = [2, 3, 4], 0
    for a, b, c in product(numbers, repeat=3):
        for x, y in product("+-*/", repeat=2):
            for text in (f"({a}{x}{b}){y}{c}", f"{a}{x}({b}{y}{c})", f"{a}{x}{b}{y}{c}"):
                of_fractions = text
                for n in set(numbers):
                    of_fractions = of_fractions.replace(str(n), f"Fraction({n})")
                try:
                    value = eval(of_fractions, {"Fraction": Fraction})  # a text of this test
                except ZeroDivisionError:
                    value = None
                wanted = value == 6 and sorted((a, b, c)) == numbers
                assert judge_countdown(text, numbers, 6)[0] == wanted, text
                checked += wanted
    assert checked >= 6


def test_responses_without_an_answer_and_bad_rows():
    assert reward("25+5*7-3") == 0.0 == reward("") == reward(None)
    with verify.Grader("countdown") as grader:
        pairs = grader.explain(["\\boxed{1}"] * 4, [None, {}, {"numbers": "1"}, "57"])
    assert all(pair == (0.0, "bad row: no numbers") for pair in pairs)


# --------------------------------------------------------------------------------------------------
# The task
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("numbers, largest", [(2, 9), (3, 20), (4, 25), (6, 50)])
def test_questions_are_solvable_and_different(numbers, largest):
    questions = countdown_questions(60, numbers, largest, seed=1)
    with verify.Grader("countdown") as grader:
        solved = [q["demonstration"] for q in questions]
        assert grader.grade(solved, [q["answer"] for q in questions]) == [1.0] * 60
    assert len({q["prompt"] for q in questions}) == 60
    for q in questions:
        given = q["answer"]["numbers"]
        assert len(given) == numbers and 1 <= min(given) <= max(given) <= largest
        assert all(str(n) in q["prompt"] for n in [*given, q["answer"]["target"]])
    assert questions == countdown_questions(60, numbers, largest, seed=1)
    assert questions != countdown_questions(60, numbers, largest, seed=2)
    with pytest.raises(UserError, match="too few"):
        countdown_questions(100, 2, 2)


def test_four_sets_and_the_grader_of_the_task():
    cfg = sdzero.make_config(task="countdown", srt_questions=5, distil_questions=5)
    sets = load_questions(cfg)
    assert [len(part) for part in sets.values()] == [150, 150, 5, 5]
    with sdzero.make_grader(cfg) as grader:
        assert grader.task == "countdown"
        asked = sets["srt"]
        right = grader.grade([q["demonstration"] for q in asked], [q["answer"] for q in asked])
        assert right == [1.0] * 5


def test_files_of_tasks_and_the_command_that_writes_them(tmp_path, capsys):
    assert kit.countdown.main(["--numbers", "3", "--largest", "9", "--questions", "7"]) == 0
    file = tmp_path / "c.jsonl"
    file.write_text(capsys.readouterr().out)
    questions = file_questions(str(file), "countdown")
    assert len(questions) == 7 and all(q["demonstration"] for q in questions)
    assert [q["answer"]["numbers"] for q in questions] == [r["numbers"] for r in lines_of(file)]
    rows = [{"nums": [1, 2], "target": 3}, {"nums": [1], "target": 3}, {"nums": "1,2", "target": 3}]
    rows += [{"nums": [1, 2]}, {"nums": [1, True], "target": 1}]
    got = file_questions(write_lines(tmp_path / "t.jsonl", rows), "countdown")
    assert [q["answer"] for q in got] == [{"numbers": [1, 2], "target": 3}]
    assert "4 of 5 rows left out" in capsys.readouterr().out
    assert "too few" in message_of(capsys, kit.countdown.main, "--numbers", "2", "--largest", "2")


def test_a_small_run_trains_on_it(checkpoint, tmp_path):
    out = tmp_path / "run"
    words = [
        "--task",
        "countdown",
        "--model",
        checkpoint,
        "--out",
        str(out),
        "--srt-questions",
        "4",
    ]
    words += ["--distil-questions", "4", "--eval-questions", "3", "--eval-samples", "1"]
    assert sdzero.main([*words, "--max-tokens", "8", "--no-filtered"]) == 0
    assert json.loads((out / "results.json").read_text())["sdzero"]["n"] == 3
