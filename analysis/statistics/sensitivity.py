"""Sensitivity of scores and their order to each workload: leave one workload out."""

import dataclasses

import numpy as np

from analysis.scoring.benchmark import AXES
from analysis.scoring.profiles import profile_area
from analysis.statistics.samples import Floats, Samples


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Scores without each base workload and its variants."""

    workloads: tuple[str, ...]  # the W workloads that are left out
    scores: Floats  # (W, S): row w without workload w
    places: Floats  # (W, S): places, 1 the best; equal scores share the better place

    @property
    def range(self) -> tuple[Floats, Floats]:
        """The lowest and the highest score of each contender."""
        return self.scores.min(axis=0), self.scores.max(axis=0)


def leave_one_workload_out(samples: Samples) -> LeaveOneOut | None:
    """Return scores without each base workload; ``None`` if there is only one."""
    workloads = samples.scored.base
    if len(workloads) < 2:
        return None
    ratios = samples.scored.ratios(samples.medians, samples.view)
    left = (np.delete(ratios, w, axis=1) for w in range(len(workloads)))
    scores = np.array([profile_area(some, AXES[samples.view]) for some in left])
    return LeaveOneOut(workloads, scores, np.array([places(row) for row in scores]))


def places(scores: Floats) -> Floats:
    """Return places by score, 1 the best; equal scores share the better place."""
    # The order of a sum changes its last digit.
    better = scores[None, :] > scores[:, None] + 1e-9
    return 1.0 + better.sum(axis=1)
