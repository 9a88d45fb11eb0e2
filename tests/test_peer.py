"""studies/peer_trl.py, as far as it goes without TRL: our side, the report, mistakes."""

import json
import sys

import pytest
from toys import message_of

from studies import peer_trl

WORDS = ["--rows", "3", "--tokens", "10", "--steps", "1", "--repeats", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    args = peer_trl.make_parser().parse_args(WORDS)
    return peer_trl.make_jobs(args, str(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", peer_trl.PARTS)
def test_our_side_reports_what_it_promises(jobs, part, moments):
    report = peer_trl.our_side(jobs[part] | {"moments": moments})
    report = json.loads(json.dumps(report))
    # this process gives memory of earlier tests back meanwhile
    assert report["base_mb"] > 0 and 0 < report["loaded_mb"] <= 1.1 * report["peak_mb"]
    assert len(report["steps"]) == 2  # the first is warm-up
    pieces = {"rollout", "reward", "update"} if part == "round" else {"update"}
    for step in report["steps"]:
        assert set(step) == {"seconds", "cpu", "loss", "norm", *pieces}
        assert sum(step[name] for name in pieces) < step["seconds"]
        assert step["loss"] > 0 and step["norm"] > 0


def test_both_sides_get_rows_that_make_one_loss(jobs):
    """Equal lengths where losses are compared; a teacher that has read the response."""
    rows = jobs["check"]["rows"]
    assert len({len(row["response"]) for row in rows}) == 1 < len(rows) == jobs["check"]["batch"]
    assert len(jobs["step"]["rows"]) == len(jobs["round"]["rows"]) == 2 * 3
    for row in rows + jobs["step"]["rows"]:
        behind = row["teacher"][len(row["context"]) :]
        assert behind[: len(row["response"]) - 1] == row["response"][:-1]


def test_the_whole_comparison_with_a_stand_in_for_trl(tmp_path, monkeypatch, capsys):
    asked = []

    def stand_in(python, job):
        asked.append((job["part"], job["moments"]))
        return peer_trl.our_side(job)

    monkeypatch.setattr(peer_trl, "run_theirs", stand_in)
    monkeypatch.setattr(peer_trl, "run_ours", peer_trl.our_side)
    monkeypatch.setattr(peer_trl, "versions_of", lambda python, packages: {})
    file = tmp_path / "peer.json"
    assert peer_trl.main([*WORDS, "--trl-python", "x", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert asked == [(part, "float32") for part in ("check", "step", "round")]
    assert found["check"]["loss"]["difference"] == found["check"]["norm"]["difference"] == 0
    assert set(found["medians"]) == set(found["has"]) == set(peer_trl.SIDES)
    for sides in found["medians"].values():
        assert sides["step"]["seconds"] > sides["step"]["gradient"] > 0
        assert sides["round"]["seconds"] > sides["round"]["rollout"] > 0
        assert sides["step"]["peak_mb"] > 0
    assert {"machine", "versions", "runs"} <= set(found)
    *_, heading, _, _, _, _, _, same, last = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["step:", "s"] and same.startswith("the same rows")
    assert json.loads(last) == found


def test_sides_that_compute_something_else_are_not_compared(monkeypatch, capsys):
    def stand_in(*job):
        return {"steps": [{"loss": 1 + len(job) / 1000, "norm": 1.0}]}

    monkeypatch.setattr(peer_trl, "run_theirs", stand_in)
    monkeypatch.setattr(peer_trl, "run_ours", stand_in)
    monkeypatch.setattr(peer_trl, "versions_of", lambda python, packages: {})
    message = message_of(capsys, peer_trl.main, *WORDS, "--trl-python", "x")
    assert "not compute the same" in message and "1.002" in message


def test_mistakes_are_said_in_one_line(capsys, tmp_path):
    assert "--trl-python" in message_of(capsys, peer_trl.main)
    for python in (tmp_path / "none", "false"):
        message = message_of(capsys, peer_trl.main, "--trl-python", python)
        assert str(python) in message and "docs/peers.md" in message
    few = message_of(capsys, peer_trl.main, "--trl-python", sys.executable, "--rows", "0")
    assert "--rows" in few


def test_an_interpreter_without_trl_is_named(capsys):
    try:
        import trl  # noqa: F401
    except ImportError:
        message = message_of(capsys, peer_trl.main, "--trl-python", sys.executable)
        assert "for trl)" in message and sys.executable in message
    else:
        pytest.skip("this environment has trl")
