"""What the paper's guarantees look like on small problems: the tables of docs/theory.md.

    python tests/performance/theory.py reduction | theorem | bco | bandit | stability

Each takes a minute or two on two CPU cores. Seeds are fixed.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from metaopt.theory import experiments as ex
from metaopt.theory.dynamics import fit_stability
from metaopt.theory.reduction import gradient_descent
from metaopt.theory.regret import growth_exponent


def reduction() -> None:
    """Algorithm 3: the best squared gradient norm against the number of epochs."""
    print("   K  best squared gradient norm     bound")
    for row in ex.reduction_rates((1, 4, 16, 64, 256, 1024), inner_steps=20):
        print(f"{row.epochs:4d}  {row.best_squared_gradient:26.2e}  {row.bound:8.2e}")


def theorem() -> None:
    """Theorem 1: both sides against N, K and S, for gradient descent and for Algorithm 5."""
    print("A          N   K   S   left side   1/K term   regret   comparator")
    for sizes in ((4, 8, 10), (16, 8, 10), (64, 8, 10), (4, 32, 10), (4, 128, 10), (4, 8, 40)):
        carried = ex.theorem_terms(*sizes, gradient_descent(0.1), jnp.zeros(()))
        for name, row in (("descent", carried), ("bandit", ex.theorem_with_bandit(*sizes))):
            n, k, s = sizes
            print(
                f"{name:8s} {n:3d} {k:3d} {s:3d}   {row.left:9.5f}  {row.descent:9.5f}"
                f"  {row.regret:7.4f}   {row.comparator:10.4f}"
            )


def bco() -> None:
    """Algorithm 6: regret against the number of rounds."""
    _print_regrets(ex.bco_regrets((256, 1024, 4096, 16384), seeds=32))


def bandit() -> None:
    """Algorithm 5: regret against the best fixed controller."""
    weights, cost = ex.best_fixed_controller(ex.bandit_settings(0.1))
    print(f"best fixed controller, first row {np.round(weights[0, 0], 3)}: {cost:.4f} a round")
    _print_regrets(ex.bandit_regrets((300, 1000, 3000, 10000), seeds=32))


def _print_regrets(rows: list[ex.RegretRow]) -> None:
    print("    T   regret  (standard error)   regret / T")
    for row in rows:
        print(
            f"{row.rounds:5d}  {row.regret:7.1f}  ({row.spread:.1f})".ljust(34)
            + f"{row.regret / row.rounds:.4f}"
        )
    rounds, regrets = np.array([(row.rounds, row.regret) for row in rows]).T
    print(f"log-log slope {growth_exponent(rounds, regrets):.2f}")


def stability() -> None:
    """Figure 3: products of transitions of a small network on handwritten digits."""
    images, labels = load_digits(return_X_y=True)
    pooled = images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)[:512] / 16
    inputs, targets = jnp.float32(pooled), jnp.asarray(labels[:512])
    shapes = ((16, 4), (4,), (4, 10), (10,))
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])

    def loss(x: jax.Array) -> jax.Array:
        a, b, c, d = (
            x[i:j].reshape(shape) for i, j, shape in zip(ends, ends[1:], shapes, strict=False)
        )
        scores = jax.nn.log_softmax(jnp.tanh(inputs @ a + b) @ c + d)
        return -jnp.mean(jnp.take_along_axis(scores, targets[:, None], axis=1))

    print("delta  beta  age   kappa   gamma   largest norm of products of 1, 2, 5, 10, 20 matrices")
    for decay, beta, age in (
        (0, 0, 1),
        (0, 1, 1),
        (0.05, 0, 1),
        (0.05, 1, 1),
        (0.2, 0, 1),
        (0.05, 0, 0),
    ):
        norms = []
        for seed in range(3):
            start = 0.3 * jax.random.normal(jax.random.PRNGKey(seed), (int(ends[-1]),))
            norms.append(ex.stability_norms(loss, start, 20, 0.1, decay, beta, age))
        kappa, gamma, worst = fit_stability(np.concatenate(norms))
        shown = "  ".join(f"{worst[n - 1]:.3f}" for n in (1, 2, 5, 10, 20))
        print(
            f"{decay:5.2f}  {beta:4.1f}  {age:3d}  {kappa:6.2f}  {gamma:6.3f}   {shown}", flush=True
        )


def main() -> None:
    """Run one experiment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    tables = {f.__name__: f for f in (reduction, theorem, bco, bandit, stability)}
    parser.add_argument("table", choices=tables)
    tables[parser.parse_args().table]()


if __name__ == "__main__":
    main()
