"""Binary rewards for math answers and for programs: 0.0 or 1.0, and nothing a model writes can cheat, hang or harm.

    math_reward(response, gold)      1.0 if the final answer of the response equals the gold answer
    code_reward(response, tests)     1.0 if the last ```python block passes every test
    Grader("math" | "code")          the same for whole batches, in warm worker processes
    python verify.py ROWS.jsonl      grade a file and say what failed, and why

What counts as the answer is the same in collection, distillation and evaluation; `final_answer` is the only place that
decides it. Whatever is hard to compare is compared in a worker process under CPU, memory and wall-clock limits; a worker
that hangs or dies is killed and replaced, its item is a 0.0. Nothing here raises because of what a model wrote.

Needs the standard library and math-verify (imported in the math workers only). Linux for the code task.
"""
import argparse
import ast
import atexit
import builtins
import ctypes
import errno
import importlib.util
import json
import math
import os
import queue
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction

# Bounds. Seconds are wall-clock unless they say CPU.
MATH_SECONDS = 10           # one comparison; then the worker is killed (a usual one takes 1 to 30 milliseconds)
MATH_CPU_SECONDS = 5        # one comparison; CPU time does not depend on how busy the machine is
MATH_MEMORY = 2 << 30       # bytes of address space of one math worker
MAX_ANSWER = 1000           # characters; a longer answer counts only if it is the gold answer, letter by letter
MAX_DEPTH = 30              # nested brackets


# ---------------------------------------------------------------------------------------------------------------------
# 1. What is the answer?
# ---------------------------------------------------------------------------------------------------------------------

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
STATED = re.compile(r"\banswer\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)


def final_answer(response):
    r"""The final answer that a response states, as text, or None.

    1. The content of the last \boxed{...} (braces may nest; \boxed 5 means \boxed{5}). If the last box was never closed,
       the response was cut off and has no answer.
    2. Without a box: what follows the last #### on its line.
    3. Without that: what follows the last "the answer is" (or "answer:"), up to the end of the sentence.
    A number that merely stands last is no answer.
    """
    boxes = _boxes(response)
    if boxes is None or boxes:
        return boxes[-1][2] if boxes else None
    if not isinstance(response, str):
        return None
    if "####" in response:
        return response.rpartition("####")[2].strip().partition("\n")[0].strip() or None
    at = None
    for at in STATED.finditer(response):
        pass
    if at is None:
        return None
    line = response[at.end():at.end() + 2 * MAX_ANSWER].lstrip().partition("\n")[0]
    # A sentence ends at a stop that is followed by a blank: 3.14 and x.y do not end one.
    line = re.split(r"[.!?](?:\s|$)|,?\s+(?:because|since|which|as|so)\s", line.strip(), maxsplit=1)[0]
    return line.strip().strip("*").strip() or None


def _boxes(response):
    r"""[(start, end, content)] of the closed outer boxes, innermost content; None if the last box is not closed."""
    if not isinstance(response, str):
        return []
    found, at = [], 0
    # Only the end of a long response is searched: one that repeats \boxed a million times must not cost a second.
    at = max(0, len(response) - 200_000)
    while True:
        start = BOX.search(response, at)
        if start is None:
            return found
        at = start.end()
        if at < len(response) and response[at] != "{":        # \boxed 5
            word = re.compile(r"[^\s{}$\\]+").match(response, at)
            if word:
                found.append((start.start(), word.end(), word.group()))
                at = word.end()
            continue
        end = _closing_brace(response, at)
        if end is None:
            return None
        content = response[at + 1:end].strip()
        inner = _boxes(content) if BOX.search(content) and len(content) <= MAX_ANSWER else []
        found.append((start.start(), end + 1, inner[-1][2] if inner else content))
        at = end + 1


def _closing_brace(text, opening):
    """Where the brace at `opening` is closed, or None."""
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None


def _offered(response):
    r"""The final answer for grading: as final_answer, but boxes side by side, as in "\boxed{3} or \boxed{4}", are one list."""
    boxes = _boxes(response)
    if not boxes:
        return final_answer(response)
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1]):
        if not re.fullmatch(r"(?:[\s,;&$.]|\\[,;!\[\]() ]|\\quad|\bor\b|\band\b|\\text\s*\{\s*(?:or|and)\s*\})*", response[end:start]):
            break
        contents.insert(0, content)
        if len(contents) > 50:
            break
    if all(content == contents[0] for content in contents):
        return contents[-1]
    return " , ".join(contents)


def gold_answer(gold):
    r"""The answer in a gold field: after the last #### of a GSM8K solution, in its last box, or the whole text."""
    if isinstance(gold, bool) or not isinstance(gold, (str, int, float)):
        return None
    gold = str(gold)
    if "####" in gold:
        gold = gold.rpartition("####")[2]
    boxes = _boxes(gold)
    if boxes and (len(boxes) == 1 or gold[:boxes[0][0]].strip(" $")):
        gold = boxes[-1][2]
    elif boxes:
        gold = _offered(gold)
    return gold.strip() or None


# ---------------------------------------------------------------------------------------------------------------------
# 2. Are two answers the same? First what can be said at once, in the calling process.
# ---------------------------------------------------------------------------------------------------------------------

PLAIN_NUMBER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+))?(?:\.([0-9]*))?")


def _plain_number(text):
    """A canonical spelling of a plain integer or decimal ('-1,234.50' gives '-1234.5'), or None. No limit on size: no int()."""
    match = PLAIN_NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    whole = (match[2] or "").replace(",", "").lstrip("0") or "0"
    part = (match[3] or "").rstrip("0")
    sign = "-" if match[1] == "-" and (whole != "0" or part) else ""
    return sign + whole + ("." + part if part else "")


def _quick(answer, gold):
    """True or False where a glance decides, else None. Runs in the caller: no parsing, linear time."""
    if not answer or not gold:
        return False
    answer, gold = answer.strip().strip("$").strip(), gold.strip().strip("$").strip()
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    if len(answer) > MAX_ANSWER or len(gold) > MAX_ANSWER:
        return False
    one, other = _plain_number(answer), _plain_number(gold)
    if one is not None and other is not None:
        return one == other
    return None


# ---------------------------------------------------------------------------------------------------------------------
# 3. Are two answers the same? What needs thought, in a worker.
#
# An answer is cleaned, then taken apart from outside to inside: lists, intervals and inequalities, sets, tuples, matrices,
# ratios. What remains are single values. Those that are plain numbers are compared exactly, as fractions; the rest is
# parsed by math-verify and compared to 60 digits. So 10^30 and 10^30 + 1 differ, and so do 1e-12 and 2e-12.
# ---------------------------------------------------------------------------------------------------------------------

SIGNS = {"−": "-", "–": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ",
         "°": r"^\circ ", "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ",
         "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "√": r"\sqrt ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
         "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "θ": r"\theta ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "…": "...",
         "€": r"\text{euro }", "£": r"\text{pound }", "∨": r"\lor ", "∧": r"\land ", "’": "'", "“": '"', "”": '"', "⁰": "^0", "⁄": "/"}
