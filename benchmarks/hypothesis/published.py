"""What Ko et al. (CVPR 2024) print, as Pearson and Spearman; kept apart from everything that is measured here."""

from __future__ import annotations

Pair = tuple[float, float]

#: Table 1, Eq. 1 against Eq. 2 without noise. MNIST and Fashion-MNIST are those of the authors' printed outputs.
CONVEX: dict[str, Pair] = {"mnist": (0.9975, 0.9027), "fashion_mnist": (0.9939, 0.7274), "cifar10": (0.9673, 0.8069)}

#: Table 5, Eq. 1 against Eq. 2 by share of wrong labels, 500 references.
BY_NOISE: dict[str, dict[float, Pair]] = {
    "mnist": {0.2: (0.9621, 0.9653), 0.3: (0.9864, 0.9915), 0.5: (0.9640, 0.9907)},
    "fashion_mnist": {0.2: (0.9421, 0.9479), 0.3: (0.9857, 0.9840), 0.5: (0.9752, 0.9915)},
    "cifar10": {0.2: (0.7521, 0.7838), 0.3: (0.9697, 0.9702), 0.5: (0.8551, 0.8848)},
}

#: Table 4, Eq. 1 against Eq. 2 by number of references, without its last column, of which it is not clear whether it is
#: headed 500 or 1,000.
BY_REFERENCES: dict[str, dict[int, Pair]] = {
    "mnist": {50: (0.9208, 0.9755), 100: (0.9512, 0.9764)},
    "fashion_mnist": {50: (0.9244, 0.9568), 100: (0.9611, 0.9795)},
    "cifar10": {50: (0.6918, 0.8274), 100: (0.8401, 0.9034)},
}

#: Table 7, Forward-INF against Eq. 2 by number of references.
FORWARD: dict[str, dict[int, Pair]] = {
    "mnist": {50: (0.9701, 0.9746), 100: (0.9819, 0.9786), 500: (0.9951, 0.9942)},
    "fashion_mnist": {50: (0.9450, 0.9479), 100: (0.9811, 0.9795), 500: (0.9942, 0.9920)},
    "cifar10": {50: (0.9050, 0.9052), 100: (0.9528, 0.9413), 500: (0.9862, 0.9832)},
}
