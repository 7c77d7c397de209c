"""Meta-optimization beyond the paper: averages, online control, scale-free disturbances.

There is no tuning. At the second step the submission finds out whether batches change: it compares
the fingerprints of the first two batches.

    one batch          learns at every step, by ``metaopt.recipes.fixed_batch_optimizer``
    changing batches   learns in the first steps of the first episode, then trains with what it
                       learned, annealed: ``metaopt.recipes.minibatch_optimizer``

On changing batches the first episode is as long as the step hint. If the run goes on, parameters
start afresh in a call of ``update_params`` of its own, which costs the batch that it draws, and
the learned state is kept. Each episode is as long as all earlier ones together, and the last takes
the rest of the budget, so one long run gets most of it. A second episode that is no longer than the
first tries steps twice as long. On one batch there is no annealing, and a single endless episode.
A run whose first loss is never finite fails after ``MOST_RESTARTS`` of the guard, which are on the
ledger; one that starts well and loses every step ends with its budget.

``DEFAULTS`` is that configuration, and what an ablation may vary. Without any it tunes itself.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.bench.contract import kit
from metaopt.bench.contract.fingerprints import batch_fingerprint
from metaopt.bench.contract.sharding import replicate
from metaopt.controllers.averages import Averages
from metaopt.controllers.lags import ScalarLags
from metaopt.episodes import carry_over, scale_controls
from metaopt.guards import GuardState
from metaopt.recipes import (
    FIXED_HALVING,
    FIXED_META_RATE,
    fixed_batch_optimizer,
    learning_steps,
    minibatch_optimizer,
)


class Options(NamedTuple):
    """The configuration; the names are those of ``metaopt.recipes``."""

    scale: float = 1.0  # of the first M
    setting: str = "measured"  # or "fixed", "changing": how batches come
    episode_steps: int = 0  # of the first episode; 0: the step hint, and on one batch no end
    # On one batch.
    disturbances: str = "level+rms"
    controller: str = "log_averages"
    rollout: int = 0  # 0: online control, without rollouts; else their length
    log_loss: bool = True
    guarded: bool = True
    meta_rate: float = FIXED_META_RATE
    halving: float = FIXED_HALVING
    learning_rate: float = 0.0


DEFAULTS = Options()._asdict()
SETTINGS = ("measured", "fixed", "changing")
AGAIN_FACTOR = 2.0  # of steps, where an episode is no longer than the first: to try another thing
MOST_RESTARTS = 10  # of a run that has not seen a finite loss
_ROUNDING = 1e-9
_LOOK_EVERY = 10  # steps, at whether it has: reading it waits for the device

get_batch_size = kit.get_batch_size
data_selection = kit.data_selection


class State(NamedTuple):
    """Everything that lasts; the values below the line stay on the host."""

    one: Any  # state of the recipe for one batch; placeholders on changing batches
    many: Any  # that of the recipe for changing batches; placeholders on one batch
    first: jax.Array  # the first batch's fingerprint, once there is one
    # ---
    changing: bool
    learning: bool
    episode: int
    steps: int  # in this episode
    length: int  # of this episode, if it ends
    before: int  # steps of all episodes before
    gradient_evaluations: float


def init_optimizer_state(
    workload: Any, model_params: Any, model_state: Any, hyperparameters: Any, rng: Any
) -> tuple[State, Callable]:
    """Return ``(state, step)``, the pair AlgoPerf's checkpoints expect."""
    del model_state, rng
    options = _options(hyperparameters)
    changing = options.setting == "changing"
    one, many = _init(workload, options, changing)(model_params)
    state = State(
        one=one,
        many=many,
        first=jnp.zeros(2, jnp.uint32),
        changing=changing,
        learning=True,
        episode=0,
        steps=0,
        length=_first_length(workload, options),
        before=0,
        gradient_evaluations=0.0,
    )
    return state, _step_for(workload, options)


