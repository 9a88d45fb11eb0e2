"""Whether two answers are the same: the top of the mathematical floor.

Both are cleaned (latex.py) and taken apart (parse.py); what differs in kind is brought to the kind
that the gold answer has, where an honest answer may be written either way; what remains are single
values (values.py).
"""

import re

from grading.bounds import MAX_ANSWER, MAX_DEPTH
from grading.maths.brackets import nesting
from grading.maths.latex import clean
from grading.maths.literals import exact
from grading.maths.names import names_agree, usual_order
from grading.maths.parameters import one_parameter
from grading.maths.parse import joined, parse_answer
from grading.maths.reals import as_reals, merged
from grading.maths.symbols import difference, proportional
from grading.maths.unfinished import bare
from grading.maths.values import same_value


def same_answer(answer, gold):
    """Whether two answers (texts) are the same.

    Raises what parsers raise, and may run long on hostile text: for workers only.
    """
    answer, gold = clean(answer), clean(gold)
    if not answer or not gold:
        return False
    one, other = (
        re.sub(r"(?<=[\^_])\{(\w)\}", r"\1", re.sub(r"\s", "", text)) for text in (answer, gold)
    )
    if one == other and not re.search(r"\d \d", answer + "|" + gold):
        return True
    if (
        max(len(answer), len(gold)) > MAX_ANSWER
        or max(nesting(answer), nesting(gold)) > MAX_DEPTH
        or answer.count("^") > 20
        or "\x00" in answer
    ):
        return False
    answer, gold = one_parameter(answer, gold)
    return bool(answer) and same(_parsed(answer), _parsed(gold))


def _agree(a, g):
    """Whether two single values are the same, worked out or not."""
    return same_value(a, g, same_answer, strict=False)


def _parsed(text):
    return parse_answer(text, _agree)


def same(a, g):
    """Whether two parsed answers are the same.

    g is the gold one: where they differ in kind, it says what is asked for.
    """
    a, g = joined(a), joined(g)
    if "none" in (a[0], g[0]):
        return False
    if a[0] == "either":
        return any(same(node, g) for node in a[1:])
    if g[0] == "either":
        return any(same(a, node) for node in g[1:])
    if a[0] == "value" == g[0]:
        return same_value(a[1], g[1], same_answer)

    if "assigned" in (a[0], g[0]):
        return _same_assigned(a, g)
    if "congruent" in (a[0], g[0]):
        return a[0] == g[0] and _same_residues(a, g)
    # Names: "x = 5" answers 5, and 5 answers "x = 5"; "y = 5" does not.
    if a[0] == "named" and g[0] == "named":
        return names_agree(a[1], g[1]) and same(a[2], g[2])
    if (
        g[0] == "named"
        and a[0] not in ("equation", "order", "relation", "reals")
        or g[0] == "named" == "reals" == g[2][0]
    ):
        return same(a, g[2])
    if a[0] == "named" and g[0] not in ("equation", "order", "relation"):
        return same(a[2], g)

    if a[0] in ("equation", "named") and g[0] in ("equation", "named"):
        return _same_equation(a, g)
    # Of the gold answer, any left side without digits says what is asked for: AB + BC = 5
    if g[0] == "equation" and not re.search(r"\d", re.sub(r"_(?:\w|\{[^{}]*\})", "", g[1][0])):
        return not re.search("[A-Za-z]", bare(g[1][1])) and same(a, _parsed(g[1][1]))
    if a[0] == "order" == g[0]:
        return _same_order(a, g)
    if a[0] == "relation" == g[0]:
        return a[1] == g[1]

    # Sets of reals. (1,2) is a point or an open interval: it equals 1 < x < 2, but neither [1,2]
    # nor {1,2}.
    if a[0] == "reals" and g[0] == "reals":
        if a[2] and g[2] and a[2] != g[2]:
            return False
        return _match(a[1], g[1], _same_interval) or _match(
            merged(a[1]), merged(g[1]), _same_interval
        )
    if "reals" in (a[0], g[0]):
        other = a if g[0] == "reals" else g
        if other[0] == "tuple" and len(other[1]) == 2:
            a, g = as_reals(a), as_reals(g)
            return bool(a and g) and same(a, g)
        return False

    if a[0] == "matrix" or g[0] == "matrix":
        if a[0] == "matrix" == g[0]:
            return [len(row) for row in a[1]] == [len(row) for row in g[1]] and all(
                same(x, y)
                for r, s in zip(a[1], g[1], strict=False)
                for x, y in zip(r, s, strict=False)
            )
        vector, other = (a, g) if a[0] == "matrix" else (g, a)
        point = _as_point(vector)
        return bool(point) and other[0] == "tuple" and same(point, other)
    if "time" in (a[0], g[0]):
        return _same_time(a, g)
    if a[0] == "ratio" or g[0] == "ratio":
        return _same_ratio(a, g)

    if a[0] == "tuple" and g[0] == "tuple":
        return len(a[1]) == len(g[1]) and all(same(x, y) for x, y in zip(a[1], g[1], strict=False))
    if a[0] in ("list", "set") and g[0] in ("list", "set"):
        # {1, 1} is {1}; said twice, an answer is one answer.
        if a[0] == "set" == g[0] or len(a[1]) > len(g[1]):
            a, g = _distinct(a), _distinct(g) if g[0] == "set" else g
        return _match(a[1], g[1], same)
    # ACD and A, C, D
    letters = r"(?:\\text\{ ?)?[A-Z]{2,}(?: ?\})?"
    if g[0] == "list" and a[0] == "value" and re.fullmatch(letters, a[1]):
        wanted = [node[1] for node in g[1] if node[0] == "value" and re.fullmatch("[A-Z]", node[1])]
        given = re.sub(r"\\text|\W", "", a[1])
        return sorted(given) == sorted(wanted) and len(set(a[1])) == len(a[1])
    # Bare values stand for a tuple in its order, and a tuple for bare values.
    if {a[0], g[0]} == {"list", "tuple"}:
        return _in_order(a[1], g[1])
    # One thing for a set of one; and "1/2 or 0.5" is one answer, said twice.
    if "set" in (a[0], g[0]) or a[0] == "list":
        many = (a if a[0] in ("set", "list") else g)[1]
        if many and all(same(item, many[0]) for item in many[1:]):
            return same(many[0], g) if a[0] in ("set", "list") else same(a, many[0])
    return False


