"""The next tokens of the nearest stored states (kNN-LM, Khandelwal et al. 2020): exact or IVF-PQ search."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from mnemic.cube.checks import require_count, require_extra, require_positive
from mnemic.cube.errors import InvalidOption
from mnemic.models.local import LocalModel
from mnemic.parametric.datastore import Datastore

CHUNK: Final = 1024  # queries at once: 1024 · keys · 4 bytes of distances
Found = tuple[Tensor, Tensor]  # squared distances and places, [queries, k]; a place of -1 is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How neighbours are found and weighed.

    k: of each query. temperature: in units of the datastore's median squared distance to a neighbour, so that
    it means the same for any model (the paper's 16 is an absolute one, for GPT-2). reach: where the nearest
    neighbour is farther than so many median distances the memory is silent and the model speaks alone, so
    that text which has nothing to do with it is left as it was; None: it always speaks, as in kNN-LM.
    centroids, codes, probes: of IVF-PQ; codes: bytes a key is stored in. Its quantiser is trained without the
    polysemous step, which takes a minute for what the rest does in a second and is not used by this search.
    """

    k: int = 256
    temperature: float = 1.0
    reach: float | None = None
    centroids: int = 64
    codes: int = 64
    probes: int = 16

    def __post_init__(self) -> None:
        require_count(k=self.k, centroids=self.centroids, codes=self.codes, probes=self.probes)
        require_positive(temperature=self.temperature)
        if self.reach is not None:
            require_positive(reach=self.reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A stored state near a query: where it stands, its token, and its share in the answer."""

    place: int
    token: int
    weight: float
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """A datastore that is searched. form: "exact" or "ivfpq"; scale: the median squared distance."""

    store: Datastore
    search: Search
    vocabulary: int
    scale: float
    form: str = "exact"
    index: Any = field(default=None, repr=False)
    norms: Tensor | None = field(default=None, repr=False)  # squared lengths of the keys, for exact search

    def __post_init__(self) -> None:
        if self.norms is None and self.index is None:
            object.__setattr__(self, "norms", self.store.keys.pow(2).sum(1))

    @property
    def path(self) -> str:
        return self.store.key_path

    @property
    def nbytes(self) -> int:
        """Of keys (exact) or their codes, and values."""
        keys = self.store.keys.numel() * 4 if self.index is None else len(index_bytes(self.index))
        return keys + 4 * len(self.store)

    def log_probs(self, states: Tensor) -> Tensor:
        """(n, width) to (n, vocabulary) float32; -inf for tokens that no neighbour has.

        exact: O(n · keys · width); ivfpq: O(n · keys · probes / centroids).
        """
        return self.say(states)[0]

    def say(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """`log_probs`, and for each state how much it has to say: (n,), 1 within reach, else 0."""
        said = []
        for part in states.split(CHUNK):
            distances, places = self.find(part)
            said.append((self.spread(distances, places), self.within(distances)))
        return torch.cat([one for one, _ in said]), torch.cat([one for _, one in said])

    def within(self, distances: Tensor) -> Tensor:
        """Whether the nearest of each row is within reach: (n,) float32."""
        if self.search.reach is None:
            return torch.ones(len(distances))
        return (distances[:, 0] <= self.search.reach * self.scale).float()

    def find(self, states: Tensor, blocks: Tensor | None = None) -> Found:
        """The k nearest, nearest first. blocks: of the queries, whose own block is left out."""
        if self.index is not None:
            return _approximate(self, states, blocks)
        assert self.norms is not None  # noqa: S101  # without an index there are
        return _exact(self.store, self.norms, states, self.search.k, blocks)

    def weigh(self, distances: Tensor) -> Tensor:
        """softmax(-distance / temperature) over the neighbours there are."""
        return (-distances / (self.search.temperature * self.scale)).softmax(-1)

    def spread(self, distances: Tensor, places: Tensor) -> Tensor:
        """Neighbours' shares as log-probabilities of their tokens."""
        tokens = self.store.values[places.clamp(min=0)].long()
        shares = torch.zeros(len(places), self.vocabulary)
        return shares.scatter_add_(1, tokens, self.weigh(distances)).log()

    def explain(self, state: Tensor, count: int = 8) -> list[Neighbour]:
        """The neighbours of one state, the weightiest first."""
        distances, places = self.find(state[None])
        weights = self.weigh(distances)[0]
        return [
            Neighbour(
                place=int(places[0, n]),
                token=int(self.store.values[places[0, n]]),
                weight=float(weights[n]),
                distance=float(distances[0, n]),
            )
            for n in range(min(count, places.shape[1]))
            if places[0, n] >= 0
        ]

    def at(self, **search: Any) -> Self:
        """The same keys, searched otherwise."""
        return replace(self, search=replace(self.search, **search))


def nearest(local: LocalModel, store: Datastore, search: Search, *, form: str = "exact") -> Neighbours:
    """A datastore made searchable. exact: O(1); ivfpq: trains and fills an index.

    Raises InvalidOption when k is not below the number of keys, or there are too few keys for the centroids.
    """
    from mnemic.parametric.tap import vocabulary_of

    if search.k >= len(store):
        raise InvalidOption(f"k={search.k} must be below the number of stored keys, {len(store):,}")
    made = Neighbours(store=store, search=search, vocabulary=vocabulary_of(local), scale=1.0)
    if form == "ivfpq":
        made = replace(made, form=form, index=_index(store, search))
    elif form != "exact":
        raise InvalidOption(f"form={form!r:.40} must be exact or ivfpq")
    sample = torch.linspace(0, len(store) - 1, min(256, len(store))).long()
    distances, places = made.find(store.keys[sample], store.blocks[sample])
    told = distances[(places >= 0) & torch.isfinite(distances)]
    if not told.numel():
        raise InvalidOption(
            "all keys are of one block: nothing in the datastore is a neighbour of anything else. Add texts"
        )
    return replace(made, scale=max(float(told.median()), 1e-12))


def _exact(store: Datastore, norms: Tensor, states: Tensor, k: int, blocks: Tensor | None) -> Found:
    distances = norms[None] - 2 * states.float() @ store.keys.T
    distances += states.float().pow(2).sum(1, keepdim=True)
    if blocks is not None:
        distances = distances.masked_fill(blocks[:, None] == store.blocks[None], torch.inf)
    found, places = distances.clamp(min=0).topk(k, largest=False)
    return found, places.masked_fill(torch.isinf(found), -1)


def _approximate(memory: Neighbours, states: Tensor, blocks: Tensor | None) -> Found:
    """Over-fetches where a block is left out, so that k remain."""
    k = memory.search.k
    more = k if blocks is None else min(len(memory.store), k + int(memory.store.blocks.bincount().max()))
    memory.index.nprobe = memory.search.probes
    queries = np.ascontiguousarray(states.float().numpy())
    distances, places = (torch.from_numpy(one) for one in memory.index.search(queries, more))
    gone = places < 0
    if blocks is not None:
        gone |= memory.store.blocks[places.clamp(min=0)] == blocks[:, None]
    distances = distances.masked_fill(gone, torch.inf)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return distances.gather(1, order), places.masked_fill(gone, -1).gather(1, order)


def _index(store: Datastore, search: Search) -> Any:
    faiss = require_extra("faiss", extra="parametric")
    width, count = store.keys.shape[1], len(store)
    fewest = max(256, 4 * search.centroids)
    if count < fewest or width % search.codes:
        raise InvalidOption(
            f"ivfpq needs at least {fewest:,} keys for {search.centroids} centroids (there are {count:,}), "
            f"and codes={search.codes} must divide the width {width}. Use form='exact'"
        )
    faiss.omp_set_num_threads(torch.get_num_threads())
    keys = np.ascontiguousarray(store.keys.numpy())
    coarse = faiss.IndexFlatL2(width)
    index = faiss.IndexIVFPQ(coarse, width, search.centroids, search.codes, 8)
    index.do_polysemous_training = False
    index.cp.min_points_per_centroid = 1
    index.pq.cp.min_points_per_centroid = 1
    index.train(keys)
    index.add(keys)
    return index


def index_bytes(index: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An index as bytes."""
    faiss = require_extra("faiss", extra="parametric")
    return faiss.serialize_index(index)  # type: ignore[no-any-return]


def index_of(content: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    faiss = require_extra("faiss", extra="parametric")
    return faiss.deserialize_index(content)
