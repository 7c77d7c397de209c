"""Who stands where: entries of one campaign on one kind of hardware, as tables.

Only what was run under the same rules stands in one table: the same campaign, budgets, targets,
seeds, number of studies, and hardware. A contender that did not run on every workload has its costs
there and no score.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from analysis.leaderboard.entries import CampaignEntry, Entry
from analysis.report.inference_tables import verdict
from analysis.report.tables import Shown, Table, unit_name
from analysis.scoring.costs import Cell, View
from analysis.scoring.machines import FINGERPRINT_HEADER, OnHardware, fingerprint_row
from analysis.scoring.profiles import profile_area, ratios
from analysis.scoring.scores import DEVELOPED_NOTE, format_cost, mark_developed
from analysis.statistics.inference import Inference, infer
from analysis.statistics.samples import make_samples
from analysis.text import plain
from metaopt.bench.budget import CURRENCIES, Currency

_DECLARED, _FIXED = " *", " †"


@dataclasses.dataclass(frozen=True)
class Standing:
    """One campaign on one kind of hardware."""

    campaign: str
    hardware: str  # slug
    entries: dict[tuple[str, str], CampaignEntry]  # by (contender, workload)

    @property
    def contenders(self) -> list[str]:
        """Everybody with an entry."""
        return sorted({contender for contender, _ in self.entries})

    @property
    def workloads(self) -> list[str]:
        """Every workload with an entry."""
        return sorted({workload for _, workload in self.entries})

    @property
    def complete(self) -> list[str]:
        """Those who ran on every workload: they have scores."""
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

    def cells(self) -> dict[tuple[str, str], Cell]:
        """Return costs to target in the budgets' currency."""
        return {pair: entry.cell(self.currency) for pair, entry in self.entries.items()}

    def scores(self, view: View) -> dict[str, float]:
        """Return the scores of those who ran on every workload."""
        if not self.complete:
            return {}
        cells = self.cells()
        medians = [[cells[s, w].median(view) for w in self.workloads] for s in self.complete]
        areas = profile_area(ratios(np.array(medians)))
        return dict(zip(self.complete, areas.tolist(), strict=True))

    def order(self) -> list[str]:
        """Return the contenders, the best score including tuning first, those without one last."""
        including, given = self.scores("including"), self.scores("given")

        def key(name: str) -> tuple[float, float, str]:
            # Rounded, for sums in another order differ in their last digit.
            return -round(including.get(name, -1), 9), -round(given.get(name, -1), 9), name

        return sorted(self.contenders, key=key)

    def inference(self) -> Inference | None:
        """Return the statistics including tuning; ``None`` with one study, or nobody complete."""
        if self.studies < 2 or not self.complete:
            return None
        samples = make_samples(self.complete, self.workloads, self.cells(), "including")
        return infer(samples, self.currency, "including")


def standings(entries: Sequence[Entry]) -> list[Standing]:
    """Return every campaign on every kind of hardware, in the order of their names.

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
        Standing(name, slug, dict(sorted(group.items())))
        for (name, slug), group in sorted(groups.items())
    ]


def check_comparable(entries: Sequence[Entry]) -> None:
    """See that entries of a campaign have the same budgets, targets, seeds, studies and workloads.

    Raises:
        ValueError: They have not; names two entries and what differs.
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
                    f"{where} and {other} are of campaign {plain(name)!r} and do not compare, for "
                    f"they differ in their {differing}; a campaign that is another needs another "
                    "name."
                )


def _differing(a: CampaignEntry, b: CampaignEntry) -> str:
    """Return what differs between contenders on one workload."""
    pairing = [[(study.seed, study.fixed_batch) for study in entry.studies] for entry in (a, b)]
    # A self-tuning run may take its whole study's budget: that of a trial is not compared.
    facts = {
        "target": (a.target, b.target),
        "budget of a study": (a.budget.study, b.budget.study),
        "currency": (a.budget.currency, b.budget.currency),
        "evaluation period": (a.budget.eval_period, b.budget.eval_period),
        "seeds of studies": tuple(pairing),
    }
    return ", ".join(name for name, (one, two) in facts.items() if one != two)


