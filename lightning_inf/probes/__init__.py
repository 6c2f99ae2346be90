"""The reference side: what a few held-out samples say about where the model should move.

Every probe is a frozen description with a ``key`` and a ``make`` that returns a vector in parameter space: ``gradient``
the direction of steepest ascent, ``ascent`` the way that K steps lead, ``inverse`` the gradient with the curvature of the
training loss undone. ``curvature`` says what a solver is and has; ``conjugate_gradients`` and ``lissa`` work with products
of the ``gauss_newton`` matrix, ``kronecker`` with curvlinops' ``factors`` of each layer, ``diagonal`` with squared gradients.
"""
