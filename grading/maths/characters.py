r"""Signs of Unicode as LaTeX: x⁴ is x^{4}, （1，2） is (1,2), α is \alpha, ≮ is \not <.

What Unicode itself knows of a character decides: its name, its category, what it is composed of.
SIGNS has only what no such rule gives. Digits of other scripts and fonts stay as they are: 5 is 5.
"""

import re
import unicodedata

SIGNS = {
    "−": "-",
    "–": "-",
    "﹣": "-",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": r"\div ",
    "∞": r"\infty ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "≤": r"\leq ",
    "≥": r"\geq ",
    "⩽": r"\leq ",
    "⩾": r"\geq ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "∖": r"\setminus ",
    "√": r"\sqrt ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "∨": r"\lor ",
    "∧": r"\land ",
    "…": "...",
    "€": r"\text{euro }",
    "£": r"\text{pound }",
    "’": "'",
    "′": "'",
    "“": '"',
    "”": '"',
    "⁄": "/",
    "∶": ":",
    "、": ",",
    "。": ".",
    "【": "[",
    "】": "]",
    "〈": r"\langle ",
    "〉": r"\rangle ",
}

# The Greek letters, as Unicode names them and LaTeX spells them
GREEK = {
    unicodedata.name(chr(code)).split()[-1].lower().replace("lamda", "lambda")
    for code in [*range(0x3B1, 0x3C2), *range(0x3C3, 0x3CA)]
}

RAISED = {"<super>": "^", "<sub>": "_"}


def as_latex(text):
    """A text with its signs of Unicode as LaTeX."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    return re.sub(r"(?<=(\w))?[^\x00-\x7f]+(?=(\w))?", _replaced, text)


def _replaced(match):
    """A run of characters beyond ASCII as LaTeX. A number that is cut by one is not joined."""
    new = _runs(match.group())
    return match.group() if not new and match[1] and match[2] else new


def _runs(text):
    """Characters beyond ASCII, where neighbours that are raised or lowered make one exponent."""
    out, level, run = [], "", ""
    for character in text:
        kind, _, parts = unicodedata.decomposition(character).partition(" ")
        now = RAISED.get(kind, "") if character not in SIGNS else ""
        if level and now != level:
            out.append(f"{level}{{{run}}}")
            run = ""
        level = now
        if now:
            run += "".join(_sign(chr(int(code, 16))) for code in parts.split())
        else:
            out.append(_sign(character))
    return "".join(out) + (f"{level}{{{run}}}" if level else "")


def _sign(character):
    """One character as LaTeX; itself if it is none that LaTeX has another spelling for."""
    if character in SIGNS or character.isascii():
        return SIGNS.get(character, character)
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if category == "Zs":
        return " "
    # Characters without width; but those that turn the direction of reading hide what is read.
    is_plain = unicodedata.bidirectional(character) in ("BN", "L", "R", "AL")
    if category == "Cf" and is_plain or "VARIATION SELECTOR" in name:
        return ""
    letter = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name)
    if letter and letter[2].lower().replace("lamda", "lambda") in GREEK:
        command = letter[2].lower().replace("lamda", "lambda")
        return "\\" + (command if letter[1] == "SMALL" else command.title()) + " "
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    if codes[-1:] == ["0338"]:  # a stroke through a relation
        return r"\not " + _sign(chr(int(kind, 16)))
    parts = "".join(chr(int(code, 16)) for code in codes)
    if kind == "<fraction>" and re.fullmatch(r"\d+⁄\d+", parts):
        return r"\frac{" + parts.replace("⁄", "}{") + "}"
    if name.startswith("DOUBLE-STRUCK CAPITAL") and len(parts) == 1:
        return rf"\mathbb{{{parts}}}"
    if kind == "<font>" and re.fullmatch("[A-Za-z]", parts):
        return parts
    if kind == "<wide>" and re.fullmatch(r"[!-/:-@\[-`{-~]", parts) and parts != "-":
        return parts
    return character
