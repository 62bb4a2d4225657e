"""`mnemic chat`: a question loop on a memory; with a model, a chat that remembers what is said."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.asking import print_answer, summary
from mnemic.cli.opening import Place, Who, known_users
from mnemic.cli.output import console, ending, note, print_error, print_json, safe
from mnemic.cli.why import print_pieces, signals_of
from mnemic.cube.errors import MnemicError

if TYPE_CHECKING:
    from mnemic.memory import Memory
    from mnemic.models.base import LanguageModel
    from mnemic.plaintext.compose.context import Context

ChatBudget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        "-b",
        min=1,
        help="Tokens that the context of a question may take. Default: 2000; none with --kv or --memory.",
        show_default=False,
    ),
]
KV = Annotated[
    list[str] | None,
    typer.Option(
        "--kv", metavar="ID", help="Start from this KV cube, by its id or an ending of it; repeatable."
    ),
]
Learned = Annotated[
    list[str] | None,
    typer.Option(
        "--memory", metavar="ID", help="Mount this learned memory (`mnemic memory list`); repeatable."
    ),
]
HELP = "Ask something. /add TEXT remembers it, /context QUESTION shows all a model would see, /quit ends."
DEFAULT_BUDGET = 2000
PIECES = 5  # of a context that are listed
TURNS = 12  # of this conversation that the model sees verbatim; older ones it finds in memory


def register(app: typer.Typer) -> None:
    app.command(
        "chat",
        epilog="Example:  mnemic chat --user ana --model smollm2",
    )(chat)


def chat(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    budget: ChatBudget = None,
    embedder: o.Embedder = None,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    kv: KV = None,
    learned: Learned = None,
    as_json: o.Json = False,
) -> None:
    """Ask a memory questions, one after another, and see why each piece was chosen.

    With --model it is a chat: the model sees what memory holds, and what both of you say is remembered. With
    --kv it starts from texts that the model has read before (`mnemic kv build`), which stand in for the
    context of each question; with --memory it has learned them (`mnemic memory compile`). Questions are also
    read from a pipe, one a line; with --json each is answered by one line of JSON.
    """
    mounts = [*(learned or ()), *(kv or ())]
    if mounts and model is None:
        raise typer.BadParameter(
            "--kv and --memory need the model that made them: add --model, as `mnemic kv list` and `mnemic "
            "memory list` show it"
        )
    tokens = budget if budget is not None else 0 if mounts else DEFAULT_BUDGET
    who = Who(user=user, agent=agent, session=session)
    who.reads()
    place = Place(vault=vault, tenant=tenant, embedder=embedder, model=model, base_url=base_url)
    with place.open(reading=model is None) as memory:
        if model is None and (remark := known_users(memory, who)):
            note(remark)
        with _speaker(memory, place, mounts) as speaker:
            talk = _Talk(memory, who, tokens, speaker, as_json)
            if sys.stdin.isatty() and not as_json:
                console().print(HELP, style="dim")
            for line in _lines():
                try:
                    talk.obey(line)
                except MnemicError as error:  # a failed question is no reason to end a conversation
                    print_error(type(error).__name__, str(error), as_json=as_json)


@contextmanager
def _speaker(memory: Memory, place: Place, mounts: list[str]) -> Iterator[LanguageModel | None]:
    """The model that answers, if there is one, with the KV and learned memories mounted, if any."""
    model = place.make_model()
    if not mounts:
        yield model
        return
    from mnemic.cli.opening import in_process
    from mnemic.upkeep import full_id

    if place.base_url is not None:
        raise typer.BadParameter("--kv and --memory need a model in this process: leave out --base-url")
    with memory.mount(in_process(place.model or ""), [full_id(memory, one) for one in mounts]) as mounted:
        yield mounted


def _lines() -> Iterator[str]:
    """What is typed or piped in, until its end or /quit."""
    if sys.stdin.isatty() and find_spec("readline"):  # arrows and history at the prompt
        import_module("readline")
    while True:
        try:
            line = input("» ") if sys.stdin.isatty() else sys.stdin.readline() or "/quit"
        except EOFError:
            return
        if line.strip() in ("/quit", "/exit", "/q"):
            return
        if line.strip():
            yield line.strip()


class _Talk:
    """A conversation with a memory: questions, or with a model a chat."""

    def __init__(
        self, memory: Memory, who: Who, budget: int, model: LanguageModel | None, as_json: bool
    ) -> None:
        self._memory, self._who, self._budget = memory, who, budget
        self._model, self._json = model, as_json
        self._turns: list[dict[str, str]] = []

    def obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "/add" and rest.strip():
            added = self._memory.add(rest.strip(), **self._who.writes())
            self._tell({"added": added[0]}, lambda: note(f"remembered [{ending(added[0].id)}]"))
        elif word == "/context" and rest.strip():
            made = self._context(rest.strip())
            self._tell({"context": made}, lambda: self._show(made.text, made))
        elif word.startswith("/"):
            note(HELP)
        elif self._model is None:
            self._answer(line)
        else:
            self._reply(line, self._model)

    def _answer(self, question: str) -> None:
        """In the memory's own words, with the pieces it rests on."""
        found = self._memory.ask(question, **self._who.reads(), budget=self._budget)
        made = self._context(question)

        def show() -> None:
            print_answer(found)
            console().print()
            signals = signals_of(self._memory, question, made, self._who.reads())
            print_pieces(made, signals, limit=PIECES)
            console().print(f"a model would see: {summary(made)}\n", style="dim")

        self._tell({"question": question, "answer": found, "context": made}, show)

    def _reply(self, said: str, model: LanguageModel) -> None:
        """The model's, which sees what memory holds; both sides are stored at once."""
        made = self._context(said) if self._budget else None
        self._memory.add(said, **self._who.writes())
        self._turns.append({"role": "user", "content": said})
        start = time.perf_counter()
        reply = model.complete([*(made.messages if made else ()), *self._turns[-TURNS:]]).text
        seconds = time.perf_counter() - start
        self._turns.append({"role": "assistant", "content": reply})
        if reply.strip():  # a model may say nothing
            self._memory.add({"role": "assistant", "content": reply}, **self._who.writes())
        value = {"said": said, "reply": reply, "context": made, "seconds": seconds}
        self._tell(value, lambda: self._show(reply, made))

    def _context(self, question: str) -> Context:
        return self._memory.context(question, **self._who.reads(), budget=self._budget or DEFAULT_BUDGET)

    def _show(self, text: str, made: Context | None) -> None:
        console().print(safe(text))
        console().print(f"seen: {summary(made) if made else 'what is mounted'}", style="dim")

    def _tell(self, value: dict[str, Any], show: Callable[[], None]) -> None:
        if self._json:
            print_json(value, indent=None)
        else:
            show()
