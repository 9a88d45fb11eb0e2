"""Files of rows: every ending, packed, in folders; what cannot be read is said, the rest kept."""

import bz2
import csv
import gzip
import json
import lzma
import subprocess
import sys

import pytest
from corpora import ROOT, block

import verify
from kit.errors import UserError
from kit.questions import file_questions
from kit.rows import MAX_NESTING, Unreadable, place, read_rows

ROWS = [{"question": f"{i}?", "answer": str(i)} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def written(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def answers_of(path, task="math"):
    return [q["answer"] for q in file_questions(str(path), task)]


# --------------------------------------------------------------------------------------------------
# Endings
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, pack",
    [
        ("q.JSONL", bytes),
        ("q.Json", bytes),
        ("q.jsonl.gz", gzip.compress),
        ("q.JSON.GZ", gzip.compress),
        ("q.v2.jsonl.bz2", bz2.compress),
        ("q.jsonl.xz", lzma.compress),
        ("q.ndjson", bytes),
    ],
)
def test_endings_in_any_case_and_packed(tmp_path, name, pack):
    text = json.dumps(ROWS) if "json" in name.lower().split(".") else LINES
    assert answers_of(written(tmp_path / name, pack(text.encode()))) == ["0", "1", "2"]


def test_json_that_is_lines_of_it_is_read_as_such(tmp_path):
    assert answers_of(written(tmp_path / "q.json", LINES)) == ["0", "1", "2"]


def test_utf_16_that_says_so_is_read(tmp_path):
    assert answers_of(written(tmp_path / "q.jsonl", LINES.encode("utf-16"))) == ["0", "1", "2"]


def test_a_folder_of_shards_is_read_in_the_order_of_names(tmp_path, capsys):
    written(tmp_path / "b" / "part-1.jsonl.gz", gzip.compress(LINES.encode()))
    written(tmp_path / "a.json", json.dumps([{"question": "a?", "answer": "7"}]))
    written(
        tmp_path / "b" / "part-2.jsonl", '{"question": "b?", "answer": "8"}\n{"question": "c?"}'
    )
    written(tmp_path / ".cache" / "x.jsonl", '{"question": "hidden?", "answer": "9"}')
    written(tmp_path / "README.md", "# words")
    write_parquet(tmp_path / "z.parquet", [{"question": "z?", "answer": "10"}])
    assert answers_of(tmp_path) == ["7", "0", "1", "2", "8", "10"]
    assert "b/part-2.jsonl line 2: no answer" in capsys.readouterr().out
    written(tmp_path / "b" / "part-0.json", "{")
    with pytest.raises(UserError, match="part-0.json: cannot be read"):
        answers_of(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="folder without"):
        answers_of(empty)


def test_a_damaged_packed_file_is_said_in_one_line(tmp_path):
    for data in (b"no gzip", gzip.compress(LINES.encode())[:-9]):
        with pytest.raises(UserError, match="cannot be read as jsonl"):
            answers_of(written(tmp_path / "q.jsonl.gz", data))


# --------------------------------------------------------------------------------------------------
# Where the rows of an object are
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "holder",
    [
        {"data": ROWS},
        {"meta": [1, 2], "data": ROWS},
        {"meta": ["x"], "empty": [], "data": ROWS},
        {"authors": [{"name": "A"}, {"name": "B"}], "version": 1, "data": ROWS},
        {"data": ROWS, "authors": [{"name": f"{i}"} for i in range(10)]},
        {"info": {"n": 3}, "dataset": {"tags": ["a"], "train": ROWS}},
        {"examples": ROWS},
        {"test": ROWS},
    ],
)
def test_the_rows_of_an_object_are_its_list_of_questions(tmp_path, holder):
    assert answers_of(written(tmp_path / "q.json", json.dumps(holder))) == ["0", "1", "2"]


def test_an_object_may_be_the_one_row_although_it_holds_lists(tmp_path):
    for tests in (
        {"inputs": ["1\n"], "outputs": ["1\n"]},
        {"tests": [{"input": "1\n", "output": "1\n"}]},
    ):
        file = written(tmp_path / "q.json", json.dumps({"question": "Echo.", **tests}))
        assert [tests["cases"] for tests in answers_of(file, "code")] == [[["1\n", "1\n"]]]


