"""What is never stored: e-mail addresses, telephone numbers, cards, IBANs, keys, and what you name.

A span that is found is replaced by its kind, such as "[email]", before anything else sees the text: digest,
features, embedder, jobs and logs. "redact" keeps the words nowhere, and cannot be taken back; "seal" keeps
them beside the text, sealed with the key of its space, for who may reveal them: in encrypted vaults only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import InvalidOption, MissingExtra
from mnemic.vault.codec import Secret

Span = tuple[int, int]
Redactor = Callable[[str], str]


class Detector(Protocol):
    """Something that finds what must not be stored. `name` is what stands in its place."""

    @property
    def name(self) -> str: ...

    def find(self, text: str) -> Iterable[Span]: ...


_GAP: Final = "[ \u00a0\u2009\u202f.-]?"
_EMAIL: Final = re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_CARD: Final = re.compile(rf"(?<![\d.,]){_GAP}(?P<card>[2-6](?:{_GAP}\d){{12,18}})(?!\d)")
_IBAN: Final = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?=[ \u00a0-]?[A-Za-z0-9])")
_IBAN_LENGTHS: Final = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22"
        "GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23"
        "ST25SV28TL23TN24TR26UA29VA22VG24XK20",
    )
}
_PHONES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\w+])(?:\+|00)[1-9](?:[ \u00a0\u202f()./-]{0,2}\d){7,14}(?![\d])",  # international
        r"(?<![\w.,/+-])\(0?\d{2,4}\)(?:[ \u00a0./-]{0,2}\d){6,9}(?!\d)",  # (area) number
        r"(?<![\w.,/+-])0[1-9](?:[ \u00a0./-]?\d){7,10}(?![\d])",  # national, with its leading 0
        r"(?<![\w.,/+-])[2-9]\d{2}[ .\u00a0-]\d{3}[ .\u00a0-]\d{3,4}(?![\w-])",  # in groups
    )
)
_DATE: Final = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(?!\d)")
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S
)
_KEYS: Final = re.compile(
    r"(?<![\w-])(?:"
    + "|".join(
        (
            r"sk-[\w-]{16,}",
            r"[srp]k_(?:live|test)_\w{10,}",
            r"gh[pousr]_[A-Za-z0-9]{20,}",
            r"github_pat_\w{20,}",
            r"glpat-[\w-]{16,}",
            r"xox[abeoprs]-[\w-]{10,}",
            r"(?:AKIA|ASIA)[0-9A-Z]{16}",
            r"AIza[\w-]{35}",
            r"ya29\.[\w-]{20,}",
            r"hf_[A-Za-z0-9]{20,}",
            r"npm_[A-Za-z0-9]{30,}",
            r"pypi-[\w-]{16,}",
            r"SG\.[\w-]{16,}\.[\w-]{16,}",
            r"AGE-SECRET-KEY-1[0-9A-Z]{20,}",
            r"eyJ[\w-]{6,}\.eyJ[\w-]{6,}\.[\w-]{6,}",
        )
    )
    + r")"
)
_BEARER: Final = re.compile(r"\bbearer\s+(?P<key>[\w.~+/=-]{12,})", re.I)
_NAMED: Final = (
    r"\b(?:api[ _-]?keys?|access[ _-]?keys?|secret(?:[ _-](?:access[ _-])?key)?|client[ _-]secret|"
    r"(?:access|auth|refresh|bearer|api)?[ _-]?token|passwords?|passwd|pwd|passphrase)\b[\"'`]?"
)
_ASSIGNED: Final = re.compile(_NAMED + r"\s*[:=]\s*[\"'`]?(?P<key>[^\s\"'`,;]{4,})", re.I)
_SAID: Final = re.compile(
    _NAMED + r"\s+is:?\s+[\"'`]?(?P<key>(?=[^\s]*\d)(?=[^\s]*[^\W\d])[^\s\"'`,;]{6,})", re.I
)
_IN_URL: Final = re.compile(r"(?<=://)[^\s:/@]{1,256}:(?P<key>[^\s/@]{1,256})@")


def emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from (found.span() for found in _EMAIL.finditer(text))


def cards(text: str) -> Iterator[Span]:
    """13 to 19 digits whose check digit is right (Luhn)."""
    for found in _CARD.finditer(text):
        if luhn(found["card"]):
            yield found.span("card")


def ibans(text: str) -> Iterator[Span]:
    """As long as its country's are, with the right checksum (ISO 7064, mod 97)."""
    for found in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(found[0][:2].upper())
        end = None if length is None else _letters_end(text, found.start(), length)
        if end is not None and iban_checks(text[found.start() : end]):
            yield found.start(), end


def phones(text: str) -> Iterator[Span]:
    """International with + or 00, with an area code, a leading 0, or in groups; 9 to 15 digits."""
    for pattern in _PHONES:
        for found in pattern.finditer(text):
            if not _DATE.match(found[0]) and 8 <= sum(map(str.isdigit, found[0])) <= 17:
                yield found.span()


