"""bench and make_tiny: they run, from anywhere, and report what they promise."""

import json
import os

import pytest
import warm
from toys import HERE, message_of
from transformers import AutoModelForCausalLM

from kit import memory_plan, sizes
from kit.presets import ALIASES, is_tiny
from studies import bench, fake_step, gpu, make_tiny
from studies.steps import RESPONSES


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


# --------------------------------------------------------------------------------------------------
# bench
# --------------------------------------------------------------------------------------------------
def test_kl_benchmark_reports_what_it_promises(tmp_path, monkeypatch):
    def in_a_process(*words):
        done = warm.python(bench.__file__, *words, cwd=tmp_path)
        return json.loads(done.stdout.strip().splitlines()[-1])

    monkeypatch.setattr(bench, "in_fresh_process", in_a_process)
    sizes = ["--tokens", "256", "--vocabulary", "40000", "--hidden", "64", "--repeats", "1"]
    assert bench.main(["kl", *sizes, "--json", str(tmp_path / "kl.json")]) == 0
    report = json.loads((tmp_path / "kl.json").read_text())
    assert report["loss_rel_err"] < 1e-5 and report["grad_rel_err"] < 1e-5
    assert report["memory_ratio"] > 0 and report["time_ratio"] > 0
    assert len(report["runs"]["plain"]) == len(report["runs"]["chunked"]) == 1


def test_step_benchmark(capsys):
    words = ["--model", "tiny", "--rows", "2", "--steps", "1", "--dtype", "float32"]
    assert bench.main(["step", *words]) == 0
    report = last_line(capsys)
    assert report["tokens_per_second"] > 0 and len(report["losses"]) == 1
    assert report["largest_pass"] == 48 + RESPONSES[0] < report["micro_tokens"] == 300
    assert report["base_mb"] <= report["loaded_mb"] <= report["peak_mb"]


def test_precision_benchmark(capsys):
    words = ["--model", "tiny", "--rows", "2", "--steps", "2", "--modes", "fp32,split bf16"]
    assert bench.main(["precision", *words]) == 0
    report = last_line(capsys)
    assert report["deviation"]["fp32"] == 0 < report["deviation"]["split bf16"] < 0.05
    assert "fp32" in message_of(capsys, bench.main, "precision", *words[:-1], "plain bf16")


def test_linear_benchmark_of_one_size(capsys):
    assert bench.main(["linear-once", "--rows", "1", "--tokens", "8"]) == 0
    assert last_line(capsys)["seconds"] > 0


@pytest.mark.parametrize("words", [["-m", "studies.bench"], [str(HERE / "studies" / "bench.py")]])
def test_bench_runs_as_a_module_and_as_a_file(words, tmp_path):
    """As a file from any folder; where a module named like one of the studies is meant, it is not
    the one beside it."""
    where = HERE if "-m" in words else tmp_path
    words = [*words, "kl-once", "chunked", "--tokens", "16", "--vocabulary", "50", "--hidden", "8"]
    done = warm.python(*words, cwd=where)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["loss"] > 0


def test_the_list_for_a_gpu_runs_on_a_cpu_at_toy_size(tmp_path, capsys, monkeypatch):
    """All of it, so that it works the first time that somebody has a card."""
    report = tmp_path / "gpu.json"
    port = str(29600 + os.getpid() % 1000)
    assert bench.main(["gpu", "--ranks", "2", "--port", port, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["ok"], [row for row in found["rows"] if not row["ok"]]
    parts = [row["part"] for row in found["rows"]]
    assert "rollouts" in parts and "two ranks" in parts
    for name in gpu.SETTINGS:
        assert {f"step, phase 1, {name}", f"step, phase 2, {name}"} <= set(parts)
    assert all(row["planned"] > 0 for row in found["rows"] if row["part"].startswith("step"))
    out = capsys.readouterr().out
    assert "numbers mean nothing" in out and "\npart " in out
    # a part that fails is named, and the next one begins; behind --minutes none does
    monkeypatch.setattr(gpu, "step", lambda *_: int("x"))
    assert bench.main(["gpu", "--tokens", "8", "--json", str(report)]) == 0
    failed = [row for row in json.loads(report.read_text())["rows"] if not row["ok"]]
    assert len(failed) == 10 and failed[0]["error"].startswith("ValueError")
    monkeypatch.chdir(tmp_path)
    report.unlink()
    assert bench.main(["gpu", "--minutes", "0"]) == 0  # gpu.json, where nothing else is said
    rows = json.loads(report.read_text())["rows"]
    assert all(row["error"].startswith("left out") for row in rows)


def test_bench_plan_of_a_small_model(monkeypatch, tmp_path, capsys):
    """The plan of known models beside their steps; here one that is quick."""
    small = {**gpu.TOY, "vocab_size": 30000, "hidden_size": 256}
    limits = dict(max_tokens=400, distil_max_tokens=0, micro_tokens=2048)
    monkeypatch.setitem(sizes.facts(), "small", small)
    monkeypatch.setattr(fake_step, "LIMITS", limits)
    monkeypatch.setattr(memory_plan, "PROMPT", 64)
    assert bench.main(["plan", "--models", "small", "--json", str(tmp_path / "plan.json")]) == 0
    steps = json.loads((tmp_path / "plan.json").read_text())["steps"]
    assert [s["phase"] for s in steps] == [1, 2]
    assert all(0.9 < s["ratio"] < 1.1 for s in steps)
    assert "plan / tracked" in capsys.readouterr().out


def test_bench_says_mistakes_in_one_line(capsys):
    assert "invalid choice: 'kll'" in message_of(capsys, bench.main, "kll")
    assert "--model" in message_of(capsys, bench.main, "step")
    assert "no such folder" in message_of(capsys, bench.main, "step", "--model", "a/b/c")
    assert "unrecognized" in message_of(capsys, bench.main, "kl", "--token", "3", "--x", "1")


# --------------------------------------------------------------------------------------------------
# make_tiny
# --------------------------------------------------------------------------------------------------
def test_make_tiny_makes_one_of_the_family_twice_the_same(tmp_path, capsys):
    words = ["--steps", "2", "--batch", "2", "--seed", "3", "--out"]
    weights = []
    for name in ("a", "b"):
        make_tiny.main([*words, str(tmp_path / name)])
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
        assert is_tiny(str(tmp_path / name))
    assert weights[0] == weights[1]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    embedded = AutoModelForCausalLM.from_pretrained(ALIASES["tiny"])
    assert loaded.config.sdzero_family == "tiny"
    assert loaded.num_parameters() == embedded.num_parameters()


def test_the_embedded_tokenizer_is_the_one_that_is_made():
    made = make_tiny.make_tokenizer().backend_tokenizer.to_str()
    file = HERE / "tiny" / "tokenizer.json"
    assert json.loads(made) == json.loads(file.read_text())
