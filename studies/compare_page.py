"""A comparison on one page: OUT/page.html, which `eval.py compare` writes at its end.

python eval.py page out/compare      # again, say when runs have got pages of their own
"""

from pathlib import Path

import kit
from kit.tables import CORRECTION, percent
from studies.page import EDGE, HEIGHT, WIDTH, Raw, escaped, filled, html_table, own_page, write
from studies.runs import command_of, folder_of_row, read_options, read_results
from studies.statistics import mean_cell

FILES = {"methods": "results.json", "ablations": "ablations.json"}  # of OUT, by --table
ACCURACIES = ("accuracy", "accuracy_greedy")
LOOKS = {"accuracy": "", "accuracy_greedy": ' stroke-dasharray="5 4"'}


def is_comparison(folder: Path) -> bool:
    """Whether `eval.py compare` wrote here."""
    marker = folder / kit.ownership.MARKER
    return marker.is_file() and kit.files.read_json(marker).get("options") == {"study": "compare"}


# --------------------------------------------------------------------------------------------------
# The table, for the terminal and for the page
# --------------------------------------------------------------------------------------------------
def cells_of(out: dict) -> list[list[str]]:
    """The table of a comparison, its heading first."""
    ablations = out["table"] == "ablations"
    columns = ["samples", "trained tokens", "seconds", *["after SRT: sampled %"] * ablations]
    columns += ["sampled acc. %", "greedy acc. %", pass_heading(out["rows"]), "tokens"]
    columns += ["revised acc. %", "mended %", "net correction %"]
    rows = [["method", *columns, "SD-Zero leads by (sampled)"]]
    for r in out["rows"]:
        spent = [mean_cell(r[key], 1, 0, False) for key in ("samples", "trained_tokens", "seconds")]
        if ablations:
            spent.append(mean_cell(r["srt_accuracy"]) if r.get("srt_accuracy") else "")
        revised = [mean_cell(r[key]) for key in ("revised_accuracy", "correction_rate")]
        revised.append(mean_cell(r["net_correction_rate"]))
        cells = [*spent, *(mean_cell(r[key]) for key in ACCURACIES)]
        cells += [mean_cell(r["pass_at_k"], bounds=False)]
        cells += [mean_cell(r["mean_tokens"], 1, bounds=False), *revised]
        lead = r.get("sdzero_leads_by", {}).get("accuracy")
        rows.append([r["method"], *cells, mean_cell(lead) if lead else ""])
    return rows


def pass_heading(rows: list[dict]) -> str:
    """What the pass@k of these rows is called: k is 8, or as many samples as there were."""
    k = int(rows[0]["k"]["mean"]) if rows else 8
    return f"pass@{k} %"


# --------------------------------------------------------------------------------------------------
# Sections
# --------------------------------------------------------------------------------------------------
def table_section(out: dict) -> list[str]:
    """Each row's sampled accuracy as a dot with its interval, and the table."""
    bars = []
    for r in out["rows"]:
        name = r["method"] + (f", {r['budget']:,} samples" if r["budget"] else "")
        bars.append(f'<div class="name">{escaped(name)}</div>{interval_bar(r["accuracy"])}')
        bars.append(f"<div>{escaped(mean_cell(r['accuracy']))}</div>")
    said = f"Means over seeds with 95 % t-intervals (of one seed: Wilson's).\n{CORRECTION}"
    return [
        f"<h2>{'Methods' if out['table'] == 'methods' else 'Ablations'}</h2>",
        "<p><small>Sampled answers right, from 0 to 100 %:</small></p>",
        f'<div class="bars">{"".join(bars)}</div>',
        html_table(cells_of(out)),
        f"<p><small>{escaped(said)}</small></p>",
        *(f"<p>failed: {escaped(line)}</p>" for line in out["failed"]),
    ]


def interval_bar(value: dict) -> str:
    """A rate on a line from 0 to 1."""
    low, high = value["ci"] or (value["mean"],) * 2
    places = [f"{2 + 196 * min(1.0, max(0.0, x)):.1f}" for x in (low, high, value["mean"])]
    return (
        '<svg viewBox="0 0 200 9" role="img"><path d="M2 4.5H198" stroke="currentColor" '
        f'opacity="0.3"/><path d="M{places[0]} 4.5H{places[1]}" stroke="currentColor" '
        f'stroke-width="2"/><circle cx="{places[2]}" cy="4.5" r="3" fill="currentColor"/></svg>'
    )


