"""Files of rows: .jsonl, .json, .csv and .parquet, packed (.gz, .bz2, .xz) or not; folders of them.

--data and the command line of verify.py read by this. It needs the standard library alone, but for
.parquet.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

from kit.errors import UserError

UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
MAX_NESTING = 100  # levels of brackets; more than any question or test has

# Columns that rows are known by, where a JSON object holds several lists of objects
KNOWN = {
    *("problem", "question", "prompt", "description", "text", "question_content", "response"),
    *("answer", "final_answer", "target", "solution", "gold", "demonstration", "messages"),
    *("inputs", "outputs", "tests", "test_list", "test", "entry_point", "input_output"),
    *("test_cases", "public_test_cases", "private_test_cases", "examples"),
}


class Unreadable(str):
    """What stands in the place of a row that could not be read: why."""


def files_of(path: str) -> list[Path]:
    """The file, or those of a folder that rows are read from, in order."""
    file = Path(path)
    if not file.is_dir():
        return [file] if file.is_file() else []
    shards = [p for p in sorted(file.rglob("*")) if p.is_file() and ending_of(p) in READERS]
    hidden = [any(part[0] == "." for part in p.relative_to(file).parts) for p in shards]
    return [p for p, is_hidden in zip(shards, hidden) if not is_hidden]


def read_rows(path: str, name: str = "", otherwise: str = "") -> list[tuple[int | str, object]]:
    """(line number, row) of every row of a file, or (place, row) of a folder of files, in order.

    A row that does not parse is Unreadable. name: how messages call the path. otherwise: the ending
    that a file without a known one is read as. Raises UserError.
    """
    name, file = name or path, Path(path)
    if file.is_dir():
        shards = files_of(path)
        if not shards:
            raise UserError(f"{name}: a folder without a .jsonl, .json, .csv or .parquet file")
        return [
            (f"{shard.relative_to(file)} line {number}", row)
            for shard in shards
            for number, row in rows_of_file(shard, ending_of(shard), f"{name}/{shard.name}")
        ]
    if not file.exists():
        raise UserError(f"{name}: no such file")
    ending = ending_of(file)
    if ending not in READERS:
        if not otherwise:
            raise UserError(
                f"{name}: unknown ending {ending!r}; use .jsonl, .json, .csv or .parquet, .gz "
                "behind it or not, or a folder of them"
            )
        ending = otherwise
    return rows_of_file(file, ending, name)


def place(number: int | str, what: str = "line") -> str:
    """How people are told of a row: "line 3", or "part-1.jsonl line 3" in a folder."""
    return number if isinstance(number, str) else f"{what} {number}"


def ending_of(file: Path) -> str:
    """.jsonl of questions.JSONL and of questions.jsonl.gz."""
    endings = [suffix.lower() for suffix in file.suffixes]
    if endings and endings[-1] in UNPACK:
        endings.pop()
    return endings[-1] if endings else ""


def rows_of_folder(folder: Path, name: str) -> list[tuple[str, object]]:
    """The rows of all files in a folder and below it, in the order of their names."""
    rows, files = [], 0
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in inner.parts)
        if ending_of(file) in READERS and file.is_file() and not hidden:
            files += 1
            found = rows_of_file(file, ending_of(file), f"{name}/{inner}")
            rows += [(f"{inner} line {number}", row) for number, row in found]
    if not files:
        raise UserError(f"{name}: a folder without a .jsonl, .json, .csv or .parquet file")
    return rows


def rows_of_file(file: Path, ending: str, name: str) -> list[tuple[int, object]]:
    try:
        data = file.read_bytes()
        data = UNPACK.get(file.suffix.lower(), bytes)(data)
        return READERS[ending](data)
    except Exception as e:  # whatever pyarrow, gzip, json and csv raise
        raise UserError(f"{name}: cannot be read as {ending[1:]}: {e}") from e


def text_of(data: bytes, errors: str = "surrogateescape") -> str:
    """UTF-8, or UTF-16 that says so. What is neither becomes half characters, which readable()
    finds in their rows."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig", errors)


def readable(text: str) -> bool:
    """Whether a text is one: without half characters (lone surrogates), which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parquet_rows(data: bytes) -> list[tuple[int, dict]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    return list(enumerate(table.to_pylist(), 1))


def csv_rows(data: bytes) -> list[tuple[int, object]]:
    csv.field_size_limit(2**31 - 1)  # by default 131,072 characters, for all readers of a process
    reader, rows = csv.DictReader(io.StringIO(text_of(data), newline="")), []
    for row in reader:
        texts = [text for text in row.values() if isinstance(text, str)]
        good = all(map(readable, texts))
        rows.append((reader.line_num, row if good else Unreadable("not UTF-8")))
    return rows


def json_rows(data: bytes) -> list[tuple[int, object]]:
    """A list of rows; or an object that holds one, or is itself the one row; or, misnamed, .jsonl.

    Of several lists of objects, the rows are those with the columns of questions.
    """
    try:
        rows = json.loads(text_of(data, "strict"))
    except ValueError:
        rows = jsonl_rows(data)
        if rows and isinstance(rows[0][1], dict):
            return rows
        raise
    if isinstance(rows, dict):
        lists = lists_in(rows)
        objects = [value for value in lists if isinstance(value[0], dict)]
        # the first of the best; an object that is no row holds its rows, whatever they are
        best = max([*objects, [rows]], key=lambda value: len(KNOWN & value[0].keys()))
        rows = best if KNOWN & best[0].keys() else [*objects, *lists, [rows]][0]
    if not isinstance(rows, list):
        raise ValueError("neither a list of rows nor an object that holds one")
    return [(number, shallow(row)) for number, row in enumerate(rows, 1)]


def lists_in(tree: dict, levels: int = 3) -> list[list]:
    """The lists in an object that are not empty, and in the objects within it."""
    found = [value for value in tree.values() if isinstance(value, list) and value]
    for value in tree.values():
        if isinstance(value, dict) and levels > 1:
            found += lists_in(value, levels - 1)
    return found


def jsonl_rows(data: bytes) -> list[tuple[int, object]]:
    # splitlines() would also cut at U+2028 inside a string
    lines = enumerate(text_of(data).split("\n"), 1)
    return [(number, row_of_line(line)) for number, line in lines if line.strip()]


def row_of_line(line: str) -> object:
    if not readable(line):
        return Unreadable("not UTF-8")
    try:
        row = json.loads(line)
    except RecursionError:
        return Unreadable("nested too deeply")
    except ValueError as e:  # JSONDecodeError, or an integer of too many digits
        return Unreadable(f"not JSON ({getattr(e, 'msg', e)})")
    return shallow(row) if line.count("[") + line.count("{") > MAX_NESTING else row


def shallow(row: object) -> object:
    """The row, or that it is nested too deeply: what copies or writes it would fail later."""
    level = [row]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for value in level
            if isinstance(value, (list, dict))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return row
    return Unreadable("nested too deeply")


READERS = {".jsonl": jsonl_rows, ".json": json_rows, ".csv": csv_rows, ".parquet": parquet_rows}
READERS[".ndjson"] = jsonl_rows
