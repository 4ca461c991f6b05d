"""The whole pipeline on built-in images with the built-in encoder: no download.

300 phantoms, five levels, one SLCA head with its baselines. Every artefact stays in the folder, and a
second call goes on where the first one stopped.

    samcls demo my-first-look
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samcls.data.manifest import check_labels, read_manifest
from samcls.data.phantoms import write_phantoms
from samcls.encode.extract import ExtractOptions, ExtractSummary, Progress, extract
from samcls.learn.runs.folder import MARK, load_run
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

__all__ = ["DemoResult", "run_demo"]


@dataclass(frozen=True)
class DemoResult:
    """What the demo left behind.

    Attributes:
        directory: Where everything is.
        seconds: By stage: `images`, `extract`, `train`.
        extract: Summary of stage one.
        train: Figures of stage two, as in the run's `metrics.json`.
    """

    directory: Path
    seconds: dict[str, float]
    extract: ExtractSummary
    train: dict[str, Any]

    @property
    def commands(self) -> list[str]:
        """The commands that do the same by hand, from the images on."""
        folder = self.directory
        return [
            f"samcls extract {folder}/manifest.csv {folder}/features.zarr --encoder vit_t",
            f"samcls train {folder}/features.zarr {folder}/run",
        ]


def run_demo(
    directory: str | Path,
    images: int = 300,
    seed: int = 0,
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
    log(
        f"stage one: encoding {len(rows)} images with vit_t, an UNTRAINED miniature of SAM's encoder"
    )
    summary = extract(rows, folder / "features.zarr", ExtractOptions(), progress)
    marks.append(time.monotonic())
    log("stage two: training an SLCA head on the cached features, with its baselines")
    figures = _train_once(folder, log)
    marks.append(time.monotonic())
    spans = [after - before for before, after in itertools.pairwise(marks)]
    seconds = dict(zip(("images", "extract", "train"), spans, strict=True))
    return DemoResult(folder, seconds, summary, figures)


def _train_once(folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
    run = folder / "run"
    if not (run / MARK).exists():
        train(FeatureStore.open(folder / "features.zarr"), TrainConfig(), run, log)
    return {"run": str(run), **load_run(run).metrics}
