"""README's anchors into sdzero.py point at the lines where their names are defined now:

python tests/renew_anchors.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def renewed(text: str, source: str) -> str:
    """The text with the line number of each [`name`](sdzero.py#L123) put right."""
    lines = source.splitlines()

    def anchor(found):
        name = found[1]
        number = next(
            i for i, line in enumerate(lines, 1) if re.match(rf"(def|class) {name}\b", line)
        )
        return f"[`{name}`](sdzero.py#L{number})"

    return re.sub(r"\[`(\w+)`\]\(sdzero\.py#L\d+\)", anchor, text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    source = (ROOT / "sdzero.py").read_text(encoding="utf-8")
    readme.write_text(renewed(readme.read_text(encoding="utf-8"), source), encoding="utf-8")
