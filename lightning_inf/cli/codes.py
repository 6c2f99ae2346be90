"""Exit codes of ``report`` and ``gate``. They are stable: scripts depend on them."""

from __future__ import annotations

PASSED = 0
FAILED = 1
USAGE = 2  # argparse's own
INCOMPLETE = 3
UNDECIDED = 4

#: For ``--help``.
TABLE = """\
exit codes:
  0  every gate passed, or the report was written
  1  a gate failed
  2  the command was wrong: an argument, another schema version, a baseline of other data
  3  the run is incomplete or damaged, or something broke on the way
  4  no gate failed, but one could not be decided: the run did not measure it (--undecided=pass makes this a 0)
"""
