"""The paper's meta-optimization: learn on one fixed batch over episodes, then train frozen.

    learning   episodes of EPISODE steps from fresh parameters, all on the first batch of the run;
               the controller learns, and carries over from episode to episode
    deployed   fresh parameters, new batches, the controller frozen, until the run ends

It deploys when an episode's last loss is no longer better than the best by ENOUGH, or when half of
the budget is gone. A restart takes a call of ``update_params`` of its own, which costs nothing. One
configuration serves all workloads; all of it is on the clock.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import ScalarLags, meta_optimizer
from metaopt.bench import submission_kit as kit

LEARNING_RATE = 0.1
HISTORY = 32
ROLLOUT = 2
META_RATE = 1e-4  # of Adam
LONGEST_EPISODE = 500  # steps, the paper's
EPISODE_SHARE = 0.25  # of the step hint: an episode is shorter where a training run is
ENOUGH = 0.9  # an episode's last loss over the best so far; above it nothing more is learned
LEARNING_SHARE = 0.5  # of the budget, at most

get_batch_size = kit.get_batch_size


class State(NamedTuple):
    """Everything that lasts; the numbers below the line stay on the host."""

    optimizer: Any  # MetaOptimizerState
    batch: Any  # the fixed batch; None before the first step
    loss: Any  # of the last step's batch, 0-d
    # ---
    learning: bool
    episode: int
    steps: int  # in this episode
    best: float  # last loss of the best episode
    gradient_evaluations: float


def init_optimizer_state(
    workload: Any, model_params: Any, model_state: Any, hyperparameters: Any, rng: Any
) -> tuple[State, Callable]:
    """Return ``(state, step)``, the pair AlgoPerf's checkpoints expect."""
    del hyperparameters
    learner = _learner(None, (rng, model_state))
    state = State(
        optimizer=learner.init(model_params),
        batch=None,
        loss=jnp.zeros(()),
        learning=True,
        episode=0,
        steps=0,
        best=float("inf"),
        gradient_evaluations=0.0,
    )
    return state, _step_for(workload)


def data_selection(
    workload: Any,
    input_queue: Any,
    optimizer_state: tuple[State, Callable],
    current_param_container: Any,
    model_state: Any,
    hyperparameters: Any,
    global_step: int,
    rng: Any,
) -> Any:
    """Take the next batch, or the fixed one while learning."""
    del workload, current_param_container, model_state, hyperparameters, global_step, rng
    state = optimizer_state[0]
    if state.learning and state.batch is not None:
        return state.batch
    return next(input_queue)


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
    del current_params_types, hyperparameters, loss_type, eval_results, global_step
    state, step = optimizer_state
    if state.learning and state.steps == _episode_steps(workload):
        state, params, model_state = _restart(state, workload, train_state, rng)
        return (state, step), params, model_state
    optimizer, params, model_state, loss = step(
        state.learning, state.optimizer, current_param_container, model_state, batch, rng
    )
    # A rollout needs a past of H + L steps; before, a step of learning is a plain one.
    rolled_out = state.learning and state.steps >= HISTORY + ROLLOUT - 1
    cost = (3 * ROLLOUT - 1 if rolled_out else 1) * kit.gradient_evaluations(workload, batch)
    state = state._replace(
        optimizer=optimizer,
        batch=batch if state.learning else None,
        loss=loss,
        steps=state.steps + 1,
        gradient_evaluations=state.gradient_evaluations + cost,
    )
    return (state, step), params, model_state


def report(optimizer_state: tuple[State, Callable]) -> dict[str, Any]:
    """Declare the cost so far, the episode and the phase."""
    state = optimizer_state[0]
    return {
        "gradient_evaluations": state.gradient_evaluations,
        "episode": state.episode,
        "phase": "learning" if state.learning else "deployed",
    }


def _episode_steps(workload: Any) -> int:
    """Return the length of an episode: at least twice the past that a rollout needs."""
    shortest = 2 * (HISTORY + ROLLOUT)
    return max(shortest, min(LONGEST_EPISODE, int(EPISODE_SHARE * workload.step_hint)))


def _restart(
    state: State, workload: Any, train_state: Mapping[str, Any] | None, rng: Any
) -> tuple[State, Any, Any]:
    """Begin the next episode, or deploy."""
    last = float(state.loss)
    improved = last < ENOUGH * state.best  # False for NaN
    learning = improved and _budget_fraction(workload, train_state) < LEARNING_SHARE
    episode = state.episode + 1
    params, model_state = workload.init_model_fn(jax.random.fold_in(rng, episode))
    before = state.optimizer
    if learning:
        fresh: Any = _learner(None, (rng, model_state)).init(params)
        optimizer = fresh._replace(weights=before.weights, meta_state=before.meta_state)
    else:
        optimizer = _frozen(before.weights).init(params)
    state = state._replace(
        optimizer=optimizer,
        batch=state.batch if learning else None,
        learning=learning,
        episode=episode,
        steps=0,
        best=min(last, state.best),
    )
    return state, params, model_state


def _budget_fraction(workload: Any, train_state: Mapping[str, Any] | None) -> float:
    """Return the share of the run's budget that is spent; AlgoPerf's runner tells the time only."""
    if train_state is None:
        return 0.0
    if "budget_fraction" in train_state:
        return train_state["budget_fraction"]
    allowed = 1.5 * workload.max_allowed_runtime_sec
    return train_state["accumulated_submission_time"] / allowed


def _learner(value_fn: Any, example: Any) -> optax.GradientTransformationExtraArgs:
    return meta_optimizer(
        value_fn or _no_loss,
        LEARNING_RATE,
        example=example,
        history=HISTORY,
        rollout=ROLLOUT,
        meta_optimizer=optax.adam(META_RATE),
    )


def _no_loss(params: Any, datum: Any) -> Any:
    raise AssertionError("a transformation that only initialises evaluates no loss")


def _frozen(weights: Any) -> optax.GradientTransformationExtraArgs:
    return meta_optimizer(
        None, LEARNING_RATE, history=HISTORY, controller=ScalarLags(weights), learn=False
    )


@functools.cache
def _step_for(workload: Any) -> Callable:
    """Return the jitted step for a workload, the same function at every call."""

    def step(
        learning: bool, optimizer: Any, params: Any, model_state: Any, batch: Any, rng: Any
    ) -> tuple[Any, Any, Any, jax.Array]:
        # The batch is fixed; the dropout key and the model state change, so they are recorded.
        datum = rng, model_state

        def loss_of(params: Any, datum: Any) -> tuple[jax.Array, Any]:
            key, state_before = datum
            return kit.training_loss(workload, params, state_before, batch, key)

        (loss, new_model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(params, datum)
        if learning:
            transformation = _learner(lambda params, datum: loss_of(params, datum)[0], datum)
        else:
            transformation = _frozen(optimizer.weights)
        updates, optimizer = transformation.update(grads, optimizer, params, datum=datum)
        return optimizer, optax.apply_updates(params, updates), new_model_state, loss

    return jax.jit(step, static_argnums=0, donate_argnums=(1, 2))