def update_params(
    workload: Any,
    current_param_container: Any,
    current_params_types: Any,
    model_state: Any,
    hyperparameters: Any,
    batch: Any,
    loss_type: Any,
    optimizer_state: tuple[State, Callable],
    eval_results: Any,
    global_step: int,
    rng: Any,
    train_state: Mapping[str, Any] | None = None,
) -> tuple[tuple[State, Callable], Any, Any]:
    """Take one optimizer step, or restart."""
    del current_params_types, loss_type, eval_results, global_step
    options = _options(hyperparameters)
    state, step = optimizer_state
    if _is_over(state, options):
        spent = kit.budget_fraction(workload, train_state)
        state, params, model_state = _restart(state, workload, options, spent, rng)
        return (state, step), params, model_state
    params = current_param_container
    if options.setting == "measured" and state.episode == 0 and state.steps < 2:
        found = batch_fingerprint(batch)
        if state.steps == 0:
            state = state._replace(first=found)
        elif not np.array_equal(state.first, found):
            one, many = _init(workload, options, changing=True)(params)
            state = state._replace(one=one, many=many, changing=True)
    optimizer, params, model_state = step(
        bool(state.changing), _used(state), params, model_state, batch, rng,
        np.float32(state.length),
    )  # fmt: skip
    cost = kit.gradient_evaluations(workload, batch) * _nominal(options, state)
    state = _with(state, optimizer)._replace(
        learning=_learns_on(state, options),
        steps=state.steps + 1,
        gradient_evaluations=state.gradient_evaluations + cost,
    )
    if state.learning and state.steps % _LOOK_EVERY == 0:
        state = state._replace(learning=not _has_failed(_used(state)))
    return (state, step), params, model_state


def report(optimizer_state: tuple[State, Callable]) -> dict[str, Any]:
    """Declare the cost so far, the episode, the phase and the guard's restarts."""
    state = optimizer_state[0]
    return {
        "gradient_evaluations": state.gradient_evaluations,
        "episode": state.episode,
        "restarts": getattr(_used(state), "restarts", 0),
        # A failed run does not learn, and where nothing learns an infinite loss is divergence.
        "phase": "learning" if state.learning else "deployed",
    }


def _options(hyperparameters: Any) -> Options:
    """Return the configuration: the defaults with the values that are given over them."""
    options = Options(**kit.with_defaults(hyperparameters, DEFAULTS))
    if options.setting not in SETTINGS:
        raise ValueError(f"`setting` must be one of {list(SETTINGS)}, got {options.setting!r}.")
    for name in ("episode_steps", "rollout"):
        if getattr(options, name) < 0:
            raise ValueError(f"`{name}` must not be negative, got {getattr(options, name)}.")
    return options


def _first_length(workload: Any, options: Options) -> int:
    return options.episode_steps or workload.step_hint


def _is_over(state: State, options: Options) -> bool:
    """Return whether the next call begins another episode."""
    return bool(state.changing or options.episode_steps) and state.steps == state.length


def next_length(first: int, taken: int, restarts: int, spent: float) -> int:
    """Return the length of the next episode on changing batches, in steps.

    As long as all before it, if the budget has room for this one and the one after it; else what is
    left, but not less than the first was: the budget will end it.

    Args:
        first: Steps of the first episode.
        taken: Steps of all episodes so far.
        restarts: Calls so far that restarted, each of which cost a batch, as this one does.
        spent: Share of the budget that they took; 0 where it is not known, and never ends.
    """
    budget = (taken + restarts) / spent if spent > 0 else float("inf")
    if budget * (1 + _ROUNDING) >= 4 * taken:
        return taken
    return max(first, round(budget) - taken - restarts - 1)


def _used(state: State) -> Any:
    return state.many if state.changing else state.one


def _with(state: State, optimizer: Any) -> State:
    return state._replace(many=optimizer) if state.changing else state._replace(one=optimizer)


def _learns_on(state: State, options: Options) -> bool:
    """Return whether the controller still learned in the step that was just taken."""
    if not state.changing:
        return state.learning
    # The recipe learns first in its own second step, and begins where batches were seen to change.
    begin = 1 if options.setting == "measured" else 0
    return state.episode == 0 and state.steps <= begin + _learning_steps(state.length)


@functools.cache
def _learning_steps(length: int) -> float:
    return float(learning_steps(length))


def _nominal(options: Options, state: State) -> int:
    """Return the gradient evaluations of the next step, in batches."""
    exact = options.rollout > 0 and not state.changing
    return 3 * options.rollout - 1 if exact and state.steps >= _past(options) else 1


