"""A flax module, linen or nnx, as a function of parameters, model state and mode.

The model state holds the module's other variables, such as running averages of batch normalisation;
it is ``None`` if there are none.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
from flax import nnx

from metaopt.bench.contract.spec import ForwardPassMode
from metaopt.workloads.data.queues import Batch


def as_linen(model: nn.Module | Callable[..., nnx.Module]) -> nn.Module:
    """Return a model as a ``flax.linen`` module.

    Args:
        model: A ``flax.linen`` module, or a function of ``rngs`` that returns a ``flax.nnx``
            module. Its parameters, batch statistics and so on become collections of variables.

    Raises:
        ValueError: The model is something else.
    """
    if isinstance(model, nn.Module):
        return model
    is_linen_class = isinstance(model, type) and issubclass(model, nn.Module)
    if isinstance(model, nnx.Module) or is_linen_class or not callable(model):
        raise ValueError(
            "`model` must be a flax.linen module, or a function of `rngs` that returns a flax.nnx "
            "module, because every trial starts from fresh parameters: `model=lambda rngs: "
            f"Net(32, rngs=rngs)`. Got {_describe(model)}."
        )
    return nnx.bridge.ToLinen(cast("Callable[..., nnx.Module]", model))


def _describe(model: Any) -> str:
    if isinstance(model, type):
        return f"the class {model.__name__}"
    return f"an object of class {type(model).__name__}"


@dataclasses.dataclass(frozen=True)
class Network:
    """A module and how it is called.

    Attributes:
        module: The module, from inputs to logits.
        inputs: The keys of a batch for the module's arguments, in order.
        has_modes: Whether the module takes the keywords ``train`` and ``dropout_rate``.
        dropout_rate: The rate in training, unless the caller sets one.
    """

    module: nn.Module
    inputs: tuple[str, ...] = ("inputs",)
    has_modes: bool = False
    dropout_rate: float = 0.0

    def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
        """Return fresh parameters and the model state for batches like ``batch``."""
        modes = {"train": False, "dropout_rate": 0.0} if self.has_modes else {}
        rngs = {"params": rng, "dropout": rng}  # nnx modules make their streams of numbers here
        variables = dict(self.module.init(rngs, *(batch[key] for key in self.inputs), **modes))
        params = variables.pop("params")
        return params, variables or None

    def apply(
        self,
        params: Any,
        batch: Batch,
        model_state: Any,
        mode: ForwardPassMode,
        rng: jax.Array,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[jax.Array, Any]:
        """Return logits and model state.

        Args:
            params: Parameters, as ``init`` returns them.
            batch: What the module is called with lies under its keys.
            model_state: As ``init`` returns it.
            mode: Training or evaluation.
            rng: Key of the dropout.
            update_batch_norm: Whether running averages move; they can only where the statistics
                of the batch are computed.
            dropout_rate: ``None`` is the network's own; evaluation has none.
            use_running_average_bn: Which statistics normalise: running averages or the batch's.
                ``None`` leaves it to the mode: the batch's in training.

        Raises:
            ValueError: ``mode`` is no mode, or ``update_batch_norm`` is set in evaluation mode.
        """
        if not isinstance(mode, ForwardPassMode):  # a copy of the enum is equal to neither mode
            raise ValueError(
                "`mode` must be a metaopt.bench.contract.spec.ForwardPassMode, which is "
                f"AlgoPerf's where that is installed; got {mode!r}."
            )
        train = mode == ForwardPassMode.TRAIN
        if update_batch_norm and not train:
            raise ValueError(
                "`update_batch_norm` must be False in evaluation mode, which leaves the running "
                "averages as they are; got True."
            )
        modes: dict[str, Any] = {}
        of_batch = train  # the statistics that normalise
        if model_state and use_running_average_bn is not None:
            of_batch = not use_running_average_bn
        if self.has_modes:
            rate = self.dropout_rate if dropout_rate is None else dropout_rate
            modes = {"train": of_batch, "dropout_rate": rate if train else 0.0}
        logits, new_model_state = self.module.apply(
            {"params": params, **(model_state or {})},
            *(batch[key] for key in self.inputs),
            mutable=list(model_state or {}) if of_batch else [],
            rngs={"dropout": rng} if train and self.has_modes else None,
            **modes,
        )
        kept = update_batch_norm and of_batch and model_state
        return logits, dict(new_model_state) if kept else model_state


def check_structure(name: str, tree: Any, expected: Any) -> None:
    """Raise ``ValueError`` if a tree does not have the structure of ``expected``.

    Args:
        name: The argument's name.
        tree: The argument's value.
        expected: The tree, or its shapes, that ``init_model_fn`` returns in its place.
    """
    if jax.tree.structure(tree) == jax.tree.structure(expected):
        return
    found, right = _names(tree), _names(expected)
    if found == right:  # other mappings with the same entries
        return
    extra = ", ".join(sorted(found - right)[:3])
    got = extra or f"no {min(right - found)}"
    raise ValueError(
        f"`{name}` must have the structure that init_model_fn returns, with {len(right)} arrays, "
        f"got {len(found)} arrays: {got}."
    )


def _names(tree: Any) -> set[str]:
    return {
        jax.tree_util.keystr(path) or type(leaf).__name__
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
