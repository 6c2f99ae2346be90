"""``python -m examples.diffusion.study``: how often the picture that a model learnt a digit from is found.

The model that was pretrained on clothes is fine-tuned on one picture of a digit, or on one of each of ten, and what it then
draws is traced back to the candidates. Each model's ranks are kept in a folder, so that a study that was interrupted goes
on, and several processes can share it (``--only 0 2``, ``--only 1 2``).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import seed_everything
from torch import Tensor
from torchvision.datasets import MNIST

from examples.diffusion import choice, several, single
from examples.diffusion.data import DiffusionData
from examples.diffusion.model import pretrain
from examples.diffusion.sizes import QUICK, Sizes
from examples.study import RESULTS, Study, Table

#: The last digits of a kind are not reported on: on them, steps and radius were chosen.
HELD_BACK = 1
#: The tables, in their order.
TABLES = ("single", "several")
ORDER = {"single": "first", "several": "second"}


def exemplars(labels: Tensor, concepts: int) -> list[int]:
    """Choose digits: the last of each kind but those that were held back, then the ones before them."""
    of_kind = [(labels == digit).nonzero().flatten().tolist()[::-1] for digit in range(10)]
    return [of_kind[i % 10][HELD_BACK + i // 10] for i in range(concepts)]


class Bench:
    """Runs what is missing of a study.

    Args:
        root: Of the data sets.
        work: The folder of results.
        sizes: Of the study.
    """

    def __init__(self, root: str, work: Path, sizes: Sizes) -> None:
        self.root, self.work, self.sizes = root, work, sizes
        self.labels = MNIST(root, train=True).targets
        work.mkdir(parents=True, exist_ok=True)
        self.pretrained = work / "pretrained.ckpt"
        if not self.pretrained.is_file():
            seed_everything(0, verbose=False)
            data = DiffusionData(root, pretraining=sizes.pretraining, batch_size=64)
            pretrain(str(self.pretrained), data, sizes.epochs)

    def groups(self) -> list[list[int]]:
        """The exemplars of each model that learns several."""
        together = self.sizes.together
        of_kind = exemplars(self.labels, 10 * self.sizes.models)
        return [of_kind[start : start + together] for start in range(0, len(of_kind), 10)]

    def held_back(self) -> list[int]:
        """The exemplars on which steps and radius are chosen."""
        return [int((self.labels == digit).nonzero().flatten()[-1]) for digit in range(self.sizes.together)]

    def hidden(self, together: list[int], candidates: int) -> DiffusionData:
        """Several exemplars among candidates."""
        return DiffusionData(self.root, together, candidates, self.sizes.pretraining, self.sizes.steps)

    def choose(self) -> dict[str, list[tuple[choice.Cell, float]]]:
        """Choose steps and radius, once."""
        kept = self.work / "choice.json"
        if not kept.is_file():
            held = self.held_back()
            seed_everything(held[0], verbose=False)
            data = self.hidden(held, self.sizes.tried)
            choice.saved(kept, choice.measured(data, self.pretrained, self.work / "choice.ckpt", self.sizes))
        return choice.read(kept)

    def run(self, table: str, part: int, parts: int) -> Table | None:
        """Run a part of what is missing of a table; the table, once nothing is."""
        jobs = [[one] for one in exemplars(self.labels, self.sizes.concepts)] if table == "single" else self.groups()
        kept = [self.work / f"{table}-{'-'.join(map(str, job))}.json" for job in jobs]
        for job, path in list(zip(jobs, kept, strict=True))[part::parts]:
            if not path.is_file():
                path.write_text(json.dumps(vars(self._trace(table, job))), encoding="utf-8")
                print(path.stem, flush=True)
        missing = [path for path in kept if not path.is_file()]
        if missing:
            print(f"{len(missing)} of {len(kept)} models of the table {table!r} are missing")
            return None
        found = [json.loads(path.read_text(encoding="utf-8")) for path in kept]
        if table == "single":
            return single.table([single.Traced(**one) for one in found], self.sizes)
        return several.table([several.Told(**one) for one in found], self.sizes, self.choose())

    def _trace(self, table: str, job: list[int]) -> single.Traced | several.Told:
        """Fine-tune a model and ask about what it draws."""
        tried = self.choose() if table == "several" else {}
        seed_everything(job[0], verbose=False)
        if table == "single":
            data = DiffusionData(self.root, job[0], self.sizes.candidates[-1], self.sizes.pretraining)
            return single.trace(data, self.pretrained, self.work, self.sizes)
        data = self.hidden(job, self.sizes.candidates[-1])
        path = self.work / f"several-{job[0]}.ckpt"
        return several.trace(data, self.pretrained, path, self.sizes, choice.best(tried))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the study where nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="holds FashionMNIST/raw and MNIST/raw")
    parser.add_argument("--work", type=Path, default=Path("runs/diffusion/study"), help="where results are kept")
    parser.add_argument("--out", type=Path, default=None, help="the JSON; default: docs/examples/diffusion.json")
    parser.add_argument("--only", type=int, nargs=2, metavar=("PART", "PARTS"), help="run a part of the models")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="others stay as written")
    parser.add_argument("--quick", action="store_true", help="three small models, few candidates")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    bench = Bench(given.root, given.work, QUICK if given.quick else Sizes())
    made = {table: bench.run(table, *(given.only or (0, 1))) for table in TABLES if table in given.tables}
    if None in made.values():
        return
    earlier, day = written(given.out) if len(made) < len(TABLES) else ({}, "")
    remarks = [f"The {ORDER[table]} table is of {day}." for table in TABLES if table not in made]
    study([made.get(table) or earlier[table] for table in TABLES], bench.sizes, remarks).write(given.out)


def written(path: Path | None) -> tuple[dict[str, Table], str]:
    """Read the tables of an earlier study, and its day."""
    content = json.loads((path or RESULTS / "diffusion.json").read_text(encoding="utf-8"))
    tables = {name: Table(**one) for name, one in zip(TABLES, content["tables"], strict=False)}
    return tables, content["ran"]["date"]


def study(tables: Sequence[Table], sizes: Sizes, remarks: Sequence[str] = ()) -> Study:
    """Put the results together."""
    minutes = [table.minutes or 0.0 for table in tables]
    return Study(
        "diffusion",
        "Attribution in a diffusion model",
        "Which picture taught the model what it draws? A small UNet of diffusers that has seen clothes only is fine-tuned on a"
        " single handwritten digit, or on one of each kind; what it then draws is traced back. Its `training_step` draws"
        " timesteps and noise as any does: the library gives each candidate its own, the same before and after the ascent.",
        "lightning-inf fit --config configs/diffusion.yaml --data.root FOLDER",
        "python -m examples.diffusion.study --root FOLDER",
        f"{sizes.pretraining:,} clothes of Fashion-MNIST and the digits of MNIST at 16 x 16 pixels; half of the candidates are"
        f" clothes that the model was pretrained on, half are digits, the exemplars among them; {sizes.concepts} models of one"
        f" digit, {sizes.models} of {sizes.together}; {sizes.draws} draws.",
        tables,
        [
            "The minutes are CPU time of one core for the scores of all models"
            f" ({' and '.join(f'{m:.1f}' for m in minutes)} for the tables); pretraining and fine-tuning come on top.",
            *remarks,
        ],
        picture="images/diffusion.png",
        started=time.time() - 60 * sum(minutes),
        packages=("torch", "lightning", "diffusers"),
    )


if __name__ == "__main__":
    main()
