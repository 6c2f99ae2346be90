"""The rows of the table: what is asked of which model, with whom it is compared, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.speed.questions import Question

#: Peers that a row compares with, and on how many samples: the slow ones take hundreds of F.
Peers = dict[str, int]


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        key: In the results.
        label: On the page.
        problem: Of :data:`~benchmarks.speed.problems.PROBLEMS`.
        question: What is asked.
        target: In F; None where a row only reports.
        peers: Compared with, on so many samples.
        samples: Of our own analysis; None: all.
        per_reference: Ask all references and none, and divide the difference: what one more reference costs.
        checked: Samples that the scores are compared on.
        tolerance: Of the largest score: how far the tools may be apart.
        plotted: A point of a plot, not a row of the table.
    """

    key: str
    label: str
    problem: str
    question: Question
    target: float | None = None
    peers: Peers = field(default_factory=dict)
    samples: int | None = None
    per_reference: bool = False
    checked: int = 64
    tolerance: float = 1e-4
    plotted: bool = False


#: Forward-INF takes differences of losses in fp32 that are 1e-3 apart.
_DIFFERENCES = 2e-2

#: 5.5 F are to be reached beyond known losses, which are 5 sweeps. One-sided differences have an error of the first order in
#: their step; the page reports it as *apart*.
_ONE_SIDED = 5e-2

ROWS = [
    Row(
        "forward_inf_more",
        "Forward-INF, one more reference, ascent included",
        "cnn",
        Question("forward_inf", 1, 4),
        1.15,
        {"plain loop": 512},
        per_reference=True,
        tolerance=_DIFFERENCES,
    ),
    Row(
        "forward_inf_10",
        "Forward-INF, 10 checkpoints, 1 reference",
        "cnn",
        Question("forward_inf", 10, 1),
        22,
        {"plain loop": 512},
        tolerance=_DIFFERENCES,
    ),
    Row(
        "tracin_5_1",
        "TracInCP, 5 checkpoints, 1 reference",
        "cnn",
        Question("tracin", 5, 1),
        10.5,
        {"captum": 64, "captum, sample-wise": 128, "dattri": 64, "plain loop": 256},
    ),
    Row(
        "tracin_one_sided",
        "TracInCP, 5 checkpoints, 1 reference, one-sided differences, the losses that they start from included",
        "cnn",
        Question("one_sided", 5, 1),
        5 + 5.5,
        {"plain loop": 512},
        tolerance=_ONE_SIDED,
    ),
    Row(
        "tracin_5_10",
        "TracInCP, 5 checkpoints, 10 references",
        "cnn",
        Question("tracin", 5, 10),
        14,
        {"captum": 64, "captum, sample-wise": 128, "dattri": 64, "plain loop": 256},
    ),
    Row(
        "tracin_5_100",
        "TracInCP, 5 checkpoints, 100 references of one sample each",
        "cnn",
        Question("tracin", 5, 100),
        18,
        {"captum, sample-wise": 128, "plain loop": 256},
    ),
    Row(
        "self_influence_5",
        "self-influence, 5 checkpoints",
        "cnn",
        Question("self_influence", 5),
        14,
        {"captum": 64, "captum, sample-wise": 128, "dattri": 64, "plain loop": 256},
    ),
    Row(
        "head_100",
        "last layer's weight, 100 references, 1 checkpoint",
        "cnn",
        Question("head", 1, 100),
        1.5,
        {"captum, TracInCPFast": 1024, "plain loop": 512},
    ),
    Row(
        "resnet18_tracin",
        "ResNet-18: TracInCP, 1 checkpoint, 10 references",
        "resnet18",
        Question("tracin", 1, 10),
        None,
        {"captum": 8, "plain loop": 32},
        samples=256,
        checked=8,
        tolerance=1e-3,
    ),
    Row(
        "resnet18_forward_inf",
        "ResNet-18: Forward-INF, one more reference, ascent included",
        "resnet18",
        Question("forward_inf", 1, 3),
        None,
        {"plain loop": 64},
        samples=512,
        per_reference=True,
        checked=32,
        tolerance=_DIFFERENCES,
    ),
    Row(
        "transformer_tracin",
        "transformer of 4 layers on text: TracInCP, 1 checkpoint, 10 references",
        "transformer",
        Question("tracin", 1, 10),
        None,
        {"captum": 32, "dattri": 64, "plain loop": 128},
        samples=1024,
        checked=32,
        tolerance=1e-3,
    ),
    Row(
        "transformer_forward_inf",
        "transformer of 4 layers on text: Forward-INF, one more reference, ascent included",
        "transformer",
        Question("forward_inf", 1, 5),
        None,
        {"plain loop": 256},
        samples=1024,
        per_reference=True,
        checked=64,
        tolerance=_DIFFERENCES,
    ),
    *(
        Row(
            f"tracin_{checkpoints}_10",
            f"TracInCP, {checkpoints} checkpoint(s), 10 references",
            "cnn",
            Question("tracin", checkpoints, 10),
            peers={"captum, sample-wise": 128, "plain loop": 256},
            samples=1000,
            plotted=True,
        )
        for checkpoints in (1, 2, 10)
    ),
    *(
        Row(
            f"tracin_5_10_of_{samples}",
            f"TracInCP, 5 checkpoints, 10 references, {samples:,} samples",
            "cnn",
            Question("tracin", 5, 10),
            samples=samples,
            plotted=True,
        )
        for samples in (1000, 3000)
    ),
]
