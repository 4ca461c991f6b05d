"""A Dask scheduler that cannot be used is said in one sentence."""

import pytest
from distributed import LocalCluster

from samcls.cluster import connected
from samcls.errors import ConfigError, RunError


@pytest.mark.parametrize("address", ["nonsense", "foo://host:1"])
def test_what_is_no_address_is_named(address: str) -> None:
    """A malformed address is a usage error that shows what one looks like."""
    with (
        pytest.raises(ConfigError, match=r"expected an address such as tcp://host:8786"),
        connected(address),
    ):
        pass


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with another samcls is named with both versions before any work begins."""
    monkeypatch.setattr("samcls.cluster.__version__", "99")
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(RunError, match=r"has samcls .*, this machine 99; install the same version"),
        connected(cluster.scheduler_address),
    ):
        pass
