"""No secret of a command line or of the environment reaches a message or a record."""

import sys

import pytest

from analysis.command_line import run_app, shown_command
from metaopt.bench.records.redaction import redact
from metaopt.bench.trial.runner import run_trial
from metaopt.workloads.synthetic import Quadratic
from tuning.cli import app

SECRET = "TopSecret1"
URL = f"postgresql://me:{SECRET}@127.0.0.1:1/base"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "postgresql://me:***@127.0.0.1:1/base"),
        (f"mysql+pymysql://me:p%40{SECRET}@host/x", "mysql+pymysql://me:***@host/x"),
        (f"mysql://me:a@b/{SECRET}@host/x", "mysql://me:***@host/x"),
        (f"postgresql:///x?user=me&password={SECRET}&host=h",
         "postgresql:///x?user=me&password=***&host=h"),
        (f"host=h sslpassword='{SECRET} and more' user=me", "host=h sslpassword=*** user=me"),
        (f"{{'password': '{SECRET}', 'port': 5}}", "{'password': ***, 'port': 5}"),
        (f"PGPASSWORD={SECRET} psql", "PGPASSWORD=*** psql"),
        (f"api_key={SECRET}, access_token={SECRET}", "api_key=***, access_token=***"),
    ],
)  # fmt: skip
def test_a_secret_is_replaced_by_stars_and_the_rest_stays(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///runs/a.db",
        "journal:/shared/disk/file.log",
        "grpc://host:4000",
        "postgresql://me@/base?host=/tmp",
        "FATAL: password authentication failed for user me",
        "max_tokens=5, eos_token=1",
        "runs/adamw@paper+grid: learning_rate=0.1",
    ],
)
def test_text_without_a_secret_stays_as_it_is(text):
    assert redact(text) == text


def test_a_password_is_found_where_it_stands_alone():
    driver = "the server refused 'p@ss word', and p%40ss%20word"

    assert redact(driver, "mysql://me:p%40ss%20word@host/x") == "the server refused '***', and ***"


@pytest.mark.parametrize(
    "name", ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY", "X_CREDENTIALS"]
)
def test_secrets_of_the_environment_are_known(monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "certainly")

    assert redact(f"certainly {SECRET}") == "certainly ***"


def test_a_command_is_shown_without_its_secrets(monkeypatch):
    url = 'mysql://me:it\'s "secret"@host/base'
    monkeypatch.setattr(sys, "argv", ["tuning", "export", "runs", "--storage", url])

    shown = "python -m tuning export runs --storage 'mysql://me:***@host/base'"
    assert shown_command("tuning") == shown


def test_the_error_of_a_trial_has_no_secret(tmp_path, make_plan, make_gradient_descent):
    def connect(step):
        raise RuntimeError(f"cannot log on to {URL}")

    submission = make_gradient_descent(before_step=connect)

    record = run_trial(make_plan(submission, Quadratic()), tmp_path)

    assert record.status == "crashed"
    assert "postgresql://me:***@127.0.0.1:1/base" in record.error
    assert not [path for path in tmp_path.iterdir() if SECRET in path.read_text()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", ".", "--storage", f"redis://me:{SECRET}@host"],
        ["export", ".", URL],
    ],
    ids=" ".join,
)
def test_a_refused_command_says_why_without_the_secret(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert run_app(app, "tuning", arguments) == 2

    said = "".join(capsys.readouterr())
    assert said.startswith("tuning: ")
    assert SECRET not in said


def test_a_defect_is_shown_without_secrets(monkeypatch, capsys):
    def fail(runs, storage):
        raise LookupError(f"no table in {storage}")

    monkeypatch.setattr("tuning.export.export_studies", fail)

    assert run_app(app, "tuning", ["export", ".", "--storage", URL]) == 1
    assert "LookupError: no table in postgresql://me:***@127" in capsys.readouterr().err


def test_what_was_exported_is_named_without_the_password(monkeypatch, capsys):
    monkeypatch.setattr("tuning.export.export_studies", lambda runs, storage: [("a study", 2)])

    assert run_app(app, "tuning", ["export", ".", "--storage", URL]) == 0
    assert capsys.readouterr().out == (
        "a study: 2 trials\nnow: optuna-dashboard 'postgresql://me:***@127.0.0.1:1/base'\n"
    )
