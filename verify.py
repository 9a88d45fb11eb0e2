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
import fcntl
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
MATH_SECONDS = 30           # one comparison; then the worker is killed (a usual one takes 1 to 30 milliseconds)
MATH_CPU_SECONDS = 3        # one comparison; what hangs runs into this first, and it does not depend on how busy the machine is
MATH_MEMORY = 1 << 30       # bytes of address space of one math worker
MAX_ANSWER = 1000           # characters; a longer answer counts only if it is the gold answer, letter by letter
MAX_DEPTH = 30              # nested brackets


# ---------------------------------------------------------------------------------------------------------------------
# 1. What is the answer?
# ---------------------------------------------------------------------------------------------------------------------

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
STATED = re.compile(
    r"\b(?:answers?|final (?:result|value|solution)|correct (?:option|choice))(?: to (?:the|this)(?: \w{1,20}){1,2}?)?[*_]{0,3}\s{0,9}"
    r"(?:(?:(?:is|are|equals)\b|(?:would|should|must|will) be\b|[:=])\s*:?\s*(?:(?:therefore|thus|then|simply|just|indeed|clearly)\b,?\s*)?"
    r"|(?=\$|\\[(\[]))"                                            # Answer $42$
    r"|^[#*_ ]{0,9}(?:the )?(?:final )?answer[*_: ]{0,9}\n\s*", re.IGNORECASE | re.MULTILINE)       # a heading, and the line below it


def final_answer(response):
    r"""The final answer that a response states, as text, or None.

    1. The content of the last \boxed{...} (braces may nest; \boxed 5 means \boxed{5}). If the last box was never closed,
       the response was cut off and has no answer.
    2. Without a box: what follows the last #### on its line.
    3. Without that: what follows the last "the answer is" (or "answer:", or such a heading), up to the end of the sentence.
    A number that merely stands last is no answer.
    """
    boxes = _boxes(response)
    if boxes is None or boxes:
        return boxes[-1][2] if boxes else None
    if not isinstance(response, str):
        return None
    response = response[-200_000:]
    if "####" in response:
        before, _, after = response.rpartition("####")
        line = after.strip().partition("\n")[0].strip().strip("*").strip()
        if not STATED.search("####" + after) or not re.search("[A-Za-z]{3}", line):      # else it is a heading of the fourth level
            return line or None
    at = None
    for at in STATED.finditer(response):
        pass
    if at is None:
        return None
    rest = response[at.end():at.end() + 2 * MAX_ANSWER].lstrip()
    display = re.match(r"\$\$\s*(.*?)\s*\$\$|\\\[\s*(.*?)\s*\\\]", rest, re.DOTALL)
    line = display[1] or display[2] or "" if display else rest.partition("\n")[0]
    # A sentence ends at a stop that is followed by a blank: 3.14 and x.y do not end one.
    line = re.split(r"[.!?](?:[\s*]|$)|,?\s+\(?(?:because|since|which|as|so)\s", line.strip(), maxsplit=1)[0].strip().strip("*").strip()
    sentence = re.fullmatch(r"[A-Z][^=]*\b(?:is|are|equals) ((?:[$\d\\(*-]|[A-Z]$).*)", line)       # Answer: The largest number is 34.
    if sentence and not re.search(r"\b(?:not|either|neither|or)\b", line):
        line = sentence[1].strip("* ")
    return line or None


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
    if boxes:
        gold = _offered(gold)
    return gold.strip() or None


# ---------------------------------------------------------------------------------------------------------------------
# 2. Are two answers the same? First what can be said at once, in the calling process.
# ---------------------------------------------------------------------------------------------------------------------

PLAIN_NUMBER = re.compile(r"([+-]?)((?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+))?(?:\.([0-9]*))?")


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
           "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "vee": "lor", "wedge": "land", "degree": "circ", "deg": "circ",
           "ldots": "dots", "cdots": "dots", "dotsc": "dots", "colon": ":", "R": "mathbb{R}", "reals": "mathbb{R}", "bar": "overline",
           "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "ast": "*", "isin": "in"}
DROPPED = {"left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl", "Biggr", "displaystyle",
           "textstyle", "scriptstyle", "therefore", "bf", "rm", "it", "em", "large", "Large", "LARGE", "huge", "small",
           "limits", "nolimits", "mathstrut", "middle", "hfill", "noindent", "mleft", "mright", "null"}
TEXTS = (r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|textup|textsc|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|mbox|hbox|operatorname"
         r"|bm|boldsymbol|underline|emph|ensuremath|color\{[a-z]+\}|textcolor\{[a-z]+\})\*?\s*(?=\{)")
MILLIONS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
NUMBER_WORDS = dict(zip("zero one two three four five six seven eight nine ten eleven twelve".split(), range(13)))