def _match(left, right, equal):
    """Whether two collections are the same but for their order."""
    if len(left) != len(right) or len(left) > 50:
        return False
    rest = list(right)
    for item in left:
        for other in rest:
            if equal(item, other):
                rest.remove(other)
                break
        else:
            return False
    return True


def _distinct(node):
    """A list or set without what it says twice."""
    if len(node[1]) > 50:  # _match will not have it
        return node
    kept = []
    for item in node[1]:
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return (node[0], kept)


def _same_interval(a, g):
    return (
        a[1] == g[1]
        and a[3] == g[3]
        and same(_parsed(a[0]), _parsed(g[0]))
        and same(_parsed(a[2]), _parsed(g[2]))
    )


def _in_order(a, g):
    return len(a) == len(g) and all(same(x, y) for x, y in zip(a, g, strict=True))


def _as_point(matrix):
    """A matrix of one column or one row as a tuple; None for any other."""
    rows = matrix[1]
    if len(rows) == 1:
        return ("tuple", rows[0])
    return ("tuple", [row[0] for row in rows]) if all(len(row) == 1 for row in rows) else None


def _same_assigned(a, g):
    """Named values: by name if both have names, else by position.

    A list has the order in which the gold answer names its values. A point has the usual order of
    the names, (x, y), unless they are said as a point themselves. A set has no order.
    """
    if a[0] == "assigned" == g[0]:
        if len(a[1]) != len(g[1]):
            return False
        pairs = list(zip(a[1], a[2], strict=True))
        for name, node in zip(g[1], g[2], strict=True):
            pair = next((p for p in pairs if p[0] == name), None)
            pair = pair or next((p for p in pairs if names_agree(p[0], name)), None)
            if pair is None or not same(pair[1], node):
                return False
            pairs.remove(pair)
        return True
    named, other = (a, g) if a[0] == "assigned" else (g, a)
    if other[0] == "matrix":
        other = _as_point(other) or other
    if len(named[2]) == 1:
        return same(*((named[2][0], g) if named is a else (a, named[2][0])))
    if other[0] not in ("tuple", "list", "set"):
        return False
    order = usual_order(named[1]) if named is a or other[0] == "tuple" and not named[3] else None
    nodes = [named[2][at] for at in order] if order else named[2]
    if named is g:
        return other[0] != "set" and _in_order(other[1], nodes)
    # x_1 = 3, x_2 = 4 are two solutions where the gold answer gives them no names.
    stems = {re.sub(r"_\d+$", "", name) for name in named[1]}
    if other[0] == "set" or other[0] == "list" and len(stems) == 1:
        return _match(nodes, other[1], same)
    return _in_order(nodes, other[1])


