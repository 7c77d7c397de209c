r"""The step size: the smallest controller, one number for the newest disturbance.

Letters as in :mod:`metaopt.controllers.base`, and

    W      the learned number, log M
    u_t    control, u_t = M w_t
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from ..xla.precision import real_dtype, wide_dtype
from ..xla.products import inner_product
from .base import Controller, initial_weights


@dataclasses.dataclass(frozen=True, eq=False)
class StepSize(Controller):
    r"""One positive number, :math:`u_t = M w_t`: the step size of any optimizer.

    In :func:`~metaopt.online_control`, with the optimizer as ``disturbance``. It has no memory of
    its own, so the state holds one parameter-sized array for each discount, and nothing else.

    Attributes:
        weights: The initial W, the logarithm of M; ``None`` for M = 1.
    """

    weights: Any = None
    family = "step_size"
    keeps_controls = False
    keeps_memory = False

    @property
    def history(self) -> int:
        """1: only the newest disturbance is in a control."""
        return 1

    def init(self, params: Any, history: int) -> Controller:
        """Return the controller with W of shape ()."""
        del history
        return self.with_weights(initial_weights(self.weights, (), real_dtype(params)))

    def init_memory(self, params: Any, rollout: int, dtype: DTypeLike | None = None) -> Any:
        """Return a disturbance of 0.

        Raises:
            ValueError: ``rollout`` is not 0.
        """
        if rollout:
            raise ValueError(
                "`controller` must not be StepSize where there are rollouts. Averages((0.0,)) has "
                "the same controls, and a memory to replay."
            )
        return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype or wide_dtype(leaf)), params)

    def observe(self, memory: Any, disturbance: Any) -> Any:
        """Return the disturbance."""
        del memory
        return jax.tree.map(lambda w: w.astype(wide_dtype(w)), disturbance)

    def accumulate(self, sums: Any, memory: Any, discount: Any) -> Any:
        """Return the discounted sum, with the disturbance added."""
        return jax.tree.map(lambda s, w: (discount * s + w).astype(s.dtype), sums, memory)

    def controls(self, memory: Any, count: int, like: Any) -> list[Any]:
        """Return M w, of the newest disturbance alone."""
        del like
        assert count == 1
        return [self.steady_control(memory)]

    def meta_gradient(self, memory: Any, adjoints: Sequence[Any], ago: int = 1) -> Float[Array, ""]:
        r"""Return :math:`-M \langle \lambda, w \rangle`."""
        assert ago == 0
        (adjoint,) = adjoints
        by_leaf = jax.tree.map(inner_product, memory, adjoint)
        product = functools.reduce(jnp.add, jax.tree.leaves(by_leaf))
        return (-jnp.exp(self.weights) * product).astype(self.weights.dtype)

    def steady_control(self, disturbance: Any) -> Any:
        """Return M w."""
        rate = jnp.exp(self.weights)
        return jax.tree.map(lambda w: rate.astype(real_dtype(w)) * w, disturbance)

    def scaled(self, factor: Any) -> Controller:
        """Return the controller with W + log(factor)."""
        return self.with_weights(self.weights + jnp.log(factor))

    def merged(self) -> Controller:
        """Return the controller with the logarithm of the sum of all M."""
        return self.with_weights(jax.nn.logsumexp(self.weights, axis=0))
