"""``examples/`` of a run directory: thumbnails in WebP sprite sheets, texts and small tables beside them.

``examples.json`` says of each sample, by index, its ``kind`` and where its picture lies: ``sheet``, ``place`` (counted from
the top left, row by row) and ``size`` in pixels. The sets are ``train``, ``reference`` and ``large``: the first training
samples once more, in more pixels.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_inf.data.examples import Example
from lightning_inf.files import atomic, write_json
from lightning_inf.report.examples import FOLDER, INDEX

#: Side of a thumbnail, and of the larger ones, in pixels.
THUMB, LARGE = 64, 144
#: How many samples have a larger one: a page of the gallery.
LARGE_COUNT = 60
PER_SHEET = 256
#: All sheets together: with base64 they are a third more on the page, which is to stay under 1.5 MB.
BYTES = 840_000
WIDTH = 1024
#: Pictures of few pixels suffer most from compression, and are small anyway.
_QUALITY, _QUALITY_SMALL = 75, 92
#: How hard WebP searches. Sheets of small pictures become 2 % smaller at most by the longer search, those of larger ones by
#: a fifth.
_EFFORT, _EFFORT_SMALL = 4, 1


@dataclass
class _Set:
    """Thumbnails of one kind, in sheets."""

    side: int
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    tiles: list[tuple[str, Any]] = field(default_factory=list)

    def add(self, index: int, example: Example) -> None:
        if example.kind == "image" and example.pixels is not None:
            self.tiles.append((str(index), _shrunk(example.pixels, self.side)))
        elif example.kind == "text":
            self.entries[str(index)] = {"kind": "text", "text": _clean(example.text), "cut": example.more}
        elif example.kind == "table":
            rows = [[_clean(name), _clean(value)] for name, value in example.rows]
            self.entries[str(index)] = {"kind": "table", "rows": rows, "more": example.more}


def write_examples(
    run_directory: Path,
    train: Sequence[int],
    references: Sequence[int],
    show: Callable[[int], Example],
    show_reference: Callable[[int], Example],
    notes: Callable[[], list[str]],
) -> None:
    """Write ``examples/``.

    Args:
        run_directory: The run directory.
        train: Training samples to show, the most important first: the last ones go without a picture where there is no
            room for them.
        references: References to show.
        show: Gives a training sample's example.
        show_reference: Gives a reference's.
        notes: Asked at the end: how pictures were made, and what could not be shown.
    """
    directory = run_directory / FOLDER
    shutil.rmtree(directory, ignore_errors=True)
    thumbs, large, held_out = _Set(THUMB), _Set(LARGE), _Set(THUMB)
    for place, index in enumerate(train):
        example = show(index)
        thumbs.add(index, example)
        if place < LARGE_COUNT and example.pixels is not None and max(example.pixels.shape[:2]) > THUMB:
            large.add(index, example)
    for index in references:
        held_out.add(index, show_reference(index))
    room, sets = BYTES, {}
    for name, thumbnails in (("reference", held_out), ("large", large), ("train", thumbs)):
        sets[name], room = _write_set(directory, name, thumbnails, room)
    said = notes()
    if missing := len(thumbs.tiles) - sum(e["kind"] == "image" for e in sets["train"]["samples"].values()):
        said.append(f"{missing:,} pictures were left out so that the page stays small.")
    write_json(directory / INDEX, {"sets": sets, "notes": said}, indent=None)


def _write_set(directory: Path, name: str, thumbnails: _Set, room: int) -> tuple[dict[str, Any], int]:
    """Write sheets as long as there is room for them."""
    tile = max((max(image.size) for _, image in thumbnails.tiles), default=thumbnails.side)
    columns = max(WIDTH // tile, 1)
    entries = dict(thumbnails.entries)
    sheets: list[dict[str, Any]] = []
    for start in range(0, len(thumbnails.tiles), PER_SHEET):
        part = thumbnails.tiles[start : start + PER_SHEET]
        data, size = _sheet([image for _, image in part], tile, columns)
        while len(data) > room and len(part) > 1:  # the last sheet is as long as there is room for it
            part = part[: int(len(part) * 0.95 * room / len(data))]
            data, size = _sheet([image for _, image in part], tile, columns) if part else (b"", (0, 0))
        if not part or len(data) > room:
            break
        room -= len(data)
        file = f"{name}-{len(sheets):03d}.webp"
        with atomic(directory / file) as temporary:
            temporary.write_bytes(data)
        for place, (index, image) in enumerate(part):
            entries[index] = {"kind": "image", "sheet": len(sheets), "place": place, "size": list(image.size)}
        sheets.append({"file": file, "width": size[0], "height": size[1]})
        if len(part) < min(PER_SHEET, len(thumbnails.tiles) - start):
            break
    return {"tile": tile, "columns": columns, "sheets": sheets, "samples": entries}, room


def _sheet(images: Sequence[Any], tile: int, columns: int) -> tuple[bytes, tuple[int, int]]:
    from PIL import Image

    wide = min(columns, len(images))
    size = (wide * tile if len(images) <= columns else columns * tile, -(-len(images) // columns) * tile)
    sheet = Image.new("L" if all(image.mode == "L" for image in images) else "RGB", size)
    for place, image in enumerate(images):
        sheet.paste(image, ((place % columns) * tile, (place // columns) * tile))
    stream = io.BytesIO()
    quality, effort = (_QUALITY, _EFFORT) if tile >= THUMB else (_QUALITY_SMALL, _EFFORT_SMALL)
    sheet.convert("RGB").save(stream, "WEBP", quality=quality, method=effort)
    return stream.getvalue(), size


def _shrunk(pixels: np.ndarray, side: int) -> Any:
    """Shrink pixels so that the longer side is at most ``side``; what is smaller stays as it is."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > side:
        factor = side / max(image.size)
        size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image


def _clean(text: str) -> str:
    """Replace lone surrogates: JSON in UTF-8 can't hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