def clean(text):
    r"""One spelling for what LaTeX spells in many ways: sizes, spacing, fonts, \dfrac, 1{,}000, \frac12, a last full stop."""
    text = text.translate(SIGNS).strip()
    text = re.sub(r"^(?:\\q?quad(?![A-Za-z])|\\[,;:! ]|\s|~)+|(?:\\q?quad|\\\\|\\[,;:! ]?|\s|~)+$", "", text)
    text = re.sub(r"^(\*\*|`)([^*`]*)\1$", r"\2", text)
    for _ in range(4):          # $...$, \(...\), \[...\], {...} around everything
        text = re.sub(r"^(?:\$\$?|\\\(|\\\[)\s*(.*?)\s*(?:\$\$?|\\\)|\\\])\s*[.,;]?$", r"\1", text, flags=re.DOTALL)
        if text.startswith("{") and _closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1].strip()
    text = re.sub(r"(?<!\\)\\\\(?=(?:left|right|[dt]?frac|sqrt|text|pi|cdot|times|leq?|geq?|cup|infty|in|pm|circ)(?![A-Za-z]))", r"\\", text)       # \\frac: escaped twice
    # \$ is money, $ is a delimiter; then commands get one name each, and all fonts become \text
    text = re.sub(r"\\?\$", lambda m: r"\text{dollar }" if m.group() == r"\$" else "", text) if not re.match(r"\$[\d.,]+$", text) else text
    text = text.replace(r"\%", "%").replace(r"\#", "#").replace(r"\&", "&").replace(r"\_", "_")
    text = re.sub(r"&(lt|gt|le|ge);", lambda m: {"lt": "<", "gt": ">", "le": r"\leq ", "ge": r"\geq "}[m[1]], text)
    text = re.sub(r"\\([A-Za-z]+)(?![A-Za-z])", lambda m: "" if m[1] in DROPPED else (
        RENAMED[m[1]] if len(RENAMED.get(m[1], "")) == 1 and m[1] not in ("lbrace", "rbrace") else "\\" + RENAMED.get(m[1], m[1])), text)
    text = re.sub(r"\\bigl?|\\bigr?", "", text)
    text = re.sub(TEXTS, lambda _: r"\text", text)
    text = re.sub(r"\\text ?\{([ .:]*)\}", lambda m: " " + m[1].strip(" .") + " ", text)
    text = re.sub(r"\\text ?\{ ?([ei]) ?\}", r"\1", text)
    text = re.sub(r"\\mathbb ([A-Z])", r"\\mathbb{\1}", text)
    text = re.sub(r"(?<=[^\s,]),? *(?:\\text ?\{ ?)?(?<![A-Za-z])for (?:all|any|every|each)(?![A-Za-z])[^,;=]*$", "", text)         # f(x) = 2x for all x
    text = re.sub(r"^\\text ?\{ ?(?:the |my )?(?:final )?answer(?: is)? ?:? ?(?:\}|(?=[^{}]*\}$))", lambda m: "" if m.group().endswith("}") else r"\text{", text, flags=re.IGNORECASE)
    text = re.sub(r"^(?:the )?(?:final )?answer(?: is)? ?[: ] ?(?=[^:])", "", text, flags=re.IGNORECASE)
    # 1.5x10^3, 3 million
    text = re.sub(r"(\d) ?x ?(?=10 ?\^)", r"\1\\times ", text)
    text = re.sub(r"(\d)((?: |\\[ ,;]|~)*\\text\{ ?|(?: |\\[ ,;]|~)+)(thousand|million|billion|trillion)(?![a-z])( ?\})?", lambda m: m[1] + rf"\times 10^{{{MILLIONS[m[3]]}}}"
                  + (r"\text{" if "{" in m[2] and not m[4] else "") + ("}" if m[4] and "{" not in m[2] else ""), text)
    # Thousands: 1,000  1{,}000  1\,000  1 000, in groups of exactly three. "1, 000" and "12,34" are lists.
    group = r"(?:\{,\}|,\\! ?|\\[,;: ] ?|,|~|[ ])"
    text = re.sub(rf"(?<![\d.,])(?<!\d[ ~])([1-9]\d{{0,2}})((?:{group}\d{{3}})+)(?![\d])(?!,\d)(?!{group}\d)", _join_thousands, text)
    text = text.replace(r"{,}", ",")
    # Blanks and line breaks: \\ and \quad separate answers, other blanks are one blank
    text = re.sub(r"\\\\(?:\[[^\]]*\])?", r" \\newline ", text)
    if r"\begin" not in text and "quad" in text:
        word = r"\\text ?\{ ?(?:and|or|,)? ?\}|\\(?:lor|land|newline)(?![A-Za-z])|[,;:=<>]"
        text = re.sub(rf"({word}) *(?:\\q?quad(?![A-Za-z])\s*)+", r"\1 ", text)
        text = re.sub(rf"(?:\\q?quad(?![A-Za-z])\s*)+(?={word}|\\text|\(?\\b?mod|$)", " ", text)
        text = re.sub(r"\\q?quad(?![A-Za-z])", " , ", text)
    text = re.sub(SPACE + "+", " ", text)
    text = re.sub(r"\\dots(?![A-Za-z])", "...", text)
    # Degrees; subscripts; the short forms \frac12, \sqrt2, sqrt(2), pi
    text = re.sub(r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z])|\{? ?\\text\{o\} ?\}?)|\\circ(?![A-Za-z])$", r"\\text{ degree}", text)
    text = re.sub(r"_ ?(\d+|[A-Za-z](?![A-Za-z]))", r"_{\1}", text)
    text = re.sub(r"(\\text\{ degree\}) ?([CFK])(?![A-Za-z])", r"\1\\text{\2}", text)
    text = re.sub(r"\\text ?\{(\\text\{dollar \}[^{}]*)\}", r"\1", text)
    text = re.sub(r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac ?(\d) ?\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\frac ?(\\pi|[a-z]) ?(?=\d|\{)", r"\\frac{\1}", text)
    text = re.sub(r"\\frac ?(\{[^{}]*\}) ?(\d|[a-z]|\\pi)(?![a-z])", r"\\frac\1{\2}", text)
    text = re.sub(r"\\exp ?(?:\(([^()]*)\)|\{([^{}]*)\})", lambda m: f"e^{{{m[1] or m[2]}}}", text)
    text = re.sub(r"\\sqrt ?(\d+|[a-z])", lambda m: r"\sqrt{" + m[1][0] + "}" + m[1][1:], text)
    text = re.sub(r"\\binom ?(\d|[a-z](?![a-z])) ?(\d|[a-z](?![a-z]))", r"\\binom{\1}{\2}", text)
    text = re.sub(r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\])(pi|infty|infinity|inf|oo)(?![A-Za-z])", lambda m: r"\pi " if m[1] == "pi" else r"\infty ", text)
    text = re.sub(r"\\text\{ ?[Ii]nfinity ?\}", r"\\infty ", text)
    # Signs as programmers type them, and the full stop or comma of the sentence around the answer
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
    separators = set(re.findall(r"\{,\}|,\\!|\\[,;: ]|,|~|[ ]", re.sub(r"(\\[,;:!]) ", r"\1", match[2])))
    before, after = match.string[:match.start()], match.string[match.end():]
    if "," in separators and sum(before.count(o) - before.count(c) for o, c in ("()", "[]")) + before.count("\\{") - before.count("\\}") > 0:
        # (1,200) has two elements, and so has [100,200]; {1,000, 2,000} has two as well, for there a blank separates
        if not re.search(r", |, *\\|,~", before + after):
            return match[0]
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
    if re.fullmatch(r"\\mathbb ?\{?R\}?|\\text\{ ?(?:all )?real numbers? ?\}|\\text\{ ?all reals ?\}|all real numbers", text):
        return ("reals", REALS, None)
    if re.fullmatch(r"\\emptyset|\\\{ ?\\\}|\\text\{ ?[Nn]o (?:real )?solutions? ?\}|[Nn]o (?:real )?solutions?|\\text\{ ?(?:the )?empty set ?\}", text):
        return ("set", [])
    whole = re.fullmatch(r"\\text\{(.*)\}", text, re.DOTALL)
    if whole and _closing_brace(text, 5) == len(text) - 1:
        inner = whole[1].strip()
        if re.fullmatch(r"[A-Z](?: ?[,;] ?[A-Z])+", inner) or re.search(r"[\d=<>\\]", inner) and not re.search(r"[A-Za-z]{3,}.*[A-Za-z]{3,}.*[A-Za-z]{3,}", inner) or OR.search(inner) or AND.search(inner):
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
        if all(node[0] == "list" and all(inner[0] == "named" for inner in node[1]) for node in nodes):       # x = 1, y = 2 or x = 2, y = 1
            nodes = [("tuple", [inner[2] for inner in node[1]]) for node in nodes]
        node = _list(nodes)
        return ("set", node[1]) if node[0] == "list" else node              # "2 or 5" is not the point (2,5)
    parts = _split(text, CUP)
    if len(parts) > 1:
        nodes = [_as_reals(parse_answer(part)) for part in parts]
        return ("reals", sum((node[1] for node in nodes), []), None) if all(nodes) else ("value", text)
    parts = _split(text, MINUS_SET)
    if len(parts) == 2:
        left, right = parse_answer(parts[0]), parse_answer(parts[1])
        if left == ("reals", REALS, None) and right[0] == "set":
            return _punctured([node[1] for node in right[1]], None)
        right = _as_reals(right)
        if left == ("reals", REALS, None) and right and len(right[1]) == 1:
            low, low_open, high, high_open = right[1][0]
            return ("reals", [piece for piece in (("-\\infty", True, low, not low_open), (high, not high_open, "\\infty", True)) if piece[0] != piece[2]], None)
        return ("value", text)
    parts = _split(text, AND)
    if len(parts) > 1 and all(parts):
        nodes = [parse_answer(part) for part in parts]
        both = _intersection(nodes)
        return both or _list(nodes)
    groups = _split(text, re.compile(";"))
    if len(groups) > 1:         # p = 5, q = 2; p = 7, q = 2 are two points
        points = [[parse_answer(part) for part in _split(group, COMMA)] for group in groups]
        if all(len(point) == len(points[0]) > 1 and all(node[0] == "named" for node in point) for point in points):
            return _list([("tuple", [node[2] for node in point]) for point in points])
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

    bracket = re.fullmatch(r"(\\\{|\\langle|[(\[\]])(.*)(\\\}|\\rangle|[)\[\]])(\^ ?\{? ?(?:T|\\top|\\text\{T\}) ?\}?)?", text, re.DOTALL)
    if bracket and _encloses(text, bracket[1], bracket[3] + (bracket[4] or "")):
        opening, inside, closing = bracket[1], bracket[2].strip(), bracket[3]
        parts = _elements(inside)
        if opening == "\\{":
            such_that = re.match(r"([A-Za-z]) ?(?:\\in ?\\mathbb\{R\} ?)?[|:](.*)", inside, re.DOTALL)
            if such_that:
                return parse_answer(such_that[2])
            nodes = [parse_answer(part) for part in parts]
            return ("set", [inner for node in nodes for inner in (node[1] if node[0] == "list" else [node])])
        if len(parts) == 1 and opening == "(" and closing == ")":
            return parse_answer(parts[0])
        if len(parts) == 1 and opening == "[":
            return ("tuple", [parse_answer(parts[0])]) if closing == "]" else ("none",)
        if len(parts) == 2 and opening != "\\langle" and (opening, closing) != ("(", ")"):
            return ("reals", [(parts[0], opening != "[", parts[1], closing != "]")], None)
        if (opening, closing) in (("(", ")"), ("[", "]"), ("\\langle", "\\rangle")) and all(parts):
            return ("tuple", [parse_answer(part) for part in parts])
        return ("none",)

    time_of_day = re.fullmatch(r"(\d{1,2}) ?(?:: ?(\d\d))? ?(?:\\text ?\{)? ?([ap])\.? ?m\.? ?\}?", text, re.IGNORECASE)
    if time_of_day:
        return ("time", int(time_of_day[1]), int(time_of_day[2] or 0), time_of_day[3].lower())
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
    """The elements between brackets."""
    return _split(inside, COMMA) if inside else []


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
        number = _unit(sides[-1])[0]
        if not re.search(r"[A-Za-z]", _bare("".join(sides[:-1]) + number)):
            same = sides[0].replace(" ", "") != sides[-1].replace(" ", "") and all(same_value(side, number, strict=False) for side in sides[:-1])
            return parse_answer(sides[-1]) if same else ("none",)
        if len(sides) == 2 and not re.search(r"\d", re.sub(r"_(?:\d|\{[^{}]*\})", "", sides[0])) and not re.search(r"[A-Za-z]", _bare(sides[1])):
            return ("named", _name(sides[0]), parse_answer(sides[1]))          # m + n = 5
        return ("equation", sides) if len(sides) == 2 else ("none",)
    if operators in (["\\approx"], ["=", "\\approx"]) and re.fullmatch(r"-?\d*\.\d+", _unit(sides[-1])[0]):
        value, decimal = sides[-2:]
        if len(sides) == 2 and (not value or NAME.fullmatch(value) and not OPERATOR_NAMES.match(value)):        # x = 2.37, or so
            return parse_answer(decimal)
        if (len(sides) == 2 or NAME.fullmatch(sides[0])) and _rounds_to(value, _unit(decimal)[0]):
            return ("either", parse_answer(value), parse_answer(decimal))
        return ("none",)
    order = [operator for operator in operators if operator in ("<", ">", "\\leq", "\\geq")]
    if len(order) == len(operators) and all(sides):
        absolute = _absolute(sides, operators)
        if absolute:
            return absolute
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


def _absolute(sides, operators):
    """|x| < 2, |x - 1| >= 2 and 1 < |x| < 2 as sets of reals, if the numbers are literals; else None."""
    at = [i for i, side in enumerate(sides) if side[:1] == "|" == side[-1:] and side.count("|") == 2]
    if len(at) != 1 or len(sides) > 3 or len(sides) == 3 and at != [1]:
        return None
    inside = re.fullmatch(r"([A-Za-z]) ?(?:([+-]) ?(.+))?", sides[at[0]][1:-1].strip())
    centre = exact(inside[3]) if inside and inside[3] else (Fraction(0), 0)
    bounds = {}                 # "high": (value, open), as |x| < value or |x| > value
    for i, side in enumerate(sides):
        if i != at[0]:
            value, operator = exact(side), operators[min(i, at[0])]
            if value is None or value[0] <= 0:
                return None
            bounds["high" if (operator in ("<", "\\leq")) == (i > at[0]) else "low"] = value[0], operator in ("<", ">")
    if not inside or centre is None or len(bounds) != len(sides) - 1:
        return None
    middle = centre[0] * (1 if inside[2] == "-" else -1)
    high, high_open = bounds.get("high", (None, True))
    if "low" not in bounds:
        return ("reals", [(str(middle - high), high_open, str(middle + high), high_open)], inside[1])
    low, low_open = bounds["low"]
    ends = ("-\\infty", "\\infty") if high is None else (str(middle - high), str(middle + high))
    return ("reals", [(ends[0], high_open, str(middle - low), low_open), (str(middle + low), low_open, ends[1], high_open)], inside[1])


def _rounds_to(value, decimal):
    """Whether an exact value is, to its last digit, about the decimal that follows it."""
    number = None if HUGE.search(value) else symbolic(_unit(value)[0])
    if number is None or not hasattr(number, "evalf") or number.free_symbols:
        return False
    gap = abs(number.evalf(30) - symbolic(decimal).evalf(30))
    return bool(gap.is_Float or gap.is_zero) and bool(gap * 10 ** len(decimal.partition(".")[2]) <= 1)


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
    one, other = (re.sub(r"(?<=[\^_])\{(\w)\}", r"\1", re.sub(r"\s", "", text)) for text in (answer, gold))
    if one == other and not re.search(r"\d \d", answer + "|" + gold):
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
    if a[0] == "either":
        return any(same(node, g) for node in a[1:])
    if g[0] == "either":
        return any(same(a, node) for node in g[1:])
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
            # "x > 1, x < 2" means both, "x < 1, x > 2" means either; only one of the two can be what is asked for
            whole = ("reals", sum((node[1] for node in other[1]), []), other[1][0][2])
            return any(same(*((joined, g) if other is a else (a, joined))) for joined in (_intersection(other[1]), whole) if joined)
        return False

    if a[0] == "matrix" or g[0] == "matrix":
        if a[0] == "matrix" == g[0]:
            return [len(row) for row in a[1]] == [len(row) for row in g[1]] and all(same(x, y) for r, s in zip(a[1], g[1]) for x, y in zip(r, s))
        vector, other = (a, g) if a[0] == "matrix" else (g, a)
        if other[0] == "tuple" and all(len(row) == 1 for row in vector[1]):        # a column vector written as a point
            return len(vector[1]) == len(other[1]) and all(same(x[0], y) for x, y in zip(vector[1], other[1]))
        return False
    if "time" in (a[0], g[0]):
        return _same_time(a, g)
    if a[0] == "ratio" or g[0] == "ratio":
        return _same_ratio(a, g)

    if a[0] == "tuple" and g[0] == "tuple":
        return len(a[1]) == len(g[1]) and all(same(x, y) for x, y in zip(a[1], g[1]))
    if a[0] in ("list", "set") and g[0] in ("list", "set"):
        if a[0] == "set" == g[0] or len(a[1]) > len(g[1]):         # {1, 1} is {1}; said twice, an answer is one answer
            a, g = _distinct(a), _distinct(g) if g[0] == "set" else g
        return _match(a[1], g[1], same)
    if g[0] == "list" and a[0] == "value" and re.fullmatch(r"(?:\\text\{ ?)?[A-Z]{2,}(?: ?\})?", a[1]):     # ACD and A, C, D
        return sorted(re.sub(r"\\text|\W", "", a[1])) == sorted(node[1] for node in g[1] if node[0] == "value" and re.fullmatch("[A-Z]", node[1])) and len(set(a[1])) == len(a[1])
    # Bare values stand for a tuple in its order, and a tuple for bare values: x = 3, y = 4 and (3, 4).
    if {a[0], g[0]} == {"list", "tuple"}:
        plain = [[node[2] if node[0] == "named" else node for node in side[1]] for side in (a, g)]
        return len(plain[0]) == len(plain[1]) and all(same(x, y) for x, y in zip(*plain))
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
    if len(node[1]) > 50:       # _match will not have it
        return node
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


def _same_time(a, g):
    """3:30 p.m. is 3:30, and 15:30; it is not 3:30 a.m."""
    clocks = []
    for node in (a, g):
        if node[0] == "time":
            clocks.append(({(node[1], node[2]), (node[1] % 12 + 12 * (node[3] == "p"), node[2])}, node[3]))
        else:
            parts = node[1] if node[0] == "ratio" else [node[1], "00"] if node[0] == "value" else [""]
            if len(parts) != 2 or not all(re.fullmatch(r"\d{1,2}", part) for part in parts):
                return False
            clocks.append(({(int(parts[0]), int(parts[1]))}, None))
    (one, half), (other, other_half) = clocks
    return bool(one & other) and (half == other_half or None in (half, other_half))


def _same_ratio(a, g):
    if any(re.fullmatch(r"0\d", part) for node in (a, g) if node[0] == "ratio" for part in node[1]):      # 9:05 is a time
        return a == g or a[0] == g[0] == "ratio" and [re.sub("^0", "", a[1][0])] + a[1][1:] == [re.sub("^0", "", g[1][0])] + g[1][1:]
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
    one, other = sides
    return all(same_value(rf"({x})\cdot({other[0]})", rf"({y})\cdot({one[0]})", strict=False) for x, y in zip(one, other))


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
              "at most least than more less about approximately around nearly roughly almost over under up only exactly incorrect false no none any every some "
              "etc vs versus other others something anything everything nothing whatever unknown undefined infinite "
              "thousand million billion trillion hundred dozen half third quarter score grade".split())


