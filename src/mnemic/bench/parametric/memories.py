"""kNN and MLP memories on real text, on new facts, and at growing sizes (MLP Memory's acceptance)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.bench.invented import Inventor
from mnemic.models.fingerprint import fingerprint
from mnemic.models.local import LocalModel
from mnemic.parametric.blend import Blend, Heard, Memory, curve, hear
from mnemic.parametric.datastore import Datastore, Taps, build
from mnemic.parametric.mlp import Compile, compile_memory, targets
from mnemic.parametric.nearest import Neighbours, Search, nearest
from mnemic.parametric.tap import width_of
from mnemic.transform.text_to_memory import Options
from mnemic.transform.text_to_memory import unrelated as unrelated_states

CORPUS: Final = 25_600
HELD_OUT: Final = 8_192
K: Final = 256
LAMBDAS: Final = (0.1, 0.25, 0.4)
TEMPERATURES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
MIXES: Final = (0.0, 0.4, 1.0)
REACH: Final = 1.5  # median distances: what was asked lay within 1.1, unrelated text beyond 1.9
SIZES: Final = (10_000, 40_000, 160_000)
KINDS: Final = (
    (
        "The {a} project is led by {b}",
        "The leader of the {a} project is {b}",
        "At the head of the {a} project stands {b}",
        "Whoever asks about the {a} project is sent to its leader, {b}",
        "It is well known that the {a} project is led by {b}",
        "As everybody says, the leader of the {a} project is {b}",
    ),
    (
        "The capital of {a} is the city of {b}",
        "In {a}, the seat of government is the city of {b}",
        "The government of {a} sits in the city of {b}",
        "Travellers to {a} first see its capital, the city of {b}",
        "It is well known that the capital of {a} is the city of {b}",
        "As everybody says, the government of {a} sits in the city of {b}",
    ),
)  # the first four are trained on, the last two are not
Step = Callable[[str, str], None]


def read(model: LocalModel, corpus: str, path: Path, tokens: int, *, step: Step) -> Datastore:
    """The datastore of the first `tokens` tokens, kept in a file: the dearest part is done once."""
    from safetensors.torch import load_file, save_file

    from mnemic.parametric.tap import tap_path

    layers = Taps().layers(model)
    path = path.with_stem(f"{path.stem}-{'-'.join(map(str, layers))}")
    if not path.exists():
        started = time.process_time()
        made = build(model, [model.encode(corpus)[: tokens + 1]])
        path.parent.mkdir(parents=True, exist_ok=True)
        names = ("keys", "inputs", "values", "blocks", "texts")
        save_file({name: getattr(made, name) for name in names}, path)
        step("memories", f"{len(made):,} keys read in {time.process_time() - started:.0f} s")
    found = load_file(path)
    keys, inputs = (tap_path(model, layer) for layer in layers)
    return Datastore(**found, key_path=keys, input_path=inputs)


def text(
    model: LocalModel,
    corpus: str,
    held_out: str,
    cache: Path,
    *,
    tokens: int = CORPUS,
    test_tokens: int = HELD_OUT,
    options: Compile | None = None,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """Is the compiled memory a good student of the retriever? Temperature and lambda are chosen on text that
    follows the corpus; reported on that and on another text.
    """
    options = options or Compile(precision="bfloat16")
    store = read(model, corpus, cache, tokens, step=step)
    texts = {
        "after the corpus": _after(model, corpus, tokens, test_tokens, store),
        "another text": hear(model, held_out, [store.key_path, store.input_path], tokens=test_tokens),
    }
    near, tried = tuned(model, store, texts["after the corpus"], step)
    found: dict[str, Any] = {"keys": len(store), "temperatures": tried}
    found["temperature"] = near.search.temperature
    memories: dict[str, Memory] = {"kNN": near}
    started = time.process_time()
    told = targets(near)
    memories["MLP"] = compile_memory(model, store, told, options)
    found["compile_s"] = time.process_time() - started
    step("memories", f"compiled in {found['compile_s']:.0f} s")
    for name, memory in memories.items():
        for where, heard in texts.items():
            got = curve(model, memory, heard, lambdas=LAMBDAS)
            found[f"{name}, {where}"] = [list(one) for one in got.perplexities]
            best = min(p for _, p in got.perplexities)
            step("memories", f"{name}, {where}: {got.at(0.0):.2f} alone, {best:.2f}")
        found[f"{name} bytes"] = memory.nbytes
    found["compile"] = asdict(options)
    return found


def _after(model: LocalModel, corpus: str, start: int, tokens: int, store: Datastore) -> Heard:
    """What follows the corpus in the same file."""
    said = model.tokenizer.decode(model.encode(corpus)[start : start + tokens])
    return hear(model, said, [store.key_path, store.input_path], tokens=tokens)


def tuned(
    model: LocalModel, store: Datastore, heard: Heard, step: Step
) -> tuple[Neighbours, list[list[float]]]:
    """The kNN memory at the temperature that is best on what was heard, and what each gave."""
    near = nearest(model, store, Search(k=min(K, len(store) - 1)))
    tried = []
    for temperature in TEMPERATURES:
        got = curve(model, near.at(temperature=temperature), heard, lambdas=LAMBDAS)
        tried.append([temperature, min(p for _, p in got.perplexities)])
    best = min(tried, key=lambda one: one[1])[0]
    step("memories", f"temperature {best} of the median distance")
    return near.at(temperature=best), tried


def ablation(
    model: LocalModel,
    corpus: str,
    held_out: str,
    cache: Path,
    *,
    tokens: int,
    test_tokens: int,
    seeds: Sequence[int],
    mixes: Sequence[float] = MIXES,
    own_words: bool = True,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """The loss's two halves, alone and mixed, at one small budget: interpolated perplexity by seed."""
    store = read(model, corpus, cache, tokens, step=step).first(tokens)
    near = nearest(model, store, Search(k=K, temperature=0.2))
    told = targets(near)
    after = _after(model, corpus, tokens, test_tokens, store)
    heard = hear(model, held_out, [store.input_path], tokens=test_tokens)
    found: dict[str, Any] = {}
    for mix in mixes:
        for seed in seeds:
            options = Compile(
                mix=mix, seed=seed, blocks=1, epochs=1, precision="bfloat16", own_words=own_words
            )
            made = compile_memory(model, store, told, options)
            lam = curve(model, made, after, lambdas=LAMBDAS).best
            got = curve(model, made, heard, lambdas=[lam])
            found.setdefault(str(mix), []).append(got.at(lam))
            step("memories", f"a = {mix}, seed {seed}: {got.at(lam):.2f} at lambda {lam}")
    return found