def curves_section(rows: list[dict]) -> list[str]:
    """Accuracy against samples, a figure for each method that had several budgets."""
    figures = []
    for method in dict.fromkeys(r["method"] for r in rows if r["budget"]):
        of_method = [r for r in rows if r["method"] == method]
        if len(of_method) > 1:
            figures.append(budget_curve(method, of_method))
    if not figures:
        return []
    said = "0 to 100 % right; solid: sampled answers, dashed: greedy ones; bars: 95 % intervals."
    heading = f"<h2>Accuracy against samples</h2>\n<p><small>{said}</small></p>"
    return [heading, '<div class="curves">', *figures, "</div>"]


def budget_curve(method: str, rows: list[dict]) -> str:
    """Both accuracies of a method at its budgets, in equal steps."""
    last, shapes, words = len(rows) - 1, [], []
    for key, dashes in LOOKS.items():
        points = []
        for place, r in enumerate(rows):
            x = 4 * EDGE + (WIDTH - 8 * EDGE) * place / last
            low, high = r[key]["ci"] or (r[key]["mean"],) * 2
            y, top, bottom = (height_of(share) for share in (r[key]["mean"], high, low))
            points.append(f"{x:.1f},{y:.1f}")
            bar = f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="currentColor"{dashes}/>'
            shapes.append(f'{bar}<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/>')
        line = 'fill="none" stroke="currentColor" stroke-width="2"'
        shapes.append(f'<polyline points="{" ".join(points)}" {line}{dashes}/>')
    for r in rows:
        words.append(f"{r['budget']:,} samples {100 * r['accuracy']['mean']:.1f} %")
    said = escaped(f"{method}: {', '.join(words)}")
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{said}</title>'
        f"{''.join(shapes)}</svg><figcaption>{said}</figcaption></figure>"
    )


def height_of(share: float) -> float:
    """Where a share of 0 to 1 is in a figure."""
    return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * min(1.0, max(0.0, share))


def runs_section(out: Path, rows: list[dict]) -> list[str]:
    """Each row's runs: the command of the first, and what each seed came to."""
    parts = ["<h2>Runs</h2>"]
    for r in rows:
        lines, command = [["run", "stage", "sampled acc. %", "greedy acc. %", "page"]], ""
        for seed in r.get("seeds", []):
            folder = folder_of_row(out, r["method"], r["budget"], seed)
            if saved := read_options(folder):
                command = command or command_of(saved)
            for stage, result in read_results(folder).items():
                cells = [percent(result, key) for key in ACCURACIES]
                lines.append([folder.name, stage, *cells, link_to_page(out, folder)])
        if len(lines) > 1:
            title = escaped(f"{r['method']}, {r['budget']:,} samples")
            parts.append(
                f"<details><summary>{title}</summary>\n<pre>{escaped(command)}</pre>\n"
                f"{html_table(lines)}</details>"
            )
    return parts


def link_to_page(out: Path, folder: Path) -> Raw:
    """A link to a run's own page where it has one, beside this page."""
    place = (folder / "page.html").relative_to(out).as_posix()
    return Raw(f'<a href="{escaped(place)}">page</a>' if (out / place).is_file() else "-")


def options_section(results: list[dict]) -> list[str]:
    """What was given to every run, of each table."""
    rows = [["option", "value"]]
    for out in results:
        given = {"table": out["table"], "model": out["model"], "task": out["task"]}
        given |= out["options"]
        rows += [[kit.options.flag_of(name), value] for name, value in given.items()]
    return ["<h2>Options of all runs</h2>", html_table(rows, "options")]


# --------------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------------
def page_of(folder: Path) -> str:
    """The whole page, as text: of both tables where both were measured here."""
    files = [folder / name for name in FILES.values() if (folder / name).is_file()]
    results = [kit.files.read_json(file) for file in files]
    parts, runs = [], 0
    for out in results:
        parts += [*table_section(out), *curves_section(out["rows"])]
        runs += sum(len(r.get("seeds", [])) for r in out["rows"])
    for out in results:
        parts += runs_section(folder, out["rows"])
    parts += options_section(results)
    about = f"{folder}: {runs} runs" if results else f"{folder}: no run has ended yet"
    return filled(f"compare: {folder.resolve().name}", about, parts)


def write_page(folder: Path) -> None:
    """Write OUT/page.html. Raises UserError where that is somebody else's."""
    own_page(folder)
    write(folder, page_of(folder))