# --------------------------------------------------------------------------------------------------
# CSV
# --------------------------------------------------------------------------------------------------
def test_csv_holds_lists_as_text_and_long_fields(tmp_path):
    given = "1 " * 100_000
    rows = [
        {"question": "a?", "inputs": json.dumps([given]), "outputs": '["x\\n"]', "test_list": ""},
        {
            "question": "b?",
            "inputs": "['1\\n', '2\\n']",
            "outputs": "['1', '2']",
            "test_list": "[]",
        },
        {"question": "c?", "inputs": "", "outputs": "", "test_list": '["assert f(1) == 1"]'},
        {"question": "d?", "inputs": "['1' '2']", "outputs": "['1' '2']", "test_list": ""},
    ]
    with (tmp_path / "q.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    first, second, third = answers_of(tmp_path / "q.csv", "code")  # numpy's list is refused
    assert first["cases"] == [[given, "x\n"]] and third["code"] == ["assert f(1) == 1"]
    assert second["cases"] == [["1\n", "1"], ["2\n", "2"]]


# --------------------------------------------------------------------------------------------------
# Rows that cannot be read
# --------------------------------------------------------------------------------------------------
def test_one_bad_line_does_not_cost_the_others(tmp_path, capsys):
    deep = "[" * (MAX_NESTING + 5) + "]" * (MAX_NESTING + 5)
    lines = [
        b'{"question": "a?", "answer": 1}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"question": "b?", "answer": 1, "x": ' + deep.encode() + b"}",
        b'{"question": "c?", "answer": ' + b"1" * 5000 + b"}",
        b'{"question": "\xe9?", "answer": 1}',
        b'{"question": "\\ud800?", "answer": 1}',
        b'{"question": "d?", "answer": "\\udc00"}',
        b'{"question": [{"role": "user", "content": "\\ud83d"}], "answer": 1}',
        b'{"question": "\\ud83d\\ude00?", "answer": 2}',
    ]
    assert answers_of(written(tmp_path / "q.jsonl", b"\n".join(lines))) == ["1", "2"]
    out = capsys.readouterr().out
    for number, why in [
        *((n, "nested too deeply") for n in (2, 3, 4)),
        (5, "not JSON"),
        (6, "not UTF-8"),
        *((n, "half a character") for n in (7, 8, 9)),
    ]:
        assert any(f"line {number}: " in part and why in part for part in out.split(";")), number


def test_a_text_among_the_rows_is_no_reason(tmp_path):
    rows = read_rows(written(tmp_path / "q.jsonl", '"just text"\n{\n'))
    assert rows[0] == (1, "just text") and not isinstance(rows[0][1], Unreadable)
    assert isinstance(rows[1][1], Unreadable)
    assert [place(number) for number in (3, "a.json line 3")] == ["line 3", "a.json line 3"]


# --------------------------------------------------------------------------------------------------
# The command line of verify.py
# --------------------------------------------------------------------------------------------------
def grade(*words, **how):
    command = [sys.executable, ROOT / "verify.py", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **how)


GRADED = [
    {"response": r"\boxed{7}", "gold": ["7"]},
    {"response": r"\boxed{7}", "answer": " ", "solution": r"So it is \boxed{7}."},
    {"response": r"\boxed{7}", "answer": "2+2=4\n####"},
    {"response": r"\boxed{7}", "answer": "First we add 3 and 4. Then we get the 7 that was asked."},
]


@pytest.mark.parametrize("name", ["r.jsonl", "r.JSON", "r.jsonl.gz", "folder", "r.txt"])
def test_verify_reads_files_as_data_is_read(tmp_path, name):
    lines, path = "".join(json.dumps(row) + "\n" for row in GRADED), tmp_path / name
    if name == "folder":
        written(path / "a.jsonl", lines)
    elif name == "r.JSON":
        written(path, json.dumps({"meta": [1], "rows": GRADED}))
    else:
        written(path, gzip.compress(lines.encode()) if name.endswith("gz") else lines)
    done = grade(path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "accuracy 2/4" in done.stdout and "bad rows 2" in done.stdout
    where = "a.jsonl line" if name == "folder" else "row"
    assert f"{where} 3: bad row: no answer stands" in done.stdout
    assert f"{where} 4: bad row: the answer is a text without" in done.stdout


def test_verify_says_in_one_line_what_it_cannot_read(tmp_path):
    written(tmp_path / "bad.json", "{")
    for name, words in (("missing.jsonl", "no such file"), ("bad.json", "cannot be read as json")):
        done = grade(tmp_path / name)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f"verify.py: {tmp_path / name}: {words}") and not done.stdout


def test_what_nobody_reads_ends_quietly(tmp_path):
    file = written(tmp_path / "r.jsonl", '{"response": "none", "gold": 1}\n' * 5000)
    for options in ("--show 5000", "--show 1", "--help"):
        # the shell has closed the other end before anything is written
        command = f"'{sys.executable}' '{ROOT / 'verify.py'}' '{file}' {options} | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
        assert done.stderr == "" and done.stdout == ""
    command = f"'{sys.executable}' '{ROOT / 'verify.py'}' '{file}' --show 5000 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.stderr == "" and done.stdout == "row 1: no final answer\n"


def test_the_rewards_are_a_library_without_kit(tmp_path):
    (tmp_path / "verify.py").symlink_to(ROOT / "verify.py")
    (tmp_path / "grading").symlink_to(ROOT / "grading")
    program = r"import verify; print(verify.math_reward(r'\boxed{0.5}', '1/2'))"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {program}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "1.0\n", done.stderr


def test_a_row_with_tests_is_graded_by_them_where_its_answer_is_a_program():
    from grading.rows import reference_of

    tests = {"inputs": ["1\n"], "outputs": ["1\n"]}
    assert reference_of({**tests, "answer": "print(input())"})[0] == "code"
    assert reference_of({**tests, "solution": "print(input())"})[0] == "code"
    assert reference_of({**tests, "gold": float("nan")})[0] == "code"
    assert reference_of({**tests, "answer": "7"}) == ("math", "7")
    with pytest.raises(ValueError, match="program"):
        reference_of({"answer": "print(input())"})
    assert verify.code_reward(block("print(input())"), {**tests, "tests": None}) in (0.0, 1.0)
