"""--reward FILE.py:function: what it is given, what it may give, and what is said when it fails."""

import time

import pytest
from toys import message_of, small, train, write_lines

import baselines
import kit
import sdzero
import verify
from kit.errors import UserError
from kit.questions import load_questions

SOURCE = """
import time
import neighbour

def long_enough(response, row):
    return len(response) >= row["least"]

def always(response, row): return neighbour.ONE
def half(response, row): return 0.5
def text(response, row): return "1"
def nothing(response, row): pass
def truth(response, row): return True
def raises(response, row):
    return int(row["missing"])
def leaves(response, row): raise SystemExit(3)
def prints(response, row):
    print('{"right": true, "why": ""}')
    return 0
def hangs(response, row):
    while row.get("hang"): pass
    return 1
def hoards(response, row): return len(bytearray(1 << 40)) * 0
CONSTANT = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "neighbour.py").write_text("ONE = 1\n")
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


def graded(file, name, responses=("abc",), rows=None):
    rows = rows or [{"prompt": "the question", "answer": "x", "least": 2}] * len(responses)
    with verify.OwnGrader(file, name, workers=1) as grader:
        return grader.grade(list(responses), rows), grader.timeouts


def test_it_sees_the_response_and_the_row(file):
    rows = [{"least": n} for n in (1, 3, 4)]
    assert graded(file, "long_enough", ["abc"] * 3, rows) == ([1.0, 1.0, 0.0], 0)
    assert graded(file, "always")[0] == [1.0]  # a neighbour of the file is imported
    assert graded(file, "truth")[0] == [1.0]
    assert graded(file, "prints")[0] == [0.0]  # what it prints is no verdict


@pytest.mark.parametrize(
    "name, words",
    [
        ("half", "returned 0.5"),
        ("text", "returned '1'"),
        ("nothing", "returned None"),
        ("raises", "KeyError: 'missing' (line 14)"),
        ("leaves", "SystemExit: 3"),
        ("hoards", "MemoryError"),
    ],
)
def test_what_is_no_reward_stops_with_the_row(file, name, words):
    with pytest.raises(ValueError, match="the question") as caught:
        graded(file, name)
    message = str(caught.value)
    assert words in message and name in message and "abc" in message and "\n" not in message


def test_what_takes_too_long_is_counted(file, monkeypatch):
    monkeypatch.setattr("grading.own.MATH_SECONDS", 0.5)
    rows = [{"hang": True}, {"hang": False}]
    began = time.monotonic()
    assert graded(file, "hangs", ["a", "b"], rows) == ([0.0, 1.0], 1)
    assert time.monotonic() - began < 20


def test_a_function_that_cannot_be_loaded(file, tmp_path):
    with pytest.raises(ValueError, match="no function 'no_such'.*long_enough"):
        graded(file, "no_such")
    with pytest.raises(ValueError, match="no function 'CONSTANT'"):
        graded(file, "CONSTANT")
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module\n")
    with pytest.raises(ValueError, match=r"ModuleNotFoundError.*\(line 1\)"):
        graded(str(broken), "f")
    broken.write_text("def f(:\n")
    with pytest.raises(ValueError, match="SyntaxError"):
        graded(str(broken), "f")
    for reward in ("mine.py", f"{tmp_path}/none.py:f", f"{file}:", f"{file}:not a name"):
        with pytest.raises(UserError, match="--reward"):
            kit.rewards.verifier(sdzero.Config(reward=reward))


def test_a_run_is_graded_by_it_and_knows_its_file(file, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(kit.figures, "figure", lambda folder, results: None)
    reward, out = f"{file}:always", str(tmp_path / "run")
    cfg = small(checkpoint, out=out, reward=reward, srt_epochs=1)
    result = train(cfg)["base"]
    assert result["accuracy"] == 1 - result["truncated"]
    with open(file, "a") as f:
        f.write("# another reward\n")
    with pytest.raises(UserError, match="the file of --reward"):
        train(cfg)


def test_rows_keep_their_columns_and_need_no_answer(file, tmp_path):
    rows = [{"question": f"Say {i}.", "least": i} for i in range(12)]
    data = write_lines(tmp_path / "rows.jsonl", rows)
    cfg = small(data=data, task="math", reward=f"{file}:long_enough", eval_questions=2)
    questions = [q for of_set in load_questions(cfg).values() for q in of_set]
    assert all(q["prompt"] == f"Say {q['least']}." and q["answer"] == "" for q in questions)
    told = small(data=data, task="math", reward=cfg.reward, instruction=" Now.")
    assert load_questions(told)["test"][0]["prompt"].endswith(". Now.")


def test_rows_with_half_a_character_are_left_out_and_solutions_are_kept(file, tmp_path, capsys):
    rows = [{"question": "a \ud800 b"}, {"question": "Say 1.", "note": "\udfff"}]
    rows += [{"question": f"Say {i}.", "solution": f"So: {i}!"} for i in range(20)]
    data = write_lines(tmp_path / "rows.jsonl", rows)
    cfg = small(data=data, task="math", reward=f"{file}:long_enough", eval_questions=2)
    questions = [q for of_set in load_questions(cfg).values() for q in of_set]
    assert all(q["demonstration"].startswith("So: ") for q in questions)
    assert "2 of 22 rows left out" in capsys.readouterr().out
    prompt = baselines.sdft_prompt(questions[0])
    assert questions[0]["demonstration"] in prompt[-1]["content"]


@pytest.mark.parametrize("answer, shown", [(7, "answer is 7."), ({"kind": "x"}, "its tests")])
def test_what_sdfts_teacher_is_shown_of_an_own_row(answer, shown):
    question = {"prompt": "Say 7.", "answer": answer, "demonstration": ["no text"]}
    assert shown in baselines.sdft_prompt(question)[-1]["content"]
    with pytest.raises(UserError, match="neither a demonstration nor an answer of 'Say 7.'"):
        baselines.sdft_prompt({"prompt": "Say 7.", "answer": ""})


def test_the_command_line_says_what_is_wrong(file, tmp_path, capsys):
    out = ["--out", tmp_path / "run", "--digits", "2"]
    assert "no function" in message_of(capsys, sdzero.main, "--reward", f"{file}:nope", *out)
    assert "no file" in message_of(capsys, sdzero.main, "--reward", "nowhere.py:f", *out)
