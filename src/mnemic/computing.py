"""The verbs of a Memory that need a model in this process: what it computes and learns, kept and mounted.

A part of the facade, which `memory.py` completes. The rooms of torch are found when a verb is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import ScopeRequired
from mnemic.cube.model import MemCube, Scope, check_scope_field
from mnemic.governance.guard import Guard, governed
from mnemic.vault.vault import Vault

if TYPE_CHECKING:
    from mnemic.models.local import LocalModel
    from mnemic.parametric.gate import Gate
    from mnemic.parametric.lora_training import Progress as TrainingProgress
    from mnemic.parametric.lora_training import Recipe
    from mnemic.runtime.mounted import Mounted
    from mnemic.runtime.states import Module, States
    from mnemic.transform.adapter_to_text import Spoken
    from mnemic.transform.paraphrases import Paraphraser
    from mnemic.transform.text_to_memory import Options as MemoryOptions


class Computing:
    """What `Memory` inherits."""

    _guard: Guard
    _vault: Vault

    @governed
    def as_kv(
        self,
        cubes: Sequence[str | MemCube],
        model: LocalModel,
        *,
        instruction: str | None = None,
        storage: str = "exact",
        title: str | None = None,
    ) -> MemCube:
        """Have a model in this process read these cubes once, and keep what it computed: a cube to `mount`.

        model: `load_model("smollm2")` or another. storage: "exact", "int8" or "int4". When a source changes,
        the cube is stale at once. Needs the extra [torch]; costs and errors:
        mnemic.transform.text_to_kv.as_kv.
        """
        require_extra("torch", extra="torch")
        from mnemic.transform.text_to_kv import INSTRUCTION, as_kv

        told = INSTRUCTION if instruction is None else instruction
        return as_kv(self._vault, cubes, model, instruction=told, storage=storage, title=title)

    @governed
    def mount(
        self,
        model: LocalModel,
        cubes: Any,
        *,
        order: Sequence[int] | None = None,
        verify: Literal["fast", "full"] = "fast",
        compose: str = "exact",
        ratio: float = 0.15,
        measure: bool = False,
    ) -> AbstractContextManager[Mounted]:
        """`with mem.mount(model, cubes) as m: m.answer("…")`: the model with KV cubes, adapters and other
        learned memories of this vault.

        Costs, options and errors: mnemic.runtime.mount.mount.
        """
        require_extra("torch", extra="torch")
        from mnemic.runtime.mount import mount

        listed = cubes if isinstance(cubes, Sequence) and not isinstance(cubes, str) else [cubes]
        for one in listed:
            if isinstance(one, str | MemCube):
                self._ask_for_mount(one if isinstance(one, str) else one.id)
        return mount(
            model, cubes, vault=self._vault, ask=self._ask_for_mount, order=order, verify=verify,
            compose=compose, ratio=ratio, measure=measure,
        )  # fmt: skip

    @governed
    def as_adapter(
        self,
        cubes: Sequence[str | MemCube],
        model: LocalModel,
        *,
        recipe: Recipe | None = None,
        gate: Gate | None = None,
        paraphraser: Paraphraser | None = None,
        title: str | None = None,
        progress: TrainingProgress | None = None,
    ) -> MemCube:
        """Have a model in this process learn what these cubes say, as a small adapter: a cube to `mount`.

        It is tested before it is stored, and NotLearned brings the report when it fails. When a source
        changes, it is stale at once. Needs the extra [parametric]; costs and errors:
        mnemic.transform.text_to_adapter.as_adapter.
        """
        require_extra("torch", extra="parametric")
        from mnemic.transform.text_to_adapter import as_adapter

        told = {} if progress is None else {"progress": progress}
        return as_adapter(
            self._vault, cubes, model, recipe=recipe, gate=gate, paraphraser=paraphraser, title=title, **told
        )

    @governed
    def as_memory(
        self,
        cubes: Sequence[str | MemCube],
        model: LocalModel,
        *,
        options: MemoryOptions | None = None,
        paraphraser: Paraphraser | None = None,
        tune_on: str | None = None,
        title: str | None = None,
        progress: TrainingProgress | None = None,
    ) -> MemCube:
        """Turn what these cubes say into a memory of next tokens, searched (kNN) or compiled (MLP): a cube to
        `mount` beside a model in this process.

        When a source changes, it is stale at once. Needs the extra [parametric]; costs and errors:
        mnemic.transform.text_to_memory.as_memory.
        """
        require_extra("torch", extra="parametric")
        from mnemic.transform.text_to_memory import as_memory

        told = {} if progress is None else {"progress": progress}
        return as_memory(
            self._vault, cubes, model, options=options, paraphraser=paraphraser, tune_on=tune_on, title=title,
            **told,
        )  # fmt: skip

    @governed
    def retrain(
        self,
        learned: str | MemCube,
        model: LocalModel,
        *,
        recipe: Recipe | None = None,
        gate: Gate | None = None,
        for_another_model: bool = False,
        progress: TrainingProgress | None = None,
    ) -> MemCube:
        """A new adapter or memory from what this one's sources say now, in its place.

        recipe, gate: of an adapter. for_another_model: the model may be another than before. Costs and
        errors: mnemic.transform.retraining.retrain.
        """
        require_extra("torch", extra="parametric")
        from mnemic.transform.retraining import retrain

        told = {} if progress is None else {"progress": progress}
        id = learned if isinstance(learned, str) else learned.id
        return retrain(
            self._vault, id, model, recipe=recipe, gate=gate, for_another_model=for_another_model, **told
        )

    @governed
    def as_text(self, adapter: str | MemCube, model: LocalModel | None = None) -> Spoken:
        """The texts that an adapter was trained on and, with its model, what its weights say of them now.

        Costs and errors: mnemic.transform.adapter_to_text.as_text.
        """
        require_extra("torch", extra="parametric")
        from mnemic.transform.adapter_to_text import as_text

        return as_text(self._vault, adapter if isinstance(adapter, str) else adapter.id, model)

    @governed
    def keep_state(
        self,
        state: States,
        model: Module,
        *,
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        sources: Sequence[str | MemCube] = (),
        token_ids: Any = None,
        title: str | None = None,
    ) -> MemCube:
        """Keep where a memory layer, or a stack of them, has got to in a stream: a cube to go on from.

        Needs the extra [torch]; costs and errors: mnemic.runtime.states.keep_state.
        """
        require_extra("torch", extra="torch")
        from mnemic.runtime.states import keep_state

        scope = self._scope(user, agent, session)
        return keep_state(self._vault, scope, state, model, sources=sources, token_ids=token_ids, title=title)

    @governed
    def load_state(
        self,
        cube: str | MemCube,
        model: Module,
        *,
        token_ids: Any = None,
        verify: Literal["fast", "full"] = "fast",
    ) -> States:
        """The state that `keep_state` kept, to go on from: by the very weights and options that made it only.

        Costs and errors: mnemic.runtime.states.load_state.
        """
        require_extra("torch", extra="torch")
        from mnemic.runtime.states import load_state

        return load_state(self._vault, cube, model, token_ids=token_ids, verify=verify)

    def _ask_for_mount(self, id: str) -> None:
        """May this caller use this cube now? Raises StaleMemory, NotFound, AccessDenied, on record."""

        def look() -> None:
            with self._vault.snapshot() as snapshot:
                snapshot.require_current(id)

        self._guard.run("mount", look, [id], {})

    def _scope(self, user: str | None, agent: str | None, session: str | None) -> Scope:
        named = (check_scope_field("user", user), check_scope_field("agent", agent))
        if named == (None, None):
            raise ScopeRequired("say whose memory this is: user='…' or agent='…'")
        return Scope(self._vault.tenant, *named, check_scope_field("session", session))
