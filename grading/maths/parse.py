"""An answer as nested tuples, taken apart from outside to inside.

Lists, intervals and inequalities, sets, tuples, matrices, ratios; what remains are single values.
The first element of a node says its kind:

    ("value", text)                 a single value; values.py compares it
    ("list", nodes)                 several answers, in any order
    ("set", nodes)                  {1, 2}, or "1 or 2"
    ("tuple", nodes)                (1, 2)
    ("matrix", rows of nodes)
    ("ratio", texts)                1:2
    ("reals", pieces, variable)     intervals and inequalities, see reals.py
    ("named", name, node)           x = 5
    ("equation", texts)             y = 2x + 1
    ("order", texts, operators)     x < y
    ("relation", text)              any other relation
    ("either", node, node)          \\frac{1}{3} \\approx 0.333: one of two spellings
    ("time", hour, minute, "a" or "p")
    ("none",)                       no answer: it equals nothing
"""

import re

from grading.maths.brackets import closing_brace, encloses, split, top_level
from grading.maths.latex import clean
from grading.maths.reals import REALS, as_reals, intersection, punctured
from grading.maths.relations import RELATION, relation
from grading.maths.words import as_choice

# What separates the parts of an answer
WORD = r"(?:\\text\{ ?%s ?\}|(?<![A-Za-z\\])%s(?![A-Za-z]))"
OR = re.compile(WORD % ("or", "or") + r"|\\lor(?![A-Za-z])")
AND = re.compile(WORD % ("and", "and") + r"|\\land(?![A-Za-z])|&")
COMMA = re.compile(r"[,;]|\\newline")
CUP = re.compile(r"\\cup(?![A-Za-z])|(?<= )U(?= )")
MINUS_SET = re.compile(r"\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])")
COLON = re.compile(r":|" + WORD % ("to", "to"))


def parse_answer(text, agree):
    """The node of a cleaned text. agree(a, b) says whether two single values are the same."""

    def parse(part):
        return parse_answer(part, agree)

    text = text.strip()
    if re.fullmatch(
        r"\\mathbb ?\{?R\}?|\\text\{ ?(?:all )?real numbers? ?\}|\\text\{ ?all reals ?\}"
        r"|all real numbers",
        text,
    ):
        return ("reals", REALS, None)
    if re.fullmatch(
        r"\\emptyset|\\\{ ?\\\}|\\text\{ ?[Nn]o (?:real )?solutions? ?\}|[Nn]o (?:real )?solutions?"
        r"|\\text\{ ?(?:the )?empty set ?\}",
        text,
    ):
        return ("set", [])
    whole = re.fullmatch(r"\\text\{(.*)\}", text, re.DOTALL)
    if whole and closing_brace(text, 5) == len(text) - 1:
        inner = whole[1].strip()
        if (
            re.fullmatch(r"[A-Z](?: ?[,;] ?[A-Z])+", inner)
            or re.search(r"[\d=<>\\]", inner)
            and not re.search(r"[A-Za-z]{3,}.*[A-Za-z]{3,}.*[A-Za-z]{3,}", inner)
            or OR.search(inner)
            or AND.search(inner)
        ):
            return parse(clean(inner))
        return ("value", text)
    if text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
        return parse(text[1:-1])
    if as_choice(text) and not re.fullmatch(r"[A-Z]", text):
        return ("value", text)

    node = _french_interval(text)
    if node is not None:
        return node

    parts = split(text, OR)
    if len(parts) > 1:
        nodes = [parse(part) for part in parts]
        if all(node[0] == "reals" for node in nodes):
            return ("reals", sum((node[1] for node in nodes), []), nodes[0][2])
        # x = 1, y = 2 or x = 2, y = 1
        if all(node[0] == "list" and _all_named(node[1]) for node in nodes):
            nodes = [("tuple", [inner[2] for inner in node[1]]) for node in nodes]
        node = _list(nodes)
        return ("set", node[1]) if node[0] == "list" else node  # "2 or 5" is not the point (2,5)
    parts = split(text, CUP)
    if len(parts) > 1:
        nodes = [as_reals(parse(part)) for part in parts]
        return (
            ("reals", sum((node[1] for node in nodes), []), None) if all(nodes) else ("value", text)
        )
    parts = split(text, MINUS_SET)
    if len(parts) == 2:
        return _difference_of_sets(text, parse(parts[0]), parse(parts[1]))
    parts = split(text, AND)
    if len(parts) > 1 and all(parts):
        nodes = [parse(part) for part in parts]
        both = intersection(nodes)
        return both or _list(nodes)
    groups = split(text, re.compile(";"))
    if len(groups) > 1:  # p = 5, q = 2; p = 7, q = 2 are two points
        points = [[parse(part) for part in split(group, COMMA)] for group in groups]
        if all(len(point) == len(points[0]) > 1 and _all_named(point) for point in points):
            return _list([("tuple", [node[2] for node in point]) for point in points])
    parts = split(text, COMMA)
    while len(parts) > 1 and parts[-1] == "":
        parts.pop()
    if len(parts) > 1:
        parts = [
            re.sub(r"^(?:\\text\{ ?(?:and|or) ?\}|(?:and|or)(?![A-Za-z]))", "", part).strip()
            for part in parts
        ]
        return _list([parse(part) if part else ("none",) for part in parts])

    operators = top_level(text, RELATION)
    if operators:
        return relation(text, split(text, RELATION), operators, parse, agree)

    for construct in (_environment, _bracketed):
        node = construct(text, parse)
        if node is not None:
            return node

    time_of_day = re.fullmatch(
        r"(\d{1,2}) ?(?:: ?(\d\d))? ?(?:\\text ?\{)? ?([ap])\.? ?m\.? ?\}?", text, re.IGNORECASE
    )
    if time_of_day:
        return ("time", int(time_of_day[1]), int(time_of_day[2] or 0), time_of_day[3].lower())
    parts = split(text, COLON)
    if len(parts) > 1 and all(parts):
        return ("ratio", parts)
    if text.count("\\pm") + text.count("\\mp") == 1 and not re.search(r"\\pm ?0(?![.\d])", text):
        return _list(
            [parse(re.sub(r"^\+", "", re.sub(r"\\[pm]{2} ?", sign, text))) for sign in "+-"]
        )
    return ("value", text)


