"""The names that a judge of functions imports for a program that uses them without doing so.

LeetCode, and so LiveCodeBench and every row with starter code, writes `def f(self, a: List[int])`
for an environment where `from typing import *` and its like stand above the program.
"""

import ast
import builtins
import importlib

# In this order: Counter is that of collections, not that of typing.
MODULES = (
    "collections math heapq itertools functools bisect typing string re random statistics "
    "operator copy datetime json io time sys"
).split()


def _names():
    """{a name: the import that gives it}."""
    found = {name: f"import {name}" for name in MODULES}
    for module in MODULES:
        public = importlib.import_module(module)
        for name in getattr(public, "__all__", None) or vars(public):
            if not name.startswith("_") and not hasattr(builtins, name):
                found.setdefault(name, f"from {module} import {name}")
    return found


# Made when the worker starts, before it locks itself away
NAMES = _names()


def with_imports(program, but):
    """A program below the imports that it takes for granted, except of the names in `but`.

    Those are what the tests call: math.gcd must not stand for a gcd that was not written.
    """
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program
    read, bound, top = set(), set(but), 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            top = node.end_lineno  # must stand first
    imports = sorted({NAMES[name] for name in read - bound if name in NAMES})
    if not imports:
        return program
    lines = program.split("\n")
    return "\n".join([*lines[:top], *imports, *lines[top:]])
