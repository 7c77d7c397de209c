"""Standings: entries of one campaign on one kind of hardware, and their scores.

Only entries that were run under the same rules stand in one table: the same campaign, budgets,
targets, seeds, number of studies, and hardware. A contender that did not run on every workload has
its costs there and no score.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from analysis.leaderboard.entries import CampaignEntry, Entry
from analysis.report.marks import Marks, make_marks
from analysis.scoring.benchmark import Benchmark
from analysis.scoring.scores import VIEWS, Scores, scores_of
from analysis.statistics.inference import Inference, infer
from analysis.statistics.samples import samples_of
from analysis.wording import plain
from metaopt.bench.measure.budget import Currency


@dataclasses.dataclass(frozen=True)
class Standing:
    """One campaign on one kind of hardware."""

    campaign: str
    hardware: str  # slug
    entries: dict[tuple[str, str], CampaignEntry]  # by (contender, workload)
    planned: tuple[str, ...] = ()  # workloads of the campaign's file; empty if it is not known

    @property
    def contenders(self) -> list[str]:
        """The contenders with an entry, sorted."""
        return sorted({contender for contender, _ in self.entries})

    @property
    def workloads(self) -> list[str]:
        """The workloads with an entry, sorted."""
        return sorted({workload for _, workload in self.entries})

    @property
    def missing(self) -> list[str]:
        """The planned workloads without an entry."""
        return [name for name in self.planned if name not in self.workloads]

    @property
    def complete(self) -> list[str]:
        """The contenders that ran on every workload: only these have scores."""
        return [
            contender
            for contender in self.contenders
            if all((contender, workload) in self.entries for workload in self.workloads)
        ]

    @property
    def first(self) -> CampaignEntry:
        """Some entry: seeds, studies and the budget's currency are those of all."""
        return self.entries[min(self.entries)]

    @property
    def currency(self) -> Currency:
        """Of the budgets."""
        return self.first.budget.currency

    @property
    def studies(self) -> int:
        """Of each contender on each workload."""
        return len(self.first.studies)

    def is_verified(self, contender: str) -> bool:
        """Return whether a rerun agreed with a contender on all of its workloads."""
        entries = [entry for (name, _), entry in self.entries.items() if name == contender]
        return all(entry.verified is not None for entry in entries)

    def scores(self) -> Scores:
        """Return costs and scores, best first; contenders without a score last."""
        cells = {pair: entry.cell(self.currency) for pair, entry in self.entries.items()}
        complete = tuple(self.complete)
        others = tuple(name for name in self.contenders if name not in complete)
        benchmark = Benchmark(tuple(self.workloads))
        details = {
            "developed": frozenset(p for p, entry in self.entries.items() if entry.developed_here),
            "factors": {
                pair: entry.audit.time_factor
                for pair, entry in self.entries.items()
                if entry.audit is not None and entry.audit.time_factor is not None
            },
        }
        scores = Scores("strict", self.currency, (), benchmark, cells, {}, self.studies, **details)
        if complete:
            scores = scores_of(
                "strict", self.currency, complete, benchmark, cells, self.studies, **details
            )
        return dataclasses.replace(scores, contenders=(*scores.contenders, *others))

    def inferences(self) -> list[Inference]:
        """Return the statistics of both views, including tuning first.

        Empty with one study, or without scores.
        """
        if self.studies < 2 or not self.complete:
            return []
        complete = dataclasses.replace(self.scores(), contenders=tuple(self.complete))
        return [infer(samples_of(complete, view), self.currency) for view in VIEWS]

    def marks(self) -> Marks:
        """Return the marks of contenders."""
        return entry_marks([(*pair, entry) for pair, entry in self.entries.items()])


def entry_marks(entries: Sequence[tuple[str, str, CampaignEntry]]) -> Marks:
    """Return the marks of contenders from their entries: contender, workload, entry."""
    failed: dict[str, list[str]] = {}
    ratios: dict[str, float] = {}
    for name, workload, entry in entries:
        if entry.audit is None:
            continue
        if entry.audit.failed:
            found = f"{name} on {workload}: {'; '.join(entry.audit.findings)}"
            failed.setdefault(name, []).append(found)
        if entry.audit.ratio is not None:
            ratios[name] = max(entry.audit.ratio, ratios.get(name, 0.0))
    return make_marks(
        (name for name, _, entry in entries if entry.declared),
        (name for name, _, entry in entries if entry.fixed),
        failed,
        ratios,
    )


def standings(
    entries: Sequence[Entry], planned: Mapping[str, tuple[str, ...]] = MappingProxyType({})
) -> list[Standing]:
    """Return every campaign on every kind of hardware, in the order of their names.

    Args:
        entries: The records.
        planned: The workloads of campaigns by their files.

    Raises:
        ValueError: Entries of one campaign were not run under the same rules.
    """
    check_comparable(entries)
    groups: dict[tuple[str, str], dict[tuple[str, str], CampaignEntry]] = defaultdict(dict)
    for entry in entries:
        for name, campaign in entry.campaigns.items():
            pair = entry.contender, entry.workload
            groups[name, entry.hardware.slug][pair] = campaign
    return [
        Standing(name, slug, dict(sorted(group.items())), planned.get(name, ()))
        for (name, slug), group in sorted(groups.items())
    ]


def check_comparable(entries: Sequence[Entry]) -> None:
    """Check that entries of a campaign agree in budgets, targets, seeds, studies and workloads.

    Raises:
        ValueError: Two entries do not agree; the message names them and what differs.
    """
    firsts: dict[tuple[str, str], tuple[str, CampaignEntry]] = {}
    campaigns: dict[str, tuple[str, CampaignEntry]] = {}
    versions: dict[tuple[str, str], tuple[str, CampaignEntry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.path.as_posix()):
        where = plain(entry.path.as_posix())
        for name, here in entry.campaigns.items():
            other, first = firsts.setdefault((name, entry.workload), (where, here))
            differing = _differing(first, here)
            if not differing:
                other, first = campaigns.setdefault(name, (where, here))
                differing = _differing_anywhere(first, here)
            if not differing and here.workload_digest:
                other, first = versions.setdefault((name, entry.workload), (where, here))
                if first.workload_digest != here.workload_digest:
                    differing = "version of the workload, its data, targets or settings"
            if differing:
                raise ValueError(
                    f"{where} and {other} are of campaign {plain(name)!r} but cannot be compared: "
                    f"they differ in {differing}. Give the other campaign a name of its own."
                )


def _differing(a: CampaignEntry, b: CampaignEntry) -> str:
    """Return what differs between two entries on one workload, and must not."""
    pairing = [[(study.seed, study.fixed_batch) for study in entry.studies] for entry in (a, b)]
    # A self-tuning run may take its whole study's budget: that of a trial is not compared.
    facts = {
        "version of the targets": (a.target.version, b.target.version),
        "target": (a.target, b.target),
        "budget of a study": (a.budget.study, b.budget.study),
        "currency": (a.budget.currency, b.budget.currency),
        "evaluation period": (a.budget.eval_period, b.budget.eval_period),
        "seeds of studies": tuple(pairing),
    }
    return ", ".join(name for name, (one, two) in facts.items() if one != two)


def _differing_anywhere(a: CampaignEntry, b: CampaignEntry) -> str:
    """Return what differs between two entries of a campaign, and must not on any workload."""
    facts = {
        "currency": (a.budget.currency, b.budget.currency),
        "seed": (a.seed, b.seed),
        "number of studies": (len(a.studies), len(b.studies)),
    }
    return ", ".join(name for name, (one, two) in facts.items() if one != two)
