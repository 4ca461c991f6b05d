"""Small finished runs of every kind that a report is made of, each trained once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.planted import planted_store

import samcls
from samcls.deploy.evaluate import evaluate
from samcls.sweep.space import parse_space
from samcls.sweep.sweep import sweep

QUICK = {"epochs": 3, "intervals": 100, "batch_size": 32}
SPACE = """
search = "grid"
seeds = 2
fractions = [0.3, 0.6, 1.0]
[fixed]
epochs = 2
batch_size = 32
intervals = 50
patience = 0
[space]
head = ["slca", "linear"]
learning_rate = [0.003, 0.01, 0.03]
"""


@dataclass(frozen=True)
class Made:
    """Where runs lie, by kind, and their stores."""

    root: Path
    stores: dict[str, Path]

    def __getitem__(self, kind: str) -> Path:
        return self.root / kind


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run, two tasks, ordered classes, seeds, folds, a sweep, and an evaluation elsewhere."""
    root = tmp_path_factory.mktemp("reported")
    rng = np.random.default_rng(3)
    images = 240
    meta = {
        "sex": [("f", "m", "")[i] for i in rng.integers(0, 3, images)],
        "age": [f"{a:.1f}" for a in rng.normal(55, 12, images)],
        "site": ["A" if i % 9 else "B" for i in range(images)],
    }
    two = {"malignancy": ("benign", "malignant"), "itch/pain": ("no", "yes")}
    labels = rng.integers(0, 2, (images, 2))
    labels[::7, 1] = -1
    orders = {"grade": ("none", "mild", "severe", "worst")}
    stores = {
        "run": planted_store(root, images, name="one.zarr", strength=1.5, meta=meta),
        "tasks": planted_store(root, images, name="two.zarr", tasks=two, labels=labels, strength=1.5),
        "ordinal": planted_store(root, images, name="order.zarr", tasks=orders, strength=1.0),
        "elsewhere": planted_store(
            root, 90, name="there.zarr", strength=1.0, meta={k: v[:90] for k, v in meta.items()},
            ids=[f"there-{i}" for i in range(90)],
        ),
    }  # fmt: skip
    paths = {kind: Path(store.path) for kind, store in stores.items()}
    samcls.train(stores["run"], root / "run", head="slca", **QUICK)
    samcls.train(stores["tasks"], root / "tasks", head="linear", **QUICK)
    samcls.train(stores["ordinal"], root / "ordinal", head="linear", ordinal=["grade"], **QUICK)
    samcls.train(stores["run"], root / "seeds", seeds=3, head="slca", **QUICK)
    samcls.train(stores["run"], root / "folds", folds=3, head="linear", **QUICK)
    sweep(paths["run"], root / "sweep", parse_space(SPACE))
    evaluate(
        root / "run", paths["elsewhere"], root / "evaluation", recalibrate="0.4", allow_leak=True
    )
    return Made(root, paths)
