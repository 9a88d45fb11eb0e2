"""A dataclass as a command line: each field made by option() is an option, with its default and its help."""
import argparse
from dataclasses import field, fields
from typing import Literal, get_args, get_origin


def option(default, help):
    return field(default=default, metadata={"help": help})


def parse_options(argv: list[str] | None, cls, description: str, shown=None, epilog: str = "") -> dict:
    """Command line -> {field of the dataclass: value} of the options that were given.

    A field whose type is list is the positional argument. `shown` names the options that --help lists (None: all).
    """
    parser = argparse.ArgumentParser(description=description, epilog=epilog,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in fields(cls):
        flag, kind, kwargs = "--" + f.name.replace("_", "-"), f.type, {"default": argparse.SUPPRESS}
        hidden = shown is not None and f.name not in shown
        kwargs["help"] = argparse.SUPPRESS if hidden else f"{f.metadata['help']} [{f.default!r}]".replace("%", "%%")
        if kind is list:
            parser.add_argument(f.name, nargs="+", metavar=f.name.upper().rstrip("S"), help=f.metadata["help"])
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **kwargs)
        elif get_origin(kind) is Literal:
            parser.add_argument(flag, choices=get_args(kind), **kwargs)
        else:
            parser.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **kwargs)
    return vars(parser.parse_args(argv))
