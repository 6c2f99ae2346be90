"""Estimators, one a file: what each asks the sweep for, and how columns become a score.

A public score is positive when training on the sample *helps* the reference, that is, lowers its loss.
"""
