"""What a run says of a MedMNIST data set, in the files that MedMNIST's own evaluator reads.

    0,0.25,0.75        row of the split, score of each class

A file is named `{flag}_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv`, the flag being `breastmnist`
or `breastmnist_64`; `medmnist.Evaluator.parse_and_evaluate` takes it as it is. It can only mean
something of MedMNIST's own images, in their order and with their labels, which is checked before
anything is trained.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from samcls.errors import ConfigError
from samcls.learn.features.targets import Targets
from samcls.learn.features.tensors import Features
from samcls.learn.runs.predictions import csv_bytes
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE

__all__ = ["check_medmnist", "medmnist_files"]

# Images in val and in test, classes, and tasks, as MedMNIST v2 publishes them.
PUBLISHED = {
    "pathmnist": (10_004, 7_180, 9, 1),
    "chestmnist": (11_219, 22_433, 2, 14),
    "dermamnist": (1_003, 2_005, 7, 1),
    "octmnist": (10_832, 1_000, 4, 1),
    "pneumoniamnist": (524, 624, 2, 1),
    "retinamnist": (120, 400, 5, 1),
    "breastmnist": (78, 156, 2, 1),
    "bloodmnist": (1_712, 3_421, 8, 1),
    "tissuemnist": (23_640, 47_280, 8, 1),
    "organamnist": (6_491, 17_778, 11, 1),
    "organcmnist": (2_392, 8_216, 11, 1),
    "organsmnist": (2_452, 8_827, 11, 1),
}
SIZES = ("_64", "_128", "_224")
REMEDY = "make the manifest with samcls manifest medmnist FILE.npz OUT.csv, and extract it"


def check_medmnist(flag: str, store: FeatureStore, config: TrainConfig, targets: Targets) -> None:
    """Make sure that MedMNIST's evaluator could judge the run.

    Args:
        flag: Data set, with `_64` and the like for other sizes than 28 px.
        store: Of the run.
        config: Of the run.
        targets: What it learns.

    Raises:
        ConfigError: with everything that stands against it.
    """
    name = next((flag.removesuffix(size) for size in SIZES if flag.endswith(size)), flag)
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name, PUBLISHED, n=1)
        advice = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(PUBLISHED)}."
        raise ConfigError(
            f"no prediction file can be written for MedMNIST's {flag}; {advice} Larger pictures than "
            "28 px are named with _64, _128 or _224"
        )
    problems = []
    if config.folds:
        problems.append(
            f"{config.folds} folds were asked for, and MedMNIST's evaluator knows its own splits "
            "alone; leave folds out"
        )
    if config.labels is not None:
        problems.append(
            f"the labels are those of {config.labels}, and MedMNIST's evaluator has its own; leave "
            "labels out"
        )
    failed = int((store.status != DONE).sum())
    if failed:
        problems.append(
            f"{failed} images could not be encoded, and the file has a row for each; mend them and "
            "extract again"
        )
    problems += _other_splits(name, store) + _other_labels(name, store, targets)
    if problems:
        raise ConfigError(
            f"predictions cannot be kept as MedMNIST's {flag}:\n  " + "\n  ".join(problems)
        )


def _other_splits(name: str, store: FeatureStore) -> list[str]:
    """Return what shows that the stored splits are not MedMNIST's, row for row."""
    problems = []
    for split, expected in zip(("val", "test"), PUBLISHED[name], strict=False):
        ids = [one for one, own in zip(store.ids, store.splits, strict=True) if own == split]
        if len(ids) != expected:
            problems.append(
                f"split {split} has {len(ids)} images; {name} has {expected} there. {REMEDY}"
            )
            continue
        # Ids of other manifests do not say which row of the published file they are.
        numbered = [re.fullmatch(rf"{split}_(\d+)", one) for one in ids]
        wrong = [i for i, one in enumerate(numbered) if one is None or int(one[1]) != i]
        if any(numbered) and wrong:
            problems.append(
                f"split {split} is not in MedMNIST's order: its row {wrong[0]} is {ids[wrong[0]]}. "
                f"{REMEDY}"
            )
    return problems


def _other_labels(name: str, store: FeatureStore, targets: Targets) -> list[str]:
    """Return what shows that the labels learned are not MedMNIST's."""
    *_, classes, tasks = PUBLISHED[name]
    problems = []
    if len(targets.tasks) != tasks:
        problems.append(
            f"{len(targets.tasks)} tasks are learned ({', '.join(targets.tasks)}); {name} has "
            f"{tasks}. {REMEDY}"
        )
    numbers = tuple(str(i) for i in range(classes))
    problems += [
        f"task {task} has the classes {', '.join(found)}; {name} has {', '.join(numbers)}, in that "
        f"order. {REMEDY}"
        for task, found in targets.tasks.items()
        if found != numbers
    ]
    judged = np.isin(np.array(store.splits), ("val", "test"))
    missing = int((targets.labels[judged] < 0).any(1).sum())
    if missing:
        problems.append(
            f"{missing} images of val and test have no label; in {name} each has one. {REMEDY}"
        )
    return problems


def medmnist_files(
    flag: str,
    run: str,
    features: Features,
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    tables: Mapping[str, Mapping[str, Any]],
) -> dict[str, bytes]:
    """Prediction files of the validation and test split.

    Args:
        flag: Data set, checked.
        run: What the file calls the run; no dots.
        features: Of all images of the data set.
        probabilities: Of every image, by task.
        tables: Figures by split, `val` and `test`.

    Returns:
        Contents by file name.
    """
    # Several binary tasks are MedMNIST's multi-label: the score of each label.
    parts = [p if len(probabilities) == 1 else p[:, -1:] for p in probabilities.values()]
    scores = np.concatenate(parts, axis=1)
    files = {}
    for split, table in tables.items():
        chosen = scores[features.rows(split).numpy()]
        rows = [[str(i), *(f"{value:.9g}" for value in row)] for i, row in enumerate(chosen)]
        auc, accuracy = table["auc"] or 0.0, table["accuracy"]
        name = f"{flag}_{split}_[AUC]{auc:.3f}_[ACC]{accuracy:.3f}@{run}.csv"
        files[name] = csv_bytes(rows[0], rows[1:])
    return files
