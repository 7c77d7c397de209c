r"""The interface of controllers: a control from past disturbances, with learned weights.

Notation, the same in code, tests and documentation:

    d      number of parameters
    H      history: number of past disturbances in a control
    L      rollout length
    w_t    disturbance at step t: the gradient, or a transformation of it; 0 before the first
    M      weights; M[0] (the paper's M^(1)) multiplies the newest disturbance
    u_t    control, u_t = sum over h < H of M[h] w_{t-h}; the update is *minus* the control
    age    0 for the newest disturbance in memory, 1 for the one before it, ...

Disturbances, controls and adjoints are trees shaped like the parameters.
"""

import abc
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import serialization
from jax.tree_util import GetAttrKey
from jaxtyping import Array, DTypeLike


class Controller(abc.ABC):
    """A family of linear policies over past disturbances.

    Every family is a frozen dataclass and a pytree: its weights are leaves, its other attributes
    are static. A controller is therefore part of an optimizer's state; checkpoints hold only its
    weights. ``memory``, the stored past, is a pytree of arrays that is reset at every episode.
    """

    family: ClassVar[str]  # name of the family in controller files
    keeps_controls: ClassVar[bool]  # keep controls of past steps rather than compute them again
    keeps_memory: ClassVar[bool] = True  # the next step reads the memory of this one
    weights: Any  # M, a pytree of arrays; None for zeros

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the family with JAX and with flax."""
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(cls, _flatten, functools.partial(_unflatten, cls))
        serialization.register_serialization_state(
            cls,
            lambda controller: {"weights": serialization.to_state_dict(controller.weights)},
            lambda controller, saved: controller.with_weights(
                serialization.from_state_dict(controller.weights, saved["weights"], "weights")
            ),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments other than the weights, as JSON data."""
        return {}

    @property
    @abc.abstractmethod
    def history(self) -> int:
        """H: the history of the weights, or the family's default without weights."""

    @abc.abstractmethod
    def init(self, params: Any, history: int) -> "Controller":
        """Return the controller with weights for these parameters: a copy of its own, or zeros.

        Raises:
            ValueError: The weights do not fit the parameters and the history.
        """

    @abc.abstractmethod
    def init_memory(self, params: Any, rollout: int, dtype: DTypeLike | None = None) -> Any:
        """Return the memory at the start of an episode.

        Args:
            params: The parameters, or their shapes.
            rollout: L; 0 without rollouts.
            dtype: The dtype of the memory; by default the parameters', float32 or wider.
        """

    @abc.abstractmethod
    def observe(self, memory: Any, disturbance: Any) -> Any:
        """Return the memory with one more disturbance."""

    @abc.abstractmethod
    def accumulate(self, sums: Any, memory: Any, discount: Any) -> Any:
        """Return the memory that holds discounted sums D_t = discount D_{t-1} + w_t, one step on.

        Both are memories without rollouts, and linear in what they observed. So the meta-gradient
        of ``sums`` is the discounted sum of those of all past memories.

        Args:
            sums: The memory of the sums until the step before.
            memory: The memory of the disturbances, with the newest.
            discount: A number in [0, 1].
        """

    @abc.abstractmethod
    def controls(self, memory: Any, count: int, like: Any) -> list[Any]:
        """Return the controls of the last ``count`` steps with the current weights, newest first.

        ``like`` is a tree with the shapes of the parameters.
        """

    @abc.abstractmethod
    def meta_gradient(self, memory: Any, adjoints: Sequence[Any], ago: int = 1) -> Any:
        """Return the gradient of ``-sum_i <adjoints[i], controls[ago + i]>`` by the weights.

        Entry i of the adjoints belongs to the control of ``ago + i`` steps ago. No control depends
        on the newest gradient yet, so ``ago`` is 1 if the memory already holds it, else 0.
        """

    @abc.abstractmethod
    def steady_control(self, disturbance: Any) -> Any:
        """Return the control that a disturbance ends with if it is the same at every step."""

    @abc.abstractmethod
    def scaled(self, factor: Any) -> "Controller":
        """Return the controller whose controls are ``factor`` times as large."""

    @abc.abstractmethod
    def merged(self) -> "Controller":
        """Return the controller whose controls are the sum of those of several.

        Their weights are the entries of a leading axis of this one's.
        """

    def with_weights(self, weights: Any) -> "Controller":
        """Return the controller with other weights, which are not checked."""
        others = [getattr(self, name) for name in _static_names(type(self))]
        return _unflatten(type(self), tuple(others), (weights,))


def _static_names(kind: type[Controller]) -> list[str]:
    fields = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    return [field.name for field in fields if field.name != "weights"]


def _flatten(controller: Controller) -> tuple[Any, tuple[Any, ...]]:
    others = tuple(getattr(controller, name) for name in _static_names(type(controller)))
    return ((GetAttrKey("weights"), controller.weights),), others


_Kind = TypeVar("_Kind", bound=Controller)


def _unflatten(kind: type[_Kind], others: tuple[Any, ...], children: Iterable[Any]) -> _Kind:
    # Not by calling the class: JAX also unflattens trees with leaves that are no arrays.
    controller = object.__new__(kind)
    for name, value in zip(_static_names(kind), others, strict=True):
        object.__setattr__(controller, name, value)
    (weights,) = children
    object.__setattr__(controller, "weights", weights)
    return controller


def initial_weights(weights: Any, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return a copy of ``weights``, or zeros for ``None``.

    Raises:
        ValueError: The weights have another shape.
    """
    if weights is None:
        return jnp.zeros(shape, dtype)
    if jnp.shape(weights) != shape:
        raise ValueError(
            f"`controller` has weights of shape {jnp.shape(weights)}, but history and parameters "
            f"ask for {shape}."
        )
    return jnp.array(weights, dtype)  # a copy: states are donated


def check_real(params: Any, family: str) -> None:
    """Check that no parameter is complex.

    Raises:
        ValueError: A parameter is complex.
    """
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            "`controller` must be ScalarLags, Averages or StepSize if parameters are complex, got "
            f"{family}. Or store real and imaginary parts as separate parameters."
        )
