"""Commands in processes of their own that need not import torch and transformers again, which takes
nine seconds: they are forked from one that has (multiprocessing's forkserver).

Nothing of this repository is loaded beforehand: what a command imports is what lies in its folder.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LIBRARIES = [
    "torch",
    "transformers",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.generation.utils",
    "matplotlib.pyplot",
]


def python(*words, cwd, env=None, timeout=240) -> subprocess.CompletedProcess:
    """`python *words` in the folder cwd, with the environment of this process and env."""
    return pythons(words, cwd=cwd, envs=[env or {}], timeout=timeout)[0]


def pythons(words, cwd, envs: list[dict], timeout=240) -> list[subprocess.CompletedProcess]:
    """The same command once with each of these additions to the environment, all at once."""
    started, ended = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i, env in enumerate(envs):
            files = [os.path.join(folder, f"{name}{i}") for name in ("stdout", "stderr")]
            started.append((start(words, cwd, env, files), files))
        for process, files in started:
            process.join(timeout)
            if process.is_alive():
                for other, _ in started:
                    other.kill()
                raise subprocess.TimeoutExpired(words, timeout)
            texts = [Path(file).read_text() for file in files]
            ended.append(subprocess.CompletedProcess(words, process.exitcode, *texts))
    return ended


def start(words, cwd, env: dict, files: list) -> multiprocessing.Process:
    """The command under way; what it says goes into the two files, standard output first."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LIBRARIES)
    job = [str(word) for word in words], str(cwd), {**os.environ, **env}, [str(f) for f in files]
    process = server.Process(target=be_python, args=job)
    process.start()
    return process


def two_ranks(*words, cwd) -> list[subprocess.CompletedProcess]:
    """The same command as both of two ranks, told what torchrun tells them."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    common["MASTER_PORT"] = str(29000 + os.getpid() % 900)
    envs = [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return pythons(words, cwd, envs)


def be_python(words: list, cwd: str, environment: dict, files: list) -> None:
    """Do in this process what `python *words` would do in a new one, and end it."""
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    # what a new interpreter would find: nothing of this repository but what lies in cwd
    ours = (str(TESTS), str(TESTS.parent))
    sys.path[:] = [path for path in sys.path if path and path not in ours]
    code = 0
    try:
        run(words)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.exit(code)


def run(words: list) -> None:
    kind, *rest = words
    if kind == "-c":
        sys.path.insert(0, "")
        source, *sys.argv[1:] = rest
        sys.argv[0] = "-c"
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(source, "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.path.insert(0, os.getcwd())
        module, *sys.argv[1:] = rest
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(kind)))
        sys.argv[:] = words
        runpy.run_path(kind, run_name="__main__")
