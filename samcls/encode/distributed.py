"""Stage one on several processes or machines, through Dask.

Each task encodes one shard's rows and writes that shard's features; marks are written by the process
that started, so that no two ever touch one file. A worker that dies is replaced by Dask and its shard
done again. Batches start at the rows at which they always start, so the result is that of one process.

    samcls extract M.csv S.zarr --workers 2                        # a local cluster
    samcls extract M.csv S.zarr --dask tcp://scheduler:8786        # any scheduler; paths must be shared
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from samcls.cluster import cancel, connected, result_of
from samcls.data.manifest import Manifest, Row
from samcls.encode.base import Encoder
from samcls.encode.encoders import open_encoder
from samcls.encode.options import ExtractOptions
from samcls.encode.pipeline import Pipeline
from samcls.encode.reuse import Donors, open_donors
from samcls.errors import InputError, NotFiniteError, SamclsError
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.lock import Claim
from samcls.store.schema import DONE, Fingerprint

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["client_for", "encode_shards"]

RETRIES = 3  # of a shard whose worker died or failed


@dataclass(frozen=True)
class _Shard:
    """What a worker needs to know to encode one shard's rows.

    Attributes:
        path: Of the store.
        rows: Manifest rows by their number.
        options: Of the extract, with batch and precision settled.
        threads: Of arithmetic in each process; 0 leaves them as they are.
        claim: Of the lock that the process which started holds.
        proven: Whether the store has features that these options gave.
    """

    path: str
    rows: Mapping[int, Row]
    options: ExtractOptions
    threads: int
    claim: Claim
    proven: bool = False


@contextmanager
def client_for(
    workers: int, address: str | None, log: Callable[[str], None] = lambda _: None
) -> Iterator["Client"]:
    """Connect to a scheduler, or start a local cluster that ends with this block.

    Args:
        workers: Processes of the local cluster.
        address: Of a scheduler that is running; wins over `workers`.
        log: Called with a sentence where a scheduler has no worker yet.

    Raises:
        ConfigError: the address is none.
        RunError: no scheduler answers, it goes away, or its workers cannot run this samcls.
    """
    from distributed import Client, LocalCluster

    if address:
        with connected(address, log) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def encode_shards(
    client: "Client",
    manifest: Manifest,
    store: FeatureStore,
    todo: Int[np.ndarray, " image"],
    options: ExtractOptions,
    threads: int,
    done: Callable[[RowBatch], None],
    claim: Claim,
) -> None:
    """Encode rows shard by shard on a cluster's workers, and mark them as they are done.

    Args:
        client: Of the cluster.
        manifest: Of the store.
        store: Opened for writing by this process, which alone writes marks.
        todo: Rows to encode, ascending.
        options: Of the extract, with batch and precision settled.
        threads: Of arithmetic in each process; 0 leaves them as they are.
        done: Called with each finished shard's rows.
        claim: Of the store's lock; workers check it too before they write.

    Raises:
        InputError: a worker cannot use what it was given, such as a checkpoint that it does not see.
        RunError: a shard failed again and again, with the last reason.
    """
    from distributed import as_completed

    breaks = np.flatnonzero(np.diff(todo // store.partition.shard_rows)) + 1
    proven = bool((store.status == DONE).any())
    shards = [
        _Shard(
            store.path, {int(r): manifest.rows[r] for r in rows}, options, threads, claim, proven
        )
        for rows in np.split(todo, breaks)
        if len(rows)
    ]
    futures = client.map(_try_shard, shards, pure=False, retries=RETRIES)
    try:
        # the client of a caller's own `with Client()` would lend its event loop otherwise
        for future in as_completed(futures, loop=client.loop):
            batch = result_of(future, f"a shard failed {RETRIES + 1} times")
            if isinstance(batch, SamclsError):
                raise batch
            store.write_marks(batch)
            done(batch)
    finally:
        cancel(client, futures)


def _try_shard(shard: _Shard) -> RowBatch | SamclsError:
    """Encode a shard, or say what trying again would not mend."""
    try:
        return _encode_shard(shard)
    except InputError as error:
        return InputError(str(error))
    except NotFiniteError as error:
        return error


def _encode_shard(shard: _Shard) -> RowBatch:
    """Encode and write one shard's features; return its marks."""
    if shard.threads:
        torch.set_num_threads(shard.threads)
    options = shard.options
    encoder = _encoder(replace(options, device=_device(options.device)))
    pipeline = Pipeline(shard.rows, encoder, options, print, shard.proven)
    store = FeatureStore.open(shard.path, mode="r+", claim=shard.claim)
    batches: list[RowBatch] = []

    donors = _donors(options.reuse, shard.path, store.fingerprint)

    def recall(row: int) -> dict[str, np.ndarray]:
        if row < 0:
            return donors.features(row)
        for batch in batches:
            found = np.flatnonzero(batch.rows == row)
            if len(found):
                return {level: x[found[0]] for level, x in batch.features.items()}
        raise KeyError(row)

    todo = np.array(sorted(shard.rows))
    for batch in pipeline.run(todo, donors.rows(), recall):
        batches.append(batch)  # noqa: PERF402 - recall looks at what is there so far
    whole = RowBatch.concatenate(batches)
    store.write_features(whole)
    return replace(whole, features={})


@lru_cache(maxsize=1)
def _encoder(options: ExtractOptions) -> Encoder:
    """Build a worker's encoder once."""
    return open_encoder(options)


@lru_cache(maxsize=1)
def _donors(paths: tuple[str, ...], path: str, fingerprint: Fingerprint) -> Donors:
    """Open a worker's stores to reuse once."""
    return open_donors(paths, path, fingerprint)


def _device(asked: str) -> str:
    """Give each local process its own GPU, in turn."""
    if asked != "auto" or not torch.cuda.is_available():
        return asked
    from distributed import get_worker

    name = str(get_worker().name)
    number = int(name) if name.isdecimal() else os.getpid()
    return f"cuda:{number % torch.cuda.device_count()}"
