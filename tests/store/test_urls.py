"""What a URL's service or package refuses is one sentence with the remedy."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3fs
from support.stores import FINGERPRINT, LEVELS, table

from samcls.errors import RunError, SamclsError, StoreError
from samcls.store.feature_store import FeatureStore

# aiohttp's sessions, which s3fs and fsspec open, complain where a failed one is collected
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have them complain here, and not in whatever test comes next."""
    yield
    gc.collect()


def create(url: str) -> FeatureStore:
    return FeatureStore.create(url, FINGERPRINT, LEVELS, table(3))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("foo://a/b.zarr", r"the scheme foo:// is not known; expected a local folder"),
        ("gs://a/b.zarr", r"needs a package .*: pip install gcsfs"),
        ("az://a/b.zarr", r"needs a package .*: pip install adlfs"),
    ],
)
@pytest.mark.parametrize("act", [FeatureStore.open, create], ids=["open", "create"])
def test_schemes_and_packages_are_named(
    url: str, words: str, act: Callable[[str], FeatureStore]
) -> None:
    """An unknown scheme, and a service whose package is not installed, say what to do."""
    with pytest.raises(StoreError, match=words):
        act(url)


def test_the_web_is_read_and_not_written() -> None:
    """A store is not made at an http address, and an address that does not answer is said."""
    with pytest.raises(StoreError, match="can be read, not written"):
        create("http://127.0.0.1:9/x.zarr")
    with pytest.raises(RunError, match=r"cannot be reached: ClientConnector.*Check the network"):
        FeatureStore.open("http://127.0.0.1:9/x.zarr")


def test_a_bucket_that_is_not_there_is_named(make_bucket: Callable[[str], str]) -> None:
    """Writing to an absent bucket says so; an empty bucket holds no store yet."""
    url = make_bucket("there")
    with pytest.raises(StoreError, match="Make the bucket first, or mend its name"):
        create("s3://nowhere/x.zarr")
    assert not FeatureStore.exists(f"{url}/x.zarr")
    assert len(create(f"{url}/x.zarr")) == 3


def test_an_endpoint_that_does_not_answer_is_said(
    make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An S3 service that cannot be reached names the setting of its address."""
    del make_bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RunError, match=r"cannot be reached: EndpointConnection.*AWS_ENDPOINT_URL"):
        FeatureStore.open("s3://there/x.zarr")
    s3fs.S3FileSystem.clear_instance_cache()


def test_missing_credentials_are_said(
    make_bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without credentials the settings that hold them are named."""
    del make_bucket
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SamclsError, match=r"no credentials were found.*AWS_SECRET_ACCESS_KEY"):
        FeatureStore.open("s3://there/x.zarr")
    s3fs.S3FileSystem.clear_instance_cache()
