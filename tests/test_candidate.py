"""What runs inside the sandbox, tested outside of it: the codec, the servant, the two scripts."""

import collections
import decimal
import enum
import fractions
import json
import os
import subprocess
import sys
import types

import pytest

from grading.candidate import RUN_CALLS, RUN_STDIN
from grading.candidate.calls import Servant, describe, kind_of
from grading.candidate.codec import decode, encode


def refuse(*_):
    raise TypeError("no plain data")


def there_and_back(value):
    return decode(json.loads(json.dumps(encode(value, refuse))), refuse)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -7,
        2**53,
        -(2**200),
        0.1,
        float("inf"),
        -0.0,
        1e-320,
        "",
        "é\0\ud800",
        b"\x00\xff",
        bytearray(b"ab"),
        2 - 3j,
        [],
        [1, [2, ["3"]]],
        (1, (2,)),
        {1, 2},
        frozenset({"a"}),
        {},
        {1: "a", (1, 2): [None], "t": {"d": 1}},
        range(1, 10, 3),
        fractions.Fraction(-1, 3),
        decimal.Decimal("1.10"),
        collections.deque([1, 2]),
    ],
)
def test_plain_data_comes_back_as_it_was(value):
    back = there_and_back(value)
    assert back == value and type(back) is type(value) and repr(back) == repr(value)


def test_not_a_number_comes_back():
    back = there_and_back(float("nan"))
    assert back != back


def test_views_of_a_dict_come_back_as_views():
    value = {1: "a", 2: "b"}
    assert there_and_back(value.keys()) == value.keys()
    assert there_and_back(value.items()) == value.items()
    assert list(there_and_back(value.values())) == ["a", "b"]


def test_subclasses_travel_as_what_they_extend():
    class Liar(str):
        def __str__(self):
            return "something else"

        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    class Colour(enum.IntEnum):
        RED = 3

    Point = collections.namedtuple("Point", "x y")
    for value, plain in (
        (Liar("lie"), "lie"),
        (Colour.RED, 3),
        (Point(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
    ):
        back = there_and_back(value)
        assert type(back) is type(plain) and plain == back


def test_what_is_no_plain_data_is_kept():
    kept = []

    def keep(value):
        kept.append(value)
        return {"o": len(kept) - 1}

    thing = object()
    data = encode([1, thing, {"a": print}], keep)
    assert kept == [thing, print]
    assert decode(data, lambda tag, value: (tag, value)) == [1, ("o", 0), {"a": ("o", 1)}]


def test_too_deep_a_nesting_is_refused():
    deep = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(ValueError):
        encode(deep, refuse)
    endless = {}
    endless["self"] = endless
    with pytest.raises(ValueError):
        encode(endless, refuse)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"i": "1", "f": "0x1p0"},
        {"o": 1},
        {"i": "no number"},
        {"i": None},
        {"b": "zz"},
        {"c": ["0x1p0"]},
        {"q": [1, 0]},
        {"d": [[1]]},
        {"s": [{"l": []}]},
        {"": 1},
        [1, 2],
        1.5,
    ],
)
def test_nonsense_is_refused(data):
    with pytest.raises((TypeError, ValueError, LookupError, AttributeError, ArithmeticError)):
        decode(data, refuse)


# The servant -------------------------------------------------------------------------------------


@pytest.fixture
def servant():
    module = types.ModuleType("solution")
    source = """
class Queue:
    def __init__(self): self.items = [3, 4]
    def __len__(self): return 2
    def __getitem__(self, i): return self.items[i]

def double(x): return 2 * x
def sort(items): items.sort()
def fail(): raise KeyError("missing", 7)
limit = 5
"""
    exec(source, vars(module))
    return Servant(module, None, None)


def call(servant, target, *args):
    return servant.answer(
        {"op": "call", "target": target, "args": encode(args, refuse), "kw": {"d": []}}
    )


def test_a_call_returns_its_value(servant):
    assert call(servant, "double", 21) == {"value": 42}
    assert servant.answer({"op": "name", "target": "limit"}) == {"value": 5}


def test_a_call_tells_what_it_changed(servant):
    reply = call(servant, "sort", [2, 1])
    assert reply["value"] is None
    assert decode(reply["args"], refuse) == ([1, 2],)


def test_an_object_stays_here_and_is_asked(servant):
    number = call(servant, "Queue")["value"]["o"]
    ask = {"target": number, "args": {"t": []}}
    assert servant.answer({**ask, "op": "len"}) == {"value": 2}
    assert servant.answer({**ask, "op": "item", "args": {"t": [1]}}) == {"value": 4}
    assert servant.answer({**ask, "op": "get", "args": {"t": ["items"]}}) == {
        "value": {"l": [3, 4]}
    }
    iterator = servant.answer({**ask, "op": "iter"})["value"]["o"]
    steps = [servant.answer({**ask, "target": iterator, "op": "next"}) for _ in range(3)]
    assert steps == [{"value": 3}, {"value": 4}, {"stop": True}]


def test_an_unknown_name_or_thing_is_an_error(servant):
    with pytest.raises(KeyError):
        call(servant, "no such function")
    with pytest.raises(KeyError):
        servant.find("o", 123)


def test_messages_go_through_a_pipe_in_any_size(servant):
    inlet, outlet = os.pipe()
    servant.inlet, servant.outlet = inlet, outlet
    servant.send({"value": "x" * 10_000})
    assert servant.receive() == {"value": "x" * 10_000}
    os.close(inlet)
    os.close(outlet)


def test_errors_and_kinds_are_described(servant):
    with pytest.raises(KeyError) as caught:
        servant.module.fail()
    names, args = describe(caught.value)["error"]
    assert names[:3] == ["KeyError", "LookupError", "Exception"]
    assert decode(args, refuse) == ("missing", 7)
    assert kind_of(OSError)[0] == "OSError"
    assert [kind_of(x) for x in (int, print, lambda: 0, 5, None)] == [
        "class",
        "function",
        "function",
        "data",
        "data",
    ]


# The scripts, as the sandbox runs them -----------------------------------------------------------


def run(boot, program, given):
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", boot, program, "/nowhere"]
    return subprocess.run(command, input=given, capture_output=True, timeout=60)


def test_a_program_finds_a_module_of_its_own_and_nothing_else():
    program = """
import sys
print(__name__, sys.argv, input())
print(sorted(name for name in globals() if not name.startswith("__")))
print("grading" in sys.modules, exit is sys.exit, sys.path[-1])
exit(3)
"""
    done = run(RUN_STDIN, program, b"7\n")
    assert done.returncode == 3, done.stderr
    assert done.stdout.decode().splitlines() == [
        "__main__ ['main.py'] 7",
        "['sys']",
        "False True /nowhere",
    ]


def test_a_program_that_prints_does_not_reach_the_judge():
    program = 'print("{}")\ndef f(x): print(x); return x + 1'
    ask = {"op": "call", "target": "f", "args": {"t": [1]}, "kw": {"d": []}}
    ask = json.dumps(ask).encode()
    done = run(RUN_CALLS, program, len(ask).to_bytes(4, "big") + ask)
    messages, rest = [], done.stdout
    while rest:
        size = int.from_bytes(rest[:4], "big")
        messages.append(json.loads(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    assert messages == [{"names": {"f": "function", **messages[0]["names"]}}, {"value": 2}]
    assert done.returncode == 0 and done.stderr == b""


def test_a_program_that_fails_says_how():
    done = run(RUN_CALLS, "1 / 0", b"")
    assert done.returncode == 1
    assert json.loads(done.stdout[4:])["error"][0][0] == "ZeroDivisionError"
