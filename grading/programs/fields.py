"""What a column of a row holds: whether it is filled, as a list, as a limit."""

import ast
import base64
import binascii
import io
import json
import math
import pickle
import re
import zlib

# Texts that stand for nothing, in tables that were written by other programs
NOTHING = {"", "[]", "{}", "null", "None", "nan", "NaN"}
MOST = 256 << 20  # bytes that a compressed text may unfold to


def is_empty(value):
    """Whether a column holds nothing: null, NaN, blank text, no items; or only columns that do."""
    if isinstance(value, str):
        return value.strip() in NOTHING if len(value) < 100 else not value.strip()
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    if isinstance(value, (list, tuple)):  # [""] is one test without input
        return all(item is None or isinstance(item, dict) and is_empty(item) for item in value)
    if isinstance(value, bytes):
        return not value
    return value is None or isinstance(value, float) and math.isnan(value)


def filled(row):
    """A row without its empty columns; arrays of numpy as lists."""
    plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
    return {name: value for name, value in plain.items() if not is_empty(value)}


def listed(value):
    """A list that was written as text (CSV has no other way), as a list; all else as it is."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value
    # numpy writes ['a' 'b'], which Python reads as ['ab']
    return read if repr(read) == value.strip() else value


class _Plain(pickle.Unpickler):
    """Reads texts, numbers and lists, and nothing that could run."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name} in a file of tests")


def unpacked(text):
    """What LiveCodeBench packs: base64 of zlib of a pickled JSON text; None if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
        stream = zlib.decompressobj()
        data = stream.decompress(data, MOST)
        if not stream.eof:
            return None
        inner = _Plain(io.BytesIO(data)).load()
        return json.loads(inner) if isinstance(inner, (str, bytes)) else inner
    except (ValueError, binascii.Error, zlib.error, pickle.UnpicklingError, RecursionError):
        return None
    except (EOFError, IndexError, KeyError, TypeError, AttributeError, MemoryError):
        return None  # what a damaged pickle raises


def limit(row, name, default):
    """A limit of a row, a number or a text such as "2 seconds" or "256 megabytes"."""
    value = row.get(name)
    if is_empty(value):
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


def text_or_lines(value, name):
    """A text, or a list of its lines."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}, not text")
    return value
