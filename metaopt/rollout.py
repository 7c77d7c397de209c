r"""Counterfactual rollouts: how the loss now would change with the controller of L steps ago.

Algorithm 4 of the paper. Letters as in :mod:`metaopt.controllers.base`, and

    f_t    loss of the datum at step t, as a function of the parameters
    eta_t  base learning rate at step t
    delta  weight decay
    b_t    base point, b_t = (1 - delta) x_t - eta_t g_t: where the base step alone would go
    y_j    replayed point j, j = 1..L;   lambda_j   its adjoint, d f_t(y_L) / d y_j

The replay starts at the real iterate x_{t-L} and uses the *recorded* disturbances for its controls:

    y_1     = b_{t-L} - u_0                       nothing to recompute: its gradient is recorded
    y_{j+1} = (1 - delta) y_j - eta grad f_{t-L+j}(y_j) - u_j           j = 1..L-1
    c(M)    = f_t(y_L)

Only the controls depend on M, linearly, so the adjoints are all that a controller needs:

    lambda_L = grad f_t(y_L)
    lambda_j = (1 - delta) lambda_{j+1} - eta H_j lambda_{j+1},   H_j: Hessian of f_{t-L+j} at y_j

Cost: L gradients and L - 1 Hessian-vector products, each worth two gradients; with the training
gradient itself 3 L - 1 gradient evaluations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

Gradient = Callable[[Any, Any], Any]


def rollout_adjoints(
    gradient: Gradient,
    start: Any,
    controls: Sequence[Any],
    data: Sequence[Any],
    learning_rates: Sequence[Any],
    weight_decay: float,
) -> list[Any]:
    """Replay from ``y_1`` and return the adjoints, newest first: entry i belongs to i steps ago.

    Points, controls and adjoints are trees shaped like the parameters.

    Args:
        gradient: ``gradient(y, datum)``, the gradient of the loss.
        start: The first replayed point, ``y_1``.
        controls: ``u_1 .. u_{L-1}``, oldest first.
        data: The data of ``f_{t-L+1} .. f_t``, oldest first: one more than controls.
        learning_rates: ``eta_{t-L+1} .. eta_{t-1}``.
        weight_decay: delta.

    Returns:
        ``lambda_L, lambda_{L-1}, .., lambda_1``.
    """
    decay = 1.0 - weight_decay
    point, pullbacks = start, []
    for control, datum, rate in zip(controls, data[:-1], learning_rates, strict=True):
        # The gradient's own linearisation is the Hessian: symmetric, so forward mode will do.
        slope, hessian = jax.linearize(lambda y, datum=datum: gradient(y, datum), point)
        point = jax.tree.map(
            lambda y, g, u, rate=rate: (decay * y - rate * g - u).astype(y.dtype),
            point, slope, control,
        )  # fmt: skip
        pullbacks.append((hessian, rate))
    adjoints = [gradient(point, data[-1])]
    for hessian, rate in reversed(pullbacks):
        adjoints.append(
            jax.tree.map(
                lambda a, c, rate=rate: (decay * a - rate * c).astype(a.dtype),
                adjoints[-1], hessian(adjoints[-1]),
            )
        )  # fmt: skip
    return adjoints