def _differing_anywhere(a: CampaignEntry, b: CampaignEntry) -> str:
    """Return what differs and must not on any workload of a campaign."""
    facts = {
        "currency": (a.budget.currency, b.budget.currency),
        "seed": (a.seed, b.seed),
        "number of studies": (len(a.studies), len(b.studies)),
    }
    return ", ".join(name for name, (one, two) in facts.items() if one != two)


def standing_table(standing: Standing, found: Inference | None) -> Table:
    """Return scores with their intervals and costs, best first; those without a score last."""
    including, given = standing.scores("including"), standing.scores("given")
    cells = standing.cells()
    intervals = _intervals(found)
    rows = []
    for name in standing.order():
        row = [plain(name) + _flags(standing, name)]
        row += [_score(scores.get(name)) for scores in (including, given)]
        row.insert(2, intervals.get(name, Shown("", None)))
        row.append("yes" if standing.is_verified(name) else "no")
        for workload in standing.workloads:
            row.append(_cell(cells.get((name, workload)), standing, (name, workload)))
        rows.append(tuple(row))
    header = (
        "contender", "score", "interval", "given tuned", "verified",
        *map(plain, standing.workloads),
    )  # fmt: skip
    return Table(_caption(standing, found), header, tuple(rows))


def _caption(standing: Standing, found: Inference | None) -> str:
    parts = [
        "Score: including tuning"
        + (f", with its {found.confidence:.0%} interval" if found else "")
        + ", and given tuned. Workloads: median cost to target in "
        f"{unit_name(standing.currency)}, given tuned / including tuning (studies that reached "
        "it); - where the median study did not. Verified: another run came to the same costs."
    ]
    if len(standing.complete) < len(standing.contenders):
        parts.append("Without a score: did not run on every workload.")
    flags = "".join(_flags(standing, name) for name in standing.contenders)
    if _DECLARED in flags:
        parts.append("* Gradient evaluations as the submission declares them.")
    if any(entry.developed_here for entry in standing.entries.values()):
        parts.append(DEVELOPED_NOTE)
    if _FIXED in flags:
        parts.append("† Some hyperparameters fixed by hand, which no budget paid for.")
    return " ".join(parts)


def _score(score: float | None) -> Shown:
    return Shown("" if score is None else f"{score:.3f}", score)


def _cell(cell: Cell | None, standing: Standing, pair: tuple[str, str]) -> Shown:
    if cell is None:
        return Shown("", None)
    given, including = (format_cost(cell.median(view)) for view in ("given", "including"))
    text = f"{given} / {including} ({cell.reached}/{standing.studies})"
    developed = standing.entries[pair].developed_here
    return Shown(mark_developed(text, developed), cell.median("including"))


def _flags(standing: Standing, contender: str) -> str:
    entries = [e for (name, _), e in standing.entries.items() if name == contender]
    declared = _DECLARED if any(entry.declared for entry in entries) else ""
    return declared + (_FIXED if any(entry.fixed for entry in entries) else "")


def _intervals(found: Inference | None) -> dict[str, Shown]:
    if found is None:
        return {}
    return {
        name: Shown(
            f"{found.scores.low[s]:.2f} to {found.scores.high[s]:.2f}", found.scores.low[s].item()
        )
        for s, name in enumerate(found.samples.contenders)
    }


def decided_table(standing: Standing, found: Inference) -> Table | None:
    """Return the best contender against each other one, or nothing for a single one."""
    names = found.samples.contenders
    best, *others = [name for name in standing.order() if name in names]
    if not others:
        return None
    pairs = {frozenset((pair.first, pair.second)): pair for pair in found.comparisons}
    rows = []
    for other in others:
        pair = pairs[frozenset((best, other))]
        won, lost = (pair.wins, pair.losses)[:: 1 if pair.first == best else -1]
        probability = found.wins.value[names.index(best), names.index(other)]
        counts = f"{won}-{pair.ties}-{lost}"
        beaten = Shown(f"{probability:.2f}", float(probability))
        rows.append((plain(other), beaten, Shown(counts, won - lost), verdict(pair)))
    caption = (
        f"{plain(best)} against each other contender, study by study: the probability that it wins "
        "(ties half), wins-ties-losses, and whether that is decided (sign test adjusted for all "
        f"comparisons, {found.confidence:.0%}) or how many more studies on each workload it needs."
    )
    return Table(caption, ("contender", "beaten with", "wins-ties-losses", "decided"), tuple(rows))


