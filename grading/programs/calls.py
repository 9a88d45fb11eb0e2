"""Judges programs by calls of one function: what it returns, against what a row expects."""

from grading.programs.assertions import judge_with, written_function
from grading.programs.compare import same_value


def judge_calls(box, program, tests):
    """Call the function over there, compare here. (right, why, whether time ran out)."""
    passed = f"passed {len(tests['calls'])} calls"
    return judge_with(box, program, tests, lambda candidate: _call(candidate, tests), passed)


def _call(candidate, tests):
    """Make all calls: why one failed, or None. Raises what they raise."""
    function = written_function(candidate, tests["entry"])
    # Results as they are; where a row may have wrapped them once more, without that too
    readings = [lambda result: result]
    if tests.get("wrapped"):
        readings.append(lambda result: result[0])
    for number, (given, result) in enumerate(tests["calls"], 1):
        candidate.where = f"call {number} of {len(tests['calls'])}: "
        got = function(*given)
        readings = [
            reading for reading in readings if same_value(got, reading(result), tests.get("exact"))
        ]
        if not readings:
            return f"returned {got!r:.60}, expected {result!r:.60}"
    return None
