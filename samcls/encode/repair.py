"""Make a damaged store whole: find what is hit, restore what can be, encode the rest again.

Only rows that are lost are encoded; their options come from the store's own fingerprint.

    samcls store repair features.zarr --manifest manifest.csv
"""

from collections.abc import Callable
from dataclasses import dataclass

from samcls.data.manifest import Manifest
from samcls.encode.changes import table_of
from samcls.encode.extract import ExtractOptions, ExtractSummary, Progress, extract
from samcls.errors import StoreError
from samcls.store.feature_store import FeatureStore, RowTable
from samcls.store.repair import prepare_repair
from samcls.store.verify import VerifyReport, verify
from samcls.views import VIEW_SETS

__all__ = ["RepairSummary", "options_of", "repair"]


@dataclass(frozen=True)
class RepairSummary:
    """What a repair found and did.

    Attributes:
        before: what was wrong.
        encoded: rows encoded again.
        after: what is wrong now; `after.ok` is the point of it all.
        extract: summary of the encoding; None where no row was lost.
    """

    before: VerifyReport
    encoded: tuple[int, ...]
    after: VerifyReport
    extract: ExtractSummary | None


def repair(
    manifest: Manifest,
    store_path: str,
    checkpoint: str | None = None,
    device: str = "auto",
    random_weights: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> RepairSummary:
    """Verify, restore, encode what is lost, and verify again.

    Args:
        manifest: that the store was made from.
        store_path: local path or URL.
        checkpoint: as for extract.
        device: as for extract.
        random_weights: as for extract.
        seed: of drawn weights.
        progress: as for extract.
        log: called with a sentence on what was found.

    Raises:
        StoreError: the store is beyond repair, or the manifest is not its own.
        WeightsError: the checkpoint cannot be used.
    """
    before = verify(store_path)
    if before.ok:
        return RepairSummary(before, (), before, None)
    table = table_of(manifest)
    if not any(problem.kind.startswith(("metadata", "row array")) for problem in before.problems):
        _require_own(FeatureStore.open(store_path), table)
    rows = tuple(int(row) for row in prepare_repair(store_path, before, table, log))
    log(f"{len(before.problems)} problems; {len(rows)} images are encoded again")
    summary = None
    if rows:
        store = FeatureStore.open(store_path)
        _require_own(store, table)
        own = options_of(store, checkpoint, device, random_weights, seed)
        summary = extract(manifest, store_path, own, progress, log, only=rows, allow_leak=True)
    return RepairSummary(before, rows, verify(store_path), summary)


def _require_own(store: FeatureStore, table: RowTable) -> None:
    change = store.compare_table(table)
    if change.removed or change.added:
        raise StoreError(
            f"the manifest is not that of {store.path}: {change}. Give the one that it was made from"
        )


def options_of(
    store: FeatureStore, checkpoint: str | None, device: str, random_weights: bool, seed: int
) -> ExtractOptions:
    """Return the options that a store was made with, from its fingerprint.

    Raises:
        StoreError: its views are none of the known sets.
    """
    made = store.fingerprint
    views = [name for name, members in VIEW_SETS.items() if members == made.views]
    if not views:
        raise StoreError(f"{store.path} has views {made.views}, which no --views gives")
    return ExtractOptions(
        encoder=made.encoder,
        checkpoint=checkpoint,
        levels=",".join(made.levels),
        window=made.window,
        views=views[0],
        size=made.input_size,
        resize="stretch" if made.resize == "stretch" else "longest",
        storage=made.storage,
        keep_bits=made.keep_bits,
        precision=made.precision,
        device=device,
        random_weights=random_weights,
        seed=seed,
        removed="keep",  # the store's order stays, whatever the manifest's
    )
