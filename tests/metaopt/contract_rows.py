"""Every public transformation as an optimizer of one problem, for the tests of contracts.

Run as a program, with several devices, it prints how far each lies from one device: JSON.
"""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import metaopt
from metaopt import Averages, DiagonalLags, FullLags, ScalarLags

STEPS = 40
PHASE = np.exp(1j * 0.7).astype(np.complex64)


def loss(params, datum):
    """Squared errors of a linear model, plus a constant."""
    errors = datum["x"] @ params["w"] + params["b"][None] - datum["y"]
    return jnp.mean(jnp.sum(jnp.real(errors * jnp.conj(errors)), axis=1)) + datum["constant"]


def problem(seed=0):
    """Parameters to start from, and changing batches without noise."""
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(STEPS, 32, 3)), rng.normal(size=(3, 4))
    start = {"w": 0.1 * rng.normal(size=(3, 4)), "b": np.full(4, 0.1)}
    data = {"x": x, "y": x @ w + 1.0, "constant": np.zeros(STEPS)}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (start, data))


EXAMPLE = jax.tree.map(lambda leaf: leaf[0], problem()[1])


def descend(tx, rate=0.05):
    return optax.chain(tx, optax.scale(-rate))


LAGS = ScalarLags(jnp.array([0.05, 0.0]))


def learn(meta_gradient):
    """A learner whose meta-gradients a transformation scales."""
    return metaopt.online_control(LAGS, optax.chain(meta_gradient, optax.adam(1e-3)))


def matrices(params):
    """A mask of what is no bias."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


class Row(NamedTuple):
    """How an optimizer is made of a public transformation."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any] = MappingProxyType({})
    bound: str | None = None  # the argument that moves with a constant added to the loss
    needs: tuple[str, ...] = ()  # what update() must be given: value, datum
    finish: Callable[[Any], Any] = lambda tx: tx
    real: bool = False  # complex parameters are refused
    parts: tuple[Any, ...] = ()  # positional arguments

    def make(self, bound=0.0):
        bounds = {} if self.bound is None else {self.bound: bound}
        return self.finish(self.function(*self.parts, **{**self.arguments, **bounds}))

    def on(self, data):
        """The same for data of other dtypes."""
        if "example" not in self.arguments:
            return self
        datum = jax.tree.map(lambda leaf: leaf[0], data)
        return self._replace(arguments={**self.arguments, "example": datum})

    def injected(self):
        """The same, through optax.inject_hyperparams: numbers that are no integers are arrays."""
        given = inspect.signature(self.function).bind(*self.parts, **self.arguments)
        given.apply_defaults()
        static = tuple(k for k, value in given.arguments.items() if not isinstance(value, float))
        return self.finish(
            optax.inject_hyperparams(self.function, static_args=static)(**given.arguments)
        )


EXACT = {
    "value_fn": loss, "learning_rate": 0.05, "history": 2, "meta_optimizer": optax.adam(1e-3),
}  # fmt: skip
BANK = Averages((0.0, 0.9), jnp.full(2, jnp.log(1e-2)))
ROWS = {
    "meta_optimizer": Row(
        metaopt.meta_optimizer, {**EXACT, "example": EXAMPLE}, needs=("datum",)
    ),
    "meta_optimizer, decay and diagonal lags": Row(
        metaopt.meta_optimizer,
        {**EXACT, "example": EXAMPLE, "controller": DiagonalLags(), "weight_decay": 1e-3},
        needs=("datum",), real=True,
    ),
    "meta_optimizer, full lags": Row(
        metaopt.meta_optimizer, {**EXACT, "rollout": 1, "controller": FullLags()},
        needs=("datum",), real=True,
    ),
    "meta_optimizer, averages": Row(
        metaopt.meta_optimizer,
        {**EXACT, "example": EXAMPLE, "controller": BANK,
         "disturbance": metaopt.scale_by_rms()},
        needs=("datum",),
    ),
    "online_control": Row(metaopt.online_control, parts=(LAGS, optax.adam(1e-3))),
    "online_control, discounts": Row(
        metaopt.online_control, {"discount": (0.5, 1.0)},
        parts=(metaopt.StepSize(jnp.log(0.1)), optax.adam(1e-2), metaopt.scale_by_rms()),
    ),
    "frozen_control": Row(
        metaopt.frozen_control,
        {"learning_rate": 0.02, "weight_decay": 1e-4, "disturbance": optax.trace(0.5)},
        parts=(LAGS,),
    ),
    "sum_updates": Row(metaopt.sum_updates, parts=(optax.sgd(0.02), learn(optax.identity()))),
    "hypergradient_descent": Row(
        metaopt.hypergradient_descent, {"learning_rate": 0.05, "hyper_rate": 1e-5}
    ),
    "scale_by_rms": Row(metaopt.scale_by_rms, finish=descend),
    "scale_by_polyak": Row(
        metaopt.scale_by_polyak, {"preconditioner": metaopt.scale_by_rms()}, "floor", ("value",),
        lambda tx: descend(tx, 0.5),
    ),
    "scale_by_level": Row(
        metaopt.scale_by_level, {}, "lower_bound", ("value",), lambda tx: descend(tx, 0.5)
    ),
    "by_log_loss": Row(metaopt.by_log_loss, {}, "floor", ("value",), learn),
    "guard": Row(metaopt.guard, needs=("value",), parts=(optax.adam(0.05),)),
    "fixed_batch_optimizer": Row(
        metaopt.fixed_batch_optimizer, {}, "lower_bound", needs=("value",)
    ),
    "average_params": Row(metaopt.average_params, parts=(optax.adam(0.05),)),
    "anytime_optimizer": Row(
        metaopt.anytime_optimizer, {"usual": 0.05}, "lower_bound", ("value",)
    ),
    "self_tuning_optimizer": Row(
        metaopt.self_tuning_optimizer, {"fixed_batch": True}, "lower_bound", ("value",)
    ),
    "long_memory_optimizer": Row(
        metaopt.long_memory_optimizer, {"steps": float(STEPS), "usual": 0.05}, "lower_bound",
        ("value",),
    ),
    "minibatch_optimizer": Row(
        metaopt.minibatch_optimizer, {"steps": float(STEPS), "scale": 10.0}, "lower_bound",
        ("value",),
    ),
    "minibatch_optimizer, decay": Row(
        metaopt.minibatch_optimizer,
        {"steps": float(STEPS), "scale": 10.0, "weight_decay": 0.01, "mask": matrices},
        "lower_bound", ("value",),
    ),
}  # fmt: skip


