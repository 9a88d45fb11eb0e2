"""The files of questions that studies/make_problems.py writes: they are its own, and right."""

import gzip
import json
import re

import pytest
from corpora import ROOT

import sdzero
from kit.questions import file_questions
from studies import make_problems
from verify import final_answer, math_reward

FELT = {
    **dict.fromkeys("found won got loves given proud".split(), "happy"),
    **dict.fromkeys("lost broke misses dropped cannot cries".split(), "sad"),
}


def largest_of(question: str) -> str:
    return str(max(int(number) for number in re.findall(r"\d+", question)))


def mood_of(question: str) -> str:
    (felt,) = {FELT[word] for word in re.findall(r"\w+", question) if word in FELT}
    return felt


CHECKS = {
    "largest": (largest_of, make_problems.largest, make_problems.LARGEST_SHOWN),
    "mood": (mood_of, make_problems.mood, make_problems.MOOD_SHOWN),
}


@pytest.fixture(params=CHECKS)
def problems(request):
    """(file, rows in it, answer(question), make, examples)"""
    file = ROOT / "problems" / f"{request.param}.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    return file, rows, *CHECKS[request.param]


def test_the_file_is_what_the_script_writes(problems):
    file, rows, _, make, shown = problems
    assert rows == make_problems.rows(make, shown)
    assert len(file_questions(str(file))) == make_problems.QUESTIONS


def test_answers_are_right_by_another_way_and_a_box_with_them_is_rewarded(problems):
    _, rows, answer, *_ = problems
    questions = [row["prompt"][-1]["content"] for row in rows]
    assert [answer(question) for question in questions] == [row["answer"] for row in rows]
    assert len(set(questions)) == len(rows)
    for wanted in {row["answer"] for row in rows[:3]}:
        assert math_reward(f"\\boxed{{{wanted}}}", wanted) == 1.0
        assert math_reward("\\boxed{none}", wanted) == 0.0


def test_examples_are_right_none_is_asked_and_they_are_told_the_runs_own_phrases(problems):
    _, rows, answer, *_ = problems
    *turns, _ = rows[0]["prompt"]
    assert all(row["prompt"][:-1] == turns for row in rows)
    assert not {t["content"] for t in turns} & {row["prompt"][-1]["content"] for row in rows}
    phrases = sdzero.control_phrases(sdzero.make_config(model="m", task="math"), "llama")
    for question, said in zip(turns[::2], turns[1::2]):
        wanted = answer(question["content"])
        first, *revised = said["content"].split("\n\n")
        assert final_answer(said["content"]) == wanted
        if revised:
            right = final_answer(first) == wanted
            assert revised[0] == (phrases.if_right if right else phrases.if_wrong)
