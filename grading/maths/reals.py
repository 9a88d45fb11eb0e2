"""Sets of real numbers: unions of intervals, as ("reals", pieces, variable or None).

A piece is (low, low is open, high, high is open); low and high are texts.
"""

from fractions import Fraction

from grading.maths.literals import exact
from grading.maths.symbols import symbolic
from grading.maths.unfinished import HUGE

REALS = [("-\\infty", True, "\\infty", True)]
ENDS = {"-\\infty": float("-inf"), "\\infty": float("inf"), "+\\infty": float("inf")}


def as_reals(node):
    """A node as a set of real numbers, or None."""
    if node[0] == "reals":
        return node
    if node[0] == "tuple" and len(node[1]) == 2 and all(part[0] == "value" for part in node[1]):
        return ("reals", [(node[1][0][1], True, node[1][1][1], True)], None)
    if node[0] == "set" and all(part[0] == "value" for part in node[1]):
        return ("reals", [(part[1], False, part[1], False) for part in node[1]], None)
    return None


def _place(text):
    """Where an end lies on the line, to 25 digits; None if that cannot be said."""
    text = text.replace(" ", "")
    if text in ENDS:
        return ENDS[text]
    number = exact(text)
    if number:
        return number[0]
    value = None if HUGE.search(text) else symbolic(text)
    if value is None or not hasattr(value, "evalf") or value.free_symbols:
        return None
    value = value.evalf(40)
    return round(Fraction(str(value)), 25) if value.is_Float or value.is_Integer else None


def _placed(pieces):
    """[(low, high, piece)] with the places of the ends, or None where one has none."""
    placed = [(_place(piece[0]), _place(piece[2]), piece) for piece in pieces[:50]]
    known = all(None not in ends[:2] and _some(*ends) for ends in placed)
    return placed if known and len(pieces) <= 50 else None


def _some(low, high, piece):
    """Whether a piece holds a number."""
    return low < high or low == high and not piece[1] and not piece[3]


def merged(pieces):
    """The pieces in order, those that touch as one: [0,1] and [1,2] are [0,2], (0,1) and (1,2) two.

    As they are if an end is no number.
    """
    placed = _placed(pieces)
    if placed is None or len(placed) < 2:
        return pieces
    out = []
    for low, high, piece in sorted(placed, key=lambda p: (p[0], p[2][1])):
        if out and (low < out[-1][1] or low == out[-1][1] and not (piece[1] and out[-1][2][3])):
            _, top, last = out[-1]
            if high > top or high == top and not piece[3]:
                out[-1] = (out[-1][0], high, (*last[:2], *piece[2:]))
        else:
            out.append((low, high, piece))
    return [piece for _, _, piece in out]


def intersection(nodes):
    """What all the sets share, as in x > 1 and x < 2; None if nothing, or for other nodes."""
    if len(nodes) < 2 or any(node[0] != "reals" or node[2] != nodes[0][2] for node in nodes):
        return None
    whole = nodes[0][1]
    for node in nodes[1:]:
        whole = _shared(whole, node[1])
        if not whole:
            return None
    return ("reals", whole, nodes[0][2])


def _shared(left, right):
    """The pieces that two sets share, or None."""
    one, other = _placed(left), _placed(right)
    if one is None or other is None:
        return _between(left, right)
    pieces = []
    for low, high, a in one:
        for start, end, b in other:
            bottom = max((low, a[1], a[0]), (start, b[1], b[0]))
            top = min((high, not a[3], a[2]), (end, not b[3], b[2]))
            piece = (bottom[2], bottom[1], top[2], not top[1])
            if _some(bottom[0], top[0], piece):
                pieces.append(piece)
    return pieces


def _between(left, right):
    """x > a and x < b, where an end is no number."""
    if len(left) != 1 or len(right) != 1:
        return None
    low = [piece for (piece,) in (left, right) if piece[2] == "\\infty"]
    high = [piece for (piece,) in (left, right) if piece[0] == "-\\infty"]
    return [(*low[0][:2], *high[0][2:])] if len(low) == len(high) == 1 else None


def complement(pieces):
    """All reals but these; None if an end is no number."""
    if _placed(pieces) is None:
        return None
    ends = [("-\\infty", True)]
    for low, low_open, high, high_open in merged(pieces):
        ends += [(low, not low_open), (high, not high_open)]
    ends.append(("\\infty", True))
    pairs = zip(ends[::2], ends[1::2], strict=True)
    return [(*low, *high) for low, high in pairs if low[0] != high[0]]


def punctured(points, variable):
    """All reals but some points."""
    pieces = complement([(point, False, point, False) for point in points])
    return ("none",) if pieces is None else ("reals", pieces, variable)
