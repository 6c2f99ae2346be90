"""Held-out pictures among the training pictures, as they are or changed: which of them the report finds."""
