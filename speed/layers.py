"""How fast memory layers are: chunks against the token loop, against public code, and against length.

    python speed/layers.py                         # ours alone
    python speed/layers.py --peers envs/peers    # a folder with flash-linear-attention and x-transformers
    python speed/layers.py --peers envs/peers --only gated    # those rows of the last table alone

CPU time of one thread, rounds by turns, ratios round by round: median [least, most].
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mnemic.bench import facts
from mnemic.bench.markdown import table
from mnemic.layers.recurrences import additive, delta
from mnemic.layers.table import LAYERS, layer_class, make
from mnemic.layers.taylor import TaylorLinearAttention

Work = Callable[[], Tensor]


def cpu_s(work: Work, *, backward: bool) -> float:
    """Seconds of CPU for one call, with the gradient of its sum if `backward`."""
    began = time.process_time()
    if backward:
        work().sum().backward()
    else:
        with torch.inference_mode():
            work()
    return time.process_time() - began


def ratios(ours: Work, theirs: Work, *, backward: bool, rounds: int) -> tuple[float, list[float]]:
    """Median milliseconds of ours, and how many times longer theirs took in each round."""
    mine, found = [], []
    for number in range(rounds + 1):
        a, b = cpu_s(ours, backward=backward), cpu_s(theirs, backward=backward)
        if number:  # the first round warms up
            mine.append(1e3 * a)
            found.append(b / max(a, 1e-9))
    return statistics.median(mine), found


STREAMS = [name for name in LAYERS if layer_class(name).dials]  # the others keep no state of a sequence


def said(found: list[float]) -> str:
    return f"{statistics.median(found):.1f} [{min(found):.1f}, {max(found):.1f}]"


def against_loop(rounds: int, time_steps: int) -> str:
    """Each layer's chunked form against its own definition, token by token."""
    rows = []
    for name in STREAMS:
        layer = make(name, dim=64, **layer_class(name).dials[0])
        x = torch.randn(2, time_steps, 64)
        cells = []
        for backward in (False, True):
            ms, found = ratios(
                lambda layer=layer, x=x: layer(x)[0],
                lambda layer=layer, x=x: layer.reference(x)[0],
                backward=backward,
                rounds=rounds,
            )
            cells += [f"{ms:.1f}", said(found)]
        rows.append([name, *cells])
    heads = ["layer", "forward ms", "loop, times longer", "with backward ms", "loop, times longer"]
    return table(heads, rows)


