"""Runs a minute: this sweep beside what a user would script, on the same store in one run.

    samcls bench sweep --store breast.zarr          # 2 cores, five levels, 30 epochs: some 4 minutes

Every contender trains the same head for the same epochs, without early stopping. A plain loop is
PyTorch's own modules and optimizer on features that were loaded once; `GridSearchCV` runs over our
estimator on all cores; `samcls train` is a new process for each run. Slow contenders get fewer runs.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from samcls.bench.table import Bench, BenchRow, measure
from samcls.config import to_toml
from samcls.learn.estimator import SLCAClassifier
from samcls.learn.features.batches import select
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import fit, fit_together, steady_threads, trainer_of
from samcls.learn.fit.prediction import shape_of
from samcls.learn.heads.registry import build_head
from samcls.learn.runs.baselines import baselines
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.schema import DONE, Fingerprint, LevelShape
from samcls.sweep.shared import SharedFeatures
from samcls.sweep.space import Space, parse_space
from samcls.sweep.sweep import sweep

__all__ = ["bench_sweep"]

PLAIN = "plain torch loop"
ALONE = "trained one by one"
VMAPPED, PASSES = 12, 5  # heads at once, and passes of which the shortest counts
GROUPS = (1, 4, 8, 12, 16, 24, 48)
SPACE = """
search = "random"
runs = {runs}
[fixed]
head = "slca"
epochs = {epochs}
patience = 0
intervals = 0
[space]
reduction = [8, 16]
gate = ["multiply", "residual"]
learning_rate = {{low = 1e-3, high = 2e-2, log = true}}
weight_decay = {{low = 1e-3, high = 1.0, log = true}}
dropout = [0.0, 0.2, 0.5]
"""


def bench_sweep(
    store: str | Path | None = None,
    configurations: int = 48,
    epochs: int = 30,
    workers: int = 2,
    log: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure runs a minute of each way to train many heads.

    Args:
        store: Feature store to train on; by default one of BreastMNIST's shape with drawn features.
        configurations: Runs of the sweep.
        epochs: Of every run.
        workers: Processes of the sweep, and jobs of `GridSearchCV`.
        log: Called with a line before each measurement.
    """
    with tempfile.TemporaryDirectory(prefix="samcls-bench-") as place:
        path = str(store) if store is not None else _drawn_store(Path(place) / "store.zarr")
        rows = list(_rows(path, Path(place), configurations, epochs, workers, log))
    return Bench("sweep", rows)


