"""Options: ranges, contradictions, counts that add up, and errors of one line."""

import math
import random
from dataclasses import fields
from typing import Literal, get_args, get_origin

import pytest
from toys import message_of, python

import baselines
import sdzero
from baselines import BaselineConfig, make_baseline_config
from kit.budget import responses_of, use_of_samples
from kit.errors import UserError
from kit.options import as_flags, flag_of, parse_options
from sdzero import Config, make_config

PROGRAMS = {"sdzero": Config, "baselines": BaselineConfig}
NUMBERS = [f for f in fields(Config) if f.type in (int, float)]


# --------------------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cls", PROGRAMS.values())
def test_every_number_has_a_range(cls):
    numbers = [f for f in fields(cls) if f.type in (int, float)]
    assert len(numbers) > 20
    for f in numbers:
        assert f.metadata["least"] is not None or f.metadata["above"] is not None, f.name


@pytest.mark.parametrize("f", NUMBERS, ids=lambda f: f.name)
def test_what_is_outside_a_range_is_named_with_the_range(f):
    bounds = f.metadata
    outside = [math.nan, math.inf, -math.inf, "many"]
    outside += [bounds["least"] - 1] if bounds["least"] is not None else [bounds["above"]]
    outside += [bounds["most"] + 1] if bounds["most"] is not None else []
    outside += [1.5] if f.type is int else []
    for value in outside:
        with pytest.raises(UserError) as e:
            make_config(model="x", **{f.name: value})
        assert str(e.value).startswith(flag_of(f.name) + " must be ")
        assert "\n" not in str(e.value) and str(value) in str(e.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--digits=0"],
        ["--temperature=-1"],
        ["--temperature=nan"],
        ["--max-tokens=0"],
        ["--srt-lr=0"],
        ["--srt-lr=inf"],
        ["--distil-batch=-3"],
        ["--revisions=0"],
        ["--eval-questions=0"],
        ["--sync-every=-1"],
        ["--distil-weight-decay=-1"],
        ["--warmup-steps=-1"],
        ["--decay=3"],
        ["--device=nonsense"],
        ["--chat-template=missing.jinja"],
        ["--seed=x"],
        ["--divergence=sideways"],
        ["--l-generation=some"],
        ["--srt-share=2", "--samples=4000"],
        ["--method=srt", "--no-phase1"],
        ["--samples=3"],
        ["--rounds=100"],
        ["--srt-share=0.5"],
    ],
    ids=" ".join,
)
def test_bad_values_and_contradictions_are_one_line(tmp_path, capsys, checkpoint, words):
    few = ["--digits=2", "--srt-questions=4", "--distil-questions=4", "--eval-questions=4"]
    command = ["--model", checkpoint, "--out", tmp_path / "run", *few, "--max-tokens=8", *words]
    message = message_of(capsys, sdzero.main, *command)
    assert message.startswith("sdzero: ") and words[0].split("=")[0] in message
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("main", [sdzero.main, baselines.main])
@pytest.mark.parametrize(
    "unknown, near", [("--decey", "--decay"), ("--decey=0.5", "--decay"), ("--sede", "--seed")]
)
def test_an_unknown_option_is_answered_with_the_near_one(capsys, main, unknown, near):
    words = ["grpo"] if main is baselines.main else []
    message = message_of(capsys, main, *words, unknown)
    assert unknown.split("=")[0] in message and f"did you mean {near}?" in message


