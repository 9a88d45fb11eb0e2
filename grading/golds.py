"""Gold answers as data sets have them: read as text, or refused where no answer could equal them.

Such a row would be wrong whatever a model answers. A program, a worked solution that states no
answer and an empty line after #### are found before training, with the reason.
"""

import ast
import math
import re
from decimal import Decimal

from grading.answers import find_boxes, gold_answer, stated
from grading.bounds import MAX_ANSWER
from grading.programs.fields import listed

PROGRAM = re.compile(
    r"```|^\s*(?:(?:async )?def \w+\(|class \w+.*:\s*$|import [\w.]+(?:,| as |\s*$)|"
    r"from [\w.]+ import |#include\b|using namespace |public (?:static|class) |int main\b)"
    r"|\b(?:print|input)\(|\bstd::|System\.out\.",
    re.MULTILINE,
)
FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL)
WORD = re.compile(r"(?<![\\\w])[^\W\d_][^\W\d_']+")
CHARACTERS = re.compile("[\u3040-\u9fff]")  # of scripts without blanks between words
SENTENCE_ENDS = re.compile(r"[\w)\]}$%][.!?]\s+(?=[^\Wa-z\d_]|[\\$(])|[。！？](?=.)")
# Words of a way to a result, which the name of a result does without
REASONS = re.compile(
    r"\b(?:therefore|thus|hence|so|we|let|let's|gives?|gets?|substituting|solving|adding)\b",
    re.IGNORECASE,
)
STEPS = re.compile(r"\b(?:because|since|then|first|next|finally)\b", re.IGNORECASE)
FEW_WORDS, MANY_WORDS = 8, 25


def read_gold(value):
    """A gold answer (text, a number, a list of answers) as text.

    ValueError, saying why, where it is none or where no answer could equal it.
    """
    text = _as_text(value).strip()
    answer = gold_answer(text)
    if answer is None:
        marked = "####" in text or find_boxes(text)
        raise ValueError("no answer stands at its mark (#### or box)" if marked else "no answer")
    if answer == text:
        if _is_program(text):
            raise ValueError("the answer is a program: that needs tests, and --task code")
        text = answer = stated(text) or text
        if _is_worked(text):
            raise ValueError("the answer is a text without a box, #### or a stated answer")
    if len(answer) > MAX_ANSWER:
        raise ValueError(f"the answer is longer than {MAX_ANSWER} characters")
    return text


def _as_text(value):
    """A value of a row as the text that it stands for."""
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if isinstance(value, str) and re.match(r"\s*\[\s*['\"]", value):  # a list, in CSV
        read = listed(value)
        value = read if isinstance(read, list) and all(isinstance(x, str) for x in read) else value
    if isinstance(value, (list, tuple)) and value:
        return ", ".join(_as_text(item) for item in value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValueError("no answer")
    if not isinstance(value, int) and not math.isfinite(value):
        raise ValueError("no answer")
    return f"{Decimal(str(value)):f}" if "e" in str(value).lower() else str(value)


def _is_program(text):
    if PROGRAM.search(text):
        return True
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, (ast.For, ast.While, ast.With, ast.Try)) for node in body)


def _is_worked(text):
    """Whether a text is the way to an answer, in sentences, rather than an answer in words."""
    plain = FORMULA.sub(" ", text)
    words = len(WORD.findall(plain)) + len(CHARACTERS.findall(plain)) // 2
    sentences = SENTENCE_ENDS.search(text) or "\n" in text.strip()
    steps = REASONS.search(plain) or sentences and STEPS.search(plain)
    few = words < FEW_WORDS // 2 if sentences else words < FEW_WORDS
    return words >= MANY_WORDS or not few and bool(steps or sentences and words >= FEW_WORDS)
