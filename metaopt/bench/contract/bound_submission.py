"""Call a submission's functions with AlgoPerf's arguments."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaopt.bench.contract.return_values import expect_state, expect_triple

# Optimizer state, parameters, model state: what steps take and return.
Trees = tuple[Any, Any, Any]


@dataclasses.dataclass(frozen=True)
class BoundSubmission:
    """A submission with the arguments that stay the same during a trial.

    Attributes:
        module: The submission's module.
        workload: The facade.
        hyperparameters: AlgoPerf's namedtuple, or ``None``.
        wants_train_state: Whether ``update_params`` takes ``train_state``.
    """

    module: Any
    workload: Any
    hyperparameters: Any
    wants_train_state: bool = False

    @property
    def prepares(self) -> bool:
        """Whether the submission has ``prepare_for_eval``."""
        return hasattr(self.module, "prepare_for_eval")

    @functools.cached_property
    def _constant(self) -> dict[str, Any]:
        """The arguments that are the same at every call."""
        return {
            "workload": self.workload,
            "current_params_types": self.workload.model_params_types,
            "hyperparameters": self.hyperparameters,
            "loss_type": self.workload.loss_type,
        }

    def init(self, params: Any, model_state: Any, rng: Any) -> Any:
        """Return the optimizer state of a new run.

        Raises:
            ContractError: It is not a pair of a pytree and a function.
        """
        state = self.module.init_optimizer_state(
            self.workload, params, model_state, self.hyperparameters, rng
        )
        expect_state(state, "init_optimizer_state")
        return state

    def select(self, queue: Iterator[Any], trees: Trees, step: int, rng: Any) -> Any:
        """Return the batch that the submission selects for a step."""
        state, params, model_state = trees
        return self.module.data_selection(
            self.workload, queue, state, params, model_state, self.hyperparameters, step, rng
        )

    def update(
        self,
        batch: Any,
        trees: Trees,
        step: int,
        rng: Any,
        eval_results: Sequence[Any],
        train_state: Mapping[str, Any] | None,
    ) -> Trees:
        """Take one step.

        Raises:
            ContractError: It did not return three parts.
            TrainingCompleteError: The submission has nothing left to do.
        """
        arguments = self._common(trees, step, rng, eval_results)
        arguments["batch"] = batch
        if self.wants_train_state:
            arguments["train_state"] = train_state
        returned = self.module.update_params(**arguments)
        return expect_triple(returned, "update_params")

    def prepare(self, trees: Trees, step: int, rng: Any, eval_results: Sequence[Any]) -> Trees:
        """Let the submission prepare an evaluation; raises like :meth:`update`."""
        returned = self.module.prepare_for_eval(**self._common(trees, step, rng, eval_results))
        return expect_triple(returned, "prepare_for_eval")

    def _common(
        self, trees: Trees, step: int, rng: Any, eval_results: Sequence[Any]
    ) -> dict[str, Any]:
        state, params, model_state = trees
        return {
            **self._constant,
            "current_param_container": params,
            "model_state": model_state,
            "optimizer_state": state,
            "eval_results": eval_results,
            "global_step": step,
            "rng": rng,
        }