# The rows that are refused for complex parameters, and those that stand for all others where a
# contract compiles again: fixed_batch_optimizer holds guard, sum_updates, online_control,
# scale_by_level, scale_by_rms and by_log_loss.
REAL = [name for name, row in ROWS.items() if row.real]
WHOLE = [
    "meta_optimizer", "meta_optimizer, averages", "frozen_control", "hypergradient_descent",
    "scale_by_polyak", "fixed_batch_optimizer",
]  # fmt: skip


def train(make, start, data, bound=0.0):
    """Scan over the data with a donated state; return all parameters and losses, and the state."""
    (_, state), (path, losses) = _compiled(make)(start, data, make().init(start), bound)
    return path, losses, state


@functools.cache  # a row's bound is an argument, so that another needs no other program
def _compiled(make):
    def run(params, data, state, bound):
        tx = optax.with_extra_args_support(make(bound))

        def step(carry, datum):
            params, state = carry
            value, slope = _slope(params, datum)
            updates, state = tx.update(slope, state, params, value=value, datum=datum, other=0)
            return (optax.apply_updates(params, updates), state), (params, value)

        return jax.lax.scan(step, (params, state), data)

    return jax.jit(run, donate_argnums=2)


def _slope(params, datum):
    """Return the loss and what optax takes for its gradient, zeros for integers."""
    free = {k: leaf for k, leaf in params.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    value, slope = jax.value_and_grad(lambda free: loss({**params, **free}, datum))(free)
    return value, {**jax.tree.map(jnp.zeros_like, params), **jax.tree.map(jnp.conj, slope)}


def distance(path, other):
    """The largest difference along two paths."""
    found = [
        np.max(np.abs(np.asarray(a, np.complex128) - np.asarray(b, np.complex128)))
        for a, b in zip(jax.tree.leaves(path), jax.tree.leaves(other), strict=True)
    ]
    return float(max(found))


def on_mesh(row, axis_type):
    """Return the path with columns and batches split over a mesh, and the state's worst share."""
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    start, data = problem()
    splits = {"w": P(None, "model"), "b": P("model")}
    batches = {"x": P(None, "data", None), "y": P(None, "data", "model"), "constant": P()}
    use_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
    with use_mesh(mesh):
        put = lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec))  # noqa: E731
        start, data = jax.tree.map(put, (start, data), (splits, batches))
        state = row.make().init(start)
        path, _, after = train(row.make, start, data)
        path = jax.tree.map(np.asarray, path)
    # Histories, moments, best points; recorded data and the guard's losses lie on each device.
    kept = [
        leaf
        for where, leaf in jax.tree_util.tree_leaves_with_path((state, after))
        if leaf.shape[-1:] == (4,)
        and not any(name in jax.tree_util.keystr(where) for name in (".data", ".recent"))
    ]
    shares = [leaf.addressable_shards[0].data.size / leaf.size for leaf in kept]
    return path, max(shares, default=0.0)


def main():
    found = {}
    for name in [*WHOLE, *REAL]:
        row = ROWS[name]
        alone, _, _ = train(row.make, *problem())
        for axis_type in (AxisType.Explicit, AxisType.Auto):
            path, share = on_mesh(row, axis_type)
            found[f"{name}: {axis_type.name}"] = distance(path, alone), share
    print(json.dumps(found))


if __name__ == "__main__":
    main()