def against_peers(rounds: int, only: str = "") -> str:
    """The same mathematics in public code that runs on a CPU; results compared before they are timed."""
    from fla.ops.based.naive import naive_chunk_based, naive_parallel_based
    from fla.ops.delta_rule.naive import delta_rule_chunkwise
    from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule
    from fla.ops.gla.naive import naive_recurrent_gla
    from fla.ops.linear_attn.naive import naive_chunk_linear_attn
    from fla.ops.retention.naive import naive_retention
    from x_transformers.x_transformers import Attention

    batch, heads, steps, size = 2, 4, 1_024, 32
    torch.manual_seed(0)
    q, k, v = (torch.randn(batch, heads, steps, size) for _ in range(3))
    k, unit_q = (torch.nn.functional.normalize(t, dim=-1) for t in (k, q))
    beta = torch.rand(batch, heads, steps)
    decay = -torch.rand(batch, heads, steps) * 0.1
    channel_decay = -torch.rand(batch, heads, steps, size) * 0.1
    fixed = torch.log1p(-torch.exp2(-5 - torch.arange(heads).float())).view(1, -1, 1).expand(batch, -1, steps)
    zero, scale = torch.zeros(batch, heads, size, size), size**-0.5

    def swapped(*tensors: Tensor) -> list[Tensor]:
        return [t.transpose(1, 2) for t in tensors]

    def leaf(t: Tensor) -> Tensor:
        return t.detach().clone().requires_grad_()

    q, k, v, unit_q, beta = (leaf(t) for t in (q, k, v, unit_q, beta))
    small_q, small_k = (leaf(torch.randn(batch, heads, steps, 16)) for _ in range(2))
    taylor = TaylorLinearAttention(
        layer_class("taylor").Options.read({"dim": 128, "heads": 4, "key_dim": 16})
    )
    x = leaf(torch.randn(batch, steps, 128))
    ours_full = make("attention", dim=128, heads=4, rotary=False)
    theirs_full = Attention(dim=128, heads=4, dim_head=32, causal=True)
    theirs_flash = Attention(dim=128, heads=4, dim_head=32, causal=True, flash=True)
    for theirs in (theirs_full, theirs_flash):
        with torch.no_grad():
            for part, weight in zip("qkv", ours_full.qkv.weight.chunk(3), strict=True):
                getattr(theirs, f"to_{part}").weight.copy_(weight)
            theirs.to_out.weight.copy_(ours_full.out.weight)

    def based() -> Tensor:
        from torch.nn.functional import pad

        from mnemic.layers.recurrences import carry, in_chunks, whole
        from mnemic.layers.taylor import features

        qc, kc, vc = (in_chunks(t, 64) for t in (small_q, small_k, pad(v, (0, 1), value=1.0)))
        scores = (qc @ kc.mT) * 0.25
        inside = (1 + scores + scores.square() / 2).tril() @ vc
        before, _ = carry(features(kc).mT @ vc, torch.zeros(batch, heads, taylor.rows, size + 1))
        read = whole(inside + features(qc) @ before, steps)
        return read[..., :-1] / read[..., -1:]

    pairs: list[tuple[str, Work, Work]] = [
        (
            "linear attention, chunks: fla naive_chunk_linear_attn",
            lambda: additive(q * scale, k, v, zero)[0],
            lambda: naive_chunk_linear_attn(*swapped(q, k, v)).transpose(1, 2),
        ),
        (
            "retention: fla naive_retention (quadratic)",
            lambda: additive(q * scale, k, v, zero, log_decay=fixed)[0],
            lambda: naive_retention(q, k, v),
        ),
        (
            "gated linear attention: fla naive_recurrent_gla",
            lambda: additive(q * scale, k, v, zero, log_decay=channel_decay, chunk=16)[0],
            lambda: naive_recurrent_gla(*swapped(q, k, v, channel_decay))[0].transpose(1, 2),
        ),
        (
            "delta rule, chunks: fla delta_rule_chunkwise",
            lambda: delta(q * scale, k, v, beta, zero)[0],
            lambda: delta_rule_chunkwise(q, k, v, beta)[0],
        ),
        (
            "gated delta rule, chunks: fla naive_chunk_gated_delta_rule",
            lambda: delta(q * scale, k, v, beta, zero, log_decay=decay)[0],
            lambda: naive_chunk_gated_delta_rule(*swapped(q, k, v, decay, beta))[0].transpose(1, 2),
        ),
        (
            "Taylor (BASED): fla naive_parallel_based",
            based,
            lambda: naive_parallel_based(small_q, small_k, v),
        ),
        (
            "Taylor (BASED), chunks: fla naive_chunk_based",
            based,
            lambda: naive_chunk_based(small_q, small_k, v),
        ),
        ("causal attention: x-transformers", lambda: ours_full(x)[0], lambda: _first(theirs_full(x))),
        (
            "causal attention: x-transformers, flash=True",
            lambda: ours_full(x)[0],
            lambda: _first(theirs_flash(x)),
        ),
    ]
    rows = []
    for name, ours, theirs in pairs:
        if only not in name:
            continue
        try:
            with torch.no_grad():
                apart = float((ours() - _first(theirs())).abs().max())
        except Exception as error:  # noqa: BLE001 - what a peer cannot do here is a row
            rows.append([name, f"{type(error).__name__}: {str(error)[:60]}", "", "", "", ""])
            continue
        cells = [f"{apart:.0e}"]
        for backward in (False, True):
            try:
                ms, found = ratios(ours, lambda t=theirs: _first(t()), backward=backward, rounds=rounds)
                cells += [f"{ms:.1f}", said(found)]
            except Exception as error:  # noqa: BLE001
                cells += ["", f"{type(error).__name__}: {str(error)[:60]}"]
        rows.append([name, *cells])
    heads_ = ["what, and the public code", "apart", "ours forward ms", "theirs, times longer"]
    return table([*heads_, "ours with backward ms", "theirs, times longer"], rows)


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def against_length(rounds: int, lengths: list[int]) -> str:
    """CPU time of a forward by length, and the slope of its logarithm: 1 is linear, 2 quadratic."""
    rows = []
    for name in STREAMS:
        layer = make(name, dim=64, **layer_class(name).dials[0])
        spent = []
        for steps in lengths:
            x = torch.randn(1, steps, 64)
            runs = [cpu_s(lambda layer=layer, x=x: layer(x)[0], backward=False) for _ in range(rounds + 1)]
            spent.append(min(runs[1:]))
        slope = _slope([math.log(n) for n in lengths], [math.log(s) for s in spent])
        rows.append([name, *(f"{1e3 * s:.1f}" for s in spent), f"{slope:.2f}"])
    return table(["layer", *(f"{n:,} tokens, ms" for n in lengths), "slope"], rows)


def _slope(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return top / sum((a - mean_x) ** 2 for a in x)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", type=Path, help="folder to import flash-linear-attention, x-transformers from"
    )
    parser.add_argument("--only", default="", help="of the public code, rows with this in their name, alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=256, help="tokens in the comparison with the token loop")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1_024, 2_048, 4_096])
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    load = facts.load_average()
    command = f"python speed/layers.py --rounds {args.rounds} --steps {args.steps}"
    parts = []
    if args.only:
        command += f" --only {args.only}"
    else:
        parts += [f"## Chunks against the token loop, {args.steps} tokens, batch 2, width 64"]
        parts += [against_loop(args.rounds, args.steps)]
        parts += ["## Cost against length, batch 1, width 64", against_length(args.rounds, args.lengths)]
    if args.peers:
        sys.path.append(str(args.peers))
        parts += [
            "## Public code, 1,024 tokens, batch 2, 4 heads of 32",
            against_peers(args.rounds, args.only),
        ]
    machine = facts.machine()
    parts.append(
        f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}, one thread; load "
        f"average {load} before and {facts.load_average()} after. Compare within this run only."
    )
    head = ["# Speed of memory layers", f"`{command}{' --peers FOLDER' if args.peers else ''}`"]
    text = "\n\n".join([*head, *parts]) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