def _unit(text):
    """A text without its unit, and the unit as (factor, {basic unit: power}), or None where there is no unit."""
    words, rest = [], text
    if len(text) > 200:
        return text, None
    money = re.match(r"(-?) ?(?:\\text\{ ?(dollar|euro|pound|USD) ?\}|\$|USD(?= )) ?(?=[-\d.\\(])", rest)
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
    if not rest.strip() or not phrase or phrase[0] in "^/" or UNFINISHED["function"].search(rest) or re.search(r"[a-z]", _bare(rest)) and not money:
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
    if rest and re.match(r"(?:or|and)(?![A-Za-z])|[\^_+*/=<>,;&|]|\(? ?[A-Z] ?\)|[A-Z]$|\\(?:cdot|times|cup|in)|-\D", rest):
        return None                                          # (x)^2 is no choice
    return match[1] or match[3], rest, bool(match[1] or match[4] is not None or "text" in text or plain != text)


def _words(text):
    """A text answer in lower case without quotes and punctuation, or None if it is no text."""
    wrapped = "\\text" in text
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_=<>{}+*/?]", plain) or not re.search(r"[^\W\d]", plain):
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
    if re.search(r"\d ?\\frac", g):            # 2 + 1/2 says the mixed number
        a = re.sub(r"^(\d+) ?\+ ?(?=\\frac ?\{\d+\} ?\{\d+\}$)", r"\1 ", a)
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
    if strict and any(pattern.search(a) and not pattern.search(g) for pattern in (UNFINISHED["tower"], re.compile(r"^[-+] ?\( ?[-+]"))):
        return False
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
    if not text.isascii():                  # int() would read the digits of every script
        return None
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
    nested = re.match(r" ?\^ ?\{(?=[^{}]*\^)", rest)
    if nested:                                              # 2^{2^3}
        end = _closing_brace(rest, nested.end() - 1)
        inner = _signed(rest[nested.end():end]) if end else (0, 0, "?")
        if inner[2].strip() or inner[0].denominator != 1 or abs(inner[0]) >= 1_000_000:
            raise ValueError
        rest = f"^{{{inner[0]}}}" + rest[end + 1:]
    exponent = re.match(r" ?\^ ?(?:\{ ?([+-]?\d{1,6}) ?\}|\(([+-]?\d{1,6})\)|([+-]?\d{1,6}))(?!\d)", rest)
    if exponent and not rest[exponent.end():].lstrip().startswith("^"):
        exponent, rest = int(exponent[1] or exponent[2] or exponent[3]), rest[exponent.end():]
        if value == 0 and exponent <= 0:
            raise ValueError("0^0")
        if abs(exponent) * max(value.numerator.bit_length(), value.denominator.bit_length()) > 400_000:
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
    "sum": re.compile(r"(?<=[\w)}\]!#]) ?[+-](?! ?\\infty)"),
    "product": re.compile(r"(?<=[\d})!]) ?(?:\\cdot|\\times|\*) ?(?=\d|\(|\\frac|-)(?!10 ?\^)|# ?(?:\\cdot|\\times|\*)? ?#|\) ?\(|\d ?\("),
    "division": re.compile(r"\\div(?![A-Za-z])"),
    "tower": re.compile(r"\^ ?(?:\{[^{}]*|[\d.]+ ?|\([\d.]+\) ?)\^"),
    "function": re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+|sinh|cosh|tanh|exp|max|min|gcd|lcm|det|Re|Im|arg|operatorname|bmod|pmod|mod)(?![A-Za-z])"),
    "logarithm": re.compile(r"\\(?:ln|log|lg)(?![A-Za-z])"),
    "sum sign": re.compile(r"\\(?:sum|prod|int|iint|oint|lim|sup|inf)(?![A-Za-z])"),
    "factorial": re.compile(r"!|\\(?:binom|choose)(?![A-Za-z])"),
    "rounding": re.compile(r"\\(?:lfloor|lceil|rfloor|rceil)(?![A-Za-z])|\||\\mid"),
}


# Numbers that no one has worked out: exponents of six digits, towers of numbers, factorials of factorials or of large numbers.
HUGE = re.compile(r"\^ ?[{(]* ?-?\d{6}|\^ ?(?:\d+|\{ ?\d+ ?\}|\( ?\d+ ?\)|[{(]+ ?\d+ ?\)?) ?\^ ?[{(]* ?\d|\d{5} ?[)}]* ?!|! ?\)? ?!|\\binom ?\{ ?\d{5}|\^ ?[{(]+[^a-z]*\d\^[^a-z]*\^")
ROOT = re.compile(r"\\sqrt ?(?:\[\d\])? ?\{[^{}]*\}|\(?\d+\)? ?\^ ?\{? ?(?:\\frac ?\{\d+\} ?\{\d+\}|\d+/\d+|0?\.\d+) ?\}?")
UNTYPICAL = re.compile(r"\\(?:[hv]?phantom|cancel|b?x?cancel|sout|color|colorbox|rule|input|include|write|def|let|newcommand|href|tag|label|verb|begin|end)(?![A-Za-z])")


def _same_expression(a, g, a_exact, g_exact, strict):
    """Two expressions that are not both number literals."""
    if re.search(r"\d \d|[?#@]|\.\.\.|\\(?:pm|mp)(?![A-Za-z])|(?<![\d.])0 ?\^ ?\{? ?0(?![\d.])", a) or not a.isascii() or UNTYPICAL.search(a):
        return False
    if re.fullmatch(r"[A-Za-z]", a) and re.fullmatch(r"[A-Za-z]", g):
        return a == g
    if any(set(re.findall(part, a)) - set(re.findall(part, g)) for part in (r"\\text ?\{(?! ?degree ?\})[^{}]*\}", "'", r"\\frac ?\{ ?d ?\}", r"[-+] ?[-+]", r"[\d})] ?_", "mod")):
        return False            # words, primes, derivatives, double signs, subscripts of numbers and moduli that the gold answer has not
    if UNFINISHED["sum sign"].search(a) and not UNFINISHED["sum sign"].search(g):
        return False
    if strict and not re.search(r"[A-Za-z]", _bare(g)):
        # a root times a number is fine, and so is a number times a sum where the gold answer is a sum
        one, other = (ROOT.sub("#", text) for text in (a, g))
        if not g_exact and UNFINISHED["sum"].search(other):
            one = re.sub(r"(?<=[\d}]) ?(?:\\cdot ?|\\times ?|\* ?)?(?=\([^()]*[+-][^()]*\))", ",", one)
        if any(pattern.search(one) and not pattern.search(other) for pattern in UNFINISHED.values()):
            return False
        # a root of a perfect square (or cube) that the gold answer has worked out
        if g_exact and g_exact[1] < 6 and ("\\sqrt" in a or ROOT.search(a)):
            return False
    if HUGE.search(a) or HUGE.search(g):
        return False
    left, right = symbolic(a), symbolic(g)
    if left is None or right is None:
        return False
    from sympy import Expr, I, Symbol
    i = Symbol("i", real=True)
    if isinstance(left, Expr) and isinstance(right, Expr) and right.has(i) and not UNFINISHED["sum sign"].search(g):
        left, right = left.xreplace({i: I}), right.xreplace({i: I})
    return _equal(left, right, a_exact, g_exact)


