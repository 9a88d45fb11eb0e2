"""One answer as a picture: each token coloured by how much the reviser disagrees, as SVG; or by any
number that it has, as PNG, which a notebook shows wherever it is read."""

import html
import io

from kit import shades
from kit.figures import pyplot

WIDTH, SIZE, STEP = 84, 16, 9.6  # characters of a line; font size and advance, in pixels
LINE, MARGIN = 34, 14


def placed_tokens(tokens: list[str]) -> list[tuple[int, int, str]]:
    """(line, column, text) of each token, wrapped at WIDTH; one with a line break ends a line."""
    places, line, column = [], 0, 0
    for token in tokens:
        text = token.replace("\n", " ")
        if column and column + len(text) > WIDTH:
            line, column = line + 1, 0
        places.append((line, column, text))
        column += len(text)
        if "\n" in token:
            line, column = line + 1, 0
    return places


def token_picture(sample: dict, title: str, caption: list[str]) -> str:
    """SVG of an answer with tokens, token_reward (log student - log reviser), perhaps first_wrong.

    The token with the highest reward has a frame, the first wrong one is underlined.
    """
    rewards, places = sample["token_reward"], placed_tokens(sample["tokens"])
    full = max(map(abs, rewards)) or 1.0
    peak = rewards.index(max(rewards))
    lines = 1 + places[-1][0]
    below = MARGIN + LINE * (lines + 1) + 20
    height = below + 20 * len(caption)
    width = int(2 * MARGIN + WIDTH * STEP)
    shapes = [text_at(MARGIN, MARGIN + 18, title, "bold")]
    for t, (line, column, text) in enumerate(places):
        x, y = MARGIN + column * STEP, MARGIN + LINE * (line + 1)
        box = f'x="{x:.1f}" y="{y}" width="{len(text) * STEP:.1f}" height="24" rx="2"'
        edge = ' stroke="#111" stroke-width="2"' if t == peak else ""
        tip = f"<title>{rewards[t]:+.2f} nats</title>"
        shapes.append(f'<rect {box} fill="{shades.css(rewards[t], full)}"{edge}>{tip}</rect>')
        shapes.append(text_at(x, y + 17, text))
        if t == sample.get("first_wrong"):
            under = f'x1="{x:.1f}" x2="{x + len(text) * STEP:.1f}" y1="{y + 28}" y2="{y + 28}"'
            shapes.append(f'<line {under} stroke="#111" stroke-width="2"/>')
    for n, text in enumerate(caption):
        shapes.append(text_at(MARGIN, below + 20 * n, text, size=14))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def text_at(x: float, y: float, text: str, weight: str = "normal", size: int = SIZE) -> str:
    style = f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{size}"'
    fit = f'textLength="{len(text) * STEP * size / SIZE:.1f}"' if text.strip() else ""
    return (
        f'<text x="{x:.1f}" y="{y}" {style} font-weight="{weight}" fill="#111" {fit} '
        f'xml:space="preserve">{html.escape(shades.visible(text))}</text>'
    )


# --------------------------------------------------------------------------------------------------
# PNG, for notebooks
# --------------------------------------------------------------------------------------------------
class Png:
    """An image that a notebook shows where it is a cell's last value."""

    def __init__(self, data: bytes):
        self.data = data

    def _repr_png_(self) -> bytes:
        return self.data


def token_numbers(tokens: list[str], numbers: list[float], title: str) -> Png | None:
    """Tokens in boxes, each with its number below and the darker the larger it is; None, said in a
    line, without matplotlib."""
    if not (plt := pyplot()):
        return None
    cells = [token.replace("\n", "\u23ce") for token in tokens]
    widths = [max(4.4, len(cell) + 1) for cell in cells]  # in characters; a number needs four
    places, x, line = [], 0.0, 0
    for width in widths:
        if x and x + width > WIDTH:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    full = max(map(abs, numbers)) or 1.0
    fig, ax = plt.subplots(figsize=(10, 0.6 * (line + 1) + 0.4), constrained_layout=True)
    for cell, number, width, (x, line_of) in zip(cells, numbers, widths, places):
        *rgb, alpha = shades.rgba(abs(number), full)
        shade = (*(level / 255 for level in rgb), alpha)
        edge = {"edgecolor": "lightgrey", "linewidth": 0.6}
        ax.add_patch(plt.Rectangle((x, line_of), width - 0.3, 0.55, facecolor=shade, **edge))
        middle = x + width / 2 - 0.15
        how = {"ha": "center", "va": "center", "family": "monospace"}
        ax.text(middle, line_of + 0.27, cell, size=11, parse_math=False, **how)
        below = f"{number:.2f}" if abs(number) >= 0.005 else "0"
        ax.text(middle, line_of + 0.73, below, size=7, color="dimgrey", **how)
    ax.set(xlim=(0, WIDTH), ylim=(line + 1, -0.1))
    ax.set_title(title, loc="left", size=10)
    ax.axis("off")
    buffer = io.BytesIO()
    # no date or version inside: the same numbers give the same bytes
    fig.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(fig)
    return Png(buffer.getvalue())
