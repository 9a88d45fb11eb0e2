"""eval.py watch, page and card: what they show of a run, and what hostile text cannot do there."""

import json
import re
import shlex
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toys import lines_of, message_of

import baselines
import eval as evaluation
import kit
import sdzero
from baselines import BaselineConfig, make_baseline_config
from kit.options import parse_options
from studies import run_page, runs, variants, watch

HOSTILE = "</script><script>alert(1)</script><img src=http://x/y.png onerror=alert(2)>&amp;\"'"
VOID = {"meta", "br", "img", "link", "input", "hr"}


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run[0], folder)
    return folder


class Checked(HTMLParser):
    """Every tag is closed where it should be; keeps tags, attributes and the text that is shown."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def page_of(folder, *words) -> tuple[Checked, str]:
    assert evaluation.main(["page", str(folder), *words]) == 0
    text = (folder / "page.html").read_text()
    return Checked(text), text


# --------------------------------------------------------------------------------------------------
# watch
# --------------------------------------------------------------------------------------------------
def test_watch_prints_the_run_so_far(run, finished_run, capsys):
    assert evaluation.main(["watch", str(run), "--lines", "2"]) == 0
    out = capsys.readouterr().out
    metrics, results = lines_of(run / "metrics.jsonl"), finished_run[1]
    assert "finished" in out and f"{metrics[-1]['samples']} responses" in out
    for heading in (*watch.COLUMNS, "so far"):
        assert heading in out
    lines = [line.split() for line in out.splitlines()]
    distil = [line for line in lines if line and line[0] == "distil"]
    assert [line[1] for line in distil] == ["0", "1-2"]
    first = next(m for m in metrics if m["phase"] == "distil")
    assert distil[0][2] == f"{first['loss']:.4g}"
    assert distil[0][3] == f"{100 * first['reward']:.1f}"
    assert f"{100 * results['sdzero']['accuracy']:.1f} [" in out


def test_watch_of_a_run_under_way(run, capsys):
    marker = json.loads((run / "run.json").read_text()) | {"finished": False}
    (run / "run.json").write_text(json.dumps(marker))
    (run / "results.json").unlink()
    lines = [m | {"left": 7200.0} for m in lines_of(run / "metrics.jsonl")[:3]]
    (run / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in lines))
    assert evaluation.main(["watch", str(run)]) == 0
    assert "time left about 2.0 h" in capsys.readouterr().out
    (run / "metrics.jsonl").write_text("")
    assert evaluation.main(["watch", str(run)]) == 0
    assert "no step yet" in capsys.readouterr().out


def test_watch_of_what_is_no_run(tmp_path, run, capsys):
    assert "not a run folder" in message_of(capsys, evaluation.main, "watch", tmp_path)
    assert "at least 1" in message_of(capsys, evaluation.main, "watch", run, "--lines", 0)
    assert "did you mean watch" in message_of(capsys, evaluation.main, "wach", tmp_path)


def test_old_runs_without_the_newer_numbers(run, capsys):
    lines = lines_of(run / "metrics.jsonl")
    for line in lines:
        for key in ("tokens_per_second", "memory", "left"):
            del line[key]
    (run / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in lines))
    assert evaluation.main(["watch", str(run)]) == 0 and " - " in capsys.readouterr().out
    page_of(run, "--maps", "0")


# --------------------------------------------------------------------------------------------------
# page
# --------------------------------------------------------------------------------------------------
def test_the_page_shows_the_run(run, finished_run):
    page, _ = page_of(run)
    for name, r in finished_run[1].items():
        low, high = (f"{100 * x:.1f}" for x in r["accuracy_ci"])
        assert name in page.text and f"[{low}, {high}]" in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") >= 8 and tags.count("polyline") == 2 * tags.count("svg")
    kept = [r for r in lines_of(run / "revisions.jsonl") if r["kept"]]
    shown = min(run_page.RECORDS, len({r["prompt"] for r in kept}))
    assert page.text.count("revision, verified") == shown >= 1
    coloured = [a for tag, a in page.tags if tag == "span" and "rgba" in a.get("style", "")]
    assert page.text.count("highest token reward") == 3 and len(coloured) >= 3
    for name in json.loads((run / "config.json").read_text()):
        assert kit.options.flag_of(name) in page.text
    assert "page.html" in json.loads((run / "run.json").read_text())["files"]


def test_the_page_asks_the_network_for_nothing_and_fits_a_phone_at_night(run):
    page, text = page_of(run, "--maps", "0")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "iframe")
        assert not {"src", "href", "xlink:href", "onload"} & set(attributes)
    assert "url(" not in text and "@import" not in text
    assert not re.search(r"https?://", text)
    metas = [a for tag, a in page.tags if tag == "meta"]
    assert any("width=device-width" in a.get("content", "") for a in metas)
    assert any("default-src 'none'" in a.get("content", "") for a in metas)
    assert "prefers-color-scheme: dark" in text and "overflow-x: auto" in text


def test_hostile_text_is_text(run):
    records = lines_of(run / "revisions.jsonl")
    for r in records:
        r |= {
            "kept": True,
            "prompt": HOSTILE + r["prompt"],
            "init_text": HOSTILE,
            "answer": HOSTILE,
        }
    (run / "revisions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    saved = json.loads((run / "config.json").read_text())
    saved |= {"system": HOSTILE, "phrase_if_right": "long " * 850}
    (run / "config.json").write_text(json.dumps(saved))
    page, text = page_of(run)
    assert "<script" not in text and "<img" not in text
    assert page.text.count(HOSTILE) >= 3 and "characters ..." in page.text


def test_a_page_is_made_again_but_no_other_file_is_overwritten(run, capsys):
    page_of(run, "--maps", "0")
    marker = json.loads((run / "run.json").read_text())
    marker["files"].remove("page.html")  # a run under way rewrites its marker
    (run / "run.json").write_text(json.dumps(marker))
    page_of(run, "--maps", "0")
    (run / "page.html").write_text("mine")
    assert "not made by this run" in message_of(capsys, evaluation.main, "page", run)
    assert (run / "page.html").read_text() == "mine"


def test_a_page_without_phase_1(run):
    (run / "revisions.jsonl").unlink()
    (run / "results.json").unlink()
    page, _ = page_of(run)
    assert "Records" not in page.text and "Curves" in page.text


# --------------------------------------------------------------------------------------------------
# card
# --------------------------------------------------------------------------------------------------
def test_the_card_says_what_the_run_knows(run, finished_run, capsys):
    assert evaluation.main(["card", str(run)]) == 0
    assert "--license" in capsys.readouterr().out
    assert evaluation.main(["card", str(run), "--license", "mit"]) == 0
    card = (run / "sdzero" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    yaml = pytest.importorskip("yaml").safe_load(head)
    saved = json.loads((run / "config.json").read_text())
    assert yaml["base_model"] == saved["model"] and yaml["license"] == "mit"
    assert "sdzero" in yaml["tags"] and "datasets" not in yaml
    for name, r in finished_run[1].items():
        low, high = (f"{100 * x:.1f}" for x in r["accuracy_ci"])
        assert f"| {name} |" in body and f"[{low}, {high}]" in body
    assert "generated additions" in body and runs.command_of(saved) in body
    assert all(f"`{kit.options.flag_of(name)}`" in body for name in saved)
    assert "sdzero/README.md" in json.loads((run / "run.json").read_text())["files"]


def test_a_card_of_another_stage_and_of_none(run, capsys):
    assert evaluation.main(["card", str(run), "--stage", "srt"]) == 0
    body = (run / "srt" / "README.md").read_text()
    of_srt = [line for line in lines_of(run / "metrics.jsonl") if line["phase"] == "srt"][-1]
    assert f"{of_srt['samples']:,} sampled responses of {of_srt['tokens']:,} tokens" in body
    assert "srt, sdzero" in message_of(capsys, evaluation.main, "card", run, "--stage", "sft")
    (run / "results.json").write_text("{}")
    assert "no measured checkpoint" in message_of(capsys, evaluation.main, "card", run)


def test_a_card_of_a_hub_data_set(run):
    saved = json.loads((run / "config.json").read_text()) | {"task": "math", "model": 'a/"b: c'}
    (run / "config.json").write_text(json.dumps(saved))
    assert evaluation.main(["card", str(run)]) == 0
    head = (run / "sdzero" / "README.md").read_text().split("---\n")[1]
    yaml = pytest.importorskip("yaml").safe_load(head)
    assert yaml["datasets"] == ["open-r1/OpenR1-Math-220k"] and yaml["base_model"] == 'a/"b: c'


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--digits 2 --seed 3 --no-trim --phrase-if-right 'it is; right'",
        "--model Qwen/Qwen3-4B-Instruct --task math --distil-lr 1e-6",
        "--model Qwen/Qwen3-4B-Instruct --recipe authors --task code --lora 16",
        "--samples 384 --method srt",
        "--task gym:chain_sum --gym-options a=1,b=2",
    ],
)
def test_the_command_makes_the_run_again(words):
    def options(command):
        given = parse_options(command, sdzero.Config, "")
        return asdict(sdzero.make_config(**given))

    saved = options(shlex.split(words))
    python, program, *flags = shlex.split(runs.command_of(saved))
    assert (python, program) == ("python", "sdzero.py")
    assert options(flags) == saved


COMMANDS = [
    "sdzero.py --samples 480 --seed 3 --no-trim",
    "sdzero.py --method srt --digits 3",
    "sdzero.py --model Qwen/Qwen3-4B --task math --lora 8 --srt-lr 1e-05",
    "sdzero.py --recipe authors --model Qwen/Qwen3-4B --task math",
    "baselines.py rft --rounds 4 --samples 480",
    "baselines.py grpo --model Qwen/Qwen3-4B --task math --group 8",
    "baselines.py rft --on-revisions --samples 1536",
    "baselines.py rft --model Qwen/Qwen3-4B --task math --max-tokens 4096 --temperature 1.0",
    "studies/variants.py --samples 480 --divergence jsd --jsd-beta 0.9",
    "studies/variants.py --teacher-ema 0.9",
]


def test_the_command_of_a_scaled_baseline_is_one_that_it_takes():
    """Its counts are saved as --scale left them, those that it lacks among them."""
    scaled = make_baseline_config(method="sft", model="a/b", task="math", scale=0.1)
    *_, words = runs.command_of(asdict(scaled)).partition(" sft ")
    again = make_baseline_config(method="sft", **parse_options(words.split(), BaselineConfig, ""))
    assert again.srt_questions == scaled.srt_questions == 1000


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_run_gives_its_options_again(command, monkeypatch):
    """Its program, and no option that says what is the default anyway."""

    def options_of(program, words):
        seen = []
        module = {"sdzero": sdzero, "baselines": baselines, "variants": variants}[program.stem]
        train = module if module is not variants else sdzero
        monkeypatch.setattr(train, "train", lambda cfg, stages: seen.append(cfg))
        assert module.main(words) == 0
        return kit.run_folder.options_of(seen[0])

    program, *words = command.split()
    saved = options_of(Path(program), words)
    python, again, *words_again = shlex.split(runs.command_of(saved))
    assert python == "python" and again == program and len(words_again) <= len(words) + 4
    assert options_of(Path(again), words_again) == saved