def targets_table(standing: Standing) -> Table:
    """Return targets and budgets, one row per workload."""
    rows = []
    for workload in standing.workloads:
        entry = next(e for (_, w), e in standing.entries.items() if w == workload)
        sign = "<=" if entry.target.better == "lower" else ">="
        rows.append(
            (
                plain(workload),
                plain(entry.target.metric),
                f"{sign} {entry.target.value:.6g}",
                f"{entry.budget.study:,.6g}",
                f"{entry.budget.eval_period:g}",
            )
        )
    unit = unit_name(standing.currency)
    header = ("workload", "target", "value", "budget of a study", "evaluated every")
    return Table(f"Targets, and budgets in {unit}, tuning included", header, tuple(rows))


def provenance_table(standing: Standing) -> Table:
    """Return how each contender was run, and one command of those that repeat it."""
    rows = []
    for contender in standing.contenders:
        entries = [e for (name, _), e in standing.entries.items() if name == contender]
        commits = sorted({commit for entry in entries for commit in entry.commits})
        days = sorted({day for entry in entries for day in (entry.first_day, entry.last_day)})
        studies = [study for entry in entries for study in entry.studies]
        reruns = sorted({rerun for entry in entries for rerun in _rerun(entry)})
        rows.append(
            (
                plain(contender),
                plain(entries[0].submission),
                plain((entries[0].tuner or {}).get("name", "tunes itself")),
                plain(", ".join(commit[:12] for commit in commits)),
                plain(days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"),
                f"{sum(study.trials for study in studies):,}",
                f"{sum(study.failures for study in studies):,}",
                plain("; ".join(reruns)),
            )
        )
    header = (
        "contender",
        "submission",
        "tuner",
        "commit",
        "days (UTC)",
        "trials",
        "failures",
        "rerun",
    )
    caption = (
        "Where the numbers come from. Each record has the command that repeats its runs, such as: "
        f"{plain(standing.first.command)}"
    )
    return Table(caption, header, tuple(rows))


def _rerun(entry: CampaignEntry) -> list[str]:
    rerun = entry.verified
    if rerun is None:
        return []
    days = {rerun.first_day, rerun.last_day}
    commits = ", ".join(commit[:12] for commit in rerun.commits)
    return [f"{' to '.join(sorted(days))} on {rerun.hardware}, {commits}"]


def hardware_rows(entries: Sequence[Entry]) -> Table:
    """Return what every slug stands for."""
    found = {entry.hardware.slug: entry.hardware for entry in entries}
    rows = tuple(fingerprint_row(found[slug]) for slug in sorted(found))
    return Table("What the names of hardware stand for", FINGERPRINT_HEADER, rows)


def across_hardware(entries: Sequence[Entry], campaign: str) -> tuple[list[OnHardware], str] | None:
    """Return a campaign's costs on each kind of hardware, and a reference that ran on all.

    ``None`` where there is one kind only, or no such reference.
    """
    costs: dict[str, dict[tuple[str, str], dict[Currency, float]]] = defaultdict(dict)
    for entry in entries:
        if campaign in entry.campaigns:
            here = entry.campaigns[campaign]
            costs[entry.hardware.slug][entry.contender, entry.workload] = {
                currency: here.cell(currency).median("including") for currency in CURRENCIES
            }
    if len(costs) < 2:
        return None
    everywhere = set.intersection(*(set(pairs) for pairs in costs.values()))
    reached = Counter(
        contender
        for contender, workload in sorted(everywhere)
        if all(np.isfinite(costs[slug][contender, workload]["steps"]) for slug in costs)
    )
    if not reached:
        return None
    ((reference, _),) = reached.most_common(1)  # the first of equals by name
    return [OnHardware(slug, costs[slug]) for slug in sorted(costs)], reference