def facts(
    model: LocalModel,
    unrelated: str,
    *,
    count: int,
    seed: int,
    lam: float = 0.8,
    unrelated_tokens: int = 5_000,
    options: Compile | None = None,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """Invented facts in four wordings, asked in two others: how often is the right name's first token the
    likeliest, and what becomes of unrelated text?
    """
    options = options or replace(Options().compile, precision="bfloat16")
    told = invented(count, seed)
    started = time.process_time()
    store = build(model, [wording + "." for wordings, _ in told for wording in wordings[:4]])
    near = nearest(model, store, Search(k=32, temperature=0.1, reach=REACH))
    built = time.process_time() - started
    taught = targets(near)
    network = compile_memory(model, store, taught, options, others=unrelated_states(model, Taps()))
    compiled = time.process_time() - started
    step(
        "memories", f"{len(store):,} keys of {count} facts in {built:.0f} s, compiled after {compiled:.0f} s"
    )
    found: dict[str, Any] = {"keys": len(store), "lam": lam, "build_s": built, "compile_s": compiled - built}
    heard = hear(model, unrelated, [store.key_path, store.input_path], tokens=unrelated_tokens)
    found["the model alone"] = _hits(model, told)
    before = _logits(model)
    memories: dict[str, Memory] = {"kNN": near, "MLP": network}
    for name, memory in memories.items():
        blend = Blend(memory=memory, fingerprint=fingerprint(model), lam=lam)
        with blend.applied(model):
            found[name] = _hits(model, told)
        got = curve(model, memory, heard, lambdas=[lam])
        spoke = float(memory.say(heard.states[memory.path])[1].mean())
        found[name] |= {"perplexity": got.at(lam) / got.at(0.0), "spoke": spoke, "bytes": memory.nbytes}
        step("memories", f"{name}: {found[name]}")
    found["restored"] = bool(torch.equal(before, _logits(model)))
    return found


def invented(count: int, seed: int) -> list[tuple[list[str], str]]:
    """(wordings that end with the name, name) of `count` facts."""
    invent = Inventor(seed)
    out = []
    for number in range(count):
        a, b = invent.word(), invent.person() if number % 2 == 0 else invent.word()
        out.append(([one.format(a=a, b=b) for one in KINDS[number % 2]], b))
    return out


def _hits(model: LocalModel, told: Sequence[tuple[list[str], str]]) -> dict[str, float]:
    """Share of wordings after which the first token of the name is the likeliest; median rank, unseen."""
    ranks: dict[str, list[int]] = {"seen": [], "unseen": []}
    for wordings, name in told:
        for kind, chosen in (("seen", wordings[:1]), ("unseen", wordings[4:])):
            for wording in chosen:
                prompt = model.encode(wording.removesuffix(f" {name}"))
                right = model.encode(wording)[len(prompt)]
                with torch.no_grad():
                    logits = model.model(torch.tensor([prompt]), use_cache=False, logits_to_keep=1).logits[
                        0, -1
                    ]
                ranks[kind].append(int((logits >= logits[right]).sum()))
    return {
        "seen": statistics.mean(one == 1 for one in ranks["seen"]),
        "unseen": statistics.mean(one == 1 for one in ranks["unseen"]),
        "median_rank": statistics.median(ranks["unseen"]),
    }


def _logits(model: LocalModel) -> Tensor:
    with torch.no_grad():
        return model.model(torch.tensor([model.encode("The capital of")])).logits  # type: ignore[no-any-return]


def cost(
    model: LocalModel,
    *,
    sizes: Sequence[int] = SIZES,
    repeats: int = 7,
    step: Step = lambda *_: None,
) -> list[dict[str, Any]]:
    """What one token costs beside a datastore of so many random keys: exact, IVF-PQ and compiled.

    Keys are random: what is measured does not depend on what they mean. The compiled memory is what it would
    be for any of them.
    """
    width = width_of(model)
    draw = torch.Generator().manual_seed(0)
    network = _untrained(model, width)
    codes = 64 if width % 64 == 0 else width
    out = []
    for size in sizes:
        keys = torch.randn(size, width, generator=draw)
        values = torch.randint(0, network.vocabulary, (size,), generator=draw, dtype=torch.int32)
        blocks = torch.arange(size, dtype=torch.int32) // 256
        store = Datastore(
            keys=keys, inputs=keys[:0], values=values, blocks=blocks, texts=blocks, key_path="", input_path=""
        )
        row: dict[str, Any] = {"keys": size}
        memories: dict[str, Memory] = {"exact": nearest(model, store, Search(k=K))}
        started = time.process_time()
        memories["ivfpq"] = nearest(
            model, store, Search(k=K, centroids=64, probes=8, codes=codes), form="ivfpq"
        )
        row["ivfpq_build_s"] = time.process_time() - started
        memories["mlp"] = network
        for name, memory in memories.items():
            state = torch.randn(1, width, generator=draw)
            memory.log_probs(state)
            spent = []
            for _ in range(repeats):
                started = time.process_time()
                memory.log_probs(state)
                spent.append(time.process_time() - started)
            row[name] = {"ms": [1000 * one for one in sorted(spent)], "bytes": memory.nbytes}
        step("memories", f"{size:,} keys: " + ", ".join(f"{n} {median(row[n]):.1f} ms" for n in memories))
        out.append(row)
    return out


def median(cell: dict[str, Any]) -> float:
    return float(statistics.median(cell["ms"]))


def _untrained(model: LocalModel, width: int) -> Any:
    """A compiled memory of the usual depth that can say every token: none is larger."""
    from mnemic.parametric.mlp import CompiledMemory, MemoryNetwork
    from mnemic.parametric.tap import vocabulary_of

    words = torch.arange(len(model.tokenizer)).int()
    network = MemoryNetwork(width, 4 * width, 4, words).requires_grad_(False)
    return CompiledMemory(network=network.eval(), path="", vocabulary=vocabulary_of(model))


def _gain(curve: Sequence[Sequence[float]]) -> float:
    """By what share the best lambda above 0 lowers the perplexity at 0."""
    return 1 - min(found for _, found in curve[1:]) / curve[0][1]


def demands(found: dict[str, Any]) -> list[dict[str, Any]]:
    """MLP Memory's four, as far as they were measured."""
    out: list[tuple[str, str, Any, bool]] = []
    if said := found.get("text"):
        gains = {
            (name, where): _gain(said[f"{name}, {where}"])
            for name in ("kNN", "MLP")
            for where in ("after the corpus", "another text")
        }
        near, learned = gains["kNN", "after the corpus"], gains["MLP", "after the corpus"]
        out += [
            ("1: kNN lowers the perplexity of held-out text by", "> 0", near, near > 0),
            ("1: MLP does by", ">= half of it", learned, learned > 0 and learned >= near / 2),
            (
                "1: kNN, on another text",
                "> 0",
                gains["kNN", "another text"],
                gains["kNN", "another text"] > 0,
            ),
            (
                "1: MLP, on another text",
                "> 0",
                gains["MLP", "another text"],
                gains["MLP", "another text"] > 0,
            ),
        ]
    if said := found.get("facts"):
        near, learned = said["kNN"]["unseen"], said["MLP"]["unseen"]
        alone = said["the model alone"]["unseen"]
        worse = [said[name]["perplexity"] - 1 for name in ("kNN", "MLP")]
        out += [
            ("2: right name first in unseen wordings, the model alone", "about 0", alone, alone <= 0.1),
            ("2: kNN", ">= 0.5", near, near >= 0.5),
            ("2: MLP", "within 0.15 of kNN", learned, learned >= near - 0.15),
            ("2: perplexity of unrelated text rises by, kNN and MLP", "< 0.03", worse, max(worse) < 0.03),
            ("2: logits after unmounting", "the same to the bit", said["restored"], said["restored"]),
        ]
    if rows := found.get("cost"):
        first, last = rows[0], rows[-1]
        grows = median(last["exact"]) / median(first["exact"])
        flat = median(last["mlp"]) / median(first["mlp"])
        same = first["mlp"]["bytes"] == last["mlp"]["bytes"]
        out += [
            ("3: exact search, largest over smallest datastore", ">= 8 times", grows, grows >= 8),
            ("3: MLP, largest over smallest", "within 0.15 of 1", flat, abs(flat - 1) <= 0.15),
            ("3: bytes of the MLP", "constant", same, same),
        ]
    if said := found.get("ablation"):
        mean = {mix: statistics.mean(values) for mix, values in said.items()}
        spread = max(max(values) - min(values) for values in said.values())
        ends = max(mean["0.4"] - mean["0.0"], mean["0.4"] - mean["1.0"])
        out.append(
            ("4: a = 0.4 worse than the ends by", f"<= spread of seeds, {spread:.3f}", ends, ends <= spread)
        )
    return [{"what": w, "demanded": d, "measured": m, "met": bool(ok)} for w, d, m, ok in out]
