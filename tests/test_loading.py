"""Models and tokenizers: what cannot be had is said in one line; presets are for their family."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import warm
from toys import (
    END_IDS,
    HERE,
    CoinGrader,
    lines_of,
    message_of,
    random_model,
    rows_of_ids,
    small,
    train,
)
from transformers import AutoTokenizer, Qwen3ForCausalLM

import kit
import sdzero
from baselines import make_baseline_config
from kit.errors import UserError
from kit.files import save_checkpoint
from kit.loading import load_model
from kit.presets import TINY, is_tiny
from sdzero import make_config


# --------------------------------------------------------------------------------------------------
# What cannot be loaded
# --------------------------------------------------------------------------------------------------
def test_model_paths_that_cannot_be_loaded_are_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    out = tmp_path / "run"
    for name, words in (
        ("empty", "config.json"),
        ("missing.gguf", "no such file"),
        ("missing", "no such"),
        ("broken", "broken"),
    ):
        message = message_of(capsys, sdzero.main, "--model", tmp_path / name, "--out", out)
        assert words in message and name in message
    assert not out.exists()
    inside_a_file = tmp_path / "file" / "run"
    assert "--out" in message_of(capsys, sdzero.main, "--out", inside_a_file)


def test_a_hub_id_without_network_fails_within_seconds(tmp_path):
    """One line that names the embedded default and local paths, exit code 2: where the hub refuses,
    and where it takes connections and says nothing."""
    # the clock starts after the imports, whose time is the machine's affair
    program = """
import sys, time, transformers, torch, sdzero
for _ in range(2):
    sys.stdin.readline()
    start = time.time()
    code = sdzero.main()
    print(code, time.time() - start, flush=True)
"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{port}"}
    options = ["--model", "Qwen/Qwen3-4B-Instruct", "--out", str(tmp_path / "run")]
    command, pipe = [sys.executable, "-c", program, *options], subprocess.PIPE
    how = dict(stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env, cwd=HERE)
    process = subprocess.Popen(command, **how)
    process.stdin.write("\n")
    process.stdin.flush()
    refused = process.stdout.readline()
    with socket.create_server(("127.0.0.1", port)):
        silent, stderr = process.communicate("\n", timeout=300)
    lines = stderr.strip().splitlines()
    assert len(lines) == 2, stderr
    for said, line in zip((refused, silent), lines):
        code, seconds = said.split()
        assert code == "2" and float(seconds) < 20
        wanted = "Qwen/Qwen3-4B-Instruct-2507", "--model tiny", "local"
        assert all(words in line for words in wanted)
    assert "ConnectError" in lines[0] or "Connection" in lines[0]
    assert lines[0] != lines[1]


def test_a_gguf_file_that_was_cut_off_is_named(tmp_path, monkeypatch, capsys):
    """gguf's reader raises an IndexError where the file ends."""
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(kit.loading, "read_gguf", lambda *_: [][0])
    command = ["--model", tmp_path / "cut.gguf", "--out", tmp_path / "run"]
    message = message_of(capsys, sdzero.main, *command)
    assert "cut.gguf" in message and not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------
# Presets
# --------------------------------------------------------------------------------------------------
def test_the_embedded_model_is_small_enough_to_be_part_of_a_repository():
    assert sum(file.stat().st_size for file in (HERE / "tiny").iterdir()) < 5e6


def test_a_small_checkpoint_of_another_family_has_the_papers_settings(checkpoint):
    size = sum(os.path.getsize(os.path.join(checkpoint, f)) for f in os.listdir(checkpoint))
    assert size < 5e6 and not is_tiny(checkpoint) and not is_tiny("Qwen/Qwen3-4B")
    cfg, of_the_paper = make_config(model=checkpoint), make_config(model="some/model")
    for name in TINY:
        assert getattr(cfg, name) == getattr(of_the_paper, name), name
    assert cfg.srt_lr == cfg.distil_lr == 5e-6
    assert make_baseline_config(model=checkpoint, method="rft").lr == 5e-6


@pytest.fixture(scope="module")
def trained_from_tiny(tmp_path_factory):
    """(run folder, what was printed) of a short phase 1 on the embedded model."""
    out, printed = tmp_path_factory.mktemp("tiny") / "run", io.StringIO()
    options = "--method srt --srt-questions 6 --srt-epochs 1 --eval-questions 1 --eval-samples 1"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
        assert sdzero.main([*options.split(), "--digits", "2", "--out", str(out)]) == 0
    return out, printed.getvalue()


