"""What the statistics cost: 12 contenders, 9 workloads, 5 studies, 10,000 resamples.

    python -m tests.performance.bench_statistics

The plain loop draws, takes medians and scores one resample after another with NumPy; 200 of its
resamples are timed and scaled. Rounds alternate in one process; processor time, medians.
"""

import time

import numpy as np

from analysis.scoring.profiles import profile_area, ratios
from analysis.statistics.inference import infer
from analysis.statistics.resampling import bootstrap, score_estimates
from analysis.statistics.samples import Samples

RESAMPLES, LOOPED, ROUNDS = 10_000, 200, 5


def make_samples() -> Samples:
    """Return a table with a fifth of its studies censored."""
    rng = np.random.default_rng(0)
    costs = rng.lognormal(3, 1, (12, 9, 5))
    costs[rng.random(costs.shape) < 0.2] = np.inf
    contenders = tuple(f"contender_{i}" for i in range(12))
    workloads = tuple(f"workload_{i}" for i in range(9))
    return Samples(contenders, workloads, costs)


def loop(samples: Samples) -> None:
    """Score resamples one after another."""
    rng = np.random.default_rng(0)
    for _ in range(LOOPED):
        medians = np.stack(
            [
                np.median(samples.costs[:, w, rng.integers(5, size=5)], axis=1)
                for w in range(len(samples.workloads))
            ],
            axis=1,
        )
        profile_area(ratios(medians))


def seconds(call) -> float:
    """Return the processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Time, and print one line."""
    samples = make_samples()
    infer(samples, "steps")  # imports scipy

    def scores():
        score_estimates(bootstrap(samples, 0, RESAMPLES))

    rounds = [
        (
            seconds(scores),
            seconds(lambda: loop(samples)) * RESAMPLES / LOOPED,
            seconds(lambda: infer(samples, "steps")),
        )
        for _ in range(ROUNDS)
    ]
    ours, looped, everything = np.median(rounds, axis=0)
    print(
        f"scores with intervals: {ours:.2f} s, {looped / ours:.0f} times faster than a plain loop"
    )
    print(f"all statistics: {everything:.2f} s")


if __name__ == "__main__":
    main()
