"""A connection to a Dask scheduler, with what can go wrong put into one sentence.

with connected("tcp://scheduler:8786") as client: ...
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from samcls import __version__
from samcls.errors import ConfigError, RunError, SamclsError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["cancel", "connected", "result_of"]

PATIENCE = "15s"  # for a scheduler to answer
FORM = "expected an address such as tcp://host:8786"


@contextmanager
def connected(address: str, log: Callable[[str], None] = lambda _: None) -> Iterator["Client"]:
    """Connect to a scheduler whose workers have this version of samcls.

    Args:
        address: Of the scheduler.
        log: Called with a sentence where it has no worker yet.

    Raises:
        ConfigError: the address is none.
        RunError: no scheduler answers, it goes away, or a worker has no samcls or another version.
    """
    from distributed import Client

    # what goes wrong is said by this module; Dask's own log adds tracebacks to it
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.startswith("distributed"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=PATIENCE)
    except OSError as error:
        raise RunError(
            f"no Dask scheduler answers at {address}: {error}. Start one with: dask scheduler"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{address!r} is no Dask scheduler's: {error}; {FORM}") from error
    try:
        _check_workers(client, address, log)
        yield client
    except SamclsError:
        raise
    except Exception as error:
        if client.status == "running" and not _gone(error):
            raise
        raise RunError(
            f"the Dask scheduler at {address} went away ({_first_line(error)}). What is done is kept; "
            "start it and run the same command again"
        ) from error
    finally:
        client.close(timeout=2)


def result_of(future: Any, what: str) -> Any:
    """Return a finished task's result.

    Args:
        future: That `as_completed` gave.
        what: Failed if it did, for the message.

    Raises:
        RunError: the task failed, or its scheduler is gone.
    """
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        raise RunError(
            f"{what}: {_task_error(future.exception())}. What is done is kept; run the same command "
            "again"
        )
    raise RunError(
        "the Dask scheduler went away. What is done is kept; start it and run the same command again"
    )


def cancel(client: "Client", futures: Any) -> None:
    """Let a cluster drop what is still to be done, if it is there."""
    if client.status == "running":
        client.cancel(futures, force=True)


def _task_error(error: BaseException) -> str:
    """Say why a worker could not do its task, in one line."""
    if isinstance(error, ModuleNotFoundError) or "No module named" in str(error):
        return (
            f"a worker lacks a package ({_first_line(error)}): install samcls {__version__} there"
        )
    return _first_line(error)


def _check_workers(client: "Client", address: str, log: Callable[[str], None]) -> None:
    workers = client.run(_version, on_error="return")
    if not workers:
        log(f"the Dask scheduler at {address} has no worker yet; waiting for one")
    for worker, found in workers.items():
        if isinstance(found, BaseException):
            raise RunError(
                f"the Dask worker {worker} cannot run samcls: {_task_error(found)}. Every worker needs "
                "the same Python packages as this machine"
            )
        if found != __version__:
            raise RunError(
                f"the Dask worker {worker} has samcls {found}, this machine {__version__}; install the "
                "same version on both, so that all images are encoded alike"
            )


def _version() -> str:
    import samcls

    return samcls.__version__


def _gone(error: BaseException) -> bool:
    return type(error).__name__ in {"CommClosedError", "CancelledError", "FutureCancelledError"}


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
