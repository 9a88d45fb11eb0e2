"""README's anchors into sdzero.py, and the hunks of its diffs, point at the lines they mean now:

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


def with_hunks_renewed(text: str, read) -> str:
    """The text with the first two line numbers of each @@ -1,2 +3,4 @@ of its diffs put right;
    read(path) is the file that a diff is for."""
    for diff in re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL):
        new = ""
        for path, hunks in re.findall(
            r"--- a/(.*)\n\+\+\+ .*\n((?:[@ +-].*\n?|\n)*?)(?=--- |\Z)", diff
        ):
            source, grown = read(path), 0
            part = f"--- a/{path}\n+++ b/{path}\n"
            for hunk in re.findall(r"@@ .*\n(?:(?!@@ ).*\n)*", hunks):
                body = hunk.splitlines()[1:]
                before = [line[1:] for line in body if line[:1] != "+"]
                after = [line for line in body if line[:1] != "-"]
                at = source.index("\n" + "\n".join(before) + "\n")
                number = source.count("\n", 0, at) + 2
                header = f"@@ -{number},{len(before)} +{number + grown},{len(after)} @@"
                grown += len(after) - len(before)
                part += "\n".join([header, *body]) + "\n"
            new += part
        text = text.replace(diff, new)
    return text


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


if __name__ == "__main__":
    text = with_hunks_renewed(renewed(read("README.md"), read("sdzero.py")), read)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
