"""The pages of runs and of comparisons as a browser shows them: what is seen, on a phone too, in
light and dark, with nothing asked of the network.

Needs Chromium (Debian: apt-get install chromium); skipped without it.
"""

import json
import shutil

import pytest
from browser import COMMAND, Browser
from toys import lines_of, message_of

import eval as evaluation
import kit
from studies import compare, compare_page
from studies.run_page import CURVES, RECORDS
from studies.runs import folder_of_row

PHONE, DESK = 375, 1100

# how large what a selector finds is: [[width, height], ...]
BOXES = """[...document.querySelectorAll(%s)].map(e => {
    const box = e.getBoundingClientRect(); return [box.width, box.height] })"""

# the texts whose contrast with what lies below them is less than 4.5, with that contrast
FAINT = """(() => {
    const parse = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a] };
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
    const ground = e => {
        const below = e.parentElement ? ground(e.parentElement) : [255, 255, 255];
        return over(parse(getComputedStyle(e).backgroundColor), below) };
    const light = rgb => {
        const [r, g, b] = rgb.map(x => x / 255).map(
            x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b };
    const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || e.closest('svg')) continue;
        if (!e.getClientRects().length) continue;
        const below = ground(e), text = over(parse(getComputedStyle(e).color), below);
        const [high, low] = [light(below), light(text)].sort((a, b) => b - a);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < 4.5) found.push([walk.currentNode.data, contrast]);
    }
    return found })()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not COMMAND:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def run_page(finished_run, tmp_path_factory):
    """The page of a finished run."""
    folder = tmp_path_factory.mktemp("page") / "run"
    shutil.copytree(finished_run[0], folder)
    assert evaluation.main(["page", str(folder)]) == 0
    return folder / "page.html"


def a_comparison(out, finished_run):
    """What compare would leave in `out` of two rows at two budgets, each run being finished_run."""
    jobs, done = [], {}
    for row in (compare.OURS, "RFT"):
        for budget in (48, 96):
            folder = folder_of_row(out, row, budget, 0)
            shutil.copytree(finished_run[0], folder)
            jobs.append(compare.Job(row, budget, 0, {"out": str(folder)}))
            done[row, budget, 0] = compare.measured(folder, "sdzero")
    rows = compare.comparison_rows(jobs, done)
    result = {"table": "methods", "model": "tiny", "task": "arith", "options": {"digits": 2}}
    kit.files.write_json(out / "results.json", {**result, "rows": rows, "failed": ["<b>oh</b>"]})
    marker = {"files": ["results.json"], "options": {"study": "compare"}, "content": {}}
    kit.files.write_json(out / "run.json", marker)
    (folder_of_row(out, "RFT", 48, 0) / "page.html").write_text("a run's own page")
    return rows


@pytest.fixture(scope="module")
def comparison(finished_run, tmp_path_factory):
    """(the page of a comparison, its rows)"""
    out = tmp_path_factory.mktemp("comparison")
    rows = a_comparison(out, finished_run)
    assert evaluation.main(["page", str(out)]) == 0
    return out / "page.html", rows


def opened(browser, file, width=DESK, dark=False) -> str:
    """The text that is shown, all details being unfolded."""
    browser.said.clear()
    browser.requests.clear()
    browser.look(width, dark=dark)
    browser.open(file)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    return browser.run("document.body.innerText")


def boxes(browser, selector) -> list:
    return browser.run(BOXES % json.dumps(selector))


def all_seen(browser, selector) -> int:
    """How many a selector finds, none of which is empty."""
    found = boxes(browser, selector)
    assert all(width > 1 and height > 1 for width, height in found), selector
    return len(found)


def percents(ci) -> str:
    return "[" + ", ".join(f"{100 * x:.1f}" for x in ci) + "]"


# --------------------------------------------------------------------------------------------------
# A run
# --------------------------------------------------------------------------------------------------
def test_a_runs_page_shows_its_numbers_curves_records_and_maps(browser, run_page, finished_run):
    folder, text = run_page.parent, opened(browser, run_page)
    for name, r in finished_run[1].items():
        assert name in text and percents(r["accuracy_ci"]) in text
        assert percents(r["revised_accuracy_ci"]) in text
    curves = all_seen(browser, "figure svg")
    assert curves >= len(CURVES) and all_seen(browser, "figcaption") == curves
    drawn = boxes(browser, "figure polyline")  # a curve may be flat, and one of one step is a dot
    assert len(drawn) == 2 * curves and sum(width > 50 for width, _ in drawn) >= curves
    kept = {r["prompt"] for r in lines_of(folder / "revisions.jsonl") if r["kept"]}
    assert text.count("revision, verified") == min(RECORDS, len(kept)) >= 1
    assert all_seen(browser, ".answer") == 3 and len(boxes(browser, ".answer .peak")) == 3
    tinted = "getComputedStyle(e).backgroundColor.startsWith('rgba')"
    assert browser.run(f"[...document.querySelectorAll('.answer span')].some(e => {tinted})")
    for name in json.loads((folder / "config.json").read_text()):
        assert kit.options.flag_of(name) in text


# --------------------------------------------------------------------------------------------------
# A comparison
# --------------------------------------------------------------------------------------------------
def test_a_comparisons_page_shows_table_curves_and_runs(browser, comparison):
    file, rows = comparison
    text = opened(browser, file)
    for row in compare_page.cells_of({"table": "methods", "rows": rows}):
        assert all(cell in text for cell in row)
    assert "<b>oh</b>" in text and "--digits" in text
    assert all_seen(browser, ".bars svg") == len(rows) == 5
    assert all_seen(browser, "figure svg") == 2 and len(boxes(browser, "figure polyline")) == 4
    assert text.count("python sdzero.py") == 4 and "sd-zero-96-0" in text
    links = browser.run("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert set(links) == {"runs/rft-48-0/page.html"} and (file.parent / links[0]).is_file()


def test_no_page_of_somebody_elses_is_overwritten(tmp_path, finished_run, capsys):
    """Compare refuses before its first run; its folder's page needs no run."""
    a_comparison(tmp_path, finished_run)
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "page.html").write_text("mine")
    for words in (["page", tmp_path], ["compare", "--out", tmp_path, "--rows", "RFT"]):
        assert "not made by this run" in message_of(capsys, evaluation.main, *words)
    assert (tmp_path / "page.html").read_text() == "mine"
    (tmp_path / "page.html").unlink()
    assert evaluation.main(["page", str(tmp_path)]) == 0
    assert "page.html" in json.loads((tmp_path / "run.json").read_text())["files"]
    assert "SD-Zero" in (tmp_path / "page.html").read_text()


# --------------------------------------------------------------------------------------------------
# Both
# --------------------------------------------------------------------------------------------------
@pytest.fixture(params=["a run's", "a comparison's"])
def page(request, run_page, comparison):
    return run_page if request.param == "a run's" else comparison[0]


def test_nothing_is_asked_for_and_nothing_goes_wrong(browser, page):
    opened(browser, page)
    assert set(browser.requests) == {page.resolve().as_uri()} and browser.said == []


def test_a_request_and_an_error_would_be_seen(browser, tmp_path):
    file = tmp_path / "bad.html"
    file.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('oh')</script>")
    opened(browser, file)
    assert "http://127.0.0.1:9/x.png" in browser.requests
    assert any("oh" in said for said in browser.said)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_is_readable(browser, page, width, dark):
    """No text leaves the page to the side, and every text stands out from its ground."""
    opened(browser, page, width, dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(FAINT) == []
    ground, ink = browser.run(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        ".map(c => c.match(/\\d+/g).map(Number).reduce((a, b) => a + b))"
    )
    assert (ground < 150 and ink > 600) if dark else (ground > 700 and ink < 150)
