"""What a training step reveals while fitting: no extra forward pass, nothing of the user's is changed.

``indices`` tells which samples a batch held, ``watch`` what the step's loss call said of them, ``rows`` writes the two
down as a table, ``ranks`` brings the tables of all processes to the first, ``statistics`` and ``curves`` keep them,
``recorder`` is what the callback drives, ``recorded`` reads the result.
"""
