"""eval.py bench and paper: whole benchmarks of the form that their cards have, interrupted and gone
on with; the paper's tables beside ours."""

import base64
import json
import pickle
import zlib

import numpy as np
import pytest
from toys import CoinGrader, message_of, snapshot, write_lines

import eval as evaluation
import kit
import sdzero
from kit.benchmarks import BENCHMARKS, benchmark_questions
from kit.errors import UserError
from kit.journal import Journal
from kit.overlap import overlap
from studies import paper, paper_tables
from studies.benchmarks import BenchConfig
from studies.runs import paper_place, row_of
from studies.statistics import bootstrapped, pass_at_k

FAST = ["--max-tokens", "12", "--eval-samples", "2", "--temperature", "1", "--paper", "qwen"]


def packed(tests) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def rows_of(name: str, n: int = 3) -> list[dict]:
    """Rows of the form of a benchmark's card; invented."""
    rows = []
    for i in range(n):
        aime = {"id": 60 + i, "problem": f"What is {i}+{i}?", "solution": "$s$"}
        aime |= {"answer": str(2 * i), "url": "u", "year": "2024"}
        text = {"input": f"{i} 1\n", "output": f"{i + 1}\n", "testtype": "stdin"}
        row = {
            "aime24": aime,
            "aime25": {"problem": f"What is {i}*3?", "answer": str(3 * i), "id": str(i)},
            "hmmt25": {
                "problem_idx": i + 1,
                "problem": f"Half of {i}?",
                "answer": f"\\frac{{{i}}}{{2}}",
                "problem_type": ["Algebra"],
            },
            "amobench": {
                "question_id": i + 1,
                "prompt": f"Find ${i}!$.",
                "solution": "s",
                "answer": f"\\boxed{{{i}}}",
                "answer_type": "number",
            },
            "math": {
                "problem": f"Twice {i}?",
                "solution": "s",
                "answer": str(2 * i),
                "subject": "Algebra",
                "level": 2,
                "unique_id": f"test/algebra/{i}.json",
            },
            "lcb": {
                "question_title": "Sum",
                "question_content": f"Print the sum, number {i}.",
                "platform": "atcoder",
                "question_id": f"abc{i}",
                "contest_id": "abc",
                "contest_date": f"2024-0{i + 7}-15T00:00:00",
                "starter_code": "",
                "difficulty": "easy",
                "public_test_cases": json.dumps([text]),
                "private_test_cases": packed([{**text, "input": "5 5\n", "output": "10\n"}]),
                "metadata": "{}",
            },
        }[name]
        rows.append(row)
    return rows


NAMES = ["aime24", "aime25", "hmmt25", "amobench", "math", "lcb"]


def fixture(tmp_path, name, n=3) -> str:
    return write_lines(tmp_path / f"{name}.jsonl", rows_of(name, n))


