"""The rules: a pattern for one clause, and what is read from it. The first that fits a clause is taken."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from mnemic.plaintext.derive.attributes import FAVOURED, FAVOURITE, HEADQUARTERS
from mnemic.plaintext.derive.names import LOW, NAME
from mnemic.plaintext.derive.readings import (
    PARTICIPLES,
    PETS,
    VERBS,
    Found,
    Make,
    age,
    became,
    described,
    employer,
    exchanged,
    of,
    opinion,
    owned,
    owner,
    passive,
    place_of,
    resigned,
    role,
    scheduled,
    verb,
)

_VALUE = rf"(?:(?:the|a|an) )?(?P<v>{NAME})"
_I = r"(?:I|i|we|We)"
_SUBJECT = rf"(?P<s>{_I}|(?:[Tt]he )?{NAME})"
_HAVE = r"(?:'ve|’ve| have| has|'s|’s)?"
_BE = r"(?:'m|’m|'re|’re| am| are| is|'s|’s)"
_NOW = r"(?: now| currently| still| officially| finally| recently| just| both| already)?"
_PLACE = rf"(?P<article>(?:the|a|an) )?(?P<v>{NAME}|{LOW}(?: {LOW}){{0,2}})"
_PROPERTY = rf"(?P<v>{NAME}|[\w.+-]+@[\w.-]+\w|\+?\d[\d ()/-]{{4,}}\d|{LOW}(?: {LOW}){{0,2}})"
_KIND = r"(?: the (?P<t>[a-z]+(?: [a-z]+)?) of)?"
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_WEEKDAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?"
_HALF = r"(?:am|pm|a\.m\.|p\.m\.|h\b|o'clock)"
_HOUR = r"\d{1,2}(?::\d\d)?"
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_WHEN = (
    rf"(?P<v>(?:(?:this |next )?{_WEEKDAY}(?: (?:morning|afternoon|evening|night))?"
    rf"|(?:the )?{_ORDINAL}(?: of)? {_MONTH}|{_MONTH} (?:the )?{_ORDINAL}|{_HOUR} ?{_HALF}|\d{{1,2}}:\d\d"
    rf"|\d{{4}}-\d\d-\d\d|noon|midnight)(?:,? (?:at )?{_HOUR} ?{_HALF}?)?)"
)


_ENDED: Final = r"(?: anymore| any more| any longer)?"
# "Rex died in March", not the place that a person died in
_DIED: Final = (
    rf"(?:has |have )?(?:died|passed away)(?! in (?:the (?:city|town|village) of |(?!{_MONTH})[A-Z]))"
)
_DWELLING: Final = r"(?:place|flat|apartment|house|home)"
_SEAT: Final = r"(?:headquarters|head office|main office)"
_RULES: Final[tuple[tuple[str, Make], ...]] = (
    # one value for another, of whatever has the first
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:left|quit) (?P<old>{NAME}) for {_VALUE}"
        r"(?=[.,;!]|$| (?:last|this|in|two|three|a)\b)",
        exchanged("employer"),
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:traded|swapped|exchanged) (?P<old>{NAME}) for {_VALUE}"
        r"(?=[.,;!]|$| (?:last|this|in|two|three|a)\b)",
        exchanged("home", "employer"),
    ),
    (
        rf"(?:(?:[Tt]hese days|[Nn]owadays|[Nn]ow),? )?{_SUBJECT}(?:{_HAVE} come to)?{_NOW} prefers? {_VALUE}"
        rf" (?:to|over) (?P<old>{NAME})",
        exchanged(*(FAVOURITE + thing for thing in FAVOURED)),
    ),
    # ends
    (rf"(?P<s>)(?P<v>{NAME}) {_DIED}", lambda match: Found("I", "pet", match["v"], ends=True)),
    (rf"(?P<v>{NAME}) and (?P<s>{_I}) (?:broke|split) up", of("partner", ends=True)),
    (
        rf"{NAME}(?: has)? (?:stepped down|resigned|retired) as (?:the )?(?P<a>[a-z]+(?: [a-z]+){{0,3}})"
        rf" of (?:the )?(?P<s>{NAME})(?:,|;| and)+ (?P<v>{NAME})(?: has)? (?:took over|taken over|succeeded)",
        became,
    ),
    (
        rf"(?P<v>{NAME})(?: has)? (?:stepped down|resigned|retired) as (?:the )?"
        rf"(?P<a>[a-z]+(?: [a-z]+){{0,3}}) of (?:the )?(?P<s>{NAME})",
        resigned,
    ),
    (rf"{_SUBJECT}(?: no longer lives?| (?:do|does)n['’]t live) in {_VALUE}", of("home", ends=True)),
    (
        rf"{_SUBJECT}(?: no longer works?| (?:do|does)n['’]t work) (?:at|for) {_VALUE}",
        of("employer", ends=True),
    ),
    (
        rf"{_SUBJECT}{_HAVE} (?:quit|left|resigned from|lost|got fired from|got laid off from)"
        rf"(?: (?:my|his|her|the|our) (?:old )?job)? ?(?:at|with|from)? ?{_VALUE}"
        r"(?= (?:and|to|after|because)|[.,;!]|$)",
        of("employer", ends=True),
    ),
    (rf"{_SUBJECT}{_HAVE} moved (?:out of|away from) {_VALUE}", of("home", ends=True)),
    (
        rf"(?P<v>)(?P<s>{_I})(?:{_BE}| got|{_HAVE} been| are)? ?"
        r"(?:divorced|broke up|broken up|split up|separated)",
        of("partner", ends=True),
    ),
    (rf"{_SUBJECT}{_HAVE} (?:broke up|split up|broken up) with {_VALUE}", of("partner", ends=True)),
    # home
    (
        rf"{_SUBJECT}(?:{_BE}|{_HAVE} been)?{_NOW} "
        rf"(?:live|lives|living|reside|resides|residing|based){_NOW} (?:in|at) {_PLACE}",
        place_of("home"),
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:moved|relocated|move|moves)(?: back| over| out| house)?"
        rf"(?: from (?:the )?{NAME})? (?:in)?to {_PLACE}",
        place_of("home"),
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:settled(?: down)?"
        r"|(?:found|got|bought|rented)(?: an?| our| my)?(?: new)?"
        rf" (?:place|flat|apartment|house|home)) in {_VALUE}\b(?!,? (?:and|to|which I) (?:let|rent))",
        of("home"),
    ),
    (rf"{_SUBJECT}{_HAVE}{_NOW} made the move to {_PLACE}", place_of("home")),
    (
        rf"(?:{_I}(?:['’]ve| have)? )?(?:[Gg]ot|[Pp]icked up|[Cc]ollected) the keys (?:to|of|for)"
        rf" (?P<s>my|our)(?: new)? {_DWELLING} in {_VALUE}",
        of("home"),
    ),
    (rf"(?P<v>{NAME}) is(?: now)? (?P<s>my|our) (?:new )?home(?: now)?(?=[.,;!]|$)", of("home")),
    # work
    (rf"(?P<s>[Mm]y|[Oo]ur) first (?:day|week|month) at {_VALUE} (?:was|is|went)", employer),
    (
        rf"{_SUBJECT}(?:{_BE}|{_HAVE} been)?{_NOW}"
        rf" (?:work|works|working|employed){_NOW} (?:at|for|by) {_VALUE}",
        employer,
    ),
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:joined"
        r"|started (?:work(?:ing)?|a (?:new )?job|my new job) (?:at|for|with)"
        rf"|got (?:a|the) (?:new )?job (?:at|with)|switched (?:jobs )?to) {_VALUE}",
        employer,
    ),
    (
        rf"{_SUBJECT}{_BE}?{_NOW} (?:work|works|working){_NOW} as (?:an? |the )?"
        r"(?P<v>[A-Za-z][\w-]*(?: [a-z][\w-]*){0,3}?)"
        r"(?= (?:at|for|in|now|and|but|since|with)\b|[.,;!]|$)",
        of("job"),
    ),
    (
        rf"(?P<v>{NAME})(?: has| have)?{_NOW} (?:hired|recruited|employed) (?P<s>me|{NAME})"
        r"(?=[.,;!]|$| (?:last|this|in|from|two|three)\b)",
        employer,
    ),
    (rf"{_SUBJECT}(?: was| got| were|{_HAVE} been)? (?:hired|recruited) by {_VALUE}", employer),
    # partner
    (
        rf"{_SUBJECT}{_HAVE}{_NOW} (?:married|wed|got married to|got engaged to|tied the knot with) {_VALUE}",
        of("partner"),
    ),
    (rf"{_SUBJECT}{_BE}{_NOW} dating {_VALUE}", of("partner")),
    (rf"{_SUBJECT}{_BE} seeing {_VALUE}(?= (?:now|these days)(?:[.,;!]|$))", of("partner")),
    (rf"(?P<s>{NAME}) and {_VALUE} (?:got married|(?:have )?tied the knot)", of("partner")),
    # age, opinions
    (rf"{_SUBJECT}{_BE}{_NOW} (?P<v>\d{{1,3}}) years old", age),
    (rf"(?P<s>{_I}){_BE}{_NOW} (?P<v>\d{{1,2}})(?= now\b|[.,;!]|$)", age),
    (rf"{_SUBJECT}{_HAVE}{_NOW} turned (?P<v>\d{{1,3}})\b(?! (?:pages|heads))", age),
    (
        rf"(?P<s>{_I}|{NAME})(?: really| absolutely| also| still| now)?"
        r"(?P<neg> (?:do|does)n['’]t| no longer)?(?: really)?"
        r" (?P<verb>likes?|loves?|enjoys?|hates?|dislikes?|detests?|can't stand|prefers?)"
        rf" (?P<v>{NAME}|{LOW}(?: (?!any|now\b){LOW})?){_ENDED}"
        r"(?=[.,;!]| (?:a lot|very much|so much|anymore|now)\b|$)",
        opinion,
    ),
    # schedule
    (
        r"(?P<s>[Mm]y|[Oo]ur|[Tt]he) (?P<e>[a-z][\w'’-]*(?: (?:with |at |in )?[\w'’-]+){0,4}?)"
        r"(?: is| was| has been| got| will be|'s)?(?: now)?"
        r"(?: (?:moved|rescheduled|postponed|scheduled|set|pushed|brought|changed|shifted)"
        rf"(?: back| forward)?(?: from (?:the )?{_WEEKDAY})?)?"
        rf" (?:on|at|to|for|until) {_WHEN}",
        scheduled,
    ),
    (
        r"(?:[Tt]hey|[Ww]e|I)(?:['’]ve| have)? (?:moved|rescheduled|postponed|changed|shifted|pushed)"
        r" (?P<s>my|our|the) (?P<e>[a-z][\w'’-]*(?: (?:with |at |in )?[\w'’-]+){0,4}?)(?:[;:,.]| -| –| and)"
        rf"(?: so)?(?: now)? it(?:['’]s| is| will be)(?: now)?(?: on| at)? {_WHEN}",
        scheduled,
    ),
    # pets
    (
        rf"{_SUBJECT}{_HAVE} (?:have|has|got|adopted|bought|own|owns)(?: an?| my| our| another)?"
        rf"(?: [a-z]+){{0,2}}? (?:{'|'.join(sorted(PETS))})(?:,)? (?:named|called) (?P<v>{NAME})",
        of("pet", single=False),
    ),
    # posts and owners that change
    (
        rf"(?P<v>{NAME})(?: has| was)? (?:became|become|is now|is|took over as|taken over as|takes over as"
        r"|elected(?: as)?|named|appointed(?: as)?) (?:the )?(?:new )?"
        r"(?P<a>[a-z]+(?: [a-z]+){0,3}) of (?:the )?"
        rf"(?P<s>{NAME})(?=[.,;!]|$)",
        became,
    ),
    (
        rf"{_SUBJECT}{_HAVE} (?:elected|appointed|named|hired|chose) (?P<v>{NAME}) as"
        r" (?:its|their|the|his|her)"
        r"(?: new)? (?P<a>[a-z]+(?: [a-z]+){0,3})(?=[.,;!]|$)",
        became,
    ),
    (
        rf"(?P<v>{NAME})(?: has| was)? (?:succeeded|replaced) {NAME} as (?:the )?(?:new )?"
        rf"(?P<a>[a-z]+(?: [a-z]+){{0,3}}) of (?:the )?(?P<s>{NAME})(?=[.,;!]|$)",
        became,
    ),
    (
        rf"(?P<v>{NAME})(?: has| have)? (?:acquired|bought out|taken over|took over) (?:the )?"
        rf"(?P<s>{NAME})(?=[.,;!]|$| (?:for|in|last|this)\b)",
        owner,
    ),
    (
        rf"{NAME}(?: has| have)? sold (?:the )?(?P<s>{NAME}) to (?:the )?(?P<v>{NAME})"
        r"(?=[.,;!]|$| (?:for|in|last|this)\b)",
        owner,
    ),
    (
        rf"{_SUBJECT}{_HAVE} (?:moved|relocated|transferred|shifted) (?:its|their|the) {_SEAT}"
        rf"(?: from (?:the )?{NAME})? to (?:the (?:city|town) of )?{_VALUE}",
        of(HEADQUARTERS),
    ),
    (
        rf"{_SUBJECT}{_HAVE} made {_VALUE} (?:its|their)(?: new)? (?P<a>[a-z]+(?: [a-z]+)?)(?=[.,;!]|$)",
        became,
    ),
    (
        rf"(?P<v>{NAME})(?: has| have)? (?:replaced|overtaken|ousted) {NAME} as (?P<s>my|our)"
        r" (?P<a>[a-z][a-z-]*(?: [a-z-]+){0,2}?)(?=[.,;!]|$)",
        role,
    ),
    (
        rf"{_SUBJECT}(?: was| has been|{_BE} now) (?:bought|acquired|taken over|purchased) by {_VALUE}",
        owner,
    ),
    (
        r"(?P<s>)(?:[Yy]ou can |[Pp]lease )?(?:[Rr]each|[Cc]all|[Tt]ext) me (?:at|on|under)"
        r" (?P<v>\+?\d[\d ()/-]{4,}\d)",
        lambda match: Found("I", "phone", match["v"]),
    ),
    (
        r"(?P<s>)(?:[Yy]ou can |[Pp]lease )?(?:[Rr]each|[Ww]rite(?: to)?|[Ee]?-?[Mm]ail) me (?:at|on|under)"
        r" (?P<v>[\w.+-]+@[\w.-]+\w)",
        lambda match: Found("I", "email", match["v"]),
    ),
    (
        r"(?P<s>)[Nn]ew (?:(?:phone|mobile|cell) )?number(?:[:,]| -| –| is) (?P<v>\+?\d[\d ()/-]{4,}\d)",
        lambda match: Found("I", "phone", match["v"]),
    ),
    (
        r"(?P<s>[Mm]y|[Oo]ur) new (?P<a>(?:phone |mobile |cell )?number|e-?mail(?: address)?|address)"
        rf"(?::| -| –| —) {_PROPERTY}(?= now\b|[.,;!]|$)",
        owned,
    ),
    (
        rf"{_I}(?:['’]ve| have)? (?:changed|switched|updated) (?P<s>my|our)"
        rf" (?P<a>[a-z][a-z-]*(?: [a-z-]+){{0,2}}?) to {_PROPERTY}(?= now\b|[.,;!]|$)",
        owned,
    ),
    (
        rf"(?P<s>[Mm]y|[Oo]ur) (?P<a>[a-z][a-z-]*(?: [a-z][a-z-]*){{0,3}}?)(?: has)? (?:changed|switched) to"
        rf" {_PROPERTY}(?= now\b|[.,;!]|$)",
        owned,
    ),
    (
        rf"(?P<s>{_I})(?:['’]ve| have)(?: got)? a new"
        r" (?P<a>(?:phone |mobile |cell )?number|e-?mail(?: address)?|address)"
        rf"(?:[:,;]| -| –| —)?(?: it['’]?s)? {_PROPERTY}(?= now\b|[.,;!]|$)",
        owned,
    ),
    (
        rf"(?P<v>{NAME}) is(?: now)? (?P<s>my|our) (?:new )?(?P<a>[a-z][a-z-]*(?: [a-z-]+)??)"
        r"(?: now)?(?=[.,;!]|$)",
        role,
    ),
    # descriptions and properties
    (
        rf"(?P<s>[Mm]y|[Oo]ur|(?:[Tt]he )?{NAME}['’]s?) (?P<a>[a-z][a-z-]*(?: [a-z][a-z-]*){{0,3}}?)"
        rf"(?:['’]s name)? (?:is|are)(?: now| currently)?(?: called| named)? (?:(?:the|a|an) )?"
        rf"{_PROPERTY}"
        r"(?= now\b|[.,;!]|$)",
        owned,
    ),
    (
        rf"{_SUBJECT}(?:{_BE}| was| were| has been| have been)(?: now| currently| originally)?"
        rf" (?P<p>{PARTICIPLES}) (?P<prep>in|by|to|with|for|at|from|on|as){_KIND} (?:the )?"
        rf"(?P<v>{NAME}|{LOW}(?: {LOW})?)(?=[.,;!]|$| in | since )",
        passive,
    ),
    (
        rf"{_SUBJECT} (?P<verb>{'|'.join(sorted(VERBS, key=len, reverse=True))}){_KIND} (?:the )?"
        rf"(?P<v>{NAME}|{LOW}(?: {LOW})?)(?=[.,;!]|$| in | since | and )",
        verb,
    ),
    (
        r"(?:[Tt]he )(?P<d>[^,.;!?]{3,100}?) (?:is|are)(?: now| currently)?"
        r"(?P<more> (?:located|situated|based|written|spoken) in(?: the [a-z]+ of)?)? (?:(?:the|a|an) )?"
        rf"(?P<v>{NAME}|{LOW}(?: {LOW}){{0,2}})(?=[.;!]|$)",
        described,
    ),
)


@cache
def rules() -> tuple[tuple[re.Pattern[str], Make], ...]:
    """Compiled at first use, 40 ms: opening a memory does not wait for it."""
    return tuple((re.compile(pattern), make) for pattern, make in _RULES)


# A sentence without any of these matches no rule: most are not looked at further.
MAY_STATE: Final = re.compile(
    r"\b(?:elected|appointed|named|hired|chose|became|become|took|taken|takes|settled|found|bought|acquired"
    r"|first|reach|Reach|call|Call|text|Text|live|lives|living|reside|resides|based|moved?|moves|relocated"
    r"|works?|working|worked|employed|joined|started|job|quit|left|resigned|lost|fired|married|wed|dating"
    r"|engaged|broke|broken|split|divorced|separated|recruited|succeeded|replaced|sold|changed|switched"
    r"|updated|rescheduled|postponed|shifted|pushed|made|new|turned|years old|likes?|loves?|enjoys?|hates?"
    r"|dislikes?|detests?|prefers?|stand|named|called|speaks?|plays?|died|passed|belongs|stepped|retired|tied"
    r"|traded|swapped|exchanged|transferred|ousted|overtaken|keys|seeing|number|address|on|at|to)\b|['’]m \d"
    r"|\b(?:is|are|was|were|am)\b"
)
