"""The files of the run directory, in the order in which one needs the other."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.account import Account
from lightning_inf.analysis.content import summarized
from lightning_inf.analysis.exhibit import write_exhibit
from lightning_inf.analysis.findings import Findings, find
from lightning_inf.analysis.grouped import write_groups
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.audit.shown import worth_showing
from lightning_inf.data.identity import namer, sample_id
from lightning_inf.files import write_sealed
from lightning_inf.methods.collect import Scores


def write_findings(
    trainer: Trainer, module: LightningModule, settings: Settings, subject: Subject, scores: Scores, account: Account
) -> dict[str, Any]:
    """Audit the scores and write ``scores.parquet``, ``attributions.parquet``, ``summary.json`` and ``report.html``.

    Args:
        trainer: The Trainer.
        module: The bare module.
        settings: The user's.
        subject: What was analysed.
        scores: What the methods say.
        account: What the run did.

    Returns:
        The summary.
    """
    from lightning_inf.report import html, markdown  # jinja2 only where a report is written

    directory = account.directory
    findings = find(trainer, module, settings, subject, scores, account)
    _write_tables(trainer, module, subject, scores, account, findings)
    groups = write_groups(directory, settings.methods, findings.groups, scores.columns, findings.issues)
    content = summarized(trainer, module, settings, subject, scores, account, findings, groups)
    write_sealed(directory / "summary.json", content)
    write_exhibit(
        trainer,
        module,
        subject,
        directory,
        findings.ranks,
        scores.ends,
        findings.shown,
        findings.audit.references,
        account.marked,
    )
    html.render(directory)
    markdown.render(directory)
    return content


def _write_tables(
    trainer: Trainer, module: LightningModule, subject: Subject, scores: Scores, account: Account, findings: Findings
) -> None:
    """Write what has a row a sample, a pair or a reference."""
    from lightning_inf.report import curves, tables  # pyarrow only where something is written

    directory, names = account.directory, findings.class_names
    name_of = namer(trainer, module, subject.train.dataset)
    tables.write_scores(
        directory / "scores.parquet",
        scores.columns,
        findings.ranks,
        findings.issues,
        len(subject.train),
        name_of,
        names,
        findings.audit.columns,
        findings.groups,
    )

    def reference_name_of(index: int) -> str:
        return sample_id(subject.references.samples.dataset, index)

    tables.write_attributions(directory / "attributions.parquet", scores.ends, name_of, reference_name_of)
    tables.write_references(directory / "references.parquet", account.held_out, reference_name_of, names)
    curves.write_curves(directory / curves.FILE, account.curves, worth_showing(findings.ranks, findings.shown))
