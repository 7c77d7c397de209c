"""The types of the arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.report.formats import Format

RulesetName = Literal["external", "self"]
CostUnit = Literal["steps", "gradient_evaluations", "seconds", "adjusted"]
CostView = Literal["including", "given"]

LogsArgument = Annotated[
    Path, typer.Argument(help="Folder or tar archive: the output of a campaign, or AlgoPerf logs.")
]
SeveralLogs = Annotated[
    list[Path],
    typer.Argument(
        metavar="LOGS",
        help="Folders or tar archives of one protocol: outputs of campaigns, or AlgoPerf logs.",
    ),
]
WithinOption = Annotated[str | None, typer.Option(help="Read only this folder inside LOGS.")]
TargetsOption = Annotated[
    Path | None,
    typer.Option(
        help="AlgoPerf's workload_targets.json. Default: the targets in our records, or those in "
        "the meta data of AlgoPerf's logs."
    ),
]
RulesetOption = Annotated[
    RulesetName | None,
    typer.Option(
        help="Refuse AlgoPerf logs of any other ruleset. Default: the ruleset in their flags."
    ),
]
StudiesOption = Annotated[
    int | None,
    typer.Option(help="Required number of studies in AlgoPerf logs. Default: the ruleset's."),
]
TrialsOption = Annotated[
    int | None,
    typer.Option(help="Trials per study that count in AlgoPerf logs. Default: the ruleset's."),
]
SubmissionsOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the submissions in AlgoPerf logs: each is shown by the submission_name in "
        "its submission_info.yml. Default: by its folder in the logs."
    ),
]
BudgetFactorOption = Annotated[
    float | None,
    typer.Option(
        help="Budget of a trial in units of max_allowed_runtime_sec. Default: the ruleset's."
    ),
]
CostOption = Annotated[
    CostUnit | None,
    typer.Option(
        help="Unit of the costs; adjusted means gradient evaluations times the time factor. "
        "Default: the unit of the budgets."
    ),
]
HardwareOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hardware",
        help="Keep only runs on this hardware, a name or id that `analysis hardware` prints. Give "
        "it several times to mix their seconds. Default: all runs.",
    ),
]
BoardOption = Annotated[
    Path | None,
    typer.Option("--board", help="Folder of the leaderboard. Default: leaderboard/ here."),
]
RerunOption = Annotated[
    Path | None,
    typer.Option(help="Output of a second run of the campaign, to verify contenders with."),
]
MixHardwareOption = Annotated[
    bool, typer.Option("--mix-hardware", help="Allow seconds of different hardware in one table.")
]
FormatOption = Annotated[Format, typer.Option(help="Format of the output.")]
ViewOption = Annotated[
    CostView, typer.Option(help="Costs including tuning, or of the tuned hyperparameters alone.")
]
ReferenceOption = Annotated[str, typer.Option(help="Contender that speed-ups are relative to.")]