def symbolic(text):
    """A sympy expression for LaTeX, by math-verify's parser; None if it finds none. Decimals become fractions: no rounding."""
    from math_verify import LatexExtractionConfig, parse
    text = re.sub(r"(?<![\d.^_])(\d*)\.(\d+)(?!\d*\.)", lambda m: rf"\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}", text)
    text = re.sub(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)? ?)[({]? ?([\d{}\\frac]+) ?\\text ?\{ ?degree ?\} ?[)}]?", r"\1{(\2\\cdot\\frac{\\pi}{180})}", text)
    text = re.sub(r"\\text ?\{ ?degree ?\}", "", text)
    text = re.sub(r"(?<![A-Za-z\\])([A-Za-z]) (?=[A-Za-z](?![A-Za-z]))", r"\1\\cdot ", text)
    text = re.sub(r" (?![A-Za-z])|(?<![A-Za-z]) ", "", text)           # the parser trips over some blanks
    parsed = parse("$" + text + "$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)
    if not parsed or isinstance(parsed[0], str):
        return None
    # The parser knows more about some symbols than about others; here one letter is one symbol.
    from sympy import Basic, Symbol
    names = {s: Symbol(s.name, real=True) for s in parsed[0].free_symbols} if isinstance(parsed[0], Basic) else {}
    return parsed[0].xreplace({s: t for s, t in names.items() if s != t}) if names else parsed[0]


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
    if left == right:
        return _near(left, right) if not left.free_symbols else True
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
    from sympy import Float, nan, zoo
    x, y = x.doit(), y.doit()
    if x == y:
        return x not in (nan, zoo)
    if x.is_Rational and y.is_Rational or x.is_infinite or y.is_infinite:
        return False
    x, y = x.evalf(80), y.evalf(80)
    gap, size = abs(x - y).evalf(20), abs(y).evalf(20)
    return bool((gap.is_Float or gap.is_zero) and (size.is_Float or size.is_zero) and gap <= size * Float("1e-50"))


def _approximates(left, left_literal, right, right_literal):
    """A decimal of six places or more and the irrational number that rounds to it."""
    for value, literal, other, other_literal in ((left, left_literal, right, right_literal), (right, right_literal, left, left_literal)):
        if literal and not other_literal and literal[1] >= 6 and literal[1] < 40 and len(str(abs(literal[0].numerator))) >= 5:
            gap = abs(other.evalf(50) - value.evalf(50))
            if gap.is_Float and gap * 2 * 10 ** literal[1] <= 1 and not other.doit().is_Rational:
                return True
    return False


# ---------------------------------------------------------------------------------------------------------------------
# 4. Programs
#
# Three processes: the caller (training), a warm code worker that has locked itself away and forks one judge per item,
# and the candidate: a fresh interpreter, locked away further, that knows the program but none of the tests. For
# stdin/stdout tests the judge runs the candidate once per test and compares what it printed. For function tests the
# judge evaluates the assertions itself, and where they call the candidate's functions, it sends the arguments down a
# pipe and gets plain data back. So the candidate can lie about a value, but never about whether a value is right.
# ---------------------------------------------------------------------------------------------------------------------

CODE_SECONDS = 60               # one item, all its tests
WAIT_SECONDS = 10               # for an idle worker; then another one is started
TEST_SECONDS = 5                # CPU seconds of one stdin test, or of all calls of a function item; twice that and 2 by the wall clock
PROGRAM_MEMORY = 1024           # MiB resident
MAX_MEMORY = 4096               # MiB: no row may ask for more
MAX_PROGRAM = 100_000           # bytes of source
MAX_OUTPUT = 1 << 20            # bytes of output beyond twice the expected output
MAX_REPLY = 16 << 20            # bytes of one value from the candidate
SCRATCH = 64                    # MiB in the candidate's /tmp


def last_program(response):
    """The source in the last ```python block (also ```py, ```python3), or None. A block that was never closed is no program."""
    if not isinstance(response, str):
        return None
    program, block = None, None
    for line in re.split(r"\r\n|\n|\r", response):            # not splitlines: a form feed or U+2028 in a string ends no line
        mark = line.strip()
        if block is None:
            fence = re.match(r"(\s*(?:(?:[>*-]|\d+[.)]) )?\s*)(`{3,}|~{3,})\s*([\w+-]*)", line)
            if fence and "`" not in line[fence.end(2):]:
                block, ticks, indent = [], fence[2], len(fence[1].expandtabs())
                python = fence[3].lower() in ("python", "py", "python3")
        elif mark.startswith(ticks) and not mark.strip(ticks[0]) and not (len(line) - len(line.lstrip()) > indent + 3 and _in_docstring(block)):
            if python:
                program = "\n".join(block) + "\n"
            block = None
        elif mark.endswith(ticks) and mark.strip(ticks[0]) and "`" not in mark[:-len(ticks)] and "~" not in mark:       # the fence stuck to the last line
            block.append(line.rstrip()[:-len(ticks)])
            if python:
                program = "\n".join(block) + "\n"
            block = None
        else:
            line = line.expandtabs(8) if indent and line[:indent].strip(" \t") == "" and "\t" in line[:indent] else line
            block.append(line[indent:] if not line[:indent].strip() else line)
    if block is not None and python:
        return None                     # cut off inside the program
    return program


def _in_docstring(lines):
    """Whether a triple-quoted string is open after these lines."""
    return any(sum(line.count(quotes) for line in lines) % 2 for quotes in ('"""', "'''"))


def load_tests(row):
    """The tests of a row in one form; ValueError, saying what is wrong, if there are none or they are malformed.

    Takes a dict (or its JSON) with `inputs` and `outputs`, or with `test_list`, or with `test` and `entry_point`, or with a
    list of {input, output} under `tests`, `test_cases`, `official_tests`, `public_tests` or `examples`; or such a list
    itself, or a list of assertions, or one text of them. Optional: time_limit (CPU seconds), memory_limit (MiB), test_setup_code, test_imports, prompt.
    """
    if isinstance(row, (str, bytes)):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError):
            row = {"test": row}
    if isinstance(row, dict) and row.get("kind") in ("stdin", "assert") and "seconds" in row:
        return row
    if isinstance(row, (list, tuple)):
        row = {"test_list": row} if row and all(isinstance(test, str) for test in row) else {"tests": row}
    if not isinstance(row, dict):
        raise ValueError(f"tests are {type(row).__name__}, not a dict or a list")

    tests = {"seconds": _limit(row, "time_limit", TEST_SECONDS), "memory": min(math.ceil(_limit(row, "memory_limit", PROGRAM_MEMORY)), MAX_MEMORY)}
    if row.get("test_list") is not None:
        return {**tests, "kind": "assert", **_load_assertions(row)}
    if row.get("test") is not None and not isinstance(row["test"], (dict, list)):
        return {**tests, "kind": "assert", **_load_check(row)}
    if "inputs" in row or "outputs" in row or isinstance(row.get("input"), list):
        ins, outs = (row.get(name + "s", row.get(name)) for name in ("input", "output"))
        if row.get("fn_name") is not None:
            return {**tests, "kind": "assert", **_load_calls(row["fn_name"], ins, outs)}
        if not isinstance(ins, (list, tuple)) or not isinstance(outs, (list, tuple)):
            raise ValueError("inputs and outputs must both be lists")
        if len(ins) != len(outs):
            raise ValueError(f"{len(ins)} inputs but {len(outs)} outputs")
        return {**tests, "kind": "stdin", "cases": _load_cases(zip(ins, outs))}
    for name in ("tests", "test_cases", "input_output", "official_tests", "private_tests", "public_tests", "examples", "test"):
        inner = row.get(name)
        if inner is None or inner == [] and name != "tests":
            continue
        if isinstance(inner, (str, bytes)):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                return load_tests({**{k: v for k, v in row.items() if k != name}, "test": inner})
        if isinstance(inner, dict):
            return load_tests({"time_limit": row.get("time_limit"), "memory_limit": row.get("memory_limit"), "prompt": row.get("prompt"), **inner})
        if not isinstance(inner, (list, tuple)) or not inner:
            raise ValueError(f"{name} is empty or no list")
        if all(isinstance(test, str) for test in inner):
            return load_tests({**{k: v for k, v in row.items() if k != name}, "test_list": inner})
        pairs = []
        for test in inner:
            if isinstance(test, dict) and "input" in test and "output" in test:
                pairs.append((test["input"], test["output"]))
            elif isinstance(test, (list, tuple)) and len(test) == 2:
                pairs.append(test)
            else:
                raise ValueError(f"a test in {name} is not {{input, output}}: {str(test)[:80]}")
        return {**tests, "kind": "stdin", "cases": _load_cases(pairs)}
    raise ValueError("no tests: no inputs/outputs, no test_list, no test with entry_point")


def _limit(row, name, default):
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, str) and (number := re.fullmatch(r" *(\d+\.?\d*) *(?:s|seconds?|MB|MiB|megabytes)? *", value)):
        value = float(number[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {str(value)[:40]!r}, not a positive number")
    return value


def _load_cases(pairs):
    cases = []
    for given, expected in pairs:
        case = []
        for text in (given, expected):
            if isinstance(text, (list, tuple)) and all(isinstance(line, str) for line in text):
                text = "\n".join(text)
            if not isinstance(text, str):
                raise ValueError(f"an input or output is {type(text).__name__}, not text")
            case.append(text)
        cases.append(case)
    if not cases:
        raise ValueError("no tests: inputs and outputs are empty")
    if not any(expected.strip() for _, expected in cases):
        raise ValueError("no test expects any output")
    return cases


def _parse_tests(code, what):
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{what} is no Python: {error}") from None
    return tree


def _asserts(node):
    return isinstance(node, ast.Assert) or isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert")


def _text_or_lines(value, name):
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}, not text")
    return value


def _load_assertions(row):
    assertions = row["test_list"]
    if isinstance(assertions, str):
        try:
            assertions = json.loads(assertions)
        except (ValueError, RecursionError):
            assertions = [assertions]
    if not isinstance(assertions, (list, tuple)) or not assertions:
        raise ValueError("test_list is empty or no list")
    for test in assertions:
        if not isinstance(test, str):
            raise ValueError(f"a test in test_list is {type(test).__name__}, not text")
        tree = _parse_tests(test, "a test in test_list")
        if not any(map(_asserts, ast.walk(tree))):
            raise ValueError(f"a test in test_list asserts nothing: {test[:80]!r}")
        if not any(isinstance(node, ast.Call) for node in ast.walk(tree)):
            raise ValueError(f"a test in test_list calls nothing: {test[:80]!r}")
    setup = "\n".join(_text_or_lines(row.get(name), name) for name in ("test_imports", "test_setup_code"))
    _parse_tests(setup, "test_setup_code")
    entry = row.get("entry_point")
    return {"setup": setup, "code": list(assertions), "entry": entry if isinstance(entry, str) else None, "prompt": _text_or_lines(row.get("prompt"), "prompt")}


def _load_check(row):
    code, entry = row["test"], row.get("entry_point")
    if not isinstance(code, str) or not code.strip():
        raise ValueError("test is empty or no text")
    if entry is None and "def check(" not in code:
        return _load_assertions({**row, "test_list": [code]})
    if not isinstance(entry, str) or not entry.isidentifier():
        raise ValueError(f"entry_point is {str(entry)[:40]!r}, not the name of a function")
    tree = _parse_tests(code, "test")
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    asserting = [node for node in ast.walk(checks[-1] if checks else tree) if _asserts(node) or isinstance(node, ast.Raise)]
    helpers = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and any(isinstance(n, (ast.Assert, ast.Raise)) for n in ast.walk(node))]
    if not asserting and not (checks and helpers and any(isinstance(node, ast.Call) for node in ast.walk(checks[-1]))):
        raise ValueError("test asserts nothing")
    if checks and len(checks[-1].args.args) != 1:
        raise ValueError("check must take the candidate, and nothing else")
    return {"setup": _text_or_lines(row.get("test_setup_code"), "test_setup_code"), "code": [code], "entry": entry, "check": bool(checks),
            "prompt": _text_or_lines(row.get("prompt"), "prompt")}


def _load_calls(name, inputs, outputs):
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
        raise ValueError("fn_name needs as many inputs (lists of arguments) as outputs")
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise ValueError("with fn_name each input is a list of arguments")
    return {"setup": "", "code": [f"assert {name}(*{i!r}) == {o!r}" for i, o in zip(inputs, outputs)], "entry": name, "prompt": ""}


def _prepare_code(response, tests):
    """((reward, why), None) where nothing need be run, else (None, item for a worker)."""
    try:
        tests = load_tests(tests)
    except Exception as error:
        return (0.0, f"bad row: {error}"), None
    program = last_program(response)
    if program is None:
        return (0.0, "no complete ```python block"), None
    try:
        size = len(program.encode())
    except UnicodeEncodeError:
        return (0.0, "the program is no valid text"), None
    if size > MAX_PROGRAM or "\0" in program:
        return (0.0, "the program is too long, or has a null byte"), None
    return None, {"program": program, "tests": tests}


def code_reward(response, tests, unsafe=False):
    """1.0 if the last ```python block of `response` passes every test (see load_tests), else 0.0.

    Any thread, no exception, CODE_SECONDS at most (and a few to start the worker, WAIT_SECONDS where all are busy). Malformed tests are a 0.0, and so is
    everything on a host that cannot isolate programs, unless `unsafe`; then it says so once on standard error.
    """
    try:
        verdict, item = _prepare_code(response, tests)
        return verdict[0] if item is None else _shared_grader("code", unsafe).grade([response], [tests])[0]
    except Exception as error:
        _complain(f"{type(error).__name__}: {error}")
        return 0.0


# What the candidate runs -----------------------------------------------------------------------------------------------

