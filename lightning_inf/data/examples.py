"""What a sample looks like to a person: pixels, text or a small table."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.data.identity import locate
from lightning_inf.data.repeatable import Repeatable
from lightning_inf.data.sources import Samples
from lightning_inf.data.texts import Reads, text_of, tokenizer_of

#: How much of a text is kept, in characters, and how many rows of a table.
TEXT, ROWS = 400, 12
#: How much of a table's cell is kept, in characters.
CELL = 120
#: More pixels than any picture that is worth decoding for a thumbnail.
_PIXELS = 100_000_000
_HOOKS = {"train": "influence_example", "reference": "reference_example"}
_TARGETS = frozenset({"label", "labels", "target", "targets", "y"})
_IMAGES = ("image", "img", "pixel_values", "pixels", "picture")
_TEXTS = ("text", "sentence", "content")

STRETCHED = (
    "the pixels are normalised, so each picture is stretched from its own smallest to its own largest value; brightness and "
    "colours may differ from the original, which the hook {hook}(index) can give"
)
AUGMENTED = "pictures are random views, as augmentation made them; the hook {hook}(index) can give the original"
CHANNELS = "pictures with four channels show the first three, those with two the first"


@dataclass(frozen=True)
class Example:
    """One sample, for a person to look at.

    Attributes:
        kind: Which of the others is set; ``none`` for a sample that can't be shown.
        pixels: uint8 of shape ``(H, W)`` or ``(H, W, 3)``.
        text: At most :data:`TEXT` characters.
        rows: Names and values, at most :data:`ROWS`.
        more: Characters or rows that were cut off.
        note: What the reader should know of how it was made.
    """

    kind: Literal["image", "text", "table", "none"]
    pixels: np.ndarray | None = None
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    more: int = 0
    note: str = ""


@dataclass
class Examples:
    """Gives the example of any sample, and remembers what went wrong.

    Args:
        samples: Of which dataset.
        hook: ``influence_example`` or ``reference_example`` of the user's, None where there is none.
        name: Of the hook.
        feature_names: Names of a feature vector's entries.
        tokenizer: Reads token ids, where there is one.
    """

    samples: Samples
    hook: Callable[[int], Any] | None
    name: str
    feature_names: Sequence[str] | None = None
    tokenizer: Reads | None = None
    asked: int = 0
    failed: int = 0
    first_failure: str = ""
    seen: dict[str, None] = field(default_factory=dict)

    def __call__(self, index: int) -> Example:
        """Show a sample; one that can't be shown is of kind ``none``, and the reason is in :attr:`notes`."""
        self.asked += 1
        try:
            value = self.samples.dataset[index] if self.hook is None else self.hook(index)
            text = text_of(value, self.tokenizer) if self.tokenizer is not None else None
            shown = _features(value) if self.hook is None else value
            found = as_example(shown if text is None else text, self.feature_names)
        except Exception as error:  # the user's code, on data of which nothing is known: a report without it is better
            self.failed += 1
            self.first_failure = self.first_failure or f"index {index}, {type(error).__name__}: {error}"[:300]
            return Example("none")
        if found.kind == "image" and self.hook is None and isinstance(self.samples.dataset, Repeatable):
            self.seen[AUGMENTED] = None
        if found.note:
            self.seen[found.note] = None
        return found

    @property
    def notes(self) -> list[str]:
        """What the reader of the report should know, after all samples were asked."""
        side = "References" if self.name == _HOOKS["reference"] else "Training samples"
        said = [f"{side}: {note.format(hook=self.name)}." for note in self.seen]
        if not self.failed:
            return said
        who = f"{self.name}(index)" if self.hook is not None else "the dataset"
        what = f"{self.failed:,} of {self.asked:,} can't be shown: {who} raised"
        return [*said, f"{side}: {what}, {self.first_failure}"]


def examples(
    trainer: Trainer, module: LightningModule, samples: Samples, side: Literal["train", "reference"]
) -> Examples:
    """Find out how samples are shown.

    Args:
        trainer: The Trainer.
        module: The bare module.
        samples: Training samples or references.
        side: Which of them. The hook for training samples is ``influence_example(index)``, on the datamodule or the
            module, that for references ``reference_example(index)``; else the dataset's items are shown. Those with
            ``input_ids`` are read by the attribute ``tokenizer`` of datamodule, module, collator or dataset.

    Returns:
        A callable from index to :class:`Example`.
    """
    owners = [owner for owner in (getattr(trainer, "datamodule", None), module) if owner is not None]
    hooks = [hook for owner in owners if callable(hook := getattr(owner, _HOOKS[side], None))]
    owner, _ = locate(samples.dataset, 0) if len(samples) else (samples.dataset, 0)
    names = next(
        (n for o in (*owners, owner) if isinstance(n := getattr(o, "feature_names", None), (list, tuple))), None
    )
    tokenizer = tokenizer_of((*owners, samples.collate_fn, owner))
    return Examples(samples, hooks[0] if hooks else None, _HOOKS[side], names, tokenizer)


