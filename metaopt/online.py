r"""Online control: learn a controller from the gradients of training alone.

Letters as in :mod:`metaopt.controllers.base`; x_t are the parameters, g_t the gradient, O the
meta-optimizer, lambda the weight decay, and c_t the factor of Polyak's step in w_t, 1 where the
disturbance is not scaled to it. At step t, counted from 1 in each episode:

    if t > H:   M <- O(M, -d<g_t, u_{t-1}>/dM)
    the update is -u_t - lambda c_t sum_h M[h] x_t,   u_t = sum_h M[h] w_{t-h}

The meta-gradient is that of a rollout of one step (Algorithm 7 with L = 1), with the given gradient
in place of the one at the replayed point. The two points are the same as long as M does not change.

With a discount gamma above 0 it is that of a long rollout, the steps of long ago counted less:

    if t > H:   M <- O(M, -d<g_t, S_t>/dM),   S_t = sum_{i >= 1} gamma^(i-1) u_{t-i}, all with M

That looks 1 / (1 - gamma) steps ahead where gamma = 0 looks one ahead, and prefers steps that are
too short for a long run. With gamma = 1, S_t is the whole way from the start had M always been what
it is: Mechanic's statistic.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from .arguments import as_parameters, check_mask, is_known
from .controllers.base import Controller
from .scales import direction_factor
from .steps import as_transformation, decays, descend, disturb, init_disturbance, widened
from .xla.precision import narrow
from .xla.rings import after

Discount = float | jax.Array | Callable[[Any], Any]  # a number or a schedule, as optax's rates
Mask = Any | Callable[[Any], Any]  # as in optax: a tree of booleans, or a function that returns it


class OnlineControlState(NamedTuple):
    """State of :func:`online_control`."""

    count: Int[Array, ""]  # steps taken in this episode
    controller: Controller  # its weights are M
    memory: PyTree  # the controller's: what it keeps of past disturbances
    sums: (
        PyTree  # by discount: the memory of discounted sums; None: the memory is that of gamma = 0
    )
    disturbance: PyTree  # state of the disturbance's transformation
    meta_state: PyTree  # state of O


def online_control(
    controller: Controller,
    meta_optimizer: optax.GradientTransformation,
    disturbance: optax.GradientTransformation | None = None,
    *,
    discount: Discount | Sequence[Discount] = 0.0,
    weight_decay: float | jax.Array = 0.0,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learn a controller while training, from the given gradients alone.

    .. math:: u_t = \sum_{h=0}^{H-1} M_h \, w_{t-h}, \qquad
        M \leftarrow O\big(M, -\partial_M \langle g_t, u_{t-1} \rangle\big)

    The updates, :math:`-u_t`, go straight to ``optax.apply_updates``. A base step is an optimizer
    beside it: ``sum_updates(optax.sgd(0.1), online_control(...))``. Further keywords of ``update``,
    say ``value``, reach ``disturbance`` and ``meta_optimizer``.

    Weights decay as in ``optax.adamw``, with the learned M in place of the learning rate: the
    update is :math:`-u_t - \lambda c_t \sum_h M_h x_t`. :math:`c_t` is the factor with which
    :func:`~metaopt.scale_by_polyak` or :func:`~metaopt.scale_by_level` multiplies its direction in
    ``disturbance``, 1 without them. Whatever scales the updates scales the decay: a schedule after
    it, or a restart of :func:`~metaopt.guard`. The decay is no part of u, so M does not learn from
    its effect.

    With a ``discount`` the meta-gradient remembers:
    :math:`-\partial_M \langle g_t, \sum_{i \ge 1} \gamma^{i-1} u_{t-i} \rangle`, the past
    controls all taken with the newest M. Several discounts learn side by side, each its own M from
    its own memory, and their controls add up, as in Mechanic: then no discount has to fit the
    length of the run.

    Costs no gradient beyond the given one, and the inner products of that gradient with the
    memory. The state holds the controller's memory: K parameter-sized arrays for K averages, H for
    lags, none for a step size, and what ``disturbance`` keeps; and as much again for each discount
    above 0, one array for a step size. :func:`~metaopt.end_learning` frees the latter. Jit with
    ``donate_argnums`` on the state, or XLA copies the memory at every step.

    Args:
        controller: The family, with weights to start from; H is the length of the weights for
            lags, and 1 for averages.
        meta_optimizer: O, any optax transformation.
        disturbance: Any optax transformation that past gradients go through before the controller
            sees them, say :func:`~metaopt.scale_by_rms`; ``None`` leaves them as they are.
        discount: :math:`\gamma`, in [0, 1], or a schedule of it: a function of the number of steps
            before this one. Or several of them. Then the weights have a leading axis with an entry
            for each, which starts with an equal share of the control, and ``controller.merged()``
            is the controller of their sum.
        weight_decay: :math:`\lambda`, at least 0.
        mask: The parameters whose weights decay, as in ``optax.add_decayed_weights``: a tree of
            booleans, of the structure of the parameters or a prefix of it, or a function that
            returns one for the parameters. ``None``: all of them.

    Raises:
        ValueError: ``weight_decay`` is negative or not finite, or a discount is missing or outside
            of [0, 1]; from ``init``, a parameter is no floating-point number, or the weights or the
            mask do not fit the parameters; from ``update``, parameters are missing where weights
            decay.

    Examples:
        >>> from metaopt import ScalarLags
        >>> tx = online_control(ScalarLags(jnp.array([0.1])), optax.sgd(0.01))
        >>> x = jnp.array([3.0, 4.0])  # f = |x|^2 / 2, so the gradient is x
        >>> u1, state = tx.update(x, tx.init(x))  # -0.1 x
        >>> u2, state = tx.update(x + u1, state)  # M = 0.1 + 0.01 <0.9 x, x>
        >>> print(u1, state.controller.weights, f"{float(u2[0]):.4f}")
        [-0.3 -0.4] [0.325] -0.8775

    References:
        Nonconvex Meta-optimization for Deep Learning, Algorithm 7.
        Chen and Hazan, `A Nonstochastic Control Approach to Optimization
        <https://arxiv.org/abs/2301.07902>`_, 2023.
        Cutkosky, Defazio and Mehta, `Mechanic: A Learning Rate Tuner
        <https://arxiv.org/abs/2306.00144>`_, 2023, for discounts.
    """
    several = isinstance(discount, Sequence)
    discounts = tuple(discount) if several else (discount,)
    known = [gamma for gamma in discounts if not callable(gamma) and is_known(gamma)]
    if not discounts or not all(0 <= gamma <= 1 for gamma in known):
        raise ValueError(f"`discount` must lie in [0, 1], or be several that do, got {discount!r}.")
    if is_known(weight_decay) and not 0 <= weight_decay < math.inf:
        raise ValueError(f"`weight_decay` must be at least 0 and finite, got {weight_decay!r}.")
    outer = optax.with_extra_args_support(meta_optimizer)
    disturbing = as_transformation(disturbance)

    def init_fn(params: optax.Params) -> OnlineControlState:
        params = as_parameters(params)
        if mask is not None:
            check_mask(mask, params)
        ready = controller.init(params, controller.history)

        def empty() -> Any:
            return ready.init_memory(params, rollout=0)

        keeps = controller.keeps_memory
        sums = tuple(
            None if keeps and gamma in known and gamma == 0 else empty() for gamma in discounts
        )
        memory = empty() if keeps else None
        if several:
            ready = _split(ready, len(discounts))
        return OnlineControlState(
            count=jnp.zeros((), jnp.int32),
            controller=ready,
            memory=memory,
            sums=sums,
            disturbance=init_disturbance(disturbing, params),
            meta_state=outer.init(jax.tree.map(jnp.copy, ready.weights)),  # it may keep them
        )

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, OnlineControlState]:
        if params is None and decays(weight_decay):
            raise ValueError("`params` must be passed to update() to decay weights.")
        if not jax.tree.leaves(updates):  # all parameters are masked
            return updates, state
        slope, point = widened(updates, params)
        disturbance, disturbance_state = disturb(disturbing, state, slope, point, extra_args)
        learned, meta_state = state.controller, state.meta_state
        if state.sums:
            meta_slope = _meta_gradient(state, slope, several)
            due = state.count >= controller.history
            learned, meta_state = descend(outer, state, meta_slope, due, extra_args)
            # The meta-gradient reads the memories, which are then overwritten in place.
            disturbance = after(learned.weights, disturbance)
        acting = learned.merged() if several else learned
        memory = acting.observe(state.memory, disturbance)
        sums = tuple(
            None
            if before is None
            else acting.accumulate(before, memory, gamma(state.count) if callable(gamma) else gamma)
            for before, gamma in zip(state.sums, discounts, strict=False)  # none after learning
        )
        control = narrow(acting.controls(memory, 1, slope)[0], slope)
        steps = jax.tree.map(jnp.negative, control)
        if decays(weight_decay):
            shrink = weight_decay * direction_factor(disturbance_state)
            decay = optax.add_decayed_weights(-shrink, mask)  # its state is empty
            steps, _ = decay.update(steps, decay.init(point), acting.steady_control(point))
        if not controller.keeps_memory:
            memory = None
        return narrow(steps, updates), OnlineControlState(
            state.count + 1, learned, memory, sums, disturbance_state, meta_state
        )

    # optax types a state as an array, or containers that it knows
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore


def _split(controller: Controller, count: int) -> Controller:
    """Return as many controllers, along a leading axis of the weights, with equal shares."""
    share = controller.scaled(1 / count)
    return share.with_weights(jax.tree.map(lambda m: jnp.stack([m] * count), share.weights))


def _meta_gradient(state: OnlineControlState, slope: Any, several: bool) -> Any:
    """Return the meta-gradient of the weights, for several discounts along their leading axis."""

    def one(sums: Any, place: int) -> Any:
        weights = state.controller.weights
        mine = jax.tree.map(lambda m: m[place], weights) if several else weights
        memory = state.memory if sums is None else sums
        return state.controller.with_weights(mine).meta_gradient(memory, [slope], ago=0)

    found = [one(sums, place) for place, sums in enumerate(state.sums)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *found) if several else found[0]