# Both run with an empty environment, the standard library and numpy (if installed), and are given the program as an argument.
# The program gets a module of its own: it sees no name that it did not define. -S leaves out `exit`, so it is put back.
RUN_PROGRAM = r"""
import sys, builtins, _thread
source = sys.argv[1]
sys.argv[:] = ["main.py"]
sys.path.append(PACKAGES)
sys.path_importer_cache.clear()
builtins.exit = builtins.quit = sys.exit
_thread.stack_size(16 << 20)
module = type(sys)(NAME)
module.__file__ = "main.py"
module.__builtins__ = builtins
sys.modules[NAME] = module
"""
RUN_STDIN = RUN_PROGRAM.replace("NAME", "'__main__'") + r"""
exec(compile(source, "main.py", "exec", dont_inherit=True), module.__dict__)
"""
# The codec is used on both sides of the pipe. Plain data only; whatever else the candidate returns stays there, and the
# judge gets a number for it ("o"), which it can hand back, call, or ask for attributes.
CODEC = r"""
def encode(value, keep, depth=0):
    kind = type(value)
    if depth > 200:
        raise ValueError("nested too deeply")
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -2**53 < value < 2**53 else {"i": hex(value)}
    if kind is float:
        return {"f": value.hex()}
    many = lambda items: [encode(item, keep, depth + 1) for item in items]
    for tag, kinds in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if kind is kinds:
            return {tag: many(value)}
    if kind is dict:
        return {"d": [[encode(k, keep, depth + 1), encode(v, keep, depth + 1)] for k, v in value.items()]}
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "B": value.hex()}
    if kind is complex:
        return {"c": [value.real.hex(), value.imag.hex()]}
    if kind is range:
        return {"r": many([value.start, value.stop, value.step])}
    name = kind.__module__ + "." + kind.__qualname__
    if name == "fractions.Fraction":
        return {"q": many([value.numerator, value.denominator])}
    if name == "decimal.Decimal":
        return {"D": str(value)}
    if name == "collections.deque":
        return {"e": many(value)}
    if name in ("builtins.dict_keys", "builtins.dict_values", "builtins.dict_items"):
        return {"v": [name[14:], many(value)]}
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return encode(value.item(), keep, depth + 1)
    # Subclasses (Counter, defaultdict, a named tuple, an IntEnum, a str of one's own) travel as what they extend.
    for base, plain in ((int, int.__pos__), (float, float.__pos__), (str, str.__str__), (bytes, lambda value: bytes.__add__(value, b"")), (complex, complex.__pos__)):
        if isinstance(value, base):
            return encode(plain(value), keep, depth + 1)
    if isinstance(value, dict):
        return {"d": [[encode(k, keep, depth + 1), encode(v, keep, depth + 1)] for k, v in dict.items(value)]}
    for tag, base in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(value, base):
            return {tag: many(base.__iter__(value))}
    return keep(value)

def decode(data, find):
    if data is None or isinstance(data, (bool, int, str)):
        return data
    (tag, value), = data.items()
    many = lambda items: [decode(item, find) for item in items]
    if tag == "i":
        return int(value, 16)
    if tag == "f":
        return float.fromhex(value)
    if tag == "l":
        return many(value)
    if tag in "tsz":
        return {"t": tuple, "s": set, "z": frozenset}[tag](many(value))
    if tag == "d":
        return {decode(k, find): decode(v, find) for k, v in value}
    if tag in "bB":
        return (bytes if tag == "b" else bytearray).fromhex(value)
    if tag == "c":
        return complex(float.fromhex(value[0]), float.fromhex(value[1]))
    if tag == "r":
        return range(*many(value))
    if tag == "q":
        import fractions
        return fractions.Fraction(*many(value))
    if tag == "D":
        import decimal
        return decimal.Decimal(value)
    if tag == "e":
        import collections
        return collections.deque(many(value))
    if tag == "v":
        items = [decode(item, find) for item in value[1]]
        return dict(items).items() if value[0] == "items" else dict.fromkeys(items).keys() if value[0] == "keys" else dict(enumerate(items)).values()
    return find(tag, value)
"""
RUN_CALLS = RUN_PROGRAM.replace("NAME", "'solution'") + CODEC + r"""
import io, json, os
inlet, outlet = os.dup(0), os.dup(1)
null = os.open("/dev/null", os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
things = {}

def receive():
    def exactly(n):
        data = b""
        while len(data) < n:
            got = os.read(inlet, n - len(data))
            if not got:
                os._exit(0)
            data += got
        return data
    return json.loads(exactly(int.from_bytes(exactly(4), "big")))

def send(message):
    data = json.dumps(message).encode()
    data = memoryview(len(data).to_bytes(4, "big") + data)
    while data:
        data = data[os.write(outlet, data):]

def keep(value):
    things[id(value)] = value
    return {"o": id(value)}

def find(tag, value):
    if tag == "o":
        return things[value]
    if tag == "n":
        return vars(module)[value]
    if tag == "y":
        return getattr(builtins, value)
    def callback(*args, **kw):
        send({"callback": value, "args": encode(args, keep), "kw": encode(kw, keep)})
        reply = serve()
        if "error" in reply:
            raise getattr(builtins, reply["error"][0], Exception)(reply["error"][1])
        return decode(reply["value"], find)
    return callback

def describe(error):
    try:
        args = encode(error.args, lambda value: str(value))
    except Exception:
        args = {"t": []}
    return {"error": [[kind.__name__ for kind in type(error).__mro__], args]}

def kind_of(value):
    if isinstance(value, type):
        return [base.__name__ for base in value.__mro__] if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"

def answer(ask):
    op = ask["op"]
    target = ask.get("target")
    if op == "name":
        value = vars(module)[target]
        return {"value": encode(value, keep)}
    target = vars(module)[target] if isinstance(target, str) else things[target]
    if op == "call":
        args, kw = decode(ask["args"], find), decode(ask["kw"], find)
        value = target(*args, **kw)
        reply = {"value": encode(value, keep)}
        try:
            after = encode(args, keep), encode(kw, keep)
        except ValueError:
            return reply
        if after != (ask["args"], ask["kw"]):           # it changed its arguments
            reply["args"], reply["kw"] = after
        return reply
    args = decode(ask["args"], find)
    if op == "get":
        value = getattr(target, args[0])
    elif op == "set":
        value = setattr(target, args[0], args[1])
    elif op == "iter":
        value = iter(target)
        return {"value": keep(value)}
    elif op == "next":
        try:
            value = next(target)
        except StopIteration:
            return {"stop": True}
    elif op == "len":
        value = len(target)
    elif op == "item":
        value = target[args[0]]
    elif op == "setitem":
        target[args[0]] = args[1]
        value = None
    elif op == "str":
        value = str(target)
    elif op == "repr":
        value = repr(target)
    return {"value": encode(value, keep)}

def serve():
    while True:
        ask = receive()
        if "op" not in ask:
            return ask              # the result of a callback
        try:
            reply = answer(ask)
        except BaseException as error:
            if isinstance(error, SystemExit):
                os._exit(0)
            reply = describe(error)
        send(reply)

names = {}
try:
    exec(compile(source, "main.py", "exec", dont_inherit=True), module.__dict__)
    names = {name: kind_of(value) for name, value in vars(module).items() if isinstance(name, str)}
except BaseException as error:
    send(describe(error))
    os._exit(1)
send({"names": names})
serve()
"""


# Isolation -------------------------------------------------------------------------------------------------------------

LEVELS = {
    "namespaces": "programs run in namespaces of their own (user, mount, PID, network, IPC) with a system-call filter and limits on CPU, memory, "
                  "output and files: they see a read-only /usr and Python, an empty /tmp, no network, no other process, and cannot start one. "
                  "It does not protect from a flaw in the kernel, and one program may use a core and its memory limit until its time is up.",
    "landlock": "programs run as one process with a system-call filter, Landlock and limits on CPU, memory and output: they can read /usr and "
                "Python only, write nothing, open no socket, start no process and send no signal. It does not hide that other processes exist, "
                "nor protect from a flaw in the kernel, and one program may use a core and its memory limit until its time is up.",
    "limits": "this host allows neither namespaces nor Landlock with a system-call filter, so that programs run with limits on CPU, memory and "
              "output alone: they can read and write this user's files, use the network, and signal and outlive other processes of this user.",
}
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
PACKAGES = "/packages"          # where numpy is found inside the sandbox
libc = ctypes.CDLL(None, use_errno=True)


def _call(name, *arguments):
    """A libc function that returns -1 on failure; OSError then."""
    result = getattr(libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _mount(source, target, kind, flags, data=""):
    _call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


# System calls that a program is refused, by number on (x86_64, aarch64); None where that machine has no such call.
REFUSED = {"fork": (57, None), "vfork": (58, None), "socket": (41, 198), "connect": (42, 203), "ptrace": (101, 117), "tkill": (200, 130),
           "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
           "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
           "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
           "memfd_create": (319, 279), "memfd_secret": (447, 447), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
           "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "process_vm_readv": (310, 270),
           "process_vm_writev": (311, 271), "kcmp": (312, 272), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
           "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "open_by_handle_at": (304, 265),
           "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
           "personality": (135, 92), "vmsplice": (278, 75), "process_madvise": (440, 440),
           # Landlock does not look at these
           "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
           "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
           "fremovexattr": (199, 16), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "truncate": (76, 45)}
FATAL = ("fork", "vfork", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "ptrace")         # not merely refused: no use but a hostile one
MACHINES = {"x86_64": (0, 0xC000003E, {"clone": 56, "kill": 62, "tgkill": 234, "prlimit64": 302, "clone3": 435, "fcntl": 72, "ioctl": 16}),
            "aarch64": (1, 0xC00000B7, {"clone": 220, "kill": 129, "tgkill": 131, "prlimit64": 261, "clone3": 435, "fcntl": 25, "ioctl": 29})}


def _refuse_system_calls():
    """A seccomp filter for this process and all it becomes: no new processes (threads are fine), sockets, signals to others, kernel features."""
    column, architecture, numbers = MACHINES[os.uname().machine]
    load, equal, at_least, any_bit, ret = 0x20, 0x15, 0x35, 0x45, 0x06          # BPF: LD, JEQ, JGE, JSET, RET
    allow, kill, deny = 0x7FFF0000, 0x80000000, lambda number: 0x50000 | number
    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (ret, 0, 0, kill), (load, 0, 0, 0)]
    if column == 0:
        code += [(at_least, 0, 1, 0x40000000), (ret, 0, 0, kill)]              # the x32 numbers would slip past
    for name, pair in REFUSED.items():
        if pair[column] is not None:
            code += [(equal, 0, 1, pair[column]), (ret, 0, 0, kill if name in FATAL else deny(errno.EPERM))]
    code += [(equal, 0, 1, numbers["clone3"]), (ret, 0, 0, deny(errno.ENOSYS))]                        # libc then uses clone
    code += [(equal, 0, 3, numbers["clone"]), (load, 0, 0, 16), (any_bit, 1, 0, 0x10000), (ret, 0, 0, kill), (load, 0, 0, 0)]    # CLONE_THREAD
    for name in ("kill", "tgkill"):                                                            # to oneself only
        code += [(equal, 0, 3, numbers[name]), (load, 0, 0, 16), (equal, 1, 0, os.getpid()), (ret, 0, 0, kill), (load, 0, 0, 0)]
    code += [(equal, 0, 3, numbers["prlimit64"]), (load, 0, 0, 16), (equal, 1, 0, 0), (ret, 0, 0, deny(errno.EPERM)), (load, 0, 0, 0)]
    # F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP, TIOCSTI: signals and keystrokes for others, by way of a descriptor
    for name, (a, b, c) in (("fcntl", (8, 10, 15)), ("ioctl", (0x8901, 0x8902, 0x5412))):
        code += [(equal, 0, 6, numbers[name]), (load, 0, 0, 24), (equal, 2, 0, a), (equal, 1, 0, b), (equal, 0, 1, c), (ret, 0, 0, deny(errno.EPERM)), (load, 0, 0, 0)]
    code += [(ret, 0, 0, allow)]
    program = b"".join(struct.pack("HBBI", *step) for step in code)
    buffer = ctypes.create_string_buffer(program)
    filter_ = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(buffer)))
    _call("prctl", PR_SET_SECCOMP, 2, filter_, 0, 0)


