"""The paper's training sets, on rows of the form that their cards have: which are questions, in
which language they are asked, and which are held out."""

import json
from dataclasses import replace

import pytest
from toys import small, write_lines

import baselines
import kit
from kit import hub_data
from kit.errors import UserError
from kit.questions import CPP_INSTRUCTION, ids_of, load_questions
from sdzero import Config


def openr1_row(i: int, **changes) -> dict:
    """A row of open-r1/OpenR1-Math-220k; invented."""
    row = {
        "problem": f"Find {i}+{i}.",
        "solution": f"It is $\\boxed{{{2 * i}}}$.",
        "answer": str(2 * i),
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": "olympiads",
        "uuid": f"uuid-{i}",
        "is_reasoning_complete": [True, True],
        "generations": ["<think>\n</think> \\boxed{1}", "<think>\n</think> \\boxed{2}"],
        "correctness_math_verify": [False, True],
        "correctness_llama": None,
        "finish_reasons": None,
        "correctness_count": 1,
        "messages": [],
    }
    return row | changes


def codeforces_row(problem: str, **changes) -> dict:
    """A row of open-r1/codeforces-cots; invented."""
    row = {
        "id": problem,
        "aliases": None,
        "contest_id": problem.split("/")[0],
        "title": f"Sum {problem}",
        "time_limit": 2.0,
        "memory_limit": 256,
        "description": f"Add the numbers of {problem}.",
        "input_format": "Two numbers.",
        "output_format": "Their sum.",
        "interaction_format": None,
        "examples": [{"input": "1 2\n", "output": "3\n"}],
        "note": None,
        "editorial": None,
        "prompt": "Solve it in C++ please",
        "generation": "```cpp\nint main(){}\n```",
    }
    return row | changes


def test_openr1_questions_are_of_competitions_and_solved(capsys):
    rows = [
        openr1_row(1),
        openr1_row(2, source="cn_k12"),
        openr1_row(3, source="amc_aime", correctness_math_verify=[False, False]),
        openr1_row(4, question_type="proof", answer="proof"),
        openr1_row(5, source="aops_forum", correctness_math_verify=None),
        openr1_row(6, source="cn_contest"),
        openr1_row(7, answer=""),
    ]
    questions = hub_data.openr1_questions(rows)
    # the last one's answer is found in its solution
    assert [q["id"] for q in questions] == ["uuid-1", "uuid-6", "uuid-7"]
    assert questions[0]["answer"] == "2" and questions[0]["prompt"].startswith("Find 1+1.")
    out = capsys.readouterr().out
    assert "3 of 7 rows are questions" in out and "1 of no competition" in out
    assert "1 proofs" in out and "2 without a verified solution" in out


def test_sft_is_shown_what_deepseek_r1_wrote(monkeypatch, capsys):
    """Its first generation that is marked right; sdzero reads none."""
    from datasets import Dataset

    rows = [openr1_row(i, generations=["wrong", f"right {i}", "too"]) for i in range(12)]
    rows = [row | {"correctness_math_verify": [False, True, True]} for row in rows]
    read = []

    def hub_rows(name, part, columns, advice):
        read.append(columns)
        return Dataset.from_list([{column: row[column] for column in columns} for row in rows])

    monkeypatch.setattr(hub_data, "hub_rows", hub_rows)
    cfg = small(task="math", eval_questions=2, srt_questions=4, distil_questions=4)
    sets = load_questions(cfg)
    assert len(read) == 1 and "generations" not in read[0]
    assert all("boxed" in q["demonstration"] for q in sets["srt"])
    sets = load_questions(baselines.make_baseline_config(**vars_of(cfg), method="sft"))
    for q in sets["srt"] + sets["distil"]:
        assert q["demonstration"] == f"right {q['id'].removeprefix('uuid-')}"
    assert all("boxed" in q["demonstration"] for q in sets["test"])
    assert "8 of 8 questions with a right solution by DeepSeek-R1" in capsys.readouterr().out


def vars_of(cfg) -> dict:
    names = ("task", "eval_questions", "srt_questions", "distil_questions")
    return {name: getattr(cfg, name) for name in names}


@pytest.mark.parametrize("lacking", ["source", "correctness_math_verify", "problem"])
def test_a_changed_form_of_openr1_is_one_line(lacking):
    rows = [{k: v for k, v in openr1_row(i).items() if k != lacking} for i in range(3)]
    with pytest.raises(UserError, match=f"changed its form: no column {lacking}") as e:
        hub_data.openr1_questions(rows)
    assert "\n" not in str(e.value)