# --------------------------------------------------------------------------------------------------
# Their rows
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_every_card_become_questions(tmp_path, name, math_grader):
    questions = benchmark_questions(name, fixture(tmp_path, name), BenchConfig())
    rows, columns = rows_of(name), BENCHMARKS[name].columns
    assert len(questions) == 3
    for q, row in zip(questions, rows):
        assert q["prompt"].startswith(row[columns[0]]) and q["id"] == str(row[columns[2]])
    if BENCHMARKS[name].task == "math":
        answers = [row["answer"] for row in rows]
        right = [text if "boxed" in text else "\\boxed{" + text + "}" for text in answers]
        assert math_grader.grade(right, [q["answer"] for q in questions]) == [1.0] * 3
    else:
        assert questions[0]["answer"]["cases"] == [["5 5\n", "10\n"], ["0 1\n", "1\n"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_form_is_one_line(tmp_path, name, monkeypatch, capsys, coin):
    changed = [{"Frage": "?", "Antwort": 1} for _ in range(3)]
    monkeypatch.setattr(kit.benchmarks, "hub_rows", lambda benchmark: enumerate(changed, 1))
    words = "bench", "tiny", "--bench", name, "--out", tmp_path / "out"
    message = message_of(capsys, evaluation.main, *words)
    assert "has changed its form" in message and "Antwort, Frage" in message
    assert BENCHMARKS[name].columns[0] in message and not (tmp_path / "out").exists()


def test_files_with_the_usual_columns_do_too_and_bad_rows_are_named(tmp_path, capsys):
    rows = [{"question": "1+1?", "answer": 2}, {"question": "2+2?"}]
    file = write_lines(tmp_path / "q.jsonl", rows)
    assert len(benchmark_questions("aime24", file, BenchConfig())) == 1
    out = capsys.readouterr().out
    assert "1 of 2 rows left out: line 2: no answer" in out and "AIME24 has 30" in out


def test_a_file_for_a_benchmark_of_another_source(tmp_path):
    """openr1 has no columns of its own: a file has the usual ones."""
    file = write_lines(tmp_path / "q.jsonl", [{"question": "1+1?", "answer": 2}])
    assert len(benchmark_questions("openr1", file, BenchConfig())) == 1


def test_live_code_bench_by_dates(tmp_path, capsys):
    file = fixture(tmp_path, "lcb")

    def ids(**dates):
        return [q["id"] for q in benchmark_questions("lcb", file, BenchConfig(**dates))]

    assert ids() == ["abc0", "abc1", "abc2"]
    assert ids(lcb_from="2024-08") == ["abc1", "abc2"]
    assert ids(lcb_from="2024-08-15", lcb_until="2024-08-15") == ["abc1"]
    assert ids(lcb_until="2024-08") == ids(lcb_until="2024-08-31") == ["abc0", "abc1"]
    assert ids(lcb_until="2024-12") == ids(lcb_until="2024-12-31")
    assert "2 problems of other dates left out" in capsys.readouterr().out
    write_lines(
        tmp_path / "lcb.jsonl", [{**rows_of("lcb")[0], "contest_date": None}, *rows_of("lcb")]
    )
    assert ids(lcb_from="2024-08") == ["abc1", "abc2"]
    assert "contest_date is None, no date" in capsys.readouterr().out
    with pytest.raises(UserError, match="--lcb-from 'May' is no date"):
        ids(lcb_from="May")


def test_unknown_benchmarks_list_the_known_ones(capsys):
    message = message_of(capsys, evaluation.main, "bench", "tiny", "--bench", "aime26")
    assert "'aime26'" in message and all(name in message for name in BENCHMARKS)


# --------------------------------------------------------------------------------------------------
# Whole measurements
# --------------------------------------------------------------------------------------------------
def bench(tmp_path, folder, *words, names=("aime24", "math")) -> list[str]:
    files = ",".join(f"{name}={fixture(tmp_path, name)}" for name in names)
    checkpoints = [str(folder / "srt"), str(folder / "sdzero")]
    out = ["--out", str(tmp_path / "out")]
    return ["bench", *checkpoints, "--bench", files, *FAST, *out, *words]


def test_bench_measures_what_it_says(finished_run, coin, capsys, tmp_path):
    folder, _ = finished_run
    assert evaluation.main(bench(tmp_path, folder, "--revise")) == 0
    said, result = capsys.readouterr().out, json.loads((tmp_path / "out/bench.json").read_text())
    assert result["benchmarks"] == ["aime24", "math"] and result["k"] == 2
    for of_one in result["checkpoints"].values():
        for r in of_one.values():
            scores = np.array(r["scores"])
            assert scores.shape == (3, 2) and r["accuracy"] == scores.mean()
            for j in (1, 2):
                assert r["pass_at_k"][str(j)]["value"] == pass_at_k(r["scores"], j)
            revised = r["revise"]
            net = (revised["revised_accuracy"] - scores.mean()) / (1 - scores.mean())
            assert revised["initial_accuracy"] == pytest.approx(scores.mean())
            assert revised["net_correction_rate"] == pytest.approx(net)
    assert "avg@2 %" in said and "pass@2 %" in said and "sign-flip" in said
    assert "the paper's SRT (qwen, avg@8)" in said and "66.7" in said and "92.4" in said
    assert "net correction %" in said and "not looked for" in said
    # two checkpoints, two benchmarks, and no journal is left
    names = sorted(p.name for p in (tmp_path / "out").rglob("*.json*"))
    assert names == sorted(["aime24.json", "math.json"] * 2 + ["bench.json", "run.json"])


def test_bench_goes_on_where_it_was_stopped(finished_run, capsys, tmp_path, monkeypatch):
    folder, _ = finished_run
    words = bench(tmp_path, folder, "--rollout-batch", "2")
    calls, whole = [], sdzero.kit.sampling.with_room

    def stopping(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
    monkeypatch.setattr(kit.sampling, "with_room", stopping)
    assert evaluation.main(words) == 130
    assert evaluation.main(words) == 0
    assert len(calls) == 4 * 3 + 1  # three batches each; the one that was stopped was begun again
    result = (tmp_path / "out/bench.json").read_text()
    before = snapshot(tmp_path / "out")
    assert evaluation.main(words) == 0 and len(calls) == 13
    changed = {name for name, was in before.items() if snapshot(tmp_path / "out").get(name) != was}
    assert changed <= {"bench.json"} and (tmp_path / "out/bench.json").read_text() == result
    capsys.readouterr()
    other = bench(tmp_path, folder, "--rollout-batch", "2", "--seed", "3")
    message = message_of(capsys, evaluation.main, *other)
    assert "other settings: seed 0 (now 3)" in message


def test_run_folders_and_somebody_elses_are_refused(finished_run, capsys, tmp_path, coin):
    folder, _ = finished_run
    file = fixture(tmp_path, "aime24")
    words = "--bench", f"aime24={file}", *FAST
    message = message_of(capsys, evaluation.main, "bench", folder, *words)
    assert "is a run folder: give its checkpoints" in message
    out = "--out", tmp_path  # it holds the fixture
    message = message_of(capsys, evaluation.main, "bench", folder / "srt", *words, *out)
    assert "was not made by a run" in message


def test_bootstrap_counts_questions():
    g = np.random.default_rng(0)
    values = g.random(200)
    low, high = bootstrapped(values)
    half = 1.96 * values.std() / np.sqrt(200)
    assert low < values.mean() < high and high - low == pytest.approx(2 * half, rel=0.1)


# --------------------------------------------------------------------------------------------------
# Training questions in benchmarks
# --------------------------------------------------------------------------------------------------
def question(text, name="") -> dict:
    return {"prompt": text + kit.questions.MATH_INSTRUCTION, "answer": "1", "id": name}


def test_overlap_finds_copies_and_leaves_others_alone():
    text = "Let $x$ and $y$ be real numbers with $x+y=7$ and $xy=3$. Find the value of $x^2+y^2$."
    training = [question("What is 1+1?"), question(text.upper().replace("$", " "))]
    asked = [
        question(text, "copy"),
        question(text.replace("Let", "So let"), "half"),
        question("How many primes lie below one hundred and fifty four, and why so few?", "new"),
        question("What is 1 + 1?", "short"),
        question("What is 1+2?", "short, another"),
    ]
    found = overlap(training, asked)
    assert found["same"] == ["copy", "short"]
    assert found["half"] == ["copy", "half"] == found["any"]
    line = kit.overlap.in_words("AIME24", found)
    assert "of 5 questions 2 the same, 2 share half" in line and "copy, short, half" in line


def test_overlap_with_a_file_of_training_questions(finished_run, coin, capsys, tmp_path):
    folder, _ = finished_run
    rows = rows_of("aime24")
    file = write_lines(tmp_path / "t.jsonl", [{**rows[1], "problem": "what IS 1 + 1"}])
    assert evaluation.main(bench(tmp_path, folder, "--training", file)) == 0
    out = capsys.readouterr().out
    assert "AIME24: of 3 questions 1 the same" in out and "MATH: of 3 questions 0 the same" in out


# --------------------------------------------------------------------------------------------------
# The paper's tables
# --------------------------------------------------------------------------------------------------
def test_the_papers_averages_follow_from_its_rows():
    """As far as the paper's own do: within its rounding."""
    for rows in (*paper_tables.TABLE_1.values(), *paper_tables.TABLE_7.values()):
        for row, (*values, average) in rows.items():
            assert abs(np.mean(values) - average) < 0.16, row
    for name, (_, _, _, first, revised, rate) in paper_tables.REVISED.items():
        assert abs(100 * (revised - first) / (100 - first) - rate) < 0.16, name
    for table in (paper_tables.TABLE_8, paper_tables.TABLE_10):
        for *values, average in table.values():
            assert abs(np.mean(values) - average) < 0.16


def test_rows_of_runs():
    assert (
        row_of({"method": "grpo"}, "grpo") == "GRPO" and row_of({"method": "sft"}, "base") == "base"
    )
    assert row_of({}, "sdzero") == "SD-Zero" and row_of({}, "srt") == "SRT"
    assert row_of({"phase1": False}, "sdzero") == "phase 2 only"
    assert row_of({"l_revision": False}, "srt") == "SRT, L_generation only"
    assert row_of({"l_generation": "none"}, "srt") == "SRT, L_revision only"
    assert row_of({"l_answer": True}, "srt") == "" == row_of({}, "round 1")
    controls = [{"flip_reward": True}, {"filtered": False}, {"divergence": "jsd"}, {"tail": True}]
    controls += [{"term_clip": 0.1}, {"phrase_if_right": " ", "phrase_if_wrong": " "}]
    controls += [{"kl_clip": 0.5}, {"l_generation": "wrong"}]
    for control in controls:
        assert row_of(control, "sdzero") == ""
    assert row_of({"rounds": 2}, "sdzero") == "SD-Zero"
    for control in ({"rounds": 8}, {"on_revisions": True}):
        assert row_of({"method": "rft", **control}, "rft") == ""
    assert row_of({"l_generation": "wrong", "srt_in_turn": True}, "sdzero") == "SD-Zero"
    assert row_of({"method": "sdft"}, "sdft") == "SDFT"
    assert row_of({"method": "sdft", "shown": "answer"}, "sdft") == "SDFT, final answers only"
    assert paper_place("Qwen/Qwen3-4B-Instruct-2507") == ("qwen", "base")
    assert paper_place("allenai/Olmo-3-7B-Instruct") == ("olmo", "base")


def test_the_papers_tables_have_our_rows_beside_them(finished_run, coin, capsys, tmp_path):
    folder, results = finished_run
    assert evaluation.main(["paper", str(folder), "--bench", str(tmp_path / "none")]) == 0
    empty = capsys.readouterr().out
    for number in (1, 3, 7, 8, 9, 10, 11, 12, 13):
        assert f"Table {number}, " in empty
    assert empty.index("Table 3,") < empty.index("Table 7,") < empty.index("Table 10,")
    assert "0 of them stand in" in empty

    assert evaluation.main(bench(tmp_path, folder, "--revise")) == 0
    measured = json.loads((tmp_path / "out/bench.json").read_text())["checkpoints"]
    capsys.readouterr()
    file = tmp_path / "ours.json"
    words = ["paper", str(folder), "--bench", str(tmp_path / "out"), "--json", str(file)]
    assert evaluation.main(words) == 0
    tables = json.loads(file.read_text())
    lines = tables["Table 1, avg@8, qwen"]
    place = [line[0] for line in lines].index("SD-Zero")
    assert lines[place][1] == "68.3" and lines[place + 1][0] == "  ours"
    ours = measured[str(folder / "sdzero")]
    assert lines[place + 1][1] == f"{100 * ours['aime24']['accuracy']:.1f}"
    assert lines[place + 1][2] == "" and lines[place + 1][-1] == ""  # not measured: no average
    revised = tables["Table 9, generate, then revise"]
    place = [line[0] for line in revised].index("SRT") + 1
    of_srt = measured[str(folder / "srt")]["aime24"]["revise"]
    assert revised[place][2] == f"{of_srt['initial_tokens']:.1f}"
    spent = tables["Table 3, samples of training"]
    place = [line[0] for line in spent].index("SRT") + 1
    assert spent[place][1] == "18"  # six questions, one first answer, two revisions
    assert [line[1] for line in spent if line[0] == "  ours"][-2:] == ["8", "26"]  # phase 2, both


def test_paper_refuses_what_is_no_run(tmp_path, capsys):
    message = message_of(capsys, evaluation.main, "paper", tmp_path)
    assert "is not the folder of a run" in message
    assert paper.measured_in(tmp_path) == {}


def test_a_journal_whose_settings_cannot_be_read_is_begun_anew(tmp_path):
    """Nobody knows what its batches were sampled with: their keys do not say."""
    file = tmp_path / "rollouts.jsonl"
    for head in ("", '{"settings": {"temp'):
        file.write_text(head + '\n{"key": "a", "batch": [[1]]}\n')
        journal = Journal(file, {"temperature": 0.2})
        assert journal.recall("a") is None
        journal.remember("a", [[2]])
        again = Journal(file, {"temperature": 0.2})
        assert again.recall("a") == [[2]]
        with pytest.raises(UserError, match="temperature 0.2 .now 0.7"):
            Journal(file, {"temperature": 0.7})
