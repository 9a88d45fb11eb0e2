"""The tests of a row, in the forms that data sets have them, brought to one form.

{"kind": "stdin", "cases": [[input, output], ...], "seconds": 5, "memory": 1024}, and where the
 program is to be C++ "language": "cpp"
{"kind": "call", "entry": name, "calls": [[arguments, result], ...], "seconds": 5, "memory": 1024}
{"kind": "assert", "setup": code, "code": [code, ...], "entry": name or None, "prompt": text,
 "check": whether the code defines check(candidate), "seconds": 5, "memory": 1024}
"""

import ast
import json
import math
import re
import sys

from grading.bounds import MAX_MEMORY, PROGRAM_MEMORY, TEST_SECONDS
from grading.programs.compare import same_output, same_value, trimmed
from grading.programs.fields import filled, limit, listed, text_or_lines, unpacked
from grading.programs.functional import load_calls, style_of

THE_PROGRAM = ("solution", "main")  # as tests call the module that they are for
KINDS = ("stdin", "call", "assert")
# Where a row may keep a list of tests, or a dict or text with tests in it
HOLDERS = (
    "tests",
    "test_cases",
    "input_output",
    "official_tests",
    "private_tests",
    "public_tests",
    "private_test_cases",
    "public_test_cases",
    "examples",
    "test",
)
# A few of the tests, for people: no other tests are measured by them
SAMPLES = ("public_tests", "public_test_cases", "examples")
# What a row says of all its tests, wherever they stand in it
ABOUT = ("time_limit", "memory_limit", "exact", "prompt", "entry_point", "test_imports")
ABOUT += ("test_setup_code", "starter_code", "metadata", "fn_name", "func_name")


def load_tests(row):
    """The tests of a row in one form; ValueError, saying what is wrong, if it has no good ones.

    Takes a dict (or its JSON) with `inputs` and `outputs`, or with `test_list`, or with `test` and
    `entry_point`, or with a list of {input, output} under one of HOLDERS; or such a list itself, or
    a list of assertions, or one text of them. Columns that hold nothing count as absent. Optional:
    time_limit (CPU seconds), memory_limit (MiB), exact, test_setup_code, test_imports, prompt,
    fn_name, metadata, starter_code; language, where "cpp" (or "c++") asks for C++.
    """
    if isinstance(row, (str, bytes)):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError):
            row = {"test": row}
    if isinstance(row, dict) and row.get("kind") in KINDS and "seconds" in row:
        return row
    if isinstance(row, (list, tuple)):
        are_texts = row and all(isinstance(test, str) for test in row)
        row = {"test_list": row} if are_texts else {"tests": row}
    if not isinstance(row, dict):
        raise ValueError(f"tests are {type(row).__name__}, not a dict or a list")

    row = filled(row)
    limits = {
        "seconds": limit(row, "time_limit", TEST_SECONDS),
        "memory": min(math.ceil(limit(row, "memory_limit", PROGRAM_MEMORY)), MAX_MEMORY),
    }
    if row.get("exact", False) is not False:
        limits["exact"] = _flag(row["exact"])
    forms = _forms(row)
    if not forms:
        raise ValueError("no tests: no inputs/outputs, no test_list, no test with entry_point")
    tests = {**limits, **_load_form(row, forms[0])}
    for other in forms[1:]:
        try:
            more = _load_form(row, other)
        except ValueError:
            continue
        _refuse_contradictions(tests, more, forms[0], other)
        if forms[0].startswith("private_test") and other.startswith("public_test"):
            tests = _both(tests, more)
    _refuse_two_results(tests)
    if str(row.get("language", "")).lower() in ("cpp", "c++"):  # any other is the text's, or Python
        if tests["kind"] != "stdin":
            raise ValueError("a C++ program can be tested by its input and output alone")
        tests["language"] = "cpp"
    return tests


def _flag(value):
    if not isinstance(value, bool):
        raise ValueError(f"exact is {str(value)[:40]!r}, not true or false")
    return value


def _forms(row):
    """The names under which a row has tests; the first counts."""
    forms = [name for name in ("test_list",) if name in row]
    if "test" in row and not isinstance(row["test"], (dict, list)):
        forms.append("test")
    if "inputs" in row or "outputs" in row or isinstance(row.get("input"), (list, tuple)):
        forms.append("inputs")
    return forms + [name for name in HOLDERS if name in row and name not in forms]


def _load_form(row, name):
    """The tests that a row has under a name, without the row's limits."""
    if name == "test_list":
        return {"kind": "assert", **_load_assertions(row)}
    if name == "test" and not isinstance(row[name], (dict, list)):
        return {"kind": "assert", **_load_check(row)}
    if name == "inputs":
        return _load_lists(row)
    inner = row[name]
    if isinstance(inner, (str, bytes)):
        read = listed(inner)
        if read is inner and name.endswith("_test_cases"):
            read = unpacked(inner)
            if read is None:
                raise ValueError(f"{name} is neither JSON nor packed as LiveCodeBench packs it")
        if read is inner:
            return load_tests({**{key: row[key] for key in ABOUT if key in row}, "test": inner})
        inner = read
    if isinstance(inner, dict):
        return load_tests({**{key: row[key] for key in ABOUT if key in row}, **filled(inner)})
    if not isinstance(inner, (list, tuple)) or not inner:
        raise ValueError(f"{name} is empty or no list")
    if all(isinstance(test, str) for test in inner):
        return {"kind": "assert", **_load_assertions({**row, "test_list": inner})}
    pairs = _pairs(inner, name)
    function = style_of(inner, row)
    if function is not None:
        about = {**row, "testtype": inner[0].get("testtype")} if isinstance(inner[0], dict) else row
        return load_calls(function, *map(list, zip(*pairs, strict=True)), about)
    return {"kind": "stdin", "cases": _load_cases(pairs), **_imports(row, [])}


