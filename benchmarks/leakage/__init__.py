"""Which training samples leaked: held-out queries that are exact copies of training samples, and who finds them.

``python -m benchmarks.leakage`` trains networks with BatchNorm on CIFAR-10 and MNIST until they know their training set
by heart (Table 2, 6 and 9 of Ko et al., CVPR 2024). Copies of 100 training samples stand in as held-out references, so
the training sample that each estimator should name first is known.
"""

from benchmarks.leakage.section import section

__all__ = ["section"]
