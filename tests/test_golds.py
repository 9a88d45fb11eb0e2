"""Gold answers: what nothing could equal is a bad row with the reason, all else is read."""

import json
from decimal import Decimal

import pytest
from corpora import ROOT, rows
from toys import write_lines

from grading.golds import read_gold
from kit.questions import file_questions

AS_THEY_ARE = [
    *("42", r"\frac{1}{2}", "x = 5 or x = 7", "x=1\ny=2", "(A) 3", "Monday", "no solution"),
    *("[1,2]", "[0, 1)", r"(-\infty, 3] \cup [5, \infty)", "{1,2}", "yes", "y = 2x + 1"),
    *("St. Petersburg", "John F. Kennedy", "12:30 p.m.", "1. 5\n2. 6", "print", "import", "x if y"),
    "for all n",
    "No. The lines are parallel.",
    "星期一",
    "Москва",
    "He sold more in May than in June",
    "No, it is impossible",
    "(B) The first and the third statement",
    "$f(n)=n$ and $f(n)=2n$",
    "All functions of the form f(x) = cx where c is a constant with c > 0",
    r"f(x)=ax+b \text{ for some real constants } a, b",
    "\\begin{pmatrix}1&0\\\\\n0&1\\end{pmatrix}",
    "2+2=4\n#### 4",
    r"We get $5$. So it is \boxed{5}.",
    r"def f \boxed{1}",
]


@pytest.mark.parametrize(
    "value, text",
    [
        *((text, text) for text in AS_THEY_ARE),
        *((x, "7") for x in (7, "7", ["7"], [7], ("7",), '["7"]', "['7']", Decimal(7), " 7 ")),
        *((x, "2.50") for x in (Decimal("2.50"), "2.50")),
        (["1", "2"], "1, 2"),
        (2.5, "2.5"),
        (1e-7, "0.0000001"),
        (Decimal("1E+2"), "100"),
        ("Adding both we get 3+4. The answer is 7.", "7"),
        ("The final answer is 42.", "42"),
    ],
    ids=str,
)
def test_golds_are_read(value, text):
    assert read_gold(value) == text


@pytest.mark.parametrize(
    "value, why",
    [
        *((value, "no answer") for value in ("", "  ", None, True, [], [None], {"a": 1})),
        *((value, "no answer") for value in (float("nan"), float("inf"), Decimal("NaN"))),
        (["7", {}], "no answer"),
        ("2+2=4\n####", "at its mark"),
        ("#### \n", "at its mark"),
        (r"So it is \boxed{}.", "at its mark"),
        ("First we add 2 and 2. Then we get 4.", "text without a box"),
        ("She has 3 apples and buys 4 more, so in the end she has 7 apples", "text without a box"),
        ("Let $x$ be the apples. Then $2x=8$, hence $x=4$ and we are done.", "text without a box"),
        ("The cost is found by adding both parts:\n3+4=7\nand the rest is paid", "without a box"),
        (r"The last box was \boxed{5 cut off. Then we never closed it again.", "text without"),
        ("Сначала сложим оба числа вместе. Потом получим ровно четыре.", "text without"),
        ("首先我们把两个数相加。然后得到四。", "text without"),
        ("def f(x):\n    return x", "a program"),
        ("print(int(input()) + 1)", "a program"),
        ("import sys\nfor line in sys.stdin: print(line)", "a program"),
        ("```python\nx = 1\n```", "a program"),
        ("#include <iostream>\nint main() {}", "a program"),
        ("class Solution:\n    def f(self): return 1", "a program"),
        ("9" * 1001, "longer than 1000"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_golds_that_nothing_equals_are_refused(value, why):
    with pytest.raises(ValueError, match=why):
        read_gold(value)


def test_no_gold_that_the_corpus_pays_is_refused():
    paid = [r["gold"] for r in (*rows("math.jsonl"), *rows("math_hostile.jsonl")) if r["reward"]]
    assert len(paid) > 1000
    refused = []
    for gold in paid:
        try:
            assert read_gold(gold).strip()
        except ValueError as e:
            refused.append((gold, str(e)))
    assert refused == []


def test_such_rows_are_counted_and_named(tmp_path, capsys):
    lines = [
        {"question": "a?", "answer": "2+2=4\n####"},
        {"question": "b?", "answer": "First we add 2 and 2. Then we get 4."},
        {"question": "c?", "answer": "print(4)"},
        {"question": "d?", "solution": "print(4)", "inputs": ["1"], "outputs": ["4"]},
        {"question": "e?", "inputs": ["1"], "outputs": ["4"]},
        {"question": "f?", "answer": ["4"]},
        {"question": "g?", "answer": " ", "solution": r"So it is \boxed{4}."},
        {"question": "h?", "answer": "2+2=4\n####", "solution": r"So it is \boxed{4}."},
        {"question": "i?", "answer": None, "final_answer": float("nan"), "target": 4},
        {"question": "j?", "answer": "4", "tests": []},
    ]
    got = file_questions(write_lines(tmp_path / "q.jsonl", lines))
    boxed = r"So it is \boxed{4}."
    assert [q["answer"] for q in got] == ["4", boxed, boxed, "4", "4"]
    out = capsys.readouterr().out
    assert "5 of 10 rows left out" in out
    for number, words in enumerate(("its mark", "text without", "a program"), 1):
        assert f"line {number}: " in out and words in out
    assert out.count("--task code") == 3 and "line 5: no answer, but tests" in out


def test_decimals_of_a_parquet_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    lines = [{"question": f"{i}?", "answer": Decimal(f"{i}.50")} for i in range(2)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines), tmp_path / "q.parquet")
    got = file_questions(str(tmp_path / "q.parquet"))
    assert [q["answer"] for q in got] == ["0.50", "1.50"]
    assert json.dumps(got)


def test_the_repositorys_code_problems_are_not_taken_for_mathematics():
    from kit.errors import UserError

    with pytest.raises(UserError, match="give --task code"):
        file_questions(str(ROOT / "problems" / "code.jsonl"))
