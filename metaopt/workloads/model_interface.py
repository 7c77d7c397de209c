"""AlgoPerf's attributes and methods on the model, derived from a workload's flax module."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from metaopt.bench.contract.spec import ForwardPassMode, LossType, ShapeTuple
from metaopt.workloads import losses
from metaopt.workloads.data.queues import Batch
from metaopt.workloads.models.network import Network, as_linen


class ModelInterface:
    """AlgoPerf's attributes and methods that concern the model.

    The attributes are fields of :class:`~metaopt.workloads.supervised.SupervisedWorkload`.
    """

    arrays: dict[str, Batch]
    complete: Callable[[Batch], Batch]
    model: nn.Module | Callable[..., nnx.Module]
    model_inputs: tuple[str, ...]
    has_modes: bool
    dropout_rate: float
    loss_type: LossType | None
    network_type: Callable[..., Network]
    parameter_types: Callable[[Any], Any]
    output_layer: str

    @functools.cached_property
    def network(self) -> Network:
        """The model and how it is called."""
        module = as_linen(self.model)
        return self.network_type(module, self.model_inputs, self.has_modes, self.dropout_rate)

    @functools.cached_property
    def _init(self) -> Callable[[jax.Array, Batch], Any]:
        return jax.jit(self.network.init)

    def init_model_fn(self, rng: jax.Array) -> tuple[Any, Any]:
        """Return fresh parameters and the model state, ``None`` if there is none."""
        # An argument, because a constant would be cached as a tracer if the first call is traced.
        example = jax.tree.map(lambda array: array[:1], self.arrays["train"])
        return self._init(rng, self.complete(example))

    @functools.cached_property
    def _shapes(self) -> tuple[Any, Any]:
        return jax.eval_shape(self.init_model_fn, jax.random.PRNGKey(0))

    @property
    def param_shapes(self) -> Any:
        """The parameters' shapes, as AlgoPerf's ``ShapeTuple``."""
        return jax.tree.map(lambda array: ShapeTuple(array.shape), self._shapes[0])

    @functools.cached_property
    def model_params_types(self) -> Any:
        """The type of each parameter array."""
        return self.parameter_types(self._shapes[0])

    def is_output_params(self, param_key: str) -> bool:
        """Return whether ``param_key`` names the output layer."""
        return param_key == self.output_layer

    def model_fn(
        self,
        params: Any,
        augmented_and_preprocessed_input_batch: Batch,
        model_state: Any,
        mode: ForwardPassMode,
        rng: jax.Array,
        update_batch_norm: bool,
        dropout_rate: float | None = None,
        use_running_average_bn: bool | None = None,
    ) -> tuple[Any, Any]:
        """Return ``(logits, model_state)``; see :meth:`Network.apply`.

        Raises:
            ValueError: ``update_batch_norm`` is set in evaluation mode, where the network has no
                rule of its own for it.
        """
        return self.network.apply(
            params,
            augmented_and_preprocessed_input_batch,
            model_state,
            mode,
            rng,
            update_batch_norm,
            dropout_rate,
            use_running_average_bn,
        )

    def output_activation_fn(self, logits_batch: jax.Array, framework: str = "jax") -> jax.Array:
        """Return probabilities for logits; return predicted numbers unchanged, by loss type."""
        if framework != "jax":
            raise ValueError(f"`framework` must be 'jax', got {framework!r}.")
        return losses.Loss(self.loss_type).activation(logits_batch)
