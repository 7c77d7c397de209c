"""Names for a shell's completion, read from files so that nothing slow is imported.

The registries of workloads and tuners import JAX and Optuna. Their names are read from the source.
"""

import ast
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from metaopt.bench.contract.loading import SPACE_FILE, find_submissions
from metaopt.bench.contract.plugins import SUBMISSIONS, TUNERS, WORKLOADS, plugin_names

_ROOT = Path(__file__).resolve().parents[1]
_WORKLOADS = _ROOT / "metaopt" / "workloads"


def workload_names() -> list[str]:
    """Return the names of all workloads, with the fixed-batch forms and AlgoPerf's."""
    constants = _assigned(_WORKLOADS / "registry.py", "_STOCHASTIC")
    assert isinstance(constants, ast.Tuple)
    ours = [ast.unparse(constant).lower() for constant in constants.elts]
    of_algoperf = ast.literal_eval(
        _assigned(_WORKLOADS / "algoperf_workloads.py", "BASE_WORKLOADS")
    )
    bases = sorted({*ours, *plugin_names(WORKLOADS, ours)})
    names = [name for base in bases for name in (base, f"{base}_fixed")]
    return [*names, *(f"algoperf_{name}" for name in of_algoperf)]


def submission_names() -> list[str]:
    """Return the names of all submissions."""
    ours = find_submissions(_ROOT / "submissions")
    return sorted({*ours, *plugin_names(SUBMISSIONS, ours)})


def tuner_names() -> list[str]:
    """Return the names of all tuners."""
    table = _assigned(_ROOT / "tuning" / "tuners" / "registry.py", "TUNERS")
    assert isinstance(table, ast.Dict)
    ours = [ast.literal_eval(key) for key in table.keys if key is not None]
    return sorted({*ours, *plugin_names(TUNERS, ours)})


def campaign_names(kind: str | None = None) -> list[str]:
    """Return the names of the shipped campaigns of a kind: ``None`` for `compare`."""
    paths = sorted((_ROOT / "tuning" / "campaigns").glob("*.toml"))
    return [p.stem for p in paths if tomllib.loads(p.read_text("utf-8")).get("kind") == kind]


def contender_names(incomplete: str) -> list[str]:
    """Return contenders that begin as given, without further search spaces.

    A submission that needs a tuner is offered alone, as ``adamw+``, until it is the only one.
    """
    folders = find_submissions(_ROOT / "submissions")
    tuned = {name for name, folder in folders.items() if (folder / SPACE_FILE).exists()}
    found = [f"{name}+" if name in tuned else name for name in submission_names()]
    found = [name for name in found if name.startswith(incomplete.partition("+")[0])]
    if "+" in incomplete:
        found = [name for name in found if name == f"{incomplete.partition('+')[0]}+"]
    if len(found) == 1 and found[0].endswith("+"):
        return [found[0] + tuner for tuner in tuner_names()]
    return found


def complete_workload(incomplete: str) -> list[str]:
    """Complete the name of a workload."""
    return _beginning(workload_names(), incomplete)


def complete_submission(incomplete: str) -> list[str]:
    """Complete the name of a submission; for a path the shell offers files."""
    return _beginning(submission_names(), incomplete)


def complete_campaign(incomplete: str) -> list[str]:
    """Complete the name of a campaign for `compare`; for a path the shell offers files."""
    return _beginning(campaign_names(), incomplete)


def complete_stability(incomplete: str) -> list[str]:
    """Complete the name of a campaign for `stability`."""
    return _beginning(campaign_names("stability"), incomplete)


def complete_workloads(incomplete: str) -> list[str]:
    """Complete the last name of a list with commas."""
    return _in_list(incomplete, lambda last: workload_names())


def complete_contenders(incomplete: str) -> list[str]:
    """Complete the last contender of a list with commas."""
    return _in_list(incomplete, contender_names)


def _in_list(incomplete: str, names: Callable[[str], list[str]]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [before + comma + name for name in _beginning(names(last), last) if name not in given]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _assigned(path: Path, name: str) -> ast.expr:
    """Return the expression that a module assigns to a name."""
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        targets = (node.target,) if isinstance(node, ast.AnnAssign) else targets
        if name in map(ast.unparse, targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            return node.value
    raise AssertionError(f"{path} assigns no {name}")