SIGNS = str.maketrans(SIGNS)
SPACE = r"(?:\\[ ,;:!>]|\\(?:quad|qquad|thinspace|enspace|hspace\{[^{}]*\})(?![A-Za-z])|~|\s)"
RENAMED = {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "le": "leq", "leqslant": "leq", "leqq": "leq",
           "ge": "geq", "geqslant": "geq", "geqq": "geq", "ne": "neq", "lt": "<", "gt": ">", "varnothing": "emptyset", "lbrace": "{", "rbrace": "}",
           "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "vee": "lor", "wedge": "land", "to": "to", "degree": "circ", "deg": "circ",
           "ldots": "dots", "cdots": "dots", "dotsc": "dots", "colon": ":", "R": "mathbb{R}", "reals": "mathbb{R}", "bar": "overline",
           "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "ast": "*", "notin": "notin", "isin": "in", "approx": "approx"}
DROPPED = {"left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl", "Biggr", "displaystyle",
           "textstyle", "scriptstyle", "limits", "nolimits", "mathstrut", "middle", "hfill", "noindent", "mleft", "mright", "null"}
TEXTS = (r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|textup|textsc|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|mbox|hbox|operatorname"
         r"|bf|bm|boldsymbol|rm|underline|emph|ensuremath|color\{[a-z]+\}|textcolor\{[a-z]+\})\*?\s*(?=\{)")
NUMBER_WORDS = dict(zip("zero one two three four five six seven eight nine ten eleven twelve".split(), range(13)))


def clean(text):
    r"""One spelling for what LaTeX spells in many ways: sizes, spacing, fonts, \dfrac, 1{,}000, \frac12, a last full stop."""
    text = text.translate(SIGNS).strip()
    for _ in range(4):          # $...$, \(...\), \[...\], {...} around everything
        text = re.sub(r"^(?:\$\$?|\\\(|\\\[)\s*(.*?)\s*(?:\$\$?|\\\)|\\\])\s*[.,;]?$", r"\1", text, flags=re.DOTALL)
        if text.startswith("{") and _closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1].strip()
    text = re.sub(r"\\?\$", lambda m: r"\text{dollar }" if m.group() == r"\$" else "", text) if not re.match(r"\$[\d.,]+$", text) else text
    text = text.replace(r"\%", "%").replace(r"\#", "#").replace(r"\&", "&").replace(r"\_", "_")
    text = re.sub(r"&(lt|gt|le|ge);", lambda m: {"lt": "<", "gt": ">", "le": r"\leq ", "ge": r"\geq "}[m[1]], text)
    text = re.sub(r"\\([A-Za-z]+)(?![A-Za-z])", lambda m: "" if m[1] in DROPPED else (
        RENAMED[m[1]] if len(RENAMED.get(m[1], "")) == 1 and m[1] not in ("lbrace", "rbrace") else "\\" + RENAMED.get(m[1], m[1])), text)
    text = re.sub(r"\\bigl?|\\bigr?", "", text)
    text = re.sub(TEXTS, lambda _: r"\text", text)
    # Thousands: 1,000  1{,}000  1\,000  1 000, in groups of exactly three. "1, 000" and "12,34" are lists.
    group = r"(?:\{,\}|,\\!|\\[,;: ]|,|~|[ ])"
    text = re.sub(rf"(?<![\d.,])(?<!\d[ ~])(\d{{1,3}})((?:{group}\d{{3}})+)(?![\d])(?!,\d)(?!{group}\d)", _join_thousands, text)
    text = text.replace(r"{,}", ",")
    text = re.sub(r"\\\\(?:\[[^\]]*\])?", r" \\newline ", text)
    text = re.sub(r"\\q?quad(?![A-Za-z])", " , ", text) if r"\begin" not in text else text
    text = re.sub(SPACE + "+", " ", text)
    text = re.sub(r"\\dots(?![A-Za-z])", "...", text)
    text = re.sub(r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z]))", r"\\text{ degree}", text)
    text = re.sub(r"_ ?(\d) ", r"_{\1} ", text)
    text = re.sub(r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac ?(\d) ?\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\frac ?(\{[^{}]*\}) ?(\d|[a-z])(?![a-z])", r"\\frac\1{\2}", text)
    text = re.sub(r"\\sqrt ?(\d+|[a-z])", lambda m: r"\sqrt{" + m[1][0] + "}" + m[1][1:], text)
    text = re.sub(r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\])(pi|infty|infinity|inf|oo)(?![A-Za-z])", lambda m: r"\pi " if m[1] == "pi" else r"\infty ", text)
    text = re.sub(r"\\text\{ ?infinity ?\}", r"\\infty ", text)
    text = re.sub(r"<=|=<", r"\\leq ", text)
    text = re.sub(r">=", r"\\geq ", text)
    text = re.sub(r"!=", r"\\neq ", text)
    text = re.sub(r"==", "=", text)
    text = text.replace("**", "^")
    text = re.sub(r"(\d)\.(?=$|[^\d.(\\{])", r"\1", text)               # 5. and 5.% but neither 5.( nor 5...
    text = re.sub(r"(?<!\.)\.(?:\})?$|[,;:]$", lambda m: "}" if m.group().endswith("}") else "", text.strip())
    return text.strip().strip("*`").strip() if "\\*" not in text else text.strip()


def _join_thousands(match):
    # 1,234 and 1, 234: a comma with a blank separates. Mixed separators are no number either.
    separators = set(re.findall(r"\{,\}|,\\!|\\[,;: ]|,|~|[ ]", match[2]))
    return match[1] + re.sub(r"\D", "", match[2]) if len(separators) == 1 else match[0]


def _split(text, separator):
    """Split where the compiled separator matches outside all brackets. Pieces are stripped. \\{ and \\langle are brackets too."""
    parts, depth, start, at = [], 0, 0, 0
    bracket = re.compile(r"\\begin(?![A-Za-z])|\\end(?![A-Za-z])|\\langle|\\rangle|\\[{}]|[(\[{]|[)\]}]|\\(?:text)\{[^{}]*\}")
    while at < len(text):
        if depth <= 0:
            match = separator.match(text, at)
            if match and match.end() > at:
                parts.append(text[start:at].strip())
                start = at = match.end()
                continue
        match = bracket.match(text, at)
        if match is None:
            at += 1
            continue
        token = match.group()
        if token.startswith(r"\text"):
            pass
        elif token in ("\\begin", "\\langle", "\\{", "(", "[", "{"):
            depth += 1
        else:
            depth -= 1
        at = match.end()
    parts.append(text[start:].strip())
    return parts


WORD = r"(?:\\text\{ ?%s ?\}|(?<![A-Za-z\\])%s(?![A-Za-z]))"
OR = re.compile(WORD % ("or", "or") + r"|\\lor(?![A-Za-z])")
AND = re.compile(WORD % ("and", "and") + r"|\\land(?![A-Za-z])|&")
COMMA = re.compile(r"[,;]|\\newline")
CUP = re.compile(r"\\cup(?![A-Za-z])|(?<= )U(?= )")
MINUS_SET = re.compile(r"\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])")
RELATION = re.compile(r"=|<|>|\\leq(?![A-Za-z])|\\geq(?![A-Za-z])|\\neq(?![A-Za-z])|\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])|\\sim(?![A-Za-z])|\\in(?![A-Za-z])"
                      r"|\\notin(?![A-Za-z])|\\subset(?:eq)?(?![A-Za-z])")
COLON = re.compile(r":|" + WORD % ("to", "to"))
NAME = re.compile(r"(?:\\text\{[^{}]*\}|\\?[A-Za-z]+(?:_(?:\w|\{[^{}]*\}))?'*(?:\([A-Za-z0-9, +]*\))?|\|[A-Z]{2}\||\\(?:angle|overline|triangle|widehat|hat|vec) ?\{?[A-Za-z]+\}?"
                  r"|m ?\\angle ?[A-Z]+|[A-Za-z]_\{[^{}]*\}|\[[A-Z]{3,}\]|P\([^()]*\)|\\?[A-Za-z]+ ?\([A-Za-z0-9, +\\]*\))(?:\^\{?-1\}?)?")
OPERATOR_NAMES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|frac|sqrt|pi|infty|binom|sum|int|prod|lim)(?![A-Za-z])")
REALS = [("-\\infty", True, "\\infty", True)]


