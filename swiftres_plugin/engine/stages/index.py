"""Vector search: the inner products of many queries with all references, and the largest of them.

FAISS does it, on the processor or the GPU; a plain torch product stands in where FAISS cannot be used.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swiftres_plugin.engine.data.search import VectorIndex
from swiftres_plugin.errors import InputError

TORCH_BLOCK = 1 << 25  # scores held at once by the plain search
TRAINING_PER_LIST = 39  # references from which FAISS trains the centre of a list, at least
TRAINING = 16_384  # references that codebooks of 256 entries are learnt from
ROTATION_ROUNDS = 8


@dataclass(frozen=True, eq=False, slots=True)
class TorchIndex:
    """Exact search by blocks of a matrix product: the reference version of every other index."""

    vectors: torch.Tensor
    description: str = "torch"

    def search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(1, TORCH_BLOCK // len(self.vectors))
        found = [(block @ self.vectors.T).topk(min(count, len(self.vectors)), dim=1) for block in queries.split(rows)]
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])

    def over(self, vectors: torch.Tensor) -> TorchIndex:
        return TorchIndex(vectors)


@dataclass(frozen=True, eq=False, slots=True)
class FaissIndex:
    """Any FAISS index with the inner product as its metric; `description` says how it was built.

    It lies on the host, and several threads may ask it at once.
    """

    index: Any
    description: str = "Flat"

    def search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores, ids = self.index.search(np.ascontiguousarray(queries.cpu().numpy(), dtype=np.float32), count)
        scores[ids < 0] = -np.inf  # an inverted file found fewer than asked for in the cells it visited
        device = queries.device
        return torch.from_numpy(scores).to(device), torch.from_numpy(ids.clip(min=0)).to(device)

    def over(self, vectors: torch.Tensor) -> FaissIndex:
        return self


@dataclass(frozen=True, slots=True)
class Recipe:
    """How references are kept: `components` principal components (0: every coefficient) in the FAISS index `factory`."""

    components: int
    factory: str

    @property
    def quantises(self) -> bool:
        """Whether the index learns codebooks from references."""
        return "PQ" in self.factory


# The recipes of the thesis. Lists are as many as the references can train.
NAMED = {
    "exact": Recipe(0, "Flat"),
    "IVFPQ48": Recipe(0, "OPQ48_192,IVF,PQ48"),
    "IVFPQ32": Recipe(0, "OPQ32_128,IVF,PQ32"),
}


def parse_recipe(name: str, components: int) -> Recipe:
    """The recipe that `name` says; `components` where it does not say how many. Raises `InputError`.

    A leading PCAn is taken from FAISS and done with the weighted components of maths/vectors.py: those of FAISS are
    about the mean, which inner products do not survive.
    """
    if name in NAMED:
        return NAMED[name]
    first, _, rest = name.partition(",")
    if match := re.fullmatch(r"PCA(\d+)", first):
        return Recipe(int(match[1]), rest or "Flat")
    if "PCA" in name or "L2norm" in name:
        raise InputError(f"the search recipe '{name}' changes inner products", expected="PCAn only, at its beginning",
                         remedy="Write for example PCA64,IVF,SQ8.")
    return Recipe(components, "Flat" if name in ("auto", "torch") else name)


def fitted_lists(factory: str, references: int) -> str:
    """The factory string with a number of inverted lists that so many references can train.

    'IVF' alone asks for 4 sqrt(references) lists; more lists than one for 39 references are reduced to that.
    """
    most = max(1, references // TRAINING_PER_LIST)

    def fit(match: re.Match[str]) -> str:
        asked = int(match[1]) if match[1] else round(4 * references ** 0.5)
        return f"IVF{max(1, min(asked, most))}"

    return re.sub(r"IVF(\d*)", fit, factory)


def faiss_problem() -> str:
    """Empty when FAISS can be used, else why not."""
    try:
        import faiss
        faiss.IndexFlatIP(2)
    except (ImportError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def build_index(vectors: torch.Tensor, recipe: str = "auto", nprobe: int = 64,
                training: torch.Tensor | None = None) -> VectorIndex:
    """An index over reference vectors (G, D) by a recipe: 'auto', 'torch', a name of `NAMED` or a FAISS factory string.

    training: (T, D) vectors to learn lists and codebooks from, the references themselves by default.
    """
    if recipe == "torch" or (recipe == "auto" and faiss_problem()):
        return TorchIndex(vectors)
    if recipe == "auto" and vectors.device.type != "cpu":
        return TorchIndex(vectors)  # the product runs at the matrix units' speed; faiss would go through host memory
    return _faiss_index(vectors, recipe, nprobe, vectors if training is None else training)


def _faiss_index(vectors: torch.Tensor, recipe: str, nprobe: int, training: torch.Tensor) -> FaissIndex:
    problem = faiss_problem()
    if problem:
        raise InputError(f"the search recipe '{recipe}' needs FAISS", found=problem,
                         remedy="Install faiss-cpu or faiss-gpu, or use --recipe auto.")
    import faiss
    factory = fitted_lists(parse_recipe(recipe, 0).factory, len(training))
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        quicken_training(index)
        index.train(_on_host(training))
        index.add(_on_host(vectors))
    except RuntimeError as error:
        raise InputError(f"FAISS cannot build '{recipe}' from {len(vectors)} references of length {vectors.shape[1]}",
                         found=str(error).strip().splitlines()[-1],
                         remedy="Use --recipe auto or another factory string.") from error
    return FaissIndex(index, factory + visit_lists(index, factory, nprobe))


def visit_lists(index: Any, factory: str, nprobe: int) -> str:
    """Have an inverted file visit `nprobe` of its lists; says so, and nothing for other indexes."""
    lists = re.search(r"IVF(\d+)", factory)
    if not lists:
        return ""
    import faiss
    visited = min(nprobe, int(lists[1]))
    faiss.ParameterSpace().set_index_parameter(index, "nprobe", visited)
    return f", {visited} of {lists[1]} lists visited"


def quicken_training(index: Any) -> None:
    """Fewer rounds of learning a rotation for product quantisers: FAISS's fifty take minutes and change little."""
    import faiss
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for place in range(chain.size()):
            transform = faiss.downcast_VectorTransform(chain.at(place))
            if isinstance(transform, faiss.OPQMatrix):
                transform.niter, transform.max_train_points = ROTATION_ROUNDS, TRAINING


def _on_host(vectors: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)
