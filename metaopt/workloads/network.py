"""A flax module as a function of parameters, model state and mode.

The model state is what the module keeps beside its parameters, running averages of batch
normalisation say, and ``None`` if that is nothing.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from metaopt.bench.spec import ForwardPassMode, ParameterType
from metaopt.workloads.queues import Batch


@dataclasses.dataclass(frozen=True)
class Network:
    """A module and how it is called.

    Attributes:
        module: From inputs to logits.
        inputs: The keys of a batch that it is called with, in its order.
        has_modes: Whether it takes the keywords ``train`` and ``dropout_rate``.
        dropout_rate: In training, where the caller does not say.
    """

    module: nn.Module
    inputs: tuple[str, ...] = ("inputs",)
    has_modes: bool = False
    dropout_rate: float = 0.0

    def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
        """Return fresh parameters and the model state for batches like ``batch``."""
        modes = {"train": False, "dropout_rate": 0.0} if self.has_modes else {}
        variables = dict(self.module.init(rng, *(batch[key] for key in self.inputs), **modes))
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
            ValueError: ``update_batch_norm`` is set in evaluation mode.
        """
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
    """Raise ``ValueError`` if a tree has not the structure of ``expected``.

    Args:
        name: Of the argument.
        tree: What was given.
        expected: What ``init_model_fn`` returns in its place; shapes will do.
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


def parameter_type(path: list[str]) -> ParameterType:
    """Return what the array at ``path`` is for, which the names of its layers say.

    Layers are named after their kind: ``conv``, ``bn``, ``ln``, ``embedding``, ``attention``.

    Examples:
        >>> parameter_type(["encoder", "ln_attention", "scale"]).name
        'LAYER_NORM_SCALE'
    """
    *layers, leaf = path
    kinds = {word for layer in layers[-1:] for word in layer.split("_")}
    if "bn" in kinds or "ln" in kinds:
        norm = "BATCH_NORM" if "bn" in kinds else "LAYER_NORM"
        return ParameterType[f"{norm}_{leaf.upper()}"]
    if len(layers) > 1 and "attention" in layers[-2]:
        roles = {"query": "Q", "key": "K", "value": "V", "out": "OUT"}
        return ParameterType[f"ATTENTION_{'BIAS' if leaf == 'bias' else roles[layers[-1]]}"]
    if leaf == "embedding":
        return ParameterType.EMBEDDING
    if leaf == "bias":
        return ParameterType.BIAS
    return ParameterType.CONV_WEIGHT if "conv" in kinds else ParameterType.WEIGHT
