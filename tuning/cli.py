"""The commands of ``python -m tuning``: their options, their help and one call each."""

import math
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from analysis.command_line import given_options, one_line_errors
from metaopt.bench.records.redaction import redact
from tuning.completion import (
    complete_campaign,
    complete_contenders,
    complete_stability,
    complete_submission,
    complete_workload,
    complete_workloads,
)

_REHEARSALS = Path("runs/rehearsal")
_REHEARSAL_SECONDS = 240.0
_STORAGE = "METAOPT_STORAGE"  # an option would show a password to everyone on the machine

app = typer.Typer(
    help="Run submissions, compare them in campaigns, and prepare them for AlgoPerf.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _finite(value: float) -> float:
    """Refuse NaN and infinity, which a lower bound lets pass."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number, got {value}.")
    return value


def _whole_or_share(value: float | None) -> float | None:
    """Refuse 1.5 GPUs: Ray gives whole ones, or a share of one."""
    if value is not None and not (_finite(value) < 1 or value.is_integer()):
        raise typer.BadParameter(f"must be a whole number or a share below 1, got {value:g}.")
    return value


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


AnyFormat = Annotated[Format, typer.Option(help="Format of the output.")]
SubmissionName = Annotated[
    str,
    typer.Argument(help="Name or folder of a submission.", autocompletion=complete_submission),
]
_NAMES_HELP = "Names, separated by commas; replace the file's."
_CAMPAIGN_HELP = "TOML file, or the name of a shipped campaign."
CampaignName = Annotated[str, typer.Argument(help=_CAMPAIGN_HELP, autocompletion=complete_campaign)]
StabilityName = Annotated[
    str, typer.Argument(help=_CAMPAIGN_HELP, autocompletion=complete_stability)
]


@app.command("list")
def list_everything(format: AnyFormat = Format.TABLE) -> None:
    """List workloads, submissions, tuners and campaigns, with one line each.

    Example: python -m tuning list --format json
    """
    from tuning.commands.list_command import print_entries

    with one_line_errors("tuning"):
        print_entries(format.value)


@app.command()
def run(
    submission: SubmissionName,
    workload: Annotated[
        str, typer.Argument(help="Name of a workload.", autocompletion=complete_workload)
    ],
    hparams: Annotated[
        list[str] | None,
        typer.Option(help="name=value, replaces the submission's default. Repeat."),
    ] = None,
    budget: Annotated[str, typer.Option(help="2000grads, 500steps, 60s, or 2x step hints.")] = "1x",
    eval_period: Annotated[
        str | None, typer.Option(help="Cost between evaluations. Default: the workload's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 1,
    stall_seconds: Annotated[
        float,
        typer.Option(
            min=1.0,
            callback=_finite,
            help="Seconds without a step after which a trial has stalled.",
        ),
    ] = 1800.0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: the next runs/run-N.")
    ] = None,
) -> None:
    """Train one submission once on one workload and print the result.

    Example: python -m tuning run adamw digits_mlp --hparams learning_rate=0.01
    """
    from tuning.commands.run_command import run_and_print

    with one_line_errors("tuning"):
        code = run_and_print(
            submission, workload, hparams or [], budget=budget, eval_period=eval_period, seed=seed,
            out=out, stall_seconds=stall_seconds,
        )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def compare(
    context: typer.Context,
    campaign: CampaignName,
    workloads: Annotated[
        str | None, typer.Option(help=_NAMES_HELP, autocompletion=complete_workloads)
    ] = None,
    contenders: Annotated[
        str | None, typer.Option(help=_NAMES_HELP, autocompletion=complete_contenders)
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget of a study; replaces the file's.")
    ] = None,
    eval_period: Annotated[
        str | None, typer.Option(help="Cost between evaluations; replaces the file's.")
    ] = None,
    studies: Annotated[
        int | None, typer.Option(help="Number of studies; replaces the file's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; replaces the file's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder. Default: the newest unfinished runs/<campaign>-N of these "
            "options, else the next."
        ),
    ] = None,
    require_clean: Annotated[
        bool,
        typer.Option("--require-clean", help="Stop if the leaderboard would refuse the records."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a few steps and estimate the time.")
    ] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Run one study after another, in this process.")
    ] = False,
    cpus_per_study: Annotated[
        int | None, typer.Option(min=1, help="Cores for each study. Default: shared evenly.")
    ] = None,
    gpus_per_study: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            callback=_whole_or_share,
            help="GPUs for each study, or a share of one. Default: one, where there are GPUs.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="Address of a Ray cluster: HOST:PORT, or auto."),
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Start Ray's dashboard on this machine.")
    ] = False,
    slurm: Annotated[
        int, typer.Option(min=0, help="Submit the command to SLURM on this many nodes.")
    ] = 0,
    slurm_options: Annotated[
        list[str] | None,
        typer.Option("--slurm-option", help="name=value for sbatch, as in partition=gpu. Repeat."),
    ] = None,
) -> None:
    """Run a campaign and write its report. Call it again to resume.

    Example: python -m tuning compare demo --contenders metaopt,sgd+tpe --out runs/mine
    """
    from tuning.campaign import read_campaign
    from tuning.campaign_folder import check_data
    from tuning.cluster import Resources
    from tuning.commands import compare_command as command
    from tuning.slurm import submit

    code = 0
    with one_line_errors("tuning"):
        command.refuse_idle_options(given_options(context))
        plan = read_campaign(
            Path(campaign), workloads=_split(workloads), contenders=_split(contenders),
            budget=budget, eval_period=eval_period, studies=studies, seed=seed,
        )  # fmt: skip
        if not slurm:  # the job's machines have the data
            check_data(plan)
        folder = command.begin(plan, out, require_clean=require_clean, dry_run=dry_run)
        resources = Resources(address, cpus_per_study, gpus_per_study, dashboard)
        if dry_run:
            command.print_estimates(plan, cpus_per_study, in_process=in_process)
        elif slurm:
            arguments = sys.argv[1:] + ([] if out else ["--out", str(folder)])
            typer.echo(submit(arguments, folder, nodes=slurm, options=slurm_options or []))
        else:
            code = command.run_and_report(plan, folder, None if in_process else resources)
    raise typer.Exit(code)


@app.command()
def stability(
    campaign: StabilityName,
    seed: Annotated[int | None, typer.Option(help="Seed; replaces the file's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: runs/<campaign>.")
    ] = None,
) -> None:
    """Measure products of transitions (Figure 3) and write a report. Call it again to resume.

    Example: python -m tuning stability figure3_digits --out runs/figure3
    """
    from tuning.commands.stability_command import measure_and_report
    from tuning.stability import read_stability_campaign

    with one_line_errors("tuning"):
        plan = read_stability_campaign(Path(campaign), seed=seed)
        measure_and_report(plan, out or Path("runs") / plan.name)


@app.command()
def export(
    runs: Annotated[Path, typer.Argument(help="Output folder of a campaign.")],
    storage: Annotated[
        str, typer.Option(envvar=_STORAGE, help="sqlite:///FILE, or the URL of a server.")
    ],
) -> None:
    """Copy tuning studies into an Optuna storage, for its dashboard and visualisations.

    Example: python -m tuning export runs/demo --storage sqlite:///demo.db
    """
    from tuning.export import export_studies

    with one_line_errors("tuning"):
        for name, trials in export_studies(runs, storage):
            typer.echo(f"{name}: {trials} {'trial' if trials == 1 else 'trials'}")
    typer.echo(f"now: optuna-dashboard {shlex.quote(redact(storage))}")


@app.command()
def check(
    submission: SubmissionName,
    timeout: Annotated[
        float, typer.Option(min=1.0, callback=_finite, help="Seconds for all rules together.")
    ] = 120.0,
    format: AnyFormat = Format.TABLE,
) -> None:
    """Report what would disqualify or break a submission; exit code 1 if anything would.

    Example: python -m tuning check path/to/my_submission
    """
    from tuning.commands.check_command import print_findings

    with one_line_errors("tuning"):
        code = print_findings(submission, timeout=timeout, format=format.value)
    raise typer.Exit(code)


@app.command()
def rehearse(
    submission: SubmissionName,
    timeout: Annotated[
        float, typer.Option(min=1.0, callback=_finite, help="Seconds for each miniature.")
    ] = _REHEARSAL_SECONDS,
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = _REHEARSALS,
) -> None:
    """Train a submission on miniatures of AlgoPerf's workloads, check it, and write a page.

    The exit code is 1 if something would fail in a competition.

    Example: python -m tuning rehearse path/to/my_submission
    """
    from tuning.commands.rehearse_command import rehearse_and_report

    with one_line_errors("tuning"):
        code = rehearse_and_report(submission, out, timeout=timeout)
    raise typer.Exit(code)


@app.command()
def targets(
    workloads: Annotated[
        list[str], typer.Argument(help="Names of workloads.", autocompletion=complete_workload)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the procedure's records.")] = Path(
        "runs/targets"
    ),
    points: Annotated[
        int, typer.Option(min=1, help="Points of the search for each baseline.")
    ] = 100,
) -> None:
    """Set frozen targets by the stated procedure; writes package data and leaderboard/.

    The same command resumes. Exit code 1: no target of some workload repeats and is reached.

    Example: python -m tuning targets digits_mlp digits_mlp_fixed
    """
    from tuning.commands.targets_command import freeze_targets

    with one_line_errors("tuning"):
        code = freeze_targets(workloads, out, points=points)
    raise typer.Exit(code)


@app.command()
def download(
    folder: Annotated[str, typer.Argument(help="Name of a data set: mnist.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder of the files. Default: $METAOPT_DATA_DIR.")
    ] = None,
) -> None:
    """Download a data set's original files and verify them.

    Example: python -m tuning download mnist --to data
    """
    from metaopt.workloads.data.datasets import VARIABLE, data_root
    from metaopt.workloads.mnist import MNIST_FILES

    with one_line_errors("tuning"):
        root = to or data_root()
        if root is None:
            raise ValueError(f"Name a folder with --to, or set {VARIABLE}.")
        files = [file for file in MNIST_FILES.values() if file.folder == folder]
        if not files:
            raise ValueError(f"No data set {folder!r}, only ['mnist'].")
        for file in files:
            typer.echo(file.download(root))


@app.command()
def package(
    submission: SubmissionName,
    out: Annotated[Path, typer.Option(help="Folder to write; empty or missing.")],
    name: Annotated[str | None, typer.Option(help="Name on the leaderboard.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="Folder on the leaderboard: the name of a module.")
    ] = None,
    authors: Annotated[str | None, typer.Option(help="Authors, separated by commas.")] = None,
    affiliations: Annotated[
        str | None, typer.Option(help="Affiliations, separated by commas.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the submission, as in 1.0.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="One line on the algorithm.")] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Output folder of a campaign with it, for PULL_REQUEST.md."),
    ] = None,
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearsal/--no-rehearsal", help="Rehearse it, and write nothing if that fails."
        ),
    ] = True,
) -> None:
    """Write a submission as a folder for a pull request to mlcommons/submissions_algorithms.

    PULL_REQUEST.md is the text of the pull request.

    Example: python -m tuning package path/to/my_submission --out packaged --version 1.0
    """
    from tuning.commands.package_command import package_and_print

    flags = {
        "submission_name": name,
        "submission_folder": folder,
        "authors": authors,
        "affiliations": affiliations,
        "version": version,
        "description": description,
    }
    with one_line_errors("tuning"):
        package_and_print(
            submission, out, flags, runs=evidence, rehearsals=_REHEARSALS if rehearsal else None,
            timeout=_REHEARSAL_SECONDS,
        )  # fmt: skip


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",")]
