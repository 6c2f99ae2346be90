"""Reading token ids: the user's tokenizer, and texts in pieces, one a token."""

from __future__ import annotations

import contextlib
from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

#: What stands between the input of a model and what it is to say.
ARROW = " → "


class Reads(Protocol):
    """A tokenizer, of ``transformers``, of ``tokenizers``, or of one's own."""

    def decode(self, ids: list[int], **options: Any) -> str:
        """Make a text of token ids."""
        ...


class Spoken(Protocol):
    """What :class:`~lightning_inf.model.tokens.Tokens` says of a sequence."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the input."""
        ...

    @property
    def kept(self) -> tuple[bool, ...]:
        """Which of them are no padding."""
        ...

    @property
    def targets(self) -> tuple[int, ...]:
        """What is predicted."""
        ...

    @property
    def counted(self) -> tuple[bool, ...]:
        """Which of the targets count."""
        ...

    @property
    def offset(self) -> int | None:
        """Where the first target lies in the input, None where nowhere."""
        ...


def tokenizer_of(owners: Iterable[Any]) -> Reads | None:
    """Find a tokenizer: the attribute ``tokenizer`` of any of these that has a method ``decode``.

    Args:
        owners: Datamodule, module, collator and dataset, say; None is passed over.
    """
    for owner in owners:
        found = getattr(owner, "tokenizer", None)
        if callable(getattr(found, "decode", None)):
            return found
    return None


def text_of(item: Any, tokenizer: Reads) -> str | None:
    """Read an item of a dataset that has ``input_ids``: its text and, where they differ, what follows of ``labels``.

    Args:
        item: An item of a dataset.
        tokenizer: The user's.

    Returns:
        The text; None for an item without token ids.

    Example:
        >>> class Letters:
        ...     def decode(self, ids, **options):
        ...         return "".join(chr(96 + i) for i in ids)
        >>> text_of({"input_ids": [3, 1, 2, 0], "attention_mask": [1, 1, 1, 0]}, Letters())
        'cab'
        >>> text_of({"input_ids": [3, 1], "labels": [2]}, Letters())
        'ca → b'
    """
    named = item.data if isinstance(item, UserDict) else item
    ids = _numbers(named.get("input_ids")) if isinstance(named, Mapping) else None
    if ids is None:
        return None
    labels = _numbers(named.get("labels")) or []
    # Labels at the places of the input are a decoder's that predicts its own text; others are a text of their own.
    repeated = len(labels) == len(ids) and all(label in (-100, one) for label, one in zip(labels, ids, strict=True))
    mask = _numbers(named.get("attention_mask"))
    if mask is not None and len(mask) == len(ids):
        ids = [one for one, keep in zip(ids, mask, strict=True) if keep]
    text = _decoded(tokenizer, ids)
    said = [] if repeated else [label for label in labels if label >= 0]
    return text + ARROW + _decoded(tokenizer, said) if said else text


def pieces(tokenizer: Reads | None, tokens: Spoken, values: np.ndarray) -> list[tuple[str, float]]:
    """Cut a sequence's text into one piece a token, with a value for those that are predicted.

    Args:
        tokenizer: The user's; None shows numbers.
        tokens: The sequence.
        values: One for each of its targets, shape ``(P,)``.

    Returns:
        Pieces in order, whose texts add up to that of the sequence; NaN for those without a value.
    """
    nothing = float("nan")
    told = [float(value) if counts else nothing for value, counts in zip(values, tokens.counted, strict=True)]
    kept = [place for place, keep in enumerate(tokens.kept) if keep]
    texts = cut(tokenizer, [tokens.ids[place] for place in kept])
    if tokens.offset is not None:
        own = [place - tokens.offset for place in kept]
        return [(text, told[at] if 0 <= at < len(told) else nothing) for text, at in zip(texts, own, strict=True)]
    predicted = [place for place, counts in enumerate(tokens.counted) if counts]
    said = cut(tokenizer, [tokens.targets[place] for place in predicted])
    before = [(text, nothing) for text in texts] + ([(ARROW, nothing)] if texts else [])
    return before + [(text, told[place]) for text, place in zip(said, predicted, strict=True)]


def cut(tokenizer: Reads | None, ids: Sequence[int]) -> list[str]:
    """Decode ids one by one, so that the pieces add up to the text of all, spaces included.

    Example:
        >>> class Words:
        ...     def decode(self, ids, **options):
        ...         return " ".join(["to", "be", "or"][i] for i in ids)
        >>> cut(Words(), [0, 1, 2])
        ['to', ' be', ' or']
        >>> cut(None, [0, 1])
        ['⟨0⟩', '⟨1⟩']
    """
    if tokenizer is None:
        return [f"⟨{one}⟩" for one in ids]
    found, before = [], ""
    for end in range(1, len(ids) + 1):
        text = _decoded(tokenizer, list(ids[:end]), special=True)
        # Bytes of a character that is not whole yet read as a replacement: it stands with the last of them.
        whole = text.rstrip("\ufffd") if end < len(ids) else text
        found.append(whole[len(before) :] if whole.startswith(before) else "")
        before = whole if whole.startswith(before) else before
    return found


def _decoded(tokenizer: Reads, ids: list[int], special: bool = False) -> str:
    """Decode; special tokens only where they are to be seen."""
    with contextlib.suppress(TypeError):  # a tokenizer of one's own may take no options
        return str(tokenizer.decode(ids, skip_special_tokens=not special))
    return str(tokenizer.decode(ids))


def _numbers(value: Any) -> list[int] | None:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.tolist()
    plain = isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value)
    return list(value) if plain else None
