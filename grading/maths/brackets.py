"""Brackets: where they close, how deep they nest, and what stands outside all of them.

The lowest room: text in, places and pieces out, no mathematics.
"""

import re


def closing_brace(text, opening):
    """Where the brace at `opening` is closed, or None."""
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None


def encloses(text, opening, closing):
    """Whether the first bracket of text is closed by its last one: (a)(b) is not enclosed."""
    inside = text[len(opening) : len(text) - len(closing)]
    depth = 0
    for token in re.findall(r"\\langle|\\rangle|\\[{}]|[()\[\]{}]", inside):
        depth += 1 if token in ("\\langle", "\\{", "(", "[", "{") else -1
        if depth < 0:
            return False
    return True


BRACKET = re.compile(
    r"\\begin(?![A-Za-z])|\\end(?![A-Za-z])|\\langle|\\rangle|\\[{}]|[(\[{]|[)\]}]"
    r"|\\(?:text)\{[^{}]*\}"
)


def split(text, separator):
    r"""Split where the compiled separator matches outside all brackets; pieces are stripped.

    \{ and \langle are brackets too.
    """
    if separator.search(text) is None:  # most often
        return [text.strip()]
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        if depth <= 0:
            match = separator.match(text, at)
            if match and match.end() > at:
                parts.append(text[start:at].strip())
                start = at = match.end()
                continue
        match = BRACKET.match(text, at)
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


def top_level(text, pattern):
    """The matches of `pattern` outside all brackets, as text."""
    found = []
    parts = split(text, pattern)
    at = 0
    for part in parts[:-1]:
        at = text.index(part, at) + len(part)
        match = re.compile(r"\s*(" + pattern.pattern + ")").match(text, at)
        found.append(match[1] if match else "?")
        at = match.end() if match else at
    return found


def nesting(text):
    """How deep the brackets nest at the deepest place."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest
