"""The token estimate against a real tokenizer.

`pytest -s tests/models/test_tokens.py` prints the error of each text.
"""

from __future__ import annotations

import inspect
import textwrap
import time

import pytest

from mnemic.models.static import StaticEmbedder
from mnemic.models.tokens import estimate_tokens

TEXTS = {
    "English prose": """The harbour lay quiet under a thin morning fog, and the fishermen who had come
        back before dawn were mending their nets along the wall. Nobody spoke much. An old woman
        carried a basket of oranges from door to door, asking the same price she had asked for
        twenty years, and the children followed her because she sometimes gave one away. By noon
        the fog had lifted, the ferry had come and gone twice, and the whole town smelled of salt,
        tar and fresh bread. It was said that the lighthouse would be closed in the autumn, though
        no one knew why.""",
    "chat": """Hey Mel! Long time no talk :) I finally went to that pottery class I told you
        about, it was so much fun!! Wow, that's great! How was it? Did you make anything cool?
        Yeah, a bowl for the kids, it's kinda crooked lol. I'm thinking of going again next
        Saturday at 10:30, wanna come? I'd love to, but I've got my sister's birthday. No worries,
        maybe the week after? Sounds good, I'll text you when I know more. Take care and say hi to
        Jon!""",
    "code": inspect.getsource(textwrap),
    "German": """Ich bin im März nach Porto gezogen, weil meine Schwester dort eine kleine
        Bäckerei eröffnet hat. Am Anfang war es schwierig, eine bezahlbare Wohnung zu finden, aber
        inzwischen fühle ich mich sehr wohl. Morgens gehe ich meistens am Fluss entlang spazieren
        und höre dabei Nachrichten. Die Straßenbahnverbindungen sind überraschend zuverlässig, und
        die Krankenversicherungsunterlagen habe ich endlich vollständig eingereicht.""",
    "Chinese": "我三月份搬到了波尔图，因为我姐姐在那里开"
    "了一家小面包店。刚开始的时候很难找到便宜的公寓，但是现在我已经习惯了。"
    "早上我通常沿着河边散步，一边听新闻。请提醒我星期四早上八点半要去看牙医，谢谢你的帮助。",
    "Japanese": "三月にポルトへ引っ越しました。姉がそこで小さ"
    "なパン屋を始めたからです。最初は手ごろなアパートを見つけるのが大変でしたが、"
    "今ではとても快適に暮らしています。朝はたいてい川沿いを散歩しながらニュースを聞きます。",
    "Korean": "저는 삼월에 포르투로 이사했어요. 언니가 거기에서 "
    "작은 빵집을 열었기 때문이에요. 처음에는 저렴한 아파트를 "
    "찾기가 어려웠지만 지금은 아주 편안하게 지내고 있습니다.",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_the_estimate_is_never_far_below_a_real_tokenizer(kind: str) -> None:
    text = "\n".join(line if kind == "code" else line.strip() for line in TEXTS[kind].splitlines())
    real = len(StaticEmbedder().tokenize([text])[0])
    estimated = estimate_tokens(text)
    print(f"{kind}: Llama 2 {real}, estimated {estimated} ({estimated / real - 1:+.0%})")
    assert 0.96 * real <= estimated <= 1.6 * real


@pytest.mark.parametrize(
    "text",
    ["a", " ", "\n\n", "🎉", "👩‍👩‍👧", "ß", "\x00", "\ud800", "𝔘𝔫𝔦", "ไทย", "é" * 50, "-" * 50, "12345"],
)
def test_every_text_costs_something_at_most_its_bytes(text: str) -> None:
    assert estimate_tokens("") == 0
    assert 0 <= estimate_tokens(text) <= len(text.encode(errors="surrogatepass")) + 2
    assert estimate_tokens(text + "x9") >= 1


def test_more_text_never_costs_much_less_and_a_book_is_quick() -> None:
    prose = TEXTS["English prose"]
    assert 0.9 < estimate_tokens(prose * 50) / (50 * estimate_tokens(prose)) < 1.1
    started = time.process_time()
    estimate_tokens(prose * 2_000)  # a megabyte
    assert time.process_time() - started < 5
