"""Tokens in colour: on a page, in a picture and in a terminal."""

import os
import sys

import numpy as np

# where the reviser finds a token less likely than the generator did, and where more
ORANGE, BLUE = (214, 69, 0), (0, 110, 200)
# of a terminal's 256 colours: from pale to orange, below black letters
LEVELS = 230, 223, 216, 209, 202


def full_colour(values: list[float]) -> float:
    """The size of a value, in nats, from which on a token has its full colour: the 99th percentile,
    so that one token alone does not leave the others pale."""
    return (float(np.quantile(np.abs(values), 0.99)) if len(values) else 0.0) or 1.0


def strength(value: float, full: float) -> float:
    """0 to 1."""
    return min(1.0, abs(value) / full)


def rgba(value: float, full: float) -> tuple[int, int, int, float]:
    """A value's colour: orange above 0, blue below."""
    return *(ORANGE if value > 0 else BLUE), strength(value, full) * 0.85


def css(value: float, full: float) -> str:
    """A value's colour, as CSS and SVG write it."""
    red, green, blue, alpha = rgba(value, full)
    return f"rgba({red},{green},{blue},{alpha:.2f})"


def ansi(text: str, value: float, full: float) -> str:
    """The text on the colour of a value, which is at least 0; a faint one gives none. The colour
    ends before a line does, or a terminal would fill the line with it."""
    level = round(strength(value, full) * len(LEVELS))
    if not level:
        return text
    begin, end = f"\x1b[48;5;{LEVELS[level - 1]};38;5;16m", "\x1b[0m"
    return "\n".join(line and begin + line + end for line in text.split("\n"))


def terminal_has_colours() -> bool:
    """Whether standard output is a terminal that shows them, and nobody asked for none
    (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    # a Windows console takes the codes for text, unless it is one of the newer ones
    old = sys.platform == "win32" and not {"WT_SESSION", "TERM", "ANSICON"} & set(os.environ)
    return sys.stdout.isatty() and not old


def visible(token: str) -> str:
    """A token without characters that would command a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in token)
