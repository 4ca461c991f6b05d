"""`samcls bench predict`: how much of a prediction's time is the encoder's own, and how soon it begins.

The target is 0.95 of the encoder's own rate, and 3 s from the command to its first row with `lite0`.

    bench_predict("run", "manifest.csv", print)
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from samcls.bench.table import Bench, measure
from samcls.data.images import make_frame, read_image
from samcls.deploy.inputs import pictures_of
from samcls.deploy.predict import predict
from samcls.deploy.predictor import Predictor, load_predictor
from samcls.encode.lanes import Lanes
from samcls.pooling import pool_valid, valid_cells

__all__ = ["bench_predict"]

BATCHES = 40  # of the encoder alone, each of the three times
START = "import sys; from samcls.cli import main; sys.argv[0] = 'samcls'; main()"

Log = Callable[[str], None]


def bench_predict(run: str | Path, manifest: str | Path, log: Log = lambda _: None) -> Bench:
    """Measure a run's predictions of a manifest's pictures beside its encoder alone.

    Args:
        run: A finished run.
        manifest: Of pictures that can be read.
        log: Told what is measured.
    """
    predictor = load_predictor(run, log=log)
    rows = pictures_of([manifest]).rows
    batch = predictor.options.batch or 1
    log("the encoder alone, on frames in memory")
    files = [(row.path, row.index) for row in rows[: 4 * batch]]
    alone, rates = [_encoder_rate(predictor, files)], []
    log("whole predictions, files in and rows out, in turn with it")
    with tempfile.TemporaryDirectory() as place:
        for turn in range(2):
            out = Path(place) / f"{turn}.csv"
            rates.append(predict(predictor, [manifest], out).images_per_second)
            alone.append(_encoder_rate(predictor, files))
        log("from the command to the first row, three times")
        seconds = [_first_row(run, rows[0].path, Path(place)) for _ in range(3)]
    rate, encoder_rate = max(rates), sum(alone) / len(alone)
    return Bench(
        "predict",
        [
            measure("encoder alone", encoder_rate, "images/s"),
            measure("predict", rate, "images/s", "encoder alone", encoder_rate),
            measure("from the command to its one row, shortest of 3", min(seconds), "s"),
            measure("of it importing torch, shortest of 3", min(_torch() for _ in range(3)), "s"),
        ],
    )


def _encoder_rate(predictor: Predictor, files: list[tuple[str, int | None]]) -> float:
    """Encode and pool frames that lie in memory, in the lanes of an extract; images a second."""
    encoder, options = predictor.encoder, predictor.options
    size, views = encoder.input_size, len(predictor.fingerprint.views)
    frames = [make_frame(read_image(*file), size, options.resize) for file in files]
    count = options.batch or 1
    frames = (frames * (count // len(frames) + 1))[:count]
    batch = torch.from_numpy(np.stack([frame.pixels for frame in frames]))
    valid = [frame.valid for frame in frames]

    def work() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        for _ in range(views):
            for level, values in encoder(batch.to(encoder.device), valid).items():
                shape = encoder.shape(level)
                cells = valid_cells(valid, (shape.rows, shape.cols), shape.patch)
                pool_valid(values, cells, options.window)
        return {}, {}

    lanes = Lanes(encoder)
    work()
    begun = time.perf_counter()
    for future in [lanes.submit(work) for _ in range(BATCHES)]:
        future.result()
    seconds = time.perf_counter() - begun
    lanes.close()
    return BATCHES * count / seconds


def _first_row(run: str | Path, picture: str, place: Path) -> float:
    """Predict one picture in a process of its own; seconds."""
    picture = picture.partition("#")[0]
    if picture.endswith(".npz"):  # an archive has many
        picture = str(place / "picture.npz")
        np.savez(picture, images=np.zeros((1, 64, 64), np.uint8))
    begun = time.perf_counter()
    subprocess.run(  # noqa: S603 - this package's own command
        [sys.executable, "-c", START, "predict", str(run), picture], check=True, capture_output=True
    )
    return time.perf_counter() - begun


def _torch() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - begun
