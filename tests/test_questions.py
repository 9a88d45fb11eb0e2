"""Where questions come from: generated, files of every kind, code problems; four disjoint sets."""

import csv
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toys import HERE, lines_of, message_of, small, train, write_lines
from transformers import AutoModelForCausalLM

import kit
import sdzero
import verify
from kit.errors import UserError
from kit.questions import MATH_INSTRUCTION, file_questions, load_questions
from sdzero import Config, make_config


def write_rows(path, rows):
    ending = path.suffix
    if ending == ".jsonl":
        write_lines(path, rows)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".csv":
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def prompts_of(sets):
    return [q["prompt"] for part in sets.values() for q in part]


# --------------------------------------------------------------------------------------------------
# Generated
# --------------------------------------------------------------------------------------------------
def test_generated_questions_are_disjoint_and_depend_on_the_seed_alone():
    cfg = small(digits=3, srt_questions=50, distil_questions=60, eval_questions=40)
    sets = load_questions(cfg)
    sizes = {name: len(part) for name, part in sets.items()}
    assert sizes == {"srt": 50, "distil": 60, "val": 40, "test": 40}
    assert len(set(prompts_of(sets))) == 190
    for q in itertools.chain(*sets.values()):
        a, b = (int(x) for x in q["prompt"].split()[1].split("+"))
        assert 100 <= a <= 999 and 100 <= b <= 999 and q["answer"] == str(a + b)
    assert sets == load_questions(cfg) != load_questions(replace(cfg, seed=1))
    with pytest.raises(UserError, match="digits"):
        load_questions(replace(cfg, digits=1))


def test_generated_demonstrations_are_right(math_grader):
    questions = load_questions(small(digits=4))["srt"]
    texts, answers = ([q[key] for q in questions] for key in ("demonstration", "answer"))
    assert math_grader.grade(texts, answers) == [1.0] * len(questions)


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("question", ["problem", "question", "prompt"])
@pytest.mark.parametrize("answer", ["answer", "solution", "target"])
def test_files_of_every_kind(tmp_path, ending, question, answer):
    rows = [
        {"id": i, question: f"What is\n{i} plus \u00e9ven \u201c1\u201d?", answer: str(i + 1)}
        for i in range(12)
    ]
    file = write_rows(tmp_path / f"q{ending}", rows)
    got = file_questions(file)
    assert [q["answer"] for q in got] == [str(i + 1) for i in range(12)]
    for q, row in zip(got, rows):
        assert q["prompt"].startswith(row[question]) and q["prompt"].endswith("\\boxed{}.")
    cfg = make_config(model="x", data=file)
    sets = load_questions(cfg)
    assert cfg.task == "math" and all(sets.values())
    prompts = prompts_of(sets)
    assert len(prompts) == len(set(prompts)) >= 10


def test_gsm8k_answers_and_numbers(tmp_path, math_grader):
    worked = "48/2 = <<48/2=24>>24\nIn all 72.\n#### 1,072"
    rows = [
        {"question": "a?", "answer": worked},
        {"question": "b?", "answer": 0},
        {"question": "c?", "answer": 2.5},
    ]
    got = file_questions(write_rows(tmp_path / "q.jsonl", rows))
    texts = ["\\boxed{1072}", "so \\boxed{0}", "\\boxed{2.5}", "\\boxed{24}"]
    answers = [q["answer"] for q in got] + [got[0]["answer"]]
    assert math_grader.grade(texts, answers) == [1, 1, 1, 0]
    assert got[0]["demonstration"] == worked and "demonstration" not in got[1]


def test_bad_rows_are_counted_with_their_line_numbers(tmp_path, capsys):
    lines = [
        '{"question": "a?", "answer": 1}',
        "",
        '{"question": "b?"',
        '{"question": "c?"}',
        "[1]",
        '{"question": "", "answer": 2}',
        '{"question": "d?", "answer": NaN}',
        '{"question": "e?", "answer": true}',
        '"just text"',
        '{"question": 7, "answer": 7}',
        '{"question": "f?", "answer": 3}',
    ]
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(lines) + "\n")
    assert [q["answer"] for q in file_questions(str(file))] == ["1", "3"]
    out = capsys.readouterr().out
    assert "8 of 10" in out
    assert all((f"line {n}:" in out) == (3 <= n <= 10) for n in range(1, 12))


