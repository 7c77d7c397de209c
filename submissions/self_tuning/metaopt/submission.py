"""The paper's meta-optimization: learn on one fixed batch over episodes, then train frozen.

    learning   episodes of EPISODE steps from fresh parameters, all on the first batch of the run;
               the controller learns, and carries over from episode to episode
    deployed   fresh parameters, new batches, the controller frozen, until the run ends

It deploys when an episode's last loss is no longer better than the best by ENOUGH, or when half of
the budget is gone. A restart takes a call of ``update_params`` of its own, which costs nothing. One
configuration serves all workloads; all of it is on the clock.

``DEFAULTS`` is that configuration, and what an ablation may vary: a campaign's variant, or
``--hparams``, hands over other values as hyperparameters. Without any it tunes itself.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import DiagonalLags, ScalarLags, carry_over, frozen_control, meta_optimizer
from metaopt.bench.contract import kit
from metaopt.bench.contract.sharding import replicate, shard_batch, shard_history


class Options(NamedTuple):
    """The configuration."""

    learning_rate: float = 0.1
    weight_decay: float = 0.0
    history: int = 32
    rollout: int = 2
    lags: str = "scalar"  # or "diagonal"
    disturbance: str = "gradient"  # or "adam": what the controller sees of the past
    meta_optimizer: str = "adam"  # or "sgd"
    meta_rate: float = 1e-4
    meta_every: int = 1  # steps from one update of the controller to the next
    episodes: int = 0  # of learning; 0: as many as pay
    episode_steps: int = 0  # 0: a share of the step hint
    fixed_batch: bool = True  # learn on one batch; False: on the run's batches as they come


DEFAULTS = Options()._asdict()
LONGEST_EPISODE = 500  # steps, the paper's
EPISODE_SHARE = 0.25  # of the step hint: an episode is shorter where a training run is
ENOUGH = 0.9  # an episode's last loss over the best so far; above it nothing more is learned
LEARNING_SHARE = 0.5  # of the budget, at most

LAGS = {"scalar": ScalarLags, "diagonal": DiagonalLags}
DISTURBANCES = {"gradient": lambda: None, "adam": optax.scale_by_adam}
META_OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}

get_batch_size = kit.get_batch_size


class State(NamedTuple):
    """Everything that lasts; the numbers below the line stay on the host."""

    learner: Any  # MetaOptimizerState; None once deployed
    deployed: Any  # FrozenControlState; arrays of one number while learning
    batch: Any  # the fixed batch, from the first step on; None where nothing learns on one
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
    del model_state
    options = _options(hyperparameters)
    # A checkpoint is read in the structure of this state, so the deployed one is there already.
    # Its arrays hold one number, because AlgoPerf's checkpoints refuse empty ones.
    unused = jax.tree.map(lambda leaf: jnp.zeros(1, leaf.dtype), model_params)
    state = State(
        learner=_learner(_no_loss, options, _recorded(workload, options, rng)).init(model_params),
        deployed=_frozen(LAGS[options.lags](), options).init(unused),
        batch=_placeholder(workload) if options.fixed_batch else None,
        loss=jnp.zeros(()),
        learning=True,
        episode=0,
        steps=0,
        best=float("inf"),
        gradient_evaluations=0.0,
    )
    return state, _step_for(workload, options)


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
    if state.learning and state.batch is not None and (state.steps or state.episode):
        return state.batch
    return shard_batch(next(input_queue))


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
    if state.learning and state.steps == _episode_steps(workload, options):
        state, params, model_state = _restart(state, workload, options, train_state, rng)
        return (state, step), params, model_state
    before = state.learner if state.learning else state.deployed
    optimizer, params, model_state, loss = step(
        bool(state.learning), before, current_param_container, model_state, batch, rng
    )
    cost = kit.gradient_evaluations(workload, batch)
    if state.learning and _rolls_out(state.steps, options):
        cost *= 3 * options.rollout - 1
    state = _with_optimizer(state, optimizer)._replace(
        batch=batch if state.learning and options.fixed_batch else None,
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


def _with_optimizer(state: State, optimizer: Any) -> State:
    if state.learning:
        return state._replace(learner=optimizer)
    return state._replace(learner=None, deployed=optimizer)


def _options(hyperparameters: Any) -> Options:
    """Return the configuration: the defaults with the values that are given over them."""
    values = kit.with_defaults(hyperparameters, DEFAULTS)
    for name, known in (
        ("lags", LAGS), ("disturbance", DISTURBANCES), ("meta_optimizer", META_OPTIMIZERS)
    ):  # fmt: skip
        if values[name] not in known:
            raise ValueError(f"`{name}` must be one of {sorted(known)}, got {values[name]!r}.")
    options = Options(**values)
    past = options.history + options.rollout
    if 0 < options.episode_steps < past:
        raise ValueError(
            f"`episode_steps` must be at least history + rollout = {past}, or no episode has a "
            f"rollout; got {options.episode_steps}."
        )
    return options


def _episode_steps(workload: Any, options: Options) -> int:
    """Return the length of an episode: at least twice the past that a rollout needs."""
    if options.episode_steps:
        return options.episode_steps
    shortest = 2 * (options.history + options.rollout)
    return max(shortest, min(LONGEST_EPISODE, int(EPISODE_SHARE * workload.step_hint)))


def _rolls_out(steps: int, options: Options) -> bool:
    """Return whether the step after ``steps`` of an episode has a rollout."""
    # Before a past of H + L steps, and between updates of the controller, it is a plain one.
    first = options.history + options.rollout - 1
    return steps >= first and (steps - first) % options.meta_every == 0


def _restart(
    state: State,
    workload: Any,
    options: Options,
    train_state: Mapping[str, Any] | None,
    rng: Any,
) -> tuple[State, Any, Any]:
    """Begin the next episode, or deploy."""
    last = float(state.loss)
    episode = state.episode + 1
    if options.episodes:
        learning = episode < options.episodes
    else:
        improved = last < ENOUGH * state.best  # False for NaN
        learning = improved and kit.budget_fraction(workload, train_state) < LEARNING_SHARE
    params, model_state = workload.init_model_fn(jax.random.fold_in(rng, episode))
    if learning:
        fresh = _learner(_no_loss, options, _recorded(workload, options, rng)).init(params)
        optimizer = carry_over(state.learner, fresh)
    else:
        optimizer = _frozen(state.learner.controller, options).init(params)
    state = _with_optimizer(state._replace(learning=learning), optimizer)._replace(
        batch=state.batch if learning else None,
        episode=episode,
        steps=0,
        best=min(last, state.best),
    )
    return state, params, model_state


def _recorded(workload: Any, options: Options, rng: Any) -> Any:
    """Return what is recorded for rollouts, or its shapes: what changes from step to step.

    The model state is not recorded. Workloads may change its shapes in the first step, and in
    training mode the loss does not depend on it: batch normalisation uses the batch's statistics.
    """
    if options.fixed_batch:
        return None, rng
    return workload.batch_shapes(), rng


def _placeholder(workload: Any) -> Any:
    """Return zeros in place of the first batch, so that a checkpoint is read in its structure.

    AlgoPerf's workloads do not tell the shapes of their batches: there it is ``None``.
    """
    if not hasattr(workload, "batch_shapes"):
        return None
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), workload.batch_shapes())


def _learner(
    value_fn: Any, options: Options, example: Any
) -> optax.GradientTransformationExtraArgs:
    return meta_optimizer(
        value_fn,
        options.learning_rate,
        example=example,
        history=options.history,
        rollout=options.rollout,
        weight_decay=options.weight_decay,
        meta_optimizer=META_OPTIMIZERS[options.meta_optimizer](options.meta_rate),
        controller=LAGS[options.lags](),
        disturbance=DISTURBANCES[options.disturbance](),
        meta_every=options.meta_every,
    )


def _no_loss(params: Any, datum: Any) -> Any:
    raise AssertionError("a transformation that only initialises evaluates no loss")


def _frozen(controller: Any, options: Options) -> optax.GradientTransformationExtraArgs:
    return frozen_control(
        controller,
        options.learning_rate,
        weight_decay=options.weight_decay,
        disturbance=DISTURBANCES[options.disturbance](),
    )


@functools.cache
def _step_for(workload: Any, options: Options) -> Callable:
    """Return the jitted step for a workload, the same function at every call."""

    def step(
        learning: bool, optimizer: Any, params: Any, model_state: Any, batch: Any, rng: Any
    ) -> tuple[Any, Any, Any, jax.Array]:
        # A fixed batch is not recorded; the dropout key changes.
        datum = None if options.fixed_batch else batch, rng

        def loss_of(params: Any, datum: Any) -> tuple[jax.Array, Any]:
            recorded, key = datum
            used = batch if recorded is None else recorded
            return kit.training_loss(workload, params, model_state, used, key)

        (loss, new_model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(params, datum)
        if learning:
            learner = _learner(lambda params, datum: loss_of(params, datum)[0], options, datum)
            updates, optimizer = learner.update(grads, optimizer, params, datum=datum)
        else:
            frozen = _frozen(optimizer.controller, options)
            updates, optimizer = frozen.update(grads, optimizer, params)
        memory = shard_history(optimizer.memory)
        params, model_state = replicate((optax.apply_updates(params, updates), new_model_state))
        return optimizer._replace(memory=memory), params, model_state, loss

    return jax.jit(step, static_argnums=0, donate_argnums=(1, 2))
