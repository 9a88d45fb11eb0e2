"""README and docs: their anchors, links, options and diffs are true."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DIFFS = re.findall(r"```diff\n(.*?)```", README, flags=re.DOTALL)
SMALL = ["--no-phase1", "--distil-questions", "8", "--eval-questions", "4", "--eval-samples", "1"]


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_anchors_point_at_what_they_name():
    anchors = re.findall(r"\[`(\w+)`\]\(sdzero\.py#L(\d+)\)", README)
    lines = (ROOT / "sdzero.py").read_text(encoding="utf-8").splitlines()
    assert len(anchors) >= 10
    for name, number in anchors:
        assert re.match(rf"(def|class) {name}\b", lines[int(number) - 1]), (name, number)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    for link in local:
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:kit|grading|studies|tests)/[\w/.]+\.\w+)`", page.read_text("utf-8"))
    for name in named:
        assert (ROOT / name).exists(), name


def test_options_that_are_named_exist():
    code = ""
    for file in [*ROOT.glob("*.py"), *ROOT.glob("kit/*.py"), *ROOT.glob("studies/*.py")]:
        code += file.read_text(encoding="utf-8")
    others = {
        "no-deps",
        "nproc-per-node",
        "dist",
        "check",
        "help",
        "logdir",
    }  # of pip, torchrun, pytest, ruff, tensorboard
    for page in PAGES:
        for option in set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", page.read_text("utf-8"))):
            name = option.removeprefix("no-").replace("-", "_")
            assert option in others or name in code or option in code, (page.name, option)


@pytest.fixture
def fork(tmp_path):
    """What README says to copy."""
    for folder in ("kit", "tiny", "grading"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for file in ("sdzero.py", "verify.py"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def apply(diff: str, fork: Path) -> None:
    assert len(diff.splitlines()) <= 20
    done = subprocess.run(
        ["git", "apply", "--verbose", "-"], input=diff, cwd=fork, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert "offset" not in done.stderr, "run python tests/renew_anchors.py"


def run(fork: Path, *options: str) -> str:
    """A small run of the fork, which must succeed; what it prints."""
    done = warm.python("sdzero.py", *SMALL, "--out", "run", *options, cwd=fork)
    assert done.returncode == 0, done.stderr
    assert (fork / "run" / "sdzero" / "model.safetensors").is_file()
    return done.stdout


def test_a_task_is_a_diff(fork):
    apply(DIFFS[0], fork)
    shown = run(fork, "--task", "squares", "--max-tokens", "8")
    assert re.search(r"\d+\*\d+=\? Box it\.", shown)


def test_a_loss_is_a_diff(fork):
    apply(DIFFS[1], fork)
    run(fork, "--divergence", "jensen")
    check = (
        "import torch, sdzero\n"
        "a, b = torch.randn(5, 11), torch.randn(5, 11)\n"
        "p, q = a.softmax(-1), b.softmax(-1)\n"
        "m = (p + q) / 2\n"
        "brute = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2\n"
        "assert torch.allclose(sdzero.jensen(a, b), brute, atol=1e-6)\n"
    )
    done = warm.python("-c", check, cwd=fork)
    assert done.returncode == 0, done.stderr


def test_a_reward_is_a_diff_and_needs_no_verifier(fork):
    apply(DIFFS[2], fork)
    (fork / "verify.py").unlink()
    shutil.rmtree(fork / "grading")
    run(fork)
    results = (fork / "run" / "results.json").read_text()
    assert '"accuracy"' in results
