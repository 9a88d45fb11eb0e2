"""Judges programs by assertions.

The assertions are evaluated here; only the functions that they call are the program's, and run over
there. This room finds out which names of the tests those are.
"""

import ast
import builtins
import re
import sys

from grading.bounds import MAX_PROGRAM
from grading.programs.formats import THE_PROGRAM
from grading.programs.imports import with_imports
from grading.programs.process import too_large
from grading.programs.remote import Candidate, Dead, Thing


def judge_assertions(box, program, tests):
    """Evaluate the assertions here, call functions there. (right, why, whether time ran out)."""
    passed = "passed check" if tests.get("check") else f"passed {len(tests['code'])} assertions"
    return judge_with(box, program, tests, lambda candidate: _assert(candidate, tests), passed)


def judge_with(box, program, tests, judge, passed):
    """Run a program as a candidate that judge(candidate) calls: (right, why, whether time ran out).

    judge returns why the program failed, or None.
    """
    candidate = Candidate(box, _whole_program(program, tests), tests)
    try:
        try:
            candidate.load()
            if candidate.names is None:
                return False, candidate.dead or "the program did not load", False
            failed = judge(candidate)
        except (Dead, KeyboardInterrupt):
            return False, candidate.where + str(candidate.dead), candidate.dead == "time limit"
        except BaseException as error:
            return False, candidate.where + _in_words(error), False
        if failed is not None:
            return False, candidate.where + failed, False
        if candidate.dead:
            return False, candidate.dead, candidate.dead == "time limit"
        if not candidate.calls:
            return False, "bad row: the tests never called the program", False
    finally:
        _, cpu, resident = candidate.close()
    if cpu > tests["seconds"]:
        return False, f"time limit ({tests['seconds']} CPU seconds)", True
    if too_large(resident, tests):
        return False, f"memory limit ({tests['memory']} MiB)", False
    return True, passed, False


def _assert(candidate, tests):
    """Evaluate all assertions. Raises what they raise."""
    setup, *parts = [_without_its_import(code) for code in (tests["setup"], *tests["code"])]
    trees = [setup, *parts]
    entry = tests.get("entry")
    scope, bound = _scope(candidate, tests, trees, parts)
    function = scope.get(entry)
    if entry and function is None:
        function = written_function(candidate, entry)
        if entry not in bound:
            scope[entry] = function
    for tree in trees:
        _settle_before_statements(tree)
    exec(compile(setup, "setup", "exec"), scope)
    for number, part in enumerate(parts, 1):
        candidate.where = f"assertion {number} of {len(parts)}: " if len(parts) > 1 else ""
        exec(compile(part, "tests", "exec"), scope)
    if tests.get("check"):
        scope["check"](function)
    else:
        _run_test_functions(scope)


def _without_its_import(code):
    """The tree of a test's code, less `from solution import add`: its names are the program's."""
    tree = ast.parse(code)
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ImportFrom) and node.module in THE_PROGRAM)
    ]
    return tree


def written_function(candidate, entry):
    """The method of the class Solution, else the function, of that name; NameError without one."""
    written = candidate.names.get(entry) in ("function", "class")
    if candidate.names.get("Solution") == "class":
        try:
            return getattr(Thing(candidate, "Solution")(), entry)
        except AttributeError:
            if not written:
                raise
    if not written:
        raise NameError(f"the program does not define {entry}")
    return Thing(candidate, entry)


def _scope(candidate, tests, trees, parts):
    """(what the test code sees, the names that it binds itself).

    A name that it only reads is the program's, unless it is a module or a helper of the prompt.
    """
    scope = {"__name__": "tests", "__builtins__": builtins, "_settle": candidate.settle}
    bound, read = _bound_and_free(trees)
    entry = tests.get("entry")
    mine = {name for name in read - bound if not hasattr(builtins, name)}
    if entry or not any(name in candidate.names for name in mine):
        name = _shadowed(parts, candidate.names, entry)
        mine |= {name} if name and name not in bound else set()
    helpers = _prompt_helpers(tests)
    modules = _modules(trees)
    for name in sorted(mine):
        kind = candidate.names.get(name)
        if name in helpers:
            scope[name] = helpers[name]
        elif name in modules:
            # MBPP's tests use math without importing it: ours, not the candidate's.
            scope[name] = __import__(name)
        elif name in candidate.exceptions:
            scope[name] = candidate.exceptions[name]
        elif kind in ("function", "class"):
            scope[name] = Thing(candidate, name)
        elif kind == "data":
            scope[name] = candidate.ask("name", name)
    return scope, bound


