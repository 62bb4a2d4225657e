"""The static embedder against its real weights."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from mnemic.cube.errors import InvalidOption, InvalidText, MissingExtra, ModelError
from mnemic.models.base import Embedder, TokenEmbedder
from mnemic.models.static import TOKENIZER, WEIGHTS, StaticEmbedder

SPEC = find_spec("wordllama")
assert SPEC is not None
assert SPEC.origin is not None
PACKAGE = Path(SPEC.origin).parent
TEXTS = [
    "I moved to Porto in March.",
    "Ana lives in Porto, by the river.",
    "def f(x):\n    return  x  # two  spaces\n\tand a tab",
    "Grüße aus Köln 🎉 东京 안녕하세요",
    "   leading and trailing   ",
    "\x00 control \u200b characters",
    "<s> </s> <unk>",
    "",
]


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder()


def run(code: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)


def test_it_is_a_token_embedder(embedder: StaticEmbedder) -> None:
    assert isinstance(embedder, TokenEmbedder)
    assert isinstance(embedder, Embedder)
    assert (embedder.dim, embedder.inline) == (256, True)
    assert embedder.table.shape == (32_000, 256)
    assert embedder.table.dtype == np.float16
    assert not embedder.table.flags.writeable


def test_importing_it_loads_neither_torch_nor_wordllama_and_leaves_logging_alone() -> None:
    done = run(
        "import sys, logging, os\n"
        "before = dict(os.environ)\n"
        "import mnemic.models.static as static\n"
        "assert 'tokenizers' not in sys.modules, 'loaded before use'\n"
        "static.StaticEmbedder().embed(['hello'] * 200)\n"
        "assert not {'torch', 'wordllama', 'transformers', 'openai'} & set(sys.modules)\n"
        "assert logging.root.handlers == [] and logging.root.level == logging.WARNING\n"
        "assert dict(os.environ) == before\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_cutting_at_words_changes_no_token(embedder: StaticEmbedder) -> None:
    plain = Tokenizer.from_file(str(PACKAGE / TOKENIZER))
    plain.encode_special_tokens = True
    texts = [*TEXTS, " ".join(TEXTS * 50), "x" * 5_000, " " * 300, "a  b   c    d" * 40]
    ids = embedder.tokenize(texts)
    assert [list(row) for row in ids] == [plain.encode(text, add_special_tokens=False).ids for text in texts]
    assert all(row.dtype == np.uint16 for row in ids)


def test_a_word_never_starts_inside_a_token() -> None:
    vocabulary = Tokenizer.from_file(str(PACKAGE / TOKENIZER)).get_vocab()
    assert [token for token in vocabulary if "▁" in token.lstrip("▁")] == []


def test_embed_is_the_normalised_mean_of_token_vectors(embedder: StaticEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for vector, ids in zip(vectors[:-1], embedder.tokenize(TEXTS[:-1]), strict=True):
        mean = embedder.table[ids].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert embedder.embed([]).shape == (0, 256)
    assert embedder.tokenize([]) == []


def test_a_text_without_tokens_points_where_the_unknown_token_does(embedder: StaticEmbedder) -> None:
    unknown = embedder.table[0].astype(np.float32)
    np.testing.assert_allclose(embedder.embed([""])[0], unknown / np.linalg.norm(unknown), atol=1e-6)


def test_a_text_as_long_as_a_book_is_not_cut_short(embedder: StaticEmbedder) -> None:
    book = "The quick brown fox jumps over the lazy dog. " * 20_000
    assert len(embedder.tokenize([book])[0]) > 200_000
    np.testing.assert_allclose(
        embedder.embed([book])[0] @ embedder.embed([book[: len(book) // 2]])[0], 1, atol=1e-4
    )


def test_what_is_alike_is_near(embedder: StaticEmbedder) -> None:
    query, near, far = embedder.embed(
        ["Where does Ana live?", "Ana lives in Porto.", "The invoice is overdue."]
    )
    assert query @ near > query @ far + 0.1


@pytest.mark.parametrize(
    "texts", ["a lone text", b"bytes", [None], [b"x"], ["ok", 3], 5, ["\ud800 surrogate"]]
)
def test_what_is_not_a_list_of_texts_is_refused(embedder: StaticEmbedder, texts: object) -> None:
    with pytest.raises(InvalidText):
        embedder.embed(texts)  # type: ignore[arg-type]


def test_the_name_changes_with_any_byte_of_the_weights_or_the_tokenizer(tmp_path: Path) -> None:
    names = {StaticEmbedder().name, StaticEmbedder(PACKAGE).name}
    assert len(names) == 1
    for file in (WEIGHTS, TOKENIZER):
        folder = tmp_path / file.parent.name
        for original in (WEIGHTS, TOKENIZER):
            (folder / original).parent.mkdir(parents=True)
            shutil.copy(PACKAGE / original, folder / original)
        content = bytearray((folder / file).read_bytes())
        content[-2] ^= 1
        (folder / file).write_bytes(content)
        names.add(StaticEmbedder(folder).name)
    assert len(names) == 3


def test_missing_and_damaged_files_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="pip install"):
        _ = StaticEmbedder(tmp_path).table
    with pytest.raises(ModelError, match="pip install"):
        StaticEmbedder(tmp_path).tokenize(["x"])
    (tmp_path / WEIGHTS).parent.mkdir()
    (tmp_path / TOKENIZER).parent.mkdir()
    (tmp_path / TOKENIZER).write_bytes(b"{}")
    good = (PACKAGE / WEIGHTS).read_bytes()
    for bad in (b"", b"\xff" * 40, good[:1_000], good[:-2], good.replace(b"F16", b"F32", 1)):
        (tmp_path / WEIGHTS).write_bytes(bad)
        with pytest.raises(ModelError, match="pip install"):
            _ = StaticEmbedder(tmp_path).name
    with pytest.raises(ModelError, match="not a tokenizer"):
        StaticEmbedder(tmp_path).tokenize(["x"])
    with pytest.raises(InvalidOption):
        StaticEmbedder(3)  # type: ignore[arg-type]
    monkeypatch.setattr("mnemic.models.static.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="pip install wordllama"):
        _ = StaticEmbedder().name


def test_threads_that_race_to_load_it_see_one_table() -> None:
    fresh = StaticEmbedder()
    with ThreadPoolExecutor(8) as pool:
        tables = {id(table) for table in pool.map(lambda _: fresh.table, range(32))}
        vectors = list(pool.map(lambda _: fresh.embed(TEXTS), range(32)))
    assert len(tables) == 1
    assert all((vector == vectors[0]).all() for vector in vectors)


def test_it_travels_to_another_process_without_its_weights(embedder: StaticEmbedder) -> None:
    packed = pickle.dumps(embedder)
    assert len(packed) < 1_000
    assert pickle.loads(packed).name == embedder.name  # noqa: S301


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_works_without_warnings_also_when_the_lock_was_held() -> None:
    done = run(
        "import os, mnemic.models.static as static\n"
        "used = static.StaticEmbedder(); used.embed(['hello there'] * 500)\n"
        "fresh = static.StaticEmbedder()\n"
        "static._loading.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    ok = (used.embed(['x'] * 500) == fresh.embed(['x'] * 500)).all()\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
