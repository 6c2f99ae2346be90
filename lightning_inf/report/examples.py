"""What samples look like, as ``examples/`` of a run directory holds it: read here, written by ``sprites``."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_inf.files import read_json

FOLDER = "examples"
INDEX = "examples.json"
Side = Literal["train", "reference", "large"]
#: Of a sample of which the run directory holds nothing.
NOTHING: dict[str, Any] = {"kind": "none"}
#: Pictures of fewer pixels are enlarged without smoothing.
SMALL = 48
#: What is cut off of each side of a picture in its sheet, in pixels.
EDGE = 0.05
#: What is cut off of a picture in its sheet, in pixels.
EDGE = 0.05


@dataclass
class Examples:
    """The examples of a run directory.

    Attributes:
        directory: Where the sheets lie.
        sets: By name, tile size, columns, sheets and samples; see :mod:`lightning_inf.report.sprites`.
        notes: How the pictures were made, for the reader.
    """

    directory: Path
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, run_directory: Path) -> Examples:
        """Read ``examples/`` of a run directory; a run without that folder has no examples."""
        directory = run_directory / FOLDER
        path = directory / INDEX
        return cls(directory, **read_json(path)) if path.is_file() else cls(directory)

    def of(self, index: int, side: Side = "train") -> dict[str, Any]:
        """Describe one sample for the macro ``thumb``.

        Args:
            index: Of the training sample or the reference.
            side: Which of the two. ``large`` gives a larger picture of a training sample where there is one.

        Returns:
            ``kind`` is ``image`` (with ``sheet``, ``view``: the four numbers of a viewBox, and ``small``), ``text`` (with
            ``text`` and ``cut``), ``table`` (with ``rows`` and ``more``), or ``none``.
        """
        if side == "large" and str(index) not in self._samples("large"):
            side = "train"
        found = self._samples(side).get(str(index), NOTHING)
        if found["kind"] != "image":
            return dict(found)
        own = self.sets[side]
        x, y = (found["place"] % own["columns"]) * own["tile"], (found["place"] // own["columns"]) * own["tile"]
        width, height = found["size"]
        sheet = f"{side}-{found['sheet']}"
        return {
            "kind": "image",
            "sheet": sheet,
            # A twentieth of a pixel less on each side: a browser that rounds would show a line of the neighbour.
            "view": f"{x + EDGE:g} {y + EDGE:g} {width - 2 * EDGE:g} {height - 2 * EDGE:g}",
            "small": max(width, height) < SMALL,
        }

    def indices(self, side: Side = "train") -> list[str]:
        """List the samples that there is something of."""
        return list(self._samples(side))

    @property
    def kinds(self) -> set[str]:
        """Which kinds of examples there are of training samples."""
        return {found["kind"] for found in self._samples("train").values()}

    def sheets(self) -> list[dict[str, Any]]:
        """List the sprite sheets, with their bytes as data URIs; each is in the page once."""
        sheets = []
        for name, own in self.sets.items():
            for number, sheet in enumerate(own["sheets"]):
                data = base64.b64encode((self.directory / Path(sheet["file"]).name).read_bytes()).decode("ascii")
                size = {"width": sheet["width"], "height": sheet["height"]}
                sheets.append({"id": f"{name}-{number}", "uri": f"data:image/webp;base64,{data}", **size})
        return sheets

    def _samples(self, side: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.sets.get(side, {}).get("samples", {})
        return found
