"""The one function that callback and trainer both call, and what it decides before and after the sweep.

``settings`` holds the user's arguments, ``preflight`` proves that an analysis is possible, ``decide`` chooses references
and extent, ``tune`` what methods leave open, ``budget`` makes it fit, ``diagnose`` halves the steps, ``run`` takes it from
references and methods to a run directory. ``depends`` says what its numbers depend on, ``account`` what it did.
``findings`` is what the scores say, ``content`` the summary of it; ``write`` makes the files, ``told`` the terminal's lines.
"""
