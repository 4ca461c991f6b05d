"""What an epoch of SLCA costs on full maps, pooled maps, streamed, and with the encoder in the loop.

The maps are random numbers of the shapes that SAM's encoder gives; the arithmetic does not care. One
level of 256 x 64 x 64, 546 images, takes 1.1 GB as float16 (and needs no store).

    samcls bench train --side 64 --images 546
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from samcls.bench.table import Bench, BenchRow, measure
from samcls.encode.sam import load_encoder
from samcls.learn.features.mapped import scratch_tensor
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import steady_threads, trainer_of
from samcls.learn.fit.prediction import shape_of
from samcls.learn.heads.registry import build_head
from samcls.learn.heads.slca_head import SLCAHead
from samcls.learn.settings import TrainConfig
from samcls.pooling import pool, to_tokens

__all__ = ["bench_train"]

LEVEL, BLOCK = "neck", 64
BATCH = 8  # images encoded together
FULL_EPOCHS, POOLED_EPOCHS = 2, 20


def bench_train(
    side: int = 64,
    channels: int = 256,
    images: int = 546,
    window: int = 4,
    encoder_rate: float | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure one SLCA, its shortest epoch in each form.

    Args:
        side: Rows and columns of the full maps.
        channels: Of the maps.
        images: In the training split.
        window: SLCA's window, which must divide `side` for the logits to be compared.
        encoder_rate: Images a second of the encoder whose epoch is to be estimated; None measures
            vit_t on this machine.
        log: Called with a line before each measurement.

    Returns:
        Seconds an epoch of each form, each with its ratio to the full maps', and the greatest
        relative difference between the logits of the full and the pooled form.
    """
    config = TrainConfig(head="slca", window=window, dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    log(f"making {images} maps of {channels} x {side} x {side}")
    maps = _maps(images, channels, side, generator)
    pooled = _features(maps, window, generator)
    with steady_threads(pooled, config):
        log("full maps")
        full = _full_epoch(maps, pooled, config)
        log("pooled maps")
        fast = min(_epochs(pooled, config))
        log("streamed")
        streamed = min(_epochs(_streamed(pooled), config))
        apart = _difference(maps, pooled, config)
    rows = [
        measure("epoch on full maps", full, "s"),
        _against("epoch on pooled maps", fast, full),
        _against("epoch on pooled maps, streamed", streamed, full),
    ]
    log("encoder")
    rate = encoder_rate or _vit_t_rate()
    rows.append(_against("epoch with the encoder in the loop", images / rate + full, full))
    rows.append(measure("full maps over pooled maps", full / fast, "times"))
    rows.append(measure("in memory over streamed", fast / streamed, "times"))
    rows.append(measure("logits, full against pooled", apart, "relative difference"))
    return Bench("train", rows)


def _against(name: str, value: float, full: float) -> BenchRow:
    return measure(name, value, "s", "epoch on full maps", full)


def _maps(images: int, channels: int, side: int, generator: torch.Generator) -> Tensor:
    """Random maps, float16, "image channel row col", made a block at a time."""
    maps = torch.empty(images, channels, side, side, dtype=torch.float16)
    for block in torch.split(maps, BLOCK):
        block.copy_(torch.randn(block.shape, generator=generator))
    return maps


def _features(maps: Tensor, window: int, generator: torch.Generator) -> Features:
    """Return the maps pooled over the window, with random labels, all in the training split."""
    images, side = len(maps), maps.shape[2]
    parts = [
        pool(block.float(), torch.ones(len(block), side, side), window)
        for block in torch.split(maps, BLOCK)
    ]
    tokens = torch.cat([to_tokens(part) for part, _ in parts])
    counts = torch.cat([count.flatten(1) for _, count in parts])
    grid = parts[0][0].shape[2:]
    return Features(
        tokens={LEVEL: tokens},
        counts={LEVEL: counts},
        labels=torch.randint(0, 2, (images, 1), generator=generator),
        ids=tuple(str(i) for i in range(images)),
        splits=("train",) * images,
        groups=("",) * images,
        tasks={"class": ("a", "b")},
        window=window,
        grids={LEVEL: (grid[0], grid[1])},
        views=1,
        fingerprint={},
        failed=0,
    )


def _streamed(features: Features) -> Features:
    tokens = features.tokens[LEVEL]
    return replace(
        features, tokens={LEVEL: scratch_tensor(tokens.shape, tokens.dtype).copy_(tokens)}
    )


def _head(features: Features, config: TrainConfig) -> SLCAHead:
    head = build_head(config, shape_of(features), torch.Generator().manual_seed(0))
    if not isinstance(head, SLCAHead):
        raise TypeError(f"the bench is of slca, not of {config.head}")
    return head


def _epochs(features: Features, config: TrainConfig) -> list[float]:
    trainer = trainer_of(features, [config])
    return [_timed(lambda: trainer.training_pass(1)) for _ in range(POOLED_EPOCHS)]


def _full_epoch(maps: Tensor, features: Features, config: TrainConfig) -> float:
    """Return the shortest epoch of the same head on whole maps, written as anyone would."""
    head = _head(features, config)
    optimizer = torch.optim.AdamW(head.parameters(), config.learning_rate)
    labels = features.labels[:, 0]
    steps = -(-len(maps) // config.batch_size)

    def run() -> None:
        for rows in torch.tensor_split(torch.randperm(len(maps)), steps):
            batch = maps.index_select(0, rows).float()
            valid = torch.ones(len(rows), *batch.shape[2:], dtype=torch.bool)
            logits = head.from_maps({LEVEL: batch}, {LEVEL: valid})
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return min(_timed(run) for _ in range(FULL_EPOCHS))


def _difference(maps: Tensor, features: Features, config: TrainConfig) -> float:
    """Greatest difference between both forms' logits, relative to the largest logit."""
    head, some = _head(features, config), torch.arange(min(16, len(maps)))
    batch = maps[: len(some)].float()
    valid = torch.ones(len(batch), *batch.shape[2:], dtype=torch.bool)
    with torch.inference_mode():
        full = head.from_maps({LEVEL: batch}, {LEVEL: valid})
        tokens = {LEVEL: features.tokens[LEVEL].index_select(0, some)}
        fast = head(tokens, {LEVEL: features.counts[LEVEL][some]})
    return float((full - fast).abs().max() / full.abs().max())


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _vit_t_rate() -> float:
    """Images a second of the built-in encoder, random weights, at its own input size."""
    encoder = load_encoder("vit_t", random_weights=True)
    side = encoder.input_size
    frames = torch.zeros(BATCH, side, side, 3, dtype=torch.uint8)

    def run() -> None:
        with torch.inference_mode():
            encoder(frames, [(side, side)] * BATCH)

    return BATCH / min(_timed(run) for _ in range(3))
