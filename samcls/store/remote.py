"""Stores at a URL: opened through fsspec, with what services refuse put into one sentence."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

import zarr.storage
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from samcls.errors import RunError, SamclsError, StoreError

__all__ = ["RemoteStore"]

# What brings each scheme, as pip names it; others are named by fsspec itself.
PACKAGES = {
    "s3": '"samcls[s3]"',
    "s3a": '"samcls[s3]"',
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}
READ_ONLY = ("http", "https")
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure",
    "gs": "run: gcloud auth application-default login",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class RemoteStore(zarr.storage.FsspecStore):
    """A Zarr store at a URL whose errors say what to do."""

    url: str

    @classmethod
    def at(cls, url: str, read_only: bool) -> "RemoteStore":
        """Reach a URL, without looking whether anything is there.

        Raises:
            StoreError: the scheme is unknown, its package is not installed, or it cannot be written.
        """
        scheme = url.partition("://")[0]
        if scheme in READ_ONLY and not read_only:
            raise StoreError(
                f"{url} can be read, not written; name a local folder or a store that can, such as "
                "s3://bucket/name.zarr"
            )
        with _in_words(url):
            store = cls.from_url(url, read_only=read_only)
        assert isinstance(store, cls)
        store.url = url
        return store

    def with_read_only(self, read_only: bool = False) -> "RemoteStore":
        """Return the same store, for reading or writing."""
        store = super().with_read_only(read_only)
        assert isinstance(store, RemoteStore)
        store.url = self.url
        return store

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key; None where it is absent."""
        with _in_words(self.url):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of several keys."""
        with _in_words(self.url):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        """Say whether a key is there."""
        with _in_words(self.url):
            return await super().exists(key)

    async def getsize(self, key: str) -> int:
        """Return how many bytes a key has."""
        with _in_words(self.url):
            return await super().getsize(key)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a key."""
        with _in_words(self.url, writing=True):
            await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        """Remove a key."""
        with _in_words(self.url, writing=True):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove every key under a prefix."""
        with _in_words(self.url, writing=True):
            await super().delete_dir(prefix)

    async def list(self) -> AsyncIterator[str]:
        """Name every key."""
        with _in_words(self.url):
            async for key in super().list():
                yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Name every key under a prefix."""
        with _in_words(self.url):
            async for key in super().list_prefix(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Name what lies under a prefix."""
        with _in_words(self.url):
            async for key in super().list_dir(prefix):
                yield key


@contextmanager
def _in_words(url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what a service or its package raises into a sentence; an absent key stays what it is."""
    try:
        yield
    except (SamclsError, MemoryError, IsADirectoryError, NotADirectoryError):
        raise
    except FileNotFoundError as error:
        if "bucket does not exist" in str(error) or writing:
            raise StoreError(
                f"{url}: {_first_line(error)}. Make the bucket first, or mend its name"
            ) from error
        raise
    except Exception as error:
        raise _explained(url, error) from error


def _explained(url: str, error: Exception) -> SamclsError:
    scheme = url.partition("://")[0]
    kind, text = type(error).__name__, _first_line(error)
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme, "the package that fsspec names")
        return StoreError(f"{url} needs a package ({text}): pip install {package}")
    if isinstance(error, ValueError) and "rotocol" in text:
        return StoreError(
            f"{url}: the scheme {scheme}:// is not known; expected a local folder, or a URL such as "
            "s3://bucket/name.zarr, gs:// or az://"
        )
    if "Credential" in kind or "redential" in text:
        remedy = CREDENTIALS.get(scheme, "give them as the service's own documentation says")
        return StoreError(f"{url}: no credentials were found ({text}); {remedy}")
    if isinstance(error, PermissionError):
        return StoreError(
            f"{url}: access was refused ({text}); check the credentials and what they are allowed, or "
            "name another store"
        )
    if isinstance(error, ValueError) or "Param" in kind:
        return StoreError(f"{url} cannot be used: {text}; mend the URL")
    return RunError(
        f"{url} cannot be reached: {kind}: {text}. Check the network and the endpoint (for S3 "
        "AWS_ENDPOINT_URL); what was finished before is kept, and the same command goes on from there"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
