"""The one error that is for people, and how a program ends."""

import os
import select
import sys

CLOSED_PIPE = 128 + 13  # as a shell reports a program that SIGPIPE ended


class UserError(Exception):
    """Something the user can mend: one line that says what was wrong, and what to do."""


class DeadEnd(UserError):
    """Where these options lead on these questions: nothing right to train on, or a NaN."""


def exit_code(program: str, work) -> int:
    """work(), with what a person can mend said in one line: 0, or 2, or 130 after Ctrl-C; 141, and
    not a word, where nobody reads any more what is printed (`| head`).

    Where work() returns a number, that is the code.
    """
    print_anything()
    try:
        code = work() or 0
        return CLOSED_PIPE if stdout_is_closed() else code
    except SystemExit:
        stdout_is_closed()  # --help | head
        raise
    except UserError as e:
        print(f"{program}: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        if isinstance(e, BrokenPipeError) and stdout_is_closed(lost=True):
            return CLOSED_PIPE
        print(
            f"{program}: {e.filename or 'a file'}: {e.strerror or e}. What was saved before is "
            "still good: mend that and start the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped. The same command goes on from here", file=sys.stderr)
        return 130


def print_anything() -> None:
    """A console that lacks a character, as one of Windows may, is given its code instead: what a
    model wrote must not end a run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")


def stdout_is_closed(lost: bool = False) -> bool:
    """Whether the other end of standard output is gone. Then what is left to print goes nowhere, or
    Python would complain when it ends. lost: some pipe was found broken, so ask about this one."""
    try:
        sys.stdout.flush()
        poll = select.poll() if lost and hasattr(select, "poll") else None
        if poll is None:
            return lost
        poll.register(sys.stdout.fileno(), 0)
        if not poll.poll(0):
            return False
    except BrokenPipeError:
        pass
    except (OSError, ValueError, AttributeError):  # a full disk; closed, or none, as under a GUI
        return False
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return True
