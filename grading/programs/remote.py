"""A program's functions and objects, as a test sees them from outside.

The judge's end of the pipe; candidate/calls.py is the other. What comes back is plain data, or
a Thing.
"""

import builtins
import json
import os
import select

from grading.bounds import MAX_REPLY
from grading.candidate import RUN_CALLS
from grading.candidate.codec import decode, encode
from grading.programs.process import Clock, kill


class Dead(BaseException):
    """The candidate ended, ran out of time, or sent nonsense.

    Not an Exception, so that no `except Exception` in a test hides it.
    """


# Functions that go over by their name: the candidate has the same ones
BY_NAME = {
    getattr(builtins, name): name
    for name in (
        "int float str bool list tuple set dict bytes complex "
        "len sum min max abs sorted any all ord chr"
    ).split()
}


class Candidate:
    """A program in its sandbox, as seen by a judge of function tests."""

    def __init__(self, box, program, tests):
        self.clock = Clock(2 * tests["seconds"] + 2)
        self.pid, self.to, self.back = box.start(
            RUN_CALLS, program, tests["seconds"], tests["memory"]
        )
        self.box = box
        self.dead = None  # why it is, once it is
        self.where = ""  # which of the tests is at work
        self.calls = 0  # of its functions, by the tests
        self.names = None  # what the program defines: {name: what it stands for}
        self.exceptions = {}  # classes that stand for its exception classes
        self.functions = []  # of the tests', that it may call
        self.things = {}  # of its own, by number
        self.changed = []  # (a value of the tests', what it made of it)

    def load(self):
        """Wait until the program has run once from top to bottom, and learn its names."""
        reply = self.receive()
        if isinstance(reply.get("names"), dict):
            self.names = reply["names"]
            for name, kinds in self.names.items():
                if isinstance(kinds, list):
                    known = map(_exception, kinds[1:])
                    base = next(filter(None, known), Exception)
                    self.exceptions[name] = type(name, (base,), {})
        elif "error" in reply:
            self.dead = f"the program raised {str(reply['error'][0][0])[:40]}"

    def die(self, why):
        """End the judging: nothing that this program says counts any more."""
        self.dead = self.dead or why
        raise Dead(why)

    def wait(self, fd, event):
        """Wait until a pipe is ready, for as long as the program has time left."""
        poll = select.poll()
        poll.register(fd, event)
        if self.dead or not self.clock.poll(poll):
            self.die("time limit")

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            self.wait(self.back, select.POLLIN)
            got = os.read(self.back, min(1 << 16, size - len(data)))
            if not got:
                self.die("the program ended before it had answered")
            data += got
        return data

    def receive(self):
        size = int.from_bytes(self.exactly(4), "big")
        if size > MAX_REPLY:
            self.die("the result is too large")
        try:
            reply = json.loads(self.exactly(size))
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.die("the program broke the pipe to the judge")
        return reply

    def send(self, message):
        data = json.dumps(message).encode()
        data = memoryview(len(data).to_bytes(4, "big") + data)
        while data:
            self.wait(self.to, select.POLLOUT)
            try:
                data = data[os.write(self.to, data[: 1 << 16]) :]
            except OSError:
                self.die("the program ended before it had answered")

    def encode(self, value):
        return encode(value, self.keep)

    def keep(self, value):
        """What is no plain data, on its way to the candidate.

        Its own things go back to it; our functions can be called from there.
        """
        if isinstance(value, Thing):
            target = object.__getattribute__(value, "_target")
            return {"o": target} if isinstance(target, int) else {"n": target}
        if value in BY_NAME:
            return {"y": BY_NAME[value]}
        if callable(value):
            self.functions.append(value)
            return {"k": len(self.functions) - 1}
        if hasattr(value, "__iter__"):
            return encode(list(value), self.keep)
        raise TypeError(f"a test passes {type(value).__name__}, which is no plain data")

    def decode(self, data):
        try:
            return decode(data, self.find)
        except Dead:
            raise
        except BaseException:
            self.die("the program broke the pipe to the judge")

    def find(self, tag, value):
        """What is no plain data, on its way from the candidate: a Thing."""
        if tag != "o" or type(value) is not int:
            self.die("the program broke the pipe to the judge")
        return self.things.setdefault(value, Thing(self, value))

    def ask(self, op, target, *args, kw=None):
        """One request and its result; its exceptions are raised here, as built-in ones."""
        if self.dead:
            self.die(self.dead)
        message = {
            "op": op,
            "target": target,
            "args": self.encode(args),
            "kw": self.encode(kw or {}),
        }
        self.send(message)
        while True:
            reply = self.receive()
            if "callback" not in reply:
                break
            try:
                function = self.functions[reply["callback"]]
                result = {
                    "value": self.encode(
                        function(*self.decode(reply["args"]), **self.decode(reply["kw"]))
                    )
                }
            except Exception as error:
                result = {"error": [type(error).__name__, str(error)]}
            self.send(result)
        if "error" in reply:
            self.throw(reply["error"])
        if reply.get("stop") is True and op == "next":
            raise StopIteration
        if "value" not in reply:
            self.die("the program broke the pipe to the judge")
        value = self.decode(reply["value"])
        if op == "call" and "args" in reply:
            theirs, theirs_kw = self.decode(reply["args"]), self.decode(reply["kw"])
            self.changed += [
                *zip(args, theirs, strict=False),
                *((ours, theirs_kw.get(name)) for name, ours in (kw or {}).items()),
            ]
            if value is None:
                self.settle()
        return value

    def settle(self):
        """Let the test see what calls did to their arguments.

        That is the whole result of a call that returns nothing; else it waits for the test's next
        statement: in `assert f(x) == sorted(x)` f must not change what is expected of it.
        """
        while self.changed:
            _update(*self.changed.pop(0))

    def throw(self, error):
        """Raise here what the candidate raised there."""
        try:
            kinds, arguments = error
            arguments = self.decode(arguments)
            kind = next(
                (
                    found
                    for name in kinds
                    if (found := self.exceptions.get(name) or _exception(name))
                ),
                RuntimeError,
            )
        except (TypeError, ValueError, StopIteration):
            self.die("the program broke the pipe to the judge")
        try:
            raised = kind(*arguments)
        except Exception:
            raised = kind()
        raise raised

    def close(self):
        """End the candidate. (exit status, CPU seconds, MiB resident)."""
        for fd in (self.to, self.back):
            os.close(fd)
        return kill(self.pid, self.box)


