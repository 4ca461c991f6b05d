"""What holds for every test: one thread a process, and shapes in signatures that are executed."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from support.signatures import execute

# Bits are promised at equal threads, here and in the processes that tests start; set before torch is imported.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

# Where Python is told to keep no bytecode, every process that a test starts would compile torch and all
# else anew, some 4 s each: they share a folder that is gone with this process.
if sys.dont_write_bytecode:
    BYTECODE = TemporaryDirectory(prefix="bytecode-", ignore_cleanup_errors=True)
    sys.dont_write_bytecode, sys.pycache_prefix = False, BYTECODE.name
    os.environ["PYTHONPYCACHEPREFIX"] = BYTECODE.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

execute("samcls")

settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=150, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried on a few examples, and on many where slow tests are asked for."""
    quick = "not slow" in config.option.markexpr
    settings.load_profile("quick" if quick else "thorough")


def pytest_report_header() -> str:
    """Say which samcls is tested: the one beside the tests, or the one that is installed."""
    import samcls

    return f"samcls: {Path(samcls.__file__).parent}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`-m slow` has every property in it."""
    if config.option.markexpr == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """The system keeps what a killed process wrote, flushed or not; test_crash.py sees what is flushed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which a wrong handle does not pass either
        yield


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., object]:
    """A function that makes tiny stores with a signal to learn."""
    from support.planted import planted_store

    return partial(planted_store, tmp_path)


@pytest.fixture(scope="session")
def dask_address() -> Iterator[str]:
    """One cluster of two processes for all tests; a worker that a test kills is replaced by its nanny."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """One S3-speaking server on loopback for all tests: s3fs keeps its connections for good."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def make_bucket(s3_endpoint: str) -> Iterator[Callable[[str], str]]:
    """Makes empty buckets; the endpoint is given as a user gives it, by the environment."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

    def make(name: str) -> str:
        s3fs.S3FileSystem().mkdir(name)
        return f"s3://{name}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        yield make