def _rows(
    path: str,
    place: Path,
    configurations: int,
    epochs: int,
    workers: int,
    log: Callable[[str], None],
) -> Iterator[BenchRow]:
    space = parse_space(SPACE.format(runs=configurations, epochs=epochs))
    few = space.configurations()[: max(2, min(6, configurations // 8))]
    rates: dict[str, float] = {}
    for count in dict.fromkeys((1, workers)):
        log(f"sweep, {count} processes")
        rates[f"sweep, {count} processes"] = _sweep_rate(path, place / str(count), space, count)
    ours = f"sweep, {workers} processes"
    shared = SharedFeatures(place / "shared", FeatureStore.open(path))
    features, _ = shared.features(few[0])
    log(PLAIN)
    rates[PLAIN] = 60 / _seconds_each(lambda c: _train_plainly(features, c), few)
    log("GridSearchCV")
    rates["GridSearchCV over SLCAClassifier"] = _grid_rate(path, few, workers)
    log("samcls train")
    rates["samcls train, a process each"] = _process_rate(path, place, few[:3])
    yield measure(ours, rates[ours], "runs/minute")
    for name, rate in rates.items():
        if name != ours:
            yield measure(f"{ours} over {name}", rates[ours] / rate, "times")
            yield measure(name, rate, "runs/minute", ours, rates[ours])
    log("groups")
    alone = 0.0
    for size in GROUPS:
        if size <= configurations:
            rate = _group_rate(features, few[0], size)
            alone = alone or rate
            yield measure(f"{size} heads in one pass, 1 process", rate, "runs/minute", ALONE, alone)
    log("the default ensemble")
    alone, whole = _recipe_seconds(features, few[0])
    name = "one head, and all that stands beside it"
    yield measure(name, alone, "s")
    yield measure("the default ensemble, and all that stands beside it", whole, "s", name, alone)
    log("torch.func.vmap")
    own, other = _pass_seconds(features, few[0], VMAPPED)
    name = f"training pass of {VMAPPED} heads by torch.func.vmap"
    yield measure(name, other, "s")
    yield measure(f"training pass of {VMAPPED} heads", own, "s", name, other)


def _sweep_rate(path: str, folder: Path, space: Space, workers: int) -> float:
    """Of the whole sweep: starting processes, loading features, writing every run's folder."""
    return sweep(path, folder, space, workers=workers, device="cpu").runs_a_minute or 0.0


def _group_rate(features: Features, config: TrainConfig, size: int) -> float:
    """Of heads of one architecture, each with its own rate, for a fifth of the epochs."""
    epochs = max(2, config.epochs // 5)
    group = [
        replace(config, epochs=epochs, dropout=0.2, learning_rate=1e-3 * (1 + i / size))
        for i in range(size)
    ]
    with steady_threads(features, config):
        fit_together(features, group[:1])
        start = time.perf_counter()
        fit_together(features, group)
    return 60 * size / (time.perf_counter() - start) * epochs / config.epochs


def _recipe_seconds(features: Features, config: TrainConfig) -> tuple[float, float]:
    """Seconds to fit one head, and the default ensemble, each with the controls that every run has."""

    def fitted(head: str) -> float:
        own = replace(config, head=head)
        start = time.perf_counter()
        list(baselines(features, own, known=fit(features, own).parts))
        return time.perf_counter() - start

    ensemble = TrainConfig().head
    fitted(ensemble)
    times = [(fitted(config.head), fitted(ensemble)) for _ in range(PASSES)]
    return min(one for one, _ in times), min(whole for _, whole in times)


def _pass_seconds(features: Features, config: TrainConfig, size: int) -> tuple[float, float]:
    """Return the shortest training pass of several heads, stacked by hand and by PyTorch's own means."""
    rates = [config.learning_rate * (1 + i / size) for i in range(size)]
    group = [replace(config, dropout=0.0, learning_rate=rate) for rate in rates]
    trainer = trainer_of(features, group)
    shape, rows = shape_of(features), features.rows("train")
    heads = [build_head(one, shape, torch.Generator().manual_seed(one.seed)) for one in group]
    values, _ = stack_module_state(heads)
    # A rate for each head means a group of parameters for each.
    leaves = [[v.detach()[i].requires_grad_() for v in values.values()] for i in range(size)]
    optimizer = torch.optim.AdamW(
        [{"params": own, "lr": rate} for own, rate in zip(leaves, rates, strict=True)]
    )

    def loss(own: dict[str, Tensor], tokens: Any, counts: Any, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(heads[0], own, (tokens, counts)), labels)

    every = vmap(loss, in_dims=(0, None, None, None))

    def plainly() -> None:
        for part in torch.split(rows[torch.randperm(len(rows))], config.batch_size):
            losses = every(values, *select(features, part), features.labels[part, 0])
            slopes = torch.autograd.grad(losses.sum(), list(values.values()))
            for i, own in enumerate(leaves):
                for leaf, slope in zip(own, slopes, strict=True):
                    leaf.grad = slope[i]
            optimizer.step()

    with steady_threads(features, config):
        own = min(_seconds(lambda: trainer.training_pass(1)) for _ in range(PASSES))
        return own, min(_seconds(plainly) for _ in range(PASSES))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _grid_rate(path: str, configs: tuple[TrainConfig, ...], jobs: int) -> float:
    store = FeatureStore.open(path)
    splits = np.array(store.splits)
    rows = np.flatnonzero((store.status == DONE) & (splits != "test"))
    held_out = PredefinedSplit(np.where(splits[rows] == "val", 0, -1))
    first = configs[0]
    estimator = SLCAClassifier(
        store=path,
        epochs=first.epochs,
        patience=0,
        batch_size=first.batch_size,
        reduction=first.reduction,
        gate=first.gate,
    )
    grid = {"learning_rate": [config.learning_rate for config in configs]}
    search = GridSearchCV(estimator, grid, cv=held_out, refit=False, n_jobs=jobs)
    start = time.perf_counter()
    search.fit(rows[:, None], store.labels[rows, 0])
    return 60 * len(configs) / (time.perf_counter() - start)


def _process_rate(path: str, place: Path, configs: tuple[TrainConfig, ...]) -> float:
    def run(config: TrainConfig) -> None:
        file = place / f"{config.learning_rate}.toml"
        file.write_text(to_toml(config), encoding="utf-8")
        command = [sys.executable, "-m", "samcls", "train", path, str(file.with_suffix(""))]
        subprocess.run(  # noqa: S603 - our own command line
            [*command, "--config", str(file)], check=True, capture_output=True
        )

    return 60 / _seconds_each(run, configs)


def _seconds_each(run: Callable[[TrainConfig], object], configs: tuple[TrainConfig, ...]) -> float:
    start = time.perf_counter()
    for config in configs:
        run(config)
    return (time.perf_counter() - start) / len(configs)


# -- what anyone would write ---------------------------------------------------------------------


class _PlainSLCA(nn.Module):
    """The same head from PyTorch's modules, on pooled tokens."""

    def __init__(self, features: Features, config: TrainConfig) -> None:
        super().__init__()
        widths = features.channels.values()
        self.squeeze = nn.ModuleList(nn.Linear(c, c // config.reduction) for c in widths)
        self.excite = nn.ModuleList(nn.Linear(c // config.reduction, c) for c in widths)
        self.drop = nn.Dropout(config.dropout)
        classes = len(next(iter(features.tasks.values())))
        self.output = nn.Linear(sum(widths), classes)
        self.residual = config.gate == "residual"

    def forward(self, tokens: list[torch.Tensor], shares: list[torch.Tensor]) -> torch.Tensor:
        means = []
        layers = zip(tokens, shares, self.squeeze, self.excite, strict=True)
        for x, share, squeeze, excite in layers:
            gated = x * torch.sigmoid(excite(torch.relu(squeeze(x))))
            if self.residual:
                gated = x + gated
            means.append((gated * share[:, :, None]).sum(1))
        logits: torch.Tensor = self.output(self.drop(torch.cat(means, 1)))
        return logits


def _train_plainly(features: Features, config: TrainConfig) -> None:
    torch.manual_seed(config.seed)
    every = torch.arange(len(features.ids))
    tokens = [values.index_select(0, every) for values in features.tokens.values()]
    shares = [n / n.sum(1, keepdim=True) for n in features.counts.values()]
    labels = features.labels[:, 0]
    head = _PlainSLCA(features, config)
    optimizer = torch.optim.AdamW(head.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    train, val = features.rows("train"), features.rows("val")
    for _ in range(config.epochs):
        head.train()
        for rows in torch.split(train[torch.randperm(len(train))], config.batch_size):
            logits = head([x[rows] for x in tokens], [n[rows] for n in shares])
            loss = nn.functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        head.eval()
        with torch.no_grad():
            head([x[val] for x in tokens], [n[val] for n in shares])


def _drawn_store(path: Path) -> str:
    """Return a store of BreastMNIST's shape: 780 images, five levels of 4 x 4 tokens x 192 or 256."""
    generator = np.random.default_rng(0)
    names = ("patch", "early", "middle", "late", "neck")
    levels = {name: LevelShape(256 if name == "neck" else 192, 4, 4, 16) for name in names}
    images, side = 780, 256
    fingerprint = Fingerprint(
        encoder="drawn",
        checkpoint_sha256="0" * 64,
        input_size=side,
        resize="longest",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        levels=names,
        window=4,
        views=("identity",),
        storage="float16",
        precision="float32",
        preprocessing=1,
    )
    labels = generator.integers(0, 2, (images, 1))
    table = RowTable(
        ids=[str(i) for i in range(images)],
        splits=["train"] * 546 + ["val"] * 78 + ["test"] * 156,
        groups=[""] * images,
        tasks={"class": ("a", "b")},
        labels=labels,
    )
    store = FeatureStore.create(path, fingerprint, levels, table)
    features = {
        name: (
            generator.normal(size=(images, 1, shape.channels, shape.rows, shape.cols))
            + labels[:, :, None, None, None]
        ).astype(np.float16)
        for name, shape in levels.items()
    }
    store.write(
        RowBatch(
            rows=np.arange(images),
            status=np.full(images, DONE, np.uint8),
            valid=np.full((images, 2), side, np.uint16),
            sha256=generator.integers(0, 256, (images, 32)).astype(np.uint8),
            error=[""] * images,
            features=features,
        )
    )
    return str(path)
