"""One copy of the features a machine: pooled and standardised once, mapped by every process.

A folder holds the levels of each division of the images (window, fold, training share), a file
each. The first process that needs one makes it, behind a lock; all others map it, so that the
system keeps one copy in memory however many processes train.

    shared = SharedFeatures(folder, store)
    features, scaler = shared.features(config)
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from samcls.config import values_of
from samcls.errors import RunError
from samcls.learn.features.columns import with_meta, without_level
from samcls.learn.features.mapped import map_array, save_array
from samcls.learn.features.meta import LEVEL as META
from samcls.learn.features.meta import as_column
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.targets import targets_of
from samcls.learn.features.tensors import (
    ChannelScaler,
    Features,
    image_rows,
    load_features,
)
from samcls.learn.heads.registry import reads
from samcls.learn.runs.inputs import loading_window
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["SharedFeatures", "division"]

COLUMNS = ("ids", "splits", "groups", "tasks", "window", "views", "fingerprint", "failed", "reach")
PIXELS = "pixels"  # no level has that name


def division(config: TrainConfig) -> str:
    """Name of a config's division of the images; equal names, equal features."""
    chosen: dict[str, Any] = values_of(config, "data")
    del chosen["levels"]  # which have a file each
    # A share of the training images is drawn from the seed; all of them are the same for every seed.
    chosen["seed"] = config.seed if config.train_fraction < 1 else None
    chosen["window"] = loading_window(config)
    text = json.dumps(chosen, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(eq=False)
class SharedFeatures:
    """Standardised features in files of a folder that the processes of one machine share.

    Attributes:
        folder: For these files alone; best on a local disk.
        store: Where features come from.
    """

    folder: Path
    store: FeatureStore

    def features(self, config: TrainConfig) -> tuple[Features, ChannelScaler]:
        """Return what `samcls train` would make of a store for a config, bit for bit.

        Raises:
            RunError: where the files cannot be written.
            ConfigError: where the store cannot serve the config.
        """
        place = self.folder / division(config)
        levels = config.levels or tuple(self.store.levels)
        levels = (*levels, META) if config.with_meta else levels
        looks = reads(config).pixels
        try:
            place.mkdir(parents=True, exist_ok=True)
            for level in levels:
                _once(place / f"{_file(level)}.json", partial(self._make, place, level, config))
            if looks:
                _once(place / f"{PIXELS}.done", partial(self._make_pixels, place, levels[0]))
        except OSError as error:
            raise RunError(
                f"features cannot be shared in {self.folder}: {error.strerror or error}; set TMPDIR "
                "to a folder with room"
            ) from error
        features, scaler = _mapped(place, levels)
        if looks:
            values, extents = (_map(place, PIXELS, name) for name in ("values", "extents"))
            pixels = Pixels(values, extents, self.store.fingerprint.views)
            features = replace(features, pixels=pixels)
        return features, scaler

    def drop(self, name: str) -> None:
        """Remove the files of a division; processes that have mapped them keep them."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _make(self, place: Path, level: str, config: TrainConfig) -> None:
        targets = targets_of(self.store, config)
        own = level if level != META else next(iter(config.levels or self.store.levels))
        features = load_features(self.store, (own,), loading_window(config), targets)
        if level == META:
            features = without_level(with_meta(features, self.store, config.with_meta), own)
        scaler = ChannelScaler.fit(features, features.rows("train"))
        features.standardise_(scaler)
        for name, values in _arrays(features, scaler, level).items():
            save_array(place / f"{_file(level)}.{name}.npy", values)
        columns = {name: getattr(features, name) for name in COLUMNS}
        columns["grid"] = features.grids[level]
        columns["meta"] = [asdict(column) for column in features.meta]
        done = place / f"{_file(level)}.json"
        part = done.with_suffix(".part")
        part.write_text(json.dumps(columns), encoding="utf-8")
        part.replace(done)

    def _make_pixels(self, place: Path, level: str) -> None:
        """Return the images of a division, of which a level is there already."""
        ids = json.loads((place / f"{_file(level)}.json").read_text(encoding="utf-8"))["ids"]
        kept = Pixels.load(self.store, image_rows(self.store, ids))
        save_array(place / f"{PIXELS}.values.npy", kept.values)
        save_array(place / f"{PIXELS}.extents.npy", kept.extents)
        (place / f"{PIXELS}.done").touch()


def _once(done: Path, make: Callable[[], None]) -> None:
    """Let one process make what the others wait for; the file `done` says that it is there."""
    if done.exists():
        return
    with FileLock(done.with_suffix(".lock")):
        if not done.exists():
            make()


def _arrays(features: Features, scaler: ChannelScaler, level: str) -> dict[str, Tensor]:
    return {
        "tokens": features.tokens[level],
        "counts": features.counts[level],
        "labels": features.labels,
        "mean": scaler.mean[level],
        "std": scaler.std[level],
    }


def _mapped(place: Path, levels: tuple[str, ...]) -> tuple[Features, ChannelScaler]:
    columns = {
        level: json.loads((place / f"{_file(level)}.json").read_text(encoding="utf-8"))
        for level in levels
    }
    first = columns[levels[0]]
    features = Features(
        tokens={level: _map(place, level, "tokens") for level in levels},
        counts={level: _map(place, level, "counts") for level in levels},
        labels=_map(place, levels[0], "labels"),
        ids=tuple(first["ids"]),
        splits=tuple(first["splits"]),
        groups=tuple(first["groups"]),
        tasks={task: tuple(classes) for task, classes in first["tasks"].items()},
        window=first["window"],
        grids={level: (own["grid"][0], own["grid"][1]) for level, own in columns.items()},
        views=first["views"],
        fingerprint=first["fingerprint"],
        failed=first["failed"],
        meta=tuple(as_column(one) for own in columns.values() for one in own["meta"]),
        reach={level: share for own in columns.values() for level, share in own["reach"].items()},
    )
    scaler = ChannelScaler(
        mean={level: _map(place, level, "mean") for level in levels},
        std={level: _map(place, level, "std") for level in levels},
    )
    return features, scaler


def _map(place: Path, level: str, name: str) -> Tensor:
    return map_array(place / f"{_file(level)}.{name}.npy")


def _file(level: str) -> str:
    return level.replace(":", "-")
