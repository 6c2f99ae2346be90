"""What samples look like, as ``examples/`` of a run directory holds it: read here, written by ``sprites``."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_inf.files import read_json

FOLDER = "examples"
INDEX = "examples.json"
Side = Literal["train", "reference"]
#: Of a sample of which the run directory holds nothing.
NOTHING: dict[str, Any] = {"kind": "none"}


@dataclass
class Examples:
    """The examples of a run directory.

    Attributes:
        directory: Where the sheets lie.
        content: What ``examples.json`` says; see :mod:`lightning_inf.report.sprites`.
    """

    directory: Path
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, run_directory: Path) -> Examples:
        """Read ``examples/`` of a run directory; a run without that folder has no examples."""
        directory = run_directory / FOLDER
        path = directory / INDEX
        return cls(directory, read_json(path) if path.is_file() else {})

    @property
    def notes(self) -> list[str]:
        """How the pictures were made, for the reader."""
        return list(self.content.get("notes", ()))

    def of(self, index: int, side: Side = "train") -> dict[str, Any]:
        """Describe one sample for the macro ``thumb``.

        Args:
            index: Of the training sample or the reference.
            side: Which of the two.

        Returns:
            ``kind`` is ``image`` (with ``sheet``, ``view``: the four numbers of a viewBox, and ``pixelated``), ``text``
            (with ``text`` and ``cut``), ``table`` (with ``rows`` and ``more``), or ``none``.
        """
        found = self.content.get(side, {}).get(str(index), NOTHING)
        if found["kind"] != "image":
            return dict(found)
        tile, wide = self.content["tile"], self.content["columns"]
        x, y = (found["place"] % wide) * tile, (found["place"] // wide) * tile
        width, height = found["size"]
        view = f"{x} {y} {width} {height}"
        return {"kind": "image", "sheet": f"{side}-{found['sheet']}", "view": view, "small": max(width, height) < 48}

    def sheets(self) -> list[dict[str, Any]]:
        """List the sprite sheets, with their bytes as data URIs; each is in the page once."""
        sheets = []
        for side in ("train", "reference"):
            for number, sheet in enumerate(self.content.get("sheets", {}).get(side, ())):
                data = base64.b64encode((self.directory / Path(sheet["file"]).name).read_bytes()).decode("ascii")
                size = {"width": sheet["width"], "height": sheet["height"]}
                sheets.append({"id": f"{side}-{number}", "uri": f"data:image/webp;base64,{data}", **size})
        return sheets