def _landlock():
    """Landlock for this process: read and execute below the system's and Python's directories, nothing else. OSError if the kernel has none."""
    version = _call("syscall", 444, None, 0, 1)
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1                      # access rights that this version knows
    rules = _call("syscall", 444, struct.pack("QQ", everything, 3 if version >= 4 else 0), 16 if version >= 4 else 8, 0)
    numpy = _numpy()
    readable = [(path, 0b1101) for path in _visible() + numpy] + [(os.path.dirname(path), 0b1000) for path in numpy]       # 1 execute, 4 read, 8 list
    for path, rights in readable + [("/dev/" + name, 0b0110) for name in ("null", "zero", "urandom")]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            rights &= 0b0111
        _call("syscall", 445, rules, 1, struct.pack("=Qi", rights, fd), 0)
        os.close(fd)
    _call("syscall", 446, rules, 0)
    os.close(rules)


def _python():
    """The interpreter itself: not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _visible():
    """What a program may read: the system's libraries and Python's own."""
    paths = [path for path in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime") if os.path.exists(path)]
    for path in (os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix), os.path.dirname(_python())):
        if not any((path + "/").startswith(seen + "/") for seen in paths):
            paths.append(path)
    return paths


def _numpy():
    """The directories of numpy, if it is installed: the one package that programs may import."""
    found = importlib.util.find_spec("numpy")
    if found is None or not found.origin:
        return []
    here = os.path.dirname(found.origin)
    return [path for path in (here, here + ".libs") if os.path.isdir(path)]


def _enter_namespaces():
    """Move a code worker into user, mount, PID, network, IPC and UTS namespaces, with a root that holds _visible() only."""
    uid, gid = os.geteuid(), os.getegid()
    visible, numpy = _visible(), _numpy()
    ready, done = os.pipe(), os.pipe()
    helper = 0
    if uid == 0:
        # Real root may map a second user, an ordinary one, for the programs. Another process has to write that map.
        helper = os.fork()
        if helper == 0:
            try:
                os.read(ready[0], 1)
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{os.getppid()}/{name}", "w") as file:
                        file.write("0 0 1\n1 65534 1\n")
                os.write(done[1], b"+")
            finally:
                os._exit(0)
        os.close(done[1])
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID)
    two_users = False
    if helper:
        os.write(ready[1], b"+")
        two_users = os.read(done[0], 1) == b"+"
        os.waitpid(helper, 0)
    if not two_users:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    for fd in {*ready, done[0]} | (set() if helper else {done[1]}):
        os.close(fd)

    # The next child is process 1 of the new PID namespace, and the worker from here on; with it ends all that it started.
    worker = os.fork()
    if worker:
        _, status = os.waitpid(worker, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 127)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    root = "/sys" if os.path.isdir("/sys") else "/mnt"
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for name in ("tmp", "proc", "dev", "old", PACKAGES[1:]):
        os.mkdir(f"{root}/{name}")

    def show(path, at):
        if os.path.isdir(path):
            os.makedirs(root + at, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(root + at), exist_ok=True)
            os.close(os.open(root + at, os.O_CREAT | os.O_WRONLY))
        _mount(path, root + at, "", MS_BIND | MS_REC)
        if not at.startswith("/dev/"):
            try:                                    # mount_setattr: read-only, with all that is mounted below
                _call("syscall", 442, -100, (root + at).encode(), 0x8000, struct.pack("QQQQ", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0), 32)
            except OSError:                         # older than Linux 5.12; flags that are already set must be repeated
                kept = os.statvfs(path).f_flag
                _mount("none", root + at, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | (kept & (MS_NOEXEC | 1024 | 2048)) | (1 << 21 if kept & 4096 else 0))

    for path in visible:
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        else:
            show(path, path)
    for path in numpy:
        show(path, f"{PACKAGES}/{os.path.basename(path)}")
    for name in ("null", "zero", "full", "random", "urandom"):
        show("/dev/" + name, "/dev/" + name)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink("/proc/self/" + target, f"{root}/dev/{name}")
    proc = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)          # without it no candidate could have one
    except OSError:
        pass
    _call("pivot_root", root.encode(), (root + "/old").encode()) if hasattr(libc, "pivot_root") else _call("syscall", {"x86_64": 155, "aarch64": 41}[os.uname().machine], root.encode(), (root + "/old").encode())
    os.chdir("/")
    _call("umount2", b"/old", 2)
    os.rmdir("/old")
    # The worker's own view: what it may read is what programs may read.
    _call("mount", b"none", b"/", b"", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, None)
    sys.path[:] = [path for path in sys.path if path and os.path.isdir(path)] + [PACKAGES]
    sys.path_importer_cache.clear()
    return proc, two_users


def _file_of(data):
    """A descriptor of a file in memory that holds the data and cannot be changed."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = memoryview(data)
    while data:
        data = data[os.write(fd, data):]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


class Sandbox:
    """A code worker's means of starting a locked-away candidate. Made once per worker, before it reads its first item."""

    def __init__(self, level):
        if level not in LEVELS:         # a misspelt level must not mean no isolation
            raise ValueError(f"no such level: {level!r}")
        self.level, self.python, self.two_users = level, _python(), False
        self.packages = (_numpy() or [PACKAGES])[0]
        self.packages = PACKAGES if level == "namespaces" else os.path.dirname(self.packages)
        if level == "namespaces":
            self.pid_namespace, self.two_users = _enter_namespaces()
        self.empty = "/tmp" if level == "namespaces" else tempfile.mkdtemp(prefix="verify-") if level == "limits" else "/usr"
        if level == "limits":
            atexit.register(lambda: os.rmdir(self.empty))

    def start(self, boot, program, seconds, memory, given=None):
        """Start a candidate. (pid, its standard output), or with no input given (pid, its standard input, its standard output).

        The input is a file, as on Codeforces, where programs ask for its size. The candidate is killed when the calling process ends.
        """
        arguments = [self.python, "-I", "-S", "-B", "-X", "utf8", "-c", boot.replace("PACKAGES", repr(self.packages)), program]
        ours_in, ours_out, go = os.pipe() if given is None else (_file_of(given),), os.pipe(), os.pipe()
        if self.level == "namespaces":
            _call("unshare", CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                os.close(go[1])
                if given is None:
                    os.close(ours_in[1])
                os.close(ours_out[0])
                _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.read(go[0], 1) != b"+":                        # the judge died before the line above
                    os._exit(127)
                if self.level == "namespaces" and (inner := os.fork()):
                    # This is process 1 of the namespace, which no signal from inside can kill. So the program is process 2.
                    os.closerange(0, 1024)
                    status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
                    os._exit(status if status >= 0 else 128 - status)
                self._become(ours_in[0], ours_out[1], seconds, memory)
                os.execve(self.python, arguments, {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HOME": "/tmp", "LANG": "C.UTF-8"})
            except BaseException as error:
                os.write(1, f"sandbox: {error}".encode())
            finally:
                os._exit(127)
        if self.level == "namespaces":
            _call("setns", self.pid_namespace, CLONE_NEWPID)         # the next candidate gets a PID namespace of its own
        for fd in (ours_in[0], ours_out[1], go[0]):
            os.close(fd)
        os.write(go[1], b"+")
        os.close(go[1])
        os.set_blocking(ours_out[0], False)
        if given is not None:
            return pid, ours_out[0]
        os.set_blocking(ours_in[1], False)
        return pid, ours_in[1], ours_out[0]

    def _become(self, stdin, stdout, seconds, memory):
        """In the child: give up everything, in an order that works."""
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.closerange(3, 1024)
        if self.level == "namespaces":
            _call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
            _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={SCRATCH}m,nr_inodes=4096,mode=1777")
            try:
                _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            except OSError:                                          # some containers forbid it; only /dev/stdin is missed
                _mount("tmpfs", "/proc", "tmpfs", MS_RDONLY, "size=4k")
        os.chdir(self.empty)
        for name, limit in (("AS", (memory + 768) << 20), ("CPU", math.ceil(seconds) + 1), ("FSIZE", SCRATCH << 20), ("NOFILE", 64), ("CORE", 0),
                            ("MSGQUEUE", 0), ("STACK", 256 << 20), ("MEMLOCK", 1 << 16)):
            self._limit(name, limit)
        if os.geteuid() == 0:
            for capability in range(64):
                if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
                    break
        if self.two_users:
            os.fchown(0, 1, 1)                                       # else /dev/stdin could not be opened
            os.fchown(1, 1, 1)
            os.setgroups([])
            os.setresgid(1, 1, 1)
            os.setresuid(1, 1, 1)
        if self.level == "namespaces":
            self._limit("NPROC", 128)                                # counted within the user namespace (since Linux 5.14)
        _call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))             # no capabilities, whoever we are
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)    # again: a change of user clears it
        _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self.level == "landlock":
            _landlock()
        if self.level != "limits":
            _refuse_system_calls()

    @staticmethod
    def _limit(name, value):
        which = getattr(resource, "RLIMIT_" + name, None)
        if which is not None:
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))


# Judging ---------------------------------------------------------------------------------------------------------------

class _Dead(BaseException):
    """The candidate ended, ran out of time, or sent nonsense. Not an Exception, so that no `except Exception` in a test hides it."""


class _Clock:
    """Seconds left of a program's wall-clock time. On a busy host, or a virtual machine that is stopped for a while, a wait may take
    far longer than was asked for: such an excess is not the program's, and does not count. (The worker's own limit counts it.)"""

    def __init__(self, seconds):
        self.left = seconds

    def poll(self, poll):
        """The descriptors that are ready, as {descriptor: events}; empty when the time is up."""
        while self.left > 0:
            step, start = min(0.2, self.left), time.monotonic()
            ready = poll.poll(math.ceil(1000 * step))
            self.left -= min(time.monotonic() - start, step)
            if ready:
                return dict(ready)
        return {}

    def sleep(self, seconds):
        """Sleep; False when the time is up."""
        time.sleep(seconds)
        self.left -= seconds
        return self.left > 0


def _kill(pid, box):
    """Kill a candidate with all it started, and wait for its end. (exit status as subprocess gives it, CPU seconds, MiB resident)."""
    try:
        os.kill(pid, signal.SIGKILL) if box.level == "namespaces" else os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    _, status, used = os.wait4(pid, 0)
    for _ in range(100 if box.level == "limits" else 0):          # whatever left the process group is our child by now
        children = [int(stat.split()[0]) for stat in map(_read_stat, filter(str.isdigit, os.listdir("/proc"))) if stat and stat.rpartition(")")[2].split()[1] == str(os.getpid())]
        if not children:
            break
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except OSError:
                pass
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _read_stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read()
    except OSError:
        return ""


def _judge_stdin(box, program, tests):
    """Run the program once per test. (right, why, whether time ran out)."""
    for number, (given, expected) in enumerate(tests["cases"], 1):
        expected = _lines(expected)
        printed, status, cpu, resident, late = _run_once(box, program, given.encode("utf-8", "replace"), 2 * len(expected) + MAX_OUTPUT, tests)
        where = f"test {number} of {len(tests['cases'])}: "
        if late or cpu > tests["seconds"]:
            return False, where + f"time limit ({tests['seconds']} CPU seconds)", True
        if printed is None:
            return False, where + "too much output", False
        if _too_large(resident, tests):
            return False, where + f"memory limit ({tests['memory']} MiB)", False
        if status != 0:
            return False, where + (f"exit status {status}" if status > 0 else f"killed by signal {-status}"), False
        printed = _lines(printed.decode("utf-8", "replace"))
        if printed != expected:
            return False, where + f"printed {printed[:60]!r}, expected {expected[:60]!r}", False
    return True, f"passed {len(tests['cases'])} tests", False


