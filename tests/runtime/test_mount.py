"""Mounting KV cubes: exact, a copy for each use, refused when they do not fit or are no longer true."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import mnemic
from language_models import needs_torch, tiny_gemma, tiny_llama
from mnemic.cube.errors import (
    IncompatibleMemory,
    InvalidFile,
    InvalidOption,
    ModelBusy,
    NotFound,
    PromptMismatch,
    StaleMemory,
)

pytestmark = needs_torch
ASKED = [{"role": "user", "content": "Who is allergic?"}]


def blob_path(told: Any, cube: mnemic.MemCube) -> Path:
    return Path(told.memory._parts.vault.blobs.path(cube.blob))


# --- what comes out


def test_it_generates_what_the_whole_prompt_would(told: Any) -> None:
    import torch

    cube = told.memory.as_kv(told.ids, told.model)
    with told.memory.mount(told.model, cube) as mounted:
        ids = torch.tensor([mounted.prompt_ids(ASKED)])
        options = {"max_new_tokens": 24, "min_new_tokens": 24, "do_sample": False}
        wanted = told.model.model.generate(ids, **options)
        assert torch.equal(mounted.generate(ids, **options), wanted)
        assert torch.equal(mounted.generate(input_ids=ids, **options), wanted)
        logits = told.model.model(ids).logits[:, mounted.kv.tokens :]
        assert (mounted(ids).logits - logits).abs().max() < 1e-4
        text = told.model.tokenizer.decode(ids[0])
        assert all(said in text for said in ("Ana moved to Porto", "Tom is allergic", "4711"))
        assert "<mnemic-memory>" in text


def test_as_a_language_model_it_says_the_same_as_with_the_text(told: Any) -> None:
    from mnemic.activation.kv import system_text
    from mnemic.transform.text_to_kv import INSTRUCTION

    cube = told.memory.as_kv(told.ids, told.model)
    with told.memory.mount(told.model, cube) as mounted:
        read = told.model.tokenizer.decode(mounted.kv.ids)
        content = read.removeprefix("<|im_start|>system\n").removesuffix("<|im_end|>\n")
        assert content.startswith(INSTRUCTION)
        assert system_text(told.model, content) == read
        wanted = told.model.complete([{"role": "system", "content": content}, *ASKED], max_tokens=20)
        assert mounted.complete(ASKED, max_tokens=20) == wanted
        assert mounted.answer("Who is allergic?", max_tokens=20).text == wanted.text
        assert "".join(mounted.stream(ASKED, max_tokens=20)) == wanted.text
        schema = {"enum": ["walnuts", "nuts"]}
        assert mounted.complete(ASKED, schema=schema).parsed in ("walnuts", "nuts")
        assert told.memory.ask("Who is allergic?", user="ana", model=mounted, budget=400).method == "tiny-0"


def test_beams_returned_sequences_and_batches_get_copies_of_their_own(told: Any) -> None:
    import torch

    with told.memory.mount(told.model, told.memory.as_kv(told.ids, told.model)) as mounted:
        one, two = (
            mounted.prompt_ids([{"role": "user", "content": text}]) for text in ("abc abc", "xyz xyz")
        )
        batch = torch.tensor([one, two])
        for options in ({"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {}):
            settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, **options}
            assert torch.equal(
                mounted.generate(batch, **settings), told.model.model.generate(batch, **settings)
            )


def test_rows_of_different_lengths_are_padded_after_the_memory(told: Any) -> None:
    import torch

    with told.memory.mount(told.model, told.memory.as_kv(told.ids, told.model)) as mounted:
        head = mounted.kv.ids.tolist()
        long, short = (mounted.prompt_ids([{"role": "user", "content": t}]) for t in ("abc abc abc", "abc"))
        gap = len(long) - len(short)
        padded = [*head, *[2] * gap, *short[len(head) :]]
        mask = torch.ones(2, len(long), dtype=torch.long)
        mask[1, len(head) : len(head) + gap] = 0
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        both = mounted.generate(torch.tensor([long, padded]), attention_mask=mask, **options)
        alone = mounted.generate(torch.tensor([short]), **options)
        assert both[1, len(long) :].tolist() == alone[0, len(short) :].tolist()
        with pytest.raises(PromptMismatch, match="hides a part"):
            mounted.generate(torch.tensor([long]), attention_mask=mask[:1] * 0, **options)


def test_five_uses_leave_what_is_stored_as_it_is(told: Any) -> None:
    import torch

    cube = told.memory.as_kv(told.ids, told.model)
    content = blob_path(told, cube).read_bytes()
    with told.memory.mount(told.model, cube) as mounted:
        kv = mounted.kv
        before = [one.clone() for one in (*kv.keys, *kv.values)]
        answers = {mounted.answer("Who?", max_tokens=12).text for _ in range(5)}
        assert len(answers) == 1
        assert all(torch.equal(one, two) for one, two in zip(before, (*kv.keys, *kv.values), strict=True))
    assert blob_path(told, cube).read_bytes() == content


def test_plain_text_is_continued_only_where_the_tokens_stay_the_same(told: Any) -> None:
    import torch

    from mnemic.activation.kv import prefill
    from mnemic.runtime.mount import mount

    text = "Tom is allergic to wal"
    kv = prefill(told.model, told.model.encode(text))
    with mount(told.model, kv) as mounted:
        with pytest.raises(PromptMismatch, match="cannot follow the mounted memory"):
            mounted.prompt("nuts. ")
        ids = mounted.prompt(". Ana moved")
        assert ids == told.model.encode(text + ". Ana moved")
        with pytest.raises(PromptMismatch, match=r"m\.prompt"):
            mounted.complete(ASKED)
        with pytest.raises(PromptMismatch, match="does not begin with"):
            mounted.generate(torch.tensor([told.model.encode("Ana moved to Porto in March and more.")]))


def test_several_cubes_are_exact_or_say_that_they_are_not(told: Any) -> None:
    import torch

    cubes = [told.memory.as_kv([id], told.model, instruction="") for id in told.ids]
    with told.memory.mount(told.model, cubes) as mounted:
        exact = mounted.kv
        assert mounted.report().label == "exact"
        assert mounted.report().stack == tuple(cube.id for cube in cubes)
        ids = torch.tensor([mounted.prompt_ids(ASKED)])
        options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
        assert torch.equal(mounted.generate(ids, **options), told.model.model.generate(ids, **options))
    with told.memory.mount(told.model, cubes, compose="rotated", measure=True) as mounted:
        report = mounted.report()
        assert report.label == "rotated"
        assert report.error.max_logit > 0
        assert mounted.kv.ids.tolist() == exact.ids.tolist()
    with told.memory.mount(told.model, cubes, order=[2, 0, 1]) as mounted:
        assert mounted.stack == (cubes[2].id, cubes[0].id, cubes[1].id)
        assert mounted.kv.ids.tolist() != exact.ids.tolist()


def test_a_smaller_one_says_how_far_it_is_off(told: Any) -> None:
    whole = told.memory.as_kv(told.ids, told.model)
    for storage in ("int8", "int4"):
        cube = told.memory.as_kv(told.ids, told.model, storage=storage)
        assert cube.blob.size < whole.blob.size * 0.5
        with told.memory.mount(told.model, cube) as mounted:
            report = mounted.report()
            assert report.label == storage
            assert report.error.tokens > 3
            assert report.error.max_logit > 0
            mounted.answer("Who?", max_tokens=4)


# --- what is no longer true


def test_a_source_that_changes_ends_every_use_at_once_and_its_return_brings_it_back(told: Any) -> None:
    cube = told.memory.as_kv(told.ids, told.model)
    with told.memory.mount(told.model, cube) as mounted:
        mounted.answer("Who?", max_tokens=2)
        told.memory.update(told.ids[2], "The locker code of Ida is 9000.")
        for use in (
            lambda: mounted.answer("Who?"),
            lambda: next(mounted.stream(ASKED)),
            lambda: mounted.generate(None, input_ids=None),
            lambda: mounted(None),
        ):
            with pytest.raises(StaleMemory, match=f"its source {told.ids[2]} was updated"):
                use()
        told.memory.update(told.ids[2], "The locker code of Ida is 4711.")
        mounted.answer("Who?", max_tokens=2)
        told.memory.delete(told.ids[0])
        with pytest.raises(StaleMemory, match="was deleted"):
            mounted.answer("Who?")
    with pytest.raises(StaleMemory, match="was deleted"), told.memory.mount(told.model, cube):
        pass
    with pytest.raises(NotFound, match="was deleted"):
        told.memory.as_kv(told.ids, told.model)


def test_another_process_that_changes_a_source_is_seen(told: Any) -> None:
    cube = told.memory.as_kv(told.ids, told.model)
    with told.memory.mount(told.model, cube) as mounted:
        with mnemic.open(told.path) as other:
            other.update(told.ids[0], "Ana moved to Braga in April.")
        with pytest.raises(StaleMemory):
            mounted.answer("Who?")


def test_a_source_that_changes_while_the_model_reads_makes_it_stale(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnemic.transform import text_to_kv

    real = text_to_kv.prefill

    def slow(*args: Any, **options: Any) -> Any:
        told.memory.update(told.ids[0], "Ana moved to Braga in April.")
        return real(*args, **options)

    monkeypatch.setattr(text_to_kv, "prefill", slow)
    with pytest.raises(StaleMemory, match="was updated"):
        told.memory.as_kv(told.ids, told.model)


def test_a_source_that_is_erased_takes_the_kv_and_its_file_with_it(told: Any) -> None:
    cube = told.memory.as_kv(told.ids, told.model)
    path = blob_path(told, cube)
    with told.memory.mount(told.model, cube) as mounted:
        told.memory.erase(told.ids[2], reason="the locker was given away")
        with pytest.raises(StaleMemory, match="it was erased"):
            mounted.answer("Who?")
        told.memory.flush()
    assert not path.exists()
    assert told.memory.list(user="ana", where={"kind": "activation"}) == []
    with pytest.raises(StaleMemory, match="it was erased"), told.memory.mount(told.model, cube):
        pass


def test_in_an_encrypted_vault_its_file_is_sealed(told: Any, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    with mnemic.open(tmp_path / "sealed.db", key="correct horse battery staple") as memory:
        ids = [memory.add(text, user="ana")[0].id for text in ("Tom likes walnuts.", "Ana likes tea.")]
        cube = memory.as_kv(ids, told.model)
        path = Path(memory._parts.vault.blobs.path(cube.blob))
        assert b"mnemic-kv" not in path.read_bytes()
        with memory.mount(told.model, cube) as mounted:
            assert "walnuts" in told.model.tokenizer.decode(mounted.kv.ids)
        content = path.read_bytes()
        path.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
        with pytest.raises(mnemic.MnemicError), memory.mount(told.model, cube):
            pass


def test_taking_a_change_back_makes_it_current_again(told: Any) -> None:
    cube = told.memory.as_kv(told.ids, told.model)
    change = told.memory.update(told.ids[0], "Ana moved to Braga in April.")
    with pytest.raises(StaleMemory), told.memory.mount(told.model, cube):
        pass
    told.memory.undo(change.id)
    with told.memory.mount(told.model, cube) as mounted:
        mounted.answer("Who?", max_tokens=2)


def test_one_that_was_dropped_is_not_served(told: Any) -> None:
    from mnemic.activation.kv_keeping import drop, listing

    vault = told.memory._parts.vault
    one, two = (told.memory.as_kv(told.ids, told.model) for _ in range(2))
    assert one.blob == two.blob  # the same content is one file
    assert drop(vault, one.id) == 0
    with told.memory.mount(told.model, two) as mounted:
        mounted.answer("Who?", max_tokens=2)
        assert drop(vault, two.id) == two.blob.size
        with pytest.raises(StaleMemory, match="dropped"):
            mounted.answer("Who?")
    assert listing(vault) == []
    assert [cube.id for cube in told.memory.list(user="ana")] == told.ids


def test_a_kv_is_no_text_and_is_found_as_none(told: Any) -> None:
    cube = told.memory.as_kv(told.ids, told.model)
    assert [one.id for one in told.memory.list(user="ana")] == told.ids
    assert told.memory.count(user="ana") == 3
    assert cube.id not in {hit.cube.id for hit in told.memory.search("locker", user="ana")}
    assert "mnemic-kv" not in told.memory.context("locker", user="ana").text
    (kept,) = told.memory.list(user="ana", where={"kind": "activation"})
    assert kept.id == cube.id
    assert {one.cube_id for one in kept.header.sources} == set(told.ids)
    assert cube.id in told.memory.explain(told.ids[0]).used_by


# --- what does not fit


@pytest.mark.parametrize(
    ("options", "part"),
    [({"seed": 1}, "weights"), ({"rms_norm_eps": 1e-3}, "config"),
     ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope")],
)  # fmt: skip
def test_another_model_is_refused_by_the_part_that_differs(
    told: Any, options: dict[str, Any], part: str
) -> None:
    import torch

    cube = told.memory.as_kv(told.ids, told.model)
    other = tiny_llama(**options)
    if "seed" not in options:
        other.model.load_state_dict(told.model.model.state_dict())
        with torch.no_grad():
            assert torch.equal(other.model.lm_head.weight, told.model.model.lm_head.weight)
    with pytest.raises(IncompatibleMemory) as refused, told.memory.mount(other, cube):
        pass
    assert refused.value.part == part
    assert refused.value.expected != refused.value.found
    assert part in str(refused.value)


def test_weights_that_change_under_a_mount_end_it(told: Any) -> None:
    import torch

    with told.memory.mount(told.model, told.memory.as_kv(told.ids, told.model)) as mounted:
        with torch.no_grad():
            told.model.model.lm_head.weight[0, 0] += 1
        with pytest.raises(IncompatibleMemory, match="weights"):
            mounted.answer("Who?")


def test_files_that_are_cut_changed_exchanged_or_gone_are_refused(told: Any) -> None:
    one = told.memory.as_kv(told.ids[:1], told.model)
    two = told.memory.as_kv(told.ids[1:], told.model)
    path, other = blob_path(told, one), blob_path(told, two)
    content = path.read_bytes()

    def refused(match: str) -> None:
        with pytest.raises(InvalidFile, match=match), told.memory.mount(told.model, one):
            pass

    path.write_bytes(content[:-7])
    refused("tensors take")
    path.write_bytes(content[:3000] + bytes([content[3000] ^ 4]) + content[3001:])
    refused("not a sound KV memory")
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused("does not match its SHA-256")
    path.write_bytes(other.read_bytes())
    refused("renamed or exchanged")
    path.write_bytes(b"\x80\x04cposix\nsystem\n")
    refused("does not begin as a safetensors file")
    path.unlink()
    with pytest.raises(NotFound), told.memory.mount(told.model, one):
        pass
    path.write_bytes(content)
    with told.memory.mount(told.model, one) as mounted:
        mounted.answer("Who?", max_tokens=2)


def test_cubes_of_two_users_and_other_kinds_cannot_be_read(told: Any) -> None:
    other = told.memory.add("Bo likes tea.", user="bo")[0].id
    with pytest.raises(InvalidOption, match="2 users"):
        told.memory.as_kv([told.ids[0], other], told.model)
    cube = told.memory.as_kv(told.ids, told.model)
    with pytest.raises(InvalidOption, match="is activation"):
        told.memory.as_kv([cube], told.model)
    with pytest.raises(InvalidOption, match="not a KV memory"), told.memory.mount(told.model, told.ids[0]):
        pass
    for bad in ([], "id", None):
        with pytest.raises(InvalidOption, match="say which cubes"):
            told.memory.as_kv(bad, told.model)
    with pytest.raises(InvalidOption, match="exact, int8, int4"):
        told.memory.as_kv(told.ids, told.model, storage="zip")


def test_options_that_the_mount_sets_itself_are_refused(told: Any) -> None:
    import torch

    from mnemic.runtime.mount import mount

    cube = told.memory.as_kv(told.ids, told.model)
    with told.memory.mount(told.model, cube) as mounted:
        ids = torch.tensor([mounted.prompt_ids(ASKED)])
        for options in ({"past_key_values": None}, {"cache": None}, {"use_cache": False}):
            with pytest.raises(InvalidOption):
                mounted.generate(ids, **options)
        with pytest.raises(InvalidOption, match="tensor of ids"):
            mounted.generate(ids[0])
        with pytest.raises(InvalidOption, match="in one call"), told.memory.mount(told.model, cube):
            pass
    with pytest.raises(InvalidOption, match="has ended"):
        mounted.answer("Who?")
    for call in (
        lambda: mount(told.model, []),
        lambda: mount(told.model, [7]),
        lambda: mount(told.model, cube),
        lambda: told.memory.mount(told.model, cube, order=[1]),
        lambda: told.memory.mount(told.model, cube, compose="glue"),
        lambda: told.memory.mount(told.model, cube, verify="never"),
    ):
        with pytest.raises(InvalidOption), call():
            pass


# --- other mounts


class Shift:
    """A stand-in for an adapter: adds to one layer's output, by a hook."""

    def __init__(self, id: str, point: Any, amount: float = 0.5, fails: bool = False) -> None:
        self.id, self.point, self._amount, self._fails = id, point, amount, fails

    def check(self, local: Any, stack: tuple[str, ...]) -> None:
        self.checked = (local.name, stack)

    def install(self, local: Any, undo: ExitStack) -> None:
        target = local.model.model.layers[1].mlp.down_proj
        hook = target.register_forward_hook(lambda _module, _args, out: out + self._amount)
        undo.callback(hook.remove)
        if self._fails:
            raise RuntimeError("half-way")


