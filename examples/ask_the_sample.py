"""Remember a conversation of eleven months, and ask it questions. No network, no language model.

python examples/ask_the_sample.py [VAULT]

At a terminal it goes on with your own questions.
"""

import subprocess
import sys
from pathlib import Path

import mnemic

HERE = Path(__file__).parent
QUESTIONS = [
    "Where does Ana live now?",
    "What is Tom allergic to?",
    "When is Marta's wedding?",
    "Why does Tom not run the marathon?",
]


def main(vault: str) -> None:
    with mnemic.open(vault) as mem:
        told = mem.load_file(HERE / "ana-and-tom.jsonl", user="ana")
        print(f"{vault}: {told.stored} messages stored, {told.existing} were there already\n")
        for question in [] if sys.stdin.isatty() else QUESTIONS:
            print(f"? {question}")
            for hit in mem.search(question, user="ana", k=3):
                said = hit.cube.header
                best = sorted(hit.signals.items(), key=lambda item: -item[1])[:3]
                print(f"  {hit.score:5.2f}  {said.at:%d %b %Y}  {said.name}: {hit.text}")
                print(f"         because {', '.join(f'{name} +{value:.1f}' for name, value in best)}")
            context = mem.context(question, user="ana", budget=300)
            print(f"  context: {context.strategy}, {context.tokens} of {context.budget} tokens")
            print("    " + context.text.replace("\n", "\n    "))
            print(f"  answer: {mem.ask(question, user='ana').text}\n")
    if sys.stdin.isatty():
        chat = [sys.executable, "-m", "mnemic", "chat", "--vault", vault, "--user", "ana"]
        subprocess.run(chat, check=False)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ana-and-tom.db")