def _too_large(resident, tests):
    # What the kernel reports for a process includes what its parent, the judge, held when it was started.
    return resident > max(tests["memory"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + 8)


def _lines(text):
    """Output as it is compared: without blanks at the ends of lines, and without blank lines at the end."""
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").split("\n")).rstrip("\n")


def _run_once(box, program, given, most, tests):
    """(output or None if it was too much, exit status, CPU seconds, MiB resident, whether it ran past the wall clock)."""
    clock = _Clock(2 * tests["seconds"] + 2)
    pid, back = box.start(RUN_STDIN, program, tests["seconds"], tests["memory"], given)
    printed, late, ended = bytearray(), False, False
    poll = select.poll()
    poll.register(back, select.POLLIN)
    try:
        while True:
            if not clock.poll(poll):
                late = True
                break
            got = os.read(back, 1 << 16)
            if not got:
                break
            printed += got
            if len(printed) > most:
                printed = None
                break
        pause = 0.0005
        while printed is not None and not late:
            # Standard output is closed. The process usually ends at once; one that lingers has until its time is up.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ended = True
                break
            late = not clock.sleep(pause)
            pause = min(2 * pause, 0.02)
    finally:
        status, cpu, resident = _kill(pid, box)
        os.close(back)
    return (bytes(printed) if printed is not None else None), status, cpu, resident, late or (not ended and printed is not None)


class _Candidate:
    """A program in its sandbox, as seen by a judge of function tests."""

    def __init__(self, box, program, tests):
        self.clock = _Clock(2 * tests["seconds"] + 2)
        self.pid, self.to, self.back = box.start(RUN_CALLS, program, tests["seconds"], tests["memory"])
        self.box, self.dead, self.calls, self.functions, self.exceptions, self.things = box, None, 0, [], {}, {}
        self.names, self.changed = None, []

    def load(self):
        """Wait until the program has run once from top to bottom. Its names, or None if it failed."""
        reply = self.receive()
        if isinstance(reply.get("names"), dict):
            self.names = reply["names"]
            for name, kinds in self.names.items():
                if isinstance(kinds, list):
                    base = next((found for kind in kinds[1:] if (found := _exception(kind))), Exception)
                    self.exceptions[name] = type(name, (base,), {})
        elif "error" in reply:
            self.dead = f"the program raised {str(reply['error'][0][0])[:40]}"

    def die(self, why):
        self.dead = self.dead or why
        raise _Dead(why)

    def wait(self, fd, event):
        poll = select.poll()
        poll.register(fd, event)
        if self.dead or not self.clock.poll(poll):
            self.die("time limit")

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            self.wait(self.back, select.POLLIN)
            got = os.read(self.back, min(1 << 16, size - len(data)))
            if not got:
                self.die("the program ended before it had answered")
            data += got
        return data

    def receive(self):
        size = int.from_bytes(self.exactly(4), "big")
        if size > MAX_REPLY:
            self.die("the result is too large")
        try:
            reply = json.loads(self.exactly(size))
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.die("the program broke the pipe to the judge")
        return reply

    def send(self, message):
        data = json.dumps(message).encode()
        data = memoryview(len(data).to_bytes(4, "big") + data)
        while data:
            self.wait(self.to, select.POLLOUT)
            try:
                data = data[os.write(self.to, data[:1 << 16]):]
            except OSError:
                self.die("the program ended before it had answered")

    def encode(self, value):
        return encode(value, self.keep)

    def keep(self, value):
        """What is no plain data, on its way to the candidate: its own things go back to it; our functions can be called from there."""
        if isinstance(value, _Thing):
            target = object.__getattribute__(value, "_target")
            return {"o": target} if isinstance(target, int) else {"n": target}
        if value in _BY_NAME:
            return {"y": _BY_NAME[value]}
        if callable(value):
            self.functions.append(value)
            return {"k": len(self.functions) - 1}
        if hasattr(value, "__iter__"):
            return encode(list(value), self.keep)
        raise TypeError(f"a test passes {type(value).__name__}, which is no plain data")

    def decode(self, data):
        try:
            return decode(data, self.find)
        except _Dead:
            raise
        except BaseException:
            self.die("the program broke the pipe to the judge")

    def find(self, tag, value):
        if tag != "o" or type(value) is not int:
            self.die("the program broke the pipe to the judge")
        return self.things.setdefault(value, _Thing(self, value))

    def ask(self, op, target, *args, kw=None):
        """One request and its result; exceptions of the candidate are raised here, as built-in ones."""
        if self.dead:
            self.die(self.dead)
        message = {"op": op, "target": target, "args": self.encode(args), "kw": self.encode(kw or {})}
        self.send(message)
        while True:
            reply = self.receive()
            if "callback" not in reply:
                break
            try:
                function = self.functions[reply["callback"]]
                result = {"value": self.encode(function(*self.decode(reply["args"]), **self.decode(reply["kw"])))}
            except Exception as error:
                result = {"error": [type(error).__name__, str(error)]}
            self.send(result)
        if "error" in reply:
            self.throw(reply["error"])
        if reply.get("stop") is True and op == "next":
            raise StopIteration
        if "value" not in reply:
            self.die("the program broke the pipe to the judge")
        value = self.decode(reply["value"])
        if op == "call" and "args" in reply:
            theirs, theirs_kw = self.decode(reply["args"]), self.decode(reply["kw"])
            self.changed += [*zip(args, theirs), *((ours, theirs_kw.get(name)) for name, ours in (kw or {}).items())]
            if value is None:
                self.settle()
        return value

    def settle(self):
        """Let the test see what calls did to their arguments. That is the whole result of a call that returns nothing; else
        it waits for the test's next statement: in `assert f(x) == sorted(x)` f must not change what is expected of it."""
        while self.changed:
            _update(*self.changed.pop(0))

    def throw(self, error):
        try:
            kinds, arguments = error
            arguments = self.decode(arguments)
            kind = next((found for name in kinds if (found := self.exceptions.get(name) or _exception(name))), RuntimeError)
        except (TypeError, ValueError, StopIteration):
            self.die("the program broke the pipe to the judge")
        try:
            raised = kind(*arguments)
        except Exception:
            raised = kind()
        raise raised

    def close(self):
        for fd in (self.to, self.back):
            os.close(fd)
        return _kill(self.pid, self.box)


def _exception(name):
    """The built-in exception of that name, if a candidate may raise it. StopIteration would end a loop of the test in silence."""
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    good = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, (StopIteration, StopAsyncIteration))
    return kind if good else None


def _update(ours, theirs):
    """Change one of the test's own values, in place, into what the candidate made of it."""
    if type(ours) is not type(theirs) or ours is theirs:
        return theirs
    if isinstance(ours, _Thing):
        return ours
    if isinstance(ours, list):
        ours[:] = [_update(ours[i], item) if i < len(ours) else item for i, item in enumerate(theirs)]
    elif isinstance(ours, dict):
        changed = {key: _update(ours[key], value) if key in ours else value for key, value in theirs.items()}
        ours.clear()
        ours.update(changed)
    elif isinstance(ours, (set, bytearray)) or type(ours).__name__ == "deque":
        ours.clear()
        ours.extend(theirs) if hasattr(ours, "extend") else ours.update(theirs)
    elif isinstance(ours, tuple):
        for one, other in zip(ours, theirs):
            _update(one, other)
        return theirs if not any(isinstance(item, (list, dict, set)) for item in ours) else ours
    else:
        return theirs
    return ours


class _Thing:
    """Something of the candidate's that is no plain data, as a test sees it: a function, a class, an object, a generator.

    A test may call it, read and set attributes, iterate and index. It may not compare it or ask whether it is true: the
    candidate would answer, and could claim to equal everything. Nor may it calculate with it and a value of the test's
    own, as in abs(f(1) - 0.5) < 1e-6: whatever the value, the candidate could say that the difference is nothing.
    """

    def __init__(self, candidate, target):
        object.__setattr__(self, "_candidate", candidate)
        object.__setattr__(self, "_target", target)

    def __call__(self, *args, **kw):
        self._candidate.calls += 1
        return self._candidate.ask("call", self._target, *args, kw=kw)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._candidate.ask("get", self._target, name)

    def __setattr__(self, name, value):
        self._candidate.ask("set", self._target, name, value)

    def __iter__(self):
        return self._candidate.ask("iter", self._target)

    def __next__(self):
        return self._candidate.ask("next", self._target)

    def __len__(self):
        return self._candidate.ask("len", self._target)

    def __getitem__(self, key):
        return self._candidate.ask("item", self._target, key)

    def __setitem__(self, key, value):
        self._candidate.ask("setitem", self._target, key, value)

    def __str__(self):
        return self._candidate.ask("str", self._target)

    def __repr__(self):
        return self._candidate.ask("repr", self._target)

    def _refuse(self, *_):
        raise TypeError("a test compares something of the candidate's that is no plain data")

    def _operate(self, name, *others):
        if name not in ("__enter__", "__exit__") and not all(isinstance(other, _Thing) for other in others):
            self._refuse()
        return self._candidate.ask("get", self._target, name)(*others)

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _refuse          # `in` goes by __iter__
    __hash__ = object.__hash__


for _operator in "add sub mul matmul truediv floordiv mod pow neg pos abs and or xor lshift rshift radd rsub rmul enter exit".split():
    setattr(_Thing, f"__{_operator}__", lambda self, *others, _name=f"__{_operator}__": self._operate(_name, *others))

_BY_NAME = {getattr(builtins, _name): _name for _name in "int float str bool list tuple set dict bytes complex len sum min max abs sorted any all ord chr".split()}
exec(CODEC)             # encode and decode: the same text on both sides of the pipe


def _bound_and_free(trees):
    """(names that the test code binds, names that it reads), anywhere in it."""
    bound, read = set(), set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    return bound, read


def _shadowed(trees, names, entry):
    """A built-in name that the tests mean as the candidate's function, as in MBPP's `assert sum(10, 15) == 6`; or None."""
    if entry is not None:
        return entry
    counts = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and names.get(node.func.id) == "function" and hasattr(builtins, node.func.id):
                # the innermost call with plain arguments is the one under test: set(sum(...)) tests sum
                inner = sum(isinstance(n, ast.Call) for argument in node.args for n in ast.walk(argument))
                counts.setdefault(node.func.id, []).append(inner)
    return min(counts, key=lambda name: (sum(counts[name]), name)) if counts else None