def state(model: Any) -> list[Any]:
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    weights = [(name, id(one), one.data_ptr(), one._version) for name, one in model.named_parameters()]
    return [
        hooks,
        weights,
        [id(module) for module in model.modules()],
        model.training,
        model.config.to_dict(),
    ]


def test_everything_is_as_before_after_a_mount_however_it_ends(told: Any) -> None:
    import torch

    from mnemic.runtime.mountable import Point

    ids = torch.tensor([told.model.encode("Ana moved")])
    before, logits = state(told.model.model), told.model.model(ids).logits
    lora, head = Shift("lora:1", Point.WEIGHT), Shift("task:1", Point.HEAD)
    with told.memory.mount(told.model, [head, lora]) as mounted:
        assert mounted.stack == ("lora:1", "task:1")
        assert not torch.equal(mounted(ids).logits, logits)
    assert state(told.model.model) == before
    with pytest.raises(KeyError), told.memory.mount(told.model, lora):
        raise KeyError
    assert state(told.model.model) == before
    broken = Shift("lora:2", Point.WEIGHT, fails=True)
    with pytest.raises(RuntimeError, match="half-way"), told.memory.mount(told.model, [lora, broken]):
        pass
    assert state(told.model.model) == before
    assert torch.equal(told.model.model(ids).logits, logits)