def as_example(value: Any, feature_names: Sequence[str] | None = None) -> Example:
    """Turn whatever holds a sample into something to look at.

    Args:
        value: A PIL image; a tensor or an array of shape ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``; a feature vector of
            shape ``(D,)``; a text; a mapping with an image or a text, or of names to values.
        feature_names: Of a feature vector.

    Returns:
        The example; of kind ``none`` for anything else.

    Example:
        >>> as_example("It was a dark and stormy night").kind
        'text'
        >>> as_example(np.array([1.5, 2.0]), ["height", "width"]).rows
        (('height', '1.5'), ('width', '2'))
        >>> as_example(torch.zeros(3, 8, 8)).pixels.shape
        (8, 8, 3)
    """
    if isinstance(value, str):
        return Example("text", text=value[:TEXT], more=max(len(value) - TEXT, 0))
    if isinstance(value, Mapping):
        return _mapping(value, feature_names)
    if hasattr(value, "convert") and hasattr(value, "mode"):
        return _picture(value)
    if isinstance(value, torch.Tensor):
        detached = value.detach().cpu()
        return _array((detached.float() if detached.dtype == torch.bfloat16 else detached).numpy(), feature_names)
    if isinstance(value, np.ndarray):
        return _array(value, feature_names)
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (numbers.Number, str)) for v in value):
        return _table(feature_names, list(value))
    if isinstance(value, numbers.Number):
        return _table(feature_names, [value])
    return Example("none")


def _features(item: Any) -> Any:
    """Take a dataset's item apart: what comes first, without its target."""
    if isinstance(item, (list, tuple)) and item:
        return item[0]
    if isinstance(item, Mapping):
        return {name: value for name, value in item.items() if name not in _TARGETS}
    return item


def _mapping(value: Mapping[Any, Any], feature_names: Sequence[str] | None) -> Example:
    for name in _IMAGES:
        if name in value and (found := as_example(value[name])).kind == "image":
            return found
    for name in _TEXTS:
        if isinstance(value.get(name), str):
            return as_example(value[name])
    rows = {k: v for k, v in value.items() if isinstance(v, (str, numbers.Number)) or getattr(v, "ndim", None) == 0}
    if rows:
        return _table(list(map(str, rows)), list(rows.values()))
    # Token ids and the like: the first that can be shown at all.
    return next(
        (found for v in value.values() if (found := as_example(v, feature_names)).kind != "none"), Example("none")
    )


def _table(names: Sequence[str] | None, values: Sequence[Any]) -> Example:
    names = names if names is not None and len(names) == len(values) else [str(i) for i in range(len(values))]
    rows = tuple((str(name)[:CELL], _cell(value)) for name, value in zip(names[:ROWS], values, strict=False))
    return Example("table", rows=rows, more=max(len(values) - ROWS, 0))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value if len(value) <= CELL else value[:CELL] + "…"
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.4g}" if isinstance(number, float) else str(number)[:CELL]


def _picture(image: Any) -> Example:
    """Turn a PIL image into pixels, transparency onto white."""
    if image.size[0] * image.size[1] > _PIXELS:
        return Example("none")
    if image.mode in ("I", "F", "I;16"):
        return _array(np.asarray(image))
    if "A" in image.getbands() or "transparency" in image.info:
        colours = np.asarray(image.convert("RGBA"), dtype=np.float64)
        alpha = colours[..., 3:] / 255
        return Example("image", np.round(colours[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
    return Example("image", np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))


def _array(array: np.ndarray, feature_names: Sequence[str] | None = None) -> Example:
    if array.dtype.kind not in "buif" or array.size == 0:
        return Example("none")
    if array.ndim == 0:
        return _table(feature_names, [array.item()])
    array = array[0] if array.ndim > 3 and array.shape[0] == 1 else array
    if array.ndim == 1 or (array.ndim == 2 and min(array.shape) == 1):
        return _table(feature_names, array.ravel().tolist())
    note = ""
    if array.ndim == 3:
        channels = range(1, 5)
        if array.shape[0] in channels and not (array.dtype == np.uint8 and array.shape[2] in channels):
            array = np.moveaxis(array, 0, 2)
        elif array.shape[2] not in channels:
            return Example("none")
        if array.shape[2] in (2, 4):
            array, note = array[..., : array.shape[2] - 1], CHANNELS
        array = array[..., 0] if array.shape[2] == 1 else array
    if array.ndim not in (2, 3) or array.size > _PIXELS:
        return Example("none")
    pixels, stretched = _to_bytes(array)
    return Example("image", pixels, note=STRETCHED if stretched else note)


def _to_bytes(array: np.ndarray) -> tuple[np.ndarray, bool]:
    """Bring values to 0..255; say whether they had to be stretched."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array), False
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN goes through both
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if low >= 0 and high <= 1:
        return np.round(values * 255).astype(np.uint8), False
    # Values of 0..255 as floats; a normalised picture that happens to have no negative value does not get this far.
    if low >= 0 and 32 < high <= 255:
        return np.round(values).astype(np.uint8), False
    return np.round((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8), True
