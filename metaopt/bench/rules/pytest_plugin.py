"""A pytest plug-in: the rules of submissions and workloads as tests.

    pytest --submission path/to/folder --workload digits_mlp --workload mine.problems:ROSENBROCK

Each rule is a test. Submissions run in a process of their own, once for all rules. Without a path
on the command line nothing else is collected. The plug-in costs nothing until an option is given:
what it needs is imported then.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from metaopt.bench.records.findings import Finding, Rule

_SUBMISSIONS = "metaopt_submissions"
_WORKLOADS = "metaopt_workloads"
_TIMEOUT = "metaopt_submission_timeout"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("metaopt", "contracts of submissions and workloads")
    group.addoption(
        "--submission", action="append", default=[], dest=_SUBMISSIONS, metavar="PATH",
        help="test the submission in this folder by the rules; repeat",
    )  # fmt: skip
    group.addoption(
        "--submission-timeout", type=float, default=120.0, dest=_TIMEOUT, metavar="SECONDS",
        help="what a submission may take for all rules (default: 120)",
    )  # fmt: skip
    group.addoption(
        "--workload", action="append", default=[], dest=_WORKLOADS, metavar="NAME|MODULE:OBJECT",
        help="test this workload by its contract; repeat",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Collect nothing else unless paths are given: the rules are what was asked for."""
    asked = config.getoption(_SUBMISSIONS) or config.getoption(_WORKLOADS)
    if asked and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []


@pytest.hookimpl(tryfirst=True)  # before -k chooses
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each rule of each submission and workload."""
    for path in config.getoption(_SUBMISSIONS) or ():
        folder = Path(path)
        if folder.name == "submission.py":
            folder = folder.parent
        if not folder.is_dir():
            raise pytest.UsageError(f"--submission {path}: there is no such folder.")
        items.extend(_Submission.of(session, f"submission {path}", folder).collect())
    for name in config.getoption(_WORKLOADS) or ():
        items.extend(_Workload.of(session, f"workload {name}", name).collect())


class _Broken(Exception):
    """What a rule found."""

    def __init__(self, findings: list["Finding"]) -> None:
        super().__init__("\n".join(f"{f.where}: {f.what}\n    {f.fix}" for f in findings))


class _Subject(pytest.Collector):
    """What the rules are applied to; its tests share what is found out."""

    asked: Any

    @classmethod
    def of(cls, session: pytest.Session, nodeid: str, asked: Any) -> Any:
        """Return the collector for what an option names."""
        collector: Any = cls.from_parent(session, name=nodeid, nodeid=nodeid)
        collector.asked = asked
        return collector

    def rules(self) -> "Iterable[Rule]":
        """Return the rules."""
        raise NotImplementedError

    def findings(self, rule: "Rule") -> "list[Finding]":
        """Return what a rule finds."""
        raise NotImplementedError

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each rule."""
        for rule in self.rules():
            item: Any = _RuleItem.from_parent(self, name=rule.id)
            item.rule = rule
            yield item


class _Submission(_Subject):
    def rules(self) -> "Iterable[Rule]":
        from metaopt.bench.rules.check import RULES

        return RULES

    @cached_property
    def _found(self) -> "list[Finding]":
        from metaopt.bench.rules.check import check_apart

        return check_apart(self.asked, timeout=cast(float, self.config.getoption(_TIMEOUT)))

    def findings(self, rule: "Rule") -> "list[Finding]":
        from metaopt.bench.rules.check import rules_left_out

        if rule.id in rules_left_out(self._found):
            pytest.skip("other errors come first")
        return [finding for finding in self._found if finding.rule == rule.id]


class _Workload(_Subject):
    def rules(self) -> "Iterable[Rule]":
        from metaopt.bench.rules.workload_rules import WORKLOAD_RULES, load_workload

        try:
            self.workload = load_workload(self.asked)
        except ValueError as error:
            raise pytest.UsageError(f"--workload {self.asked}: {error}") from None
        return WORKLOAD_RULES

    def findings(self, rule: "Rule") -> "list[Finding]":
        try:
            getattr(self.workload, "check_data", lambda: None)()
        except FileNotFoundError as error:
            pytest.skip(str(error))
        return rule.check(self.workload)


class _RuleItem(pytest.Item):
    """One rule as a test: it fails for errors and shows notes."""

    rule: "Rule"

    def runtest(self) -> None:
        assert isinstance(self.parent, _Subject)
        found = self.parent.findings(self.rule)
        errors = [finding for finding in found if finding.severity == "error"]
        notes = [finding for finding in found if finding.severity == "note"]
        if notes:
            self.add_report_section("call", "notes", str(_Broken(notes)))
        if errors:
            raise _Broken(errors)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, _Broken):
            return f"{self.rule.title}: this rule is broken\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.nodeid} ({self.rule.title})"
