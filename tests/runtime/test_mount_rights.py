"""KV memory on somebody's behalf: what they may not see is neither read nor mounted, at any use."""

from __future__ import annotations

import time
from typing import Any

import pytest

import mnemic
from language_models import needs_torch
from mnemic.cube.errors import AccessDenied, NotFound, StaleMemory

pytestmark = needs_torch


@pytest.fixture
def owner(told: Any) -> mnemic.Memory:
    memory: mnemic.Memory = told.memory
    memory.governance.add_principal("ana", owns="ana")
    memory.governance.add_principal("guest")
    return memory


def denials(owner: mnemic.Memory) -> list[tuple[str, str]]:
    return [(one.by, one.verb) for one in owner.audit.log(denied=True, limit=100)]


def test_who_owns_the_texts_builds_and_mounts(told: Any, owner: mnemic.Memory) -> None:
    ana = owner.as_principal("ana")
    cube = ana.as_kv(told.ids, told.model)
    with ana.mount(told.model, cube) as mounted:
        assert mounted.answer("Who?", max_tokens=3).text is not None
    assert denials(owner) == []


def test_a_right_that_is_taken_back_ends_the_use_of_what_is_mounted(told: Any, owner: mnemic.Memory) -> None:
    cube = owner.as_kv(told.ids, told.model)
    guest = owner.as_principal("guest")
    with pytest.raises(NotFound), guest.mount(told.model, cube):
        pass
    grant = owner.governance.grant("guest", "read", user="ana")
    with guest.mount(told.model, cube) as mounted:
        mounted.answer("Who?", max_tokens=3)
        owner.governance.revoke(grant.id)
        before = denials(owner)
        for use in (
            lambda: mounted.answer("Who?", max_tokens=3),
            lambda: "".join(mounted.stream([{"role": "user", "content": "Who?"}])),
        ):
            with pytest.raises(NotFound):
                use()
        assert denials(owner) == [("guest", "mount")] * 2 + before
    owner.governance.grant("guest", "read", user="ana")
    with guest.mount(told.model, cube) as mounted:
        owner.governance.disable("guest")
        with pytest.raises(AccessDenied, match="disabled"):
            mounted.answer("Who?", max_tokens=3)


def test_one_hidden_source_hides_all_that_was_read_with_it(told: Any, owner: mnemic.Memory) -> None:
    (secret,) = owner.add("The vault code is 4711.", user="ana", labels="secret")
    open_, both = owner.as_kv(told.ids, told.model), owner.as_kv([*told.ids, secret.id], told.model)
    owner.governance.grant("guest", ["read", "write"], user="ana", unless="secret")
    guest = owner.as_principal("guest")
    with guest.mount(told.model, open_) as mounted:
        assert mounted.answer("Who?", max_tokens=3)
    said = []
    for cube in (both.id, "018f0000-0000-7000-8000-000000000000"):
        with pytest.raises(NotFound) as caught, guest.mount(told.model, [open_, cube]):
            pass
        said.append(str(caught.value).replace(cube, "ID"))
        with pytest.raises(NotFound) as caught:
            guest.as_kv([told.ids[0], secret.id if cube == both.id else cube], told.model)
        said.append(str(caught.value).replace(secret.id if cube == both.id else cube, "ID"))
    assert said[0] == said[2]
    assert said[1] == said[3], "what is hidden is not told from what is not there"
    owner.delete(secret.id)
    with pytest.raises(NotFound) as caught:
        guest.as_kv([secret.id], told.model)
    assert str(caught.value).replace(secret.id, "ID") == said[1]
    with pytest.raises(StaleMemory, match="was deleted"), owner.mount(told.model, both):
        pass


def test_reading_is_not_enough_to_build(told: Any, owner: mnemic.Memory) -> None:
    owner.governance.grant("guest", "read", user="ana")
    blobs = told.memory._parts.vault.blobs
    with pytest.raises(AccessDenied):
        owner.as_principal("guest").as_kv(told.ids, told.model)
    assert ("guest", "as_kv") in denials(owner)
    assert owner.count(user="ana") == len(told.ids)
    assert blobs.sweep(grace=0) == 0, "no file was written for it"


def test_what_was_kept_long_enough_is_not_served_to_its_owner_either(told: Any, owner: mnemic.Memory) -> None:
    cube = owner.as_kv(told.ids, told.model)
    with owner.mount(told.model, cube) as mounted:
        mounted.answer("Who?", max_tokens=3)
        owner.policies.add("keep 1 second", user="ana")
        time.sleep(1.2)
        with pytest.raises(StaleMemory):
            mounted.answer("Who?", max_tokens=3)
