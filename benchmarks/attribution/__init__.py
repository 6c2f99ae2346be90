"""Attribution quality: do summed scores predict what retraining on a part of the data does?

``python -m benchmarks.attribution`` trains a bank of networks on random halves of Fashion-MNIST, scores the training
samples for held-out queries by this package's estimators and by TRAK, and computes the linear datamodeling score.
Networks, score matrices and checkpoints stay beside the JSON, so that an interrupted run goes on; they are not for the
repository.
"""

from benchmarks.attribution.page import section

__all__ = ["section"]
