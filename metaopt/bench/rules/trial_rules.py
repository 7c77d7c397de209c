"""Rules on a short trial and its audit: completion, cost, and dependence on the arguments."""

import functools
from collections.abc import Iterator

from metaopt.bench.records import FAILURES
from metaopt.bench.records.audit import Audit
from metaopt.bench.records.findings import Problem, Rule
from metaopt.bench.rules.rule_lists import rule
from metaopt.bench.rules.short_trial import ShortTrial

TRIAL_RULES: list[Rule] = []


@rule(TRIAL_RULES, "trial", "a short trial completes")
def _failed_trial(trial: ShortTrial) -> Iterator[Problem]:
    record = trial.record
    if record.status in FAILURES:
        why = record.cause or f"the trial ended as {record.status}"
        yield Problem(
            f"a trial ends after {record.ledger.cost.steps} steps: {why}",
            trial.submission.where("update_params"),
            "Make it pass on a small problem: `python -m tuning run FOLDER digits_mlp` prints the "
            "whole traceback.",
        )


def _failed_audit(trial: ShortTrial, kind: Audit, fix: str) -> Iterator[Problem]:
    """Yield the findings of one kind of audit."""
    for finding in trial.audit.findings if trial.audit else ():
        if finding.audit == kind:
            severity = "error" if finding.failed else "note"
            yield Problem(finding.what, trial.submission.where("update_params"), fix, severity)


_AUDITS: tuple[tuple[Audit, str, str], ...] = (
    ("passes", "charged gradient evaluations cover all passes through the model", (
        "Define report(optimizer_state) and declare all gradient evaluations so far. Every pass "
        "through `model_fn`, even forward only, counts as its examples over the reference batch "
        "size."
    )),
    ("set-up", "passes of init_optimizer_state are declared", (
        "Declare the passes of init_optimizer_state in report(optimizer_state) as well."
    )),
    ("replay", "a step depends on its arguments alone", (
        "Keep everything that a step depends on in the optimizer state: no module variables, "
        "files, clocks or random numbers except those from `rng`."
    )),
    ("fresh-start", "trials and episodes start from fresh parameters", (
        "Begin a trial with the parameters that init_optimizer_state gets, and an episode with "
        "`workload.init_model_fn`; raise `episode` in report() only there."
    )),
)  # fmt: skip
TRIAL_RULES += [
    Rule(kind, title, functools.partial(_failed_audit, kind=kind, fix=fix))
    for kind, title, fix in _AUDITS
]
