"""docs/metrics.md: every number that a run logs stands there."""

import re
from pathlib import Path

from toys import lines_of

import baselines
import sdzero

DOC = (Path(sdzero.__file__).parent / "docs" / "metrics.md").read_text()


def documented(heading: str) -> set[str]:
    """The keys in the first column of the table under a heading."""
    section = DOC.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_every_key_of_a_run_is_explained(finished_run):
    folder, results = finished_run
    logged = {key for line in lines_of(folder / "metrics.jsonl") for key in line}
    assert logged | {"kept"} == documented("A line of metrics.jsonl")  # kept: below
    measured = {key for result in results.values() for key in result}
    assert measured == documented("An entry of results.json")


def test_every_key_of_the_baselines_is_explained(checkpoint, coin, tmp_path):
    for method, options in (("rft", {"rounds": 2}), ("grpo", {}), ("sdft", {})):
        out = tmp_path / method
        cfg = baselines.make_baseline_config(
            method=method, model=checkpoint, out=str(out), digits=2, samples=8, **options
        )
        cfg.eval_questions, cfg.eval_samples, cfg.max_tokens = 2, 1, 8
        cfg.epochs, cfg.batch, cfg.micro_tokens = 1, 4, 200
        cfg.eval_max_tokens = cfg.distil_max_tokens = 8
        sdzero.train(cfg, baselines.stages_of(cfg))
        for line in lines_of(out / "metrics.jsonl"):
            assert set(line) <= documented("A line of metrics.jsonl"), method


def test_what_the_doc_says_of_the_code():
    from kit import alarms

    assert "`kit/alarms.py`" in DOC and f"falls for {alarms.WINDOW} steps" in DOC
    assert f"above {100 * alarms.CUT_OFF:.0f} %" in DOC and alarms.FAR == 5