def parse_answer(text):
    """An answer as nested tuples, the kind first. What has no structure is ("value", text)."""
    text = text.strip()
    whole = re.fullmatch(r"\\text\{(.*)\}", text, re.DOTALL)
    if whole and _closing_brace(text, 5) == len(text) - 1:
        inner = whole[1].strip()
        if re.search(r"[\d=<>\\]", inner) and not re.search(r"[A-Za-z]{3,}.*[A-Za-z]{3,}.*[A-Za-z]{3,}", inner) or OR.search(inner) or AND.search(inner):
            return parse_answer(clean(inner))
        return ("value", text)
    if text.startswith("{") and _closing_brace(text, 0) == len(text) - 1:
        return parse_answer(text[1:-1])
    if _choice(text) and not re.fullmatch(r"[A-Z]", text):
        return ("value", text)

    if text[0:1] == "]" or text[-1:] == "[":                 # ]1,2[, the French way to write (1,2)
        ends = text[1:-1].split(",")
        if len(ends) == 2 and re.fullmatch(r"[\](].*[\[)]|\].*\]|\[.*\[", text) and not re.search(r"[\[\]]", text[1:-1]):
            return ("reals", [(ends[0].strip(), text[0] != "[", ends[1].strip(), text[-1] != "]")], None)
    parts = _split(text, OR)
    if len(parts) > 1:
        nodes = [parse_answer(part) for part in parts]
        if all(node[0] == "reals" for node in nodes):
            return ("reals", sum((node[1] for node in nodes), []), nodes[0][2])
        return _list(nodes)
    parts = _split(text, CUP)
    if len(parts) > 1:
        nodes = [_as_reals(parse_answer(part)) for part in parts]
        return ("reals", sum((node[1] for node in nodes), []), None) if all(nodes) else ("value", text)
    parts = _split(text, MINUS_SET)
    if len(parts) == 2:
        left, right = parse_answer(parts[0]), parse_answer(parts[1])
        if left == ("reals", REALS, None) and right[0] == "set":
            return _punctured([node[1] for node in right[1]], None)
        return ("value", text)
    parts = _split(text, AND)
    if len(parts) > 1 and all(parts):
        nodes = [parse_answer(part) for part in parts]
        both = _intersection(nodes)
        return both or _list(nodes)
    parts = [part for part in _split(text, COMMA)]
    while len(parts) > 1 and parts[-1] == "":
        parts.pop()
    if len(parts) > 1:
        parts = [re.sub(r"^(?:\\text\{ ?(?:and|or) ?\}|(?:and|or)(?![A-Za-z]))", "", part).strip() for part in parts]
        return _list([parse_answer(part) if part else ("none",) for part in parts])

    operators = [m for m in _top_level(text, RELATION)]
    if operators:
        return _relation(text, _split(text, RELATION), operators)

    environment = re.fullmatch(r"\\begin ?\{([a-zA-Z]+)\*?\}(.*)\\end ?\{\1\*?\}( ?\^ ?\{? ?(?:T|\\top|\\text\{T\}|\\intercal) ?\}?)?", text, re.DOTALL)
    if environment is None:
        environment = re.fullmatch(r"[(\[] ?\\begin ?\{(array|matrix|smallmatrix)\}(.*)\\end ?\{\1\} ?[)\]](\^T)?", text, re.DOTALL)
    if environment:
        body = re.sub(r"^ ?\{[lcr| ]*\}", "", environment[2])
        rows = [row for row in re.split(r"\\newline", body) if row.strip()]
        if environment[1] in ("cases", "aligned", "align", "gathered", "split"):
            return _list([parse_answer(row.replace("&", " ").strip().rstrip(",")) for row in rows])
        if environment[1] in ("vmatrix", "Vmatrix"):
            return ("value", text)
        matrix = [[parse_answer(cell) for cell in row.split("&")] for row in rows]
        if environment[3]:
            if len({len(row) for row in matrix}) != 1:
                return ("none",)
            matrix = [list(column) for column in zip(*matrix)]
        return ("matrix", matrix)

    if re.fullmatch(r"\\mathbb ?\{?R\}?|\\text\{ ?(?:all )?real numbers? ?\}|\\text\{ ?all reals ?\}|all real numbers", text):
        return ("reals", REALS, None)
    if re.fullmatch(r"\\emptyset|\\\{ ?\\\}|\\text\{ ?[Nn]o (?:real )?solutions? ?\}|[Nn]o (?:real )?solutions?|\\text\{ ?(?:the )?empty set ?\}", text):
        return ("set", [])

    bracket = re.fullmatch(r"(\\\{|\\langle|[(\[\]])(.*)(\\\}|\\rangle|[)\[\]])(\^ ?\{? ?(?:T|\\top|\\text\{T\}) ?\}?)?", text, re.DOTALL)
    if bracket and _encloses(text, bracket[1], bracket[3] + (bracket[4] or "")):
        opening, inside, closing = bracket[1], bracket[2].strip(), bracket[3]
        parts = _elements(inside)
        if opening == "\\{":
            such_that = re.match(r"([A-Za-z]) ?(?:\\in ?\\mathbb\{R\} ?)?[|:](.*)", inside, re.DOTALL)
            if such_that:
                return parse_answer(such_that[2])
            return ("set", [parse_answer(part) for part in parts])
        if len(parts) == 1 and opening == "(" and closing == ")":
            return parse_answer(parts[0])
        if len(parts) == 1 and opening == "[":
            return ("tuple", [parse_answer(parts[0])]) if closing == "]" else ("none",)
        if len(parts) == 2 and opening != "\\langle" and (opening, closing) != ("(", ")"):
            return ("reals", [(parts[0], opening != "[", parts[1], closing != "]")], None)
        if (opening, closing) in (("(", ")"), ("[", "]"), ("\\langle", "\\rangle")) and all(parts):
            return ("tuple", [parse_answer(part) for part in parts])
        return ("none",)

    parts = _split(text, COLON)
    if len(parts) > 1 and all(parts):
        return ("ratio", parts)
    if text.count("\\pm") + text.count("\\mp") == 1 and not re.search(r"\\pm ?0(?![.\d])", text):
        return _list([parse_answer(re.sub(r"^\+", "", re.sub(r"\\[pm]{2} ?", sign, text))) for sign in "+-"])
    return ("value", text)


def _encloses(text, opening, closing):
    """Whether the first bracket of text is closed by its last one: (a)(b) is not enclosed."""
    inside = text[len(opening):len(text) - len(closing)]
    depth = 0
    for token in re.findall(r"\\langle|\\rangle|\\[{}]|[()\[\]{}]", inside):
        depth += 1 if token in ("\\langle", "\\{", "(", "[", "{") else -1
        if depth < 0:
            return False
    return True


def _elements(inside):
    """The elements between brackets. With "1,000, 2,000" the comma with a blank separates; else every comma does."""
    if not inside:
        return []
    return _split(inside, COMMA)


def _top_level(text, pattern):
    """The matches of `pattern` outside all brackets, as text."""
    found = []
    parts = _split(text, pattern)
    at = 0
    for part in parts[:-1]:
        at = text.index(part, at) + len(part)
        match = re.compile(r"\s*(" + pattern.pattern + ")").match(text, at)
        found.append(match[1] if match else "?")
        at = match.end() if match else at
    return found


def _list(nodes):
    """Several answers. In "x = 3, 4" and "x_1 = 3, x_2 = 4" the names say nothing; in "x = 3, y = 4" they do."""
    flat = []
    for node in nodes:
        flat.extend(node[1] if node[0] == "list" else [node])
    names = [node[1] for node in flat if node[0] == "named"]
    if names and flat[0][0] == "named":
        stems = {re.sub(r"_\{?\d+\}?$", "", name) for name in names}
        if len(stems) == 1 and all(node[0] in ("named", "value") for node in flat):
            flat = [node[2] if node[0] == "named" else node for node in flat]
    return ("list", flat) if len(flat) > 1 else flat[0]


def _as_reals(node):
    """A node as a set of real numbers, or None."""
    if node[0] == "reals":
        return node
    if node[0] == "tuple" and len(node[1]) == 2 and all(part[0] == "value" for part in node[1]):
        return ("reals", [(node[1][0][1], True, node[1][1][1], True)], None)
    if node[0] == "set" and all(part[0] == "value" for part in node[1]):
        return ("reals", [(part[1], False, part[1], False) for part in node[1]], None)
    return None


def _punctured(points, variable):
    """All reals but some points."""
    try:
        points = sorted(points, key=lambda point: float(exact(point)[0]))
    except (TypeError, OverflowError):
        return ("none",)
    ends = ["-\\infty", *points, "\\infty"]
    return ("reals", [(low, True, high, True) for low, high in zip(ends, ends[1:])], variable)


def _intersection(nodes):
    """x > 1 and x < 2, as one interval; None for what is no pair of half-lines."""
    if len(nodes) != 2 or any(node[0] != "reals" or len(node[1]) != 1 for node in nodes) or nodes[0][2] != nodes[1][2]:
        return None
    low = [n[1][0] for n in nodes if n[1][0][2] == "\\infty"]
    high = [n[1][0] for n in nodes if n[1][0][0] == "-\\infty"]
    if len(low) == len(high) == 1:
        return ("reals", [(low[0][0], low[0][1], high[0][2], high[0][3])], nodes[0][2])
    return None


