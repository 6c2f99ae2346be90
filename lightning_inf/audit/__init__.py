"""Findings: what the scores mean for somebody who looks after the data.

``ranks`` orders samples by suspicion, ``mislabeled`` names label issues and suggestions, ``truth`` compares rankings
with known issues, ``agreement`` with each other, ``nonfinite`` names the samples that could not be scored.
"""