def test_unusual_line_separators_stay_inside_their_row(tmp_path):
    """U+2028, U+0085 and form feed are characters of a JSON string, not ends of a line of JSONL."""
    questions = [f"a{c}b?" for c in "\u2028\u2029\u0085\f"]
    rows = [json.dumps({"question": q, "answer": 1}, ensure_ascii=False) for q in questions]
    (tmp_path / "q.jsonl").write_text("\n".join(rows), encoding="utf-8")
    table = "question,answer\n" + "".join(f"{q},1\n" for q in questions)
    (tmp_path / "q.csv").write_text(table, encoding="utf-8")
    for name in ("q.jsonl", "q.csv"):
        got = file_questions(str(tmp_path / name))
        assert [q["prompt"].removesuffix(MATH_INSTRUCTION) for q in got] == questions


def test_chat_messages_as_questions(tmp_path, capsys):
    shots = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "\\boxed{2}"},
        {"role": "user", "content": "2+2?"},
    ]
    rows = [
        {"prompt": shots, "answer": "4"},
        {"prompt": shots[:2], "answer": "4"},
        {"prompt": [{"role": "user"}], "answer": "4"},
    ]
    assert file_questions(write_rows(tmp_path / "q.jsonl", rows)) == [
        {"prompt": shots, "answer": "4", "id": "line 1"}
    ]
    assert "2 of 3" in capsys.readouterr().out


def test_unusable_files_say_what_is_wrong(tmp_path, capsys):
    with pytest.raises(UserError) as e:
        file_questions(write_rows(tmp_path / "q.jsonl", [{"text": "a", "label": 1}]))
    wanted = ("problem", "question", "prompt", "answer", "solution", "target", "text", "label")
    assert all(word in str(e.value) for word in wanted)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "q.txt").write_text("a")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.parquet").write_text("no parquet")
    (tmp_path / "number.json").write_text("5")
    messages = {
        "empty.jsonl": "no usable row",
        "q.txt": "unknown ending",
        "missing.csv": "no such file",
        "bad.json": "cannot be read",
        "bad.parquet": "cannot be read",
        "number.json": "cannot be read",
    }
    for name, words in messages.items():
        with pytest.raises(UserError, match=words):
            file_questions(str(tmp_path / name))
    options = "--data", tmp_path / "missing.csv", "--out", tmp_path / "run"
    assert "no such file" in message_of(capsys, sdzero.main, *options)
    assert not (tmp_path / "run").exists()


def test_a_file_is_split_without_overlap_or_empty_set(tmp_path, capsys):
    few = [
        dict(),
        dict(srt_questions=1, distil_questions=1),
        dict(srt_questions=2, distil_questions=9000, eval_questions=1),
    ]
    for n in range(4, 30):
        rows = [{"question": f"{i}?", "answer": i} for i in [*range(n), 0, 1]]
        file = write_rows(tmp_path / "q.jsonl", rows)
        for sizes in few:
            sets = load_questions(replace(Config(data=file, task="math"), **sizes))
            prompts = prompts_of(sets)
            assert len(prompts) == len(set(prompts)) <= n and all(sets.values()), (n, sizes)
    assert "2 repeated questions left out" in capsys.readouterr().out
    write_rows(Path(file), [{"question": f"{i}?", "answer": i} for i in range(3)])
    with pytest.raises(UserError, match="too few"):
        load_questions(Config(task="math", data=file))


def test_a_question_with_two_answers_is_named(capsys):
    rows = [{"prompt": f"{i % 5}?", "answer": i if i % 5 == 3 else 0} for i in range(10)]
    different = kit.questions.once_each(rows)
    said = capsys.readouterr().out
    assert said.startswith("5 repeated questions left out; 1 came with another answer, as '3?'")
    assert [q["answer"] for q in different] == [0, 0, 0, 8, 0]


@pytest.mark.parametrize("rounds, code", [(4, 0), (5, 2)])
def test_rounds_of_a_short_file_are_those_that_it_can_give(
    tmp_path, checkpoint, coin, capsys, rounds, code
):
    """--distil-questions would give 16 steps, the file gives 4."""
    rows = [{"question": f"{i}+1?", "answer": i} for i in range(12)]
    options = f"""--no-phase1 --distil-questions 16 --eval-questions 2 --srt-questions 2
        --distil-batch 2 --eval-samples 1 --max-tokens 4 --temperature 1 --rounds {rounds}"""
    words = [*options.split(), "--data", write_rows(tmp_path / "q.jsonl", rows)]
    words += ["--model", checkpoint, "--out", str(tmp_path / "run")]
    assert sdzero.main([str(word) for word in words]) == code
    said = capsys.readouterr().err
    assert ("--rounds 5 are more than the 4 steps" in said) == (code == 2), said