def _relation(text, sides, operators):
    """An equation, an inequality, a membership."""
    sides = [side.strip() for side in sides]
    if operators == ["\\in"] and NAME.fullmatch(sides[0]):
        node = parse_answer(sides[1])
        node = _as_reals(node) if node[0] == "tuple" else node
        if node is None:
            return ("none",)
        return ("reals", node[1], sides[0]) if node[0] == "reals" else node
    if set(operators) == {"="}:
        if sides[0] == "":
            sides = sides[1:]
        if not all(sides):
            return ("none",)
        if len(sides) == 1:
            return parse_answer(sides[0])
        first_is_name = NAME.fullmatch(sides[0]) and not OPERATOR_NAMES.match(sides[0])
        if not first_is_name and len(sides) == 2 and NAME.fullmatch(sides[1]) and not OPERATOR_NAMES.match(sides[1]) and not re.search("[a-zA-Z]", _bare(sides[0])):
            sides = sides[::-1]
            first_is_name = True
        if first_is_name:
            # x = 1/2 = 0.5 is one value if its sides agree; x = y = 3 has no digits in the middle
            for side in sides[1:-1]:
                if re.search(r"\d", side) and not same_value(side, sides[-1], strict=False):
                    return ("none",)
            return ("named", _name(sides[0]), parse_answer(sides[-1]))
        if not re.search(r"[A-Za-z]", _bare("".join(sides))):
            same = all(same_value(side, sides[-1], strict=False) for side in sides[:-1])
            return parse_answer(sides[-1]) if same else ("none",)
        if len(sides) == 2 and not re.search(r"\d", sides[0]) and not re.search(r"[A-Za-z]", _bare(sides[1])):
            return ("named", _name(sides[0]), parse_answer(sides[1]))          # m + n = 5
        return ("equation", sides) if len(sides) == 2 else ("none",)
    order = [operator for operator in operators if operator in ("<", ">", "\\leq", "\\geq")]
    if len(order) == len(operators) and all(sides):
        flipped = {"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq"}
        if operators[0] in (">", "\\geq"):
            sides, operators = sides[::-1], [flipped[operator] for operator in operators[::-1]]
        if all(operator in ("<", "\\leq") for operator in operators):
            variable = [bool(NAME.fullmatch(side)) and not OPERATOR_NAMES.match(side) and "\\text" not in side for side in sides]
            if len(sides) == 2 and variable[0] and not variable[1]:
                return ("reals", [("-\\infty", True, sides[1], operators[0] == "<")], _name(sides[0]))
            if len(sides) == 2 and variable[1] and not variable[0]:
                return ("reals", [(sides[0], operators[0] == "<", "\\infty", True)], _name(sides[1]))
            if len(sides) == 3 and variable[1] and not variable[0] and not variable[2]:
                return ("reals", [(sides[0], operators[0] == "<", sides[2], operators[1] == "<")], _name(sides[1]))
            return ("order", sides, operators)
    if operators == ["\\neq"] and all(sides) and NAME.fullmatch(sides[0]):
        return _punctured([sides[1]], _name(sides[0]))
    return ("relation", re.sub(r" ", "", text))


def _bare(text):
    """Without commands, text and the constants e and i: what letters remain are variables."""
    text = re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    return re.sub(r"(?<![A-Za-z])[eEi](?![A-Za-z])|(?<=\d)[eE](?=[+-]?\d)", " ", text)


def _name(text):
    return re.sub(r"[\s{}]|\\text", "", text).replace("\\angle", "")


# Comparing the parts -------------------------------------------------------------------------------------------------

def same_answer(answer, gold):
    """Whether two answers (texts) are the same. Raises what parsers raise; may run long on hostile text: workers only."""
    answer, gold = clean(answer), clean(gold)
    if not answer or not gold:
        return False
    if re.sub(r"\s", "", answer) == re.sub(r"\s", "", gold) and not re.search(r"\d \d", answer + "|" + gold):
        return True
    if max(len(answer), len(gold)) > MAX_ANSWER or max(_depth(answer), _depth(gold)) > MAX_DEPTH or answer.count("^") > 20 or "\x00" in answer:
        return False
    return same(parse_answer(answer), parse_answer(gold))


def _depth(text):
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def same(a, g):
    """Whether two parsed answers are the same; g is the gold one, and where they differ in kind, it says what is asked for."""
    if "none" in (a[0], g[0]):
        return False
    if a[0] == "value" == g[0]:
        return same_value(a[1], g[1])

    # Names: "x = 5" answers 5, and 5 answers "x = 5"; "y = 5" does not.
    if a[0] == "named" and g[0] == "named":
        return _names_agree(a[1], g[1]) and same(a[2], g[2])
    if g[0] == "named" and a[0] not in ("equation", "order", "relation", "reals") or g[0] == "named" == "reals" == g[2][0]:
        return same(a, g[2])
    if a[0] == "named" and g[0] not in ("equation", "order", "relation"):
        return same(a[2], g)

    if a[0] in ("equation", "named") and g[0] in ("equation", "named"):
        return _same_equation(a, g)
    if a[0] == "order" == g[0]:
        return len(a[1]) == 2 == len(g[1]) and a[2] == g[2] and _proportional(_difference(a[1]), _difference(g[1]), positive=True)
    if a[0] == "relation" == g[0]:
        return a[1] == g[1]

    # Sets of reals. (1,2) is a point or an open interval: it equals 1 < x < 2, but neither [1,2] nor {1,2}.
    if a[0] == "reals" and g[0] == "reals":
        if a[2] and g[2] and a[2] != g[2]:
            return False
        return _match(a[1], g[1], _same_interval)
    if "reals" in (a[0], g[0]):
        other = a if g[0] == "reals" else g
        if other[0] == "tuple" and len(other[1]) == 2:
            a, g = _as_reals(a), _as_reals(g)
            return bool(a and g) and same(a, g)
        if other[0] == "list" and all(node[0] == "reals" for node in other[1]):
            both = _intersection(other[1])
            return bool(both) and same(*((both, g) if other is a else (a, both)))
        return False

    if a[0] == "matrix" or g[0] == "matrix":
        if a[0] == "matrix" == g[0]:
            return [len(row) for row in a[1]] == [len(row) for row in g[1]] and all(same(x, y) for r, s in zip(a[1], g[1]) for x, y in zip(r, s))
        vector, other = (a, g) if a[0] == "matrix" else (g, a)
        if other[0] == "tuple" and all(len(row) == 1 for row in vector[1]):        # a column vector written as a point
            return len(vector[1]) == len(other[1]) and all(same(x[0], y) for x, y in zip(vector[1], other[1]))
        return False
    if a[0] == "ratio" or g[0] == "ratio":
        return _same_ratio(a, g)

    if a[0] == "tuple" and g[0] == "tuple":
        return len(a[1]) == len(g[1]) and all(same(x, y) for x, y in zip(a[1], g[1]))
    if a[0] in ("list", "set") and g[0] in ("list", "set"):
        if a[0] == "set" and g[0] == "set":         # {1, 1} is {1}
            a, g = _distinct(a), _distinct(g)
        return _match(a[1], g[1], same)
    # Bare values stand for a tuple in its order, and a tuple for bare values: x = 3, y = 4 and (3, 4).
    if {a[0], g[0]} == {"list", "tuple"}:
        plain = [[node[2] if node[0] == "named" else node for node in side[1]] for side in (a, g)]
        return len(plain[0]) == len(plain[1]) and all(same(x, y) for x, y in zip(*plain))
    # One value for a set of one.
    if {a[0], g[0]} == {"value", "set"}:
        one, many = (a, g) if a[0] == "value" else (g, a)
        return len(many[1]) == 1 and same(*((one, many[1][0]) if one is a else (many[1][0], one)))
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
    kept = []
    for item in node[1]:
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return (node[0], kept)


def _same_interval(a, g):
    return a[1] == g[1] and a[3] == g[3] and same(parse_answer(a[0]), parse_answer(g[0])) and same(parse_answer(a[2]), parse_answer(g[2]))


def _names_agree(a, g):
    if a == g or {a, g} <= {"y", "f(x)", "g(x)", "h(x)", "y(x)"} and "y" in (a, g):
        return True
    # "Area = 5" and "A = 5" name the same thing in words and in a letter
    return len(a) > 3 and a.isalpha() and len(g) == 1 and a[0].lower() == g.lower() or len(g) > 3 and g.isalpha() and len(a) == 1 and a.lower() == g[0].lower()


