"""Commands that measure what the project claims; each writes JSON and prints a table."""
