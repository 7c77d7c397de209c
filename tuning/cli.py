"""The commands of ``python -m tuning``: parse, call one function, print one result."""

import dataclasses
import json
import math
import os
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from analysis.command_line import one_line_errors, shown_command
from metaopt.bench.records.redaction import redact

_STORAGE = "METAOPT_STORAGE"  # may hold what --storage would show to everybody on the machine

app = typer.Typer(
    help="Tune and compare optimizers under equal budgets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _finite(value: float) -> float:
    """Refuse NaN and infinity, which a lower bound lets pass."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number, got {value}.")
    return value


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


@app.command("list")
def list_everything(
    format: Annotated[Format, typer.Option(help="how to print it")] = Format.TABLE,
) -> None:
    """List workloads, submissions, tuners and campaigns, with one line each."""
    from metaopt.bench.contract.loading import find_submissions, load_submission
    from metaopt.workloads.algoperf_workloads import list_workloads as list_algoperf_workloads
    from metaopt.workloads.registry import list_workloads
    from tuning.campaign import list_campaigns
    from tuning.contenders import SUBMISSIONS
    from tuning.plugin_list import list_additions
    from tuning.tuners import TUNERS

    with one_line_errors("tuning"):
        workloads = {name: w.summary for name, w in list_workloads().items()}
        submissions = {}
        for name in find_submissions(SUBMISSIONS):
            submissions[name] = load_submission(name, SUBMISSIONS).describe()
        tuners = {name: kind.line(name) for name, kind in TUNERS.items()}
        kinds = {
            "workloads": workloads,
            "workloads of AlgoPerf": list_algoperf_workloads(),
            "submissions": submissions,
            "tuners": tuners,
            "campaigns": list_campaigns(),
        }
        for kind, entries in list_additions().items():
            kinds[kind] = kinds.get(kind, {}) | entries
    if format is Format.JSON:
        typer.echo(json.dumps({kind: sorted(entries) for kind, entries in kinds.items()}))
        return
    console = Console()
    for kind, entries in kinds.items():
        table = Table(title=kind, title_justify="left", title_style="bold", box=None)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column()
        for name, summary in sorted(entries.items()):
            table.add_row(name, summary.replace("[", r"\["))
        console.print(table)
        console.print()


@app.command()
def run(
    submission: Annotated[str, typer.Argument(help="name or folder of a submission")],
    workload: Annotated[str, typer.Argument(help="name of a workload")],
    hparams: Annotated[
        list[str] | None, typer.Option(help="name=value, over the submission's defaults; repeat")
    ] = None,
    budget: Annotated[str, typer.Option(help="2000grads, 500steps, 60s, or 2x step hints")] = "1x",
    eval_period: Annotated[
        str | None, typer.Option(help="cost between evaluations; default: the workload's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the run")] = 1,
    stall_seconds: Annotated[
        float,
        typer.Option(
            min=1.0, callback=_finite, help="without a step, after which it counts as stalled"
        ),
    ] = 1800.0,
    out: Annotated[Path, typer.Option(help="output folder")] = Path("runs/run"),
) -> None:
    """Train one submission once on one workload, and print how it went."""
    from analysis.logs.audits import audit_summary, findings_of, read_audits
    from tuning.single import run_single

    with one_line_errors("tuning"):
        record, folder = run_single(
            submission, workload, hparams or [], budget=budget, eval_period=eval_period, seed=seed,
            out=out, stall_seconds=stall_seconds,
        )  # fmt: skip
    cost = record.ledger.cost
    head = f"{record.status}: " if record.cause is None else f"{record.status}: {record.cause}\n"
    best = "none" if record.best is None else f"{record.best:.6g}"
    typer.echo(
        f"{head}best {record.target.metric} {best} (target {record.target.value:.6g}), "
        f"{cost.steps} steps, {cost.gradient_evaluations:g} gradient evaluations, "
        f"{cost.seconds:.2f} s of which {record.ledger.compilation_seconds:.2f} s compilation"
    )
    audits = read_audits(folder)
    if audits:
        typer.echo(audit_summary(audits))
    for failed, word in ((True, "AUDIT FAILED"), (False, "audit noted")):
        for finding in findings_of(audits, failed=failed):
            typer.echo(f"{word}: {finding}", err=failed)
    typer.echo(folder)
    if record.error is not None:
        typer.echo(record.error, err=True)
    if record.cause is not None or not cost.steps:
        raise typer.Exit(1)


@app.command()
def compare(
    campaign: Annotated[str, typer.Argument(help="TOML file, or the name of a shipped campaign")],
    workloads: Annotated[str | None, typer.Option(help="comma separated, over the file's")] = None,
    contenders: Annotated[str | None, typer.Option(help="comma separated, over the file's")] = None,
    budget: Annotated[str | None, typer.Option(help="of a study, over the file's")] = None,
    eval_period: Annotated[
        str | None, typer.Option(help="cost between evaluations, over the file's")
    ] = None,
    studies: Annotated[int | None, typer.Option(help="repetitions, over the file's")] = None,
    seed: Annotated[int | None, typer.Option(help="over the file's")] = None,
    out: Annotated[Path | None, typer.Option(help="default: runs/<campaign>")] = None,
    workers: Annotated[int | None, typer.Option(help="processes; default: one per core")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="measure a few steps and say what it would take")
    ] = False,
) -> None:
    """Run a campaign, or go on with it, and write its report."""
    from tuning.campaign import read_campaign, read_document
    from tuning.executor import UnfinishedError, run_campaign

    changes = {
        "workloads": _split(workloads),
        "contenders": _split(contenders),
        "budget": budget,
        "eval_period": eval_period,
        "studies": studies,
        "seed": seed,
    }
    with one_line_errors("tuning"):
        if read_document(Path(campaign)).get("kind") == "stability":
            _measure_stability(Path(campaign), {**changes, "workers": workers}, out)
            return
        plan = read_campaign(Path(campaign), **changes)
        if dry_run:
            _print_estimates(plan, workers)
            return
        folder = out or Path("runs") / plan.name
        unfinished = None
        try:
            run_campaign(plan, folder, workers=workers, console=Console(stderr=True))
        except UnfinishedError as error:
            if not error.finished:
                raise
            unfinished = error
        _finish_campaign(plan, folder)
        if unfinished is not None:
            typer.echo(f"tuning: {unfinished}", err=True)
            raise typer.Exit(1)
        _exit_if_broken(folder)


def _print_estimates(campaign: Any, workers: int | None) -> None:
    """Print what every contender will do and what that takes, from a few measured steps."""
    from rich.progress import track

    from analysis.report.terminal import print_table
    from tuning.cores import available_cores, kept_to, share_cores
    from tuning.estimate import estimate_table, list_probes, probe_all
    from tuning.executor import check_data, count_workers, list_studies

    processes = count_workers(campaign, workers, len(list_studies(campaign)))
    check_data(campaign)
    console = Console(stderr=True)
    probes = track(
        list_probes(campaign), "measuring", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with kept_to(share_cores(available_cores(), processes)[0]):  # as the campaign's processes are
        estimates = probe_all(campaign, probes)
    print_table(estimate_table(estimates, processes), Console())
    for estimate in estimates:
        if estimate.failures is not None:
            typer.echo(f"warning: {estimate.key.contender} on {estimate.key.workload}: "
                       f"{estimate.failures}", err=True)  # fmt: skip


def _finish_campaign(campaign: Any, folder: Path) -> None:
    """Write the report, print the scores, and see that all spent the same."""
    from analysis.commands.score import print_scores
    from analysis.logs.reader import read_logs
    from analysis.report.report import write_report
    from analysis.scoring.scores import score_logs
    from metaopt.bench.records import STUDY_FILE, read_study
    from tuning.executor import check_budgets, list_studies

    logs = read_logs(folder)
    report = write_report(logs, folder / "report", command=shown_command("tuning"))
    print_scores(logs, score_logs(logs))
    typer.echo(f"report: {report}")
    paths = [key.folder(folder) / STUDY_FILE for key in list_studies(campaign)]
    check_budgets([read_study(path) for path in paths if path.exists()])


def _exit_if_broken(folder: Path, *, say: bool = False) -> None:
    """Exit with 1 if, in the studies in ``folder``, a contender failed throughout on a workload.

    Args:
        folder: The output folder.
        say: Print which.
    """
    from analysis.checks.fairness import find_failures
    from analysis.logs.reader import read_logs
    from analysis.report.summary import warning_lines
    from analysis.report.terminal import print_note
    from metaopt.bench.records import RUN_FILE

    if next(folder.rglob(RUN_FILE), None) is None:  # all trials are in other workers' folders
        return
    logs = read_logs(folder)
    if say:
        for line in warning_lines(logs, serious=True):
            print_note(line, Console())
    if any(failures.is_broken for failures in find_failures(logs)):
        raise typer.Exit(1)


@app.command()
def worker(
    campaign: Annotated[str, typer.Argument(help="TOML file, or the name of a shipped campaign")],
    storage: Annotated[
        str,
        typer.Option(
            envvar=_STORAGE, help="postgresql://..., mysql://..., journal:FILE or grpc://HOST:PORT"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="default: runs/<campaign>; best on a shared disk")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="processes; default: one per core")] = None,
    lease_seconds: Annotated[
        float,
        typer.Option(
            min=1.0, callback=_finite, help="without a sign of life, after which a study is free"
        ),
    ] = 60.0,
    slurm: Annotated[
        int, typer.Option(min=0, help="submit so many workers as a SLURM array job instead")
    ] = 0,
    slurm_options: Annotated[
        list[str] | None,
        typer.Option("--slurm-option", help="name=value for sbatch, as in partition=gpu; repeat"),
    ] = None,
) -> None:
    """Join a campaign that several machines run together; ends when all studies have."""
    from tuning.campaign import read_campaign
    from tuning.executor import list_studies
    from tuning.locks import hold
    from tuning.slots import LOCKS
    from tuning.worker import missing_studies, run_worker

    with one_line_errors("tuning"):
        plan = read_campaign(Path(campaign))
        folder = out or Path("runs") / plan.name
        if slurm:
            from tuning.slurm import submit_workers

            command = _worker_command(campaign, folder, workers, lease_seconds)
            if redact(storage) == storage:
                command += ["--storage", storage]
            else:  # not on a command line, which job files and logs hold; jobs inherit this
                os.environ[_STORAGE] = storage
            typer.echo(submit_workers(command, slurm, folder, slurm_options or [])[0])
            return
        _leave_on_sigterm()
        run_worker(
            plan, folder, storage, workers=workers, lease_seconds=lease_seconds,
            console=Console(stderr=True),
        )  # fmt: skip
        said = False
        if elsewhere := missing_studies(plan, folder):
            count = len(list_studies(plan)) - len(elsewhere)
            typer.echo(
                f"All studies have come to their end; {count} of them are in {folder}, "
                f"{len(elsewhere)} in other workers' folders: put all into one, then python -m "
                "analysis report"
            )
        else:
            lock = folder / LOCKS / "report.lock"
            with hold(lock, f"The report of {folder}", wait_seconds=600.0):
                if not (folder / "report" / "report.html").exists():
                    _finish_campaign(plan, folder)
                    said = True
        _exit_if_broken(folder, say=not said)


def _worker_command(
    campaign: str, out: Path, workers: int | None, lease_seconds: float
) -> list[str]:
    command = ["-m", "tuning", "worker", campaign, "--out", str(out)]
    command += ["--lease-seconds", f"{lease_seconds:g}"]
    return command + ([] if workers is None else ["--workers", str(workers)])


def _leave_on_sigterm() -> None:
    """Give studies back when a cluster's scheduler asks a worker to go."""

    def leave(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)


@app.command()
def export(
    runs: Annotated[Path, typer.Argument(help="a campaign's output folder")],
    storage: Annotated[
        str, typer.Option(envvar=_STORAGE, help="sqlite:///FILE, or a server's URL")
    ],
) -> None:
    """Copy tuning studies into an Optuna storage, for its dashboard and visualisations."""
    from tuning.export import export_studies

    with one_line_errors("tuning"):
        for name, trials in export_studies(runs, storage):
            typer.echo(f"{name}: {_count(trials, 'trial')}")
    typer.echo(f"now: optuna-dashboard {shlex.quote(redact(storage))}")


def _measure_stability(path: Path, changes: dict[str, Any], out: Path | None) -> None:
    """Run a campaign on sequential stability, or go on with it, and write its report."""
    from rich.progress import Progress

    from analysis.report.stability import stability_summary
    from analysis.report.stability_report import write_stability_report
    from analysis.report.terminal import print_table
    from tuning.campaign import read_document
    from tuning.stability import make_stability_campaign, run_stability

    given = {key: value for key, value in changes.items() if value is not None}
    if others := sorted(given.keys() - {"seed"}):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise ValueError(f"A campaign on stability takes --seed and --out only, got {names}.")
    plan = make_stability_campaign(read_document(path) | given, str(path))
    folder = out or Path("runs") / plan.name
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(plan.name, total=None)
        record = run_stability(
            plan, folder, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    report = write_stability_report(folder, folder / "report", command=shown_command("tuning"))
    print_table(stability_summary(record), Console())
    typer.echo(f"report: {report}")


@app.command()
def check(
    submission: Annotated[str, typer.Argument(help="name or folder of a submission")],
    timeout: Annotated[
        float, typer.Option(min=1.0, callback=_finite, help="seconds for all of it")
    ] = 120.0,
    format: Annotated[Format, typer.Option(help="how to print it")] = Format.TABLE,
) -> None:
    """Report what would disqualify or break a submission; exit code 1 if anything would."""
    from metaopt.bench.contract.loading import find_submission_folder
    from metaopt.bench.rules.check import RULES, check_apart, rules_left_out
    from tuning.contenders import SUBMISSIONS

    with one_line_errors("tuning"):
        folder = find_submission_folder(submission, SUBMISSIONS)
        found = [
            dataclasses.replace(finding, what=redact(finding.what))
            for finding in check_apart(folder, timeout=timeout)
        ]
    errors = [finding for finding in found if finding.severity == "error"]
    if format is Format.JSON:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in found]))
    else:
        for finding in found:
            typer.echo(f"{finding.severity}: {finding.rule}: {finding.where}: {finding.what}")
            typer.echo(f"    {finding.fix}")
        counts = [_count(len(errors), "error"), _count(len(found) - len(errors), "note")]
        if left_out := rules_left_out(found):
            counts.append(f"{len(left_out)} not applied for these errors: {', '.join(left_out)}")
        typer.echo(f"{len(RULES)} rules: {', '.join(counts)}")
    if errors:
        raise typer.Exit(1)


