"""A pytest plug-in: the rules on submissions and workloads as tests.

    pytest --submission path/to/folder --workload digits_mlp --workload mine.problems:ROSENBROCK

Each rule is a test. A submission runs once for all rules, in a separate process. Without a path on
the command line, no other tests are collected. Without its options the plug-in imports nothing.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from metaopt.bench.records.findings import Finding, Rule
    from metaopt.bench.rules.check import Report

_SUBMISSIONS = "metaopt_submissions"
_WORKLOADS = "metaopt_workloads"
_TIMEOUT = "metaopt_submission_timeout"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("metaopt", "rules on submissions and workloads")
    group.addoption(
        "--submission", action="append", default=[], dest=_SUBMISSIONS, metavar="PATH",
        help="test the submission in this folder by the rules; repeat",
    )  # fmt: skip
    group.addoption(
        "--submission-timeout", type=float, default=120.0, dest=_TIMEOUT, metavar="SECONDS",
        help="limit for all rules of a submission (default: 120)",
    )  # fmt: skip
    group.addoption(
        "--workload", action="append", default=[], dest=_WORKLOADS, metavar="NAME|MODULE:OBJECT",
        help="test this workload by the rules; repeat",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Collect nothing else unless paths are given."""
    asked = config.getoption(_SUBMISSIONS) or config.getoption(_WORKLOADS)
    if asked and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []


@pytest.hookimpl(tryfirst=True)  # before -k selects
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each rule of each submission and workload."""
    for path in config.getoption(_SUBMISSIONS) or ():
        folder = Path(path)
        if folder.name == "submission.py":
            folder = folder.parent
        if not folder.is_dir():
            raise pytest.UsageError(f"--submission {path}: no such folder.")
        items.extend(_Submission.of(session, f"submission {path}", folder).collect())
    for name in config.getoption(_WORKLOADS) or ():
        items.extend(_Workload.of(session, f"workload {name}", name).collect())


class _BrokenRule(Exception):
    """The findings of a rule."""

    def __init__(self, findings: list["Finding"]) -> None:
        super().__init__("\n".join(f"{f.where}: {f.what}\n    {f.fix}" for f in findings))


class _RuleCollector(pytest.Collector):
    """Collects a test for each rule on one submission or workload; the tests share findings."""

    asked: Any

    @classmethod
    def of(cls, session: pytest.Session, nodeid: str, asked: Any) -> Any:
        """Return the collector for the value of an option."""
        collector: Any = cls.from_parent(session, name=nodeid, nodeid=nodeid)
        collector.asked = asked
        return collector

    def rules(self) -> "Iterable[Rule]":
        """Return the rules."""
        raise NotImplementedError

    def findings(self, rule: "Rule") -> "list[Finding]":
        """Return the findings of a rule."""
        raise NotImplementedError

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each rule."""
        for rule in self.rules():
            item: Any = _RuleItem.from_parent(self, name=rule.id)
            item.rule = rule
            yield item


class _Submission(_RuleCollector):
    def rules(self) -> "Iterable[Rule]":
        from metaopt.bench.rules.check import RULES

        return RULES

    @cached_property
    def _report(self) -> "Report":
        from metaopt.bench.rules.subprocess_check import check_in_subprocess

        timeout = cast(float, self.config.getoption(_TIMEOUT))
        return check_in_subprocess(self.asked, timeout=timeout)

    def findings(self, rule: "Rule") -> "list[Finding]":
        if rule.id in self._report.not_applied:
            pytest.skip("not applied because other rules have errors")
        return [finding for finding in self._report.findings if finding.rule == rule.id]


class _Workload(_RuleCollector):
    def rules(self) -> "Iterable[Rule]":
        from metaopt.bench.rules.workload_check import WORKLOAD_RULES, load_workload

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
        assert isinstance(self.parent, _RuleCollector)
        found = self.parent.findings(self.rule)
        errors = [finding for finding in found if finding.severity == "error"]
        notes = [finding for finding in found if finding.severity == "note"]
        if notes:
            self.add_report_section("call", "notes", str(_BrokenRule(notes)))
        if errors:
            raise _BrokenRule(errors)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, _BrokenRule):
            return f"{self.rule.title}: this rule is broken\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.nodeid} ({self.rule.title})"
