"""Plain data as JSON, and back: how the judge and the candidate talk.

None, true, false, texts and small integers stand for themselves; all else is {tag: content}. What
is no plain data stays where it is: encode calls keep(value), which returns a {tag: content} of its
own for it, and decode calls find(tag, content) for every tag that it does not know.
"""

# Collections that keep their type
COLLECTIONS = (("l", list), ("t", tuple), ("s", set), ("z", frozenset))

# Subclasses (Counter, defaultdict, a named tuple, an IntEnum, a str of one's own) travel as what
# they extend; these get at the plain value, whatever the subclass has overridden.
PLAIN = (
    (int, int.__pos__),
    (float, float.__pos__),
    (str, str.__str__),
    (bytes, lambda value: bytes.__add__(value, b"")),
    (complex, complex.__pos__),
)


def encode(value, keep, depth=0):
    """A value as what json can write. ValueError if it is nested too deeply."""
    kind = type(value)
    if depth > 200:
        raise ValueError("nested too deeply")
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else {"i": hex(value)}
    if kind is float:
        return {"f": value.hex()}

    def many(items):
        return [encode(item, keep, depth + 1) for item in items]

    for tag, collection in COLLECTIONS:
        if kind is collection:
            return {tag: many(value)}
    if kind is dict:
        return {"d": _pairs(value.items(), keep, depth + 1)}
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "B": value.hex()}
    if kind is complex:
        return {"c": [value.real.hex(), value.imag.hex()]}
    if kind is range:
        return {"r": many([value.start, value.stop, value.step])}

    name = kind.__module__ + "." + kind.__qualname__
    if name == "fractions.Fraction":
        return {"q": many([value.numerator, value.denominator])}
    if name == "decimal.Decimal":
        return {"D": str(value)}
    if name == "collections.deque":
        return {"e": many(value)}
    if name in ("builtins.dict_keys", "builtins.dict_values", "builtins.dict_items"):
        return {"v": [name[14:], many(value)]}
    if (
        kind.__module__ == "numpy"
        and getattr(value, "shape", None) == ()
        and hasattr(value, "item")
    ):
        return encode(value.item(), keep, depth + 1)

    for base, plain in PLAIN:
        if isinstance(value, base):
            return encode(plain(value), keep, depth + 1)
    if isinstance(value, dict):
        return {"d": _pairs(dict.items(value), keep, depth + 1)}
    for tag, base in COLLECTIONS:
        if isinstance(value, base):
            return {tag: many(base.__iter__(value))}
    return keep(value)


def _pairs(items, keep, depth):
    return [[encode(key, keep, depth), encode(value, keep, depth)] for key, value in items]


def decode(data, find):
    """The value of what encode made. Raises whatever nonsense raises."""
    if data is None or isinstance(data, (bool, int, str)):
        return data
    ((tag, value),) = data.items()

    def many(items):
        return [decode(item, find) for item in items]

    if tag == "i":
        return int(value, 16)
    if tag == "f":
        return float.fromhex(value)
    if tag == "l":
        return many(value)
    if tag in "tsz":
        return {"t": tuple, "s": set, "z": frozenset}[tag](many(value))
    if tag == "d":
        return {decode(k, find): decode(v, find) for k, v in value}
    if tag in "bB":
        return (bytes if tag == "b" else bytearray).fromhex(value)
    if tag == "c":
        return complex(float.fromhex(value[0]), float.fromhex(value[1]))
    if tag == "r":
        return range(*many(value))
    if tag == "q":
        import fractions

        return fractions.Fraction(*many(value))
    if tag == "D":
        import decimal

        return decimal.Decimal(value)
    if tag == "e":
        import collections

        return collections.deque(many(value))
    if tag == "v":
        items = many(value[1])
        if value[0] == "items":
            return dict(items).items()
        if value[0] == "keys":
            return dict.fromkeys(items).keys()
        return dict(enumerate(items)).values()
    return find(tag, value)
