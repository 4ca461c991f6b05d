"""What an extract would cost, before it is run: `samcls extract --plan`.

Time comes from running with random weights on this machine, in the chosen precision: of SAM's encoders
single blocks, so that ViT-H is planned in seconds and without its checkpoint. Nothing is written.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from samcls.device import choose_device
from samcls.encode.base import MapShape
from samcls.encode.block import FastBlock
from samcls.encode.cost import best_seconds, peak_memory
from samcls.encode.encoders import default_batch
from samcls.encode.options import ExtractOptions
from samcls.encode.precision import choose_precision
from samcls.encode.registry import encoder_module
from samcls.encode.sam import empty_body
from samcls.encode.specs import (
    ENCODERS,
    PATCH,
    EncoderSpec,
    encoder_spec,
    parse_levels,
    resolve_level,
)
from samcls.encode.weights import CHECKPOINTS, place
from samcls.errors import WeightsError
from samcls.views import view_names

__all__ = ["PlanRow", "plan", "refuse_absent"]

ITEM_BYTES = {"float16": 2, "float32": 4}
SHARD_BYTES = 64 * 2**20
REPEATS = 3  # timings of each part, of which the shortest counts; for one rough price a single one


@dataclass(frozen=True)
class PlanRow:
    """The cost of one choice of options.

    Attributes:
        choice: What differs from what was asked for.
        images: To encode.
        minutes: Of the encoder, on this machine.
        bytes: On disk before compression.
        memory: At the peak, in bytes: weights, one image's activations, and shards held back.
        seconds_per_image: All views together.
    """

    choice: str
    images: int
    minutes: float
    bytes: int
    memory: int
    seconds_per_image: float


@dataclass(frozen=True)
class _Speed:
    """Measured on one input size in one precision.

    Attributes:
        ends: Seconds of patch embedding and of neck.
        windowed: Seconds of a block with windows.
        whole: Seconds of a block over the whole map.
        memory: Activations above the weights, in bytes.
    """

    ends: tuple[float, float]
    windowed: float
    whole: float
    memory: int


def plan(images: int, options: ExtractOptions, *, cheaper: bool = True) -> list[PlanRow]:
    """Price the options, and cheaper ones that a user might prefer.

    Args:
        images: Number of images.
        options: As asked for; no checkpoint is needed.
        cheaper: Whether to price other choices too.

    Raises:
        ConfigError: there is no such model or level.
    """
    device = choose_device(options.device)
    if options.encoder not in ENCODERS:
        return list(_whole_rows(images, options, device))
    speeds: dict[tuple[int, str], _Speed] = {}
    rows = []
    for choice, chosen in itertools.islice(_choices(options, device), None if cheaper else 1):
        spec = encoder_spec(chosen.encoder)
        key = (chosen.size or spec.input_size, chosen.precision)
        if key not in speeds:
            speeds[key] = _calibrate(spec, *key, device, REPEATS if cheaper else 1)
        rows.append(_price(choice, images, chosen, spec, speeds[key]))
    return rows


def refuse_absent(options: ExtractOptions, images: int) -> NoReturn:
    """Refuse a published encoder whose weights are not on this machine, with what there is instead.

    Args:
        options: Of an extract.
        images: That it would encode; what each choice takes here is estimated for them.

    Raises:
        WeightsError: naming each choice with its price.
    """
    record = CHECKPOINTS[options.encoder]
    other = replace(options, encoder="lite0", size=None, levels="all")
    asked, lite = (
        _duration(images, plan(images, one, cheaper=False)[0]) for one in (options, other)
    )
    raise WeightsError(
        f"{options.encoder}'s weights are not on this machine: there is none at {place(record)}. Choose:\n"
        f"  samcls weights fetch {record.name}    {record.bytes / 1e6:.0f} MB, {record.licence}; then "
        f"{asked} for {images} images\n"
        f"  --checkpoint FILE          a file of yours; as long\n"
        f"  --encoder lite0            trained on ImageNet, no SAM; installed already; {lite}"
    )


def _duration(images: int, row: PlanRow) -> str:
    seconds = images * row.seconds_per_image
    name, size = next(
        (n, s) for n, s in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= s or s == 1
    )
    return f"about {seconds / size:.2g} {name} on this machine ({row.seconds_per_image:.2g} s each)"


def _whole_rows(images: int, options: ExtractOptions, device: torch.device) -> Iterator[PlanRow]:
    """Price an encoder that is run as a whole, and wider windows and fewer views of it."""
    precision = options.precision
    if precision == "auto":
        precision = choose_precision(device)
    choice = replace(
        options.encoder_choice, precision=precision, random_weights=True, checkpoint=None
    )
    encoder = encoder_module(options.encoder).build(choice, lambda _: None).to(device)
    batch, side = default_batch(encoder), encoder.input_size
    frames = torch.zeros(batch, side, side, 3, dtype=torch.uint8, device=device)
    encoder(frames, [(side, side)] * batch)
    with peak_memory(device) as peak:
        seconds = best_seconds(lambda: encoder(frames, [(side, side)] * batch), 3, device) / batch
    held = sum(p.numel() * p.element_size() for p in encoder.parameters()) + peak.bytes
    for name, chosen in _plainer(options):
        views = len(view_names(chosen.views))
        cells = sum(_pooled_values(encoder.shape(k), chosen.window) for k in encoder.levels)
        payload = images * views * cells * ITEM_BYTES[chosen.storage]
        payload += images * 3 * (chosen.keep_pixels or 0) ** 2
        yield PlanRow(
            choice=name,
            images=images,
            minutes=images * views * seconds / 60,
            bytes=payload,
            memory=held + min(payload, SHARD_BYTES * len(encoder.levels)),
            seconds_per_image=views * seconds,
        )


def _plainer(options: ExtractOptions) -> Iterator[tuple[str, ExtractOptions]]:
    yield "as asked", options
    yield f"--window {options.window * 2}", replace(options, window=options.window * 2)
    if options.window > 1:
        yield "--window 1", replace(options, window=1)
    if options.views != "none":
        yield "--views none", replace(options, views="none")


def _pooled_values(shape: MapShape, window: int) -> int:
    return shape.channels * -(-shape.rows // window) * -(-shape.cols // window)


def _choices(options: ExtractOptions, device: torch.device) -> Iterator[tuple[str, ExtractOptions]]:
    precision = options.precision
    if precision == "auto":
        precision = choose_precision(device)
    asked = replace(options, precision=precision)
    spec = encoder_spec(options.encoder)
    size = options.size or spec.input_size
    yield "as asked", asked
    for cheaper in ("early", "early,middle"):
        if parse_levels(asked.levels, spec) != tuple(cheaper.split(",")):
            yield f"--levels {cheaper}", replace(asked, levels=cheaper)
    if size > 512:
        yield "--size 512", replace(asked, size=512, window=max(1, asked.window // 2))
    if asked.window * 2 <= size // PATCH:
        yield f"--window {asked.window * 2}", replace(asked, window=asked.window * 2)
    if asked.window > 1:
        yield "--window 1", replace(asked, window=1)
    if asked.views != "none":
        yield "--views none", replace(asked, views="none")
    if precision != "float32":
        yield "--precision float32", replace(asked, precision="float32")


def _price(
    choice: str, images: int, options: ExtractOptions, spec: EncoderSpec, speed: _Speed
) -> PlanRow:
    levels = parse_levels(options.levels, spec)
    deepest = max(resolve_level(level, spec) for level in levels)
    ran = range(min(deepest, spec.depth))
    whole = sum(block in spec.global_blocks for block in ran)
    seconds = speed.ends[0] + whole * speed.whole + (len(ran) - whole) * speed.windowed
    if deepest > spec.depth:
        seconds += speed.ends[1]
    views = len(view_names(options.views))
    side = -(-((options.size or spec.input_size) // PATCH) // options.window)
    channels = sum(spec.neck_width if level == "neck" else spec.width for level in levels)
    payload = images * views * channels * side * side * ITEM_BYTES[options.storage]
    payload += images * 3 * (options.keep_pixels or 0) ** 2
    return PlanRow(
        choice=choice,
        images=images,
        minutes=images * views * seconds / 60,
        bytes=payload,
        memory=_weight_bytes(spec, options.precision)
        + speed.memory
        + min(payload, SHARD_BYTES * len(levels)),
        seconds_per_image=views * seconds,
    )


def _weight_bytes(spec: EncoderSpec, precision: str) -> int:
    """Weights in float32, and the copies that the fast path keeps in a narrower type."""
    block = 12 * spec.width**2 + 13 * spec.width
    matrices = block * spec.depth
    return matrices * (4 if precision == "float32" else 6)


def _calibrate(
    spec: EncoderSpec, size: int, precision: str, device: torch.device, repeats: int
) -> _Speed:
    body = empty_body(spec.name)
    side = size // PATCH
    dtype: torch.dtype = getattr(torch, precision)
    tokens = torch.randn(1, side, side, spec.width, device=device)
    frame = torch.randn(1, 3, size, size, device=device)
    timings, peaks = {}, []
    for name, index in (("windowed", 0), ("whole", spec.global_blocks[0])):
        block = FastBlock(_filled(body.blocks[index], device), (side, side), dtype)
        block(tokens)
        with peak_memory(device) as peak:
            timings[name] = best_seconds(lambda b=block: b(tokens), repeats, device)  # type: ignore[misc]
        peaks.append(peak.bytes)
    embed, neck = _filled(body.patch_embed, device), _filled(body.neck, device)
    with torch.inference_mode():
        ends = (
            best_seconds(lambda: embed(frame), repeats, device),
            best_seconds(lambda: neck(tokens.permute(0, 3, 1, 2)), repeats, device),
        )
    held = 3 * tokens.nbytes + frame.nbytes
    return _Speed(ends, timings["windowed"], timings["whole"], max(peaks) + held)


def _filled(module: nn.Module, device: torch.device) -> nn.Module:
    """Give a part that has no weights random ones; their values do not change the time."""
    module = module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in module.parameters():
        _small(parameter, generator)
    return module.requires_grad_(requires_grad=False)


def _small(parameter: Tensor, generator: torch.Generator) -> None:
    with torch.no_grad():
        parameter.normal_(0, 0.02, generator=generator)
