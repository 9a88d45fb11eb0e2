"""eval.py copied: whether the reviser knows a sum, or reads it off the first answer."""

import random
import shutil
from dataclasses import replace

import pytest
from toys import message_of, plain_run, random_model, response_logits, rows_of_ids, small

import eval as evaluation
import sdzero
from kit.questions import arith_questions, column_addition
from studies import copied


def parts_of(transcript):
    """Sums of the columns, and the result's digits from the right."""
    *columns, box = transcript.split(";")
    return [column.split("=") for column in columns], box[len("\\boxed{") : -1][::-1]


def test_a_slip_changes_one_digit_of_a_sum_and_of_the_result():
    rng = random.Random(0)
    for _ in range(300):
        a, b, place, by = rng.randint(100, 999), rng.randint(100, 999), *rng.sample(range(3), 2)
        by += 1
        right = parts_of(column_addition(a, b))
        wrong = parts_of(copied.with_a_slip(a, b, place, by))
        for p, (was, now) in enumerate(zip(right[0], wrong[0])):
            assert was[0] == now[0], "what is added, and the carry"
            expected = (int(was[1][-1]) + by * (p == place)) % 10
            assert now[1][:-1] == was[1][:-1] and int(now[1][-1]) == expected
        differ = [p for p, (was, now) in enumerate(zip(right[1], wrong[1])) if was != now]
        assert differ == [place] and len(right[1]) == len(wrong[1])


def test_probabilities_are_the_models():
    model, run = random_model(), plain_run(small(micro_tokens=60))
    asked = list(rows_of_ids(7))
    found = copied.probabilities(run, model, asked)
    for (context, ids), value in zip(asked, found):
        p = response_logits(model, context, ids)[-1].softmax(-1)[ids[-1]].item()
        assert value == pytest.approx(p, rel=1e-4)


def test_one_that_copies_and_one_that_knows_are_told_apart(tokenizer, monkeypatch):
    questions = arith_questions(20, 3, seed=0)
    run = replace(plain_run(small(digits=3), end_ids=[2]), tokenizer=tokenizer)
    run.phrases = sdzero.phrase_ids(tokenizer, sdzero.control_phrases(run.cfg, "qwen3"))

    def copies(run, model, asked):
        """1 where the column asked about stands like that in the context."""
        return [
            float(tokenizer.decode(response).split(";")[-1] in tokenizer.decode(context))
            for context, response in asked
        ]

    def knows(run, model, asked):
        """1 where the sum is right, wherever it stands."""
        columns = (tokenizer.decode(response).split(";")[-1].split("=") for _, response in asked)
        return [float(sum(map(int, terms.split("+"))) == int(total)) for terms, total in columns]

    monkeypatch.setattr(copied, "probabilities", copies)
    shares = copied.shares_of(run, None, questions)
    assert [shares[way] for way in copied.WAYS] == [0, 1, 0]
    monkeypatch.setattr(copied, "probabilities", knows)
    shares = copied.shares_of(run, None, questions)
    assert [shares[way] for way in copied.WAYS] == [1, 1, 1]


def test_copied_of_runs(finished_run, tmp_path, capsys):
    runs = [tmp_path / name for name in ("a", "b")]
    for run in runs:
        shutil.copytree(finished_run[0], run)
    assert evaluation.main(["copied", *map(str, runs)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in rows] == [["base", "2"], ["srt", "2"], ["sdzero", "2"]]
    assert all(way in head for way in copied.WAYS)
    assert all(0 <= float(row.split()[2]) <= 100 for row in rows)


def test_what_is_no_run_of_the_embedded_task_is_refused(finished_run, tmp_path, capsys):
    assert "is not a run folder" in message_of(capsys, evaluation.main, "copied", tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished_run[0], run)
    text = (run / "config.json").read_text().replace('"task": "arith"', '"task": "countdown"')
    (run / "config.json").write_text(text)
    assert "--task arith" in message_of(capsys, evaluation.main, "copied", run)
