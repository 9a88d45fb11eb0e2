"""Units: what "5 km", "$5", "60 degrees" and "5 m/s" have besides a number.

A unit is (factor, {basic unit: power}): km is (1000, {"m": 1}). A word that is not in the table
is a unit of its own if it counts things, so that 5 apples are 5 apples and no pears. "5 negative"
and "5 maybe" are not 5 of anything; "5 dozen" is 60.
"""

import re
from fractions import Fraction

from grading.maths.literals import exact
from grading.maths.unfinished import UNFINISHED, bare
from grading.maths.words import NAMING, bends, scale

# (names, factor, basic units over and under a stroke)
TABLE = [
    ("m meter metre 米", 1, "m"),
    ("km kilometer kilometre 千米 公里", 1000, "m"),
    ("cm centimeter centimetre 厘米", "1/100", "m"),
    ("mm millimeter millimetre", "1/1000", "m"),
    ("in inch inche", "0.0254", "m"),
    ("ft foot feet", "0.3048", "m"),
    ("yd yard", "0.9144", "m"),
    ("mi mile", "1609.344", "m"),
    ("s sec second", 1, "s"),
    ("min minute 分钟", 60, "s"),
    ("h hr hour 小时", 3600, "s"),
    ("day 天", 86400, "s"),
    ("week wk", 604800, "s"),
    ("ms millisecond", "1/1000", "s"),
    ("year yr 年", 1, "year"),
    ("month", "1/12", "year"),
    ("g gram 克", 1, "g"),
    ("kg kilogram 千克 公斤", 1000, "g"),
    ("mg milligram", "1/1000", "g"),
    ("lb pound", 1, "lb"),
    ("oz ounce", "1/16", "lb"),
    ("L l liter litre", "1/1000", "m m m"),
    ("mL ml milliliter millilitre", "1/1000000", "m m m"),
    ("dollar usd", 1, "dollar"),
    ("cent ¢", "1/100", "dollar"),
    ("euro eur", 1, "euro"),
    ("yuan rmb cny 元", 1, "yuan"),
    ("yen jpy 円", 1, "yen"),
    ("degree deg 度", 1, "degree"),
    ("rad radian", 1, ""),
    ("unit", 1, "unit"),
    ("mph", "1609.344/3600", "m/s"),
    ("kmh kph kmph", "5/18", "m/s"),
    ("N newton", 1, "N"),
    ("J joule", 1, "J"),
    ("W watt", 1, "W"),
    ("kW", 1000, "W"),
    ("V volt", 1, "V"),
    ("A ampere amp", 1, "A"),
    ("Hz hertz", 1, "Hz"),
    ("C celsius", 1, "C"),
    ("F fahrenheit", 1, "F"),
    ("K kelvin", 1, "K"),
    ("mol mole", 1, "mol"),
]


def _units():
    """{name: (factor, {basic unit: power})} of the table."""
    units = {}
    for names, factor, basis in TABLE:
        over, _, under = basis.partition("/")
        powers = {}
        for basic in over.split():
            powers[basic] = powers.get(basic, 0) + 1
        for basic in under.split():
            powers[basic] = powers.get(basic, 0) - 1
        top, _, bottom = str(factor).partition("/")
        for name in names.split():
            units[name] = (Fraction(top) / Fraction(bottom or 1), powers)
    return units


UNITS = _units()

# Units that are recognised without \text around them
BARE_UNITS = "km|cm|mm|kg|mg|mL|ml|ft|yd|mi|min|sec|hr|mph|Hz|kW|lb|oz|rad|deg"

