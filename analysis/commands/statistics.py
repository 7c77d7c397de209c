"""``python -m analysis statistics`` and ``hardware``: what is computed, in every format."""

import json
from collections.abc import Sequence

import typer
from rich.console import Console

from analysis.report.formats import Format, as_text
from analysis.report.inference_tables import (
    ROWS_HEADER,
    inference_document,
    inference_rows,
    inference_tables,
)
from analysis.report.pages import csv_text
from analysis.report.tables import Table
from analysis.report.terminal import print_tables
from analysis.statistics.inference import Inference


def print_inference(found: Inference, notes: Sequence[str], format: Format) -> None:
    """Print the statistics; ``csv`` and ``json`` have every number, the others tables."""
    if format is Format.JSON:
        document = inference_document(found) | {"notes": list(notes)}
        typer.echo(json.dumps(document, allow_nan=False))
    elif format is Format.CSV:
        typer.echo(csv_text(ROWS_HEADER, inference_rows(found)), nl=False)
    else:
        print_listed(inference_tables(found), (*notes, *found.warnings), format)


def print_listed(tables: Sequence[Table], warnings: Sequence[str], format: Format) -> None:
    """Print tables, each with its caption; warnings only in a terminal, where nothing reads on.

    Raises:
        ValueError: JSON is asked for, which has no tables.
    """
    if format is Format.JSON:
        raise ValueError("--format json is not offered here, only table, csv, markdown, latex.")
    if format is Format.TABLE:
        print_tables(tables, warnings, Console())
    else:
        typer.echo("\n".join(as_text(table, format) for table in tables), nl=False)
