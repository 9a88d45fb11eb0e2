"""Units: what "5 km", "$5", "60 degrees" and "5 m/s" have besides a number.

A unit is (factor, {basic unit: power}): km is (1000, {"m": 1}). A word that is not in the table
is a unit of its own, so that 5 apples are 5 apples and no pears.
"""

import re
from fractions import Fraction

from grading.maths.unfinished import UNFINISHED, bare

# (names, factor, basic units over and under a stroke)
TABLE = [
    ("m meter metre", 1, "m"),
    ("km kilometer kilometre", 1000, "m"),
    ("cm centimeter centimetre", "1/100", "m"),
    ("mm millimeter millimetre", "1/1000", "m"),
    ("in inch inche", "0.0254", "m"),
    ("ft foot feet", "0.3048", "m"),
    ("yd yard", "0.9144", "m"),
    ("mi mile", "1609.344", "m"),
    ("s sec second", 1, "s"),
    ("min minute", 60, "s"),
    ("h hr hour", 3600, "s"),
    ("day", 86400, "s"),
    ("week wk", 604800, "s"),
    ("ms millisecond", "1/1000", "s"),
    ("year yr", 1, "year"),
    ("month", "1/12", "year"),
    ("g gram", 1, "g"),
    ("kg kilogram", 1000, "g"),
    ("mg milligram", "1/1000", "g"),
    ("lb pound", 1, "lb"),
    ("oz ounce", "1/16", "lb"),
    ("L l liter litre", "1/1000", "m m m"),
    ("mL ml milliliter millilitre", "1/1000000", "m m m"),
    ("dollar usd", 1, "dollar"),
    ("cent", "1/100", "dollar"),
    ("euro eur", 1, "euro"),
    ("degree deg", 1, "degree"),
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
    r"|(?<=[}a-zA-Z])\^ ?\{?-?[23]\}?"
    r"|(?<=[}a-zA-Z0-9]) ?/ ?(?=\\text|[a-z]+$|[a-z]+\^)"
    r"|(?<=/)[a-z]+"
    r"|\\cdot (?=\\text)))+$"
)

# Words that make a sentence of what follows a number, not a unit: "5 or 6", "5 is wrong"
NO_UNIT = set(
    "is are was not or and maybe but if then else ignore previous all instructions because correct "
    "wrong right answer reward true false the a an to "
    "be can could should would possibly probably perhaps otherwise either neither unless except "
    "plus minus times divided squared cubed "
    "at most least than more less about approximately around nearly roughly almost over under up "
    "only exactly incorrect false no none any every some "
    "etc vs versus other others something anything everything nothing whatever unknown undefined "
    "infinite "
    "thousand million billion trillion hundred dozen half third quarter score grade".split()
)


def split_unit(text):
    """(text without its unit, its unit), or (text, None) where there is no unit."""
    words, rest = [], text
    if len(text) > 200:
        return text, None
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
    phrase = re.sub(r"\bsquared?|\bsq\b", "square", phrase)
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
        if word.lower() in NO_UNIT or len(phrase.split()) > 4:
            return text, None
        last = next(
            (
                w
                for w in (word, word.lower(), word.rstrip("s"), word.lower().rstrip("s"))
                if w in UNITS
            ),
            word.lower().rstrip("s"),
        )
        size, basis = UNITS.get(last, (Fraction(1), {last: 1}))
        factor *= size ** (power * sign)
        for basic, p in basis.items():
            powers[basic] = powers.get(basic, 0) + p * power * sign
        power = 1
    return rest.strip(), (factor, {basic: p for basic, p in powers.items() if p})
