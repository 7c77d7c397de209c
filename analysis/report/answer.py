"""The answer of a campaign or a competition in a sentence or two, and what is wrong with it.

The report begins with it, and the output of ``compare`` and ``score`` ends with it.
"""

from collections.abc import Sequence

import numpy as np

from analysis.checks.fairness import find_failures
from analysis.logs.logs import Logs
from analysis.report.table import interval_text
from analysis.report.tables.score_tables import in_view, unit_name
from analysis.scoring.benchmark import Benchmark
from analysis.scoring.scores import Scores, scores_of
from analysis.statistics.inference import Inference, infer
from analysis.statistics.samples import samples_of
from analysis.statistics.speedups import REFERENCE, Bound, Speedups

_BOUNDS: dict[Bound, str] = {"": "", ">=": "at least ", "<=": "at most ", "~": "about "}


def infer_all(scores: Scores, reference: str = REFERENCE) -> list[Inference]:
    """Return the statistics of both views, including tuning first; none with a single study."""
    if scores.studies < 2 or scores.rules != "strict":
        return []
    return [
        infer(samples_of(scores, view), scores.unit, reference=reference) for view in scores.views
    ]


def answer(scores: Scores, found: Sequence[Inference]) -> str:
    """Return who is ahead, by how much, how sure that is, and whether the ranking repeats.

    A leader that was designed with some of the workloads is compared on the others as well.

    Args:
        scores: The scores.
        found: The statistics of their views; none if there is one study or other rules.
    """
    view = scores.views[0]
    ranked = [name for name in scores.sorted_by(view).contenders if scores.scores.get(name)]
    if not ranked:
        return "No contender has a score, because none ran on every workload."
    leader = ranked[0]
    if not _arrived(scores, leader):
        return "No contender's median study reached the target of any workload."
    if len(ranked) == 1:
        reached, of = _arrived(scores, leader), len(scores.benchmark.base)
        return (
            f"The median study of {leader} reaches the target on {reached} of {of} workloads; "
            "there is no other contender to compare it with."
        )
    if not found:
        parts = [_without_statistics(scores, ranked, leader)]
    else:
        parts = [_ahead(found[0], leader, ranked[1]), _repeats(found[0])]
    return " ".join([*parts, *_designed(scores, ranked, found)])


def problems(logs: Logs, scores: Scores) -> list[str]:
    """Return sentences on what a reader must know before the answer: failures and misses."""
    sentences = []
    broken = {one.contender for one in find_failures(logs) if one.is_broken}
    if broken:
        sentences.append(f"Failed throughout on some workload: {', '.join(sorted(broken))}.")
    audited = {one.contender for one in logs.audits if any(f.failed for f in one.findings)}
    if audited:
        sentences.append(f"Failed an audit: {', '.join(sorted(audited))}.")
    return [*sentences, *misses(scores)]


def misses(scores: Scores) -> list[str]:
    """Return sentences on contenders and workloads for which no study reached the target."""
    sentences = []
    never = [name for name in scores.contenders if not _reached(scores, name)]
    if never:
        sentences.append(f"Reached no target in any study: {', '.join(never)}.")
    view = scores.views[0]
    scored = [name for name in scores.contenders if scores.scores.get(name)]
    medians = np.array([[scores.median(c, w, view) for w in scores.benchmark.workloads]
                        for c in scored])  # fmt: skip
    if scored and (missed := scores.benchmark.unreached(medians, view)):
        sentences.append(
            f"{in_view('No median study reached the target', view)} on {', '.join(missed)}."
        )
    return sentences


def _ahead(found: Inference, leader: str, second: str) -> str:
    """Return by how much the leader is ahead of the reference, and whether of the second."""
    speedups = found.speedups
    s, other = (found.samples.contenders.index(name) for name in (leader, second))
    scores = found.scores.value
    tied = _tie(scores[s], scores[other])
    if speedups is None or speedups.reference == leader:
        low, high = (part[s] for part in _ends(found))
        next_to = f"as has {second}" if tied else f"before {second} with {scores[other]:.3f}"
        text = (
            f"{leader} has the highest score, {scores[s]:.3f} ({found.percent}: "
            f"{low:.3f} to {high:.3f}), {next_to}"
        )
        return f"{text}; {_decided(found, leader, second)}."
    text = f"{leader} {_faster(found, speedups, leader)}"
    text = f"{text}; {_decided(found, leader, speedups.reference)}."
    if second == speedups.reference:
        return text
    which = "whose score is the same" if tied else "which is second"
    return f"{text} Against {second}, {which}, {_decided(found, leader, second)}."