def test_a_changed_form_of_codeforces_is_one_line():
    row = codeforces_row("1/A")
    del row["examples"]
    with pytest.raises(UserError, match="changed its form: no column examples"):
        hub_data.codeforces_questions({"python": [row]})


def both_parts(n: int) -> dict:
    problems = [f"{i}/A" for i in range(n)]
    cpp = [codeforces_row(p) for p in problems for _ in range(3)]  # three solutions of each
    return {"cpp": cpp, "python": [codeforces_row(p) for p in problems]}


def test_codeforces_is_asked_in_the_language_of_its_part(monkeypatch, capsys):
    monkeypatch.setattr("verify.cpp_compiler", lambda: "/usr/bin/g++")
    parts = both_parts(2)
    parts["python"].append(codeforces_row("9/I", interaction_format="Ask."))
    questions = hub_data.codeforces_questions(parts)
    assert [q["id"] for q in questions] == [
        "0/A in cpp",
        "1/A in cpp",
        "0/A in python",
        "1/A in python",
    ]
    for q in questions:
        assert ("language" in q["answer"]) == ("cpp" in q["id"])
        assert q["prompt"].endswith(CPP_INSTRUCTION) == ("cpp" in q["id"])
        assert "please" not in q["prompt"] and "1 2\n" in q["prompt"]
    out = capsys.readouterr().out
    assert "2 of 6 rows are questions; 4 further solutions of the same problem" in out
    assert "1 interactive" in out


def test_no_problem_is_held_out_in_one_language_and_trained_on_in_the_other(monkeypatch):
    monkeypatch.setattr("verify.cpp_compiler", lambda: "/usr/bin/g++")
    monkeypatch.setattr(
        kit.questions, "hub_questions", lambda task: hub_data.codeforces_questions(both_parts(100))
    )
    cfg = small(task="code", eval_questions=10, srt_questions=60, distil_questions=90)
    sets = load_questions(replace(cfg, task="code"))
    assert [len(sets[name]) for name in ("test", "val", "srt", "distil")] == [10, 10, 60, 90]
    held_out = [q["version_of"] for q in sets["test"] + sets["val"]]
    training = sets["srt"] + sets["distil"]
    assert len(set(held_out)) == 20 and not set(held_out) & {q["version_of"] for q in training}
    for name, part in sets.items():  # half in each language
        cpp = sum("language" in q["answer"] for q in part)
        assert abs(cpp - len(part) / 2) <= 5, name


def test_without_a_compiler_all_is_asked_in_python_and_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("verify.cpp_compiler", lambda: None)
    asked = []

    def hub_rows(name, part, columns, advice):
        asked.append(part)
        return both_parts(5)["python"]

    monkeypatch.setattr(hub_data, "hub_rows", hub_rows)
    questions = hub_data.codeforces()
    assert asked == ["solutions_py"] and len(questions) == 5
    assert "neither g++ nor clang++ is found" in capsys.readouterr().out
    # rows of a file that ask for it are bad rows
    rows = [{**codeforces_row("1/A"), "language": "cpp"}, codeforces_row("2/A")]
    file = write_lines(tmp_path / "q.jsonl", rows)
    assert [q["id"] for q in kit.questions.file_questions(file, "code")] == ["2/A"]
    assert "line 1: it is to be answered in C++, and there is neither" in capsys.readouterr().out


def test_ids_of_all_rows_the_held_out_ones_first(tmp_path):
    rows = [openr1_row(i) for i in range(12)]
    cfg = Config(data=write_lines(tmp_path / "q.jsonl", rows), task="math")
    sets = load_questions(cfg)
    ids = ids_of(sets)
    assert list(ids) == ["test", "val", "srt", "distil"]
    for name, part in sets.items():
        numbers = [q["prompt"].split("+")[0].removeprefix("Find ") for q in part]
        assert ids[name] == [f"uuid-{number}" for number in numbers]
    assert ids_of(load_questions(small(digits=3))) == {}  # generated from a seed
    folder = kit.run_folder.RunFolder(str(tmp_path / "run"), {}, {}, 20)
    folder.keep_ids(ids)
    assert json.loads((tmp_path / "run" / "questions.json").read_text()) == ids
    assert "questions.json" in json.loads((tmp_path / "run" / "run.json").read_text())["files"]