@app.command()
def targets(
    workloads: Annotated[list[str], typer.Argument(help="names of workloads")],
    trials: Annotated[int, typer.Option(min=1, help="search trials for each baseline")] = 100,
) -> None:
    """Set frozen targets by the stated procedure; writes package data and leaderboard/."""
    from metaopt.bench.measure.targets import load_targets, to_document
    from metaopt.bench.records import write_json
    from metaopt.bench.trial.environment import CHECKOUT
    from tuning.targets import set_targets

    with one_line_errors("tuning"):
        path = CHECKOUT / "metaopt" / "bench" / "targets.json"
        known = dict(load_targets(path)) if path.exists() else {}
        for name in workloads:
            known[name] = set_targets(name, trials=trials, say=lambda line: typer.echo(line))
            found = known[name]
            typer.echo(
                f"{name}: {found.validation.metric} {found.validation.value:.6g}, "
                f"{found.test.metric} {found.test.value:.6g}"
            )
            for copy in (path, CHECKOUT / "leaderboard" / "targets.json"):
                write_json(copy, to_document(known))


@app.command()
def download(
    folder: Annotated[str, typer.Argument(help="data set: mnist")],
    to: Annotated[Path | None, typer.Option(help="default: $METAOPT_DATA_DIR")] = None,
) -> None:
    """Fetch a data set's original files and check them."""
    from metaopt.workloads.data.datasets import VARIABLE, data_root
    from metaopt.workloads.mnist import MNIST_FILES

    with one_line_errors("tuning"):
        root = to or data_root()
        if root is None:
            raise ValueError(f"Say where to with --to, or set {VARIABLE}.")
        files = [file for file in MNIST_FILES.values() if file.folder == folder]
        if not files:
            raise ValueError(f"No data set {folder!r}, only ['mnist'].")
        for file in files:
            typer.echo(file.download(root))


