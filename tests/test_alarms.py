"""Warnings that save a day: when each is said, that it says what to do, and that it comes once."""

from types import SimpleNamespace

import pytest
from toys import small

import kit
import sdzero
from kit.alarms import Alarms


def step(phase="distil", **values):
    usual = {"phase": phase, "reward": 0.5, "length": 100.0, "truncated": 0.0, "loss": 1.0}
    return {**usual, **values}


def sampled(phase, **values):
    """A line of a phase that samples once: it trains nothing."""
    return {k: v for k, v in step(phase, **values).items() if k != "loss"}


@pytest.fixture
def said(capsys):
    def lines():
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]

    return lines


@pytest.mark.parametrize(
    "values, words",
    [
        ({"reward": 0.01}, "easier questions"),
        ({"reward": 1.0}, "harder questions"),
        ({"truncated": 0.06}, "--max-tokens"),
    ],
)
def test_what_is_sampled_once_is_judged_at_once(said, values, words):
    alarms = Alarms()
    for _ in range(3):
        alarms.look_at(sampled("init", **values))
    (line,) = said()
    assert words in line and "init" in line


def test_steps_are_judged_by_twenty_of_them(said):
    alarms = Alarms()
    for _ in range(19):
        alarms.look_at(step(reward=0.0, truncated=0.1))
    assert said() == []  # a batch may have no right answer
    for _ in range(30):
        alarms.look_at(step(reward=0.0, truncated=0.1))
    assert len(said()) == 2
    alarms = Alarms()
    for i in range(60):
        alarms.look_at(step(reward=float(i % 2), truncated=0.1 * (i % 3 == 0), length=100 + i % 7))
    assert said() == []


def test_length_that_falls_for_twenty_steps(said):
    alarms = Alarms()
    for i in range(25):
        alarms.look_at(step(length=100.0 - 2 * i))
    (line,) = said()
    assert "shorter" in line and "--distil-lr" in line
    alarms = Alarms()
    for i in range(40):
        alarms.look_at(step(length=100.0 - 0.2 * i))  # what phase 2 does to a verbose model
    assert said() == []


def test_entropy_near_0(said):
    alarms = Alarms()
    for _ in range(19):
        alarms.look_at(step(entropy=0.0005))
    assert said() == []
    for _ in range(30):
        alarms.look_at(step(entropy=0.0005))
    (line,) = said()
    assert "entropy" in line and "--distil-temperature" in line
    alarms = Alarms()
    for i in range(60):  # one sure step is none; and grpo has no such number
        alarms.look_at(step(entropy=0.0 if i % 20 == 0 else 0.002))
        alarms.look_at(step("grpo"))
    assert said() == []


@pytest.mark.parametrize(
    "name, thinks",
    [
        ("Qwen/Qwen3-4B-Thinking-2507", True),
        ("allenai/Olmo-3-7B-Think", True),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", True),
        ("Qwen/QwQ-32B", True),
        ("microsoft/Phi-4-mini-reasoning", True),
        ("openai/gpt-oss-20b", True),
        ("Qwen/Qwen3-4B-Instruct", False),
        ("allenai/Olmo-3-7B-Instruct", False),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", False),
        ("out/thinking-about-it/srt", False),
    ],
)
def test_models_that_think_by_their_name(said, name, thinks):
    alarms = Alarms()
    for _ in range(2):
        alarms.look_at_options(sdzero.make_config(model=name))
    lines = said()
    assert len(lines) == thinks and all("Table 14" in line for line in lines)


def test_models_that_think_by_their_answers(said):
    def answers(*texts):
        return [{"text": text} for text in texts]

    alarms = Alarms()
    alarms.look_at_answers(answers(*["4"] * 19, "<think>\n4"))
    assert said() == []
    for _ in range(2):
        alarms.look_at_answers(answers("so 4.</think> 4", "4", "<think>hm"))
    (line,) = said()
    assert "67 %" in line and "instruct" in line
    # one line about it, whichever way it shows first
    alarms.look_at_options(sdzero.make_config(model="a/b-thinking"))
    assert said() == []


def test_a_base_that_never_revises(said):
    alarms = Alarms()
    for name, rate in (("base", 0.1), ("base", None), ("srt", 0.0), ("base", 0.0), ("base", 0.0)):
        alarms.look_at_result(name, {"correction_rate": rate})
    (line,) = said()
    assert "--revisions" in line


def test_learning_rates_far_from_the_recipe(said):
    Alarms().look_at_options(sdzero.make_config(model="tiny"))
    Alarms().look_at_options(sdzero.make_config(model="tiny", lora=8))
    assert said() == []
    Alarms().look_at_options(sdzero.make_config(model="tiny", srt_lr=1e-2, distil_lr=1e-5))
    high, low = said()
    assert "--srt-lr 0.01 is 10 times" in high and "--distil-lr 1e-05" in low


def tokenizer_with(system: bool, think: str = ""):
    def apply_chat_template(messages, **_):
        kept = [m["content"] for m in messages if system or m["role"] != "system"]
        return "\n".join(kept) + "\nassistant:" + think

    return SimpleNamespace(apply_chat_template=apply_chat_template)


def test_templates_that_drop_the_system_message_or_think(said, tokenizer):
    Alarms().look_at_template(tokenizer, small())
    Alarms().look_at_template(tokenizer_with(True), small(system="Be brief."))
    Alarms().look_at_template(tokenizer_with(False), small())
    assert said() == []
    Alarms().look_at_template(tokenizer_with(False), small(system="Be brief."))
    Alarms().look_at_template(tokenizer_with(True, "<think>\n"), small())
    Alarms().look_at_template(tokenizer_with(True, "<think>\n\n</think>\n"), small())
    dropped, opened, empty = said()
    assert "--instruction" in dropped and "open <think>" in opened and "empty" in empty


def test_a_healthy_run_says_none(coin, checkpoint, tmp_path, said):
    """But of learning rates: those of the tests are not the recipe's."""
    from toys import train

    train(small(checkpoint, out=str(tmp_path / "run"), max_tokens=40))
    assert [line for line in said() if "learning" not in line and "recipe" not in line] == []


def test_a_run_says_them_as_it_logs(run_of, said):
    run = run_of(small())
    run.folder.belongs_to(small(srt_lr=1.0))
    run.folder.log("init", 0, reward=0.0, length=5.0, truncated=0.0)
    run.folder.keep_result("base", {"correction_rate": 0.0}, 0)
    sample = {"text": "<think>", "reward": 1.0, "ids": [1], "finished": True}
    run.folder.count([sample])
    assert len(said()) >= 4
    assert set(kit.run_folder.MEASURED) <= {"seconds", "tokens_per_second", "memory", "left"}
