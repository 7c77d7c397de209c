"""Tables of the documents that are generated from the code.

A generated table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Regenerate all
of them with ``python -m tests.document_tables``; a test fails if one is out of date.
"""

import contextlib
import inspect
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from analysis.cli import app as analysis_app
from analysis.commands.validate_command import print_rules
from analysis.report.formats import Format
from analysis.wording import escape_markdown
from metaopt.bench.contract.loading import find_submissions, load_submission
from metaopt.bench.rules.check import RULES
from metaopt.bench.rules.workload_check import WORKLOAD_RULES
from metaopt.workloads.registry import FIXED_SUFFIX, list_workloads
from tests import study_tables
from tuning.campaign import list_campaigns
from tuning.cli import app as tuning_app
from tuning.contenders import SUBMISSIONS
from tuning.tuners import TUNERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
APPS = {"tuning": tuning_app, "analysis": analysis_app}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table of cells that are Markdown already."""
    header = list(header)
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def workloads() -> str:
    """Return every workload with changing batches: size, step hint, target."""
    rows = []
    for name, workload in list_workloads().items():
        if name.endswith(FIXED_SUFFIX):
            continue
        try:
            target = workload.targets.validation
            shown = f"{target.metric.removeprefix('validation/')} {target.value:.4g}"
        except ValueError:
            shown = "not frozen"
        summary = escape_markdown(workload.summary)
        batch, hint = f"{workload.reference_batch_size:,}", f"{workload.step_hint:,}"
        rows.append((f"`{name}`", summary, batch, hint, shown))
    return table(("workload", "data and model", "batch", "step hint", "validation target"), rows)


def submissions() -> str:
    """Return every submission with the first line of its docstring."""
    rows = []
    for name in find_submissions(SUBMISSIONS):
        summary, _, kind = load_submission(name, SUBMISSIONS).describe().rpartition(" [")
        rows.append((f"`{name}`", kind.rstrip("]"), escape_markdown(summary)))
    return table(("submission", "ruleset, further spaces", "method"), rows)


def tuners() -> str:
    """Return every tuner with the line that ``python -m tuning list`` shows."""
    rows = [
        (f"`{name}`", escape_markdown(kind.summary), "" if kind.module is None else f"`{name}`")
        for name, kind in TUNERS.items()
    ]
    return table(("tuner", "trials", "extra"), rows)


def campaigns() -> str:
    """Return every campaign that ships with the project."""
    rows = [(f"`{name}`", escape_markdown(line)) for name, line in list_campaigns().items()]
    return table(("campaign", "purpose"), rows)


def rules(found: Iterable[Any]) -> str:
    """Return rules of submissions or of workloads."""
    return table(("id", "rule"), ((f"`{rule.id}`", rule.title) for rule in found))


def log_rules() -> str:
    """Return what ``python -m analysis validate --rules --format markdown`` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_rules(None, Format.MARKDOWN)
    return printed.getvalue()


def commands_of(app: str) -> dict[str, Any]:
    """Return the commands of an app by name."""
    group: Any = typer.main.get_command(APPS[app])
    return group.commands


def options(app: str) -> str:
    """Return every command of an app with its arguments and options."""
    parts = []
    for name, command in commands_of(app).items():
        summary, _, example = inspect.cleandoc(command.help).partition("\n\nExample: ")
        summary, example = " ".join(summary.split()), " ".join(example.split())
        rows = []
        for parameter in command.params:
            shown = parameter.default.value if isinstance(parameter.default, Enum) else None
            if shown is None and parameter.default not in (None, False):
                shown = str(parameter.default)
            names = ", ".join(f"`{option}`" for option in parameter.opts)
            names = names.upper() if parameter.param_type_name == "argument" else names
            help = escape_markdown(" ".join((parameter.help or "").split()))
            rows.append((names, "" if shown is None else f"`{shown}`", help))
        heading = (
            f"### python -m {app} {name}\n\n{textwrap.fill(escape_markdown(summary), 100)}\n\n"
        )
        heading += f"Example: `{example}`\n\n" if example else ""
        parts.append(heading + table(("argument or option", "default", "meaning"), rows))
    return "\n".join(parts)


TABLES: dict[str, Callable[[], str]] = {
    "workloads": workloads,
    "submissions": submissions,
    "tuners": tuners,
    "campaigns": campaigns,
    "rules of submissions": lambda: rules(RULES),
    "rules of workloads": lambda: rules(WORKLOAD_RULES),
    "rules of logs": log_rules,
    "options of tuning": lambda: options("tuning"),
    "options of analysis": lambda: options("analysis"),
    "metaopt_step_size on desk": lambda: table(*study_tables.cost_rows("desk")),
    "metaopt_step_size on beyond_desk_fixed": lambda: table(
        *study_tables.cost_rows("beyond_desk_fixed")
    ),
    "metaopt_step_size on both": lambda: table(*study_tables.common_rows()),
    "metaopt_step_size on beyond_desk_ends": lambda: table(*study_tables.ends_rows()),
    "metaopt_step_size on beyond_desk_small": lambda: table(*study_tables.small_rows()),
    "metaopt_step_size on beyond_desk_scale": lambda: table(*study_tables.scale_rows()),
}
_MARKED = re.compile(r"(<!-- generated: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def regenerate(text: str) -> str:
    """Return a page with every generated table written again.

    Raises:
        KeyError: A marker names a table that does not exist.
    """
    return _MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def tables_of(text: str) -> list[str]:
    """Return the names of the generated tables on a page."""
    return [found[2] for found in _MARKED.finditer(text)]


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text("utf-8")
        after = regenerate(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(page.relative_to(ROOT))
