"""A machine that is not Linux: what only Linux has is taken away, here and in workers."""

import os
import subprocess
import sys

import pytest
import warm
from corpora import ROOT

# Read by every interpreter at its start; by a run behind its imports of torch, whose libraries are
# those of the real system. What the standard library needs of the names is imported before they go.
WITHOUT_LINUX = """
import ctypes, logging, os, random, select, signal, subprocess, sys, tempfile, threading
import concurrent.futures.thread, multiprocessing.util

def absent(*args, **options):
    raise TypeError("there is no such library here")

for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
for module, names in {
    os: "fork register_at_fork sched_getaffinity set_blocking killpg wait4 waitid memfd_create "
    "uname",
    select: "poll epoll",
    signal: "SIGKILL SIGXCPU",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
subprocess.Popen.kill = subprocess.Popen.terminate
ctypes.CDLL = absent
sys.platform = PLATFORM
"""


@pytest.fixture(params=["darwin", "win32"])
def elsewhere(request, tmp_path):
    """Runs a text where there is no Linux."""
    prelude = WITHOUT_LINUX.replace("PLATFORM", repr(request.param))
    (tmp_path / "sitecustomize.py").write_text(prelude)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(source, **variables):
        command = [sys.executable, "-c", source]
        how = dict(cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return subprocess.run(command, env={**environment, **variables}, **how)

    return run


def test_answers_are_graded(elsewhere):
    done = elsewhere(r"""
import sys, verify
assert sys.modules["fcntl"] is None
print(verify.math_reward(r"\boxed{5}", "5"), verify.math_reward(r"\boxed{6}", "5"))
with verify.Grader("math", workers=2) as grader:
    print(grader.grade([r"\boxed{\frac12}", r"\boxed{\frac13}", "none"], ["0.5", "0.5", "1"]))
    print(grader.timeouts)
print(verify.math_reward(r"\boxed{\frac12}", "0.5"))
""")
    assert done.stdout.split("\n")[:4] == ["1.0 0.0", "[1.0, 0.0, 0.0]", "0", "1.0"], done.stderr


def test_a_comparison_that_runs_too_long_is_given_up(elsewhere):
    done = elsewhere(r"""
import verify
roots = [rf"\sqrt{{{n}}}" for n in range(2, 46)]
slow = r"\boxed{" + ",".join(roots) + "}", ",".join(roots[::-1])
with verify.Grader("math", workers=1, timeout=0.2) as grader:
    print(grader.grade([slow[0], r"\boxed{\frac12}"], [slow[1], "0.5"])[0], grader.timeouts)
""")
    assert done.stdout.strip() in ("0.0 1", "0.0 2"), done.stderr


def test_programs_are_refused_in_one_clear_line(elsewhere):
    done = elsewhere("""
import verify
tests = {"inputs": ["1"], "outputs": ["1"]}
print(verify.code_reward("```python\\nprint(input())\\n```", tests))
for unsafe in (False, True):
    try:
        verify.Grader("code", unsafe=unsafe)
    except RuntimeError as error:
        print(error)
""")
    lines = done.stdout.splitlines()
    assert lines[0] == "0.0" and len(lines) == 3, done.stderr
    assert lines[1] == lines[2] and "needs Linux" in lines[1]
    assert done.stderr.strip() == "verify.py: RuntimeError: " + lines[1]


def test_a_console_that_lacks_a_character_ends_nothing(elsewhere):
    source = r"""
from kit.errors import exit_code
exit_code("sdzero", lambda: print("a \u2713 and \u6570"))
"""
    done = elsewhere(source, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert done.stdout == "a \\u2713 and \\u6570\n", done.stderr


WHOLE_RUN = r"""
import sys
sys.modules["matplotlib"] = None  # without it a run has no figure
sys.path.insert(0, ROOT)
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.qwen3 import modeling_qwen3
from safetensors import torch as _
exec(open("sitecustomize.py").read())
import sdzero
few = "--no-phase1 --digits 2 --distil-questions 4 --eval-questions 2 --eval-samples 1"
sys.exit(sdzero.main([*few.split(), *"--max-tokens 40 --out run".split()]))
"""


@pytest.mark.parametrize("elsewhere", ["win32"], indirect=True)
@pytest.mark.usefixtures("elsewhere")  # its sitecustomize.py, which the run's workers read too
def test_a_whole_run(tmp_path):
    source, path = WHOLE_RUN.replace("ROOT", repr(str(ROOT))), {"PYTHONPATH": str(tmp_path)}
    done = warm.python("-c", source, cwd=tmp_path, env=path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "sdzero" / "model.safetensors").is_file()
    assert "net correction" in done.stdout
