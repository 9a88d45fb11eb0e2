"""Rollouts: what is sampled, what a cut-off response is worth, and memory that runs out."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import (
    END_IDS,
    CoinGrader,
    addition,
    lines_of,
    plain_run,
    random_model,
    response_logits,
    rows_of_ids,
    small,
)

import kit
import sdzero
from kit.errors import UserError

NO_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 9 bytes."
    ),
}
SETTINGS = [
    dict(top_k=1),
    dict(top_p=0.01),
    dict(min_p=0.9),
    dict(typical_p=0.05),
    dict(epsilon_cutoff=0.3),
    dict(top_h=0.1),
    dict(temperature=0.01),
    dict(repetition_penalty=9.0),
    dict(encoder_repetition_penalty=9.0),
    dict(no_repeat_ngram_size=1),
    dict(suppress_tokens=list(range(2, 170))),
    dict(begin_suppress_tokens=list(range(2, 170))),
    dict(sequence_bias=[[[5], 9.0]]),
    dict(bad_words_ids=[[i] for i in range(2, 170)]),
    dict(forced_eos_token_id=2),
    dict(min_new_tokens=1),
    dict(max_length=3),
    dict(guidance_scale=3.0),
    dict(num_beams=3),
    dict(num_return_sequences=2),
]


def greedy(run, model, prompts):
    return sdzero.generate(run, model, prompts, 0, greedy=True)


# --------------------------------------------------------------------------------------------------
# The distribution
# --------------------------------------------------------------------------------------------------
def chi_squared(seen, expected):
    """(chi squared, degrees of freedom), the rare tokens in one bin."""
    common = expected >= 5
    expected = np.append(expected[common], expected[~common].sum())
    seen = np.append(seen[common], seen[~common].sum())
    return float(((seen - expected) ** 2 / expected).sum()), len(expected) - 1


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: next(iter(s)))
def test_sampling_ignores_the_checkpoints_generation_config(setting):
    """4000 first tokens follow softmax(logits / T), whatever the checkpoint wants for its chats."""
    model, n, prompt = random_model(5), 4000, [2, 33, 34, 35, 36]
    for name, value in setting.items():
        setattr(model.generation_config, name, value)
    run = plain_run(small(temperature=0.7, max_tokens=1, rollout_batch=n), end_ids=[2, 180])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    assert greedy(run, model, [prompt]) == [[int(logits.argmax())]]
    tokens = [ids[0] for ids in sdzero.generate(run, model, [prompt] * n, 0)]
    expected = n * torch.softmax(logits / 0.7, -1).numpy()
    chi2, freedom = chi_squared(np.bincount(tokens, minlength=len(expected)), expected)
    assert freedom > 5 and chi2 < freedom + 5 * math.sqrt(2 * freedom)
    assert getattr(model.generation_config, next(iter(setting))) is not None  # it was put back


def test_the_seed_decides_and_rows_of_a_batch_are_independent(model):
    run, prompts = plain_run(small(max_tokens=8)), [[33, 34, 35]] * 8
    a, again, b = (sdzero.generate(run, model, prompts, seed) for seed in (0, 0, 1))
    assert a == again != b
    assert len({tuple(ids) for ids in a}) > 4


def test_generation_leaves_the_global_random_state_alone(model):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    sdzero.generate(plain_run(small()), model, [[33, 34]], 7)
    assert torch.equal(before, torch.get_rng_state())


def test_greedy_answers_do_not_depend_on_the_batch(model):
    prompts = [c for c, _ in rows_of_ids(6, seed=3, context=(1, 40))]
    run = plain_run(small(max_tokens=20), end_ids=[2])
    together = greedy(run, model, prompts)
    assert together == [greedy(run, model, [p])[0] for p in prompts]
    by_four = plain_run(small(max_tokens=20, rollout_batch=4), end_ids=[2])
    assert together == sdzero.generate(by_four, model, prompts, 9, greedy=True)
    assert len({tuple(ids) for ids in together}) > 1
    for prompt, ids in zip(prompts, together):  # and it is the arg max of the model's own logits
        with torch.no_grad():
            assert response_logits(model, prompt, ids).argmax(-1).tolist() == ids


# --------------------------------------------------------------------------------------------------
# Ends and rewards
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ends", [[2], END_IDS])
@pytest.mark.parametrize("pad", [None, 2, 0])
def test_responses_end_at_the_first_end_token(ends, pad):
    """Pad missing, pad = end, or a pad of its own; one end token or several."""
    model = random_model(6, pad_token_id=pad, eos_token_id=ends)
    run = plain_run(small(max_tokens=15), end_ids=ends)
    responses = sdzero.generate(run, model, [c for c, _ in rows_of_ids(60)], 0)
    finished = [ids for ids in responses if ids[-1] in ends]
    cut = [ids for ids in responses if ids[-1] not in ends]
    assert all(not set(ids[:-1]) & set(ends) for ids in responses)  # only as the last one
    assert all(len(ids) == 15 for ids in cut) and all(1 <= len(ids) <= 15 for ids in responses)
    if len(ends) > 1:
        assert 0 < len(finished) < 60
        assert len({ids[-1] for ids in finished}) > 3 and len({len(ids) for ids in finished}) > 3


def test_a_truncated_response_is_wrong_whatever_it_says(
    monkeypatch, run_of, model, tokenizer, math_grader
):
    boxed = tokenizer.encode("\\boxed{46}", add_special_tokens=False)
    run = run_of(small(eval_samples=2), math_grader, [2])
    monkeypatch.setattr(sdzero, "generate", lambda *args, **kwargs: [boxed, [*boxed, 2]])
    cut, whole = sdzero.rollouts(run, model, [{"answer": "46"}] * 2, [[5]] * 2, 0)
    assert (cut["reward"], cut["finished"], cut["text"]) == (0.0, False, "\\boxed{46}")
    assert (whole["reward"], whole["finished"], whole["text"]) == (1.0, True, "\\boxed{46}")
    result = sdzero.evaluate(run, model, [addition(12, 34)], "base", revise=False)
    assert result["accuracy"] == 0.5 and result["truncated"] == 0.5
    expected = {"reward": 0.5, "length": len(boxed) + 0.5, "truncated": 0.5}
    assert run.folder.count([cut, whole]) == expected


def test_answers_that_were_not_graded_in_time_are_counted(monkeypatch, run_of, model):
    class Slow(CoinGrader):
        def grade(self, texts, answers):
            self.timeouts += 3
            return [0.0] * len(texts)

    monkeypatch.setattr(sdzero, "generate", lambda *args, **kwargs: [[5, 2]] * 4)
    run = run_of(small(), Slow(), [2])
    for step in range(2):
        samples = sdzero.rollouts(run, model, [addition(1, 2)] * 4, [[3]] * 4, 0)
        run.folder.log("distil", step, **run.folder.count(samples))
    lines = lines_of(run.folder.path / "metrics.jsonl")
    assert [m["timeouts"] for m in lines] == [3, 6]


# --------------------------------------------------------------------------------------------------
# The journal
# --------------------------------------------------------------------------------------------------
def test_a_batch_is_recalled_for_the_same_prompts_alone(run_of, model):
    """Label, seed, place and the prompts' ids make the key: none may differ."""
    run = run_of(small())
    prompts = [c for c, _ in rows_of_ids(4)]
    first = sdzero.generate(run, model, prompts, 7, "rollouts")
    journal = run.folder.path / "state" / "rollouts.jsonl"
    assert len(lines_of(journal)) == 1

    again = replace(run, folder=reopened(run))
    assert sdzero.generate(again, random_model(9), prompts, 7, "rollouts") == first  # not sampled
    assert len(lines_of(journal)) == 1

    changed = [prompts[0][:-1] + [5], *prompts[1:]]
    others = [(changed, 7, "rollouts"), (prompts, 8, "rollouts"), (prompts, 7, "other")]
    for n, (asked, seed, label) in enumerate(others, 2):
        assert sdzero.generate(again, random_model(9), asked, seed, label) != first
        assert len(lines_of(journal)) == n
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert len(set(keys)) == 4


