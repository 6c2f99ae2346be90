"""Trials that try to break an analysis: kills, interrupts, damage, and what else people do with Lightning.

Each file has a runner that says what it did in plain values, and is used twice: by the tests beside it, short and long,
and by ``python -m tests.reliability``, which writes ``docs/reliability.md`` and ``docs/compatibility.md`` from what it said.
"""
