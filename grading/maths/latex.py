r"""LaTeX in one spelling: \dfrac and \tfrac are \frac, 1{,}000 is 1000, \frac12 is \frac{1}{2}.

Text in, text out. Everything after this room sees cleaned text only, so that it need not know how
many ways there are to write a fraction, a blank or a thousand.
"""

import re

from grading.maths.brackets import closing_brace
from grading.maths.characters import as_latex

SPACE = r"(?:\\[ ,;:!>]|\\(?:quad|qquad|thinspace|enspace|hspace\{[^{}]*\})(?![A-Za-z])|~|\s)"

# Commands of the same meaning
RENAMED = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
    "le": "leq",
    "leqslant": "leq",
    "leqq": "leq",
    "ge": "geq",
    "geqslant": "geq",
    "geqq": "geq",
    "ne": "neq",
    "lt": "<",
    "gt": ">",
    "varnothing": "emptyset",
    "lbrace": "{",
    "rbrace": "}",
    "lparen": "(",
    "rparen": ")",
    "lbrack": "[",
    "rbrack": "]",
    "vee": "lor",
    "wedge": "land",
    "degree": "circ",
    "deg": "circ",
    "ldots": "dots",
    "cdots": "dots",
    "dotsc": "dots",
    "colon": ":",
    "R": "mathbb{R}",
    "reals": "mathbb{R}",
    "bar": "overline",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "mid": "|",
    "ast": "*",
    "isin": "in",
    "lg": "log",
    "tg": "tan",
    "ctg": "cot",
    "cotg": "cot",
    "arctg": "arctan",
    "arcctg": "arccot",
    "cosec": "csc",
    "sh": "sinh",
    "ch": "cosh",
    "th": "tanh",
}

# Commands that say nothing about the value
DROPPED = set(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle "
    "textstyle scriptstyle therefore bf rm it em large Large LARGE huge small limits nolimits "
    "mathstrut middle hfill noindent mleft mright null".split()
)

# All that sets its argument in a font, or as text
TEXTS = (
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|textup|textsc"
    r"|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|mbox|hbox|operatorname"
    r"|bm|boldsymbol|underline|emph|ensuremath|color\{[a-z]+\}|textcolor\{[a-z]+\})\*?\s*(?=\{)"
)

# Functions that are written as text
FUNCTIONS = (
    r"\\text ?\{ ?((?:arc)?(?:sin|cos|tan|cot|sec|csc|tg|ctg)|sinh|cosh|tanh|log|ln|lg|gcd|lcm|max"
    r"|min) ?\}(?= ?[\w\\({^])"
)

MILLIONS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


def clean(text):
    r"""One spelling for what LaTeX spells in many ways.

    Sizes, spacing, fonts, \dfrac, 1{,}000, \frac12, a last full stop. The order of the steps
    matters.
    """
    text = _without_frame(text)
    text = _one_name_for_each_command(text)
    text = _without_phrases(text)
    text = _numbers(text)
    text = _blanks(text)
    text = _short_forms(text)
    return _signs(text)


def _without_frame(text):
    """Without what may stand around an answer: blanks, **bold**, $...$, braces."""
    text = as_latex(text).strip()
    text = re.sub(
        r"^(?:\\q?quad(?![A-Za-z])|\\[,;:! ]|\s|~)+|(?:\\q?quad|\\\\|\\[,;:! ]?|\s|~)+$", "", text
    )
    text = re.sub(r"^(\*\*|`)([^*`]*)\1$", r"\2", text)
    for _ in range(4):  # $...$, \(...\), \[...\], {...} around everything
        text = re.sub(
            r"^(?:\$\$?|\\\(|\\\[)\s*(.*?)\s*(?:\$\$?|\\\)|\\\])\s*[.,;]?$",
            r"\1",
            text,
            flags=re.DOTALL,
        )
        if text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1].strip()
    return text


