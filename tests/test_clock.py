"""Time left: counted from what was measured, said when it is known, and kept current."""

import time
from dataclasses import replace

import pytest
import torch
from toys import new_folder, random_model, small

import baselines
import kit
import sdzero
from kit import clock, hours
from kit.run_folder import Clock
from kit.sizes import known_sizes
from sdzero import Config


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still but when it is told."""
    times = [1000.0]
    monkeypatch.setattr(time, "time", lambda: times[0])

    def advance(seconds):
        times[0] += seconds

    return advance


def of_run(**changes) -> tuple[Config, Clock]:
    cfg = small(**{"srt_questions": 6, "distil_questions": 8, "eval_questions": 5, **changes})
    watch = Clock()
    watch.expect(cfg)
    return cfg, watch


def test_a_run_is_all_its_responses_and_steps():
    cfg, watch = of_run()
    assert hours.evaluations(cfg) == 3 and hours.evaluated_responses(cfg) == 5 * (2 + 2)
    # 6 first answers, 2 revisions of each, 8 rollouts of phase 2
    assert watch.expected == 6 + 12 + 8 + 3 * 20
    assert watch.steps == {"srt": 2 * 3, "distil": 3}
    # phase 1 alone; a baseline's steps are known when they begin
    assert of_run(method="srt")[1].steps == {"srt": 6}
    assert of_run(method="rft", samples=30)[1].expected == 2 * 20 + 30


def test_a_baseline_without_a_budget_samples_its_groups():
    cfg = baselines.make_baseline_config(method="grpo", eval_questions=5, eval_samples=2)
    watch = Clock()
    watch.expect(cfg)
    training = cfg.group * (cfg.srt_questions + cfg.distil_questions)
    assert watch.expected == 2 * 20 + training
    watch = Clock()
    watch.expect(baselines.make_baseline_config(method="sft", eval_questions=5, eval_samples=2))
    assert watch.expected == 2 * 20


def test_what_a_resumed_run_has_behind_it_is_not_to_come(tmp_path):
    folder = new_folder(tmp_path / "run")
    folder.clock.expect(small())
    folder.saved = {"phase": "distil", "step": 1}
    stages = sdzero.stages_of(small())
    assert folder.still_to_do(stages) == stages[1:]
    assert list(folder.clock.steps) == ["distil"]
    folder.locked.close()


def test_no_more_is_expected_than_options_allow():
    """--srt-records, --distil-steps; and --eval-every evaluates more often."""
    cfg, watch = of_run(srt_records=5)  # 12 revisions
    assert watch.steps["srt"] == 2 * -(-5 // cfg.srt_batch)
    cfg, watch = of_run(distil_steps=2)
    assert watch.steps["distil"] == 2
    assert watch.expected == 6 + 12 + 2 * cfg.distil_batch + 3 * 20
    cfg, watch = of_run(distil_questions=30, eval_every=2, distil_batch=3)
    # 10 steps: also before steps 2, 4, 6 and 8
    assert hours.evaluations(cfg) == 3 + 4 and watch.expected == 6 + 12 + 30 + 7 * 20


def test_hours_of_training_are_of_the_revisions_that_are_kept():
    s, cfg = known_sizes("Qwen/Qwen3-4B"), sdzero.make_config(model="Qwen/Qwen3-4B", task="math")
    responses = kit.budget.responses_of(cfg, cfg.srt_questions, 0) | {"rollouts": 0}
    few, all_of_them = (
        hours.training_seconds(s, replace(cfg, offload=True, srt_records=n), 40e9, responses)
        for n in (cfg.srt_records, 0)
    )
    assert cfg.srt_records == 6000 and responses["revisions"] == 30_000
    assert all_of_them == pytest.approx(5 * few)


def test_time_left_is_what_is_left_at_the_speed_so_far(now):
    cfg, watch = of_run()
    watch.asks()
    now(10)
    watch.generated([[1] * 7] * 20)  # the base's evaluation: 0.5 s a response
    assert watch.left(0, 1 - 1) == (0.5 * (watch.expected - 20), None)  # no step yet
    watch.uncounted = 0  # it is in the results now
    assert watch.responses_left(0, 1) == watch.expected - 20
    watch.begins("srt", 0, 4)  # fewer tuples were kept than there might have been
    for _ in range(2):
        watch.stepped("srt", 3.0)
    # phase 2's steps have not begun: they cost what they cost beside phase 1's
    each = 3.0 * (cfg.distil_batch * 5) / (cfg.srt_batch * 6)
    assert watch.left(18, 1)[1] == pytest.approx(2 * 3.0 + 3 * each)
    watch.begins("distil", 0, 3)
    watch.stepped("distil", 7.0)
    assert watch.left(18 + 3, 2) == (0.5 * (5 + 20), 2 * 3.0 + 2 * 7.0)
    assert watch.left(18 + 8, 3)[0] == 0
    words = watch.sentence(18 + 3, 2)
    assert "140 tokens so far, about 175 to come, 14 a second" in words
    assert words.startswith("time left: about 0.5 min: rollouts 0.2 min (")


def test_it_is_said_after_the_first_batch_the_first_steps_and_then_now_and_again(now):
    _, watch = of_run()
    assert not watch.is_due()  # nothing is known
    watch.generated([[1, 2]])
    assert watch.is_due() and not watch.is_due()
    watch.begins("srt", 0, 9)
    said = []
    for _ in range(6):
        watch.stepped("srt", 1.0)
        said.append(watch.is_due("srt"))
    assert said == [False, False, True, False, False, False]
    now(clock.REPEAT)
    assert watch.is_due("srt")
    assert not Clock().is_due()  # a folder that no run was told of says nothing


def test_a_run_says_it(finished_output):
    lines = [line for line in finished_output.splitlines() if line.startswith("time left: ")]
    assert "training steps not measured yet" in lines[0] and " tokens so far" in lines[0]
    assert len(lines) == 3  # the first batch, and three steps of each phase


@pytest.fixture(scope="module")
def finished_output(checkpoint, tmp_path_factory):
    """What a whole run prints."""
    import contextlib
    import io

    from toys import CoinGrader, train

    out = io.StringIO()
    own, sdzero.make_grader = sdzero.make_grader, lambda cfg: CoinGrader()
    try:
        with contextlib.redirect_stdout(out):
            train(small(checkpoint, out=str(tmp_path_factory.mktemp("run") / "run")))
    finally:
        sdzero.make_grader = own
    return out.getvalue()


# --------------------------------------------------------------------------------------------------
# States
# --------------------------------------------------------------------------------------------------
def walk(folder, model, steps, each=lambda: None) -> list[int]:
    """The steps of a phase, and at which of them a state was saved."""
    saved, own = [], folder.save_state
    folder.save_state = lambda phase, step, *rest: (saved.append(step), own(phase, step, *rest))
    optimizer = kit.low_bits.adamw(model, 1e-3, 0.0, Config())
    for _ in folder.steps("srt", steps, model, optimizer):
        each()
    return saved


def test_states_are_saved_by_time_too(tmp_path, now):
    folder = new_folder(tmp_path / "run", save_every=5)
    folder.belongs_to(replace(Config(), save_minutes=2.0))
    # 50 s a step: two minutes are over after three of them, or five steps
    assert walk(folder, random_model(), 9, lambda: now(50)) == [3, 5, 8, 9]


def test_the_loaded_state_is_dropped(tmp_path):
    """It is as large as model, teacher and optimiser together."""
    model = random_model()
    optimizer = kit.low_bits.adamw(model, 1e-3, 0.0, Config())
    new_folder(tmp_path / "run").save_state("srt", 2, model, optimizer)
    folder = new_folder(tmp_path / "run")
    assert "model" in folder.saved
    other = random_model(seed=1)
    steps = list(folder.steps("srt", 4, other, kit.low_bits.adamw(other, 1e-3, 0.0, Config())))
    assert steps == [2, 3] and folder.saved == {"phase": "srt", "step": 2}
    pairs = zip(model.parameters(), other.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
    assert folder.still_to_do(sdzero.stages_of(Config()))[0].phase == "srt"