def test_a_kv_is_used_under_the_mounts_it_was_made_under_and_no_others(told: Any) -> None:
    from mnemic.runtime.mountable import Point

    base = told.memory.as_kv(told.ids, told.model)
    lora = Shift("lora:1", Point.WEIGHT)
    with told.memory.mount(told.model, lora):
        refusal = pytest.raises(IncompatibleMemory, match="other mounts than the model has now")
        with refusal as refused, told.memory.mount(told.model, base):
            pass
        assert refused.value.part == "stack"
        under = told.memory.as_kv(told.ids, told.model)
    with pytest.raises(IncompatibleMemory, match="other mounts"), told.memory.mount(told.model, under):
        pass
    with told.memory.mount(told.model, [under, lora]) as mounted:
        assert mounted.stack == ("lora:1", under.id)
        mounted.answer("Who?", max_tokens=2)
    with (
        pytest.raises(IncompatibleMemory),
        told.memory.mount(told.model, [under, Shift("lora:2", Point.WEIGHT)]),
    ):
        pass
    with told.memory.mount(told.model, base) as mounted:
        refusal = pytest.raises(IncompatibleMemory, match="under a KV memory that is mounted already")
        with refusal, told.memory.mount(told.model, lora):
            pass
        mounted.answer("Who?", max_tokens=2)
    with told.memory.mount(told.model, [Shift("task:1", Point.HEAD), base]) as mounted:
        assert mounted.stack == (base.id, "task:1")  # what acts after the prefix is allowed
        mounted.answer("Who?", max_tokens=2)


