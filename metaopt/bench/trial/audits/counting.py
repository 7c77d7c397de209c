"""A workload that counts the passes through its network, and can add noise to fresh parameters."""

import functools
import inspect
import math
import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.bench.contract.facade import Facade
from metaopt.bench.contract.spec import ForwardPassMode

NOISE = 0.01  # standard deviation
_NOISE_SEED = 0


class CountingFacade(Facade):
    """A facade that is not equal to the plain one, so that jitted steps are traced again.

    Examples are counted when the compiled program runs: under ``scan``, ``vmap`` and ``grad`` each
    pass counts once, under ``checkpoint`` the pass that is repeated counts again.

    Attributes:
        examples: Examples that passed through ``model_fn`` since :meth:`reset`, by mode.
        fresh: The last parameters that ``init_model_fn`` returned since then, on the host.
        noise: Standard deviation of the noise that ``init_model_fn`` adds; 0 at first.
    """

    __slots__ = ("__batch_size", "__keys", "__lock", "__whole", "examples", "fresh", "noise")

    def __init__(self, workload: Any, batch_size: int, step_hint: int | None = None) -> None:
        super().__init__(workload, batch_size, step_hint)
        self.__lock = threading.Lock()
        self.__batch_size = batch_size
        # What the network reads of a batch; AlgoPerf's read more from some, but always this.
        self.__keys = getattr(workload, "model_inputs", ("inputs",))
        self.__whole: dict[str, tuple[int, ...]] = {}
        self.noise = 0.0
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.examples: dict[ForwardPassMode, float] = dict.fromkeys(ForwardPassMode, 0)
        self.fresh: Any = None

    def show_batch(self, batch: Any) -> None:
        """Note the shapes of a whole batch of the queue."""
        self.__whole = _shapes_of(batch, self.__keys)

    def model_fn(self, *arguments: Any, **named: Any) -> Any:
        """Return what the workload's ``model_fn`` returns, and count the pass."""
        model_fn = super().__getattr__("model_fn")
        given = inspect.signature(model_fn).bind(*arguments, **named).arguments
        values = [*given.values()]
        # A number of every array ties the callback to this pass, whatever is mapped or transformed.
        arrays = jax.tree.leaves((values[:3], given.get("rng")))
        count = functools.partial(self._count, given["mode"], self._examples_in(values[1]))
        jax.debug.callback(count, *[_first_number(leaf) for leaf in arrays if np.size(leaf)])
        return model_fn(*arguments, **named)

    def init_model_fn(self, rng: Any) -> tuple[Any, Any]:
        """Return fresh parameters, with noise, and the model state."""
        params, model_state = super().__getattr__("init_model_fn")(rng)
        # Read when the program runs: a compiled restart must not keep what it was traced with.
        scale = jax.pure_callback(
            lambda: np.float32(self.noise), jax.ShapeDtypeStruct((), jnp.float32)
        )
        params = jax.tree.map(
            lambda leaf, noise: leaf + (scale * noise).astype(leaf.dtype), params, _noise(params)
        )
        jax.debug.callback(self._keep, params)
        return params, model_state

    def noise_norm(self, params: Any) -> float:
        """Return the norm of the noise that :meth:`init_model_fn` adds to such parameters."""
        return self.noise * norm(_noise(params))

    def _identity(self) -> tuple[Any, ...]:
        # A step that was traced for one facade counts in no other.
        return *super()._identity(), self.__batch_size

    def _keep(self, params: Any) -> None:
        self.fresh = jax.tree.map(np.array, params)  # a copy: a step may donate them

    def _count(self, mode: ForwardPassMode, examples: float, *_: Any) -> None:
        with self.__lock:
            self.examples[mode] += examples

    def _examples_in(self, batch: Any) -> float:
        """Return how many examples a batch holds: the most, by the size of any of its inputs."""
        shapes = _shapes_of(batch, self.__keys)
        found = [
            self._examples_by(shapes[place], whole)
            for place, whole in self.__whole.items()
            if whole and place in shapes
        ]
        return max(found, default=self.__batch_size)

    def _examples_by(self, shape: tuple[int, ...], whole: tuple[int, ...]) -> float:
        if len(shape) < len(whole):  # one example, without the axis of a batch
            return 1
        # One example has as many axes everywhere: all axes before those are of the batch.
        return self.__batch_size * math.prod(shape[: len(shape) - len(whole) + 1]) / whole[0]


@functools.cache
def counting_facade(workload: Any, batch_size: int, step_hint: int | None) -> CountingFacade:
    """Return the one counting facade of a workload, batch size and step hint in this process.

    Steps that were traced for one audit then serve the next. The step hint is the one that the
    submission sees, and part of the identity: workloads may be equal without it.
    """
    return CountingFacade(workload, batch_size, step_hint)


def _first_number(array: Any) -> Any:
    array = jnp.asarray(array)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return jax.lax.stop_gradient(array[(0,) * array.ndim])


def _shapes_of(batch: Any, keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of the first array of each of a batch's inputs, by its place.

    Arrays are looked up by key, as the network does it: a batch may be of any class.
    """
    shapes = {}
    for key in keys:
        try:
            inputs = batch[key]
        except (KeyError, TypeError, IndexError):
            continue
        for path, leaf in jax.tree_util.tree_leaves_with_path(inputs)[:1]:
            shapes[f"{key}{jax.tree_util.keystr(path)}"] = np.shape(leaf)
    return shapes


def _noise(params: Any) -> Any:
    """Return standard normal noise for parameters, zeros for integers: the same at every call."""
    generator = np.random.default_rng(_NOISE_SEED)

    def noise(leaf: Any) -> np.ndarray:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, np.float32)
        return generator.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(noise, params)


def norm(tree: Any) -> float:
    """Return the Euclidean norm of all floating numbers in a pytree of arrays."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.vdot(leaf, leaf) for leaf in leaves)))
