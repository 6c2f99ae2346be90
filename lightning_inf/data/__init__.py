"""Samples by their index: where they come from, what they are called, and how batches of them are made.

``sources`` finds the training and reference data of a run, ``repeatable`` makes random items the same at every fetch,
``batches`` makes device batches from indices, ``references`` holds the held-out side, ``chunks`` cuts the index range,
``identity`` names samples and fingerprints data sets.
"""