def _same_equation(a, g):
    """Equations in two or more variables, up to a factor. An equation in one variable is a question, not an answer."""
    sides = [[node[1], node[2][1]] if node[0] == "named" and node[2][0] == "value" else node[1] for node in (a, g)]
    if not all(isinstance(side, list) and len(side) == 2 for side in sides):
        return False
    left, right = (_difference(side) for side in sides)
    if left is None or right is None or (g[0] == "named" and len(right.free_symbols) < 2):
        return False
    return _proportional(left, right)


def _difference(sides):
    expressions = [symbolic(side) for side in sides]
    return None if None in expressions else expressions[0] - expressions[1]


def _proportional(left, right, positive=False):
    """Whether left = c * right for a constant c (c > 0 for inequalities), by values at three points."""
    if left is None or right is None or left.free_symbols != right.free_symbols or not left.free_symbols:
        return False
    ratios = []
    for values in _points(left.free_symbols):
        low = right.subs(values).evalf(30)
        if not low.is_number or low == 0:
            return False
        ratios.append((left.subs(values).evalf(30) / low).evalf(25))
    return all(r.is_number and abs(r - ratios[0]) <= abs(ratios[0]) * 1e-20 for r in ratios) and ratios[0] != 0 and (not positive or ratios[0] > 0)


def _same_ratio(a, g):
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
        return all(x * other[0] == y * one[0] for x, y in zip(one, other)) and any(one) and any(other)
    return all(same_value(x, y) for x, y in zip(*sides))


# Single values -------------------------------------------------------------------------------------------------------

# Units as powers of a few basic ones: name -> (factor, {basic unit: power}). A word that is not here is a unit of its own.
UNITS = {}
for _names, _factor, _basis in [
        ("m meter metre", 1, "m"), ("km kilometer kilometre", 1000, "m"), ("cm centimeter centimetre", "1/100", "m"), ("mm millimeter millimetre", "1/1000", "m"),
        ("in inch inche", "0.0254", "m"), ("ft foot feet", "0.3048", "m"), ("yd yard", "0.9144", "m"), ("mi mile", "1609.344", "m"),
        ("s sec second", 1, "s"), ("min minute", 60, "s"), ("h hr hour", 3600, "s"), ("day", 86400, "s"), ("week wk", 604800, "s"), ("ms millisecond", "1/1000", "s"),
        ("year yr", 1, "year"), ("month", "1/12", "year"),
        ("g gram", 1, "g"), ("kg kilogram", 1000, "g"), ("mg milligram", "1/1000", "g"), ("lb pound", 1, "lb"), ("oz ounce", "1/16", "lb"),
        ("L l liter litre", "1/1000", "m m m"), ("mL ml milliliter millilitre", "1/1000000", "m m m"),
        ("dollar usd", 1, "dollar"), ("cent", "1/100", "dollar"), ("euro eur", 1, "euro"), ("degree deg", 1, "degree"), ("rad radian", 1, ""),
        ("unit", 1, "unit"), ("mph", "1609.344/3600", "m/s"), ("kmh kph kmph", "5/18", "m/s"), ("N newton", 1, "N"), ("J joule", 1, "J"), ("W watt", 1, "W"), ("kW", 1000, "W"),
        ("V volt", 1, "V"), ("A ampere amp", 1, "A"), ("Hz hertz", 1, "Hz"), ("C celsius", 1, "C"), ("F fahrenheit", 1, "F"), ("K kelvin", 1, "K"), ("mol mole", 1, "mol")]:
    _over, _, _under = _basis.partition("/")
    _powers = {}
    for _name_ in _over.split():
        _powers[_name_] = _powers.get(_name_, 0) + 1
    for _name_ in _under.split():
        _powers[_name_] = _powers.get(_name_, 0) - 1
    _top, _, _bottom = str(_factor).partition("/")
    for _name_ in _names.split():
        UNITS[_name_] = (Fraction(_top) / Fraction(_bottom or 1), _powers)
BARE_UNITS = "km|cm|mm|kg|mg|mL|ml|ft|yd|mi|min|sec|hr|mph|Hz|kW|lb|oz|rad|deg"
NO_UNIT = set("is are was not or and maybe but if then else ignore previous all instructions because correct wrong right answer reward true false the a an to "
              "be can could should would possibly probably perhaps otherwise either neither unless except plus minus times divided squared cubed "
              "thousand million billion trillion hundred dozen half third quarter score grade".split())


def _unit(text):
    """A text without its unit, and the unit as (factor, {basic unit: power}), or None where there is no unit."""
    words, rest = [], text
    money = re.match(r"(-?) ?(?:\\text\{ ?(dollar|euro|pound) ?\}|\$) ?(?=[-\d.\\(])", rest)
    if money:
        words.append(money[2] if money[2] != "pound" else "sterling")
        rest = money[1] + rest[money.end():]
        words[-1] = words[-1] or "dollar"
    tail = re.search(r"(?: ?(?:\\text\{[^{}\\\d=<>]*(?:\^\{?-?\d\}?)?[^{}\\\d=<>]*\}|(?<=[\d) ])(?:%s)(?![A-Za-z])|(?<=[\d}] )(?:m|g|s|h|L|N|J|W)(?![A-Za-z])|(?<=[\d}] )[A-Za-z]{3,}(?: [A-Za-z]+){0,2}"
                     r"|(?<=[}a-zA-Z])\^ ?\{?-?[23]\}?|(?<=[}a-zA-Z0-9]) ?/ ?(?=\\text|[a-z]+$|[a-z]+\^)|(?<=/)[a-z]+|\\cdot (?=\\text)))+$" % BARE_UNITS, rest)
    if tail and tail.start() > 0:
        words.append(tail.group())
        rest = rest[:tail.start()]
    elif not words:
        return text, None
    phrase = re.sub(r"\\text|\\cdot|[{}().]", lambda m: " " if m.group() != "." else "", " ".join(words)).strip()
    phrase = re.sub(r"\bsquared?|\bsq\b", "square", phrase)
    phrase = re.sub(r"\bper\b", "/", phrase)
    if not rest.strip() or not phrase or phrase[0] in "^/" or re.search(r"[a-z]", _bare(rest)) and not money:
        return text, None
    factor, powers, sign, power, last = Fraction(1), {}, 1, 1, None
    for word in re.findall(r"/|\^ ?-?\d|[^\s/^]+", phrase):
        if word == "/":
            sign = -1
            continue
        if word.startswith("^"):
            again = int(word[1:]) - 1 if last else 0
            if last:
                factor *= UNITS.get(last, (1, {}))[0] ** (again * sign)
                for basic, p in UNITS.get(last, (1, {last: 1}))[1].items():
                    powers[basic] = powers.get(basic, 0) + p * again * sign
            continue
        if word in ("square", "cubic"):
            power = 2 if word == "square" else 3
            continue
        if word.lower() in NO_UNIT or len(phrase.split()) > 4:
            return text, None
        last = next((w for w in (word, word.lower(), word.rstrip("s"), word.lower().rstrip("s")) if w in UNITS), word.lower().rstrip("s"))
        size, basis = UNITS.get(last, (Fraction(1), {last: 1}))
        factor *= size ** (power * sign)
        for basic, p in basis.items():
            powers[basic] = powers.get(basic, 0) + p * power * sign
        power = 1
    return rest.strip(), (factor, {basic: p for basic, p in powers.items() if p})


def _choice(text):
    r"""(letter, what follows it) of a multiple-choice answer such as (A), \text{A}, B., "(C) 12", Option D; else None."""
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text).strip()
    plain = re.sub(r"^(?:[Oo]ption|[Cc]hoice|[Aa]nswer):? ?", "", plain)
    match = re.fullmatch(r"[(\[] ?([A-Za-z]) ?[)\]][.:]? ?(.*)|([A-Z])(?:[.):] ?(.*))?", plain, re.DOTALL)
    if match is None:
        return None
    rest = (match[2] or match[4] or "").strip()
    if rest and re.match(r"[\^_+*/=<>]|\\(?:cdot|times|cup|in)|-\D", rest):
        return None                                          # (x)^2 is no choice
    return match[1] or match[3], rest, bool(match[1] or match[4] is not None or "text" in text or plain != text)


