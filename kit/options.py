"""A dataclass as a command line: each field made by option() is an option.

Its default, its help, its range and the group in which --help shows it stand at the field.
"""

import argparse
import difflib
import math
import os
import shlex
import shutil
import textwrap
from dataclasses import field, fields
from typing import Literal, get_args, get_origin

from kit.errors import UserError


def option(default, help, *, least=None, above=None, most=None, heading=""):
    """A field that is an option.

    Numbers are at least `least`, above `above` and at most `most`. A default of None stands for an
    option that was not given, where its type has None. A field with a `heading` begins
    a group of --help, which reaches to the next one.
    """
    bounds = {"least": least, "above": above, "most": most}
    return field(default=default, metadata={"help": help, "heading": heading, **bounds})


class Choices(list):
    """The values of a Literal. "gym:NAME" among them stands for "gym:" and any name."""

    def __contains__(self, value) -> bool:
        heads = [choice[:-4] for choice in self if str(choice).endswith(":NAME")]
        named = any(str(value).startswith(head) and value != head for head in heads)
        return named or super().__contains__(value)


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def as_flags(options: dict) -> list[str]:
    """{option: value} as the words of a command line; None is what was not given."""
    words = []
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(flag_of(name) if value else flag_of("no_" + name))
        else:
            words += [flag_of(name), str(value)]
    return words


def flags_line(options: dict) -> str:
    """as_flags() as a shell reads them."""
    return shlex.join(as_flags(options))


def check_ranges(config) -> None:
    """Raise UserError, naming option, range and value, for a value that a field does not allow."""
    for f in fields(config):
        value, bounds = getattr(config, f.name), f.metadata
        if get_origin(f.type) is Literal and value not in Choices(get_args(f.type)):
            known = ", ".join(name for name in get_args(f.type) if name)
            raise UserError(f"{flag_of(f.name)} must be one of {known}, not {value!r}")
        if f.type not in (int, float):
            continue
        least, above, most = bounds["least"], bounds["above"], bounds["most"]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{flag_of(f.name)} must be a number, not {value!r}")
        if not math.isfinite(value) or (f.type is int and value != int(value)):
            kind = "a whole number" if f.type is int else "a number"
            raise UserError(f"{flag_of(f.name)} must be {kind}, not {value}")
        too_low = (least is not None and value < least) or (above is not None and value <= above)
        if too_low or (most is not None and value > most):
            raise UserError(f"{flag_of(f.name)} must be {range_of(f)}, not {value}")


def range_of(f) -> str:
    """The range of a number's field, in words."""
    least, above, most = f.metadata["least"], f.metadata["above"], f.metadata["most"]
    words = [f"at least {least}"] * (least is not None) + [f"above {above}"] * (above is not None)
    return " and ".join(words + [f"at most {most}"] * (most is not None))


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, with the option that was perhaps meant."""

    def error(self, message: str):
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        near = []
        if message.startswith("unrecognized"):
            near = difflib.get_close_matches(unknown.split("=")[0], self._option_string_actions, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{message}{hint} (--help lists the options)")


def parse_options(argv, cls, description: str, shown=None, epilog="", prog=None) -> dict:
    """Command line -> {field of the dataclass: value} of the options that were given.

    A field whose type is list is the positional argument. `shown` names the options that --help
    lists (None: all), `prog` is what it calls the program. Raises UserError.
    """
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    os.environ["COLUMNS"] = str(width)  # what argparse wraps its usage by

    def formatter(prog):
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=width)

    def wrapped(line):
        return textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False)

    positional = [f"{f.name.upper()} ..." for f in fields(cls) if f.type is list]
    parser = Parser(
        prog=prog,
        usage=" ".join(["%(prog)s", *positional, "[options]"]),
        description=description,
        epilog="\n".join(map(wrapped, epilog.splitlines())),
        formatter_class=formatter,
        allow_abbrev=False,
    )
    groups, heading = {"": parser}, ""
    for f in own_first(cls):
        heading = f.metadata.get("heading") or heading
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        add_option(groups[heading], f, hidden=shown is not None and f.name not in shown)
    return vars(parser.parse_args(argv))


def own_first(cls) -> list:
    """The fields of a dataclass, what it adds to the one it extends before that one's."""
    return sorted(fields(cls), key=lambda f: f.name not in cls.__annotations__)


def add_option(group, f, hidden: bool) -> None:
    """Add a field to the parser, or to a group of it."""
    default = "" if f.default in ("", (), None) else f" [{f.default}]"
    is_flag = f.type in (bool, bool | None)
    if is_flag:
        default = " [on]" if f.default else ""
    text = argparse.SUPPRESS if hidden else (f.metadata["help"] + default).replace("%", "%%")
    how = {"default": argparse.SUPPRESS, "help": text}
    if f.type is list:
        group.add_argument(f.name, nargs="+", metavar=f.name.upper(), help=f.metadata["help"])
    elif is_flag:
        group.add_argument(flag_of(f.name), action=argparse.BooleanOptionalAction, **how)
    elif get_origin(f.type) is Literal:
        choices = Choices(name for name in get_args(f.type) if name is not None)
        group.add_argument(flag_of(f.name), choices=choices, **how)
    else:
        group.add_argument(flag_of(f.name), type=f.type, metavar=f.type.__name__.upper(), **how)
