"""Remember a conversation of eleven months, and ask it questions. No network, no language model.

python examples/ask_the_sample.py [VAULT]

At a terminal it goes on with your own questions.
"""

import subprocess
import sys
from pathlib import Path

import mnemic

HERE = Path(__file__).parent
BUDGET = 300  # tokens: too few for all that was said, so that something has to be chosen
QUESTIONS = [
    "Where does Ana live now?",
    "Which nuts can Tom not eat?",
    "When is Marta's wedding?",
    "Why does Tom not run the marathon?",
]


def show(mem: mnemic.Memory, question: str) -> None:
    """What a model would get within the budget, the best first, and why each piece is in it."""
    context = mem.context(question, user="ana", budget=BUDGET)
    signals = {hit.cube.id: hit.signals for hit in mem.search(question, user="ana", k=50)}
    ranks = list(signals)
    print(f"? {question}")
    for cube in sorted(context.cubes, key=lambda one: ranks.index(one.id) if one.id in signals else 50):
        best = sorted(signals.get(cube.id, {}).items(), key=lambda item: -item[1])[:3]
        why = ", ".join(f"{name} +{value:.1f}" for name, value in best) or context.why[cube.id]
        print(f"  [{context.refs[cube.id]}] {cube.header.at:%d %b %Y}  {cube.header.name}: {cube.text}")
        print(f"         because {why}")
    left_out = sum(one.count for one in context.omitted)
    print(f"  {context.strategy} context: {context.tokens} of {BUDGET} tokens, {left_out} messages left out")
    print(f"  answer: {mem.ask(question, user='ana').text}\n")


def main(vault: str) -> None:
    with mnemic.open(vault) as mem:
        told = mem.load_file(HERE / "ana-and-tom.jsonl", user="ana")
        print(f"{vault}: {told.stored} messages stored, {told.existing} were there already\n")
        for question in [] if sys.stdin.isatty() else QUESTIONS:
            show(mem, question)
    if sys.stdin.isatty():
        chat = [sys.executable, "-m", "mnemic", "chat", "--vault", vault, "--user", "ana"]
        subprocess.run(chat, check=False)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ana-and-tom.db")
