"""What a guided network costs over its plain backbone: parameters, multiplications, a training step.

Parameters and multiplications are counted on the real architectures, on a device that holds no values.
The step is timed on random images and features, with and without gates in turn, the shortest of each.
Where gates cost more than they may, the least reduction, or larger window, that keeps to it follows.

    samcls bench guided                        # three networks and a ResNet-18's step, a minute
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from samcls.bench.table import Bench, BenchRow, measure
from samcls.device import choose_device
from samcls.encode.base import LEVELS
from samcls.encode.specs import encoder_spec
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.tensors import Features
from samcls.learn.fit.network import NetworkTrainer
from samcls.learn.heads.base import Shape
from samcls.learn.heads.guided.backbone import GUIDED, own_size
from samcls.learn.heads.guided.cost import Cost
from samcls.learn.heads.guided.net import cost_of_network
from samcls.learn.settings import Control, TrainConfig

__all__ = ["NETWORKS", "bench_guided"]

NETWORKS = ("resnet152", "legacy_senet154", "swinv2_base_window8_256")
PATCH = 16
MOST_PARAMETERS, MOST_MACS, MOST_TIME = 0.05, 0.01, 1.10  # that gates may add, or come to
FACTORS = (1, 2, 4)  # by which windows are larger where a step costs more than that
REDUCTIONS = (16, 24, 32, 48, 64, 128)
WARM_UP = 2  # steps before any is timed

Log = Callable[[str], None]


def bench_guided(
    networks: Sequence[str] = NETWORKS,
    encoder: str = "vit_h",
    window: int = 4,
    reduction: int = 16,
    network: str = "resnet18",
    size: int = 64,
    batch: int = 32,
    steps: int = 8,
    device: str = "auto",
    precision: str = "float32",
    compiled: bool = False,
    log: Log = lambda _: None,
) -> Bench:
    """Count what gates add to networks, and time a training step with and without them.

    Args:
        networks: Models that timm knows, counted at the size they were made for.
        encoder: Whose five levels feed the gates.
        window: That the levels are pooled over.
        reduction: Of the gates.
        network: Model whose step is timed.
        size: Side of its images, in pixels.
        batch: Images a step.
        steps: Timings of each; the shortest counts.
        device: Where steps run.
        precision: Of the step's matrix products.
        compiled: Time compiled networks too.
        log: Called with a line before each measurement.

    Raises:
        ConfigError: where timm or samcls has no such model.
    """
    config = TrainConfig(
        pretrained=False,
        reduction=reduction,
        batch_size=batch,
        precision=precision,  # type: ignore[arg-type]
    )
    rows: list[BenchRow] = []
    for name in networks:
        log(f"counting {name}")
        rows += _counted(
            replace(config, head=f"{GUIDED}{name}"), _shape(encoder, window, own_size(name))
        )
    log(f"timing {network}")
    config = replace(config, head=f"{GUIDED}{network}")
    rows += _timed(config, encoder, window, size, steps, device)
    if compiled:
        log(f"compiling {network}")
        rows += _compiled(config, _shape(encoder, window, size), steps, device)
    return Bench("guided", rows)


def _shape(encoder: str, window: int, size: int) -> Shape:
    """Return what an encoder's store gives a network whose images have a size."""
    spec = encoder_spec(encoder)
    side = -(-spec.input_size // (PATCH * window))
    return Shape(
        channels={k: spec.neck_width if k == "neck" else spec.width for k in LEVELS},
        classes={"class": 2},
        grids=dict.fromkeys(LEVELS, (side, side)),
        window=window,
        pixels=size,
    )


def _counted(config: TrainConfig, shape: Shape) -> Iterator[BenchRow]:
    """Return a network's rows, and the least reduction that keeps its gates within the limits."""
    label = f"{config.head.removeprefix(GUIDED)} at {shape.pixels}"
    cost = cost_of_network(config, shape)
    yield measure(f"{label}: parameters", cost.parameters / 1e6, "M")
    yield measure(f"{label}: GMACs an image", cost.macs / 1e9, "")
    yield from _added(label, config.reduction, cost)
    if _fits(cost):
        return
    for reduction in REDUCTIONS:
        if reduction > config.reduction:
            less = cost_of_network(replace(config, reduction=reduction), shape)
            if _fits(less):
                yield from _added(label, reduction, less)
                return


def _added(label: str, reduction: int, cost: Cost) -> Iterator[BenchRow]:
    for name, added, own in (
        ("parameters", cost.parameters_added, cost.parameters),
        ("GMACs", cost.macs_added, cost.macs),
    ):
        yield measure(f"{label}: {name} added, reduction {reduction}", 100 * added / own, "%")


def _fits(cost: Cost) -> bool:
    return (
        cost.parameters_added <= MOST_PARAMETERS * cost.parameters
        and cost.macs_added <= MOST_MACS * cost.macs
    )


def _timed(
    config: TrainConfig, encoder: str, window: int, size: int, steps: int, device: str
) -> Iterator[BenchRow]:
    """Milliseconds of a step with and without gates, over larger windows until it costs little."""
    label = _label(config, size)
    plain = f"{label}: plain"
    for factor in FACTORS:
        shape = _shape(encoder, window * factor, size)
        best = _step_seconds(config, shape, steps, device)
        here = f"window {window * factor}"
        if factor > 1:
            plain = f"{label}: plain, beside {here}"
        yield measure(plain, 1000 * best["plain"], "ms")
        against = (plain, 1000 * best["plain"])
        yield measure(f"{label}: gated by SLCA, {here}", 1000 * best["none"], "ms", *against)
        if factor == 1:
            yield measure(f"{label}: gated by SE", 1000 * best["se"], "ms", *against)
        if best["none"] <= MOST_TIME * best["plain"]:
            return


def _compiled(config: TrainConfig, shape: Shape, steps: int, device: str) -> Iterator[BenchRow]:
    """Return a compiled step beside one that is not, with and without gates, and what comes before it."""
    features = _features(shape, config.batch_size, choose_device(device, training=True))
    label = _label(config, shape.pixels)
    controls: tuple[tuple[Control, str], ...] = (("plain", "plain"), ("none", "gated by SLCA"))
    for control, named in controls:
        config = replace(config, control=control)
        both = [
            NetworkTrainer(features, replace(config, compile=wanted)) for wanted in (False, True)
        ]
        start = time.perf_counter()
        eager, quick = _shortest(both, steps)
        passed = time.perf_counter() - start - steps * (eager + quick)
        beside = f"{label}: {named}, beside compiled"
        yield measure(beside, 1000 * eager, "ms")
        against = (beside, 1000 * eager)
        yield measure(f"{label}: {named}, compiled", 1000 * quick, "ms", *against)
        yield measure(f"{label}: {named}, compiling", passed, "s")


def _label(config: TrainConfig, size: int) -> str:
    return f"step of {config.head.removeprefix(GUIDED)} at {size}, {config.batch_size} images"


def _step_seconds(config: TrainConfig, shape: Shape, steps: int, device: str) -> dict[str, float]:
    """Return the shortest step of the plain network and of the gated ones."""
    features = _features(shape, config.batch_size, choose_device(device, training=True))
    controls: tuple[Control, ...] = ("plain", "none", "se")
    training = [NetworkTrainer(features, replace(config, control=name)) for name in controls]
    return dict(zip(controls, _shortest(training, steps), strict=True))


def _shortest(training: Sequence[NetworkTrainer], steps: int) -> list[float]:
    """Seconds of each one's shortest step, timed in turn after a warm-up."""

    def seconds(one: NetworkTrainer) -> float:
        rate = one.config.learning_rate
        start = time.perf_counter()
        float(one.step(one.train, rate))  # which waits for a GPU
        return time.perf_counter() - start

    for one in training:
        one.net.learning()
        for _ in range(WARM_UP):
            seconds(one)
    found = [[seconds(one) for one in training] for _ in range(steps)]
    return [min(times) for times in zip(*found, strict=True)]


def _features(shape: Shape, images: int, device: torch.device) -> Features:
    """Random features and images of a shape, all in the training split."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*sides: int) -> Tensor:
        return torch.randn(*sides, generator=generator).to(device)

    size, cells = shape.pixels, {k: rows * cols for k, (rows, cols) in shape.grids.items()}
    pixels = torch.randint(0, 256, (images, size, size, 3), generator=generator, dtype=torch.uint8)
    return Features(
        tokens={k: drawn(images, cells[k], n) for k, n in shape.channels.items()},
        counts={k: torch.full((images, n), 16.0, device=device) for k, n in cells.items()},
        labels=torch.randint(0, 2, (images, 1), generator=generator),
        ids=tuple(str(i) for i in range(images)),
        splits=("train",) * images,
        groups=("",) * images,
        tasks={"class": ("a", "b")},
        window=shape.window,
        grids=shape.grids,
        views=1,
        fingerprint={},
        failed=0,
        pixels=Pixels(pixels, torch.full((images, 2), size)),
    )
