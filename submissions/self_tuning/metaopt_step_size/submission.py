"""Meta-optimization of the step size: learn it once, then try around it.

At the second step the submission finds out whether batches change: it compares the fingerprints of
the first two. On one fixed batch it trains by ``metaopt.recipes.fixed_batch_optimizer``, in one run
without an end. On changing batches the first run, as long as the step hint h, learns the step size
c of NadamW in its first fifth, by ``metaopt.long_memory.long_memory_optimizer``, and anneals it.
An average of the parameters is evaluated. With a budget of B step hints:

    B < 2       one run of B hints, which learns in its first tenth
    2 <= B < 8  the first run, and one run with the rest of the budget at c
    B >= 8      the first run; a run at 2 c and, if it is no better, one at c / 2; a run of 2 h at
                the best of them. If that beats the short runs, one run takes the rest; otherwise
                runs of h follow, in turn at ``AROUND``, until the budget ends.

A run begins with fresh parameters, in a call of ``update_params`` that costs the batch it draws.
Runs are compared by their last value of the validation metric. The parameters of the best run are
kept, and returned where the budget has room for no other run: it never ends behind its first run.

``DEFAULTS`` is that configuration, and what an ablation may vary. Without any it tunes itself.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.averaging import AverageState, average_params, evaluation_params
from metaopt.bench.contract import kit
from metaopt.bench.contract.fingerprints import batch_fingerprint
from metaopt.bench.contract.sharding import replicate
from metaopt.episodes import carry_over, scale_controls
from metaopt.long_memory import SHARE, WEIGHT_DECAY, long_memory_optimizer
from metaopt.recipes import fixed_batch_optimizer


class Options(NamedTuple):
    """The configuration."""

    scale: float = 1.0  # of the first M
    weight_decay: float = WEIGHT_DECAY  # on changing batches


DEFAULTS = Options()._asdict()
SHORT_SHARE = 0.1  # of the only run, in which it learns
DECIDE = 0.1  # of the step hint: when the budget is looked at
AROUND = ((2.0, 1.0), (1.0, 3.0), (1.0, 1 / 3), (1.0, 1.0))  # factors of c and of the weight decay
LEAST_RUN = 0.5  # step hints: a shorter run is not begun
HUGE = 1e30  # of a metric; infinity meets no target

get_batch_size = kit.get_batch_size
data_selection = kit.data_selection


LEARN, DOUBLED, HALVED, LONG, LAST, FIRST_AROUND = range(6)  # stages


class Run(NamedTuple):
    """A run that is planned."""

    length: float  # in steps
    factor: float = 1.0  # of the learned step size
    decay: float = 1.0  # of the weight decay
    stage: int = LEARN  # FIRST_AROUND and above: runs at ``AROUND``, in turn


class State(NamedTuple):
    """Everything that lasts; the values below the line stay on the host."""

    many: AverageState  # of the recipe for changing batches; placeholders on a fixed batch
    one: Any  # of the recipe for a fixed batch; placeholders on changing batches
    training_params: Any  # from which training goes on: the runner may hold their average
    best_params: Any
    best_model_state: Any
    first: jax.Array  # the first batch's fingerprint, once there is one
    # ---
    fixed: bool  # whether the batch is
    run: Run
    share: float  # of the run, in which it learns; 0 after the first
    steps: int  # in this run
    started: int  # calls before this run
    mark: float  # share of the budget spent after two calls
    best: float  # the best run's value, signed so that less is better
    best_factor: float
    resting: bool
    episode: int
    gradient_evaluations: float


def init_optimizer_state(
    workload: Any, model_params: Any, model_state: Any, hyperparameters: Any, rng: Any
) -> tuple[State, Callable]:
    """Return ``(state, step)``, the pair AlgoPerf's checkpoints expect."""
    del rng
    options = _options(hyperparameters)
    many, one = _init(options, False)(model_params)
    state = State(
        many=many,
        one=one,
        training_params=model_params,
        best_params=_copied(model_params),
        best_model_state=_copied(model_state),
        first=jnp.zeros(2, jnp.uint32),
        fixed=False,
        run=Run(float(workload.step_hint)),
        share=SHARE,
        steps=0,
        started=0,
        mark=0.0,
        best=math.inf,
        best_factor=1.0,
        resting=False,
        episode=0,
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
    """Take one optimizer step, begin the next run, or rest at the best point."""
    del current_params_types, loss_type
    options = _options(hyperparameters)
    state, step = optimizer_state
    if state.resting:
        return optimizer_state, current_param_container, model_state
    params = state.training_params
    spent = kit.budget_fraction(workload, train_state)
    if state.steps >= state.run.length and not state.fixed:
        state, won = _finish(state, workload, params, model_state, eval_results)
        calls = state.started + state.steps
        left = calls / spent - calls - 1 if spent > 0 else math.inf
        planned = next_run(state.run, state.best_factor, won, workload.step_hint, left)
        if planned is None:
            state = state._replace(resting=True)
            return (state, step), state.best_params, state.best_model_state
        state, params, model_state = _begin(state, planned, workload, options, global_step, rng)
        return (state, step), params, model_state
    if state.episode == 0 and state.steps < 2:
        state = _compare(state, batch, params, options)
    if not state.fixed:
        state = _with_length(state, workload.step_hint, spent)
    optimizer, params, model_state = step(
        state.fixed, state.one if state.fixed else state.many, params, model_state, batch, rng,
        np.float32(state.run.length), np.float32(state.share), np.float32(state.run.decay),
    )  # fmt: skip
    state = state._replace(one=optimizer) if state.fixed else state._replace(many=optimizer)
    state = state._replace(
        training_params=params,
        steps=state.steps + 1,
        gradient_evaluations=state.gradient_evaluations + kit.gradient_evaluations(workload, batch),
    )
    return (state, step), params, model_state


def prepare_for_eval(
    workload: Any,
    current_param_container: Any,
    current_params_types: Any,
    model_state: Any,
    hyperparameters: Any,
    loss_type: Any,
    optimizer_state: tuple[State, Callable],
    eval_results: Any,
    global_step: int,
    rng: Any,
) -> tuple[tuple[State, Callable], Any, Any]:
    """Return the average of the run's parameters; training goes on from the parameters."""
    del workload, current_params_types, hyperparameters, loss_type, eval_results, global_step, rng
    state = optimizer_state[0]
    if state.resting or state.fixed:
        return optimizer_state, current_param_container, model_state
    return optimizer_state, evaluation_params(state.many, state.training_params), model_state


def report(optimizer_state: tuple[State, Callable]) -> dict[str, Any]:
    """Declare the cost so far, the episode, the phase and the guard's restarts."""
    state = optimizer_state[0]
    learning = state.episode == 0 and state.steps <= 1 + state.share * state.run.length
    guard = state.one if state.fixed else state.many.inner
    return {
        "gradient_evaluations": state.gradient_evaluations,
        "episode": state.episode,
        "restarts": guard.restarts,
        "phase": "learning" if learning or state.fixed else "deployed",
    }


def next_run(run: Run, best_factor: float, won: bool, hint: int, left: float) -> Run | None:
    """Return the run that follows, or ``None`` where the budget has no room for another.

    Args:
        run: The run that has ended.
        best_factor: The factor of the best of the runs that are no longer than the hint.
        won: Whether it was better than all before it.
        hint: The step hint.
        left: What the budget leaves, in steps; infinity where it is not known.
    """
    if run.stage == LAST or left < LEAST_RUN * hint:
        return None
    most = math.floor(0.99 * left) - 1 if math.isfinite(left) else math.inf  # one call to rest

    def of(length: float, factor: float, stage: int, decay: float = 1.0) -> Run:
        fits = length + LEAST_RUN * hint <= most  # no rest that is too short for a run
        return Run(float(length if fits else most), factor, decay, stage)

    if run.stage == LEARN and hint + left < 8 * hint:
        return of(most, 1.0, LAST)
    if run.stage == LEARN:
        return of(hint, 2.0, DOUBLED)
    if run.stage == DOUBLED and not won:
        return of(hint, 0.5, HALVED)
    if run.stage in (DOUBLED, HALVED):
        return of(2 * hint, best_factor, LONG)
    if run.stage == LONG and won and math.isfinite(left):
        return of(most, best_factor, LAST)
    turn = 0 if run.stage == LONG else run.stage - FIRST_AROUND + 1
    factor, decay = AROUND[turn % len(AROUND)]
    return of(hint, factor * best_factor, FIRST_AROUND + turn, decay)


def _options(hyperparameters: Any) -> Options:
    """Return the configuration: the defaults with the values that are given over them."""
    return Options(**kit.with_defaults(hyperparameters, DEFAULTS))


def _compare(state: State, batch: Any, params: Any, options: Options) -> State:
    """Return the state that knows, after two batches, whether they change."""
    found = batch_fingerprint(batch)
    if state.steps == 0:
        return state._replace(first=found)
    if not np.array_equal(state.first, found):
        return state
    many, one = _init(options, True)(params)
    return state._replace(fixed=True, many=many, one=one)


def _with_length(state: State, hint: int, spent: float) -> State:
    """Return the state with a longer first run, if it is to be the only one.

    The budget per step is measured between two calls, because in seconds the first holds a
    compilation.
    """
    decide = max(3, round(DECIDE * hint))
    if state.episode or spent == 0 or state.steps not in (2, decide):
        return state
    if state.steps == 2:
        return state._replace(mark=spent)
    left = (1.0 - spent) * (decide - 2) / (spent - state.mark) if spent > state.mark else math.inf
    if decide + left >= 2 * hint:
        return state
    length = max(float(hint), math.floor(0.99 * (decide + left)) - 1.0)
    return state._replace(run=state.run._replace(length=length, stage=LAST), share=SHORT_SHARE)


def _finish(
    state: State, workload: Any, params: Any, model_state: Any, eval_results: Sequence[Any]
) -> tuple[State, bool]:
    """Return the state after a run, and whether the run was better than all before it."""
    name = f"validation/{workload.target_metric_name}"
    values = [row[name] for at, row in eval_results if at > state.started and name in row]
    higher = workload.has_reached_validation_target({name: HUGE})
    value = (-1.0 if higher else 1.0) * float(values[-1]) if values else math.inf
    won = value < state.best
    if won or state.episode == 0:
        short = state.run.stage < LONG
        state = state._replace(
            best=value if won else state.best,
            best_factor=state.run.factor if short else state.best_factor,
            best_params=_copied(evaluation_params(state.many, params)),
            best_model_state=_copied(model_state),
        )
    return state, won


def _begin(
    state: State, run: Run, workload: Any, options: Options, global_step: int, rng: Any
) -> tuple[State, Any, Any]:
    """Begin a run from fresh parameters, with the step size that was learned."""
    episode = state.episode + 1
    params, model_state = workload.init_model_fn(jax.random.fold_in(rng, episode))
    fresh = carry_over(state.many, _init(options, False)(params)[0])
    guard = state.many.inner
    counted = fresh.inner._replace(restarts=guard.restarts, held=guard.held)
    state = state._replace(
        many=scale_controls(fresh._replace(inner=counted), run.factor / state.run.factor),
        training_params=params,
        run=run,
        share=0.0,
        steps=0,
        started=global_step + 1,
        episode=episode,
    )
    return state, params, model_state


@jax.jit
def _copied(tree: Any) -> Any:
    """Return copies: the step donates the parameters."""
    return jax.tree.map(jnp.copy, tree)


def _recipe(
    options: Options, fixed: bool, length: Any, share: Any, decay: Any
) -> optax.GradientTransformationExtraArgs:
    if fixed:
        return fixed_batch_optimizer(options.scale)
    learned = long_memory_optimizer(
        length, options.scale, share=share, weight_decay=decay * options.weight_decay
    )
    return average_params(learned)


@functools.cache
def _init(options: Options, fixed: bool) -> Callable[[Any], tuple[AverageState, Any]]:
    """Return the jitted ``params -> (many, one)``: a program, not a call for every array.

    Both are always there, so that a checkpoint can be read before it is known whether batches
    change. The one that is not used is that of arrays of one number: AlgoPerf's checkpoints refuse
    empty ones.
    """

    @jax.jit
    def init(params: Any) -> tuple[Any, Any]:
        unused = jax.tree.map(lambda leaf: jnp.zeros(1, leaf.dtype), params)
        many, one = (
            _recipe(options, which, 1, SHARE, 1.0).init(params if which == fixed else unused)
            for which in (False, True)
        )
        return jax.tree.map(jnp.copy, (many, one))

    return init


@functools.cache
def _step_for(workload: Any, options: Options) -> Callable:
    """Return the jitted step for a workload, the same function at every call."""

    # The model state is not donated: it is small, and some workloads change its shapes.
    @functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
    def step(
        fixed: bool, optimizer: Any, params: Any, model_state: Any, batch: Any, rng: Any,
        length: Any, share: Any, decay: Any,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            return kit.training_loss(workload, params, model_state, batch, rng)

        (loss, new_model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        recipe = _recipe(options, fixed, length, share, decay)
        updates, optimizer = recipe.update(grads, optimizer, params, value=loss)
        params = optax.apply_updates(params, updates)
        return optimizer, *replicate((params, new_model_state))

    return step