def test_questions_of_a_file_stay_where_they_are_when_the_seed_changes(tmp_path):
    """Else a comparison of seeds would also compare questions."""
    rows = [{"question": f"{i}?", "answer": i} for i in range(50)]
    cfg = Config(task="math", data=write_rows(tmp_path / "q.jsonl", rows))
    assert load_questions(cfg) == load_questions(replace(cfg, seed=5))


# --------------------------------------------------------------------------------------------------
# Code problems
# --------------------------------------------------------------------------------------------------
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
CODE_ROWS = [
    {"question": "Print the sum.", "inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]},
    {"problem": "Echo.", "tests": [{"input": "a", "output": "a"}]},
    {  # MBPP
        "text": "Write a function to add.",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    },
    {"prompt": "def add(a, b):\n", "test": CHECK, "entry_point": "add"},  # HumanEval
    {  # Codeforces
        "title": "A. Sum",
        "description": "Add two numbers.",
        "input_format": "Two numbers.",
        "output_format": "Their sum.",
        "note": None,
        "examples": [{"input": "1 2", "output": "3"}],
        "time_limit": 2.0,
        "memory_limit": 256,
        "prompt": "Solve this in C++.",
    },
]
BAD_CODE_ROWS = [
    {"question": "no tests"},
    {"question": "q", "inputs": [], "outputs": []},
    {"question": "q", "inputs": ["1"], "outputs": []},
    {"question": "q", "test_list": ["assert f(("]},
    {"question": "q", "test_list": ["f(1)"]},
    {"inputs": ["1"], "outputs": ["1"]},
]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_code_problems_of_every_form(tmp_path, ending, capsys, code_grader):
    adds = "```python\ndef add(a, b):\n    return a + b\n```"
    prints = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    rows, answers = CODE_ROWS, [prints, "```python\nprint(input())\n```", adds, adds, prints]
    if ending == ".parquet":  # which has the same columns in all rows
        rows, answers = [CODE_ROWS[0], {**CODE_ROWS[0], "question": "Print it."}], [prints] * 2
    got = file_questions(write_rows(tmp_path / f"q{ending}", rows), "code")
    kinds = [q["answer"]["kind"] for q in got][:4]
    assert kinds == ["stdin", "stdin", "assert", "assert"][: len(got)]
    assert code_grader.grade(answers, [q["answer"] for q in got]) == [1.0] * len(got)
    assert all("```python" in q["prompt"] for q in got)
    if len(got) == 5:
        # MBPP names the function in its test alone
        assert "assert add(1, 2) == 3" in got[2]["prompt"] and "assert" not in got[3]["prompt"]
        parts = "A. Sum", "Add two numbers.", "Two numbers.", "Their sum.", "1 2\n->\n3"
        assert all(part in got[4]["prompt"] for part in parts)
        assert "C++" not in got[4]["prompt"] and got[4]["answer"]["seconds"] == 2.0
    assert "left out" not in capsys.readouterr().out


def test_malformed_tests_are_bad_rows(tmp_path, capsys):
    got = file_questions(write_rows(tmp_path / "q.jsonl", BAD_CODE_ROWS + CODE_ROWS), "code")
    out = capsys.readouterr().out
    assert len(got) == 5 and "6 of 11" in out
    assert all((f"line {n}:" in out) == (n <= 6) for n in range(1, 12))
    with pytest.raises(UserError) as e:
        file_questions(write_rows(tmp_path / "q.jsonl", BAD_CODE_ROWS), "code")
    wanted = ("test_list", "entry_point", "inputs", "description", "no tests", "found the columns")
    assert all(word in str(e.value) for word in wanted)


def test_problems_that_call_a_function_name_it(tmp_path, code_grader):
    """APPS and LiveCodeBench do not name it in the problem; LiveCodeBench has starter code."""
    starter = "class Solution:\n    def total(self, numbers: List[int]) -> int:\n        "
    tests = [{"input": "[1, 2]", "output": "3", "testtype": "functional"}]
    rows = [
        {"question": "Add.", "input_output": {"fn_name": "add", "inputs": [[1]], "outputs": [[1]]}},
        {
            "question_content": "Sum them.",
            "starter_code": starter,
            "public_test_cases": json.dumps(tests),
            "private_test_cases": "[]",
            "metadata": '{"func_name": "total"}',
            "test_list": "[]",
        },
    ]
    got = file_questions(write_rows(tmp_path / "q.jsonl", rows), "code")
    assert "the function add" in got[0]["prompt"] and starter.strip() in got[1]["prompt"]
    assert all("one ```python block" in q["prompt"] for q in got)
    programs = "def add(a):\n    return a", starter + "return sum(numbers)"
    blocks = [f"```python\n{program}\n```" for program in programs]
    answers = [q["answer"] for q in got]
    assert code_grader.grade(blocks, answers) == [1.0, 1.0]
    assert code_grader.grade(blocks[::-1], answers) == [0.0, 0.0]


def test_unified_parquet_files_have_every_column_in_every_row(tmp_path):
    import pyarrow
    import pyarrow.parquet

    test = {"input": "1\n", "output": "1\n", "fn_name": None}
    rows = [
        {"question": "a?", "inputs": None, "outputs": None, "tests": [test], "test_list": None},
        {"question": "b?", "inputs": ["1"], "outputs": ["2"], "tests": [], "test_list": []},
        {
            "question": "c?",
            "inputs": [],
            "outputs": [],
            "tests": None,
            "test_list": ["assert f(1)"],
        },
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "q.parquet")
    got = file_questions(str(tmp_path / "q.parquet"), "code")
    assert [q["answer"]["kind"] for q in got] == ["stdin", "stdin", "assert"]


def test_the_repositorys_own_problems_train_on_code(
    tmp_path, checkpoint, monkeypatch, capsys, tokenizer, isolated
):
    """--task code from rollouts to checkpoints, with the real grader; a model that is right now and
    then is played by the problems' solutions."""
    file = HERE / "problems" / "code.jsonl"
    problems = lines_of(file)
    assert len(problems) >= 24

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    programs = {p["question"]: encode(f"```python\n{p['solution']}```") + [2] for p in problems}
    wrong, cut = encode("```python\nprint('?')\n```") + [2], encode("```python\nprint(")

    def canned(run, model, contexts, seed, *args, **kwargs):
        answers = []
        for i, context in enumerate(contexts):
            text = tokenizer.decode(context)
            question = next(p["question"] for p in problems if p["question"] in text)
            answers.append([programs[question], wrong, cut][(i + seed) % 3])
        return answers

    monkeypatch.setattr(sdzero, "generate", canned)
    given = asdict(small(checkpoint, data=str(file), out=str(tmp_path / "run")))
    train(make_config(**{**given, "task": "code"}))
    records, out = lines_of(tmp_path / "run" / "revisions.jsonl"), capsys.readouterr().out
    for r in records:
        right = r["revised_finished"] and "?" not in r["revised_text"]
        assert (r["why"] == "verified") == right or r["why"] == "duplicate"
        assert r["init_reward"] == float(r["init_finished"] and "'?'" not in r["init_text"])
    assert {"verified", "wrong", "truncated"} <= {r["why"] for r in records}
    assert out.index("sandbox: ") < out.index("the generator's prompt")
    assert "does not protect" in out
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert {m["phase"] for m in metrics} == {"init", "revise", "srt", "distil"}
    assert all(m["timeouts"] == 0 for m in metrics)
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "sdzero")