def _load_lists(row):
    """Tests in two lists, inputs and outputs."""
    ins, outs = (listed(row.get(name + "s", row.get(name))) for name in ("input", "output"))
    kinds = row.get("testtype")
    kinds = kinds if isinstance(kinds, (list, tuple)) else [kinds]
    function = style_of([{"testtype": kind} for kind in kinds], row)
    if function is not None:
        return load_calls(function, ins, outs, row)
    if not isinstance(ins, (list, tuple)) or not isinstance(outs, (list, tuple)):
        raise ValueError("inputs and outputs must both be lists")
    if len(ins) != len(outs):
        raise ValueError(f"{len(ins)} inputs but {len(outs)} outputs")
    cases = _load_cases(zip(ins, outs, strict=True))
    return {"kind": "stdin", "cases": cases, **_imports(row, [])}


def _refuse_contradictions(tests, more, name, other):
    """Raise ValueError where a row's second form of tests says otherwise than its first."""
    kinds = {tests["kind"], more["kind"]}
    if len(kinds) == 2 and "stdin" in kinds and other not in SAMPLES:
        raise ValueError(f"{name} and {other} are tests of two kinds: leave one of them empty")
    if len(kinds) == 1:
        _refuse_two_results(_both(tests, more))


def _both(tests, more):
    """Tests with those of another form of the same kind, each once."""
    key = {"stdin": "cases", "call": "calls"}.get(tests["kind"])
    if key is None or tests.get("entry") != more.get("entry"):
        return tests
    both = {**tests, key: [*tests[key], *(case for case in more[key] if case not in tests[key])]}
    if not more.get("wrapped"):
        both.pop("wrapped", None)
    return both


def _refuse_two_results(tests):
    """Raise ValueError where two tests want different results for the same input."""
    same = {"stdin": same_output, "call": same_value}.get(tests["kind"])
    seen = {}
    for given, wanted in tests.get("cases") or tests.get("calls") or ():
        wanted = trimmed(wanted) if isinstance(wanted, str) else wanted
        first = seen.setdefault(given if same is same_output else json.dumps(given), wanted)
        if first is not wanted and not same(first, wanted):
            raise ValueError(f"two tests want different results for the input {str(given)[:60]!r}")


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


def _load_cases(pairs):
    """Inputs and outputs: a program is run once for each."""
    cases = []
    for pair in pairs:
        case = []
        for text in pair:
            if isinstance(text, (list, tuple)) and all(isinstance(line, str) for line in text):
                text = "\n".join(text)
            if not isinstance(text, str):
                raise ValueError(f"an input or output is {type(text).__name__}, not text")
            case.append(text.replace("\r\n", "\n"))
        cases.append(case)
    if not cases:
        raise ValueError("no tests: inputs and outputs are empty")
    if not any(expected.strip() for _, expected in cases):
        raise ValueError("no test expects any output")
    return cases


# What tests may import: `from solution import add` means the program's own add
IMPORTABLE = {*sys.stdlib_module_names, "numpy", *THE_PROGRAM}


def _parse_tests(code, what):
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{what} is no Python: {error}") from None
    for node in ast.walk(tree):
        for name in imported(node):
            if name not in IMPORTABLE:
                raise ValueError(f"{what} imports {name}, which no test can have here")
    return tree


def imported(node) -> list[str]:
    """The top-level modules that a node of a syntax tree imports."""
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0]]
    names = node.names if isinstance(node, ast.Import) else []
    return [alias.name.partition(".")[0] for alias in names]


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


def _load_assertions(row):
    """Assertions as MBPP has them: ["assert f(1) == 2", ...]."""
    assertions = listed(row["test_list"])
    if isinstance(assertions, str):
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
        text_or_lines(row.get(name), name) for name in ("test_imports", "test_setup_code")
    )
    _parse_tests(setup, "test_setup_code")
    entry = row.get("entry_point")
    return {
        "setup": setup,
        "code": list(assertions),
        "entry": entry if isinstance(entry, str) else None,
        "prompt": text_or_lines(row.get("prompt"), "prompt"),
        **_imports(row, [setup, *assertions]),
    }


def _imports(row, codes):
    """{"imports": names that are not imported} for a program that starter code begins, else {}."""
    if not isinstance(row.get("starter_code"), str):
        return {}
    nodes = [node for code in codes for node in ast.walk(ast.parse(code))]
    return {"imports": sorted({node.id for node in nodes if isinstance(node, ast.Name)})}


def _load_check(row):
    """One text of tests; as HumanEval has it, a function check(candidate)."""
    code, entry = row["test"], row.get("entry_point")
    if isinstance(entry, str) and (method := re.fullmatch(r"Solution\(\)\.(\w+)", entry)):
        entry = method[1]
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
        "setup": text_or_lines(row.get("test_setup_code"), "test_setup_code"),
        "code": [code],
        "entry": entry,
        "check": bool(checks),
        "prompt": text_or_lines(row.get("prompt"), "prompt"),
        **_imports(row, [code]),
    }
