"""Phrases that tell what is being said: an ad, a welcome, a goodbye, a look back. Weights are log-odds by hand."""

from __future__ import annotations

import math
import re
from functools import cache

# A pattern is over lower-case words without punctuation (`normal`); "N" stands for a number of one or more words, "URL"
# for what follows the name in an address ("dot com"). It begins and ends at words' edges.
SHOW = r"(?:show|podcast|episode|program(?:me)?|broadcast|season|series|hour)"
CUES: dict[str, tuple[tuple[str, float], ...]] = {
    "ad": (
        (r"sponsored by", 3.0),
        (r"(?:brought to you|made possible|presented to you) (?:\w+ ){0,2}by", 3.0),
        (r"(?:today s|our|this (?:episode|week|month|show) s|my) sponsors?", 2.5),
        (rf"(?:sponsor(?:s|ing|ed)?|partner) (?:of|for) (?:the|this|our|today s) {SHOW}", 3.0),
        (rf"sponsoring (?:the|this|our|today s) {SHOW}", 3.0),
        (rf"support (?:for|also)(?: \w+){{0,4}} comes from|support for (?:this|the|our|today s) {SHOW}", 3.0),
        (rf"(?:is|are) supported by|supporting (?:the|this|our) {SHOW}", 2.0),
        (r"(?:a|quick) (?:word|message) from (?:our|the|today s|my)", 2.5),
        (r"(?:promo|promotional|discount|coupon|offer|voucher|referral|checkout) ?codes?", 3.0),
        (r"(?:use|enter|with|apply|put in|type in) (?:in )?(?:the |my |our )?code(?! that| which| we| you)", 2.5),
        (r"code \w+ (?:at|for|when|to|gets|saves|knocks|takes)(?! (?:compile|run|work))", 2.0),
        (r"(?:N|half) (?:percent|per cent|dollars|bucks|euros|pounds|quid) off", 2.5),
        (r"(?:half|a (?:third|quarter|fifth)) off", 1.5),
        (r"free (?:N day |N month |N week )?(?:trial|shipping|delivery|month|sample|quote)s?", 2.0),
        (r"(?:first|next) (?:\w+ )?(?:month|week|box|order|purchase|bag|visit|session)s? (?:is |are )?free", 2.0),
        (r"URL (?:forward )?slash", 3.0),
        (r"URL", 1.0),
        (r"(?:go|head|head over|head on over|visit|visit us|check out|check them out|sign up) (?:\w+ ){0,3}URL", 2.0),
        (r"terms (?:and conditions |and restrictions )?apply|(?:some )?restrictions apply|see site for details", 3.0),
        (r"(?:money back|satisfaction) guarantee", 2.5),
        (r"sign up (?:today|now|at|for free)", 1.5),
        (r"check (?:it|them) out at", 2.0),
        (r"(?:order|try it|get yours|get started|download it|enrol|call) (?:today|now)", 1.5),
        (r"cancel (?:any ?time|whenever)", 2.0),
        (r"first (?:order|purchase|month|box|N months|N boxes)", 1.0),
        (r"(?:that s|spelled) (?:\w ){3,}\w", 1.0),
        (r"(?:link|links) (?:is |are )?in the (?:show notes|description|notes)", 1.5),
        (r"(?:exclusive|special|limited time|introductory) (?:offer|deal|discount)|limited time", 1.5),
        (r"(?:on|our|my|a|the|via) patreon", 1.5),
        (r"back to the (?:show|programme|episode|podcast)", 2.0),
        (r"präsentiert von|unterstützt von|gesponsert von|werbung|unser(?:em|en)? sponsor", 3.0),
        (r"(?:gutschein|rabatt|promo) ?codes?|mit dem code", 3.0),
        (r"N prozent (?:rabatt|günstiger|auf)|kostenlos (?:testen|ausprobieren)", 2.5),
        (r"patrocinado por|nuestros? patrocinador(?:es)?", 3.0),
        (r"código (?:promocional|de descuento)|con el código", 3.0),
        (r"N por ciento de descuento|prueba gratuita|prueba gratis", 2.5),
        (r"sponsorisé par|en partenariat avec|notre (?:sponsor|partenaire)", 3.0),
        (r"code (?:promo|de réduction)|avec le code", 3.0),
        (r"N pour cent de (?:réduction|remise)|essai gratuit", 2.5),
    ),
    "intro": (
        (r"welcome (?:back )?to(?! (?:leave|stay|go|try|come|take|join|disagree)\b)", 2.5),
        (r"you (?:re|are) listening to", 2.5),
        (r"this is (?:episode|the \w+ (?:show|podcast))", 2.0),
        (r"i m your host|i am your host|my name is", 1.5),
        (r"(?:hello|hi|hey) (?:everyone|everybody|and welcome|listeners)", 1.5),
        (r"herzlich willkommen|willkommen (?:zu|zur|zum|bei)", 2.5),
        (r"bienvenid[oa]s? a|bienvenue (?:dans|à|sur)", 2.5),
    ),
    "outro": (
        (r"thank(?:s| you)(?: so much| all| very much| as always)* for (?:listening|tuning in|joining)", 3.0),
        (r"(?:see|talk to|catch) you (?:all )?(?:next|again|soon)", 2.5),
        (r"until next (?:time|week)", 2.5),
        (r"goodbye|bye bye", 2.0),
        (r"rate and review|rate us|leave (?:us )?a (?:rating|review)|follow us on", 2.0),
        (
            r"subscribe (?:wherever|on|in|so you|if you|and)|(?:please|to|and) subscribe(?! to)|subscribe to the show",
            2.0,
        ),
        (r"that was", 0.8),
        (r"that s (?:all|it) for (?:today|this week|now)", 2.5),
        (r"(?:produced|edited|mixed) by", 1.5),
        (r"danke fürs zuhören|bis zum nächsten mal|auf wiederhören|bis nächste woche", 3.0),
        (r"gracias por (?:escuchar|acompañarnos)|hasta la próxima", 3.0),
        (r"merci (?:de nous avoir|d avoir) écoutés?|à la prochaine|à la semaine prochaine", 3.0),
    ),
    "recap": (
        (r"previously on", 3.5),
        (r"last (?:time|week|episode) (?:on|we|you)", 2.0),
        (r"(?:in|on) (?:our|the) (?:last|previous) episode", 2.5),
        (r"as you (?:may|might) (?:recall|remember)", 1.0),
        (r"zuletzt bei|was bisher geschah|in der letzten folge", 3.5),
        (r"anteriormente en|en el episodio anterior", 3.5),
        (r"dans l épisode précédent|précédemment dans", 3.5),
    ),
}
# What sounds like an ad and is not one; it is struck out before the phrases above are sought.
FALSE_FRIENDS = (
    r"sponsor(?:s|ed)? (?:of|by) (?:the|a|this|that|his|her) (?:\w+ )?"
    r"(?:bill|bills|act|amendment|law|resolution|motion|senators?|state|reform|legislation|expedition|treaty)",
    r"(?:source|computer|machine|legacy|building|penal|criminal|tax|dress|genetic|morse|area|zip|error|exit|qr) codes?",
    r"code (?:of (?:conduct|ethics|honou?r|silence)|base|review|generation)",
    r"(?:fair|full|speedy|open) and free trial|free trial (?:by|before) (?:a |the |his |her )?(?:jury|judge|peers)",
    r"free trial (?:that|which) (?:had been|was) running",
    r"thank(?:s|ed)? (?:her|his|their) sponsors?|(?:visa|aa|refugee) sponsors?",
)
# Where these are spoken of, a trial is held in court.
COURT = r"(?:jury|juror|jurors|judge|verdict|defendant|defence|prosecutor|prosecution|courtroom|acquitted|convicted)"
BIAS = 1.5  # log-odds against a kind before anything is said
NUMBERS = (
    r"\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|(?:zehn|fünfzehn|zwanzig|dreissig|fünfzig)|"
    r"diez|quince|veinte|treinta|cincuenta|dix|quinze|vingt|trente|cinquante"
)
DOMAINS = r"(?:com|org|net|co|io|fm|app|ai|shop|store|tv|me|de|fr|es|uk|au)"
CURRENCIES = {"$": "dollars", "€": "euros", "£": "pounds"}


