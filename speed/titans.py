"""How fast Titans' memory is: chunked form, reference loop and titans-pytorch in one process, on the CPU.

    python -m venv envs/titans
    envs/titans/bin/pip install torch==2.13.0 titans-pytorch==0.5.5 -e '.[torch]'
    envs/titans/bin/python speed/titans.py --out docs/results

Each round runs every form once, in turn; a ratio is taken within a round, and the table gives its median
and range over the rounds. Without titans-pytorch its rows say so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnemic.layers.table import make

DIM, HEADS, DEPTH, CHUNK = 128, 2, 2, 64
PEER = "titans-pytorch"
Run = Callable[[Tensor], Tensor]


def ours(reads: str, *, chunk: int = CHUNK) -> nn.Module:
    """Persistent tokens and convolution left out, as titans-pytorch's NeuralMemory has neither."""
    return make(
        "titans-lmm",
        dim=DIM,
        heads=HEADS,
        depth=DEPTH,
        chunk=chunk,
        reads=reads,
        conv=0,
        persistent=0,
        limit=1e30,
    )


def theirs(chunk: int) -> nn.Module:
    """The same width, heads, MLP and refresh of weights; a gate and a gradient for each token, or chunk."""
    from titans_pytorch import NeuralMemory
    from titans_pytorch.memory_models import MemoryMLP

    return NeuralMemory(
        dim=DIM,
        heads=HEADS,
        dim_head=DIM // HEADS,
        chunk_size=chunk,
        batch_size=CHUNK,
        model=MemoryMLP(DIM // HEADS, depth=DEPTH, expansion_factor=4.0),
        momentum=True,
        qk_rmsnorm=True,
        per_head_learned_parameters=True,
    )


def forms() -> dict[str, tuple[nn.Module, Run]]:
    """Each form and what runs it: (batch, time, dim) -> (batch, time, dim)."""
    token, chunk = ours("token"), ours("chunk")
    found: dict[str, tuple[nn.Module, Run]] = {
        "mnemic, reads the token's weights": (token, lambda x: token(x)[0]),
        "mnemic, reads the chunk's weights": (chunk, lambda x: chunk(x)[0]),
        "mnemic, reference loop": (token, lambda x: token.reference(x)[0]),
        "mnemic, step by step": (token, lambda x: stepped(token, x)),
    }
    if importlib.util.find_spec("titans_pytorch"):
        each, whole = theirs(1), theirs(CHUNK)
        found[f"{PEER}, gates and reads a token"] = each, lambda x: each(x)[0]
        found[f"{PEER}, gates and reads a chunk"] = whole, lambda x: whole(x)[0]
    return found


def stepped(layer: Any, x: Tensor) -> Tensor:
    state, outputs = layer.init_state(x.shape[0]), []
    for token in x.unbind(1):
        y, state = layer.step(token, state)
        outputs.append(y)
    return torch.stack(outputs, 1)


def clock(module: nn.Module, run: Run, x: Tensor, *, backward: bool) -> float:
    """Seconds of CPU time of this process; gradients of every parameter and of x with `backward`."""
    if not backward:
        with torch.no_grad():
            begun = time.process_time()
            run(x)
            return time.process_time() - begun
    module.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_()
    begun = time.process_time()
    run(x).square().mean().backward()
    return time.process_time() - begun


def rounds(number: int, length: int, batch: int) -> dict[str, dict[str, list[float]]]:
    """{"forward" | "forward and backward": {form: a time for each round}}."""
    torch.manual_seed(0)
    x, found = torch.randn(batch, length, DIM), {}
    made = forms()
    for backward in (False, True):
        timed: dict[str, list[float]] = {name: [] for name in made}
        for once in range(number + 1):
            for name, (module, run) in made.items():
                seconds = clock(module, run, x, backward=backward)
                if once:  # the first round warms up
                    timed[name].append(seconds)
        found["forward and backward" if backward else "forward"] = timed
    return found


def slope(lengths: list[int], number: int) -> tuple[list[tuple[int, float]], float]:
    """Seconds of a forward at each length, best of the rounds, and the slope of log time on log length."""
    layer = ours("token")
    points = []
    for length in lengths:
        x = torch.randn(1, length, DIM)
        points.append(
            (length, min(clock(layer, lambda x: layer(x)[0], x, backward=False) for _ in range(number)))
        )
    logs = [(math.log(length), math.log(seconds)) for length, seconds in points]
    means = [statistics.mean(axis) for axis in zip(*logs, strict=True)]
    over = sum((a - means[0]) * (b - means[1]) for a, b in logs)
    return points, over / sum((a - means[0]) ** 2 for a, _ in logs)


def ratio(slow: list[float], fast: list[float]) -> str:
    """Median and range, round by round."""
    found = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return f"{statistics.median(found):.1f} [{found[0]:.1f}, {found[-1]:.1f}]"


def markdown(report: dict[str, Any]) -> str:
    lines = ["# Titans: speed", "", f"`{report['command']}`", "", report["about"], ""]
    for what, timed in report["timed"].items():
        base = timed["mnemic, reads the token's weights"]
        same = timed["mnemic, reads the chunk's weights"]
        lines += [
            f"## {what}",
            "",
            "| form | ms, median | × the token form | × the chunk form |",
            "| --- | --- | --- | --- |",
        ]
        for name, seconds in timed.items():
            median = statistics.median(seconds) * 1000
            lines.append(f"| {name} | {median:.0f} | {ratio(seconds, base)} | {ratio(seconds, same)} |")
        lines.append("")
    lines += ["## Cost against length", "", "| tokens | ms | µs a token |", "| --- | --- | --- |"]
    lines += [f"| {n} | {s * 1000:.0f} | {s / n * 1e6:.1f} |" for n, s in report["lengths"]]
    lines += ["", f"Slope of log time on log length: {report['slope']:.3f} (1 is linear).", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("speed-results"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    timed = rounds(given.rounds, given.length, given.batch)
    points, exponent = slope(given.lengths, given.rounds)
    peer = importlib.metadata.version(PEER) if importlib.util.find_spec("titans_pytorch") else "not installed"
    size = f"--rounds {given.rounds} --length {given.length} --batch {given.batch}"
    about = [
        f"Batch {given.batch}, {given.length} tokens, width {DIM}, {HEADS} heads, an MLP of {DEPTH} layers",
        f"and {4 * DIM // HEADS} hidden numbers a head, weights refreshed every {CHUNK} tokens, float32.",
        f"CPU time of {given.threads} thread(s), {given.rounds} rounds; torch {torch.__version__}, {PEER}",
        f"{peer}; load average {os.getloadavg()[0]:.1f}. Ratios: median [range] over rounds.",
    ]
    report = {
        "command": f"python speed/titans.py {size}",
        "about": " ".join(about),
        "timed": timed,
        "lengths": points,
        "slope": exponent,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "titans-speed.json").write_text(json.dumps(report, indent=1) + "\n")
    text = markdown(report)
    (given.out / "titans-speed.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