def _whole_program(program, tests):
    """The program, with what the prompt defines before it (imports and helpers), or as the completion of the prompt's last function."""
    prompt, entry = tests.get("prompt"), tests.get("entry")
    if not prompt or not entry:
        return program
    defines = re.search(rf"^(?:async )?(?:def|class) +{re.escape(entry)}\b|^{re.escape(entry)} *=", program, re.MULTILINE)
    whole = prompt.rstrip() + "\n\n\n" + program if defines else prompt + program
    try:
        compile(whole, "main.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return program
    return whole if len(whole.encode()) <= MAX_PROGRAM + 20_000 else program


def _prompt_helpers(tests):
    """What the prompt defines besides the function in question: the tests use it as it is there, whatever the program makes of it."""
    scope = {"__name__": "prompt"}
    try:
        exec(compile(tests["prompt"] if tests.get("entry") else "", "prompt", "exec", dont_inherit=True), scope)
    except Exception:                   # a prompt in words
        return {}
    return {name: value for name, value in scope.items() if name != tests["entry"] and not name.startswith("__")}


def _settle_before_statements(tree):
    """Put a call of _settle (_Candidate.settle) before every statement of the tests."""
    for node in list(ast.walk(tree)):
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for statement in list(block) if isinstance(block, list) else ():
                docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                if not docstring and not isinstance(statement, ast.ImportFrom):          # these two may have to stand first
                    block.insert(block.index(statement), *ast.parse("_settle()").body)


def _run_test_functions(scope):
    """Run the tests that pytest or unittest would find: functions test_... without arguments, and classes of test methods."""
    for name, value in list(scope.items()):
        if name.startswith("test") and isinstance(value, type(_whole_program)) and not value.__code__.co_argcount:
            value()
        elif "unittest" in sys.modules and isinstance(value, type) and issubclass(value, sys.modules["unittest"].TestCase):
            result = sys.modules["unittest"].TestResult()
            sys.modules["unittest"].defaultTestLoader.loadTestsFromTestCase(value).run(result)
            for test, trace in result.failures + result.errors + result.skipped:
                raise AssertionError(f"{test}: {trace[-60:]}")


def _judge_assertions(box, program, tests):
    """Evaluate the assertions here, and call the candidate's functions over there. (right, why, whether time ran out)."""
    candidate = _Candidate(box, _whole_program(program, tests), tests)
    where = ""
    try:
        try:
            candidate.load()
            if candidate.names is None:
                return False, candidate.dead or "the program did not load", False
            setup, parts = ast.parse(tests["setup"]), [ast.parse(code) for code in tests["code"]]
            scope = {"__name__": "tests", "__builtins__": builtins, "_settle": candidate.settle}
            bound, read = _bound_and_free([setup, *parts])
            entry = tests.get("entry")
            mine = {name for name in read - bound if not hasattr(builtins, name)}
            if entry or not any(name in candidate.names for name in mine):
                name = _shadowed(parts, candidate.names, entry)
                mine |= {name} if name and name not in bound else set()
            helpers = _prompt_helpers(tests)
            modules = {node.value.id for tree in (setup, *parts) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
            for name in sorted(mine):
                kind = candidate.names.get(name)
                if name in helpers:
                    scope[name] = helpers[name]
                elif name in modules and name in sys.stdlib_module_names and not name.startswith("_"):
                    scope[name] = __import__(name)                    # MBPP's tests use math without importing it: ours, not the candidate's
                elif name in candidate.exceptions:
                    scope[name] = candidate.exceptions[name]
                elif kind in ("function", "class"):
                    scope[name] = _Thing(candidate, name)
                elif kind == "data":
                    scope[name] = candidate.ask("name", name)
            function = scope.get(entry)
            if entry and function is None:
                if candidate.names.get("Solution") == "class":
                    function = getattr(_Thing(candidate, "Solution")(), entry)
                elif candidate.names.get(entry) in ("function", "class"):
                    function = _Thing(candidate, entry)
                else:
                    return False, f"the program does not define {entry}", False
                if entry not in bound:
                    scope[entry] = function
            for tree in (setup, *parts):
                _settle_before_statements(tree)
            exec(compile(setup, "setup", "exec"), scope)
            for number, part in enumerate(parts, 1):
                where = f"assertion {number} of {len(parts)}: " if len(parts) > 1 else ""
                exec(compile(part, "tests", "exec"), scope)
            if tests.get("check"):
                scope["check"](function)
            else:
                _run_test_functions(scope)
        except (_Dead, KeyboardInterrupt):
            return False, where + str(candidate.dead), candidate.dead == "time limit"
        except BaseException as error:
            words = "an assertion failed" if isinstance(error, AssertionError) else f"{type(error).__name__}"
            detail = str(error)[:100] if not isinstance(error, AssertionError) or str(error) else ""
            return False, where + words + (f": {detail}" if detail else ""), False
        if candidate.dead:
            return False, candidate.dead, candidate.dead == "time limit"
        if not candidate.calls:
            return False, "bad row: the tests never called the program", False
    finally:
        _, cpu, resident = candidate.close()
    if cpu > tests["seconds"]:
        return False, f"time limit ({tests['seconds']} CPU seconds)", True
    if _too_large(resident, tests):
        return False, f"memory limit ({tests['memory']} MiB)", False
    return True, f"passed {len(tests['code'])} assertions" if not tests.get("check") else "passed check", False


def code_worker(level):
    """Main loop of a code worker: one JSON line in, one out. A judge is forked for each item, so that no test code leaves a trace."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(null, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(36, 1, 0, 0, 0)                       # subreaper: what a killed judge leaves behind becomes our child
    box = Sandbox(level)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)          # nothing may read this process's memory
    trial = "import os\ntry:\n    os.memfd_create('x')\n    print('no filter')\nexcept OSError:\n    print('works')\n"
    tests = {"seconds": TEST_SECONDS, "memory": PROGRAM_MEMORY, "kind": "stdin", "cases": [["", "works"]]}
    reply = {"right": True} if level == "limits" else _judge_apart(box, {"program": trial, "tests": tests, "limit": 60})
    if not reply.get("right"):
        out.write(json.dumps(reply.get("why")).encode() + b"\n")
        return
    out.write(b'{"ready": true}\n')
    for line in source:
        try:
            reply = _judge_apart(box, json.loads(line))
        except OSError as error:
            reply = {"right": False, "why": f"judge: {error}", "last": True}
        out.write(json.dumps(reply).encode() + b"\n")
        if reply.get("last"):
            return


def _judge_apart(box, item):
    """Judge one item in a child process of the worker, for item["limit"] seconds at most."""
    back, to = os.pipe()
    pid = os.fork()
    if pid == 0:
        verdict = {"right": False, "why": "the judge failed"}
        try:
            os.close(back)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            libc.prctl(36, 1, 0, 0, 0)
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
            judge = _judge_stdin if item["tests"]["kind"] == "stdin" else _judge_assertions
            right, why, late = judge(box, item["program"], item["tests"])
            verdict = {"right": right, "why": why, "timeout": late}
        except BaseException as error:
            verdict["why"] = f"the judge failed: {type(error).__name__}: {error}"
        finally:
            try:
                os.write(to, json.dumps(verdict).encode()[:60_000])
            finally:
                os._exit(0)
    os.close(to)
    data, deadline = b"", time.monotonic() + item["limit"]
    poll = select.poll()
    poll.register(back, select.POLLIN)
    while poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
        got = os.read(back, 65536)
        if not got:
            break
        data += got
    os.close(back)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        while True:                                  # the judge, and its candidate if that is still there
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    if not data:
        return {"right": False, "why": f"time-out after {item['limit']} s", "timeout": True}
    return json.loads(data)


_level = {}


def sandbox_level():
    """(name, words): how programs are isolated on this host, found by trying; the words say what it does not protect from."""
    with _shared_lock:
        if not _level:
            for name in ("namespaces", "landlock"):
                worker = _Worker("code", name) if sys.platform == "linux" and os.uname().machine in MACHINES else None
                if worker and isinstance(worker.ask(None, 120), dict):
                    worker.kill()
                    break
            else:
                name = "limits"
            _level[name] = LEVELS[name]
        return next(iter(_level.items()))


# ---------------------------------------------------------------------------------------------------------------------
# 5. Worker processes, kept warm
# ---------------------------------------------------------------------------------------------------------------------

class _Worker:
    """One worker process and the pipes to it. A fresh interpreter, so it holds none of the caller's memory, threads or torch."""

    def __init__(self, task, level=""):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--worker", task, level], bufsize=0, stdin=subprocess.PIPE,
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


class _Turns:
    """The idle workers, last in, first out: a small batch stays on those that are warm. Threads that find none wait in the
    order of their asking, but WAIT_SECONDS at most: then they get a worker more, which ends after its use."""

    def __init__(self, workers):
        self.queue, self._waiting, self._more, self._lock = list(workers), [], 0, threading.Lock()

    def get(self):
        with self._lock:
            if self.queue:
                return self.queue.pop()
            turn = queue.SimpleQueue()
            self._waiting.append(turn)
        try:
            return turn.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    self._more += 1
                    return None
            return turn.get()

    def put(self, worker):
        with self._lock:
            if self._waiting:
                self._waiting.pop(0).put(worker)
            elif not self._more:
                self.queue.append(worker)
            else:
                self._more -= 1
                if worker is not None:
                    worker.kill()

    def get_nowait(self):
        with self._lock:
            if not self.queue:
                raise queue.Empty
            return self.queue.pop()


class Grader:
    """Grades batches in warm worker processes. Thread-safe; results do not depend on order, batch or number of workers.

    task: "math" or "code". workers: processes, by default one per available core. timeout: wall-clock seconds for one item,
    after which it is a 0.0, is counted in .timeouts, and its worker is replaced. unsafe: run the code task although this
    host cannot isolate programs (see sandbox_level); without it that raises RuntimeError.
    """

    def __init__(self, task, workers=None, timeout=None, unsafe=False):
        if task not in ("math", "code"):
            raise ValueError(f"task must be 'math' or 'code', not {task!r}")
        self._level = ""
        if task == "code":
            self._level, words = sandbox_level()
            if self._level == "limits" and not unsafe:
                raise RuntimeError(f"refusing to run generated programs here: {words} Pass --unsafe-exec (unsafe=True) to run them all the same.")
        self.task, self.timeouts = task, 0
        self.workers = workers or len(os.sched_getaffinity(0))
        self.timeout = timeout or (MATH_SECONDS if task == "math" else CODE_SECONDS)
        self._start()

    def _start(self):
        self._pid, self._lock, self._closed = os.getpid(), threading.Lock(), False
        self._idle = _Turns([None] * self.workers)      # None: a worker to be started when it is first needed

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
                    deadline = None
                    for _ in range(2):       # a worker that dies is replaced and the item tried once more: it may not be to blame
                        verdicts[i] = (0.0, "the worker could not be started")
                        if worker is None:
                            worker = _Worker(self.task, self._level)
                            if not isinstance(worker.ask(None, 120), dict):     # imports take about a second
                                worker = None
                                continue
                        deadline = deadline or time.monotonic() + self.timeout
                        left = max(0.1, deadline - time.monotonic())
                        # A code worker keeps the limit itself; it is killed only if it cannot.
                        reply = worker.ask({**item, "limit": left}, left + (5 if self.task == "code" else 0))
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


_shared, _said = {}, set()
_shared_lock = threading.RLock()


def _forget_shared():
    """In a forked child: the shared graders' workers, and a lock that another thread may have held, belong to the parent."""
    global _shared, _shared_lock
    _shared, _shared_lock = {}, threading.RLock()


os.register_at_fork(after_in_child=_forget_shared)


def _shared_grader(task, unsafe=False):
    if task == "code":
        sandbox_level()
    with _shared_lock:
        if task not in _shared:
            _shared[task] = Grader(task, unsafe=unsafe)
        return _shared[task]


def _complain(words):
    """Say something once on standard error."""
    if words not in _said:
        _said.add(words)
        print(f"verify.py: {words}", file=sys.stderr)


def math_reward(response, gold):
    """1.0 if the final answer of `response` equals `gold`, else 0.0. Any thread, no exception, MATH_SECONDS at most."""
    try:
        verdict, item = _prepare_math(response, gold)
        return verdict[0] if item is None else _shared_grader("math").grade([response], [gold])[0]
    except Exception as error:
        _complain(f"{type(error).__name__}: {error}")
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
    with open(options.file, encoding="utf-8", errors="replace") as file:
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
    right, bad = len(rows) - len(failed), sum(why.startswith("bad row") for _, why in verdicts.values())
    print(f"accuracy {right}/{len(rows)} = {right / max(1, len(rows)):.3f}   bad rows {bad}   time-outs {timeouts}   "
          f"{len(rows) / max(seconds, 1e-9):.1f} items/s   {seconds:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        math_worker() if sys.argv[2] == "math" else code_worker(sys.argv[3])
    else:
        main()