# The unit at the end of a text: words in \text, known units, m/s, cm^2
TAIL = re.compile(
    r"(?: ?(?:\\text\{[^{}\\\d=<>]*(?:\^\{?-?\d\}?)?[^{}\\\d=<>]*\}"
    rf"|(?<=[\d) ])(?:{BARE_UNITS})(?![A-Za-z])"
    r"|(?<=[\d}] )(?:m|g|s|h|L|N|J|W)(?![A-Za-z])"
    r"|(?<=[\d}] )[A-Za-z]{3,}(?: [A-Za-z]+){0,2}"
    r"|(?<=[}a-zA-Z])\^ ?\{?-?[1-4]\}?"
    r"|(?<=[\d)} ])[^\W\d_a-zA-Z]{1,2}"
    r"|(?<=[}a-zA-Z0-9]) ?/ ?(?=\\text|[a-z]+$|[a-z]+\^)"
    r"|(?<=/)[a-z]+"
    r"|\\cdot ?(?=\\text)))+$"
)

# Chinese, Japanese and Korean words for things that are counted
COUNTERS = set("个個人名位只隻本张枚条條块塊次回岁歳种種件辆輛棵朵头頭匹页頁支台座间間组개명")
# Plurals without an s, and what may stand behind a unit: 7 years old
PLURALS = set(
    "people men women children feet mice fish sheep deer dice data vertices matrices".split()
)
BEHIND = set("old long tall wide high deep each apart away left total altogether".split())
ADJECTIVE = re.compile(r".*(?:ive|al|ic|id|ed|ous|able|ible|ful|less|ing|ary|est)")
# \frac{\text{km}}{\text{h}}, and with known units \frac{km}{h}
STROKE = re.compile(
    r"\\frac ?\{ ?(?:\\text ?\{([^{}]*)\}|([a-z]{1,3})) ?\} ?"
    r"\{ ?(?:\\text ?\{([^{}]*)\}|([a-z]{1,3}))( ?\^ ?\{?\d\}?)? ?\}$"
)


def split_unit(text, trusted=""):
    """(text without its unit, its unit), or (text, None) where there is no unit.

    The words of the trusted text, the gold answer, are units whatever they are.
    """
    words, rest = [], text
    if len(text) > 200:
        return text, None
    rest = STROKE.sub(_on_one_line, rest)
    money = re.match(
        r"(-?) ?(?:\\text\{ ?(dollar|euro|pound|USD) ?\}|\$|USD(?= )) ?(?=[-\d.\\(])", rest
    )
    if money:
        words.append(money[2] if money[2] != "pound" else "sterling")
        rest = money[1] + rest[money.end() :]
        words[-1] = words[-1] or "dollar"
    tail = TAIL.search(rest)
    if tail and tail.start() > 0:
        words.append(tail.group())
        rest = rest[: tail.start()]
    elif not words:
        return text, None
    phrase = re.sub(
        r"\\text|\\cdot|[{}().]", lambda m: " " if m.group() != "." else "", " ".join(words)
    ).strip()
    phrase = re.sub(r"\bsq\b", "square", phrase)
    phrase = re.sub(r"\bper\b", "/", phrase)
    if (
        not rest.strip()
        or not phrase
        or phrase[0] in "^/"
        or UNFINISHED["function"].search(rest)
        or re.search(r"[a-z]", bare(rest))
        and not money
    ):
        return text, None
    number = exact(rest)
    times, phrase = _scaled(phrase)
    if times is not None:
        if number is None:
            return text, None
        number = (number[0] * times, -1)
        rest = str(number[0])
        if not phrase:
            return rest, None
    trusted = {"sterling", *re.findall(r"[^\W\d_]+", trusted.lower())}
    if not _counts(phrase, trusted, number is not None and abs(number[0]) <= 1):
        return text, None
    unit = _unit(phrase)
    return (rest.strip(), unit) if unit else (text, None)


def _on_one_line(match):
    r"""\frac{\text{km}}{\text{h}} as \text{km}/\text{h}; letters may be variables: they stay."""
    over, under = match[1] or match[2], match[3] or match[4]
    if match[1] is None and not (over in UNITS and under in UNITS and len(over + under) > 2):
        return match[0]
    return rf"\text{{{over}}}/\text{{{under}{re.sub('[ {}]', '', match[5] or '')}}}"


