"""Read the audits of a campaign, and describe their findings in sentences."""

from collections.abc import Iterable
from pathlib import Path

from metaopt.bench.records.audit import AUDIT_FILE, AuditRecord


def read_audits(logs: Path) -> list[AuditRecord]:
    """Read every ``audit.json`` under a folder; an empty list for an archive.

    Raises:
        ValueError: A file is not the record of an audit; the message names it.
    """
    found = []
    for path in sorted(logs.rglob(AUDIT_FILE)) if logs.is_dir() else []:
        try:
            found.append(AuditRecord.model_validate_json(path.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{path} is not the record of an audit: {error}") from None
    return found


def audit_findings(audits: list[AuditRecord], *, failed: bool) -> list[str]:
    """Return one sentence for each failed finding, or for each finding that is only noted."""
    return [
        f"{audit.contender} on {audit.workload}: {finding.what.rstrip('.')}"
        for audit in audits
        for finding in audit.findings
        if finding.failed == failed
    ]


def audit_summary(audits: list[AuditRecord]) -> str:
    """Return the number of audits, the failures and the time factors, as a sentence.

    Examples:
        >>> audit_summary([])
        'No trial was audited.'
    """
    if not audits:
        return "No trial was audited."
    pairs = {(audit.contender, audit.workload) for audit in audits}
    failed = {(audit.contender, audit.workload) for audit in audits if audit.failed}
    count = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of contender and workload"
    text = f"Audited: {count}, {len(failed) or 'none'} failed."
    factors = [audit.time_factor for audit in audits if audit.time_factor is not None]
    if factors:
        text += f" Seconds per gradient evaluation: {_range(factors)} times AdamW's."
    return text


def unaudited_pairs(pairs: Iterable[tuple[str, str]], audits: list[AuditRecord]) -> list[str]:
    """Return the pairs of contender and workload without an audit; none if nothing was audited."""
    audited = {(audit.contender, audit.workload) for audit in audits}
    missing = sorted(set(pairs) - audited) if audits else []
    return [f"{contender} on {workload}" for contender, workload in missing]


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} to {high}"
