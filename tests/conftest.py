"""Fixtures that several test files share. Warm workers are started once for a whole run.

torch is imported where a fixture needs it: the tests of the rewards do without.
"""

import gc
import os

import pytest

import verify

# One thread each: the workers of -n 2 have a core each, and threads that wait for their turn there
# take half as long again. Read by torch when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test cuts the power: what a process has written is there for the next one, killed or not. And
# the libraries are a million objects, that need not be looked through for garbage so often.
os.fsync = lambda file: None
gc.set_threshold(100_000, 50, 100)

# Files that take longest are begun first: with two workers (-n 2 --dist loadfile) a long one that
# is begun last leaves the other worker idle.
LONG = """test_end_to_end test_sandbox test_compare test_bench_commands test_resume
    test_code_rewards test_math_rewards test_memory_plan test_loading test_baselines test_lora
    test_localise_and_evolve test_ownership test_ranks test_house test_notebooks""".split()


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist's own order: most tests first
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


# --------------------------------------------------------------------------------------------------
# Rewards
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def isolated():
    """For tests that run programs. Hostile ones are never run where nothing holds them: they would
    do what they say."""
    if verify.sandbox_level()[0] == "limits":
        pytest.skip("this host cannot isolate programs")


@pytest.fixture(scope="session")
def math_grader():
    with verify.Grader("math", workers=2) as grader:
        yield grader


@pytest.fixture(scope="session")
def code_grader(isolated):
    # Programs wait more than they calculate: four workers keep two cores busy.
    with verify.Grader("code", workers=4) as grader:
        yield grader


# --------------------------------------------------------------------------------------------------
# Models and runs
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def tokenizer():
    """The embedded model's. Not to be changed: own_tokenizer is."""
    from transformers import AutoTokenizer

    from kit.presets import ALIASES

    return AutoTokenizer.from_pretrained(ALIASES["tiny"])


@pytest.fixture
def own_tokenizer():
    """A copy of the embedded model's tokenizer that a test may change."""
    from transformers import AutoTokenizer

    from kit.presets import ALIASES

    return AutoTokenizer.from_pretrained(ALIASES["tiny"])


@pytest.fixture(scope="session")
def model():
    """A random model. Not to be trained."""
    from toys import random_model

    return random_model()


@pytest.fixture(scope="session")
def phrases(tokenizer):
    import sdzero

    return sdzero.phrase_ids(tokenizer, sdzero.control_phrases(sdzero.Config(), "qwen3"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer):
    """The random model as a checkpoint folder."""
    from toys import random_model

    from kit.files import save_checkpoint

    folder = tmp_path_factory.mktemp("models") / "random"
    save_checkpoint(tokenizer, random_model(), folder)
    return str(folder)


@pytest.fixture
def coin(monkeypatch):
    """Every run is graded by a coin, and draws no figure, which takes as long as all the rest."""
    from toys import CoinGrader

    import kit
    import sdzero

    monkeypatch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
    monkeypatch.setattr(kit.figures, "figure", lambda folder, results: None)
    return CoinGrader()


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, and their files hold nothing: to draw one takes as long as a small run."""
    import kit

    def save(plt, fig, path):
        plt.close(fig)
        path.write_bytes(b"")

    monkeypatch.setattr(kit.figures, "save", save)


@pytest.fixture
def run_of(tokenizer, phrases, tmp_path):
    """run_of(cfg, grader) -> what prepare() makes, with a new run folder in tmp_path / "run"."""
    from toys import END_IDS, CoinGrader, new_folder, room

    import sdzero
    from kit.questions import load_questions

    def build(cfg, grader=None, end_ids=END_IDS, folder="run"):
        folder = new_folder(tmp_path / folder, cfg.save_every) if folder else None
        grader = grader or CoinGrader()
        questions = load_questions(cfg)
        return sdzero.Run(cfg, tokenizer, grader, questions, phrases, end_ids, room(cfg), folder)

    return build


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, checkpoint):
    """Both phases on the random model: (run folder, results). Not to be written to."""
    from toys import CoinGrader, small, train

    import sdzero

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdzero, "make_grader", lambda cfg: CoinGrader())
        folder = tmp_path_factory.mktemp("runs") / "run"
        return folder, train(small(checkpoint, out=str(folder)))
