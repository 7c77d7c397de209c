"""What the paper's guarantees look like on small problems: the tables of docs/theory.md.

    python tests/performance/theory.py TABLE

TABLE is reduction, theorem, quadratics, bco or bandit. Each takes a minute or two on two CPU cores.
Seeds are fixed. Figure 3 is a campaign: python -m tuning compare figure3_mnist.
"""

import argparse

import jax.numpy as jnp
import numpy as np

from metaopt.theory import regret_experiments as regret_runs
from metaopt.theory import theorem_on_finite_sums as sums
from metaopt.theory import theorem_on_quadratics as quadratic_runs
from metaopt.theory.reduction import gradient_descent
from metaopt.theory.regret import growth_exponent


def reduction() -> None:
    """Algorithm 3: the best squared gradient norm against the number of epochs."""
    print("   K  best squared gradient norm     bound")
    for row in sums.reduction_rates((1, 4, 16, 64, 256, 1024), inner_steps=20):
        print(f"{row.epochs:4d}  {row.best_squared_gradient:26.2e}  {row.bound:8.2e}")


def theorem() -> None:
    """Theorem 1: both sides against N, K and S, for gradient descent and for Algorithm 5."""
    print("A          N   K   S   left side   1/K term   regret   comparator")
    for sizes in ((4, 8, 10), (16, 8, 10), (64, 8, 10), (4, 32, 10), (4, 128, 10), (4, 8, 40)):
        carried = sums.theorem_terms(*sizes, gradient_descent(0.1), jnp.zeros(()))
        for name, row in (("descent", carried), ("bandit", sums.theorem_with_bandit(*sizes))):
            n, k, s = sizes
            print(
                f"{name:8s} {n:3d} {k:3d} {s:3d}   {row.left:9.5f}  {row.descent:9.5f}"
                f"  {row.regret:7.4f}   {row.comparator:10.4f}"
            )


def quadratics() -> None:
    """Theorem 1 on quadratics, against the best controller of the class, which is known."""
    print(
        "A                N   K   S   left side   1/K term    regret   comparator     bound   |M|"
    )
    for sizes in ((4, 8, 10), (16, 8, 10), (64, 8, 10), (4, 32, 10), (4, 128, 10), (4, 8, 40)):
        runs = [
            (
                f"descent {rate}",
                quadratic_runs.quadratic_theorem(
                    *sizes, gradient_descent(rate), jnp.zeros(()), learning_rate=rate,
                    gradient_age=0,
                ),
            )
            for rate in (0.02, 0.1)
        ]  # fmt: skip
        for name, run in (*runs, ("bandit", quadratic_runs.quadratic_theorem_with_bandit(*sizes))):
            (n, k, s), row = sizes, run.row
            print(
                f"{name:12s} {n:5d} {k:3d} {s:3d}   {row.left:9.5f}  {row.descent:9.5f}"
                f"  {row.regret:8.5f}   {row.comparator:10.5f}  {sum(row[1:]):8.5f}"
                f"  {np.linalg.norm(run.best.weights[0], 2):4.2f}",
                flush=True,
            )


def bco() -> None:
    """Algorithm 6: regret against the number of rounds."""
    _print_regrets(regret_runs.bco_regrets((256, 1024, 4096, 16384), seeds=32))


def bandit() -> None:
    """Algorithm 5: regret against the best fixed controller."""
    weights, cost = regret_runs.best_fixed_controller(regret_runs.bandit_settings(0.1))
    print(f"best fixed controller, first row {np.round(weights[0, 0], 3)}: {cost:.4f} a round")
    _print_regrets(regret_runs.bandit_regrets((300, 1000, 3000, 10000), seeds=32))


def _print_regrets(rows: list[regret_runs.RegretRow]) -> None:
    print("    T   regret  (standard error)   regret / T")
    for row in rows:
        print(
            f"{row.rounds:5d}  {row.regret:7.1f}  ({row.spread:.1f})".ljust(34)
            + f"{row.regret / row.rounds:.4f}"
        )
    rounds, regrets = np.array([(row.rounds, row.regret) for row in rows]).T
    print(f"log-log slope {growth_exponent(rounds, regrets):.2f}")


def main() -> None:
    """Run one experiment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    tables = {f.__name__: f for f in (reduction, theorem, quadratics, bco, bandit)}
    parser.add_argument("table", choices=tables)
    tables[parser.parse_args().table]()


if __name__ == "__main__":
    main()
