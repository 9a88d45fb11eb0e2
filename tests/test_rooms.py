"""How the rewards are built: imports go down only, and no file is longer than one reads."""

import ast
import sys

import pytest
from corpora import ROOT

FILES = sorted((ROOT / "grading").rglob("*.py"))
PARSER = {"math_verify", "sympy"}  # symbols.py and values.py, when first used


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """The modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


IMPORTS = {name_of(path): imports_of(path) for path in FILES}


@pytest.mark.parametrize("path", [*FILES, ROOT / "verify.py"], ids=name_of)
def test_a_file_says_what_it_is_for_and_is_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= (300 if path.name == "verify.py" else 500)


def test_nothing_of_the_rest_of_the_repository_is_imported():
    for name, imported in IMPORTS.items():
        tops = {module.partition(".")[0] for module in imported}
        optional = {"reasoning_gym"} if name == "grading.gym" else set()  # a worker's, if asked for
        assert tops <= {"grading"} | PARSER | optional | set(sys.stdlib_module_names), name
        assert "grading.gym" not in imported, name


def test_imports_go_down_only():
    left = {name: {module for module in IMPORTS[name] if module in IMPORTS} for name in IMPORTS}
    while left:
        lowest = [name for name, imported in left.items() if not imported & set(left)]
        assert lowest, f"a cycle among {sorted(left)}"
        for name in lowest:
            del left[name]


def test_what_runs_in_the_sandbox_imports_the_standard_library_only():
    for name, imported in IMPORTS.items():
        if name.startswith("grading.candidate"):
            others = {module for module in imported if module not in sys.stdlib_module_names}
            assert all(module.startswith("grading.candidate") for module in others), name


def test_mathematics_and_programs_know_nothing_of_each_other():
    for name, imported in IMPORTS.items():
        for one, other in (("maths", "programs"), ("programs", "maths")):
            if name.startswith(f"grading.{one}"):
                assert not any(module.startswith(f"grading.{other}") for module in imported)


def test_every_machine_of_the_levels_has_its_numbers():
    pytest.importorskip("fcntl")
    from grading import levels
    from grading.programs import filters

    assert set(levels.MACHINES) == set(filters.NUMBERS)
    for column, _, _ in filters.NUMBERS.values():
        assert any(pair[column] is not None for pair in filters.REFUSED.values())