def test_what_was_trained_from_the_embedded_model_keeps_its_settings(trained_from_tiny):
    folder = str(trained_from_tiny[0] / "srt")
    assert is_tiny("tiny") and is_tiny(folder)
    cfg = make_config(model=folder, distil_batch=5)
    assert cfg.distil_batch == 5 and cfg.srt_lr == TINY["srt_lr"]
    assert make_baseline_config(model=folder, method="rft").lr == 1e-3


def test_a_run_prints_what_the_preset_chose(trained_from_tiny, tmp_path, checkpoint, coin, capsys):
    printed = trained_from_tiny[1]
    line = next(line for line in printed.splitlines() if line.startswith("by --recipe tiny"))
    assert f"--srt-lr {TINY['srt_lr']}" in line and f"--max-tokens {TINY['max_tokens']}" in line
    assert "--srt-epochs" not in line and "--srt-questions" not in line  # they were given
    train(small(checkpoint, method="srt", out=str(tmp_path / "run")))
    assert "by --recipe tiny" not in capsys.readouterr().out


def test_a_damaged_config_is_no_family(tmp_path):
    for text in ("{", "[]", '"tiny"', "null"):
        (tmp_path / "config.json").write_text(text)
        assert not is_tiny(str(tmp_path))


# --------------------------------------------------------------------------------------------------
# Models that load
# --------------------------------------------------------------------------------------------------
def test_a_student_in_training_mode_has_no_dropout(tmp_path, tokenizer):
    """Student and teacher are compared token by token; noise in one of them would be a divergence
    that nobody can train away."""
    save_checkpoint(tokenizer, random_model(attention_dropout=0.5), tmp_path / "dropout")
    model = load_model(small(str(tmp_path / "dropout"))).train()
    pairs = list(zip(*rows_of_ids(4)))
    first, second = (sdzero.response_hidden(model, *pairs) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(first, sdzero.response_hidden(model.eval(), *pairs), atol=1e-5)


@pytest.mark.parametrize("pad", [None, "<|im_end|>"], ids=["missing", "pad=end"])
def test_tokenizers_without_a_pad_token_of_their_own(tmp_path, own_tokenizer, coin, pad):
    own_tokenizer.pad_token = pad
    save_checkpoint(own_tokenizer, random_model(pad_token_id=None), tmp_path / "m")
    results = train(small(str(tmp_path / "m"), out=str(tmp_path / "run")))
    assert 0 < results["sdzero"]["truncated"] < 1
    kept = [r for r in lines_of(tmp_path / "run" / "revisions.jsonl") if r["kept"]]
    assert kept and all(r["revised_ids"][-1] in END_IDS for r in kept)


def test_a_trained_checkpoint_loads_as_any_other(finished_run):
    folder, _ = finished_run
    for name in ("srt", "sdzero"):
        cfg = small(str(folder / name))
        tokenizer, model = kit.loading.load_tokenizer(cfg), load_model(cfg)
        own = AutoTokenizer.from_pretrained(HERE / "tiny").chat_template
        assert tokenizer.chat_template == own
        assert kit.loading.end_token_ids(tokenizer, model) == END_IDS
        assert type(model) is Qwen3ForCausalLM
        assert json.loads((folder / name / "config.json").read_text())["model_type"] == "qwen3"


# --------------------------------------------------------------------------------------------------
# Elsewhere than on Linux
# --------------------------------------------------------------------------------------------------
MISSING = """
import sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # an import of it fails, as on Windows
import kit, sdzero, baselines
for room in kit.ROOMS:
    getattr(kit, room)
import tempfile, pathlib
folder = kit.run_folder.RunFolder(str(pathlib.Path(tempfile.mkdtemp()) / "run"), {}, {}, 1)
print("no locks" if kit.run_folder.fcntl is None else "locks")
"""


def test_everything_imports_where_fcntl_and_resource_are_missing():
    assert warm.python("-c", MISSING, cwd=HERE).stdout.strip() == "no locks"


def test_the_tiny_family_stays_on_one_thread_of_the_cpu(monkeypatch, checkpoint):
    """Also beside a GPU; another model, or --device, goes there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    own, threads = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    cfg = make_config()
    assert kit.loading.device_of(cfg) == "cpu"
    model = load_model(cfg)
    assert threads == [1] and model.dtype == torch.float32 and model.device.type == "cpu"
    load_model(make_config(model=checkpoint, device="cpu"))
    assert threads == [1] and torch.get_num_threads() == own
    assert kit.loading.device_of(make_config(model=checkpoint)).startswith("cuda")
    assert kit.loading.device_of(make_config(device="cuda")).startswith("cuda")


@pytest.mark.parametrize(
    "own",
    [
        {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": True, "eos_token_id": [2, 9]},
        {"temperature": 0.6, "suppress_tokens": [5], "eos_token_id": 2},  # which trainers warn of
        None,
    ],
)
def test_a_checkpoint_has_the_generation_config_of_its_base(own, run_of, checkpoint, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(checkpoint, base)
    file = base / "generation_config.json"
    file.write_text(json.dumps(own)) if own else file.unlink()
    run = run_of(small(str(base)))
    model = kit.loading.load_model(run.cfg)
    sdzero.generate(run, model, [[5, 6, 7]], seed=0)  # at settings of its own
    run.folder.checkpoint("srt", run.tokenizer, model)
    saved = json.loads((tmp_path / "run" / "srt" / "generation_config.json").read_text())
    if own:
        assert {**saved, **own} == saved and set(saved) == {*own, "transformers_version"}
    else:  # what a reader of config.json alone finds, and nothing that says how to sample
        assert saved.pop("_from_model_config") and saved["eos_token_id"] == END_IDS
        assert not set(saved) & {"temperature", "top_p", "top_k", "do_sample"}
    again = kit.loading.load_model(replace(run.cfg, model=str(tmp_path / "run" / "srt")))
    assert kit.loading.end_token_ids(run.tokenizer, again) == kit.loading.end_token_ids(
        run.tokenizer, model
    )


# --------------------------------------------------------------------------------------------------
# Apple's GPU, as far as a CPU can play it
# --------------------------------------------------------------------------------------------------
def test_mps_is_used_where_it_is_asked_for_and_there(monkeypatch):
    cfg = sdzero.Config(model="some/model", device="mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device mps: .* use --device cpu"):
        kit.loading.device_of(cfg)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert kit.loading.device_of(cfg) == "mps"
    assert kit.loading.device_of(replace(cfg, device="auto")) == "cpu"  # it was never run there
    assert kit.gpu.prepare("mps") is False
    assert kit.memory_plan.fill_in(cfg, "mps") is cfg  # nothing asks a card for its memory
    released = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: released.append(1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kit.gpu.release()
    assert released == [1]


def test_mps_gets_float32_unless_told_otherwise(monkeypatch, checkpoint):
    monkeypatch.setattr(kit.loading, "device_of", lambda cfg: "mps")
    monkeypatch.setattr(Qwen3ForCausalLM, "to", lambda self, device: self)
    assert load_model(small(checkpoint)).dtype == torch.float32
    assert load_model(small(checkpoint, dtype="bfloat16")).dtype == torch.bfloat16


def test_a_step_does_without_float64_where_there_is_none(monkeypatch, run_of, checkpoint):
    class OnApple:
        device = torch.device("mps")

        def float(self):
            return "float32"

    assert kit.losses.precise(OnApple()) == "float32"
    assert kit.losses.precise(torch.ones(())).dtype == torch.float64
    monkeypatch.setattr(kit.losses, "precise", lambda loss: loss.float())

    def refuse(*_):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch.Tensor, "double", refuse)
    run = run_of(small(checkpoint, distil_steps=2))
    model = load_model(run.cfg)
    sdzero.distil(run, model)
    rows = [[sdzero.Row([5, 6, 7, 8], [2])]] * 4
    sdzero.fine_tune(run, model, rows, "srt", sdzero.Training(1, 2, 1e-3, 0.0, 0.95))
    lines = lines_of(run.folder.path / "metrics.jsonl")
    assert [line["phase"] for line in lines] == ["distil"] * 2 + ["srt"] * 2


@pytest.mark.parametrize("flags, emulates", [("avx2 fma", True), ("avx512_bf16 avx2", False)])
def test_a_cpu_that_emulates_bfloat16_is_said(flags, emulates, checkpoint, monkeypatch, capsys):
    file = type("File", (), {"exists": lambda self: True, "read_text": lambda self: flags})
    monkeypatch.setattr(kit.gpu, "Path", lambda name: file())
    load_model(make_config(model=checkpoint, dtype="bfloat16", device="cpu"))
    assert ("emulates bfloat16" in capsys.readouterr().out) == emulates
    load_model(make_config(model=checkpoint, dtype="float32", device="cpu"))
    assert "emulates" not in capsys.readouterr().out
