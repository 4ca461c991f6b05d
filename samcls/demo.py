"""The whole pipeline on built-in images, with a trained encoder and an untrained one; no download.

600 phantoms, five levels, an SLCA head with its baselines on the features of each. Every artefact stays in
the folder, and a second call goes on where the first one stopped.

    samcls demo my-first-look
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samcls.data.manifest import Manifest, check_labels, read_manifest
from samcls.data.phantoms import write_phantoms
from samcls.encode.extract import ExtractOptions, ExtractSummary, Progress, extract
from samcls.learn.runs.folder import MARK, load_run
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["ENCODERS", "DemoResult", "run_demo"]

ENCODERS = {  # each with the ending of its store's and its run's names
    "lite0": "",
    "vit_t": "-untrained",
}
TOLD = {
    "lite0": "lite0, trained on ImageNet",
    "vit_t": "vit_t, an UNTRAINED miniature of SAM's encoder, for comparison",
}


@dataclass(frozen=True)
class DemoResult:
    """What the demo left behind.

    Attributes:
        directory: Where everything is.
        seconds: By stage: `images`, and `extract` and `train` of each encoder.
        extract: Summary of stage one, by encoder.
        train: Figures of stage two, by encoder, as in the run's `metrics.json`.
    """

    directory: Path
    seconds: dict[str, float]
    extract: dict[str, ExtractSummary]
    train: dict[str, dict[str, Any]]

    @property
    def commands(self) -> list[str]:
        """The commands that do the same by hand, from the images on."""
        folder = self.directory
        return [
            f"samcls extract {folder}/manifest.csv {folder}/features.zarr --encoder lite0",
            f"samcls train {folder}/features.zarr {folder}/run",
        ]


def run_demo(
    directory: str | Path,
    images: int = 600,
    seed: int = 1,
    log: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> DemoResult:
    """Draw images, encode them, train a head and score it.

    Args:
        directory: New, or left by an earlier demo.
        images: Number of phantoms.
        seed: Of the phantoms.
        log: Called with a line for each stage.
        progress: Called with (finished, total, failed) in stage one.

    Raises:
        OverwriteRefused: the folder holds files of another origin.
        WeightsError: lite0's weights are not installed.
    """
    folder = Path(directory)
    marks = [time.monotonic()]
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        log(f"drawing {images} ultrasound-like phantoms into {folder}")
        write_phantoms(folder, images, seed)
    rows = read_manifest(manifest)
    check_labels(rows)
    marks.append(time.monotonic())
    summaries, figures = {}, {}
    for name, ending in ENCODERS.items():
        summaries[name] = _encode(rows, folder / f"features{ending}.zarr", name, log, progress)
        marks.append(time.monotonic())
        figures[name] = _train_once(folder, ending, log)
        marks.append(time.monotonic())
    stages = ["images", *(f"{stage} {name}" for name in ENCODERS for stage in ("extract", "train"))]
    spans = [after - before for before, after in itertools.pairwise(marks)]
    return DemoResult(folder, dict(zip(stages, spans, strict=True)), summaries, figures)


def _encode(
    rows: Manifest, store: Path, name: str, log: Callable[[str], None], progress: Progress | None
) -> ExtractSummary:
    log(f"stage one: encoding {len(rows)} images with {TOLD[name]}")
    return extract(rows, store, ExtractOptions(encoder=name), progress)


def _train_once(folder: Path, ending: str, log: Callable[[str], None]) -> dict[str, Any]:
    log("stage two: training the default heads on the cached features, with their baselines")
    run = folder / f"run{ending}"
    if not (run / MARK).exists():
        train(FeatureStore.open(folder / f"features{ending}.zarr"), TrainConfig(), run)
    return {"run": str(run), **load_run(run).metrics}
