"""Runs a program, then serves the judge's requests: call this function, read that attribute.

The texts of start.py and codec.py stand above this one. Messages are JSON behind their length in
four bytes. Plain data travels as codec.py writes it; whatever else the program returns stays here,
and the judge gets a number for it ("o"), which it can hand back, call, or ask for attributes.
"""

import builtins
import json
import os
import sys

if __name__ != "__main__":  # imported by a test, not run in a sandbox
    from grading.candidate.codec import decode, encode
    from grading.candidate.start import empty_module


class Servant:
    """The program's module, what it has handed out so far, and the pipes to the judge."""

    def __init__(self, module, inlet, outlet):
        self.module, self.inlet, self.outlet = module, inlet, outlet
        self.things = {}

    def exactly(self, size):
        data = b""
        while len(data) < size:
            got = os.read(self.inlet, size - len(data))
            if not got:
                os._exit(0)
            data += got
        return data

    def receive(self):
        return json.loads(self.exactly(int.from_bytes(self.exactly(4), "big")))

    def send(self, message):
        data = json.dumps(message).encode()
        data = memoryview(len(data).to_bytes(4, "big") + data)
        while data:
            data = data[os.write(self.outlet, data) :]

    def keep(self, value):
        """What is no plain data stays here, under a number."""
        self.things[id(value)] = value
        return {"o": id(value)}

    def find(self, tag, value):
        """What a tag of the judge's means: one of our things, a name, a built-in, its function."""
        if tag == "o":
            return self.things[value]
        if tag == "n":
            return vars(self.module)[value]
        if tag == "y":
            return getattr(builtins, value)

        def callback(*args, **kw):
            args, kw = encode(args, self.keep), encode(kw, self.keep)
            self.send({"callback": value, "args": args, "kw": kw})
            reply = self.serve()
            if "error" in reply:
                raise getattr(builtins, reply["error"][0], Exception)(reply["error"][1])
            return decode(reply["value"], self.find)

        return callback

    def serve(self):
        """Answer requests, for good or until the result of a callback comes in."""
        while True:
            ask = self.receive()
            if "op" not in ask:
                return ask
            try:
                reply = self.answer(ask)
            except BaseException as error:
                if isinstance(error, SystemExit):
                    os._exit(0)
                reply = describe(error)
            self.send(reply)

    def answer(self, ask):
        """The reply to one request."""
        op = ask["op"]
        target = ask.get("target")
        if op == "name":
            value = vars(self.module)[target]
            return {"value": encode(value, self.keep)}
        target = vars(self.module)[target] if isinstance(target, str) else self.things[target]
        if op == "call":
            args, kw = decode(ask["args"], self.find), decode(ask["kw"], self.find)
            value = target(*args, **kw)
            reply = {"value": encode(value, self.keep)}
            try:
                after = encode(args, self.keep), encode(kw, self.keep)
            except ValueError:
                return reply
            if after != (ask["args"], ask["kw"]):  # it changed its arguments
                reply["args"], reply["kw"] = after
            return reply
        args = decode(ask["args"], self.find)
        if op == "get":
            value = getattr(target, args[0])
        elif op == "set":
            value = setattr(target, args[0], args[1])
        elif op == "iter":
            value = iter(target)
            return {"value": self.keep(value)}
        elif op == "next":
            try:
                value = next(target)
            except StopIteration:
                return {"stop": True}
        elif op == "len":
            value = len(target)
        elif op == "item":
            value = target[args[0]]
        elif op == "setitem":
            target[args[0]] = args[1]
            value = None
        elif op == "str":
            value = str(target)
        elif op == "repr":
            value = repr(target)
        return {"value": encode(value, self.keep)}


def describe(error):
    """An exception, as the judge is told of it: the names of its classes, its arguments."""
    try:
        args = encode(error.args, lambda value: str(value))
    except Exception:
        args = {"t": []}
    return {"error": [[kind.__name__ for kind in type(error).__mro__], args]}


def kind_of(value):
    """What a name of the program stands for; of an exception class, the names of its bases."""
    if isinstance(value, type):
        if issubclass(value, BaseException):
            return [base.__name__ for base in value.__mro__]
        return "class"
    return "function" if callable(value) else "data"


def take_pipes():
    """(inlet, outlet): the pipes to the judge; the program finds /dev/null in their place."""
    inlet, outlet = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
    return inlet, outlet


if __name__ == "__main__":
    program, packages = sys.argv[1:]
    module = empty_module("solution", packages)
    servant = Servant(module, *take_pipes())
    names = {}
    try:
        exec(compile(program, "main.py", "exec", dont_inherit=True), module.__dict__)
        for name, value in vars(module).items():
            if isinstance(name, str):
                names[name] = kind_of(value)
    except BaseException as error:
        servant.send(describe(error))
        os._exit(1)
    servant.send({"names": names})
    servant.serve()