def keys(text: str) -> Iterator[Span]:
    """Private keys, tokens of known makes, and what is called a password, key or token."""
    for pattern in (_PEM, _KEYS):
        yield from (found.span() for found in pattern.finditer(text))
    for pattern in (_BEARER, _ASSIGNED, _SAID, _IN_URL):
        yield from (found.span("key") for found in pattern.finditer(text) if found["key"] not in _MARKS)


def luhn(number: str) -> bool:
    """Is its last digit the check digit of the others?"""
    digits = [int(sign) for sign in number if sign.isdigit()][::-1]
    return sum(digits[0::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10


def iban_checks(iban: str) -> bool:
    letters = "".join(sign for sign in iban.upper() if sign.isalnum())
    return int("".join(str(int(sign, 36)) for sign in letters[4:] + letters[:4])) % 97 == 1


def _letters_end(text: str, start: int, count: int) -> int | None:
    """Where `count` letters and digits end, single gaps between them allowed; None where they do not."""
    position, left, gaps = start, count, 0
    while left and position < len(text):
        sign = text[position]
        if sign.isascii() and sign.isalnum():
            left, gaps = left - 1, 0
        elif sign in " \u00a0-" and not gaps:
            gaps = 1
        else:
            return None
        position += 1
    return None if left or text[position : position + 1].isalnum() else position


@dataclass(frozen=True, slots=True)
class Built:
    """A detector of the house."""

    name: str
    find: Callable[[str], Iterable[Span]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A detector by a regular expression; of a group called "secret" only the group is replaced."""

    name: str
    expression: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", self.name) or self.name in BUILT:
            raise InvalidOption(
                f"{self.name!r:.40} cannot name a pattern: use up to 31 of a-z, 0-9, - and _, and none of "
                f"{', '.join(BUILT)}"
            )
        try:
            empty = re.compile(self.expression).search("")
        except re.error as error:
            raise InvalidOption(f"the pattern {self.name!r} is no regular expression: {error}") from error
        if empty:
            raise InvalidOption(f"the pattern {self.name!r} matches nothing at all, and so everywhere")

    def find(self, text: str) -> Iterator[Span]:
        for found in re.finditer(self.expression, text):
            yield found.span("secret" if "secret" in found.re.groupindex else 0)


@dataclass(frozen=True, slots=True)
class Presidio:
    """Names, places and what else Microsoft Presidio finds; needs 'mnemic[presidio]' and a spaCy model.

    entities: which of its kinds; none: all. threshold: how sure it has to be. analyzer: an engine of yours;
    default: Presidio's own on an English spaCy model that is installed. None is ever downloaded: without one
    MissingExtra says how to get it.
    """

    name: str = "presidio"
    entities: tuple[str, ...] = ()
    threshold: float = 0.5
    language: str = "en"
    analyzer: Any = field(default=None, compare=False)  # an AnalyzerEngine of yours

    def find(self, text: str) -> Iterator[Span]:
        engine = self.analyzer or _presidio()
        wanted = list(self.entities) or None
        for one in engine.analyze(text, language=self.language, entities=wanted):
            if one.score >= self.threshold:
                yield one.start, one.end


def presidio_model() -> str:
    """The largest English spaCy model that is here, loaded by nobody yet. Raises MissingExtra."""
    if find_spec("presidio_analyzer") is None:
        require_extra("presidio_analyzer", extra="presidio")
    model = next((one for one in _SPACY if find_spec(one) is not None), None)
    if model is None:
        raise MissingExtra(
            "Presidio finds names by a spaCy model, and none is installed; mnemic downloads none. Install "
            f"one: python -m spacy download {_SPACY[-1]}, or pass Presidio(analyzer=…) with your own"
        )
    return model


@cache
def _presidio() -> Any:
    """Presidio's engine on it. Seconds, once a process."""
    model = presidio_model()
    presidio = require_extra("presidio_analyzer", extra="presidio")
    models = [{"lang_code": "en", "model_name": model}]
    engine = import_module("presidio_analyzer.nlp_engine").NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": models}
    )
    return presidio.AnalyzerEngine(nlp_engine=engine.create_engine(), supported_languages=["en"])


_SPACY: Final = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")


BUILT: Final[Mapping[str, Detector]] = MappingProxyType(
    {
        "key": Built("key", keys),
        "email": Built("email", emails),
        "iban": Built("iban", ibans),
        "card": Built("card", cards),
        "phone": Built("phone", phones),
        "presidio": Presidio(),
    }
)
_MARKS: Final = frozenset(f"[{name}]" for name in BUILT)


class Find(NamedTuple):
    """A span to be replaced. sealed: whoever found it lets it be kept."""

    start: int
    end: int
    name: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Redaction:
    """Detectors that work together. Where two overlap, the name is that of the first in the list.

    sealed: those of them whose finds are kept, sealed; what any other finds too is not.
    """

    detectors: tuple[Detector, ...] = ()
    sealed: frozenset[Detector] = frozenset()

    def finds(self, text: str) -> list[Find]:
        """What is found, in order, overlapping finds as one. O(characters) for each detector."""
        found = [
            (start, end, rank)
            for rank, detector in enumerate(self.detectors)
            for start, end in detector.find(text)
            if end > start
        ]
        out: list[tuple[int, int, int, bool]] = []
        for start, end, rank in sorted(found):
            kept = self.detectors[rank] in self.sealed
            if out and start < out[-1][1]:
                first, last, best, all_kept = out[-1]
                out[-1] = (first, max(last, end), min(best, rank), all_kept and kept)
            else:
                out.append((start, end, rank, kept))
        return [Find(start, end, self.detectors[rank].name, kept) for start, end, rank, kept in out]

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, kind) of what is found."""
        return [one[:3] for one in self.finds(text)]

    def clean(
        self, text: str, counts: Counter[str] | None = None, secrets: list[Secret] | None = None
    ) -> str:
        """The text with what is found replaced by its kind; what may be kept is added to `secrets`."""
        kept: list[str] = []
        position = length = 0
        for start, end, name, sealed in self.finds(text):
            length += start - position
            mark = f"[{name}]"
            if sealed and secrets is not None:
                secrets.append(Secret(length, mark, text[start:end]))
            kept += [text[position:start], mark]
            position, length = end, length + len(mark)
            if counts is not None:
                counts[name] += 1
        return "".join(kept) + text[position:] if kept else text

    def clean_value(self, value: Any, counts: Counter[str] | None = None) -> Any:
        """Any metadata value, keys of dicts too."""
        if isinstance(value, str):
            return self.clean(value, counts)
        if isinstance(value, Mapping):
            return {
                self.clean_value(key, counts): self.clean_value(one, counts) for key, one in value.items()
            }
        if isinstance(value, list | tuple):
            return type(value)(self.clean_value(one, counts) for one in value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            said = str(value)
            cleaned = self.clean(said, counts)
            return value if cleaned == said else cleaned
        return value

    def __add__(self, other: Redaction) -> Redaction:
        """Both together: what either keeps nowhere is kept nowhere."""
        nowhere = {one for part in (self, other) for one in part.detectors if one not in part.sealed}
        together = tuple(dict.fromkeys((*self.detectors, *other.detectors)))
        return Redaction(together, (self.sealed | other.sealed) - nowhere)


def read_redaction(text: str) -> Redaction | None:
    """`redact email, phone`, `seal card` or `redact badge=EMP-\\d+`; None for other rules. Raises
    InvalidOption.
    """
    found = re.match(r"(redact|seal)\b", words := text.strip(), re.I)
    if found is None:
        return None
    rest = words[found.end() :].strip()
    if re.match(r"[a-z][a-z0-9_-]*=", rest):
        name, _, expression = rest.partition("=")
        chosen = Redaction((Pattern(name, expression),))
    else:
        chosen = of_detectors([word for word in re.split(r"[\s,]+", rest) if word])
    return Redaction(chosen.detectors, frozenset(chosen.detectors)) if found[1].lower() == "seal" else chosen


def of_detectors(wanted: Iterable[str | Detector]) -> Redaction:
    """Detectors by name or as they are, "all" for those of the house. Raises InvalidOption, MissingExtra."""
    if isinstance(wanted, str):
        wanted = [word for word in re.split(r"[\s,]+", wanted) if word]
    out: list[Detector] = []
    for one in wanted:
        if not isinstance(one, str):
            out.append(one)
        elif one == "all":
            out += [detector for name, detector in BUILT.items() if name != "presidio"]
        elif one in BUILT:
            if one == "presidio":
                presidio_model()  # before anything is written, not at the first text
            out.append(BUILT[one])
        else:
            raise InvalidOption(f"nothing finds {one!r:.40}; there are all, {', '.join(BUILT)}, NAME=REGEX")
    return Redaction(tuple(dict.fromkeys(out)))


def say(redaction: Redaction) -> str:
    """The rule in words, as `read_redaction` reads it."""
    verb = "seal" if redaction.sealed else "redact"
    if len(redaction.detectors) == 1 and isinstance(redaction.detectors[0], Pattern):
        return f"{verb} {redaction.detectors[0].name}={redaction.detectors[0].expression}"
    return f"{verb} {', '.join(detector.name for detector in redaction.detectors)}"


def redactor(wanted: Redactor | str | Iterable[str | Detector]) -> Redactor:
    """A function from text to text: itself, or from words such as "email, phone". Raises InvalidOption."""
    if not isinstance(wanted, str) and callable(wanted):
        return wanted
    if not isinstance(wanted, str | Iterable):
        raise InvalidOption("redact must be words such as 'email, phone', detectors, or a function of a text")
    chosen = read_redaction(f"redact {wanted}") if isinstance(wanted, str) else of_detectors(wanted)
    if chosen is None or not chosen.detectors:
        raise InvalidOption(f"say what to redact: all, {', '.join(BUILT)}, NAME=REGEX")
    return chosen.clean


def joined(parts: Sequence[Redaction]) -> Redaction:
    out = Redaction()
    for part in parts:
        out += part
    return out
