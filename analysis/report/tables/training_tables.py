"""Tables of final values, of episodes, and of the importance of hyperparameters."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.report.marks import Marks
from analysis.report.table import COUNT, SHARE, CellFormat, Column, Share, Table, number_format
from analysis.training.episodes import is_loss
from analysis.training.final_values import PHASES, EpisodeFinalLoss, FinalValues, MeanAndRange
from analysis.training.hyperparameters import Importance


@dataclasses.dataclass(frozen=True)
class _Mean:
    """A mean with its range, and the planned number of studies."""

    summary: MeanAndRange
    studies: int
    cut: bool = False


def _mean(spec: str) -> CellFormat:
    """Return the format "mean (low to high)", with "k/n" if only k of n studies have a value."""

    def show(value: _Mean) -> str:
        summary = value.summary
        if not summary.finite:
            return "not finite" if summary.of else ""
        mean, low, high = (f"{v:{spec}}" for v in (summary.mean, summary.low, summary.high))
        text = mean if low == high else f"{mean} ({low} to {high})"
        if summary.finite != value.studies:
            text += f" {summary.finite}/{value.studies}"
        return f"{text} cut" if value.cut else text

    def fields(value: _Mean) -> Mapping[str, Any]:
        summary = value.summary
        return {"": summary.mean, "low": summary.low, "high": summary.high}

    return CellFormat(show, fields, lambda value: value.summary.mean)


def _column(name: str) -> Column:
    return Column(name, _mean(".3g" if is_loss(name) else ".4g"))


def final_values_tables(ends: Sequence[FinalValues], marks: Marks) -> list[Table]:
    """Return one table per workload; training losses and phases only if there are any."""
    tables = []
    for workload in dict.fromkeys(end.workload for end in ends):
        mine = [end for end in ends if end.workload == workload]
        metric, test = mine[0].validation_metric, mine[0].test_metric
        has_phase = any(end.phase for end in mine)
        has_loss = any(end.loss.finite for end in mine)
        columns = [Column("contender", marks.format)]
        columns += [_column("training loss")] if has_loss else []
        columns += [_column(metric), _column(test), Column("steps", _mean(",.0f"))]
        columns += [Column("phase")] if has_phase else []
        columns.append(Column("studies", SHARE))
        rows = []
        for end in mine:
            parts = [end.loss] if has_loss else []
            parts += [end.validation, end.test, end.steps]
            row: list[Any] = [end.contender]
            row += [_Mean(part, part.of) if part.finite else None for part in parts]
            row += [end.phase] if has_phase else []
            rows.append((*row, Share(end.found, end.studies)))
        caption = f"{workload}: the trial of each study with the best last {metric}"
        tables.append(Table(caption, tuple(columns), tuple(rows), workload=workload))
    return tables


def final_values_table(ends: Sequence[FinalValues]) -> Table:
    """Return the final values on all workloads as one table."""
    names = ["workload", "contender", "studies", "found", "phase", "validation_metric",
             "test_metric"]  # fmt: skip
    parts = ("loss", "validation", "test", "steps")
    keys = ("train_loss", "validation", "test", "steps")
    names += [f"{key}_{edge}" for key in keys for edge in ("mean", "low", "high")]
    rows = tuple(
        (
            end.workload, end.contender, end.studies, end.found, end.phase, end.validation_metric,
            end.test_metric,
            *(getattr(getattr(end, part), edge)
              for part in parts for edge in ("mean", "low", "high")),
        )
        for end in ends
    )  # fmt: skip
    return Table("Last evaluations", tuple(map(Column, names)), rows, "ends", keys=2)


def episode_tables(ends: Sequence[EpisodeFinalLoss]) -> list[Table]:
    """Return one table per workload: a row per episode, a column per learner."""
    tables = []
    for workload in dict.fromkeys(end.workload for end in ends):
        mine = {(e.phase, e.episode, e.contender): e for e in ends if e.workload == workload}
        names = sorted({name for _, _, name in mine})
        studies = {name: _studies(mine, name) for name in names}
        rows = []
        for phase, episode in sorted(
            {key[:2] for key in mine}, key=lambda key: (PHASES.index(key[0]), key[1])
        ):
            label = str(episode)
            if phase != "learning":
                label = phase if episode == 1 else f"{phase} {episode}"
            cells = []
            for name in names:
                end = mine.get((phase, episode, name))
                whole = end is not None and end.cut == end.studies
                cells.append(None if end is None else _Mean(end.loss, studies[name], whole))
            rows.append((label, *cells))
        caption = f"{workload}: training loss at the last evaluation of each episode"
        columns = (Column("episode"), *(Column(name, _mean(".3g")) for name in names))
        tables.append(Table(caption, columns, tuple(rows), workload=workload))
    return tables


def _studies(ends: Mapping[tuple[str, int, str], EpisodeFinalLoss], name: str) -> int:
    """Return the number of a learner's studies, which all have a first episode in some phase."""
    return max(end.studies for (_, number, n), end in ends.items() if n == name and number == 1)


def episodes_table(ends: Sequence[EpisodeFinalLoss]) -> Table:
    """Return the final losses of all episodes as one table."""
    names = ("workload", "contender", "hyperparameters", "phase", "episode", "studies", "cut",
             "finite", "loss_mean", "loss_low", "loss_high")  # fmt: skip
    rows = tuple(
        (
            end.workload, end.contender, end.hyperparameters or None, end.phase, end.episode,
            end.studies, end.cut, end.loss.finite, end.loss.mean, end.loss.low, end.loss.high,
        )
        for end in ends
    )  # fmt: skip
    return Table("Episodes", tuple(map(Column, names)), rows, "episodes", keys=5)


def importance_table(found: Sequence[Importance]) -> Table:
    """Return one row per hyperparameter."""
    rows = [
        (one.workload, one.contender, name, mean, deviation, one.explained, one.trials)
        for one in found
        for name, mean, deviation in zip(one.names, one.means, one.deviations, strict=True)
    ]
    share = number_format("z.2f")
    columns = (
        Column("workload"), Column("contender"), Column("hyperparameter"),
        Column("importance", share), Column("deviation", share), Column("explained", share),
        Column("trials", COUNT),
    )  # fmt: skip
    caption = "Importance of hyperparameters; deviation: over folds and shuffles"
    facets = tuple({"workload": [row[0]]} for row in rows)
    return Table(caption, columns, tuple(rows), "importance", facets=facets, keys=3)
