"""Sets of real numbers: unions of intervals, as ("reals", pieces, variable or None).

A piece is (low, low is open, high, high is open); low and high are texts.
"""

from grading.maths.literals import exact

REALS = [("-\\infty", True, "\\infty", True)]


def as_reals(node):
    """A node as a set of real numbers, or None."""
    if node[0] == "reals":
        return node
    if node[0] == "tuple" and len(node[1]) == 2 and all(part[0] == "value" for part in node[1]):
        return ("reals", [(node[1][0][1], True, node[1][1][1], True)], None)
    if node[0] == "set" and all(part[0] == "value" for part in node[1]):
        return ("reals", [(part[1], False, part[1], False) for part in node[1]], None)
    return None


def punctured(points, variable):
    """All reals but some points."""
    try:
        points = sorted(points, key=lambda point: float(exact(point)[0]))
    except (TypeError, OverflowError):
        return ("none",)
    ends = ["-\\infty", *points, "\\infty"]
    return (
        "reals",
        [(low, True, high, True) for low, high in zip(ends, ends[1:], strict=False)],
        variable,
    )


def intersection(nodes):
    """x > 1 and x < 2, as one interval; None for what is no pair of half-lines."""
    if (
        len(nodes) != 2
        or any(node[0] != "reals" or len(node[1]) != 1 for node in nodes)
        or nodes[0][2] != nodes[1][2]
    ):
        return None
    low = [n[1][0] for n in nodes if n[1][0][2] == "\\infty"]
    high = [n[1][0] for n in nodes if n[1][0][0] == "-\\infty"]
    if len(low) == len(high) == 1:
        return ("reals", [(low[0][0], low[0][1], high[0][2], high[0][3])], nodes[0][2])
    return None
