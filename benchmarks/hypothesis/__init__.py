"""Does the influence of a training sample on a test sample mirror that of the test sample on the training sample?"""

from benchmarks.hypothesis.report import section

__all__ = ["section"]