def _scaled(phrase):
    """(60, "eggs") for "5 dozen eggs", without the 5; (None, phrase) where no word scales."""
    first, _, others = phrase.partition(" ")
    # A second is a time, and so is a quarter of an hour for some: only what is no unit scales.
    times = scale(first) if first not in UNITS else None
    return (times, re.sub("^of ", "", others.strip())) if times is not None else (None, phrase)


def _known(word):
    """The name of a word in the table, or None. Letters keep their case: K is no k."""
    short = len(word) < 3
    spellings = (word, word.rstrip("s")) if not short else (word,)
    lower = () if short else (word.lower(), word.lower().rstrip("s"))
    return next((w for w in (*spellings, *lower) if w in UNITS), None)


def _counts(phrase, trusted, is_one):
    """Whether a phrase is a unit: known units, or a noun in the plural and what belongs to it.

    K is kelvin, but 5 K may be 5000: it is a unit only where the gold answer has it.
    """
    if len(phrase.split()) > 4:
        return False
    under, counted = False, False
    for word in re.findall(r"/|\^ ?-?\d|[^\s/^]+", phrase):
        if word == "/" or word.startswith("^") or word == "of" and counted:
            under = under or not word.startswith("^")  # and any noun may follow
        elif word.lower() in trusted and not bends(word):
            counted = True
        elif _known(word) and word != "K" or word in ("square", "cubic"):
            counted = True
        elif word in COUNTERS or word.lower() in PLURALS:
            counted = True
        elif not re.fullmatch(r"[A-Za-z]{2,}(?:[-'][A-Za-z]+)*", word):
            return False
        elif bends(word) or word.lower() in NAMING:
            return False
        elif re.search(r"[^su']s$", word.lower()) and not word.isupper():
            counted = True
        elif word.lower() in BEHIND and counted or under:
            continue
        elif is_one and not ADJECTIVE.fullmatch(word.lower()):
            counted = True
        elif counted:  # 5 apples nope; but red apples, for the noun comes last
            return False
    return counted


def _unit(phrase):
    """(factor, powers) of the words of a phrase, or None: "square" is a unit only with another."""
    # The words one by one: "square m", "m^2", "per", "/" change the power, the rest are units.
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
        if word.lower() in BEHIND and last:
            continue
        last = _known(word) or word.lower().rstrip("s")
        size, basis = UNITS.get(last, (Fraction(1), {last: 1}))
        factor *= size ** (power * sign)
        for basic, p in basis.items():
            powers[basic] = powers.get(basic, 0) + p * power * sign
        power = 1
    if power != 1:
        return None
    return factor, {basic: p for basic, p in powers.items() if p}


# 2 hours 30 minutes, 5 ft 6 in
MEASURE = re.compile(
    r"(\d+(?:\.\d+)?) ?(?:\\text ?\{ ?([a-zA-Z]+)\.? ?(?:and|,)? ?\}|([a-zA-Z]+)\.?)"
    r" ?(?:,|and(?![a-z])|\\text ?\{ ?and ?\})? ?"
)


def added_up(text):
    r"""A number of units that get smaller, as one number: 150\text{ minute} for 2 hours 30 minutes.

    None for any other text.
    """
    parts, at = [], 0
    while (match := MEASURE.match(text, at)) and len(parts) < 5:
        parts.append((Fraction(match[1]), _known(match[2] or match[3])))
        at = match.end()
    if len(parts) < 2 or at < len(text) or not all(unit for _, unit in parts):
        return None
    sizes = [UNITS[unit][0] for _, unit in parts]
    bases = [UNITS[unit][1] for _, unit in parts]
    is_one_kind = all(basis == bases[0] for basis in bases)
    if not is_one_kind or any(x <= y for x, y in zip(sizes, sizes[1:], strict=False)):
        return None
    total = sum(number * size for (number, _), size in zip(parts, sizes, strict=True)) / sizes[-1]
    number = total.numerator if total.denominator == 1 else f"{total.numerator}/{total.denominator}"
    return rf"{number}\text{{ {parts[-1][1]}}}"
