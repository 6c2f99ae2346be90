"""Findings: what the scores mean for somebody who looks after the data.

``ranks`` orders samples by suspicion, ``mislabeled`` names label issues and suggestions, ``memorized`` what the model knows by
heart, ``duplicates`` and ``leaked`` copies within the training set and among the references; ``truth`` compares rankings
with known issues, ``agreement`` with each other, ``nonfinite`` names the samples that could not be scored.
"""