def test_another_thread_is_told_that_the_model_is_busy(told: Any) -> None:
    cube = told.memory.as_kv(told.ids, told.model)
    said: list[BaseException | str] = []

    def use() -> None:
        try:
            with told.memory.mount(told.model, cube) as mounted:
                said.append(mounted.answer("Who?", max_tokens=2).text)
        except ModelBusy as error:
            said.append(error)

    def in_thread() -> None:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    with told.memory.mount(told.model, cube):
        in_thread()
    in_thread()
    assert isinstance(said[0], ModelBusy)
    assert isinstance(said[1], str)


def test_mounts_that_are_left_out_of_order_are_an_error_and_leave_nothing(told: Any) -> None:
    from mnemic.models.stack import mounted as ids_on
    from mnemic.runtime.mountable import Point

    before = state(told.model.model)
    outer = told.memory.mount(told.model, Shift("lora:1", Point.WEIGHT))
    inner = told.memory.mount(told.model, Shift("lora:2", Point.WEIGHT))
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(InvalidOption, match="left in reverse"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    assert state(told.model.model) == before
    assert ids_on(told.model.model) == ()


def test_a_model_with_sliding_windows_is_mounted_like_any_other(told: Any) -> None:
    import torch

    model = tiny_gemma()
    rounded = told.memory.as_kv(told.ids, model, storage="int8")
    with told.memory.mount(model, rounded) as mounted:
        assert mounted.report().label == "int8"
        assert mounted.report().error.max_logit < 1
    cube = told.memory.as_kv(told.ids, model)
    with told.memory.mount(model, cube) as mounted:
        assert mounted.kv.tokens > 3 * 16
        ids = torch.tensor([mounted.prompt_ids(ASKED)])
        options = {"max_new_tokens": 24, "min_new_tokens": 24, "do_sample": False}
        assert torch.equal(mounted.generate(ids, **options), model.model.generate(ids, **options))
        beams = {**options, "num_beams": 3}
        assert torch.equal(mounted.generate(ids, **beams), model.model.generate(ids, **beams))