def _past(options: Options) -> int:
    """Return the steps of an episode before the first rollout."""
    controller = ScalarLags() if options.controller == "lags" else Averages()
    return controller.history + options.rollout - 1


def _has_failed(optimizer: Any) -> bool:
    """Return whether the guard has restarted ``MOST_RESTARTS`` times without a finite loss."""
    if not isinstance(optimizer, GuardState):
        return False
    return int(optimizer.restarts) >= MOST_RESTARTS and not jnp.isfinite(optimizer.best_loss)


def _restart(
    state: State, workload: Any, options: Options, spent: float, rng: Any
) -> tuple[State, Any, Any]:
    """Begin the next episode."""
    episode, taken = state.episode + 1, state.before + state.steps
    params, model_state = workload.init_model_fn(jax.random.fold_in(rng, episode))
    one, many = _init(workload, options, state.changing)(params)
    length, first = state.length, _first_length(workload, options)
    if state.changing:
        length = next_length(first, taken, state.episode, spent)
        factor = _factor(episode, length == first) / _factor(state.episode, state.length == first)
        many = scale_controls(_carry_over(state.many, many), factor)
    else:
        one = _carry_over(state.one, one)
    state = state._replace(
        one=one, many=many, episode=episode, steps=0, length=length, before=taken
    )
    return state, params, model_state


def _factor(episode: int, is_short: bool) -> float:
    return AGAIN_FACTOR if episode > 0 and is_short else 1.0


def _carry_over(before: Any, fresh: Any) -> Any:
    """Return the new state with what was learned, and with the guard's counts."""
    fresh = carry_over(before, fresh)
    if not isinstance(before, GuardState):
        return fresh
    return fresh._replace(restarts=before.restarts, held=before.held)


def _recipe(
    options: Options, changing: bool, length: Any, value_fn: Any = None
) -> optax.GradientTransformationExtraArgs:
    if changing:
        return minibatch_optimizer(length, options.scale)
    return fixed_batch_optimizer(
        options.scale,
        disturbances=options.disturbances.split("+"),
        controller=options.controller,
        log_loss=options.log_loss,
        guarded=options.guarded,
        meta_rate=options.meta_rate,
        halving=options.halving,
        learning_rate=options.learning_rate,
        value_fn=value_fn if options.rollout else None,
        rollout=options.rollout,
    )


def _no_loss(params: Any, datum: Any) -> Any:
    raise AssertionError("a transformation that only initialises evaluates no loss")


@functools.cache
def _init(workload: Any, options: Options, changing: bool) -> Callable[[Any], tuple[Any, Any]]:
    """Return the jitted ``params -> (one, many)``: a program, not a call for every array.

    Both are always there, so that a checkpoint can be read before it is known how batches come.
    The one that is not used is that of arrays of one number: AlgoPerf's checkpoints refuse empty
    ones.
    """

    @jax.jit
    def init(params: Any) -> tuple[Any, Any]:
        unused = jax.tree.map(lambda leaf: jnp.zeros(1, leaf.dtype), params)
        states = (
            _recipe(options, which, 1, _no_loss).init(params if which == changing else unused)
            for which in (False, True)
        )
        # As copies: the guard keeps the starting point, and the step donates the parameters.
        one, many = jax.tree.map(jnp.copy, tuple(states))
        return one, many

    return init


@functools.cache
def _step_for(workload: Any, options: Options) -> Callable:
    """Return the jitted step for a workload, the same function at every call."""

    def step(
        changing: bool, optimizer: Any, params: Any, model_state: Any, batch: Any, rng: Any,
        length: Any,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        def loss_of(params: Any, datum: Any) -> tuple[jax.Array, Any]:
            key, state_before = datum
            return kit.training_loss(workload, params, state_before, batch, key)

        datum = rng, model_state
        (loss, new_model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(params, datum)
        recipe = _recipe(options, changing, length, lambda x, datum: loss_of(x, datum)[0])
        updates, optimizer = recipe.update(grads, optimizer, params, value=loss, datum=datum)
        params = optax.apply_updates(params, updates)
        return optimizer, *replicate((params, new_model_state))

    return jax.jit(step, static_argnums=0, donate_argnums=(1, 2))
