"""The house: imports go down only, sdzero.py shows the method, and a fork needs what it says."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).resolve().parent.parent
PAPER = (ROOT / "sdzero.py").read_text()
TREE = ast.parse(PAPER)
PACKAGES = ["kit", "grading", "studies", "tests"]
FILES = [*ROOT.glob("*.py"), *(file for p in PACKAGES for file in (ROOT / p).rglob("*.py"))]
CODE = [file for file in FILES if file.parent != ROOT / "tests"]
# a part of the house -> the parts that it may import
DOWN = {
    "kit": set(),
    "grading": set(),
    "verify": {"grading"},
    "sdzero": {"kit"},
    "baselines": {"sdzero", "kit"},
    "studies": {"baselines", "sdzero", "kit", "verify"},
    "eval": {"studies", "baselines", "sdzero", "kit", "verify"},
}


# the inline metadata of a script (PEP 723), with the line above that says what it is
METADATA = re.compile(r"\n# What `uv run [\w.]+` installs.*\n# /// script\n((?:#.*\n)*?)# ///\n")


def part_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").parts[0]


def imports_of(tree) -> set[str]:
    """The first names of all modules that are imported within a syntax tree."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return {name.split(".")[0] for name in names}


def outside_of_functions(tree) -> list:
    """The nodes of a module that run when it is imported."""
    nodes, functions = [], (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, functions):
            nodes += [child, *outside_of_functions(child)]
    return nodes


# --------------------------------------------------------------------------------------------------
# Layout
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file):
    imported = imports_of(ast.parse(file.read_text())) & set(DOWN)
    part = part_of(file)
    allowed = DOWN[part] | {part} if part in DOWN else set(DOWN)  # test_sdzero.py
    if part == "kit":  # the rewards are imported where they are used
        allowed = allowed | {"verify"}
    if part == "verify":  # its command line, and nothing else, reads files as --data does
        allowed = allowed | {"kit"}
    assert imported <= allowed


@pytest.mark.parametrize("part", ["kit", "sdzero"])
def test_the_rewards_are_imported_late(part):
    for file in CODE:
        if part_of(file) == part:
            for node in outside_of_functions(ast.parse(file.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    assert not imports_of(node) & {"verify", "grading"}, file


def test_the_rewards_need_nothing_of_the_rest_but_their_command_line():
    tree = ast.parse((ROOT / "verify.py").read_text())
    for node in tree.body:
        names = imports_of(node) & set(DOWN)
        is_main = isinstance(node, ast.FunctionDef) and node.name == "main"
        assert names <= ({"kit"} if is_main else {"grading"}), names


def test_every_part_is_known():
    parts = {part_of(file) for file in CODE}
    assert parts == {*DOWN, "test_sdzero"}


def test_the_top_level_is_what_a_newcomer_reads():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = tracked.stdout.splitlines() or [path.name for path in ROOT.iterdir() if path.is_file()]
    top = [name for name in names if "/" not in name and not name.startswith(".")]
    assert {"sdzero.py", "README.md", "LICENSE"} <= set(top) and len(top) <= 11, top


@pytest.mark.parametrize("name", ["sdzero.py", "baselines.py", "eval.py", "verify.py"])
def test_a_script_brings_what_it_needs(name):
    """Its inline metadata allows what requirements.txt pins, and leaves out nothing of it."""
    specifiers = pytest.importorskip("packaging.specifiers")
    (block,) = METADATA.findall((ROOT / name).read_text())
    metadata = tomllib.loads("".join(line[2:] for line in block.splitlines(True)))
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().split())
    bounds = dict(re.match(r"([\w-]+)(.*)", d).groups() for d in metadata["dependencies"])
    assert bounds.keys() == ({"math-verify"} if name == "verify.py" else pins.keys())
    for package, bound in bounds.items():
        assert bound.startswith(">=") and specifiers.SpecifierSet(bound).contains(pins[package])
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    lowest = metadata["requires-python"].removeprefix(">=")
    assert target == "py" + lowest.replace(".", "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_is_longer_than_one_reads(file):
    lines = METADATA.sub("", file.read_text()).splitlines()  # it is no line of the method
    assert len(lines) <= (1050 if file.name == "sdzero.py" else 500)
    assert max(map(len, lines), default=0) <= 100
    assert not lines or ast.get_docstring(ast.parse("\n".join(lines)))


# --------------------------------------------------------------------------------------------------
# sdzero.py reads as the paper
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "words",
    [
        "model.generate(",
        "run.grader.grade(",
        "loss.backward()",
        "optimizer.step()",
        "teacher.load_state_dict(student.state_dict())",
        "(log_p.exp() * (log_p - log_q)).sum(-1)",
        "context + without_end(response, run.end_ids) + phrase",
        "F.cross_entropy(logits, targets[chunk]",
        "copy.deepcopy(model, kit.adapters.shared(model)).requires_grad_(False)",
    ],
)
def test_the_method_stands_in_sdzero(words):
    assert PAPER.count(words) == 1


COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp


def test_no_comprehension_stands_inside_another():
    for node in ast.walk(TREE):
        if isinstance(node, COMPREHENSIONS):
            inner = [n for n in ast.walk(node) if isinstance(n, COMPREHENSIONS) and n is not node]
            assert not inner, f"line {node.lineno}"
            # two loops in one: repeat() and targets_of() alone
            assert len(node.generators) <= 2, f"line {node.lineno}"


def test_no_function_takes_more_than_six_parameters():
    for node in ast.walk(TREE):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            a = node.args
            parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs]
            assert len(parameters) <= 6, f"line {node.lineno}"


# --------------------------------------------------------------------------------------------------
# A fork
# --------------------------------------------------------------------------------------------------
GRADER = """
import sys
import sdzero

class OneInTwo:
    timeouts = 0
    def grade(self, texts, answers): return [float(len(text) % 2) for text in texts]
    def __enter__(self): return self
    def __exit__(self, *_): pass

sdzero.make_grader = lambda cfg: OneInTwo()
sys.exit(sdzero.main())
"""
FEW = """--digits 2 --srt-questions 12 --srt-epochs 1 --distil-questions 4 --eval-questions 2
    --eval-samples 1 --max-tokens 40"""


def copied(folder: Path, *names) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def python(folder: Path, *words):
    """An interpreter that sees this folder alone."""
    return warm.python(*words, cwd=folder)


def test_a_fork_with_a_grader_of_its_own_needs_sdzero_kit_and_tiny_alone(tmp_path):
    fork = copied(tmp_path, "sdzero.py", "kit", "tiny")
    (fork / "mine.py").write_text(GRADER)
    done = python(fork, "mine.py", *FEW.split(), "--out", "run")
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("srt", "sdzero"):
        assert (fork / "run" / name / "model.safetensors").is_file()
    assert "correction rate" in done.stdout
    # without one it is told what to bring
    done = python(fork, "sdzero.py", *FEW.split(), "--out", "other")
    assert done.returncode == 2 and "verify.py" in done.stderr.splitlines()[-1]


def test_the_specification_runs_in_a_fork(tmp_path):
    """test_sdzero.py needs nothing from tests/: all but its longest test, which the suite runs."""
    fork = copied(tmp_path, "sdzero.py", "kit", "tiny", "verify.py", "grading", "test_sdzero.py")
    done = python(fork, "-m", "pytest", "-q", "-x", "test_sdzero.py", "-k", "formula or reads_the")
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-2000:]
    collected = python(fork, "-m", "pytest", "-q", "--collect-only", "test_sdzero.py").stdout
    assert "error" not in collected.lower() and collected.count("::") > 40
