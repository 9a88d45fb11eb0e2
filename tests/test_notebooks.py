"""The notebooks run from their first cell to their last, and say in docs/ what they printed."""

import ast
import re
import shlex
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from notebooks import (
    ROOT,
    as_python,
    code_cells,
    printed_by,
    read,
    run_cell,
    run_notebook,
    source_of,
)

import eval as evaluation
import sdzero

NAMES = ("walkthrough.ipynb", "colab.ipynb")
# the walkthrough in seconds
SMALLER = {
    "N1, EPOCHS = 400, 16": "N1, EPOCHS = 16, 2",
    "STEPS, BATCH = 10, 32": "STEPS, BATCH = 2, 4",
    "TESTS = 200": "TESTS = 6",
}


@pytest.fixture
def in_docs(monkeypatch):
    """As Jupyter starts a notebook: in its own folder."""
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.setattr(sys, "path", list(sys.path))


def committed(notebook: dict) -> dict[str, list[dict]]:
    return {cell["id"]: cell["outputs"] for cell in code_cells(notebook)}


def kinds(outputs: dict[str, list[dict]]) -> dict[str, list[str]]:
    return {name: [o["output_type"] for o in of_cell] for name, of_cell in outputs.items()}


# --------------------------------------------------------------------------------------------------
# The walkthrough
# --------------------------------------------------------------------------------------------------
def test_the_walkthrough_runs_and_prints_what_it_shows(in_docs):
    notebook = read("walkthrough.ipynb")
    shown, now = committed(notebook), run_notebook(notebook, SMALLER)
    assert kinds(now) == kinds(shown)
    # sampled text may be another on another CPU; what is not sampled is the same
    for cell in ("setup", "prompt"):
        assert printed_by(now[cell]) == printed_by(shown[cell])
    for cell, line in (("reviser", 0), ("records", 0), ("records", -1), ("before", 0)):
        lines = printed_by(now[cell]).splitlines(), printed_by(shown[cell]).splitlines()
        assert lines[0][line].split() == lines[1][line].split(), cell
    numbers = re.compile(r"[-+]?\d+(\.\d+)?")
    for cell in ("answer", "collect", "distil", "after"):
        lines = printed_by(now[cell]).splitlines()[-1], printed_by(shown[cell]).splitlines()[-1]
        assert numbers.sub("N", lines[0])[:12] == numbers.sub("N", lines[1])[:12], cell
    table = printed_by(now["after"]).splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["base", "srt", "sdzero"]


def test_the_walkthrough_shows_a_gain_of_both_phases():
    table = printed_by(committed(read("walkthrough.ipynb"))["after"])
    for name in ("phase 1", "phase 2"):
        low = re.search(rf"^{name}: .* points \[([-+.\d]+), ", table, re.MULTILINE)[1]
        assert float(low) > 0, name
    picture = committed(read("walkthrough.ipynb"))["kl"][0]["data"]
    assert len(picture["image/png"]) > 10_000


def test_the_walkthrough_is_short():
    cells = code_cells(read("walkthrough.ipynb"))
    assert 12 <= len(cells) <= 16
    assert max(len(source_of(cell).splitlines()) for cell in cells) <= 25


# --------------------------------------------------------------------------------------------------
# Colab
# --------------------------------------------------------------------------------------------------
class Shell:
    """Runs a cell's lines of this repository's programs in this process, and notes the others."""

    def __init__(self):
        self.programs, self.others = [], []

    def __call__(self, line, namespace):
        words = shlex.split(line.format_map(namespace))
        if words[0] != "python":
            self.others.append(words)
            return
        assert {"sdzero.py": sdzero, "eval.py": evaluation}[words[1]].main(words[2:]) == 0, line
        self.programs.append(words[1:3])