def _words(text):
    """A text answer in lower case without quotes and punctuation, or None if it is no text."""
    wrapped = "\\text" in text
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_=<>{}+*/]", plain) or not re.search(r"[^\W\d]", plain):
        return None
    if not wrapped and not re.search(r"[^\W\d_]{2,}", plain) or re.search(r"\d", plain) and not re.search(r"[^\W\d]{2}", plain):
        return None
    return " ".join(re.sub(r"[\"'`.,;:!?()]", " ", plain.replace("-", " ")).lower().split())


def _base(text):
    """(digits, base) of a number with a base subscript; None if there is none."""
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text)
    match = re.fullmatch(r"\(? ?([0-9A-Za-z][0-9A-Za-z ]*(?:\.[0-9A-Za-z]+)?) ?\)? ?(?:_ ?\{? ?\(?(\d+|[a-z]+)\)? ?\}?|\(? ?(?:in )?base[ -](\d+|[a-z]+) ?\)?)", plain)
    if match is None:
        return None
    named = dict(NUMBER_WORDS, sixteen=16, binary=2, octal=8, decimal=10, hex=16, bin=2, oct=8)
    base = match[2] or match[3]
    base = int(base) if base.isdigit() else named.get(base)
    digits = match[1].replace(" ", "").upper()
    if base is None or not 2 <= base <= 36 or any(int(d, 36) >= base for d in digits.replace(".", "")):
        return None
    whole, _, part = digits.partition(".")
    return whole.lstrip("0") or "0", part.rstrip("0"), base


def same_value(a, g, strict=True):
    """Whether two single values are the same. strict=False leaves out the rule that an answer must be worked out."""
    a, g = a.strip(), g.strip()
    if not a or not g:
        return False
    if a == g and not re.search(r"\d \d", a):
        return True
    one, other = _choice(a), _choice(g)
    if one and other and (one[2] or other[2] or one[0] == other[0]):
        return one[0].upper() == other[0].upper() and (not one[1] or not other[1] or same_answer(one[1], other[1]))
    if other and other[1] and same_answer(a, other[1]):       # gold "(C) 12", answer 12
        return True
    one, other = _base(a), _base(g)
    if one or other:
        plain = [re.sub(r"[\s{}]|\\text", "", text) for text in (a, g)]
        one, other = (b or ((p.lstrip("0") or "0", "", 10) if p.isdigit() else None) for b, p in zip((one, other), plain))
        return one is not None and one == other
    one, other = _words(a), _words(g)
    if one and other and not re.search(r"\d", one + other):
        return one == other or re.sub(r"^(?:the|a|an) ", "", one) == re.sub(r"^(?:the|a|an) ", "", other)
    a, g = (str(NUMBER_WORDS[w]) if w in NUMBER_WORDS else text for w, text in ((one, a), (other, g)))

    a, a_percent = _percent(a)
    g, g_percent = _percent(g)
    a, a_unit = _unit(a)
    g, g_unit = _unit(g)
    scale = [Fraction(1), Fraction(1)]
    if a_unit and g_unit:
        if a_unit[1] != g_unit[1]:
            return False
        scale = [a_unit[0], g_unit[0]]
    elif a_unit and a_unit[1] == {"degree": 1} and "\\pi" in g or g_unit and g_unit[1] == {"degree": 1} and "\\pi" in a:
        # 60 degrees and pi/3: the degree is pi/180
        a, g = (rf"({text})\cdot\frac{{\pi}}{{180}}" if unit else text for text, unit in ((a, a_unit), (g, g_unit)))
        strict = False
    left, right = exact(a), exact(g)
    if left and right:
        (left, left_digits), (right, right_digits) = left, right
        left, right = left * scale[0], right * scale[1]
        if a_percent != g_percent and left == right and abs(left) > 1:      # asked for a percentage, 50 and 50 % both answer
            return True
        left, right = left / (100 if a_percent else 1), right / (100 if g_percent else 1)
        return left == right or _rounded(left, left_digits, right, right_digits)
    if a_percent != g_percent or scale[0] != scale[1]:
        return False
    return _same_expression(a, g, left, right, strict)


def _percent(text):
    shorter = re.sub(r" ?(?:%|\\text\{ ?(?:percent|per cent|%) ?\}|percent)$", "", text)
    return (shorter.strip(), True) if shorter != text and shorter.strip() else (text, False)


def _rounded(left, left_digits, right, right_digits):
    """Whether one is a decimal of six places or more, and the other, a fraction with no finite decimals, rounds to it."""
    for value, digits, other, other_digits in ((left, left_digits, right, right_digits), (right, right_digits, left, left_digits)):
        if digits >= 6 and other_digits < 0 and len(str(abs(value.numerator))) >= 5 and abs(value - other) * 2 * 10 ** digits <= 1:
            d = other.denominator
            for prime in (2, 5):
                while d % prime == 0:
                    d //= prime
            return d != 1
    return False


DECIMAL = re.compile(r"(\d+)?(?:\.(\d*)(?:\\overline ?\{(\d+)\}|\((\d+)\)|\\dot ?\{?(\d)\}?(?:(\d*)\\dot ?\{?(\d)\}?)?|(\.\.\.))?)?")


def exact(text):
    r"""(value, places): a number literal as a Fraction, and its decimal places if it is a finite decimal, else -1; or None.

    Literals: integers, decimals (repeating ones too), fractions and quotients of them, mixed numbers, powers of integers,
    and a number times a power of ten. Sums and products are no literals: they are left to be worked out.
    """
    text = re.sub(r" ?(\\times|\\cdot|\*) ?", "*", text.strip())
    try:
        value, places, rest = _signed(text)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
    return None if rest.strip() else (value, places)


def _signed(text):
    text = text.lstrip()
    if text[:1] in ("+", "-") and text[1:].lstrip()[:1] not in ("+", "-"):
        value, places, rest = _quotient(text[1:].lstrip())
        return (-value if text[0] == "-" else value), places, rest
    return _quotient(text)


def _quotient(text):
    value, places, rest = _power(text)
    scientific = re.match(r" ?\*(10 ?\^.*)", rest, re.DOTALL)
    if scientific:
        ten, _, rest = _power(scientific[1])
        return value * ten, 0 if (value * ten).denominator == 1 else -1 if places < 0 else 40, rest
    if rest.lstrip().startswith("/"):
        divisor, _, rest = _power(rest.lstrip()[1:].lstrip())
        return value / divisor, -1, rest
    # A mixed number: 1\frac{1}{2}, 1 \frac{1}{2} or 1 1/2
    mixed = re.match(r" ?\\frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}| (\d+) ?/ ?(\d+)", rest)
    if mixed and places == 0 and re.fullmatch(r"\d+ ?", text[:len(text) - len(rest)]):
        part = Fraction(int(mixed[1] or mixed[3]), int(mixed[2] or mixed[4]))
        if part < 1:
            return value + part, -1, rest[mixed.end():]
    return value, places, rest


def _power(text):
    value, places, rest = _atom(text)
    exponent = re.match(r" ?\^ ?(?:\{ ?([+-]?\d{1,5}) ?\}|\(([+-]?\d{1,5})\)|([+-]?\d{1,5}))", rest)
    if exponent and not rest[exponent.end():].lstrip().startswith("^"):
        exponent, rest = int(exponent[1] or exponent[2] or exponent[3]), rest[exponent.end():]
        if abs(exponent) * max(value.numerator.bit_length(), value.denominator.bit_length()) > 40_000:
            raise ValueError("too large")
        return value ** exponent, (0 if value.denominator == 1 and exponent >= 0 else -1), rest
    return value, places, rest