def reopened(run):
    """The run's folder as the next start finds its journal."""
    run.folder.read_journal()
    return run.folder


# --------------------------------------------------------------------------------------------------
# Memory that runs out
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_rollout_batch_that_runs_out_of_memory_is_halved(monkeypatch, capsys, error):
    model, prompts = random_model(), [c for c, _ in rows_of_ids(9)]
    run = plain_run(small(max_tokens=10, rollout_batch=8), end_ids=[2])
    expected, real, sizes = greedy(run, model, prompts), type(model).generate, []

    def failing(self, input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 3:
            raise NO_MEMORY[error]
        return real(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model), "generate", failing)
    assert greedy(run, model, prompts) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 1] and run.room.sequences == 2
    assert "memory ran out" in capsys.readouterr().out


def test_one_sequence_that_does_not_fit_is_said_in_one_line(monkeypatch, model):
    def failing(self, input_ids, **kwargs):
        raise NO_MEMORY["CPU"]

    monkeypatch.setattr(type(model), "generate", failing)
    with pytest.raises(UserError, match="--max-tokens"):
        greedy(plain_run(small()), model, [[5], [6]])


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shape"):
        kit.losses.attempt(lambda: torch.ones(2).reshape(3))


@pytest.mark.parametrize(
    "rewards, message",
    [
        ([1.0, 0.1, 0.0], "gave 0.1, not 0 or 1"),
        ([1.0, None, 0.0], "gave None"),
        ([1.0, 0.0], "2 rewards for 3"),
    ],
)
def test_a_grader_of_ones_own_that_gives_no_verdict_is_refused(run_of, rewards, message):
    """A tenth for the form would be "right" to the reviser, and a verified revision."""

    class Own(CoinGrader):
        def grade(self, texts, answers):
            return rewards

    run = run_of(small(), Own())
    responses = [[5, END_IDS[0]]] * 3
    with pytest.raises(UserError, match=message):
        sdzero.grade(run, [addition(2, 2)] * 3, [[7]] * 3, responses)
