"""A package by name: other distributions install one called `tests`, too, and a regular package comes first on the path."""