def cues(text: str) -> dict[str, float]:
    """Evidence by kind ("ad", "intro", "outro", "recap") in [0, 1]: the more phrases speak for a kind, the nearer to 1.
    Kinds without a phrase are left out. Case, punctuation and the spelling of numbers and addresses do not matter."""
    said = normal(text)
    if _court().search(said):
        said = re.sub(r"\bfree trial\b", " ", said)
    for pattern in _friends():
        said = pattern.sub(" ", said)
    found = {}
    for kind, patterns in _compiled().items():
        weight = sum(value for pattern, value in patterns if pattern.search(said))
        if weight:
            found[kind] = 1 / (1 + math.exp(BIAS - weight))
    return found


def normal(text: str) -> str:
    """Lower-case words parted by single spaces; a number of any words is "n", "acme.com/show" is "acme dot com slash
    show", "$5" is "n dollars"."""
    text = text.casefold().replace("’", "'").replace("%", " percent ")
    text = re.sub(r"([$€£])\s*(\d[\d.,]*\d|\d)", lambda m: f"{m[2]} {CURRENCIES[m[1]]} ", text)
    text = re.sub(rf"(?<=\w)\.(?={DOMAINS}\b)", " dot ", text)
    text = re.sub(r"(?<=\w)/(?=\w)", " slash ", text)
    text = re.sub(r"(?<=\d)[.,](?=\d)", "", text)
    text = re.sub(r"[^\w\s]|_", " ", text)
    words: list[str] = []
    for word in text.split():
        if re.fullmatch(NUMBERS, word):
            if words[-1:] == ["n"]:
                continue
            word = "n"
        words.append(word)
    return " ".join(words)


def _pattern(source: str) -> re.Pattern[str]:
    source = source.replace("N", "n").replace("URL", rf"dot {DOMAINS}(?: dot {DOMAINS})?")
    return re.compile(rf"\b(?:{source})\b")


@cache
def _compiled() -> dict[str, list[tuple[re.Pattern[str], float]]]:
    return {kind: [(_pattern(source), weight) for source, weight in patterns] for kind, patterns in CUES.items()}


@cache
def _friends() -> list[re.Pattern[str]]:
    return [_pattern(source) for source in FALSE_FRIENDS]


@cache
def _court() -> re.Pattern[str]:
    return _pattern(COURT)
