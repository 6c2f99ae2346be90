"""Putting an attribute on an object for a while, and taking it off again."""

from __future__ import annotations

from typing import Any


class Patch:
    """Shadows a method of an instance until :meth:`undo`.

    Args:
        owner: The instance.
        name: The method's name.

    Attributes:
        original: The method as it was.

    Example:
        >>> class Greeter:
        ...     def greet(self): return "hello"
        >>> greeter = Greeter()
        >>> patch = Patch(greeter, "greet")
        >>> patch.put(lambda: patch.original() + " there")
        >>> greeter.greet()
        'hello there'
        >>> patch.undo()
        >>> greeter.greet(), vars(greeter)
        ('hello', {})
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name
        self.original = getattr(owner, name)
        self._was_own = name in vars(owner)
        self._put: Any = None

    def put(self, replacement: Any) -> None:
        """Shadow the method."""
        self._put = replacement
        setattr(self.owner, self.name, replacement)

    def undo(self) -> None:
        """Put back what was there, unless somebody else has shadowed ours in the meantime."""
        if vars(self.owner).get(self.name) is not self._put:
            return
        if self._was_own:
            setattr(self.owner, self.name, self.original)
        else:
            delattr(self.owner, self.name)
