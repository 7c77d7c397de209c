"""The logs that a command is about, as its options name them."""

import dataclasses
from pathlib import Path

from analysis.logs.competition import (
    Competition,
    Ruleset,
    read_official_targets,
    read_submission_names,
)
from analysis.logs.hardware import ANY_HARDWARE, HardwareChoice
from analysis.logs.logs import Logs
from analysis.logs.merging import merge_logs
from analysis.logs.reader import all_columns, no_columns, read_logs


@dataclasses.dataclass(frozen=True)
class LogOptions:
    """Logs, and the rules that AlgoPerf's logs are read by; see ``--help`` of the commands."""

    logs: tuple[Path, ...]
    within: str | None = None
    targets: Path | None = None
    ruleset: Ruleset | None = None
    studies: int | None = None
    trials: int | None = None
    budget_factor: float | None = None
    hardware: HardwareChoice = ANY_HARDWARE
    submissions: Path | None = None

    def competition(self) -> Competition:
        """Return the rules that the options name."""
        targets = None if self.targets is None else read_official_targets(self.targets)
        names = {} if self.submissions is None else read_submission_names(self.submissions)
        return Competition(
            targets, self.ruleset, self.studies, self.trials, self.budget_factor, names
        )

    def read(self, *, costs_only: bool = False) -> Logs:
        """Read the logs and keep the runs on the chosen hardware.

        Args:
            costs_only: Whether costs to target are enough: no other metrics, no hyperparameters.

        Raises:
            ValueError: There is nothing to read, the logs do not join, or an option has no effect
                on them.
        """
        columns = no_columns if costs_only else all_columns
        competition = self.competition()
        parts = [
            read_logs(
                path, self.within, competition, columns=columns, hyperparameters=not costs_only
            )
            for path in self.logs
        ]
        for part in parts:
            self.check_options(part)
        return self.hardware.select(merge_logs(parts))

    def check_options(self, logs: Logs) -> None:
        """Refuse options that have no effect.

        Raises:
            ValueError: An option of AlgoPerf's rules is given for logs of ours.
        """
        if logs.is_ours:
            for name in ("ruleset", "studies", "trials", "budget_factor", "submissions"):
                if getattr(self, name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise ValueError(
                        f"{option} is for AlgoPerf's logs. Records of ours have their own budgets "
                        "and studies; `score --targets` reads them as AlgoPerf's."
                    )