def _atom(text):
    if text.startswith("\\frac"):
        at = text.index("{")
        if text[5:at].strip():
            raise ValueError
        middle = _closing_brace(text, at)
        second = middle + 1 + len(text[middle + 1:]) - len(text[middle + 1:].lstrip()) if middle is not None else -1
        end = _closing_brace(text, second) if text[second:second + 1] == "{" else None
        if end is None:
            raise ValueError
        over, under = _signed(text[at + 1:middle]), _signed(text[second + 1:end])
        if over[2].strip() or under[2].strip():
            raise ValueError
        return over[0] / under[0], -1, text[end + 1:]
    if text[:1] in ("(", "{"):
        value, places, rest = _signed(text[1:])
        if rest.lstrip()[:1] != {"(": ")", "{": "}"}[text[0]]:
            raise ValueError
        return value, places, rest.lstrip()[1:]
    match = DECIMAL.match(text)
    whole, part = match[1], match[2]
    if not whole and not part and not (match[3] or match[4] or match[5]):
        raise ValueError
    rest, part = text[match.end():], part or ""
    value = Fraction(int((whole or "0") + part), 10 ** len(part))
    block = match[3] or match[4] or ((match[5] + (match[6] or "") + match[7]) if match[7] else match[5])
    if match[8]:                                            # 0.1666...: the shortest block that stands twice at the end
        repeated = re.search(r"(\d+?)\1+$", part)
        if not repeated:
            raise ValueError
        block = repeated[1]
    if block:
        value += Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(part))
        return value, -1, rest
    power = re.match(r"[eE]([+-]?\d{1,4})(?![\d.])", rest)
    if power:
        return value * Fraction(10) ** int(power[1]), 40, rest[power.end():]
    return value, len(part), rest


# What an answer may only hold if the gold answer does too: otherwise it is the question, or a step on the way.
UNFINISHED = {
    "sum": re.compile(r"(?<=[\w)}\]!]) ?[+-](?! ?\\infty)"),
    "product": re.compile(r"(?:\\cdot|\\times|\*) ?(?=\d|\(|\\frac|-)(?!10 ?\^)|\\sqrt ?\{[^{}]*\} ?(?:\\cdot|\\times|\*)? ?\\sqrt|\) ?\(|\d ?\("),
    "division": re.compile(r"\\div(?![A-Za-z])"),
    "tower": re.compile(r"\^ ?(?:\{[^{}]*|\(?[\d.]+\)? ?)\^"),
    "function": re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+|sinh|cosh|tanh|exp|max|min|gcd|lcm|det|Re|Im|arg|operatorname|bmod|pmod|mod)(?![A-Za-z])"),
    "logarithm": re.compile(r"\\(?:ln|log|lg)(?![A-Za-z])"),
    "sum sign": re.compile(r"\\(?:sum|prod|int|iint|oint|lim|sup|inf)(?![A-Za-z])"),
    "factorial": re.compile(r"!|\\(?:binom|choose)(?![A-Za-z])"),
    "rounding": re.compile(r"\\(?:lfloor|lceil|rfloor|rceil)(?![A-Za-z])|\||\\mid"),
}


def _same_expression(a, g, a_exact, g_exact, strict):
    """Two expressions that are not both number literals."""
    if re.search(r"\d \d|[?#@]|\.\.\.", a) or re.search(r"[^\x00-\x7f]", a):
        return False
    if strict and not re.search(r"[A-Za-z]", _bare(a)) and not re.search(r"[A-Za-z]", _bare(g)):
        if any(pattern.search(a) and not pattern.search(g) for pattern in UNFINISHED.values()):
            return False
        # a root of a perfect square (or cube) that the gold answer has worked out
        if g_exact and g_exact[1] < 6 and "\\sqrt" in a:
            return False
    left, right = symbolic(a), symbolic(g)
    if left is None or right is None:
        return False
    return _equal(left, right, a_exact, g_exact)


def symbolic(text):
    """A sympy expression for LaTeX, by math-verify's parser; None if it finds none. Decimals become fractions: no rounding."""
    from math_verify import LatexExtractionConfig, parse
    text = re.sub(r"(?<![\d.^_])(\d*)\.(\d+)(?!\d*\.)", lambda m: rf"\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}", text)
    text = re.sub(r"\\text ?\{ ?degree ?\}", "", text)
    parsed = parse("$" + text + "$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
    return parsed[0] if parsed and not isinstance(parsed[0], str) else None


def _points(symbols):
    """A few fixed values for each symbol: positive ones that no one would choose, then some of mixed sign."""
    from sympy import Rational
    symbols = sorted(symbols, key=str)
    for k in range(4):
        yield {s: Rational(1000 * (i + 2) + 377 * k * (i + 1) + 89, 701 + 31 * i) * (-1 if k == 3 or (k == 2 and i % 2) else 1) for i, s in enumerate(symbols)}


def _equal(left, right, left_literal, right_literal):
    """Whether two sympy expressions are equal: exactly if they are rational, else to 50 digits, at some points if they have variables."""
    from math_verify import verify
    from sympy import Expr
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return bool(verify([right], [left], timeout_seconds=None))
    if left.free_symbols != right.free_symbols:
        return False
    if left.atoms(type(left)) and left == right:
        return True
    if not left.free_symbols:
        return _near(left, right) or _approximates(left, left_literal, right, right_literal)
    seen = 0
    for values in _points(left.free_symbols):
        x, y = left.subs(values), right.subs(values)
        if not x.evalf(15).is_number or not y.evalf(15).is_number:
            return bool(verify([right], [left], timeout_seconds=None))
        if x.evalf(15).is_real is False or y.evalf(15).is_real is False:
            continue        # outside the domain of one of them
        seen += 1
        if not _near(x, y):
            return False
    return seen >= 2


def _near(x, y):
    from sympy import nan, zoo
    x, y = x.doit(), y.doit()
    if x == y:
        return x not in (nan, zoo)
    if x.is_Rational and y.is_Rational or x.is_infinite or y.is_infinite:
        return False
    gap, size = abs((x - y).evalf(60, maxn=500)), abs(y.evalf(20))
    if not gap.is_number or not size.is_number or not gap.is_comparable or not size.is_comparable:
        return False
    return bool(gap <= size * 1e-45) or bool(gap < 1e-60)


def _approximates(left, left_literal, right, right_literal):
    """A decimal of six places or more and the irrational number that rounds to it."""
    for value, literal, other, other_literal in ((left, left_literal, right, right_literal), (right, right_literal, left, left_literal)):
        if literal and not other_literal and literal[1] >= 6 and literal[1] < 40 and len(str(abs(literal[0].numerator))) >= 5:
            gap = abs((other - value).evalf(40))
            if gap.is_comparable and gap * 2 * 10 ** literal[1] <= 1 and not other.doit().is_Rational:
                return True
    return False


CODE_SECONDS = 60


def sandbox_level():
    return "limits", "the code task is not written yet."


def load_tests(row):
    return row


def _prepare_code(response, tests):
    return (0.0, "the code task is not written yet"), None


def code_worker():
    pass


def code_reward(response, tests):
    return 0.0


# ---------------------------------------------------------------------------------------------------------------------
# 5. Worker processes, kept warm
# ---------------------------------------------------------------------------------------------------------------------

class _Worker:
    """One worker process and the pipes to it. A fresh interpreter, so it holds none of the caller's memory, threads or torch."""

    def __init__(self, task):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--worker", task], bufsize=0, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
        os.set_blocking(self.process.stdin.fileno(), False)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.unread = b""

    def ask(self, item, seconds):
        """The worker's reply to one item (a dict), "timeout", or "dead". After the last two the worker is gone."""
        to, back, deadline = self.process.stdin.fileno(), self.process.stdout.fileno(), time.monotonic() + seconds
        unsent = memoryview(json.dumps(item).encode() + b"\n" if item is not None else b"")
        try:
            while b"\n" not in self.unread:
                poll = select.poll()
                poll.register(back, select.POLLIN)
                if unsent:
                    poll.register(to, select.POLLOUT)
                ready = dict(poll.poll(max(0, 1000 * (deadline - time.monotonic()))))
                if not ready:
                    self.kill()
                    return "timeout"
                if to in ready:
                    unsent = unsent[os.write(to, unsent[:65536]):]
                if back in ready:
                    got = os.read(back, 65536)
                    if not got:
                        break
                    self.unread += got
            else:
                line, _, self.unread = self.unread.partition(b"\n")
                return json.loads(line)
        except (OSError, ValueError):
            pass
        return "timeout" if self.kill() == -signal.SIGXCPU else "dead"

    def kill(self):
        """End the worker and whatever it started. Its exit status."""
        try:
            # A worker that is ending by itself may still tell why (SIGXCPU: out of CPU time).
            status = self.process.wait(timeout=0.2) if self.process.poll() is None else self.process.returncode
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            status = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return status


class Grader:
    """Grades batches in warm worker processes. Thread-safe; results do not depend on order, batch or number of workers.

    task: "math" or "code". workers: processes, by default one per available core. timeout: wall-clock seconds for one item,
    after which it is a 0.0, is counted in .timeouts, and its worker is replaced. unsafe: run the code task although this
    host cannot isolate programs (see sandbox_level); without it that raises RuntimeError.
    """

    def __init__(self, task, workers=None, timeout=None, unsafe=False):
        if task not in ("math", "code"):
            raise ValueError(f"task must be 'math' or 'code', not {task!r}")
        if task == "code":
            name, words = sandbox_level()
            if name == "limits" and not unsafe:
                raise RuntimeError(f"refusing to run generated programs here: {words} Pass --unsafe-exec (unsafe=True) to run them all the same.")
        self.task, self.timeouts = task, 0
        self.workers = workers or len(os.sched_getaffinity(0))
        self.timeout = timeout or (MATH_SECONDS if task == "math" else CODE_SECONDS)
        self._start()

    def _start(self):
        self._pid, self._lock, self._closed = os.getpid(), threading.Lock(), False
        self._idle = queue.LifoQueue()       # last in, first out: a small batch stays on the workers that are warm
        for _ in range(self.workers):
            self._idle.put(None)             # None: a worker to be started when it is first needed

    def grade(self, responses, references):
        """[0.0 or 1.0] for each response against its gold answer, or its tests (a row, or what load_tests made of one)."""
        return [score for score, _ in self.explain(responses, references)]

    def explain(self, responses, references):
        """As grade, but [(reward, why)]."""
        responses, references = list(responses), list(references)
        if len(responses) != len(references):
            raise ValueError(f"{len(responses)} responses but {len(references)} references")
        if self._closed:
            raise RuntimeError("this Grader is closed")
        if self._pid != os.getpid():         # we are a fork: the workers belong to our parent
            self._start()
        verdicts, hard = [None] * len(responses), queue.SimpleQueue()
        for i, (response, reference) in enumerate(zip(responses, references)):
            verdict, item = (_prepare_math if self.task == "math" else _prepare_code)(response, reference)
            verdicts[i] = verdict
            if item is not None:
                hard.put((i, item))

        def serve():
            worker = self._idle.get()
            try:
                while True:
                    try:
                        i, item = hard.get_nowait()
                    except queue.Empty:
                        return
                    for _ in range(2):       # a worker that dies is replaced and the item tried once more: it may not be to blame
                        verdicts[i] = (0.0, "the worker could not be started")
                        if worker is None:
                            worker = _Worker(self.task)
                            if not isinstance(worker.ask(None, 60), dict):      # imports take about a second
                                worker = None
                                continue
                        reply = worker.ask(item, self.timeout)
                        if isinstance(reply, dict):
                            verdicts[i] = (1.0 if reply.get("right") is True else 0.0, str(reply.get("why", "")))
                            if reply.get("timeout"):
                                self._count_timeout()
                            if reply.get("last"):       # the worker ends itself after this one
                                worker.kill()
                                worker = None
                            break
                        worker = None
                        verdicts[i] = (0.0, "time-out" if reply == "timeout" else "the worker died (out of memory?)")
                        if reply == "timeout":
                            self._count_timeout()
                            break
            finally:
                if self._closed and worker is not None:
                    worker.kill()
                self._idle.put(worker)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(self.workers, hard.qsize()) - 1)]
        for thread in threads:
            thread.start()
        if hard.qsize():
            serve()
        for thread in threads:
            thread.join()
        return verdicts

    def _count_timeout(self):
        with self._lock:
            self.timeouts += 1

    def close(self):
        """End the workers. (They also end by themselves when this process does: their standard input closes.)"""
        self._closed = True
        while self._pid == os.getpid():
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                return
            if worker is not None:
                worker.process.stdin.close()
                worker.process.stdin = open(os.devnull)
                worker.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _prepare_math(response, gold):
    """((reward, why), None) where a glance decides, else (None, item for a worker)."""
    answer, gold = _offered(response), gold_answer(gold)
    if gold is None:
        return (0.0, "bad row: no gold answer"), None
    if answer is None:
        return (0.0, "no final answer"), None
    right = _quick(answer, gold)
    if right is None:
        return None, {"answer": answer, "gold": gold}
    return (float(right), f"{answer[:80]!r} {'is' if right else 'is not'} {gold[:80]!r}"), None


