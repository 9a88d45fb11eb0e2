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
    ("assigned", names, nodes, is a point)   x = 1, y = 2; (x, y) = (1, 2) is a point
    ("congruent", name, texts, modulus)      x \\equiv 1, 3 \\pmod 8
    ("equation", texts)             y = 2x + 1
    ("order", texts, operators)     x < y
    ("relation", text)              any other relation
    ("either", node, node)          \\frac{1}{3} \\approx 0.333: one of two spellings
    ("time", hour, minute, "a" or "p")
    ("none",)                       no answer: it equals nothing
"""

import re

from grading.maths.brackets import closing_brace, encloses, split
from grading.maths.latex import clean
from grading.maths.literals import exact
from grading.maths.reals import REALS, as_reals, complement, intersection, punctured
from grading.maths.relations import congruence, excluded, relation
from grading.maths.symbols import latex_of_product
from grading.maths.units import added_up
from grading.maths.words import as_choice

# What separates the parts of an answer
WORD = r"(?:\\text\{ ?%s ?\}|(?<![A-Za-z\\])%s(?![A-Za-z]))"
OR = re.compile(WORD % ("or", "or") + r"|\\lor(?![A-Za-z])")
AND = re.compile(WORD % ("and", "and") + r"|\\land(?![A-Za-z])|&")
COMMA = re.compile(r"[,;]|\\newline")
CUP = re.compile(r"\\cup(?![A-Za-z])|(?<= )U(?= )")
MINUS_SET = re.compile(r"\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])|-(?= ?\\\{)")
ANY = re.compile(rf"{OR.pattern}|{AND.pattern}|{COMMA.pattern}")
ALL_BUT = re.compile(
    r"(?:\\text ?\{ ?)?all real(?: number)?s?,? except(?: for)? ?\}?(.*?)\}?", re.IGNORECASE
)
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
    all_but = ALL_BUT.fullmatch(text) if "except" in text else None
    if all_but:
        return punctured(split(all_but[1], ANY), None)
    whole = re.fullmatch(r"\\text\{(.*)\}", text, re.DOTALL)
    if whole and closing_brace(text, 5) == len(text) - 1:
        inner = whole[1].strip()
        if measure := added_up(inner):
            return ("value", measure)
        if (
            re.fullmatch(r"[A-Z](?: ?[,;] ?[A-Z])+|[-\d.]+ ?percent(?:age)?", inner)
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
    if measure := added_up(text):
        return ("value", measure)
    node = _french_interval(text) or congruence(text, parse) or excluded(text, ANY, parse)
    if node is not None:
        return node

    parts = split(text, OR)
    if len(parts) > 1:
        nodes = [parse(part) for part in parts]
        if all(node[0] == "reals" for node in nodes):
            return ("reals", sum((node[1] for node in nodes), []), nodes[0][2])
        node = _list(nodes, either=True)
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
        points = [_list([parse(part) for part in split(group, COMMA)]) for group in groups]
        if all(point[0] == "assigned" for point in points):
            return ("list", points)
    parts = split(text, COMMA)
    while len(parts) > 1 and parts[-1] == "":
        parts.pop()
    if len(parts) > 1:
        parts = [
            re.sub(r"^(?:\\text\{ ?(?:and|or) ?\}|(?:and|or)(?![A-Za-z]))", "", part).strip()
            for part in parts
        ]
        return _list([parse(part) if part else ("none",) for part in parts])

    node = relation(text, parse, agree)
    if node is not None:
        return node

    for construct in (_environment, _bracketed, _scaled):
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
    """All reals, or an interval, without some points or an interval."""
    if left == ("reals", REALS, None) and right[0] == "set":
        return punctured([node[1] for node in right[1]], None)
    left, right = as_reals(left), as_reals(right)
    rest = complement(right[1]) if right else None
    if left is None or rest is None:
        return ("value", text)
    return intersection([left, ("reals", rest, left[2])]) or ("set", [])


# A number before a matrix or a tuple
SCALED = re.compile(
    r"([^(\[{]*?(?:\{[^()]*\}|\([^()]*\))?) ?(?:\\cdot|\\times|\*)? ?"
    r"([(\[]? ?\\begin.*|\(.*,.*\))"
)


def _scaled(text, parse):
    """A number times a matrix or a tuple, as a matrix or a tuple; None for any other text."""
    match = SCALED.fullmatch(text) if "\\begin" in text or text.endswith(")") else None
    factor = match[1].strip() if match else ""
    if not factor or not (exact(factor) or factor == "-" or "\\begin" in text):
        return None
    factor = "-1" if factor == "-" else factor
    node = parse(match[2])

    def times(inner):
        if inner[0] != "value":
            raise ValueError("a list within a matrix")
        return ("value", latex_of_product(factor, inner[1]))

    try:
        if node[0] == "matrix":
            return ("matrix", [[times(cell) for cell in row] for row in node[1]])
        return ("tuple", [times(part) for part in node[1]]) if node[0] == "tuple" else None
    except ValueError:
        return None


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
                return joined(parse(such_that[2]))
            nodes = [parse(part) for part in parts]
            if _list(nodes)[0] == "assigned":
                return _list(nodes)
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
            nodes = [parse(part) for part in parts]
            return _list(nodes) if _list(nodes)[0] == "assigned" else ("tuple", nodes)
        return ("none",)
    return None


def _elements(inside):
    """The elements between brackets."""
    return split(inside, COMMA) if inside else []


def joined(node):
    """A list of sets of reals as one set: "x > 1, x < 2" means both, "x < 1, x > 2" either."""
    if node[0] != "list" or any(part[0] != "reals" or part[2] != node[1][0][2] for part in node[1]):
        return node
    whole = ("reals", [piece for part in node[1] for piece in part[1]], node[1][0][2])
    return intersection(node[1]) or whole


def _list(nodes, either=False):
    """Several answers.

    In "x = 3, 4" and "x = 3 or x = 4" the name says nothing; in "x = 3, y = 4" names do.
    """
    flat = []
    for node in nodes:
        flat.extend(node[1] if node[0] == "list" else [node])
    if flat[0][0] == "assigned":  # (x, y) = (1, 2), (3, 4)
        names = flat[0][1]
        flat = [
            ("assigned", names, node[1], True)
            if node[0] == "tuple" and len(node[1]) == len(names)
            else node
            for node in flat
        ]
    names = [node[1] for node in flat if node[0] == "named"]
    if not either and len(flat) == len(set(names)) > 1:
        return ("assigned", names, [node[2] for node in flat], False)
    if names and flat[0][0] == "named":
        stems = {re.sub(r"_\d+$", "", name) for name in names}
        if len(stems) == 1 and all(node[0] in ("named", "value") for node in flat):
            flat = [node[2] if node[0] == "named" else node for node in flat]
    return ("list", flat) if len(flat) > 1 else flat[0]
