"""The tests of a row, in the forms that data sets have them, brought to one form.

{"kind": "stdin", "cases": [[input, output], ...], "seconds": 5, "memory": 1024}
{"kind": "assert", "setup": code, "code": [code, ...], "entry": name or None, "prompt": text,
 "check": whether the code defines check(candidate), "seconds": 5, "memory": 1024}
"""

import ast
import json
import math
import re

from grading.bounds import MAX_MEMORY, PROGRAM_MEMORY, TEST_SECONDS

# Where a row may keep a list of tests, or a dict or text with tests in it
HOLDERS = (
    "tests",
    "test_cases",
    "input_output",
    "official_tests",
    "private_tests",
    "public_tests",
    "examples",
    "test",
)


def load_tests(row):
    """The tests of a row in one form; ValueError, saying what is wrong, if it has no good ones.

    Takes a dict (or its JSON) with `inputs` and `outputs`, or with `test_list`, or with `test` and
    `entry_point`, or with a list of {input, output} under `tests`, `test_cases`, `official_tests`,
    `public_tests` or `examples`; or such a list itself, or a list of assertions, or one text of
    them. Optional: time_limit (CPU seconds), memory_limit (MiB), test_setup_code, test_imports,
    prompt.
    """
    if isinstance(row, (str, bytes)):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError):
            row = {"test": row}
    if isinstance(row, dict) and row.get("kind") in ("stdin", "assert") and "seconds" in row:
        return row
    if isinstance(row, (list, tuple)):
        are_texts = row and all(isinstance(test, str) for test in row)
        row = {"test_list": row} if are_texts else {"tests": row}
    if not isinstance(row, dict):
        raise ValueError(f"tests are {type(row).__name__}, not a dict or a list")

    tests = {
        "seconds": _limit(row, "time_limit", TEST_SECONDS),
        "memory": min(math.ceil(_limit(row, "memory_limit", PROGRAM_MEMORY)), MAX_MEMORY),
    }
    if row.get("test_list") is not None:
        return {**tests, "kind": "assert", **_load_assertions(row)}
    if row.get("test") is not None and not isinstance(row["test"], (dict, list)):
        return {**tests, "kind": "assert", **_load_check(row)}
    if "inputs" in row or "outputs" in row or isinstance(row.get("input"), list):
        ins, outs = (row.get(name + "s", row.get(name)) for name in ("input", "output"))
        if row.get("fn_name") is not None:
            return {**tests, "kind": "assert", **_load_calls(row["fn_name"], ins, outs)}
        if not isinstance(ins, (list, tuple)) or not isinstance(outs, (list, tuple)):
            raise ValueError("inputs and outputs must both be lists")
        if len(ins) != len(outs):
            raise ValueError(f"{len(ins)} inputs but {len(outs)} outputs")
        return {**tests, "kind": "stdin", "cases": _load_cases(zip(ins, outs, strict=False))}
    for name in HOLDERS:
        inner = row.get(name)
        if inner is None or inner == [] and name != "tests":
            continue
        if isinstance(inner, (str, bytes)):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                return load_tests({**_without(row, name), "test": inner})
        if isinstance(inner, dict):
            return load_tests(
                {
                    "time_limit": row.get("time_limit"),
                    "memory_limit": row.get("memory_limit"),
                    "prompt": row.get("prompt"),
                    **inner,
                }
            )
        if not isinstance(inner, (list, tuple)) or not inner:
            raise ValueError(f"{name} is empty or no list")
        if all(isinstance(test, str) for test in inner):
            return load_tests({**_without(row, name), "test_list": inner})
        return {**tests, "kind": "stdin", "cases": _load_cases(_pairs(inner, name))}
    raise ValueError("no tests: no inputs/outputs, no test_list, no test with entry_point")


def _without(row, name):
    return {key: value for key, value in row.items() if key != name}


def _pairs(tests, name):
    """[(input, output)] of tests that are {input, output} or [input, output]."""
    pairs = []
    for test in tests:
        if isinstance(test, dict) and "input" in test and "output" in test:
            pairs.append((test["input"], test["output"]))
        elif isinstance(test, (list, tuple)) and len(test) == 2:
            pairs.append(test)
        else:
            raise ValueError(f"a test in {name} is not {{input, output}}: {str(test)[:80]}")
    return pairs


def _limit(row, name, default):
    """A limit of a row, a number or a text such as "2 seconds" or "256 megabytes"."""
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, str) and (
        number := re.fullmatch(r" *(\d+\.?\d*) *(?:s|seconds?|MB|MiB|megabytes)? *", value)
    ):
        value = float(number[1])
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 < value < float("inf")
    ):
        raise ValueError(f"{name} is {str(value)[:40]!r}, not a positive number")
    return value


