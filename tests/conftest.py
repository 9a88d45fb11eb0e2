"""Fixtures that several test files share. Warm workers are started once for a whole run."""

import pytest

import verify


@pytest.fixture(scope="session")
def isolated():
    """For tests that run programs. Hostile ones are never run where nothing holds them: they would
    do what they say."""
    if verify.sandbox_level()[0] == "limits":
        pytest.skip("this host cannot isolate programs")


@pytest.fixture(scope="session")
def math_grader():
    with verify.Grader("math", workers=2) as grader:
        yield grader


@pytest.fixture(scope="session")
def code_grader(isolated):
    # Programs wait more than they calculate: four workers keep two cores busy.
    with verify.Grader("code", workers=4) as grader:
        yield grader
