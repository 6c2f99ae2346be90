"""Memorisation: pictures that a network knows by heart, and the held-out pictures that it owes to them."""