@app.command()
def package(
    submission: Annotated[str, typer.Argument(help="name or folder of a submission")],
    out: Annotated[Path, typer.Option(help="new or empty folder")],
    name: Annotated[str | None, typer.Option(help="on the leaderboard")] = None,
    folder: Annotated[str | None, typer.Option(help="its folder there: a module's name")] = None,
    authors: Annotated[str | None, typer.Option(help="separated by commas")] = None,
    affiliations: Annotated[str | None, typer.Option(help="separated by commas")] = None,
    version: Annotated[str | None, typer.Option(help="of the submission, as in 1.0")] = None,
    description: Annotated[str | None, typer.Option(help="one line on the algorithm")] = None,
) -> None:
    """Write a submission as a folder for a pull request to mlcommons/submissions_algorithms."""
    from tuning.packaging import package_submission

    flags = {
        "submission_name": name,
        "submission_folder": folder,
        "authors": authors,
        "affiliations": affiliations,
        "version": version,
        "description": description,
    }
    ask = (lambda key: typer.prompt(key)) if sys.stdin.isatty() else None
    with one_line_errors("tuning"):
        packaged = package_submission(submission, out, flags, ask)
    for warning in packaged.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for file in packaged.files:
        typer.echo(packaged.folder / file)
    typer.echo(
        f"Loaded in an empty process and took a step, with {packaged.versions}. It belongs in "
        f"{packaged.destination} of mlcommons/submissions_algorithms; submission_info.yml is also "
        "the yaml block of the pull request, whose title has [submission]."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",")]