def _exception(name):
    """The built-in exception of that name, if a candidate may raise it; else None.

    StopIteration would end a loop of the test in silence.
    """
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    good = (
        isinstance(kind, type)
        and issubclass(kind, Exception)
        and not issubclass(kind, (StopIteration, StopAsyncIteration))
    )
    return kind if good else None


def _update(ours, theirs):
    """Change one of the test's own values, in place, into what the candidate made of it."""
    if type(ours) is not type(theirs) or ours is theirs:
        return theirs
    if isinstance(ours, Thing):
        return ours
    if isinstance(ours, list):
        ours[:] = [
            _update(ours[i], item) if i < len(ours) else item for i, item in enumerate(theirs)
        ]
    elif isinstance(ours, dict):
        changed = {
            key: _update(ours[key], value) if key in ours else value
            for key, value in theirs.items()
        }
        ours.clear()
        ours.update(changed)
    elif isinstance(ours, (set, bytearray)) or type(ours).__name__ == "deque":
        ours.clear()
        ours.extend(theirs) if hasattr(ours, "extend") else ours.update(theirs)
    elif isinstance(ours, tuple):
        for one, other in zip(ours, theirs, strict=False):
            _update(one, other)
        return theirs if not any(isinstance(item, (list, dict, set)) for item in ours) else ours
    else:
        return theirs
    return ours


# What text and sets are asked, as in f(x).startswith("y"): an object that takes their place would
# answer as it likes.
YES_OR_NO = {name for name in dir(str) if name.startswith("is")}
YES_OR_NO |= {"startswith", "endswith", "issubset", "issuperset", "isdisjoint"}


class Thing:
    """Something of the candidate's that is no plain data, as a test sees it.

    A function, a class, an object, a generator. A test may call it, read and set attributes,
    iterate and index. It may not compare it or ask whether it is true: the candidate would answer,
    and could claim to equal everything. Nor may it calculate with it and a value of the test's own,
    as in abs(f(1) - 0.5) < 1e-6: whatever the value, the candidate could say that the difference is
    nothing.
    """

    def __init__(self, candidate, target):
        object.__setattr__(self, "_candidate", candidate)
        object.__setattr__(self, "_target", target)

    def __call__(self, *args, **kw):
        self._candidate.calls += 1
        return self._candidate.ask("call", self._target, *args, kw=kw)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in YES_OR_NO:
            self._refuse()
        return self._candidate.ask("get", self._target, name)

    def __setattr__(self, name, value):
        self._candidate.ask("set", self._target, name, value)

    def __iter__(self):
        return self._candidate.ask("iter", self._target)

    def __next__(self):
        return self._candidate.ask("next", self._target)

    def __len__(self):
        return self._candidate.ask("len", self._target)

    def __getitem__(self, key):
        return self._candidate.ask("item", self._target, key)

    def __setitem__(self, key, value):
        self._candidate.ask("setitem", self._target, key, value)

    def __str__(self):
        return self._candidate.ask("str", self._target)

    def __repr__(self):
        return self._candidate.ask("repr", self._target)

    def _refuse(self, *_):
        raise TypeError("a test compares something of the candidate's that is no plain data")

    def _operate(self, name, *others):
        theirs = all(isinstance(other, Thing) for other in others)
        if name not in ("__enter__", "__exit__") and not theirs:
            self._refuse()
        return self._candidate.ask("get", self._target, name)(*others)

    # `in` goes by __iter__.
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _refuse
    __hash__ = object.__hash__


OPERATORS = (
    "add sub mul matmul truediv floordiv mod pow neg pos abs and or xor lshift rshift "
    "radd rsub rmul enter exit"
)
for _operator in OPERATORS.split():
    setattr(
        Thing,
        f"__{_operator}__",
        lambda self, *others, _name=f"__{_operator}__": self._operate(_name, *others),
    )
