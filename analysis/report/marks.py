"""The marks behind contenders' names in every table, and their legend."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from analysis.logs.logs import Logs
from analysis.report.table import CellFormat
from analysis.scoring.costs import pass_ratios
from analysis.wording import plain

DECLARED, FIXED, AUDIT, BROKEN = "*", "†", "§", "✗"
_LEGEND = {
    DECLARED: "* Gradient evaluations as the submission declares them, at least those of the "
    "batches that it drew.",
    FIXED: "† Some hyperparameters fixed by hand, which no budget paid for.",
}


@dataclasses.dataclass(frozen=True)
class Marks:
    """Marks by contender, the notes that explain them, and what failed, by contender."""

    by_name: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def format(self) -> CellFormat:
        """The format of a column of contenders; CSV and JSON have what failed as a field."""
        return CellFormat(lambda name: plain(self.marked(name)), self._fields, is_text=True)

    def marked(self, name: str) -> str:
        """Return a contender's name with its marks."""
        marks = self.by_name.get(name)
        return f"{name} {marks}" if marks else name

    def _fields(self, name: str) -> dict[str, str]:
        failure = self.failures.get(name)
        return {"": name} if failure is None else {"": name, "failure": failure}


def make_marks(
    declared: Iterable[str] = (),
    fixed: Iterable[str] = (),
    failed_audits: Mapping[str, list[str]] | None = None,
    ratios: Mapping[str, float] | None = None,
    broken: Mapping[str, list[str]] | None = None,
) -> Marks:
    """Return marks with their legend.

    Args:
        declared: The contenders that declare their gradient evaluations.
        fixed: The contenders with hyperparameters fixed by hand.
        failed_audits: The failed findings of audits, with both numbers, by contender.
        ratios: The noted ratios of counted to charged gradient evaluations, by contender.
        broken: The sentences on contenders that failed throughout on a workload.
    """
    failed_audits, ratios, broken = failed_audits or {}, ratios or {}, broken or {}
    found: dict[str, list[str]] = {}
    groups = {DECLARED: declared, FIXED: fixed, AUDIT: failed_audits, BROKEN: broken}
    for mark, names in groups.items():
        for name in sorted(set(names)):
            found.setdefault(name, []).append(mark)
    for name, ratio in sorted(ratios.items()):
        found.setdefault(name, []).append(f"(passes x{ratio:.2f})")
    sentences = [(BROKEN, name, f"{'; '.join(said)}.") for name, said in broken.items()]
    sentences += [
        (AUDIT, name, f"Failed an audit: {'; '.join(said)}.")
        for name, said in failed_audits.items()
    ]
    notes = [f"{mark} {sentence}" for mark, _, sentence in sentences]
    failures: dict[str, str] = {}
    for _, name, sentence in sentences:
        failures[name] = f"{failures.get(name, '')} {sentence}".strip()
    if ratios:
        notes.append("Passes: gradient evaluations that an audit counted over those charged.")
    notes += [_LEGEND[mark] for mark in (DECLARED, FIXED) if any(mark in m for m in found.values())]
    by_name = {name: " ".join(marks) for name, marks in found.items()}
    return Marks(by_name, tuple(notes), failures)


def marks_of(campaigns: Sequence[Logs], broken: Mapping[str, list[str]]) -> Marks:
    """Return the marks of the contenders in logs.

    Args:
        campaigns: The logs of one or more campaigns.
        broken: The sentences on contenders that failed throughout, by name.
    """
    trials = [trial for logs in campaigns for trial in logs.trials]
    declared = {t.record.contender for t in trials if t.record.ledger.declared}
    failed: dict[str, list[str]] = {}
    for audit in (audit for logs in campaigns for audit in logs.audits):
        said = [f.what.rstrip(".") for f in audit.findings if f.failed]
        if said:
            sentence = f"{audit.contender} on {audit.workload}: {'; '.join(said)}"
            failed.setdefault(audit.contender, []).append(sentence)
    ratios: dict[str, float] = {}
    for (name, _), ratio in (pair for logs in campaigns for pair in pass_ratios(logs).items()):
        ratios[name] = max(ratio, ratios.get(name, 0.0))
    return make_marks(declared, (), failed, ratios, broken)