def _same_residues(a, g):
    """x = -4 mod 7 is x = 3 mod 7; a congruence without a name answers one with a name."""
    one, other = exact(a[3]), exact(g[3])
    if a[1] != g[1] and a[1] and g[1] or not (_agree(a[3], g[3]) if not one else one == other):
        return False

    def alike(x, y):
        left, right = exact(x), exact(y)
        if left and right and other and other[0]:
            return ((left[0] - right[0]) / other[0]).denominator == 1
        return _agree(x, y)

    return len(a[2]) == len(g[2]) and _match(a[2], g[2], alike)


def _same_order(a, g):
    """x < y is 2x < 2y; the sides of a < b < c are compared one by one."""
    if a[2] != g[2]:
        return False
    if len(a[1]) == 2 and proportional(difference(a[1]), difference(g[1]), positive=True):
        return True
    return len(a[1]) == len(g[1]) and all(map(_agree, a[1], g[1]))


def _same_equation(a, g):
    """Equations in two or more variables, up to a factor.

    An equation in one variable is a question, not an answer.
    """
    sides = [
        [node[1], node[2][1]] if node[0] == "named" and node[2][0] == "value" else node[1]
        for node in (a, g)
    ]
    if not all(isinstance(side, list) and len(side) == 2 for side in sides):
        return False
    left, right = (difference(side) for side in sides)
    if left is None or right is None or (g[0] == "named" and len(right.free_symbols) < 2):
        return False
    return proportional(left, right)


def _same_time(a, g):
    """3:30 p.m. is 3:30, and 15:30; it is not 3:30 a.m."""
    clocks = []
    for node in (a, g):
        if node[0] == "time":
            clocks.append(
                ({(node[1], node[2]), (node[1] % 12 + 12 * (node[3] == "p"), node[2])}, node[3])
            )
        else:
            parts = (
                node[1] if node[0] == "ratio" else [node[1], "00"] if node[0] == "value" else [""]
            )
            if len(parts) != 2 or not all(re.fullmatch(r"\d{1,2}", part) for part in parts):
                return False
            clocks.append(({(int(parts[0]), int(parts[1]))}, None))
    (one, half), (other, other_half) = clocks
    return bool(one & other) and (half == other_half or None in (half, other_half))


def _same_ratio(a, g):
    """1:2 is 2:4, and 1/2; but 9:05 is a time."""
    parts = [part for node in (a, g) if node[0] == "ratio" for part in node[1]]
    if any(re.fullmatch(r"0\d", part) for part in parts):
        if a == g:
            return True
        if not a[0] == g[0] == "ratio":
            return False
        one, other = ([re.sub("^0", "", node[1][0])] + node[1][1:] for node in (a, g))
        return one == other
    sides = []
    for node in (a, g):
        if node[0] == "ratio":
            sides.append(node[1])
        elif node[0] == "value":
            sides.append([node[1], "1"])
        else:
            return False
    if len(sides[0]) != len(sides[1]):
        return False
    values = [[exact(part) for part in side] for side in sides]
    if all(value is not None for side in values for value in side):
        one, other = ([value[0] for value in side] for side in values)
        return (
            all(x * other[0] == y * one[0] for x, y in zip(one, other, strict=False))
            and any(one)
            and any(other)
        )
    one, other = sides
    return all(
        _agree(rf"({x})\cdot({other[0]})", rf"({y})\cdot({one[0]})")
        for x, y in zip(one, other, strict=False)
    )
