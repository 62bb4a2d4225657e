"""A chat that remembers, with any OpenAI-compatible endpoint (OpenAI, Ollama, vLLM, llama.cpp).

pip install 'mnemic[llm]'
python examples/chat_with_memory.py --model llama3.2 --base-url http://localhost:11434/v1

Each turn: fetch what matters for it, answer, remember both sides. Memory stays in chat.db between runs.
"""

import argparse

import mnemic
from mnemic.models.openai_model import OpenAIModel

SYSTEM = "You are a helpful friend. The memory block holds what you know of the user; use it when it matters."


def main() -> None:
    options = argparse.ArgumentParser(description="A chat that remembers.")
    options.add_argument("--model", required=True)
    options.add_argument("--base-url", default="http://localhost:11434/v1")
    options.add_argument("--user", default="me")
    chosen = options.parse_args()

    model = OpenAIModel(model=chosen.model, base_url=chosen.base_url)
    with mnemic.open("chat.db") as mem:
        me = mem.scope(user=chosen.user)
        while said := input("> ").strip():
            context = me.context(said, budget=1500)
            answer = model.complete(
                [
                    {"role": "system", "content": f"{SYSTEM}\n\n{context.text}"},
                    {"role": "user", "content": said},
                ]
            ).text
            me.add([{"role": "user", "content": said}, {"role": "assistant", "content": answer}])
            print(answer)


if __name__ == "__main__":
    try:
        main()
    except (EOFError, KeyboardInterrupt):
        print()