def test_no_program_runs_where_none_can_be_isolated(tmp_path, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(verify, "sandbox_level", lambda: ("limits", "limits alone"))
    data = "--task", "code", "--data", HERE / "problems" / "code.jsonl", "--model", checkpoint
    message = message_of(capsys, sdzero.main, *data, "--out", tmp_path / "run")
    assert "--unsafe-exec" in message and not (tmp_path / "run" / "results.json").exists()
    with sdzero.make_grader(make_config(task="code", unsafe_exec=True)) as grader:
        assert grader.task == "code"


# --------------------------------------------------------------------------------------------------
# --shots: worked examples as earlier turns
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", ["arith", "countdown"])
def test_worked_examples_stand_before_every_question(task):
    plain = load_questions(small(task=task))
    shown = load_questions(small(task=task, shots=2, system="Be brief."))
    earlier, last_turns = set(), []
    for name, questions in shown.items():
        for q, without in zip(questions, plain[name]):
            system, *turns, last = q["prompt"]
            assert system == {"role": "system", "content": "Be brief."}
            assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
            if name in ("test", "val"):
                assert last == {"role": "user", "content": without["prompt"]}
                assert q["answer"] == without["answer"]
            last_turns.append(last["content"])
            earlier.add(json.dumps(turns))
    assert len(earlier) == 1 and set(shown) == set(plain)
    examples = {turn["content"] for turn in json.loads(earlier.pop())}
    assert not examples & set(last_turns)  # they are nobody's question
    # however much is trained on, they and the test questions are the same
    more = load_questions(small(task=task, shots=2, system="Be brief.", srt_questions=30))
    assert more["test"] == shown["test"] and more["val"] == shown["val"]
    assert len(more["srt"]) == 30


def test_a_question_with_worked_examples_keeps_its_own_system_message(tmp_path):
    rows = []
    for i in range(40):
        system = [{"role": "system", "content": f"You are clerk {i}."}] * (i % 2)
        rows.append(
            {"prompt": [*system, {"role": "user", "content": f"{i} + 1?"}], "answer": i + 1}
        )
    cfg = small(data=write_lines(tmp_path / "rows.jsonl", rows), task="math", shots=2)
    for questions in load_questions(cfg).values():
        for q in questions:
            *turns, last = q["prompt"]
            i = int(last["content"].split()[0])
            systems = [turn for turn in turns if turn["role"] == "system"]
            expected = [{"role": "system", "content": f"You are clerk {i}."}]
            assert systems == expected * (i % 2) == turns[: len(systems)]
            assert len(turns) - len(systems) == 4


@pytest.mark.parametrize(
    "answer, message", [("", "neither answer nor"), ([], "neither"), ({"kind": "x"}, "has tests")]
)
def test_an_example_without_anything_to_show_is_refused(answer, message):
    with pytest.raises(UserError, match=message):
        kit.shots.answer_turn({"prompt": "Say 7.", "answer": answer})
    own = {"prompt": "Say 7.", "answer": 7, "demonstration": [1]}  # of --reward: any type
    assert kit.shots.answer_turn(own)["content"] == "\\boxed{7}"


def test_a_message_whose_role_is_no_text_is_a_bad_row(tmp_path, capsys):
    rows = [{"prompt": [{"role": ["user"], "content": "1+1?"}], "answer": 2}] * 2
    rows += [{"question": f"{i}+1?", "answer": i + 1} for i in range(9)]
    assert len(file_questions(write_lines(tmp_path / "q.jsonl", rows), "math")) == 9
    assert "2 of 11 rows left out" in capsys.readouterr().out


def test_a_blank_column_hides_no_filled_one(tmp_path):
    rows = [{"problem": " ", "question": f"What is {i} + 1?", "answer": i + 1} for i in range(40)]
    sets = load_questions(small(data=write_lines(tmp_path / "rows.jsonl", rows), task="math"))
    assert all("What is" in q["prompt"] for questions in sets.values() for q in questions)


def test_own_columns_are_no_versions_of_one_another(tmp_path):
    """For a --reward of one's own; "problem" may be empty, or hold chat messages."""
    chat = [{"role": "user", "content": "Say 7."}]
    rows = [{"problem": None, "question": f"Say {i}.", "target": i} for i in range(40)]
    for row in rows[:20]:
        row["version_of"] = "x"
    rows.append({"problem": chat, "answer": "7"})
    cfg = small(data=write_lines(tmp_path / "rows.jsonl", rows), task="math", reward="mine.py:f")
    cfg = replace(cfg, srt_questions=20, distil_questions=15, eval_questions=3)
    sets = load_questions(cfg)
    assert sum(map(len, sets.values())) == 41
    assert chat in [q["prompt"] for questions in sets.values() for q in questions]


def test_an_example_without_a_solution_shows_its_answer_in_the_tasks_form(tmp_path):
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    cfg = small(data=file, task="math", shots=1)
    q = load_questions(cfg)["test"][0]
    example, answer, _ = q["prompt"]
    number = int(example["content"].split()[2])
    assert answer == {"role": "assistant", "content": f"\\boxed{{{number + 1}}}"}
    with pytest.raises(UserError, match="--shots"):
        kit.questions.whole_file(cfg)
