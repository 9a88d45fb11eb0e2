"""Real models through both phases, where their packages are installed (test_sdzero.py has the
embedded one)."""

import itertools
import json
import shutil

import numpy as np
import pytest
from toys import gemma, lines_of, smollm2, write_lines
from transformers import AutoModelForCausalLM, AutoTokenizer

import baselines
import kit
import sdzero


def largest_of(numbers):
    a, b, c = numbers
    return {"role": "user", "content": f"Which is the largest of {a}, {b} and {c}?"}


def triples(n):
    """n times three numbers of two digits, always the same."""
    g = np.random.default_rng(0)
    return [g.choice(np.arange(10, 100), 3, replace=False).tolist() for _ in range(n)]


@pytest.fixture(scope="module")
def smollm2_run(tmp_path_factory):
    """(run folder, weights as the .gguf file gave them, how often that file was looked through):
    the largest of three numbers, a solved one as earlier turns."""
    model, folder = smollm2(), tmp_path_factory.mktemp("smollm2")
    from gguf.gguf_reader import GGUFReader

    looks, look = [], GGUFReader._build_fields
    shots = [{"role": "system", "content": "You compare numbers."}]
    answer = {"role": "assistant", "content": "\\boxed{84}"}
    shots += [largest_of([31, 84, 57]), answer]
    rows = [{"prompt": [*shots, largest_of(three)], "answer": max(three)} for three in triples(24)]
    options = """--max-tokens 10 --srt-questions 7 --distil-questions 2 --eval-questions 1
        --eval-samples 1 --revisions 2 --srt-epochs 1 --srt-batch 4 --srt-lr 2e-5 --distil-batch 2
        --distil-lr 2e-5 --warmup-steps 1"""
    data = write_lines(folder / "max3.jsonl", rows)
    command = ["--model", model, "--data", data, "--out", str(folder / "run"), *options.split()]
    load, weights = kit.loading.load_model, {}

    def load_and_keep(cfg):
        model = load(cfg)
        weights.update({name: p.detach().clone() for name, p in model.named_parameters()})
        return model

    def look_and_count(reader, *parts):
        looks.append(reader)
        return look(reader, *parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit.loading, "load_model", load_and_keep)
        patch.setattr(GGUFReader, "_build_fields", look_and_count)
        patch.setattr(kit.figures, "figure", lambda folder, results: None)
        assert sdzero.main(command) == 0
    yield folder / "run", weights, len(looks)
    shutil.rmtree(folder / "run")  # a gigabyte of weights


def test_smollm2_goes_through_both_phases(smollm2_run):
    folder, base, looks = smollm2_run
    assert looks == 1
    results = json.loads((folder / "results.json").read_text())
    assert list(results) == ["base", "srt", "sdzero"]
    records = lines_of(folder / "revisions.jsonl")
    rewards = {r["init_reward"] for r in records} | {r["revised_reward"] for r in records}
    assert rewards == {0.0, 1.0}
    models = [AutoModelForCausalLM.from_pretrained(folder / name) for name in ("srt", "sdzero")]
    saved = [{name: p.detach() for name, p in m.named_parameters()} for m in models]
    for a, b in itertools.combinations([base, *saved], 2):
        assert set(a) == set(b)
        assert max(float((a[name] - b[name]).abs().max()) for name in a) > 1e-6


def test_smollm2s_blank_line_is_that_of_running_text(smollm2_run):
    """There it is two newline tokens; alone it is one."""
    folder = smollm2_run[0]
    tokenizer = AutoTokenizer.from_pretrained(folder / "srt")
    newlines = tokenizer.encode("a\n\nThe", add_special_tokens=False)[1:3]
    assert tokenizer.decode(newlines) == "\n\n"
    assert len(tokenizer.encode("\n\n", add_special_tokens=False)) == 1
    contexts = [r["revised_context"] for r in lines_of(folder / "revisions.jsonl")]
    assert contexts and all(context[-2:] == newlines for context in contexts)


def test_a_base_model_of_another_family_goes_through_too(tmp_path, capsys):
    """gemma-3-270m: sliding windows, 262,000 words, no chat template, and it has not learnt where
    an answer ends. As it is, no revision can be verified, and that is said; fine-tuned on a few
    worked answers it ends them, and goes through both phases."""
    model, rows = gemma(tmp_path), []
    for numbers in triples(40):
        row = {"question": largest_of(numbers)["content"], "answer": max(numbers)}
        rows.append({**row, "demonstration": f"\\boxed{{{max(numbers)}}}"})
    common = ["--chat-template", "plain", "--data", write_lines(tmp_path / "max3.jsonl", rows)]
    common += "--max-tokens 8 --eval-questions 2 --eval-samples 1".split()
    few = "--srt-questions 3 --distil-questions 2 --revisions 1 --srt-epochs 1".split()
    few += "--srt-lr 2e-5 --distil-lr 2e-5 --distil-batch 2 --warmup-steps 1".split()

    untrained = ["--model", model, "--out", str(tmp_path / "base"), *common, *few]
    assert sdzero.main(untrained) == 2
    assert "3 were cut off at --max-tokens 8" in capsys.readouterr().err

    sft = ["sft", "--model", model, "--out", str(tmp_path / "sft"), *common]
    sft += "--srt-questions 16 --distil-questions 8 --epochs 2 --batch 6 --lr 5e-5".split()
    assert baselines.main(sft) == 0
    taught = ["--model", str(tmp_path / "sft/sft"), "--out", str(tmp_path / "run"), *common, *few]
    assert sdzero.main(taught) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert list(results) == ["base", "srt", "sdzero"] and results["base"]["truncated"] == 0
