"""--show-every and "entropy": what people see of a step, which training must not read."""

import math
import re
import sys
from dataclasses import replace

import pytest
import torch
from toys import (
    END_IDS,
    as_samples,
    lines_of,
    plain_run,
    random_model,
    response_logits,
    rows_of_ids,
    small,
    train,
    with_teacher,
)

import kit
import sdzero
from kit import disagreement, shades


@pytest.fixture
def noted(model):
    """(run, samples) behind one backward pass over several passes."""
    run = plain_run(small(micro_tokens=60))
    samples = with_teacher(run, as_samples(rows_of_ids(9, seed=4)))
    student, teacher = random_model(1), model
    loss = sdzero.backward_kl(run, student, teacher, samples)
    return run, samples, student, loss


def test_every_token_has_the_divergence_that_was_trained_on(noted):
    run, samples, _, loss = noted
    assert [len(s["divergence"]) for s in samples] == [len(s["ids"]) for s in samples]
    total = sum(float(s["divergence"].sum()) for s in samples)
    assert total / sum(len(s["ids"]) for s in samples) == pytest.approx(loss, rel=1e-5)


@torch.no_grad()
def test_entropy_is_that_of_the_students_distribution(noted, monkeypatch):
    run, samples, student, _ = noted
    passes = kit.losses.micro_batches([len(s["context"]) + len(s["ids"]) for s in samples], 60)
    by_hand = []
    for rows in passes:
        logits = [response_logits(student, samples[i]["context"], samples[i]["ids"]) for i in rows]
        p = torch.cat(logits).softmax(-1)  # (N, V)
        assert len(p) <= disagreement.MEASURED  # so every token is measured
        by_hand.append(-(p * p.log()).sum(-1))
    expected = float(torch.cat(by_hand).mean())
    assert disagreement.told(run, 0, samples) == {"entropy": pytest.approx(expected, rel=1e-4)}
    # a loss of another kind may note nothing
    assert disagreement.told(run, 0, [{"ids": [1], "reward": 0.0}]) == {}
    # of a long pass some are, evenly spaced
    monkeypatch.setattr(disagreement, "MEASURED", 5)
    hidden = torch.randn(12, 32)
    sample = {"ids": [1] * 12}
    disagreement.note([sample], torch.zeros(12), student, hidden)
    logits = hidden[::3] @ student.get_output_embeddings().weight.T
    p = logits.softmax(-1)
    torch.testing.assert_close(sample["entropy"], -(p * p.log()).sum(-1), rtol=1e-4, atol=1e-5)


def test_it_changes_no_weight(coin, checkpoint, tmp_path, capsys, monkeypatch):
    cfg, weights = small(checkpoint, method="sdzero", phase1=False), {}
    for name, every in (("with", 2), ("without", 0)):
        if not every:  # nor does what is measured in any case
            monkeypatch.setattr(disagreement, "note", lambda *_: None)
            monkeypatch.setattr(disagreement, "told", lambda *_: {})
        capsys.readouterr()
        out = tmp_path / name
        train(replace(cfg, out=str(out), show_every=every))
        weights[name] = (out / "sdzero" / "model.safetensors").read_bytes()
        shown = re.findall(r"--- step (\d+), a (right|wrong) answer", capsys.readouterr().out)
        assert [int(step) for step, _ in shown] == ([0, 2] if every else [])
    assert weights["with"] == weights["without"]
    lines = lines_of(tmp_path / "with" / "metrics.jsonl")
    assert all(0 < line["entropy"] < math.log(336) for line in lines)


# --------------------------------------------------------------------------------------------------
# In a terminal
# --------------------------------------------------------------------------------------------------
class Terminal:
    def isatty(self):
        return True


def on_terminal(monkeypatch, **environment):
    for name in ("NO_COLOR", "TERM", "WT_SESSION", "ANSICON"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        return shades.terminal_has_colours()


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    assert on_terminal(monkeypatch, TERM="xterm-256color")
    assert not on_terminal(monkeypatch, TERM="dumb")
    assert not on_terminal(monkeypatch, TERM="xterm", NO_COLOR="1")
    assert on_terminal(monkeypatch, TERM="xterm", NO_COLOR="")  # as no-color.org has it
    assert not shades.terminal_has_colours()  # pytest catches standard output
    monkeypatch.setattr(sys, "platform", "win32")
    assert not on_terminal(monkeypatch) and on_terminal(monkeypatch, WT_SESSION="x")


def test_each_token_has_a_colour_by_its_value(monkeypatch):
    tokens, values = ["a", " b", "c\n", "d"], [0.0, 0.5, 5.0, 0.01]
    plain = disagreement.painted(tokens, values)
    assert plain == "[[a]][[ b]][[c\n]][[d]]"
    monkeypatch.setattr(disagreement, "MARKED", 2)
    assert disagreement.painted(tokens, values) == "a[[ b]][[c\n]]d"
    monkeypatch.setattr(shades, "terminal_has_colours", lambda: True)
    text = disagreement.painted(tokens, values)
    full = shades.LEVELS[-1]
    assert text.startswith("a\x1b[48;5;") and text.endswith(f"{full};38;5;16mc\x1b[0m\nd")
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == "a bc\nd"


def test_an_answer_commands_no_terminal_and_is_no_flood(tokenizer, monkeypatch):
    ids = [10] * 3000
    values = torch.zeros(3000)
    values[2000] = 3.0
    sample = {"ids": ids, "divergence": values, "reward": 0.0}
    sample["question"] = {"prompt": [{"role": "user", "content": "\x1b[2Jwhy?"}]}
    monkeypatch.setattr(disagreement, "texts_of", lambda _, ids: ["\x1b]0;x\x07"] * len(ids))
    text = disagreement.answer(tokenizer, 40, sample)
    assert "\x1b" not in text and "\x07" not in text and "why?" in text
    assert len(text) < 10 * disagreement.SHOWN
    assert "step 40, a wrong answer: 3000 tokens" in text and "tokens 1801 to 2200" in text
    short = {**sample, "ids": ids[:3], "divergence": torch.tensor([0.0, 2.0, 1.0]), "reward": 1.0}
    assert "shown:" not in disagreement.answer(tokenizer, 0, short)


def test_tokens_of_a_response_are_shown_as_they_are(tokenizer):
    ids = tokenizer.encode("12+3=\\boxed{15}", add_special_tokens=False) + END_IDS[:1]
    assert "".join(kit.tokens.texts_of(tokenizer, ids)) == tokenizer.decode(ids)
