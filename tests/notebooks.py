"""Notebooks without Jupyter: their cells run in order, in one namespace of this process.

    python tests/notebooks.py docs/walkthrough.ipynb     # runs it and writes its outputs into it

Cells may have lines of a shell (`!command {NAME}`) and none of IPython's other magic.
"""

import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHELL = re.compile(r"^(\s*)!(.*)$", re.MULTILINE)


def read(name: str) -> dict:
    return json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


def as_python(source: str) -> str:
    """The cell with its shell lines as calls of SHELL_LINE."""
    return SHELL.sub(lambda m: f"{m[1]}SHELL_LINE({m[2]!r}, globals())", source)


def run_cell(source: str, namespace: dict):
    """(what a cell prints, the value of its last expression or None)"""
    tree, value = ast.parse(as_python(source)), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "<cell>", "exec"), namespace)
        if last:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    return printed.getvalue(), value


def outputs_of(printed: str, value) -> list[dict]:
    """A cell's outputs as a notebook holds them."""
    outputs = []
    if printed:
        lines = printed.splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if hasattr(value, "_repr_png_"):
        data = base64.b64encode(value._repr_png_()).decode()
        bundle = {"image/png": data, "text/plain": ["(a picture)"]}
        outputs.append({"data": bundle, "metadata": {}, "output_type": "display_data"})
    elif value is not None:
        raise ValueError(f"no cell of these notebooks ends with {value!r}: print it")
    return outputs


def run_notebook(notebook: dict, changed: dict, shell=None) -> dict[str, list[dict]]:
    """{cell id: its outputs}, the cells being run in order. changed: {text, which stands in one
    cell: what stands there instead}. shell(line, namespace) is asked to run a line of a shell."""
    namespace, outputs, left = {"__name__": "__main__", "SHELL_LINE": shell}, {}, dict(changed)
    for cell in code_cells(notebook):
        source = source_of(cell)
        for old in [old for old in left if old in source]:
            source = source.replace(old, left.pop(old))
        outputs[cell["id"]] = outputs_of(*run_cell(source, namespace))
    assert not left, left
    return outputs


def printed_by(outputs: list[dict]) -> str:
    """What a cell printed."""
    return "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")


def main(file: str) -> None:
    """Run a notebook where it lies, and write what its cells gave into it."""
    path = Path(file).resolve()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    os.chdir(path.parent)
    outputs = run_notebook(notebook, {})
    for number, cell in enumerate(code_cells(notebook), 1):
        cell["execution_count"], cell["outputs"] = number, outputs[cell["id"]]
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
