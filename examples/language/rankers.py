"""Ways to rank training sentences for a query that do not look at gradients, and how well a ranking finds the truth."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalPrecision, RetrievalRecall

from examples.language.data import Sentences

DEPTHS = (1, 5, 10)


class BM25:
    """Words in common (Robertson et al.), by ``bm25s`` with its defaults.

    Args:
        texts: Of the candidates.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.index = bm25s.BM25()
        self.index.index(bm25s.tokenize(list(texts), stopwords=None, show_progress=False), show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Score all candidates for a query whose answer is filled in, shape ``(n,)``."""
        found = bm25s.tokenize(query, stopwords=None, return_ids=False, show_progress=False)[0]
        return np.asarray(self.index.get_scores(found), dtype=np.float64)


@torch.no_grad()
def embedded(model: nn.Module, sentences: Sentences, collate: object, batch_size: int = 128) -> Tensor:
    """Embed sentences by the mean of their last hidden states, of the encoder where there is one; unit rows ``(n, d)``."""
    body = model.encoder if model.config.is_encoder_decoder else model.transformer  # type: ignore[union-attr]
    rows = []
    for batch in DataLoader(sentences, batch_size, collate_fn=collate):  # type: ignore[arg-type]
        mask = batch["attention_mask"]
        hidden = body(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state  # type: ignore[operator]
        rows.append((hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))
    return torch.nn.functional.normalize(torch.cat(rows), dim=1)


def reranked(scores: np.ndarray, first: np.ndarray, size: int) -> np.ndarray:
    """Put some candidates in the order of their scores before all others, which are left in no order.

    Args:
        scores: Of ``first``, shape ``(m,)``.
        first: Which of ``size`` candidates are scored.
        size: n.

    Returns:
        Shape ``(n,)``: m down to 1, and 0 for the others.

    Example:
        >>> reranked(np.array([0.1, 0.7]), np.array([3, 0]), 4).tolist()
        [2.0, 0.0, 0.0, 1.0]
    """
    found = np.zeros(size)
    found[first[np.argsort(np.nan_to_num(scores, nan=-np.inf), kind="stable")]] = np.arange(1, len(first) + 1)
    return found


def quality(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Measure rankings: mean reciprocal rank of the first proponent, precision and recall at 1, 5 and 10.

    Args:
        scores: Shape ``(Q, n)``.
        truth: Which candidates are proponents, shape ``(Q, n)``.
    """
    preds = torch.from_numpy(np.nan_to_num(scores, nan=np.nanmin(scores, initial=0.0)).ravel())
    target = torch.from_numpy(truth.ravel())
    indexes = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
    found = {"MRR": float(RetrievalMRR()(preds, target, indexes=indexes))}
    for name, kind in (("P", RetrievalPrecision), ("R", RetrievalRecall)):
        for depth in DEPTHS:
            found[f"{name}@{depth}"] = float(kind(top_k=depth)(preds, target, indexes=indexes))
    return found