@pytest.mark.usefixtures("undrawn")
def test_the_cells_for_colab_run(monkeypatch, tmp_path):
    """On the embedded model, smaller; Colab's own module is played."""
    pytest.importorskip("peft", reason="--lora needs peft")
    downloaded, shell, out = [], Shell(), tmp_path / "colab"
    files = SimpleNamespace(download=downloaded.append)
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(files=files))
    monkeypatch.chdir(ROOT)
    smaller = "--digits 2 --samples 32 --max-tokens 30 --eval-questions 4 --eval-samples 1"
    changed = {
        '"Qwen/Qwen3-0.6B", "math"': '"tiny", "arith"',
        "--scale 0.02 --max-tokens 2048 --eval-questions 2500 --eval-samples 2": smaller,
        "--distil-batch 16": "--distil-batch 4",
        "ANSWERS = 20": "ANSWERS = 2",
        '"out/colab"': repr(str(out)),
    }
    printed = run_notebook(read("colab.ipynb"), changed, shell)
    assert [words[0] for words in shell.others] == ["pip", "pip", "nvidia-smi"]
    assert shell.programs[0] == shell.programs[1] == ["sdzero.py", "--model"]
    assert [words[1] for words in shell.programs[2:]] == ["watch", "page", "localise"]
    assert "16 GB" in printed_by(printed["plan"]) and "finished" in printed_by(printed["watch"])
    names = [Path(file).name for file in downloaded]
    assert names == ["colab-adapter.zip", "page.html", "localise.html"]
    assert "adapter_model.safetensors" in zipfile.ZipFile(downloaded[0]).namelist()


def test_what_colab_runs_fits_a_t4(capsys):
    """The real options, planned without the hub: 16 GB are enough."""
    namespace = {}
    run_cell(source_of(code_cells(read("colab.ipynb"))[0]), namespace)
    line = "--model {MODEL} --task {TASK} {SIZE} {STEPS} {MEMORY} --plan".format_map(namespace)
    assert sdzero.main(line.split()) == 0
    plan = capsys.readouterr().out
    of_t4 = next(words for words in map(str.split, plan.splitlines()) if words[:2] == ["16", "GB"])
    assert float(of_t4[2]) < 16 and "low halves of the weights         -" in plan


# --------------------------------------------------------------------------------------------------
# Both
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_they_copy_no_function(name):
    """By name, or line by line."""
    ours, lines = set(), set()
    for file in [*ROOT.glob("*.py"), *ROOT.glob("kit/*.py"), *ROOT.glob("studies/*.py")]:
        text = file.read_text(encoding="utf-8")
        functions = (ast.FunctionDef, ast.ClassDef)
        ours |= {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, functions)}
        code = [line.strip() for line in text.splitlines() if line.strip()]
        lines |= {tuple(code[i : i + 4]) for i in range(len(code) - 3)}
    for cell in code_cells(read(name)):
        source = as_python(source_of(cell))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                assert node.name not in ours, node.name
        code = [line.strip() for line in source.splitlines() if line.strip()]
        copied = [run for run in zip(code, code[1:], code[2:], code[3:]) if run in lines]
        assert not copied


@pytest.mark.parametrize("name", NAMES)
def test_they_hold_nothing_of_the_machine_that_ran_them(name):
    notebook = read(name)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook["metadata"]["kernelspec"] == kernel
    assert notebook["metadata"].keys() <= {"kernelspec", "language_info", "accelerator"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for number, cell in enumerate(code_cells(notebook), 1):
        assert cell["metadata"] == {}
        assert cell["execution_count"] == (number if name == "walkthrough.ipynb" else None)
        for output in cell["outputs"]:
            assert output.get("name") != "stderr" and output["output_type"] != "error"
            assert not re.search(r"/(?:work|home|root|tmp|Users)/", str(output.get("text", "")))


@pytest.mark.parametrize("name", NAMES)
def test_their_links_lead_somewhere(name):
    text = "".join("".join(c["source"]) for c in read(name)["cells"] if c["cell_type"] != "code")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert links
    for link in links:
        assert "://" in link or (ROOT / "docs" / link).exists(), link