def _load_cases(pairs):
    """Inputs and outputs: a program is run once for each."""
    cases = []
    for given, expected in pairs:
        case = []
        for text in (given, expected):
            if isinstance(text, (list, tuple)) and all(isinstance(line, str) for line in text):
                text = "\n".join(text)
            if not isinstance(text, str):
                raise ValueError(f"an input or output is {type(text).__name__}, not text")
            case.append(text)
        cases.append(case)
    if not cases:
        raise ValueError("no tests: inputs and outputs are empty")
    if not any(expected.strip() for _, expected in cases):
        raise ValueError("no test expects any output")
    return cases


def _parse_tests(code, what):
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{what} is no Python: {error}") from None
    return tree


def _asserts(node):
    """Whether a node is an assert statement, or a call such as self.assertEqual(...)."""
    return (
        isinstance(node, ast.Assert)
        or isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith("assert")
    )


def _fails(node):
    """Whether anything in a node can fail a test."""
    return any(isinstance(inner, (ast.Assert, ast.Raise)) for inner in ast.walk(node))


def _text_or_lines(value, name):
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}, not text")
    return value


def _load_assertions(row):
    """Assertions as MBPP has them: ["assert f(1) == 2", ...]."""
    assertions = row["test_list"]
    if isinstance(assertions, str):
        try:
            assertions = json.loads(assertions)
        except (ValueError, RecursionError):
            assertions = [assertions]
    if not isinstance(assertions, (list, tuple)) or not assertions:
        raise ValueError("test_list is empty or no list")
    for test in assertions:
        if not isinstance(test, str):
            raise ValueError(f"a test in test_list is {type(test).__name__}, not text")
        tree = _parse_tests(test, "a test in test_list")
        if not any(map(_asserts, ast.walk(tree))):
            raise ValueError(f"a test in test_list asserts nothing: {test[:80]!r}")
        if not any(isinstance(node, ast.Call) for node in ast.walk(tree)):
            raise ValueError(f"a test in test_list calls nothing: {test[:80]!r}")
    setup = "\n".join(
        _text_or_lines(row.get(name), name) for name in ("test_imports", "test_setup_code")
    )
    _parse_tests(setup, "test_setup_code")
    entry = row.get("entry_point")
    return {
        "setup": setup,
        "code": list(assertions),
        "entry": entry if isinstance(entry, str) else None,
        "prompt": _text_or_lines(row.get("prompt"), "prompt"),
    }


def _load_check(row):
    """One text of tests; as HumanEval has it, a function check(candidate)."""
    code, entry = row["test"], row.get("entry_point")
    if not isinstance(code, str) or not code.strip():
        raise ValueError("test is empty or no text")
    if entry is None and "def check(" not in code:
        return _load_assertions({**row, "test_list": [code]})
    if not isinstance(entry, str) or not entry.isidentifier():
        raise ValueError(f"entry_point is {str(entry)[:40]!r}, not the name of a function")
    tree = _parse_tests(code, "test")
    checks = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"
    ]
    asserting = [
        node
        for node in ast.walk(checks[-1] if checks else tree)
        if _asserts(node) or isinstance(node, ast.Raise)
    ]
    helpers = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and _fails(node)
    ]
    # A check may leave the asserting to a helper that it calls.
    calls = checks and any(isinstance(node, ast.Call) for node in ast.walk(checks[-1]))
    if not asserting and not (helpers and calls):
        raise ValueError("test asserts nothing")
    if checks and len(checks[-1].args.args) != 1:
        raise ValueError("check must take the candidate, and nothing else")
    return {
        "setup": _text_or_lines(row.get("test_setup_code"), "test_setup_code"),
        "code": [code],
        "entry": entry,
        "check": bool(checks),
        "prompt": _text_or_lines(row.get("prompt"), "prompt"),
    }


def _load_calls(name, inputs, outputs):
    """Arguments and results of one function, as data sets with fn_name have them."""
    if (
        not isinstance(name, str)
        or not name.isidentifier()
        or not isinstance(inputs, list)
        or not isinstance(outputs, list)
        or not inputs
        or len(inputs) != len(outputs)
    ):
        raise ValueError("fn_name needs as many inputs (lists of arguments) as outputs")
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise ValueError("with fn_name each input is a list of arguments")
    return {
        "setup": "",
        "code": [f"assert {name}(*{i!r}) == {o!r}" for i, o in zip(inputs, outputs, strict=False)],
        "entry": name,
        "prompt": "",
    }
