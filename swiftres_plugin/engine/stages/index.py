"""Vector search: the inner products of many queries with all references, and the largest of them.

FAISS does it, on the processor or the GPU; a plain torch product stands in where FAISS cannot be used.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swiftres_plugin.engine.data.search import VectorIndex
from swiftres_plugin.errors import InputError

TORCH_BLOCK = 1 << 25  # scores held at once by the plain search


@dataclass(frozen=True, eq=False, slots=True)
class TorchIndex:
    """Exact search by blocks of a matrix product: the reference version of every other index."""

    vectors: torch.Tensor

    def search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(1, TORCH_BLOCK // len(self.vectors))
        found = [(block @ self.vectors.T).topk(min(count, len(self.vectors)), dim=1) for block in queries.split(rows)]
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])

    def over(self, vectors: torch.Tensor) -> TorchIndex:
        return TorchIndex(vectors)


@dataclass(frozen=True, eq=False, slots=True)
class FaissIndex:
    """Any FAISS index with the inner product as its metric. It lies on the host, and several threads may ask it at once."""

    index: Any

    def search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores, ids = self.index.search(np.ascontiguousarray(queries.cpu().numpy(), dtype=np.float32), count)
        scores[ids < 0] = -np.inf  # an inverted file found fewer than asked for in the cells it visited
        device = queries.device
        return torch.from_numpy(scores).to(device), torch.from_numpy(ids.clip(min=0)).to(device)

    def over(self, vectors: torch.Tensor) -> FaissIndex:
        return self


def faiss_problem() -> str:
    """Empty when FAISS can be used, else why not."""
    try:
        import faiss
        faiss.IndexFlatIP(2)
    except (ImportError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def build_index(vectors: torch.Tensor, recipe: str = "auto", nprobe: int = 64) -> VectorIndex:
    """An index over reference vectors (G, D) by a recipe: 'auto', 'torch' or a FAISS factory string."""
    if recipe == "torch" or (recipe == "auto" and faiss_problem()):
        return TorchIndex(vectors)
    if recipe == "auto" and vectors.device.type != "cpu":
        return TorchIndex(vectors)  # the product runs at the matrix units' speed; faiss would go through host memory
    return _faiss_index(vectors, "Flat" if recipe == "auto" else recipe, nprobe)


def _faiss_index(vectors: torch.Tensor, recipe: str, nprobe: int) -> FaissIndex:
    problem = faiss_problem()
    if problem:
        raise InputError(f"the search recipe '{recipe}' needs FAISS", found=problem,
                         remedy="Install faiss-cpu or faiss-gpu, or use --recipe auto.")
    import faiss
    host = np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)
    try:
        index = faiss.index_factory(host.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)
        index.train(host)
        index.add(host)
    except RuntimeError as error:
        raise InputError(f"FAISS cannot build '{recipe}' from {len(host)} references of length {host.shape[1]}",
                         found=str(error).strip().splitlines()[-1],
                         remedy="Use --recipe auto or another factory string.") from error
    if "IVF" in recipe:
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", nprobe)
    return FaissIndex(index)
