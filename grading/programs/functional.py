"""Tests that call a function: its arguments and its results as data, not as code.

APPS and TACO name it in fn_name, LiveCodeBench and DeepCoder in metadata (func_name), beside tests
of testtype "functional", whose input has one JSON value per argument.
"""

import json
import re

from grading.programs.fields import is_empty, listed


def function_name(row):
    """The function that a row, or one of its tests, names; None if it names none."""
    metadata = listed(row.get("metadata"))
    for holder in (row, metadata if isinstance(metadata, dict) else {}):
        for column in ("fn_name", "func_name"):
            if not is_empty(holder.get(column)):
                return holder[column]
    return None


def style_of(tests, row):
    """The function that a list of tests calls; None where they are of standard input.

    ValueError where some are calls and some are not, or where nothing names the function.
    """
    named = [function_name(test) for test in tests if isinstance(test, dict)]
    kinds = {
        str(test.get("testtype") or test.get("type") or "").lower()
        for test in tests
        if isinstance(test, dict)
    }
    calls = {kind for kind in kinds if "func" in kind}
    if calls and len(kinds) > 1:
        raise ValueError(f"tests of several kinds: {', '.join(sorted(kinds))[:80]}")
    names = {str(name) for name in named if name is not None}
    if len(names) > 1:
        raise ValueError(f"tests of several functions: {', '.join(sorted(names))[:80]}")
    name = names.pop() if names else function_name(row)
    if any("std" in kind for kind in kinds) or not calls and name is None:
        return None
    name = name or only_function(row.get("starter_code"))
    if name is None:
        raise ValueError("functional tests, but no func_name in metadata, and no starter_code")
    return name


def only_function(code):
    """The one function, or method of a class, that starter code begins; else None."""
    names = re.findall(r"^\s*(?:async )?def (\w+)", code if isinstance(code, str) else "", re.M)
    names = [name for name in names if not name.startswith("__")]
    return names[0] if len(set(names)) == 1 else None


def load_calls(name, inputs, outputs, row):
    """Arguments and results of one function.

    APPS and TACO wrap every result once more, [3] for 3. Which a row does cannot be seen where
    all its results are lists of one item, unless starter code says what the function returns; then
    `wrapped` says that either will do, but for all calls alike. LiveCodeBench wraps nothing.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"fn_name is {str(name)[:40]!r}, not the name of a function")
    inputs, outputs = listed(inputs), listed(outputs)
    if not isinstance(inputs, (list, tuple)) or not isinstance(outputs, (list, tuple)):
        raise ValueError("with fn_name inputs and outputs must be lists")
    if not inputs or len(inputs) != len(outputs):
        raise ValueError("fn_name needs as many inputs (lists of arguments) as outputs")
    calls = [_call(*pair) for pair in zip(inputs, outputs, strict=True)]
    wrapped = all(isinstance(result, list) and len(result) == 1 for _, result in calls)
    wrapped = wrapped and row.get("testtype") is None
    if wrapped and (returns := _annotation(row.get("starter_code"), name)):
        if returns in ("int", "float", "str", "bool"):
            calls, wrapped = [[given, result[0]] for given, result in calls], False
        elif returns in ("list", "tuple") and not isinstance(calls[0][1][0], list):
            wrapped = False
    if all(result is None or wrapped and result == [None] for _, result in calls):
        raise ValueError("no test expects a result")
    tests = {"kind": "call", "entry": name, "calls": calls, "imports": [name]}
    return {**tests, "wrapped": True} if wrapped else tests


def _call(given, result):
    """[arguments, result] of one test. LiveCodeBench has both as text."""
    if isinstance(given, str):
        if not isinstance(result, str):
            raise ValueError("the arguments of a call are text, but its result is not")
        results = _json_values(result)
        if len(results) != 1:
            raise ValueError(f"the result of a call is no JSON value: {result[:60]!r}")
        return [_json_values(given), results[0]]
    if not isinstance(given, (list, tuple)):
        raise ValueError("with fn_name each input is a list of arguments")
    return [list(given), result]


def _json_values(text):
    """The JSON values that stand in a text one below the other."""
    decoder, values, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise ValueError(f"an argument or result is no JSON: {text[at:][:60]!r}") from None
        values.append(value)
        blank = re.compile(r"\s*").match(text, at).end()
        if blank == at < len(text):
            raise ValueError(f"an argument or result is no JSON: {text[:60]!r}")
        at = blank
    return values


def _annotation(code, name):
    """What starter code says that a function returns, in one lower-case word, or None."""
    if not isinstance(code, str):
        return None
    found = re.search(rf"def {name}\b[^\n]*->\s*['\"]?(?:typing\.)?(\w+)", code)
    return found[1].lower() if found else None
