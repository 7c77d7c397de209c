"""Optuna's storages, opened by URL."""

from pathlib import Path
from urllib.parse import urlsplit

import optuna
import sqlalchemy.engine
import sqlalchemy.exc
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend

from metaopt.bench.records.redaction import redact

FORMS = (
    "sqlite:///file.db",
    "journal:file.log",
    "postgresql://user:password@host/database",
    "mysql://user:password@host/database",
    "grpc://host:port",
)
_DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}


def open_storage(url: str) -> BaseStorage:
    """Open one of Optuna's storages.

    Raises:
        ValueError: The URL has none of the known forms, or a driver is not installed.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "journal":
        path = Path(url.removeprefix("journal:"))
        if not path.parent.is_dir():
            raise ValueError(f"No folder {str(path.parent)!r} for the journal {redact(url)!r}.")
        backend = JournalFileBackend(str(path))
        return optuna.storages.JournalStorage(backend)
    if scheme == "grpc":
        host, port = urlsplit(url).hostname, urlsplit(url).port
        if host is None or port is None:
            raise ValueError(f"A gRPC proxy is given as grpc://host:port, got {redact(url)!r}.")
        storage = optuna.storages.GrpcStorageProxy(host=host, port=port)
        storage.wait_server_ready(timeout=5)
        return storage
    if scheme not in ("postgresql", "mysql", "sqlite"):
        raise ValueError(f"A storage is one of {list(FORMS)}, got {redact(url)!r}.")
    if scheme != "sqlite" and url.partition("?")[0].count("@") > 1:  # drivers would print the rest
        raise ValueError(f"An @ in a password must be written as %40, got {redact(url)!r}.")
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the latter of its port
        raise ValueError(f"A storage is one of {list(FORMS)}, got {redact(url)!r}.") from None
    if parsed.drivername in _DRIVERS:
        parsed = parsed.set(drivername=f"{scheme}+{_DRIVERS[scheme]}")
    try:
        return optuna.storages.RDBStorage(
            parsed.render_as_string(hide_password=False),
            engine_kwargs={"pool_pre_ping": True},  # a connection that was lost is made anew
        )
    except ImportError:
        raise ValueError(
            f"{scheme} needs a driver: pip install {_DRIVERS.get(scheme, scheme)}, or the extra "
            "`storage` of this project."
        ) from None
