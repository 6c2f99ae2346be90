"""The reference side: what a few held-out samples say about where the model should move.

Every probe is a frozen description with a ``key`` and a ``make`` that returns a vector in parameter space: ``gradient``
the direction of steepest ascent, ``ascent`` the way that K steps lead.
"""
