"""A .gguf file is looked through once. transformers does it anew for tokenizer, configuration and
weights, and lists the names of tensors anew for each module of the model: half a minute of SmolLM2.
"""

import contextlib
import functools
import os


@contextlib.contextmanager
def looked_through_once():
    """Within it transformers gets the reader, and the names, that it had before."""
    import gguf

    own = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = reader_of, names_of
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = own


def reader_of(file):
    return reader(str(file), os.stat(file).st_mtime_ns)


@functools.lru_cache(maxsize=1)
def reader(file: str, _changed: int):
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(file)


@functools.lru_cache(maxsize=4)
def names_of(architecture, layers: int):
    from gguf.tensor_mapping import get_tensor_name_map

    return get_tensor_name_map(architecture, layers)


def forget() -> None:
    """Let the reader go: it holds the file, and a hundred megabytes of its words."""
    reader.cache_clear()