def _in_words(error):
    """What made a test fail."""
    is_assertion = isinstance(error, AssertionError)
    words = "an assertion failed" if is_assertion else type(error).__name__
    detail = str(error)[:100] if not is_assertion or str(error) else ""
    return words + (f": {detail}" if detail else "")


def _whole_program(program, tests):
    """The program, below what the prompt defines (imports and helpers).

    A program that does not define the function in question is the completion of the prompt. Where
    judges of the program's kind import names for it, it has them.
    """
    prompt, entry = tests.get("prompt"), tests.get("entry")
    if "imports" in tests:
        program = with_imports(program, {entry, *tests["imports"]})
    if not prompt or not entry:
        return program
    defines = re.search(
        rf"^(?:async )?(?:def|class) +{re.escape(entry)}\b|^{re.escape(entry)} *=",
        program,
        re.MULTILINE,
    )
    whole = prompt.rstrip() + "\n\n\n" + program if defines else prompt + program
    try:
        compile(whole, "main.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return program
    return whole if len(whole.encode()) <= MAX_PROGRAM + 20_000 else program


def _prompt_helpers(tests):
    """What the prompt defines besides the function in question.

    The tests use it as it is there, whatever the program makes of it.
    """
    scope = {"__name__": "prompt"}
    try:
        prompt = tests["prompt"] if tests.get("entry") else ""
        exec(compile(prompt, "prompt", "exec", dont_inherit=True), scope)
    except Exception:  # a prompt in words
        return {}
    return {
        name: value
        for name, value in scope.items()
        if name != tests["entry"] and not name.startswith("__")
    }


def _bound_and_free(trees):
    """(names that the test code binds, names that it reads), anywhere in it."""
    bound, read = set(), set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return bound, read


def _modules(trees):
    """The modules of the standard library that the tests use: names with a dot behind them."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names.add(node.value.id)
    return {name for name in names & sys.stdlib_module_names if not name.startswith("_")}


def _shadowed(trees, names, entry):
    """A built-in name that the tests mean as the candidate's function, or None.

    As in MBPP's `assert sum(10, 15) == 6`.
    """
    if entry is not None:
        return entry
    counts = {}
    for tree in trees:
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and names.get(node.func.id) == "function"
                and hasattr(builtins, node.func.id)
            ):
                # The innermost call with plain arguments is the one under test: set(sum(...)) tests
                # sum.
                inner = 0
                for argument in node.args:
                    inner += sum(isinstance(part, ast.Call) for part in ast.walk(argument))
                counts.setdefault(node.func.id, []).append(inner)
    return min(counts, key=lambda name: (sum(counts[name]), name)) if counts else None


def _settle_before_statements(tree):
    """Put a call of _settle (Candidate.settle) before every statement of the tests."""
    for node in list(ast.walk(tree)):
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for statement in list(block) if isinstance(block, list) else ():
                # A docstring and an import from __future__ may have to stand first.
                is_constant = isinstance(getattr(statement, "value", None), ast.Constant)
                docstring = isinstance(statement, ast.Expr) and is_constant
                if not docstring and not isinstance(statement, ast.ImportFrom):
                    block.insert(block.index(statement), *ast.parse("_settle()").body)


def _run_test_functions(scope):
    """Run the tests that pytest or unittest would find.

    Functions test_... without arguments, and classes of test methods.
    """
    for name, value in list(scope.items()):
        if (
            name.startswith("test")
            and isinstance(value, type(_whole_program))
            and not value.__code__.co_argcount
        ):
            value()
        elif (
            "unittest" in sys.modules
            and isinstance(value, type)
            and issubclass(value, sys.modules["unittest"].TestCase)
        ):
            result = sys.modules["unittest"].TestResult()
            sys.modules["unittest"].defaultTestLoader.loadTestsFromTestCase(value).run(result)
            for test, trace in result.failures + result.errors + result.skipped:
                raise AssertionError(f"{test}: {trace[-60:]}")