def test_an_option_is_not_abbreviated(capsys):
    assert "--distil-ep" in message_of(capsys, sdzero.main, "--distil-ep", "2")
    message = message_of(capsys, sdzero.main, "--nonsense")
    assert "--nonsense" in message and "--help" in message


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(method="srt", phase1=False), "--no-phase1"),
        (dict(l_revision=False, l_generation="none"), "--l-revision"),
        (dict(srt_questions=0), "--srt-questions"),
        (dict(distil_questions=0), "--distil-questions"),
        (dict(phase1=False, l_answer=True), "--l-answer"),
        (dict(phase1=False, filtered=False), "--no-filtered"),
        (dict(phase1=False, srt_share=0.5, samples=100), "--srt-share"),
        (dict(method="srt", srt_share=0.5, samples=100), "--srt-share"),
        (dict(srt_share=0.5), "--samples"),
        (dict(samples=2), "too few"),
        (dict(samples=100, srt_share=1.0), "too few"),
        (dict(rounds=1000), "--rounds"),
        (dict(srt_in_turn=True, l_revision=False), "--no-l-revision"),
        (dict(phase1=False, right_share=0.5), "--right-share"),
        (dict(phase1=False, srt_in_turn=True), "--srt-in-turn"),
        (dict(method="srt", rounds=2), "--rounds"),
        (dict(srt_in_turn=True, l_generation="none"), "--l-generation"),
        (dict(method="srt", eval_every=5), "--eval-every"),
        (dict(divergence="sideways"), "reverse, forward, mixed"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_say_so(given, words):
    with pytest.raises(UserError, match=words):
        make_config(model="x", **given)


# --------------------------------------------------------------------------------------------------
# Counts
# --------------------------------------------------------------------------------------------------
def total(cfg) -> int:
    return sum(responses_of(cfg, cfg.srt_questions, cfg.distil_questions).values())


def test_samples_are_divided_and_never_exceeded():
    assert total(make_config(method="srt", samples=4611)) == 4608  # a question of phase 1 takes 4
    assert total(make_config(samples=4608)) == 4608
    cfg = make_config(samples=1000, srt_share=0.6, revisions=2)
    assert (cfg.srt_questions, cfg.distil_questions) == (200, 400)
    assert make_config(samples=100, phase1=False).distil_questions == 100
    assert make_config(samples=101, phase1=False, distil_epochs=2).distil_questions == 50


def test_what_training_takes_of_its_samples_is_counted_in_the_questions_that_there_are():
    def said(cfg, srt, distil):
        return use_of_samples(cfg, {"srt": [{}] * srt, "distil": [{}] * distil})

    cfg = make_config(samples=1000, srt_share=0.6, revisions=2)
    whole = "training uses 1000: 200 first answers, 400 revisions, 400 rollouts"
    assert said(cfg, cfg.srt_questions, cfg.distil_questions).endswith(whole)
    assert "training uses 100: 20 first answers, 40 revisions, 40 rollouts" in said(cfg, 20, 40)
    wrong = make_config(samples=1000, srt_share=0.6, revisions=2, revise="wrong")
    assert "training uses at most 1000" in said(wrong, 200, 400)
    assert said(make_config(), 5, 5) == ""
    assert said(baselines.make_baseline_config(method="grpo", samples=64), 5, 5) == ""


def draws(rng, f):
    """A value of an option: sensible, at its bounds, or silly."""
    if f.type is bool:
        return rng.random() < 0.5
    if get_origin(f.type) is Literal:
        return rng.choice([*get_args(f.type), *get_args(f.type), "silly"])
    if f.type not in (int, float):
        return f.default
    bounds = [f.metadata[k] for k in ("least", "above", "most") if f.metadata[k] is not None]
    silly = [math.nan, math.inf, -1, -0.5, 10**12, 0.3, 0]
    sensible = [f.default, *bounds, 1, 2, 3, rng.randint(1, 50), rng.randint(1, 5000), rng.random()]
    value = rng.choice(silly if rng.random() < 0.04 else sensible)
    return int(value) if f.type is int and math.isfinite(value) and rng.random() < 0.99 else value


def test_random_options_give_counts_that_add_up_or_one_line():
    rng, outcomes = random.Random("options"), {"config": 0, "error": 0, "samples": 0}
    options = [f for f in fields(Config) if f.name not in ("model", "out", "data", "task", "plan")]
    counted = ("samples", "srt_share", "method", "phase1", "revisions", "first_answers", "rounds")
    likely = [f for f in options if f.name in counted or f.name.endswith(("questions", "epochs"))]
    for _ in range(4000):
        some = rng.sample(likely, rng.randint(1, 5)) + rng.sample(options, rng.randint(0, 2))
        given = {f.name: draws(rng, f) for f in some}
        if rng.random() < 0.5:
            given["samples"] = rng.choice([rng.randint(1, 50), rng.randint(50, 20_000)])
        try:
            cfg = make_config(model=rng.choice(["tiny", "some/model"]), **given)
        except UserError as e:
            outcomes["error"] += 1
            assert str(e) and "\n" not in str(e), given
            continue
        outcomes["config"] += 1
        assert cfg.srt_questions > 0 or not cfg.phase1, given
        assert cfg.distil_questions > 0 or cfg.method == "srt", given
        assert total(cfg) > 0, given
        for stage in sdzero.stages_of(cfg):
            assert steps_of(cfg, stage.phase) > 0, given
        if cfg.samples:
            outcomes["samples"] += 1
            assert total(cfg) <= cfg.samples, given
            whole = cfg.distil_epochs == 1 and not cfg.distil_steps
            if cfg.method == "sdzero" and whole:
                assert total(cfg) == cfg.samples, given
    assert min(outcomes.values()) > 300, outcomes


def steps_of(cfg, phase) -> int:
    """Steps of a phase; of phase 1, if every tuple is kept."""
    if phase == "srt":
        tuples = cfg.srt_questions * cfg.first_answers * cfg.revisions
        return cfg.srt_epochs * math.ceil(tuples / cfg.srt_batch)
    return math.ceil(cfg.distil_questions * cfg.distil_epochs / cfg.distil_batch)


def test_random_baselines_give_a_configuration_or_one_line():
    rng, outcomes = random.Random("baselines"), {"config": 0, "error": 0}
    options = [f for f in fields(BaselineConfig) if f.name in baselines.BELONGS]
    options += [f for f in fields(BaselineConfig) if f.name in ("samples", "batch", "lr")]
    for _ in range(1500):
        given = {f.name: draws(rng, f) for f in rng.sample(options, rng.randint(0, 3))}
        method = rng.choice([*baselines.DEFAULTS, "silly"])
        try:
            cfg = make_baseline_config(method=method, **given)
        except UserError as e:
            outcomes["error"] += 1
            assert str(e) and "\n" not in str(e), given
            continue
        outcomes["config"] += 1
        assert cfg.srt_questions + cfg.distil_questions > 0, given
        if cfg.method == "grpo":
            assert cfg.group > 1 and cfg.batch % cfg.group == 0, given
    assert min(outcomes.values()) > 200, outcomes


# --------------------------------------------------------------------------------------------------
# Defaults
# --------------------------------------------------------------------------------------------------
def test_options_given_beat_the_preset_and_the_papers():
    words = "--model some/model --srt-lr 0.5 --no-trim --l-generation wrong".split()
    given = parse_options(words, Config, "")
    expected = dict(model="some/model", srt_lr=0.5, trim=False, l_generation="wrong")
    assert given == expected
    cfg = make_config(**given)
    assert cfg.srt_lr == 0.5 and cfg.distil_batch == 128 and cfg.temperature == 0.7  # the paper's
    assert make_config(srt_lr=0.5).srt_lr == 0.5  # the embedded model


def test_as_flags_is_what_parse_options_reads():
    given = dict(model="m", srt_lr=0.5, trim=False, offload=True, l_generation="wrong", samples=7)
    assert parse_options(as_flags(given), Config, "") == given


def test_run_folders_of_different_runs_differ():
    models = "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B", "a/b.Q4_1.gguf", "tiny"
    runs = [
        dict(model=m, seed=s, task=t) for m in models for s in (0, 1) for t in ("arith", "math")
    ]
    names = [make_config(**run, method=m).out for run in runs for m in ("sdzero", "srt")]
    names += [make_baseline_config(**run, method=m).out for run in runs for m in ("rft", "grpo")]
    assert len(set(names)) == len(names) == 64


# --------------------------------------------------------------------------------------------------
# --help
# --------------------------------------------------------------------------------------------------
HELP = """
import sys
import {program} as program
try:
    program.main(["--help"])
except SystemExit as e:
    assert not e.code
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_lists_the_groups_without_waiting_for_torch(program, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = python(HELP.format(program=program))
    headings = [f.metadata["heading"] for f in fields(PROGRAMS[program]) if f.metadata["heading"]]
    assert len(headings) > 5
    for heading in headings:
        assert f"\n{heading}:\n" in text, heading
    assert max(map(len, text.splitlines())) <= 100
    shown = [f.name for f in fields(PROGRAMS[program])]
    if program == "baselines":
        shown = [name for name in shown if name not in baselines.NOT_HERE]
    for name in shown:
        assert flag_of(name) in text, name
