r"""Where an answer stands in a response: in boxes, after ####, after "the answer is"; gold answers.

Runs in the calling process: linear time, no parser. verify.final_answer puts the pieces together.
"""

import re

from grading.bounds import MAX_ANSWER
from grading.maths.brackets import closing_brace, split

# Only the end of a long response is searched: one that repeats \boxed a million times must not cost
# a second.
SEARCHED = 200_000  # characters

THINK = re.compile(r"<(/?)\s*think(?:ing)?\s*>", re.IGNORECASE)

# What separates the parts of an answer
PART = re.compile(r"[,;]|\\text\s*\{\s*and\s*\}|(?<![A-Za-z\\])and(?![A-Za-z])")

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")

STATED = re.compile(
    # the answer to this problem is, Final result:
    r"\b(?:answers?|final (?:result|value|solution)|correct (?:option|choice))"
    r"(?: to (?:the|this)(?: \w{1,20}){1,2}?)?[*_]{0,3}\s{0,9}"
    r"(?:(?:(?:is|are|equals)\b|(?:would|should|must|will) be\b|[:=])\s*:?\s*"
    r"(?:(?:therefore|thus|then|simply|just|indeed|clearly)\b,?\s*)?"
    # Answer $42$
    r"|(?=\$|\\[(\[]))"
    # a heading, and the line below it
    r"|^[#*_ ]{0,9}(?:the )?(?:final )?answer[*_: ]{0,9}\n\s*",
    re.IGNORECASE | re.MULTILINE,
)


def after_thinking(response):
    """What stands after the last </think>; nothing if a <think> was not closed."""
    tags = list(THINK.finditer(response))
    if not tags:
        return response
    return response[tags[-1].end() :] if tags[-1][1] else ""


def find_boxes(response):
    r"""[(start, end, content)] of the closed outer boxes; None if the last box is not closed.

    In nested boxes, the content is that of the innermost.
    """
    if not isinstance(response, str):
        return []
    found = []
    at = max(0, len(response) - SEARCHED)
    while True:
        start = BOX.search(response, at)
        if start is None:
            return found
        at = start.end()
        if at < len(response) and response[at] != "{":  # \boxed 5
            word = re.compile(r"[^\s{}$\\]+").match(response, at)
            if word:
                found.append((start.start(), word.end(), word.group()))
                at = word.end()
            continue
        end = closing_brace(response, at)
        if end is None:
            return None
        content = response[at + 1 : end].strip()
        inner = find_boxes(content) if BOX.search(content) and len(content) <= MAX_ANSWER else []
        found.append((start.start(), end + 1, inner[-1][2] if inner else content))
        at = end + 1


def line_after_hashes(response):
    """What follows the last #### on its line; None if there is none, or if it is a heading."""
    if "####" not in response:
        return None
    after = response.rpartition("####")[2]
    line = after.strip().partition("\n")[0].strip().strip("*").strip()
    # "#### Step 1" above "the answer is 42" is a heading of the fourth level.
    if STATED.search("####" + after) and re.search("[A-Za-z]{3}", line):
        return None
    return line


def stated(response):
    """What follows the last "the answer is", up to the end of the sentence, or None."""
    matches = list(STATED.finditer(response))
    if not matches:
        return None
    at = matches[-1]
    rest = response[at.end() : at.end() + 2 * MAX_ANSWER].lstrip()
    display = re.match(r"\$\$\s*(.*?)\s*\$\$|\\\[\s*(.*?)\s*\\\]", rest, re.DOTALL)
    line = display[1] or display[2] or "" if display else rest.partition("\n")[0]
    # A sentence ends at a stop that is followed by a blank: 3.14 and x.y do not end one.
    end = r"[.!?](?:[\s*]|$)|,?\s+\(?(?:because|since|which|as|so)\s"
    line = re.split(end, line.strip(), maxsplit=1)[0].strip().strip("*").strip()
    # Answer: The largest number is 34.
    sentence = re.fullmatch(r"[A-Z][^=]*\b(?:is|are|equals) ((?:[$\d\\(*-]|[A-Z]$).*)", line)
    if sentence and not re.search(r"\b(?:not|either|neither|or)\b", line):
        line = sentence[1].strip("* ")
    return line or None


# What may stand between boxes that are one answer: "\boxed{3} or \boxed{4}"
BESIDE = re.compile(
    r"(?:[\s,;&$.]|\\[,;!\[\]()\\ ]|\\quad|\bor\b|\band\b|\\text\s*\{\s*(?:or|and)\s*\})*"
)
# and what may not, where the gold answer has as many parts: the end of a sentence, second thoughts
APART = re.compile(
    r"[.!?]\s|\n\s*\n|n't\b|\b(?:no|not|nor|wait|but|or|wrong|actually|instead|rather|hence|so"
    r"|thus|then|therefore|correct\w*|mistake|first|check\w*|guess\w*|try|tried|oops|sorry)\b",
    re.IGNORECASE,
)
SPACES = re.compile(r"(?:[\s~?.,;]|\\[,;:! ]|\\q?quad(?![A-Za-z])|\\text\s*\{\s*\}|\{\s*\})*")


def last_boxes(response, boxes, gold=""):
    r"""The answer in boxes: the last one, or the last ones, as a list, if they stand side by side.

    As in "\boxed{3} or \boxed{4}". An empty box beside a full one leaves no answer. Words may stand
    between boxes where the gold answer has as many parts as the last sentence has boxes.
    """
    contents = _run(response, boxes, lambda between: BESIDE.fullmatch(between))
    parts = len(split(gold, PART)) if gold else 1
    if parts > len(contents) and len(split(contents[-1], PART)) == 1:
        apart = _run(response, boxes, lambda between: not APART.search(between))
        if len(apart) == parts:
            contents = _with_names(response, boxes[-parts:]) if "=" in gold else apart
    if any(SPACES.fullmatch(content) for content in contents):
        return ""
    if all(content == contents[0] for content in contents):
        return contents[-1]
    return " , ".join(contents)


def _with_names(response, boxes):
    r"""The contents of boxes, with their names if each has one: $x = \boxed{1}$ is x = 1."""
    name = r"([A-Za-z](?:_\w|_\{\w+\})?) ?= ?\$?$"
    named = [re.search(name, response[max(0, start - 20) : start]) for start, _, _ in boxes]
    if not all(named):
        return [content for _, _, content in boxes]
    return [f"{m[1]} = {content}" for m, (_, _, content) in zip(named, boxes, strict=True)]


def _run(response, boxes, joined):
    """The contents of the last boxes, as far back as `joined` says of what is between two."""
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if start - end > 200 or not joined(response[end:start]) or len(contents) > 50:
            break
        contents.insert(0, content)
    return contents


def gold_answer(gold, answer=""):
    """The answer in a gold field, or None. `answer` is what it is compared with (see last_boxes).

    It stands after the last #### of a GSM8K solution, in its last box, or is the whole text.
    """
    if isinstance(gold, bool) or not isinstance(gold, (str, int, float)):
        return None
    gold = after_thinking(str(gold))
    if "####" in gold:
        gold = gold.rpartition("####")[2]
    boxes = find_boxes(gold)
    if boxes:
        gold = last_boxes(gold, boxes, answer)
    return gold.strip() or None
