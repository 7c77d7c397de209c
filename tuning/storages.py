"""Shared storages: Optuna's own, opened by URL, and calls to them that wait for a server."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import optuna
import sqlalchemy.engine
import sqlalchemy.exc
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend

from metaopt.bench.records.redaction import redact

T = TypeVar("T")

FORMS = (
    "postgresql://user:password@host/database",
    "mysql://user:password@host/database",
    "journal:/shared/disk/file.log",
    "grpc://host:port",
    "sqlite:///file.db (to look at, not to share)",
)
_DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between tries; half a minute in all


class StorageError(ValueError):
    """A storage did not answer."""


class PatientStorage:
    """Makes calls to a storage and tries again, with longer and longer waits, when one fails.

    Args:
        url: One of :data:`FORMS`.
        waits: Seconds between tries.
        sleep: How to wait.

    Raises:
        StorageError: It does not answer.
        ValueError: The URL has another form, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        waits: tuple[float, ...] = _WAITS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = redact(url)
        self._url = url
        self._waits = waits
        self._sleep = sleep
        # In a new database another worker may be making Optuna's tables at the same time.
        at_once = (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError)
        self._storage = self._try(lambda: open_storage(url), (*_failures(), *at_once))

    def call(self, action: Callable[[BaseStorage], T]) -> T:
        """Return ``action(storage)``; it may be run again, also where it had come through.

        Raises:
            StorageError: It failed every time.
        """
        return self._try(lambda: action(self._storage), _failures())

    def _try(self, action: Callable[[], T], failures: tuple[type[BaseException], ...]) -> T:
        for wait in (*self._waits, None):
            try:
                return action()
            except failures as error:
                if wait is None:
                    what = redact(str(error).strip().split("\n")[0], self._url)
                    raise StorageError(
                        f"The storage {self.name} does not answer ({what}). Nothing is lost: run "
                        "the same command again to go on."
                    ) from None
                self._sleep(wait)
        raise AssertionError("the last try returns or raises")


def _failures() -> tuple[type[BaseException], ...]:
    """Return what a server that is away raises; a mistake of ours is none of it."""
    kinds: list[type[BaseException]] = [
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        optuna.exceptions.StorageInternalError,
        OSError,
    ]
    try:
        import grpc  # pyright: ignore[reportMissingModuleSource]
    except ImportError:
        pass
    else:
        kinds.append(grpc.RpcError)
    return tuple(kinds)


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