_shared = {}
_shared_lock = threading.Lock()


def _forget_shared():
    """In a forked child: the shared graders' workers, and a lock that another thread may have held, belong to the parent."""
    global _shared, _shared_lock
    _shared, _shared_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget_shared)


def _shared_grader(task):
    with _shared_lock:
        if task not in _shared:
            _shared[task] = Grader(task)
        return _shared[task]


def math_reward(response, gold):
    """1.0 if the final answer of `response` equals `gold`, else 0.0. Any thread, no exception, MATH_SECONDS at most."""
    try:
        verdict, item = _prepare_math(response, gold)
        return verdict[0] if item is None else _shared_grader("math").grade([response], [gold])[0]
    except Exception as error:
        print(f"verify.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 0.0


def math_worker():
    """Main loop of a math worker: one JSON line in, one out."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)           # nothing that a library prints may reach the pipe
    hard_limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MATH_MEMORY, MATH_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(3000)
    same_answer(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")           # imports, and builds the parser's tables
    out.write(b'{"ready": true}\n')
    for line in sys.stdin.buffer:
        item, reply = json.loads(line), {}
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + MATH_CPU_SECONDS + 1, hard_limit))
        try:
            reply["right"] = bool(same_answer(item["answer"], item["gold"]))
            reply["why"] = f"{item['answer'][:80]!r} {'is' if reply['right'] else 'is not'} {item['gold'][:80]!r}"
        except MemoryError:
            reply = {"right": False, "why": "out of memory", "last": True}
        except Exception as error:           # RecursionError, and whatever a parser raises on nonsense
            reply = {"right": False, "why": f"cannot compare ({type(error).__name__})"}
        out.write(json.dumps(reply).encode() + b"\n")
        if reply.get("last"):
            return


# ---------------------------------------------------------------------------------------------------------------------
# 6. Command line
# ---------------------------------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description="Grade a JSONL file: rows with `response` and `gold` (or `answer`), or `response` and tests.")
    parser.add_argument("file", help="JSONL")
    parser.add_argument("--workers", type=int, help="worker processes (default: one per core)")
    parser.add_argument("--timeout", type=float, help=f"wall-clock seconds for one item (default: {MATH_SECONDS} math, {CODE_SECONDS} code)")
    parser.add_argument("--show", type=int, default=50, help="how many failed rows to print (default 50)")
    parser.add_argument("--unsafe-exec", action="store_true", help="run programs even where this host cannot isolate them")
    options = parser.parse_args()

    rows, verdicts, jobs = [], {}, {"math": [], "code": []}
    with open(options.file, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            rows.append(number)
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or "response" not in row:
                    raise ValueError("no response")
                gold = row.get("gold", row.get("answer"))
                if gold is not None:
                    jobs["math"].append((number, row["response"], gold))
                else:
                    jobs["code"].append((number, row["response"], load_tests(row)))
            except ValueError as error:
                verdicts[number] = (0.0, f"bad row: {error}")

    started, timeouts = time.monotonic(), 0
    for task, items in jobs.items():
        if items:
            if task == "code":
                print("sandbox: " + sandbox_level()[1])
            try:
                grader = Grader(task, options.workers, options.timeout, options.unsafe_exec)
            except RuntimeError as error:
                sys.exit(str(error))
            with grader:
                verdicts.update(zip((number for number, _, _ in items), grader.explain([r for _, r, _ in items], [g for _, _, g in items])))
                timeouts += grader.timeouts
    seconds = time.monotonic() - started

    failed = [number for number in rows if verdicts[number][0] != 1.0]
    for number in failed[:options.show]:
        print(f"row {number}: {verdicts[number][1]}")
    if len(failed) > options.show:
        print(f"... and {len(failed) - options.show} more")
    right = len(rows) - len(failed)
    print(f"accuracy {right}/{len(rows)} = {right / max(1, len(rows)):.3f}   time-outs {timeouts}   "
          f"{len(rows) / max(seconds, 1e-9):.1f} items/s   {seconds:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        {"math": math_worker, "code": code_worker}[sys.argv[2]]()
    else:
        main()