def _faster(found: Inference, speedups: Speedups, leader: str) -> str:
    mark, value, low, high = speedups.of(leader)

    def sure(spec: str) -> str:
        return f"{found.percent}: {interval_text(low, high, spec) or 'no limit'}"

    if not np.isfinite(value):
        return f"is ahead of {speedups.reference}, by a factor that is not defined"
    bound = _BOUNDS[mark]
    if round(value, 1) == 1 and not bound:
        return (
            f"has the highest score, and median costs like {speedups.reference}'s (speed-up "
            f"{value:.2f}, {sure('.2f')})"
        )
    if value < 1:
        return (
            f"has the highest score, though its median costs are {bound}{1 / value:.1f} times "
            f"those of {speedups.reference} (speed-up {value:.2f}, {sure('.2f')})"
        )
    return (
        f"reaches the targets with {bound}{value:.1f} times less {_spent(found)} than "
        f"{speedups.reference} ({sure('.1f')})"
    )


def _decided(found: Inference, leader: str, other: str) -> str:
    pair = next(p for p in found.comparisons if {p.first, p.second} == {leader, other})
    wins, losses = (pair.wins, pair.losses) if pair.first == leader else (pair.losses, pair.wins)
    ties = f", and {pair.ties} tie" if pair.ties > 1 else ", and one ties" if pair.ties else ""
    text = f"it wins {wins} of {wins + losses + pair.ties} studies{ties}"
    if pair.winner == leader:
        return f"{text}; decided"
    if pair.winner is not None:
        return f"{text}; the studies decide for {pair.winner}"
    if pair.more is None:
        return f"{text}; undecided"
    return f"{text}; undecided: {pair.more} more stud{'y' if pair.more == 1 else 'ies'} would do"


def _repeats(found: Inference) -> str:
    measured = found.repeatability
    if measured.repeats is None:
        return f"Whether the ranking repeats is not known: {measured.reason}."
    verb = "repeats" if measured.repeats else "would not repeat"
    return f"The ranking {verb} (tau {measured.tau:.2f})."


def _designed(scores: Scores, ranked: Sequence[str], found: Sequence[Inference]) -> list[str]:
    """Return a sentence if the leader was designed with some of the workloads."""
    leader, names = ranked[0], scores.benchmark.base
    others = tuple(name for name in names if (leader, name) not in scores.developed)
    if len(others) == len(names):
        return []
    if not others:
        return [f"{leader} was designed with all of the workloads."]
    there = scores_of(
        scores.rules, scores.unit, tuple(ranked), Benchmark(others), scores.cells, scores.studies
    )
    view = scores.views[0]
    top = max(score[view] for score in there.scores.values())
    first = [name for name in there.contenders if _tie(there.scores[name][view], top)]
    which = f"{len(names) - len(others)} of the {len(names)} workloads"
    where = f"the {len(others)} others" if len(others) > 1 else "the other"
    verb = "has" if len(first) == 1 else "have"
    best = f"{' and '.join(first)} {verb} the highest score"
    if leader in first:
        best = "it has the highest score too"
    less = _less(found[0], leader, others) if found else ""
    return [f"{leader} was designed with {which}; on {where}, {less}{best}."]


def _less(found: Inference, leader: str, workloads: Sequence[str]) -> str:
    """Return how much less budget the leader takes on some workloads, if it takes less."""
    speedups = found.speedups
    if speedups is None or speedups.of(leader)[0]:
        return ""
    places = [found.samples.workloads.index(name) for name in workloads]
    ratios = speedups.ratios[speedups.contenders.index(leader), places]
    value = float(np.exp(np.mean(np.log(ratios))))
    return f"it takes {value:.1f} times less {_spent(found)}, and " if value > 1.05 else ""


def _spent(found: Inference) -> str:
    return "budget" if found.unit != "seconds" else "time"


def _without_statistics(scores: Scores, ranked: Sequence[str], leader: str) -> str:
    view = scores.views[0]
    first, second = (scores.scores[name][view] for name in ranked[:2])
    tied = [name for name in ranked[1:] if _tie(scores.scores[name][view], first)]
    if tied:
        text = f"{', '.join([leader, *tied])} tie with the highest score, {first:.3f}"
    else:
        text = f"{leader} has the highest score, {first:.3f}, before {ranked[1]} with {second:.3f}"
    if scores.studies < 2:
        return f"{text}. How sure that is cannot be known from one study."
    return f"{text}, in {unit_name(scores.unit)}."


def _tie(first: float, second: float) -> bool:
    return bool(round(first - second, 9) == 0)


def _ends(found: Inference) -> tuple[np.ndarray, np.ndarray]:
    return found.scores.low, found.scores.high


def _arrived(scores: Scores, name: str) -> int:
    """Return the number of workloads whose target the contender's median study reached."""
    view = scores.views[0]
    return sum(bool(np.isfinite(scores.median(name, w, view))) for w in scores.benchmark.base)


def _reached(scores: Scores, name: str) -> bool:
    return any(cell.reached for (mine, _), cell in scores.cells.items() if mine == name)
