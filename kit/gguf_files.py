"""A .gguf file is looked through once. transformers does it anew for tokenizer, configuration and
weights, and lists the names of tensors anew for each module of the model, which costs half a minute
for SmolLM2; and it reads each word of the vocabulary byte by byte.
"""

import contextlib
import functools
import os


@contextlib.contextmanager
def looked_through_once():
    """Within it gguf's two functions that transformers calls give what they gave before; what they
    gave is kept behind it too, the reader until forget(). Words are read at once."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    own = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = reader_of, names_of
    one_by_one = getattr(reading, "_gguf_parse_value", None)  # private: not of every version
    words = [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING]

    def value_of(value, types):
        return bytes(value).decode() if types == words else one_by_one(value, types)

    reading._gguf_parse_value = value_of
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = own
        reading._gguf_parse_value = one_by_one


def reader_of(file):
    return reader(str(file), os.stat(file).st_mtime_ns)


@functools.lru_cache(maxsize=1)
def reader(file: str, _changed: int):  # a file that has changed is another one
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(file)


@functools.lru_cache(maxsize=4)
def names_of(architecture, layers: int):
    from gguf.tensor_mapping import get_tensor_name_map

    return get_tensor_name_map(architecture, layers)


def forget() -> None:
    """Let the reader go: it holds the file, and a hundred megabytes of its vocabulary."""
    reader.cache_clear()
