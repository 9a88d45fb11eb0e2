"""--task gym:NAME, against a small stand-in for reasoning-gym; the real one where it is there."""

import sys
from pathlib import Path

import pytest
from toys import message_of, small

import kit
import sdzero
from kit.errors import UserError
from kit.questions import load_questions

STAND_IN = """
import random
from dataclasses import dataclass
from types import SimpleNamespace

@dataclass
class SumConfig:
    largest: int = 1000
    words: str = "plus"
    seed: int = 0
    size: int = 500

    def validate(self):
        assert self.largest > 1, "largest must be above 1"

class Sums:
    def __init__(self, config):
        self.config = config
        config.validate()

    def __getitem__(self, place):
        rng = random.Random(self.config.seed + place)
        a, b = rng.randrange(self.config.largest), rng.randrange(self.config.largest)
        question = f"{a} {self.config.words} {b}?"
        return {"question": question, "answer": str(a + b), "metadata": {(a, b): {a}}}

    def score_answer(self, answer, entry):
        assert all(isinstance(key, tuple) for key in entry["metadata"])
        return 1.0 if int(answer) == int(entry["answer"]) else 0.5

factory = SimpleNamespace(DATASETS={"sums": (Sums, SumConfig), "chain_sum": (Sums, SumConfig)})

def create_dataset(name, **options):
    return Sums(SumConfig(**options))
"""


@pytest.fixture
def gym(tmp_path, monkeypatch):
    (tmp_path / "reasoning_gym.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # the workers'
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    yield
    sys.modules.pop("reasoning_gym", None)


def test_four_sets_of_different_questions(gym):
    cfg = small(task="gym:sums", gym_options="largest=7,words=joined")
    sets = load_questions(cfg)
    prompts = [q["prompt"] for of_set in sets.values() for q in of_set]
    assert len(set(prompts)) == len(prompts) == 6 + 8 + 5 + 5
    assert all(" joined " in prompt and "<answer>" in prompt for prompt in prompts)
    seeds = {name: {q["gym"]["seed"] for q in of_set} for name, of_set in sets.items()}
    assert len(set().union(*seeds.values())) == 4
    assert load_questions(cfg) == sets
    assert load_questions(small(task=cfg.task, seed=1))["test"] != sets["test"]
    told = small(task="gym:sums", instruction=" Say <answer>.")
    assert load_questions(told)["test"][0]["prompt"].endswith("? Say <answer>.")


def test_a_sets_seeds_are_its_own_whether_examples_are_shown_or_not(gym):
    """Or what one command trained on would be what another one tests with."""
    seeds = {}
    for seed in range(6):
        for shots in (0, 2):
            sets = load_questions(small(task="gym:sums", seed=seed, shots=shots))
            for name, questions in sets.items():
                for q in questions:
                    seeds.setdefault(q["gym"]["seed"], set()).add((seed, name))
    assert len(seeds) == 6 * 4 and all(len(of_it) == 1 for of_it in seeds.values())
    load_questions(small(task="gym:sums", seed=199))
    with pytest.raises(UserError, match="0 to 199"):
        load_questions(small(task="gym:sums", seed=200))


def test_its_own_scorer_is_the_reward(gym):
    cfg = small(task="gym:sums", gym_options="largest=50")
    questions = load_questions(cfg)["test"]
    right = [f"so <answer> {q['answer']} </answer>" for q in questions]
    with sdzero.make_grader(cfg) as grader:
        assert grader.grade(right, questions) == [1.0] * len(questions)
        q = questions[0]
        others = [
            f"<answer>{int(q['answer']) + 1}</answer>",  # half the points
            "<answer>no number</answer>",  # the scorer raises
            q["answer"],  # no answer was stated
            f"<think><answer>{q['answer']}</answer></think> unsure",
            f"<answer>1</answer> no: <answer>{q['answer']}</answer>",
        ]
        assert grader.grade(others, [q] * 5) == [0.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "task, options, words",
    [
        ("gym:chain_sums", "", "chain_sum"),
        ("gym:sums", "bigest=3", "largest, words"),
        ("gym:sums", "largst=3", "did you mean largest"),
        ("gym:sums", "largest=1", "largest must be above 1"),
        ("gym:sums", "largest", "key=value"),
        ("gym:sums", "largest=f(2)", "key=value"),
        ("gym:sums", "largest={[1]:2}", "key=value"),
        ("gym:sums", "largest=2", "only"),
    ],
)
def test_what_cannot_be_asked_is_said(gym, task, options, words):
    with pytest.raises(UserError, match=words):
        load_questions(small(task=task, gym_options=options))


def test_options_are_values():
    found = kit.gym.options_in("a=1, b=[1, 2],c=hard,d=True,e='x,y'")
    assert found == {"a": 1, "b": [1, 2], "c": "hard", "d": True, "e": "x,y"}
    assert kit.gym.options_in("") == {}


def test_without_the_package(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    command = ["--task", "gym:sums", "--out", tmp_path / "run"]
    assert "pip install reasoning-gym" in message_of(capsys, sdzero.main, *command)


def test_the_command_line(tmp_path, capsys):
    for words in (["--task", "gym:"], ["--task", "gyms"]):
        assert "gym:NAME" in message_of(capsys, sdzero.main, *words)
    assert "gym" in message_of(capsys, sdzero.main, "--gym-options", "a=1")
    both = ["--task", "gym:sums", "--data", tmp_path]
    assert "excludes --data" in message_of(capsys, sdzero.main, *both)
    assert sdzero.make_config(task="gym:sums").out == str(Path("out") / "tiny-gym-sums-0")
    with pytest.raises(UserError, match="--task"):
        sdzero.make_config(task="gym:")


def test_every_data_set_of_the_real_package():
    gym = pytest.importorskip("reasoning_gym")
    refused = []
    for name in gym.factory.DATASETS:
        cfg = small(task=f"gym:{name}", srt_questions=1, distil_questions=1, eval_questions=1)
        try:
            sets = load_questions(cfg)
            assert all(len(of_set) == 1 for of_set in sets.values())
        except UserError as e:
            refused.append(f"{name}: {e}")
    assert [line.split(":")[0] for line in refused] == ["composite"]  # of other data sets