def _one_name_for_each_command(text):
    r"""\dfrac and \tfrac are \frac, all fonts are \text, \left is nothing."""
    # \\frac: escaped twice
    text = re.sub(
        r"(?<!\\)\\\\(?=(?:left|right|[dt]?frac|sqrt|text|pi|cdot|times|leq?|geq?|cup|infty|in|pm"
        r"|circ)(?![A-Za-z]))",
        r"\\",
        text,
    )
    # \$ is money, $ is a delimiter.
    if not re.match(r"\$[\d.,]+$", text):
        text = re.sub(r"\\?\$", lambda m: r"\text{dollar }" if m.group() == r"\$" else "", text)
    text = text.replace(r"\%", "%").replace(r"\#", "#").replace(r"\&", "&").replace(r"\_", "_")
    text = re.sub(
        r"&(lt|gt|le|ge);",
        lambda m: {"lt": "<", "gt": ">", "le": r"\leq ", "ge": r"\geq "}[m[1]],
        text,
    )
    text = re.sub(
        r"\\([A-Za-z]+)(?![A-Za-z])",
        _command,
        text,
    )
    text = re.sub(r"\\big(cup|cap)(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"\\big[lr]?(?![A-Za-z])", "", text)
    text = re.sub(r"\{? ?(\w+) ?\\choose ?(\w+) ?\}?", r"\\binom{\1}{\2}", text)
    text = re.sub(r"(\\q?quad)(?=[a-zA-Z])", r"\1 ", text)
    text = re.sub(TEXTS, lambda _: r"\text", text)
    text = re.sub(FUNCTIONS, lambda m: _command(m) + " ", text)
    text = re.sub(r"\\text ?\{([ .:]*)\}", lambda m: " " + m[1].strip(" .") + " ", text)
    text = re.sub(r"\\text ?\{ ?([ei]) ?\}", r"\1", text)
    text = re.sub(r"\\mathbb ([A-Z])", r"\\mathbb{\1}", text)
    # \not= is \neq, \not\in is \notin, \not< is \n<: a stroke is never lost
    text = re.sub(r"\\not ?(?:\{ ?(=|<|>|\\[a-z]+) ?\}|(=|<|>|\\[a-z]+))", _negated, text)
    return re.sub(r"(?<![\^_}])\{([-+:;=<>/*])\}", r"\1", text)  # 12{:}00


def _command(match):
    """What a command is called from here on."""
    name = match[1]
    if name in DROPPED:
        return ""
    renamed = RENAMED.get(name, name)
    is_sign = name in RENAMED and len(renamed) == 1 and name not in ("lbrace", "rbrace")
    return renamed if is_sign else "\\" + renamed


def _negated(match):
    """What the negation of a relation is called from here on."""
    name = (match[1] or match[2]).lstrip("\\")
    return {"=": r"\neq ", "in": r"\notin "}.get(name, rf"\n{name} ")


def _without_phrases(text):
    """Without "the answer is" before an answer and "for all x" behind it."""
    text = re.sub(
        r"(?<=[^\s,]),? *(?:\\text ?\{ ?)?(?<![A-Za-z])for (?:all|any|every|each)(?![A-Za-z])"
        r"[^,;=]*$",
        "",
        text,
    )
    text = re.sub(
        r"^\\text ?\{ ?(?:the |my )?(?:final )?answer(?: is)? ?:? ?(?:\}|(?=[^{}]*\}$))",
        lambda m: "" if m.group().endswith("}") else r"\text{",
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(
        r"^(?:the )?(?:final )?answer(?: is)? ?[: ] ?(?=[^:])", "", text, flags=re.IGNORECASE
    )
    return text


def _numbers(text):
    """1.5x10^3, 3 million, and thousands with a separator."""
    text = re.sub(r"(\d) ?x ?(?=10 ?\^)", r"\1\\times ", text)
    text = re.sub(
        r"(\d)((?: |\\[ ,;]|~)*\\text\{ ?|(?: |\\[ ,;]|~)+)(thousand|million|billion|trillion)"
        r"(?![a-z])( ?\})?",
        lambda m: (
            m[1]
            + rf"\times 10^{{{MILLIONS[m[3]]}}}"
            + (r"\text{" if "{" in m[2] and not m[4] else "")
            + ("}" if m[4] and "{" not in m[2] else "")
        ),
        text,
    )
    # Thousands: 1,000  1{,}000  1\,000  1 000, in groups of exactly three. "1, 000" and "12,34"
    # are lists.
    group = r"(?:\{,\}|,\\! ?|\\[,;: ] ?|,|~|[ ])"
    text = re.sub(
        rf"(?<![\d.,])(?<!\d[ ~])([1-9]\d{{0,2}})((?:{group}\d{{3}})+)(?![\d])(?!,\d)(?!{group}\d)",
        _join_thousands,
        text,
    )
    return text.replace(r"{,}", ",")


def _blanks(text):
    r"""Line breaks and \quad separate answers, other blanks are one blank."""
    text = re.sub(r"\\\\(?:\[[^\]]*\])?", r" \\newline ", text)
    if r"\begin" not in text and "quad" in text:
        word = r"\\text ?\{ ?(?:and|or|,)? ?\}|\\(?:lor|land|newline)(?![A-Za-z])|[,;:=<>]"
        text = re.sub(rf"({word}) *(?:\\q?quad(?![A-Za-z])\s*)+", r"\1 ", text)
        text = re.sub(rf"(?:\\q?quad(?![A-Za-z])\s*)+(?={word}|\\text|\(?\\b?mod|$)", " ", text)
        text = re.sub(r"\\q?quad(?![A-Za-z])", " , ", text)
    text = re.sub(SPACE + "+", " ", text)
    return re.sub(r"\\dots(?![A-Za-z])", "...", text)


def _short_forms(text):
    r"""Degrees; subscripts; the short forms \frac12, \sqrt2, sqrt(2), pi."""
    text = re.sub(
        r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z])|\{? ?\\text\{o\} ?\}?)|\\circ(?![A-Za-z])$",
        r"\\text{ degree}",
        text,
    )
    # \log_23 is the logarithm of 3: a subscript is one digit long where an argument must follow.
    text = re.sub(r"(\\log ?_ ?)(10(?=\d)|[2-9])(\d+)(?= ?(?:$|[-+=,)}\]<>/]))", r"\1{\2}\3", text)
    text = re.sub(r"_ ?(\d+|[A-Za-z](?![A-Za-z]))", r"_{\1}", text)
    text = _combinations(text)
    text = re.sub(r"(\d) ?¢", r"\1\\text{ cent}", text)
    text = re.sub(r"(\d) ?\^? ?\{? ?\\text ?\{ ?(st|nd|rd|th) ?\} ?\}?", r"\1\2", text)
    text = re.sub(r"(\\text\{ degree\}) ?([CFK])(?![A-Za-z])", r"\1\\text{\2}", text)
    text = re.sub(r"\\text ?\{(\\text\{dollar \}[^{}]*)\}", r"\1", text)
    text = re.sub(r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac ?(\d) ?\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\frac ?(\\pi|[a-z]) ?(?=\d|\{)", r"\\frac{\1}", text)
    text = re.sub(r"\\frac ?(\{[^{}]*\}) ?(\d|[a-z]|\\pi)(?![a-z])", r"\\frac\1{\2}", text)
    text = re.sub(r"\\exp ?(?:\(([^()]*)\)|\{([^{}]*)\})", lambda m: f"e^{{{m[1] or m[2]}}}", text)
    text = re.sub(r"\\sqrt ?(\[[^\]]*\]) ?(\d|[a-z])", r"\\sqrt\1{\2}", text)
    text = re.sub(
        r"(\\sqrt|\^) ?(\\frac ?\{[^{}]*\} ?\{[^{}]*\}|\\pi(?![A-Za-z]))", r"\1{\2}", text
    )
    text = re.sub(r"\\sqrt ?(\d+|[a-z])", lambda m: r"\sqrt{" + m[1][0] + "}" + m[1][1:], text)
    text = re.sub(r"\\binom ?(\d|[a-z](?![a-z])) ?(\d|[a-z](?![a-z]))", r"\\binom{\1}{\2}", text)
    text = re.sub(r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(
        r"(?<![A-Za-z\\])(pi|infty|infinity|inf|oo)(?![A-Za-z])",
        lambda m: r"\pi " if m[1] == "pi" else r"\infty ",
        text,
    )
    return re.sub(r"\\text\{ ?[Ii]nfinity ?\}", r"\\infty ", text)


INDEX = r" ?(\d+|[A-Za-z](?![A-Za-z])|\{[^{}]*\})"
COMBINATION = re.compile(
    rf"(?<![A-Za-z\\}}])(?:\\text ?\{{ ?C ?\}}|C) ?(?:_{INDEX} ?\^{INDEX}|\^{INDEX} ?_{INDEX})"
    rf"|(?<![\w)}}\]\\])(?:\{{\}})? ?[_^]{INDEX} ?(?:\\text ?\{{ ?C ?\}}|C) ?_{INDEX}"
)


def _combinations(text):
    r"""C_5^2, C^2_5 and {}^5C_2 are \binom{5}{2}; C_1^2 is the square of a constant."""

    def binomial(match):
        groups = [(match[1], match[2]), (match[4], match[3]), (match[5], match[6])]
        n, k = next([x.strip("{} ") for x in pair] for pair in groups if pair[0])
        is_count = int(n) >= int(k) if n.isdigit() and k.isdigit() else re.search("[nm]", n)
        return rf"\binom{{{n}}}{{{k}}}" if is_count else match[0]

    return COMBINATION.sub(binomial, text) if "C" in text else text


def _signs(text):
    """Signs as programmers type them, and the stop or comma of the sentence around the answer."""
    text = re.sub(r"<=|=<", r"\\leq ", text)
    text = re.sub(r">=", r"\\geq ", text)
    if not re.match(r"\d+!=", text):  # 5!=120 is a factorial
        text = re.sub(r"!=", r"\\neq ", text)
    text = re.sub(r"==", "=", text)
    text = text.replace("**", "^")
    text = re.sub(r"(\d)\.(?=$|[^\d.(\\{])", r"\1", text)  # 5. and 5.% but neither 5.( nor 5...
    text = re.sub(
        r"(?<!\.)\.(?:\})?$|[,;:]$", lambda m: "}" if m.group().endswith("}") else "", text.strip()
    )
    return text.strip().strip("*`").strip() if "\\*" not in text else text.strip()


def _join_thousands(match):
    r"""1,234 and 1\,234 as 1234. Mixed separators are no number."""
    separators = set(
        re.findall(r"\{,\}|,\\!|\\[,;: ]|,|~|[ ]", re.sub(r"(\\[,;:!]) ", r"\1", match[2]))
    )
    before, after = match.string[: match.start()], match.string[match.end() :]
    open_brackets = sum(before.count(o) - before.count(c) for o, c in ("()", "[]"))
    open_brackets += before.count("\\{") - before.count("\\}")
    if "," in separators and open_brackets > 0:
        # (1,200) has two elements, and so has [100,200]; {1,000, 2,000} has two as well, for there
        # a blank separates.
        if not re.search(r", |, *\\|,~", before + after):
            return match[0]
    return match[1] + re.sub(r"\D", "", match[2]) if len(separators) == 1 else match[0]