def _french_interval(text):
    """]1,2[, the French way to write (1,2); None if the text is no such interval."""
    if text[0:1] == "]" or text[-1:] == "[":
        ends = text[1:-1].split(",")
        if (
            len(ends) == 2
            and re.fullmatch(r"[\](].*[\[)]|\].*\]|\[.*\[", text)
            and not re.search(r"[\[\]]", text[1:-1])
        ):
            return (
                "reals",
                [(ends[0].strip(), text[0] != "[", ends[1].strip(), text[-1] != "]")],
                None,
            )
    return None


def _difference_of_sets(text, left, right):
    """All reals without some points, or without an interval."""
    if left == ("reals", REALS, None) and right[0] == "set":
        return punctured([node[1] for node in right[1]], None)
    right = as_reals(right)
    if left == ("reals", REALS, None) and right and len(right[1]) == 1:
        low, low_open, high, high_open = right[1][0]
        return (
            "reals",
            [
                piece
                for piece in (
                    ("-\\infty", True, low, not low_open),
                    (high, not high_open, "\\infty", True),
                )
                if piece[0] != piece[2]
            ],
            None,
        )
    return ("value", text)


def _environment(text, parse):
    """A matrix, or the lines of cases; None if the text is no such environment."""
    environment = re.fullmatch(
        r"\\begin ?\{([a-zA-Z]+)\*?\}(.*)\\end ?\{\1\*?\}"
        r"( ?\^ ?\{? ?(?:T|\\top|\\text\{T\}|\\intercal) ?\}?)?",
        text,
        re.DOTALL,
    )
    if environment is None:
        environment = re.fullmatch(
            r"[(\[] ?\\begin ?\{(array|matrix|smallmatrix)\}(.*)\\end ?\{\1\} ?[)\]](\^T)?",
            text,
            re.DOTALL,
        )
    if environment:
        body = re.sub(r"^ ?\{[lcr| ]*\}", "", environment[2])
        rows = [row for row in re.split(r"\\newline", body) if row.strip()]
        if environment[1] in ("cases", "aligned", "align", "gathered", "split"):
            return _list([parse(row.replace("&", " ").strip().rstrip(",")) for row in rows])
        if environment[1] in ("vmatrix", "Vmatrix"):
            return ("value", text)
        matrix = [[parse(cell) for cell in row.split("&")] for row in rows]
        if environment[3]:
            if len({len(row) for row in matrix}) != 1:
                return ("none",)
            matrix = [list(column) for column in zip(*matrix, strict=False)]
        return ("matrix", matrix)
    return None


def _bracketed(text, parse):
    """What stands in brackets: an interval, a tuple, a set; None if the text is not in brackets."""
    bracket = re.fullmatch(
        r"(\\\{|\\langle|[(\[\]])(.*)(\\\}|\\rangle|[)\[\]])"
        r"(\^ ?\{? ?(?:T|\\top|\\text\{T\}) ?\}?)?",
        text,
        re.DOTALL,
    )
    if bracket and encloses(text, bracket[1], bracket[3] + (bracket[4] or "")):
        opening, inside, closing = bracket[1], bracket[2].strip(), bracket[3]
        parts = _elements(inside)
        if opening == "\\{":
            such_that = re.match(
                r"([A-Za-z]) ?(?:\\in ?\\mathbb\{R\} ?)?[|:](.*)", inside, re.DOTALL
            )
            if such_that:
                return parse(such_that[2])
            nodes = [parse(part) for part in parts]
            return (
                "set",
                [inner for node in nodes for inner in (node[1] if node[0] == "list" else [node])],
            )
        if len(parts) == 1 and opening == "(" and closing == ")":
            return parse(parts[0])
        if len(parts) == 1 and opening == "[":
            return ("tuple", [parse(parts[0])]) if closing == "]" else ("none",)
        if len(parts) == 2 and opening != "\\langle" and (opening, closing) != ("(", ")"):
            return ("reals", [(parts[0], opening != "[", parts[1], closing != "]")], None)
        if (opening, closing) in (("(", ")"), ("[", "]"), ("\\langle", "\\rangle")) and all(parts):
            return ("tuple", [parse(part) for part in parts])
        return ("none",)
    return None


def _all_named(nodes):
    """Whether every node is a name and its value."""
    return all(node[0] == "named" for node in nodes)


def _elements(inside):
    """The elements between brackets."""
    return split(inside, COMMA) if inside else []


def _list(nodes):
    """Several answers.

    In "x = 3, 4" and "x_1 = 3, x_2 = 4" the names say nothing; in "x = 3, y = 4" they do.
    """
    flat = []
    for node in nodes:
        flat.extend(node[1] if node[0] == "list" else [node])
    names = [node[1] for node in flat if node[0] == "named"]
    if names and flat[0][0] == "named":
        stems = {re.sub(r"_\{?\d+\}?$", "", name) for name in names}
        if len(stems) == 1 and all(node[0] in ("named", "value") for node in flat):
            flat = [node[2] if node[0] == "named" else node for node in flat]
    return ("list", flat) if len(flat) > 1 else flat[0]
