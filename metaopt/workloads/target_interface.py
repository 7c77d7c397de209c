"""AlgoPerf's attributes and methods on targets, derived from a workload's ``targets``."""

from metaopt.bench.measure.targets import BETTER, Direction, Target, WorkloadTargets


class TargetInterface:
    """AlgoPerf's attributes and methods that concern targets.

    Attributes:
        target_metric: The metric of the targets, without its split.
        target_better: Whether it is better lower or higher; ``None`` if its name says so.
        targets: The targets on validation and test data.
    """

    target_metric: str
    target_better: Direction | None
    targets: WorkloadTargets

    @property
    def better(self) -> Direction:
        """Whether the metric of the targets is better lower or higher."""
        return self.target_better or BETTER[self.target_metric]

    @property
    def target_metric_name(self) -> str:
        """AlgoPerf's name for the metric of the targets."""
        return self.target_metric

    @property
    def validation_target_value(self) -> float:
        """The validation target, in the unit of its metric."""
        return self.targets.validation.value

    @property
    def test_target_value(self) -> float:
        """The test target, in the unit of its metric."""
        return self.targets.test.value

    def has_reached_validation_target(self, eval_result: dict[str, float]) -> bool:
        """Return whether an evaluation meets the validation target."""
        return _meets(eval_result, self.targets.validation)

    def has_reached_test_target(self, eval_result: dict[str, float]) -> bool:
        """Return whether an evaluation meets the test target."""
        return _meets(eval_result, self.targets.test)


def _meets(eval_result: dict[str, float], target: Target) -> bool:
    return target.is_met(eval_result[target.metric])
