"""How often the intervals of scores hold the true score, with few studies and with misses.

    python -m tests.performance.bench_coverage

Campaigns are simulated with known distributions of costs. Three contenders cost 1, 1.3 and 2 times
as much in the median of the studies that reach the target. Logarithms of costs vary between studies
by 0.4, half of that variance shared by the contenders of a study. Contenders miss with
probabilities of 0, half and all of the given one, independently. The true score is that of the
medians of these distributions.
"""

import math

import numpy as np
from scipy.stats import norm

from analysis.statistics.resampling import CONFIDENCE, bootstrap, score_estimates
from analysis.statistics.samples import Samples

FACTORS, SPREAD, RESAMPLES = np.array([1.0, 1.3, 2.0]), 0.4, 400


def simulate(
    rng: np.random.Generator, studies: int, workloads: int, missing: float
) -> tuple[Samples, np.ndarray]:
    """Return the samples of a campaign and the true scores, (3,)."""
    shape = len(FACTORS), workloads, studies
    noise = (rng.normal(size=shape) + rng.normal(size=shape[1:])) / math.sqrt(2)
    costs = 100 * FACTORS[:, None, None] * np.exp(SPREAD * noise)
    missed = missing * np.array([0.0, 0.5, 1.0])
    costs[rng.random(shape) < missed[:, None, None]] = np.inf
    names = tuple(f"w{i}" for i in range(workloads))
    samples = Samples(("a", "b", "c"), names, costs)
    # A miss is inf, so that the median of all studies is a higher quantile of those that arrive.
    medians = 100 * FACTORS * np.exp(SPREAD * norm.ppf(np.minimum(0.5 / (1 - missed), 1)))
    return samples, samples.score(np.repeat(medians[:, None], workloads, axis=1))


def coverage(
    studies: int, workloads: int, missing: float, campaigns: int = 400, seed: int = 0
) -> np.ndarray:
    """Return the share of simulated campaigns whose intervals hold the true scores, (3,)."""
    rng = np.random.default_rng(seed)
    held = []
    for campaign in range(campaigns):
        samples, truth = simulate(rng, studies, workloads, missing)
        estimate = score_estimates(bootstrap(samples, campaign, RESAMPLES))
        held.append((estimate.low <= truth + 1e-9) & (truth - 1e-9 <= estimate.high))
    return np.mean(held, axis=0)


def main() -> None:
    """Print a table."""
    missing = (0.0, 0.2, 0.4)
    print(f"Coverage of {CONFIDENCE:.0%} intervals of scores, the lowest of three contenders")
    print("studies  workloads  " + "  ".join(f"{share:.0%} missed" for share in missing))
    for studies in (3, 5, 10):
        for workloads in (1, 4, 12):
            lowest = (coverage(studies, workloads, share, 1000).min() for share in missing)
            print(f"{studies:7}  {workloads:9}  " + "  ".join(f"{low:9.0%}" for low in lowest))


if __name__ == "__main__":
    main()
