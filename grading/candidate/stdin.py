"""Runs a program that reads standard input and prints.

The text of start.py stands above this one.
"""

import sys

if __name__ != "__main__":  # imported by a test, not run in a sandbox
    from grading.candidate.start import empty_module

if __name__ == "__main__":
    program, packages = sys.argv[1:]
    module = empty_module("__main__", packages)
    exec(compile(program, "main.py", "exec", dont_inherit=True), module.__dict__)
