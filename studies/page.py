"""What pages of runs and of comparisons are made of: one HTML file, which asks the network for
nothing and has no scripts."""

import html
import json
from pathlib import Path
from string import Template

import kit
from kit.figures import moving_mean

FILE = "page.html"
WIDTH, HEIGHT, EDGE = 320, 150, 8
LONGEST = 4000  # characters of a text; what is longer is cut in its middle


class Raw(str):
    """HTML, to be put into a page as it is."""


def escaped(value) -> str:
    """A value as text for HTML, unless it is Raw; a long one is cut in its middle."""
    if isinstance(value, Raw):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]}\n[... {len(text) - LONGEST:,} characters ...]\n{text[-half:]}"
    return html.escape(text)


def html_table(rows: list[list[str]], of_class: str = "") -> str:
    """A table whose first row is its heading; it scrolls by itself where a phone is narrower."""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in rows[0])
    lines = []
    for row in rows[1:]:
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    body = "\n".join(lines)
    name = f' class="{of_class}"' if of_class else ""
    return f'<div class="wide"><table{name}>\n<tr>{head}</tr>\n{body}\n</table></div>'


def curve(title: str, values: list[float], steps: list[int]) -> str:
    """A figure of one number against steps: every value in grey, and a moving mean."""
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(1, len(values) - 1)

    def points(places, numbers):
        pairs = []
        for place, number in zip(places, numbers):
            x = EDGE + (WIDTH - 2 * EDGE) * place / last
            y = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (number - low) / span
            pairs.append(f"{x:.1f},{y:.1f}")
        return " ".join(pairs)

    places, means, width = moving_mean(values)
    line = 'fill="none" stroke="currentColor"'
    raw = f'<polyline points="{points(range(len(values)), values)}" {line} opacity="0.35"/>'
    smooth = f'<polyline points="{points(places, means)}" {line} stroke-width="2"/>'
    dot = ""
    if len(values) == 1:
        x, y = points([0], values).split(",")
        dot = f'<circle cx="{x}" cy="{y}" r="3" fill="currentColor"/>'
    words = f"{title}: {low:.4g} to {high:.4g}, last {values[-1]:.4g}"
    smoothed = f"; mean of {width} steps" if width > 1 else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escaped(words)}</title>'
        f"{raw}{smooth}{dot}</svg><figcaption>{escaped(words)}; steps {steps[0]} to {steps[-1]}"
        f"{smoothed}</figcaption></figure>"
    )


def filled(title: str, about: str, parts: list[str]) -> str:
    """The whole page, as text."""
    template = Template((Path(__file__).parent / FILE).read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title), about=html.escape(about), body="\n".join(parts)
    )


def own_page(folder: Path) -> None:
    """Take RUN/page.html. A run that is under way knows nothing of a page made meanwhile, so one
    that is ours by its head is ours. Raises UserError for another."""
    file = folder / FILE
    head = file.read_text(encoding="utf-8", errors="replace")[:1000] if file.is_file() else ""
    if 'content="eval.py page"' not in head:
        kit.ownership.own(folder, FILE)


def write(folder: Path, text: str) -> None:
    """Write the folder's page, which own_page() took."""
    kit.files.replace_file(folder / FILE, lambda p: p.write_text(text, encoding="utf-8"))
    print(f"page: {folder / FILE}")
