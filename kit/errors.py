"""The one error that is for people, and how a program ends."""

import sys


class UserError(Exception):
    """Something the user can mend: one line that says what was wrong, and what to do."""


def exit_code(program: str, work) -> int:
    """work(), with what a person can mend said in one line: 0, or 2, or 130 after Ctrl-C.

    Where work() returns a number, that is the code.
    """
    try:
        return work() or 0
    except UserError as e:
        print(f"{program}: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        print(
            f"{program}: {e.filename or 'a file'}: {e.strerror or e}. What was saved before is "
            "still good: mend that and start the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped. The same command goes on from here", file=sys.stderr)
        return 130
