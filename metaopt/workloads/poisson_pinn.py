r"""A Poisson problem on the unit square, solved by a physics-informed network.

.. math:: -\Delta u(x, y) = 2 \pi^2 \sin(\pi x) \sin(\pi y), \qquad u = 0 \text{ on the boundary}

has the solution :math:`u = \sin(\pi x) \sin(\pi y)`. The network is zero on the boundary by
construction. In training mode the model returns the residuals at the points of a batch, whose
targets are 0; in evaluation mode it returns u, whose targets are the solution. The loss holds
second derivatives, so the problem is ill-conditioned.

References:
    Raissi et al., `Physics-informed neural networks
    <https://doi.org/10.1016/j.jcp.2018.10.045>`_, 2019.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.spec import LossType
from metaopt.workloads.data.arrays import Arrays
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.supervised import SupervisedWorkload


def solution(point: jax.Array) -> jax.Array:
    """Return the solution at a point, (2,) or (n, 2)."""
    return jnp.prod(jnp.sin(jnp.pi * point), axis=-1)


def residual(u: Callable[[jax.Array], jax.Array], point: jax.Array) -> jax.Array:
    """Return the Laplacian of ``u`` plus the source at a point (2,): 0 for the solution."""

    def second_derivative(direction: jax.Array) -> jax.Array:
        def slope(point: jax.Array) -> jax.Array:
            return jax.jvp(u, (point,), (direction,))[1]

        return jax.jvp(slope, (point,), (direction,))[1]

    # Forward over forward: reverse mode would keep every layer once more.
    laplacian = second_derivative(jnp.array([1.0, 0.0])) + second_derivative(jnp.array([0.0, 1.0]))
    return laplacian + 2.0 * jnp.pi**2 * solution(point)


class Field(nn.Module):
    """Dense layers with tanh, times a factor that is 0 on the boundary and 1 in the middle."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, point: jax.Array) -> jax.Array:
        """Map a point (2,) to a number."""
        hidden = point
        for index, width in enumerate(self.widths):
            hidden = nn.tanh(nn.Dense(width, name=f"hidden_{index}")(hidden))
        boundary = 16.0 * jnp.prod(point * (1.0 - point))
        return boundary * nn.Dense(1, name="output")(hidden)[0]


class PhysicsInformed(nn.Module):
    """Residuals of a field in training mode, its values in evaluation mode."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, train: bool = False, dropout_rate: Any = 0.0
    ) -> jax.Array:
        """Map points (n, 2) to (n,); there is no dropout."""
        del dropout_rate
        field = Field(self.widths)
        params = self.param("field", lambda key: field.init(key, inputs[0])["params"])

        def u(point: jax.Array) -> jax.Array:
            return jnp.asarray(field.apply({"params": params}, point))

        return jax.vmap(lambda point: residual(u, point) if train else u(point))(inputs)


def load_points() -> Arrays:
    """Draw 8,192 points of the square for training, 256 for validation and 256 for tests."""
    random = np.random.default_rng(0)
    points = (random.random((size, 2), np.float32) for size in (8_192, 256, 256))
    return Arrays(
        *({"inputs": part, "targets": np.zeros(len(part), np.float32)} for part in points)
    )


def with_solution(batch: Batch) -> Batch:
    """Return an evaluation batch, whose targets are the solution."""
    return {**batch, "targets": solution(batch["inputs"])}


def relative_error(label_batch: Any, logits_batch: Any, mask_batch: Any) -> jax.Array:
    """Return the root mean squared error over that of 0, which is 1/2 on the whole square."""
    squares = jnp.square(logits_batch - label_batch)
    return 2.0 * jnp.sqrt(jnp.average(squares, weights=mask_batch))


POISSON_PINN = SupervisedWorkload(
    name="poisson_pinn",
    summary="Poisson's equation on a square, physics-informed network (1,185 parameters)",
    load=load_points,
    whole={"train": 8_192, "validation": 256, "test": 256},
    complete_eval=with_solution,
    model=PhysicsInformed(widths=(32, 32)),
    has_modes=True,
    loss_type=LossType.MEAN_SQUARED_ERROR,
    metrics={"relative_error": relative_error},
    target_metric="relative_error",
    target_better="lower",
    reference_batch_size=64,
    step_hint=300,
    eval_train_size=256,
    max_allowed_runtime_sec=20.0,
    eval_period_time_sec=1.0,
)
