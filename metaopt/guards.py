r"""A guard around any optimizer: a run that leaves the road goes back to its best point.

Letters:

    f_t     loss at step t, handed to ``update`` as ``value``
    x_t     the parameters at which it was measured
    f_1     the first loss
    x_best  the parameters with the lowest loss so far
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from metaopt.arguments import as_loss, as_parameters
from metaopt.meshes import reshard
from metaopt.precision import cast

Restart = Callable[[Any, Any, Any], Any]


class GuardState(NamedTuple):
    """State of :func:`guard`."""

    inner: Any  # of the guarded optimizer
    best: PyTree  # x_best
    best_loss: Float[Array, ""]
    first_loss: Float[Array, ""]  # infinite before the first step
    scale: Float[Array, ""]  # what updates are multiplied by
    restarts: Int[Array, ""]  # how many there were


def guard(
    inner: optax.GradientTransformation,
    *,
    limit: float = 1.5,
    shrink: float = 0.5,
    restart: Restart | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Go back to the best point, with smaller steps, where an optimizer diverges.

    Where :math:`f_t` is not finite or above :math:`f_1 + (\text{limit} - 1) |f_1|`, or the step
    would lead to parameters that are not finite, the update is :math:`x_{best} - x_t` instead, and
    the optimizer starts again with smaller steps. The state counts these restarts; each costs a
    step. Parameters that are finite stay finite.

    The loss goes to ``update`` as ``value``, with the parameters, and on to ``inner``. Costs one
    extra copy of the parameters, and a pass over them. After a step so long that :math:`x_{best}`
    is lost in the rounding of :math:`x_t`, a second restart follows.

    Args:
        inner: Any optax optimizer.
        limit: How far the loss may rise over the first, relatively; above 1.
        shrink: Factor of the steps at each restart, in (0, 1].
        restart: ``restart(inner_state, x_best, shrink)`` returns the state to go on from, with the
            smaller steps in it. By default it is a new one, and the updates are multiplied.
            :func:`~metaopt.mixtures.restart_learning` keeps what a meta-optimizer has learned.

    Raises:
        ValueError: An argument breaks its rule; or, from ``update``, the parameters or the loss are
            missing.

    Examples:
        >>> tx = guard(optax.sgd(3.0))
        >>> x, state = jnp.ones(()), tx.init(jnp.ones(()))
        >>> for _ in range(40):  # f = x^2 / 2; 2 would be the largest rate
        ...     updates, state = tx.update(x, state, x, value=x**2 / 2)
        ...     x = optax.apply_updates(x, updates)
        >>> print(int(state.restarts), bool(abs(x) < 1e-6))
        1 True
    """
    if not limit > 1:
        raise ValueError(f"`limit` must be above 1, got {limit!r}.")
    if not 0 < shrink <= 1:
        raise ValueError(f"`shrink` must lie in (0, 1], got {shrink!r}.")
    guarded = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> GuardState:
        params = as_parameters(params)
        return GuardState(
            inner=guarded.init(params),
            best=jax.tree.map(jnp.copy, params),
            # One array each, or the state could not be donated.
            best_loss=jnp.full((), jnp.inf, jnp.float32),
            first_loss=jnp.full((), jnp.inf, jnp.float32),
            scale=jnp.ones(()),
            restarts=jnp.zeros((), jnp.int32),
        )

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GuardState]:
        if params is None:
            raise ValueError("`params` must be passed to update(): guard needs them.")
        loss = as_loss(value, "guard").astype(jnp.float32)
        first = jnp.where(jnp.isfinite(state.first_loss), state.first_loss, loss)
        better = jnp.isfinite(loss) & (loss < state.best_loss)
        best = _where(better, params, state.best)
        steps, inner_state = guarded.update(updates, state.inner, params, value=value, **extra_args)
        steps = jax.tree.map(
            lambda u, p: reshard((state.scale * u).astype(u.dtype), p), steps, params
        )
        lost = ~jnp.isfinite(loss) | (loss > first + (limit - 1) * jnp.abs(first))
        lost |= ~_is_finite(jax.tree.map(jnp.add, params, steps))
        scale = state.scale
        if restart is None:
            scale = jnp.where(lost, shrink * scale, scale)

        def begin_again() -> Any:
            again = guarded.init(best) if restart is None else restart(state.inner, best, shrink)
            return jax.tree.map(lambda new, old: cast(new, old.dtype), again, inner_state)

        back = jax.tree.map(lambda b, x, u: (b - x).astype(u.dtype), best, params, steps)
        return _where(lost, back, steps), GuardState(
            inner=_branch(lost, begin_again, inner_state),
            best=best,
            best_loss=jnp.where(better, loss, state.best_loss),
            first_loss=first,
            scale=scale,
            restarts=state.restarts + lost,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _branch(condition: Any, yes: Callable[[], Any], no: Any) -> Any:
    """Return what ``yes`` returns, or ``no``.

    XLA's CPU backend leaves ``no`` where it is if this is a branch, and copies it if it is a
    choice. On a GPU the choice is part of the loop that makes ``no``, and a branch may wait for the
    host.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(condition, yes, lambda: no)
    return _where(condition, yes(), no)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _is_finite(tree: Any) -> Array:
    flags = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.array(True) if not flags else jnp.stack(flags).all()
