"""Ray clusters: what a study gets of the machines, and how a driver connects to them."""

import contextlib
import dataclasses
import functools
import io
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tuning.cores import available_cores
from tuning.guardian import guarded

_OBJECT_STORE = 100 * 2**20  # bytes: all that slots and driver exchange is small
_CONNECT_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Resources:
    """The machines to use, and what each study gets.

    Attributes:
        address: ``host:port`` of a Ray cluster, or ``auto`` for the one that ``RAY_ADDRESS`` names
            or the last ``ray start`` on this machine joined; ``None`` starts Ray on this machine
            alone.
        cpus: Cores of each study; by default the cores are divided among the studies at work.
        gpus: GPUs of each study; by default one where there are GPUs. A fraction shares a GPU and
            its memory; several GPUs share the batches.
        dashboard: Whether to start Ray's dashboard, if Ray is started.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    dashboard: bool = False


@contextlib.contextmanager
def connected(resources: Resources) -> Iterator[str]:
    """Connect to a Ray cluster, or start Ray on this machine, for the length of a block.

    Yields the address of Ray's dashboard, which may be empty, and the token that it asks for.

    A Ray of our own listens on the loopback interface only, for holders of a secret that is drawn
    here. It reports no usage.

    Raises:
        ValueError: The address does not answer, or runs other versions of Ray or Python.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    stack = contextlib.ExitStack()
    # On signals it would print a trace of its C++ code.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}
    stack.enter_context(_environment(quiet))
    # Ray prints a paragraph on every process that dies; the driver notes each in one line.
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    if resources.address is not None:
        _check_address(resources.address)
    else:
        local = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback interface, on every system
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _secret(),
        }
        stack.enter_context(_environment(local))
    import ray

    try:
        if resources.address is None:
            stack.enter_context(guarded())
            options |= {
                "num_cpus": len(available_cores()) or os.cpu_count() or 1,
                "object_store_memory": _OBJECT_STORE,
                "include_dashboard": resources.dashboard,
            }
        with _standard_error_closed():  # a line for each second of its attempts
            context = ray.init(address=resources.address or "local", **options)
        # A scheduler sends SIGTERM to all processes of a job. Ray's handler would then wait a
        # minute for its servers, which are gone. Records are on disk; the guardian ends the rest.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except Exception as error:  # also bare ones
        stack.close()
        where = "on this machine" if resources.address is None else f"at {resources.address}"
        raise ValueError(f"Ray {where} cannot be used: {_reason(error)}.") from None
    with stack:
        try:
            yield f"http://{context.dashboard_url}, token {os.environ.get('RAY_AUTH_TOKEN')}"
        finally:
            ray.shutdown()


def _reason(error: Exception) -> str:
    if str(error).startswith("Version mismatch"):  # the lines below say of what
        return " ".join(str(error).split())
    if isinstance(error, ConnectionError) and "Failed to connect" in str(error):
        return "it refuses: another RAY_AUTH_TOKEN, or RAY_AUTH_MODE, or another version of Ray"
    if "dashboard with missing packages" in str(error):
        return "--dashboard needs more of it: pip install 'ray[default]'"
    return first_line(error)


@contextlib.contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Drop what this process, or compiled code in it, writes to standard error in a block."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@functools.cache  # Ray reads it once in a process
def _secret() -> str:
    return secrets.token_hex(32)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables within a block, unless the user has set them."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _check_address(address: str) -> None:
    """Fail soon, and in one line, where Ray would wait for a minute and end the process."""
    if address == "auto":
        # Without this, Ray would take any Ray that runs here, as another user's campaign.
        from ray._private.services import find_bootstrap_address

        address = os.environ.get("RAY_ADDRESS") or "auto"
        if address == "auto":
            address = find_bootstrap_address(None)
        if not address:
            raise ValueError("--address auto: nobody has called `ray start` on this machine.")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ValueError(f"--address takes host:port or auto, got {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"No Ray cluster answers at {address}: {error}.") from None


def on_node(node: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a machine and return the reference of its result."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    call: Any = ray.remote(function)
    call = call.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    return call.remote(*arguments)


def alive_nodes() -> list[dict[str, Any]]:
    """Return the cluster's machines, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def studies_on_gpus(gpus: float, each: float) -> int:
    """Return how many studies GPUs hold: Ray splits no study over parts of two GPUs."""
    return int(gpus // each) if each >= 1 else int(gpus) * int(1 / each + 1e-9)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
