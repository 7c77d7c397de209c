r"""A guard around any optimizer: a run that diverges returns to its best point.

Letters:

    f_t     loss at step t, handed to ``update`` as ``value``
    x_t     the parameters at step t
    b       a lower bound of the loss, if one is known
    h       the initial loss: the highest of the first P losses
    l_t     level: the highest of the last P losses, P = ``patience``
    x_best  the parameters at the lowest level, l_best
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from .arguments import as_loss, as_parameters, is_known
from .xla.meshes import reshard
from .xla.precision import cast

Restart = Callable[[Any, Any, Any], Any]

_RECOVERY = 100  # steps after which the scale grows again; doubles with each restart
_MOST_DOUBLINGS = 20  # doublings of these steps
_CLEAR = 0.5  # how far above the limit losses are a divergence, as a share of their noise
_ROUNDING = 8  # units in the last place of a loss that do not count as a rise


class GuardState(NamedTuple):
    """State of :func:`guard`."""

    inner: Any  # state of the guarded optimizer
    best: PyTree  # x_best; None if it is not kept
    best_loss: Float[Array, ""]  # l_best; infinite in the first P steps
    high: Float[Array, ""]  # h; infinite before the first step
    recent: Float[Array, " patience"]  # the last P losses, newest first; infinite before
    odd: Int[Array, ""]  # number of consecutive held calls
    odd_low: Float[Array, ""]  # lowest loss of these calls
    odd_high: Float[Array, ""]  # highest loss of these calls
    quiet: Int[Array, ""]  # steps since the last restart
    scale: Float[Array, ""]  # factor of the updates
    held: Int[Array, ""]  # total number of held calls
    restarts: Int[Array, ""]  # total number of restarts
    below: Int[Array, ""]  # total number of losses at or below b


def guard(
    inner: optax.GradientTransformation,
    *,
    lower_bound: float | None = None,
    limit: float = 1.5,
    patience: int = 4,
    shrink: float = 0.5,
    restart: Restart | None = None,
    keep_best: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Return to the best point with smaller steps if an optimizer diverges.

    A loss is *odd* if the gradient or the loss is not finite, or if the loss is above

    .. math:: h + (\text{limit} - 1) (h - \min(b, l_{best})).

    After an odd loss the parameters are **held**: the update is zero, and the next loss is measured
    at the same point.

    * If one of the next P - 1 losses is not odd, the odd loss was noise: h rises to the limit
      above, and training goes on.
    * If all of them are odd, or if two are equal (a loss without noise), the run has diverged: the
      update is :math:`x_{best} - x_t`, and the optimizer **restarts** with smaller steps.
    * If the optimizer has taken no step since its last restart, the loss has risen at the same
      point: h rises to the loss, without a restart.

    A step to non-finite parameters also counts as a divergence, so finite parameters stay finite.

    Adding a constant to the loss and to the bound changes the updates only by rounding. One odd
    batch costs one step. After 100 steps without a restart, doubled for each earlier restart, the
    steps grow again by ``1 / shrink``, up to their original size. ``held`` and ``restarts`` in the
    state count held calls and restarts, and ``below`` the losses at or below the bound, which teach
    :func:`~metaopt.by_log_loss` nothing; ``optax.tree_utils.tree_get(state, "restarts")`` finds
    them inside a chain.

    Without ``keep_best`` it costs no copy of the parameters: a run that has diverged goes on from
    where it is, with smaller steps.

    Pass the loss to ``update`` as ``value``, together with the parameters. ``inner`` gets the loss
    too, and a gradient of zero if the loss is odd. Costs one extra copy of the parameters, and a
    pass over them. If a step is so long that :math:`x_{best}` is lost in the rounding of
    :math:`x_t`, a second restart follows.

    Args:
        inner: Any optax optimizer.
        lower_bound: b, a lower bound of the loss. Without it, any rise among the first P losses is
            odd, because the range of the loss is not yet known.
        limit: The rise above h that makes a loss odd, in units of the range of the loss, plus 1;
            above 1.
        patience: P, at least 2.
        shrink: The factor of the steps at each restart, in (0, 1].
        restart: ``restart(inner_state, params, factor)`` returns the state after a restart, whose
            steps are ``factor`` times as large. By default the optimizer is initialised again and
            its updates are scaled. :func:`~metaopt.restart_learning` keeps the learned
            controller of a meta-optimizer.
        keep_best: Whether to keep x_best, and to return to it.

    Raises:
        ValueError: An argument breaks its rule; or, from ``update``, the parameters or the loss are
            missing.

    Examples:
        >>> tx = guard(optax.sgd(3.0), lower_bound=0.0)
        >>> x, state = jnp.ones(()), tx.init(jnp.ones(()))
        >>> for _ in range(40):  # f = x^2 / 2; 2 would be the largest rate
        ...     updates, state = tx.update(x, state, x, value=x**2 / 2)
        ...     x = optax.apply_updates(x, updates)
        >>> print(int(state.restarts), bool(abs(x) < 1e-6))
        1 True
    """
    if is_known(limit) and not limit > 1:
        raise ValueError(f"`limit` must be above 1, got {limit!r}.")
    if is_known(shrink) and not 0 < shrink <= 1:
        raise ValueError(f"`shrink` must lie in (0, 1], got {shrink!r}.")
    if not patience >= 2:
        raise ValueError(f"`patience` must be at least 2, got {patience!r}.")
    guarded = optax.with_extra_args_support(inner)
    bound = jnp.inf if lower_bound is None else lower_bound

    def init_fn(params: optax.Params) -> GuardState:
        params = as_parameters(params)

        # Separate arrays, because a shared one could not be donated.
        def number(value: float) -> Array:
            return jnp.full((), value, jnp.float32)

        def count() -> Array:
            return jnp.zeros((), jnp.int32)

        return GuardState(
            inner=guarded.init(params),
            best=jax.tree.map(jnp.copy, params) if keep_best else None,
            best_loss=number(jnp.inf),
            high=number(jnp.inf),
            recent=jnp.full(patience, jnp.inf, jnp.float32),
            odd=count(),
            odd_low=number(jnp.inf),
            odd_high=number(-jnp.inf),
            quiet=count(),
            scale=number(1.0),
            held=count(),
            restarts=count(),
            below=count(),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GuardState]:
        if params is None:
            raise ValueError("`params` must be passed to update(): guard needs them.")
        given = as_loss(value, "guard")
        loss = given.astype(jnp.float32)
        loss = jnp.where(jnp.isfinite(loss) & _is_finite(updates), loss, jnp.inf)
        finite = jnp.isfinite(loss)
        seen = jnp.isfinite(state.recent)
        room = jnp.maximum(state.high - jnp.minimum(state.best_loss, bound), 0.0)
        room = jnp.where(jnp.isfinite(room), room, 0.0)
        top = state.high + (limit - 1) * room
        top += _ROUNDING * jnp.finfo(jnp.float32).eps * jnp.abs(top)
        odd = ~finite | (seen[0] & (loss > top))

        # At a held point, losses differ only by noise.
        odd_low, odd_high = jnp.minimum(state.odd_low, loss), jnp.maximum(state.odd_high, loss)
        same = (state.odd > 0) & (odd_low == odd_high)
        enough = odd & (state.odd + 1 >= patience)
        settled = odd & (same | (enough & (odd_low - top >= _CLEAR * (odd_high - odd_low))))
        noise = (enough & ~settled) | (~odd & (state.odd > 0))

        # An odd batch does not reach the optimizer.
        usual = jnp.where(seen[0], state.recent[0], 0.0)
        calm = jax.tree.map(lambda u: jnp.where(odd, jnp.zeros_like(u), u), updates)
        shown = jnp.where(odd, usual.astype(given.dtype), given)
        steps, inner_state = guarded.update(calm, state.inner, params, value=shown, **extra_args)
        steps = jax.tree.map(
            lambda u, p: reshard((state.scale * u).astype(u.dtype), p), steps, params
        )

        overflows = ~odd & ~_is_finite(jax.tree.map(jnp.add, params, steps))
        risen = settled & finite & (state.quiet == 0)
        lost = (settled & ~risen) | overflows
        hold = odd & ~lost
        held_on = hold & ~risen & ~noise
        good = ~odd & ~overflows

        newest = jnp.roll(state.recent, 1).at[0].set(loss)
        recent = jnp.where(good, newest, state.recent)
        level = recent.max()
        better = good & (level < state.best_loss)
        best = _where(better, params, state.best) if keep_best else None
        refuge: Any = best if keep_best else params
        # Until the noise is known, h rises to all of it; later it may hide a divergence.
        begins = ~seen.all() | (room == 0)
        widened = jnp.where(begins & jnp.isfinite(state.odd_high), state.odd_high, top)
        high = jnp.where(noise, jnp.maximum(state.high, widened), state.high)
        high = jnp.where(
            good & ~seen.all(), jnp.where(seen[0], jnp.maximum(high, loss), loss), high
        )
        high = jnp.where(risen, odd_high, high)

        quiet = jnp.where(lost, 0, state.quiet + good)
        wait = _RECOVERY * 2 ** jnp.minimum(state.restarts, _MOST_DOUBLINGS)
        scale = state.scale
        if restart is None:
            grown = jnp.where(good & (quiet % wait == 0), scale / shrink, scale)
            scale = jnp.minimum(jnp.where(lost, shrink * scale, grown), 1.0)

        # A non-finite value may have reached a learner that evaluates losses itself.
        renew = lost | (odd & ~finite) if restart is not None else lost

        def begin_again() -> Any:
            if restart is None:
                again = guarded.init(refuge)
            else:
                factor = jnp.where(lost, shrink, 1.0)
                again = restart(state.inner, _where(lost, refuge, params), factor)
            return jax.tree.map(lambda new, old: cast(new, old.dtype), again, inner_state)

        back = jax.tree.map(lambda b, x, u: (b - x).astype(u.dtype), refuge, params, steps)
        still = jax.tree.map(lambda u: jnp.where(hold, jnp.zeros_like(u), u), steps)
        return _where(lost, back, still), GuardState(
            inner=_branch(renew, begin_again, inner_state),
            best=best,
            best_loss=jnp.where(better, level, state.best_loss),
            high=high,
            recent=recent,
            odd=jnp.where(held_on, state.odd + 1, 0),
            odd_low=jnp.where(held_on, odd_low, jnp.inf),
            odd_high=jnp.where(held_on, odd_high, -jnp.inf),
            quiet=quiet,
            scale=scale,
            held=state.held + hold,
            restarts=state.restarts + lost,
            below=state.below + (loss <= (-jnp.inf if lower_bound is None else lower_bound)),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _branch(condition: Any, yes: Callable[[], Any], no: Any) -> Any:
    """Return ``yes()`` or ``no``, by a branch on CPUs and by a selection elsewhere.

    XLA's CPU backend copies ``no`` for a selection but not for a branch. On a GPU the selection is
    fused into the loop that computes ``no``, and a branch may wait for the host.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(condition, yes, lambda: no)
    return _where(condition, yes(), no)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _is_finite(tree: Any) -> Array:
    flags = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.array(True) if not flags else jnp.stack(flags).all()
