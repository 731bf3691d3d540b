"""How numbers are written: in words on the French side, as they are said; on the English side in digits from 13 up.

The ASR CTC writes what is heard, so "8 h 30" becomes "huit heures trente" before a voice reads it. The English side is
for readers: "thirty-six" becomes "36" and "twenty twenty seven" "2027", while numbers up to twelve stay as they were
written, and so do times, prices and decimals that somebody wrote in digits.
"""

from __future__ import annotations

import re

from scripts.command_line import require

# 10 000, 10.000 and 10,000 are all ten thousand where three digits follow; 5,50 is not.
THOUSANDS = re.compile(r"(?<=\d)[ .,](?=\d{3}(?!\d))")
TIME = re.compile(r"\b(\d{1,2}) ?(?:h|:) ?(\d{2})\b|\b(\d{1,2}) ?h\b", re.IGNORECASE)
ONE_HOUR = re.compile(r"\b1(?= heure\b)")
MONEY_BEFORE = re.compile(r"([$€£]) ?(\d+(?:[.,]\d+)?)")
MONEY_AFTER = re.compile(r"(\d+(?:[.,]\d+)?) ?([$€£])")
CURRENCIES = {"$": "dollars", "€": "euros", "£": "livres"}
ORDINAL = re.compile(r"\b(\d+)(?:er|re|ère|e|è|ème|ième)\b")
NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
UNITS = {"km": "kilomètres", "kg": "kilos", "cm": "centimètres", "m": "mètres"}

ONES = dict(zip(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], range(1, 10), strict=True))
TEENS = dict(
    zip(["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"], range(13, 20), strict=True)
)
TENS = dict(
    zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True)
)
_TENS = "|".join(TENS)
_ONES = "|".join(ONES)
_TWO_DIGITS = rf"(?:(?:{_TENS})(?:[ -](?:{_ONES}))?|{'|'.join(TEENS)})"
# Not a part of an ordinal ("twenty-first"), nor of a number that goes on ("sixty thousand", "one hundred and sixty").
_ENDS = r"(?![ -]?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|hundred|thousand|million|billion)\b)"
_BEGINS = r"(?<!hundred and )(?<!hundred )(?<!thousand )(?<!-)"
YEAR = re.compile(rf"\b(nineteen|twenty) ({_TWO_DIGITS})\b{_ENDS}", re.IGNORECASE)
WRITTEN_OUT = re.compile(rf"{_BEGINS}\b({_TWO_DIGITS})\b{_ENDS}", re.IGNORECASE)


def _french(number: str) -> str:
    words = require("num2words").num2words
    value = float(number.replace(",", ".")) if re.search(r"[.,]", number) else int(number)
    return words(value, lang="fr")


def _french_time(match: re.Match[str]) -> str:
    hours, minutes = match[1] or match[3], match[2]
    said = "une heure" if int(hours) == 1 else f"{_french(hours)} heures"
    if int(hours) == 0:
        said = "zéro heure"
    return f"{said} {_french(minutes)}" if minutes and int(minutes) else said


def _french_money(number: str, sign: str) -> str:
    amount, _, cents = number.replace(".", ",").partition(",")
    name = CURRENCIES[sign] if int(amount) > 1 else CURRENCIES[sign].removesuffix("s")
    feminine = "une" if sign == "£" and amount == "1" else _french(amount)
    return f"{feminine} {name} {_french(cents)}" if cents and int(cents) else f"{feminine} {name}"


def spoken_french(text: str) -> str:
    """A French sentence with its numbers as words.

    Raises:
        ValueError: digits that belong to no number one could read ("B2B").
    """
    text = THOUSANDS.sub("", text)
    text = ONE_HOUR.sub("une", TIME.sub(_french_time, text))
    text = MONEY_BEFORE.sub(lambda match: _french_money(match[2], match[1]), text)
    text = MONEY_AFTER.sub(lambda match: _french_money(match[1], match[2]), text)
    text = re.sub(r"(?<=\d) ?%", " pour cent", text)
    text = re.sub(rf"(?<=\d) ?({'|'.join(UNITS)})\b", lambda match: f" {UNITS[match[1]]}", text)
    ordinals = require("num2words").num2words
    text = ORDINAL.sub(lambda match: ordinals(int(match[1]), lang="fr", to="ordinal"), text)
    if re.search(r"[^\W\d_]\d|\d[^\W\d_]", text):
        raise ValueError(f"numbers and letters in one word: {text!r}")
    return NUMBER.sub(lambda match: _french(match[0]), text)


def _value(words: str) -> int:
    total = 0
    for word in re.split("[ -]", words.lower()):
        total += (ONES | TEENS | TENS)[word]
    return total


def written_english(text: str) -> str:
    """An English sentence with numbers from 13 to 99, and years, in digits."""
    text = YEAR.sub(lambda match: f"{_value(match[1])}{_value(match[2])}", text)
    return WRITTEN_OUT.sub(lambda match: str(_value(match[1])), text)
