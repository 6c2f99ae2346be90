"""The one function that callback and trainer both call, and what it decides before and after the sweep.

``settings`` holds the user's arguments, ``preflight`` proves that an analysis is possible, ``decide``
chooses references and extent, ``tune`` what methods leave open, ``budget`` makes it fit, ``diagnose`` halves the steps,
``run`` takes it from references and methods to a run directory, ``account`` is what it did. ``findings`` is what
the scores say, ``content`` what ``summary.json`` says of it, ``write`` makes the files, ``told`` the terminal's lines.
"""
