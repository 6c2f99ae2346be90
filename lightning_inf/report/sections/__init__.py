"""One file a section of the page: ``context(run)`` gives what its template shows, or None where it has nothing to say.

A section is three things of one name: ``sections/<name>.py`` with ``TITLE`` (for the navigation) and ``context``,
``page/<name>.html.jinja``, where the context is ``s``, and its tests. It shows numbers that ``summary.json`` and
``scores.parquet`` hold, and counts nothing again.
"""

from __future__ import annotations

from lightning_inf.report.sections import (
    agreement,
    classes,
    decided,
    duplicates,
    dynamics,
    groups,
    methods,
    references,
    self_influence,
    suspects,
    truth,
    verdict,
)

#: In the order of the page: what is dearest to get wrong comes first.
SECTIONS = (
    verdict,
    suspects,
    decided,
    classes,
    groups,
    self_influence,
    references,
    duplicates,
    agreement,
    truth,
    dynamics,
    methods,
)
