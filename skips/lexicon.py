"""Phrases that tell what is being said: an ad, a welcome, a goodbye, a look back. Weights are log-odds by hand."""

from __future__ import annotations

import math
import re
from functools import cache

# Patterns over lower-case words without punctuation; "N" stands for a number.
CUES: dict[str, tuple[tuple[str, float], ...]] = {
    "ad": (
        (r"sponsored by", 3.0),
        (r"brought to you by", 3.0),
        (r"(?:today s|our|this episode s|this week s|the) sponsors?\b", 2.0),
        (r"sponsor of (?:the|this|our|today s) (?:show|podcast|episode|program)", 3.0),
        (r"support for (?:this|the|today s) (?:show|podcast|episode)", 3.0),
        (r"(?:promo|promotional|discount|coupon|offer|voucher) ?codes?\b", 3.0),
        (r"(?:use|enter|with) (?:the |my |our )?code\b", 2.5),
        (r"N (?:percent|%) off", 2.5),
        (r"\bN dollars off", 2.5),
        (r"free (?:trial|shipping|delivery|month)", 2.0),
        (r"(?:dot com|com|dot org|dot co|dot example) slash", 3.0),
        (r"terms (?:and conditions )?apply", 3.0),
        (r"money back guarantee", 2.5),
        (r"sign up (?:today|now|at|for free)", 1.5),
        (r"(?:go|head|head over|visit us) (?:to|at|on) \w+ (?:dot )?com", 2.0),
        (r"\w+ dot (?:com|org|net|co|io|example)\b", 1.0),
        (r"(?:order|subscribe|try it|get yours|get started|download it) (?:today|now)\b", 1.5),
        (r"first (?:order|purchase|month|box)", 1.5),
        (r"(?:that s|spelled) (?:\w ){3,}", 1.0),
        (r"link in the (?:show notes|description)", 1.5),
        (r"limited time", 1.5),
        (r"patreon", 1.5),
        (r"back to the show", 2.0),
        (r"(?:präsentiert|unterstützt|gesponsert) von", 3.0),
        (r"(?:gutschein|rabatt)codes?", 3.0),
        (r"N prozent (?:rabatt|günstiger)", 2.5),
        (r"patrocinado por", 3.0),
        (r"código (?:promocional|de descuento)", 3.0),
        (r"N por ciento de descuento", 2.5),
        (r"sponsorisé par|en partenariat avec", 3.0),
        (r"code (?:promo|de réduction)", 3.0),
        (r"N pour cent de réduction", 2.5),
    ),
    "intro": (
        (r"welcome (?:back )?to\b", 2.5),
        (r"you (?:re|are) listening to", 2.5),
        (r"this is (?:episode|the \w+ (?:show|podcast))", 2.0),
        (r"i m your host|my name is|i am your host", 1.5),
        (r"(?:hello|hi|hey) (?:everyone|everybody|and welcome|listeners)", 1.5),
        (r"herzlich willkommen|willkommen (?:zu|bei)", 2.5),
        (r"bienvenid[oa]s? a|bienvenue (?:dans|à|sur)", 2.5),
    ),
    "outro": (
        (r"thank(?:s| you)(?: so much| all)? for (?:listening|tuning in|joining)", 3.0),
        (r"(?:see|talk to|catch) you (?:next|again|soon)", 2.5),
        (r"until next (?:time|week)", 2.5),
        (r"\bgoodbye\b|\bbye bye\b", 2.0),
        (r"rate and review|leave (?:us )?a review|subscribe wherever|follow us on", 2.0),
        (r"that was\b", 0.8),
        (r"that s (?:all|it) for (?:today|this week|now)", 2.5),
        (r"(?:produced|edited|mixed) by", 1.5),
        (r"danke fürs zuhören|bis zum nächsten mal|auf wiederhören", 3.0),
        (r"gracias por escuchar|hasta la próxima", 3.0),
        (r"merci (?:de nous avoir|d avoir) écouté|à la prochaine", 3.0),
    ),
    "recap": (
        (r"previously on", 3.5),
        (r"last (?:time|week|episode) (?:on|we|you)", 2.0),
        (r"in (?:our|the) (?:last|previous) episode", 2.5),
        (r"as you (?:may|might) (?:recall|remember)", 1.0),
        (r"zuletzt bei|was bisher geschah", 3.5),
        (r"anteriormente en|en el episodio anterior", 3.5),
        (r"dans l épisode précédent|précédemment", 3.5),
    ),
}
# What sounds like an ad and is not one.
FALSE_FRIENDS = (
    r"sponsor(?:s|ed)? (?:of|by) (?:the|a|this) (?:bill|amendment|law|resolution|motion|senator|state)",
    r"(?:source|computer|machine|legacy|building|penal|criminal|tax|dress|genetic|morse) code",
    r"subscribe to the (?:theory|idea|view|notion)",
    r"code of (?:conduct|ethics|honou?r|silence)",
)
BIAS = 1.5  # log-odds against a kind before anything is said
NUMBER_WORDS = frozenset(
    [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "fifteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "sixty",
        "seventy",
        "eighty",
        "ninety",
        "hundred",
        "zehn",
        "zwanzig",
        "diez",
        "veinte",
        "dix",
        "vingt",
    ]
)


def cues(text: str) -> dict[str, float]:
    """Evidence by kind in [0, 1]: 0 where no phrase speaks for it, towards 1 the more do."""
    said = normal(text)
    if not said.strip():
        return {}
    for pattern in _friends():
        said = pattern.sub(" ", said)
    found = {}
    for kind, patterns in _compiled().items():
        weight = sum(value for pattern, value in patterns if pattern.search(said))
        if weight:
            found[kind] = 1 / (1 + math.exp(BIAS - weight))
    return found


def normal(text: str) -> str:
    """Lower-case words parted by single spaces; numbers are "N", "acme.com/show" is "acme dot com slash show"."""
    text = text.casefold().replace("’", "'").replace("%", " percent ")
    text = re.sub(r"(?<=\w)\.(?=(?:com|org|net|co|io|example)\b)", " dot ", text)
    text = re.sub(r"(?<=\w)/(?=\w)", " slash ", text)
    text = re.sub(r"\bdollars?\b|\$", lambda m: " dollars " if m.group() != "$" else " ", text)
    text = re.sub(r"[^\w\s%]|_", " ", text)
    words = ["n" if re.fullmatch(r"\d+", w) or w in NUMBER_WORDS else w for w in text.split()]
    return " ".join(words)


@cache
def _compiled() -> dict[str, list[tuple[re.Pattern[str], float]]]:
    return {
        kind: [(re.compile(rf"(?:^|(?<=\s)|\b){pattern.replace('N', 'n')}"), weight) for pattern, weight in patterns]
        for kind, patterns in CUES.items()
    }


@cache
def _friends() -> list[re.Pattern[str]]:
    return [re.compile(pattern) for pattern in FALSE_FRIENDS]
