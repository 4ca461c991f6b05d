"""Columns of the manifest as one more level of features, and features without some of their levels.

features = with_meta(features, store, ["age", "sex"])
features.tokens["meta"]                                  # "image-and-view 1 channel"
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from samcls.learn.features.meta import LEVEL, MetaColumn, encode, learn_columns
from samcls.learn.features.tensors import Features, image_rows
from samcls.store.feature_store import FeatureStore

__all__ = ["with_columns", "with_meta", "without_level"]


def with_meta(features: Features, store: FeatureStore, wanted: Sequence[str]) -> Features:
    """Return the same features with columns of the manifest as one more level.

    Args:
        features: Of the store, on the CPU; the columns are learned from split `train`.
        store: One whose manifest had such columns.
        wanted: As for `learn_columns`.

    Raises:
        ConfigError: as `learn_columns`.
    """
    columns = learn_columns(_texts(features, store), wanted, features.rows("train").numpy())
    return with_columns(features, store, columns)


def with_columns(
    features: Features, store: FeatureStore, columns: Sequence[MetaColumn]
) -> Features:
    """Return the same features with columns that were learned before.

    Args:
        features: As for `with_meta`.
        store: As for `with_meta`.
        columns: As a model has them.
    """
    texts = _texts(features, store)
    values = torch.from_numpy(encode(columns, texts))[:, None].repeat_interleave(features.views, 0)
    return replace(
        features,
        tokens={**features.tokens, LEVEL: values},
        counts={**features.counts, LEVEL: torch.ones(len(values), 1)},
        grids={**features.grids, LEVEL: (1, 1)},
        meta=tuple(columns),
    )


def _texts(features: Features, store: FeatureStore) -> dict[str, list[str]]:
    """Return the manifest's columns of the images that the features are of."""
    rows = image_rows(store, features.ids).tolist()
    return {name: [column[row] for row in rows] for name, column in store.meta.items()}


def without_level(features: Features, *levels: str) -> Features:
    """Return the same features without some levels; what they were made of is not touched."""
    kept = [level for level in features.tokens if level not in levels]
    return replace(
        features,
        tokens={level: features.tokens[level] for level in kept},
        counts={level: features.counts[level] for level in kept},
        grids={level: features.grids[level] for level in kept},
        meta=() if LEVEL in levels else features.meta,
    )
