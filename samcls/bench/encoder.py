"""The encoder against `segment_anything` itself: speed, distance and memory, side by side in one run.

Both run the same modules and weights, drawn at random with the relative positions filled (the builders
leave them zero). The reference is the whole `ImageEncoderViT.forward`; the fast path gives every level.

    samcls bench encoder --encoder vit_b --repeats 3
    samcls bench encoder --encoder vit_h --device cuda --batch 8     # beside torch.compile, on a GPU
"""

import copy
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from samcls.bench.table import Bench, BenchRow, measure
from samcls.data.manifest import Manifest
from samcls.device import choose_device
from samcls.encode.base import LEVELS, Encoder
from samcls.encode.cost import best_seconds, encoder_macs, matmul_rate, peak_memory
from samcls.encode.encoders import default_batch, open_encoder
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.sam import SamEncoder, load_encoder
from samcls.encode.specs import encoder_spec

__all__ = ["bench_encoder", "bench_extract"]


def bench_encoder(
    encoder: str = "vit_b",
    size: int | None = None,
    batch: int = 1,
    repeats: int = 3,
    device: str = "auto",
    compiled: bool | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure one encoder.

    Args:
        encoder: `vit_t`, `vit_b`, `vit_l` or `vit_h`.
        size: Side of the input, in pixels.
        batch: Images encoded together.
        repeats: Timings of each, of which the shortest counts.
        device: As for extract.
        compiled: Whether to measure the reference under `torch.compile` too, which takes minutes on a
            CPU; by default on a GPU.
        log: Called with a line before each measurement.
    """
    where = choose_device(device)
    spec = encoder_spec(encoder)
    exact = load_encoder(encoder, levels=LEVELS, input_size=size, random_weights=True).to(where)
    side = exact.input_size
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
    frames, valid = frames.to(where), [(side, side)] * batch
    reference = _Reference(exact)
    log(f"reference: segment_anything, float32, {encoder} at {side} px, {batch} images")
    pixels = exact.normalise(frames, valid)
    slow, slow_peak, truth = _timed(lambda: reference(pixels), repeats, where)
    rows = [
        measure("segment_anything float32", batch / slow, "images/s"),
        measure("segment_anything float32, memory above weights", slow_peak / 1e9, "GB"),
    ]
    macs = batch * encoder_macs(spec, side, spec.depth + 1)
    rows.append(measure("multiply-accumulates", macs / batch / 1e9, "GMAC/image"))
    rows += _narrow_rows(reference, pixels, batch, repeats, compiled, log)
    for precision in ("float32", "bfloat16"):
        log(f"fast path, {precision}")
        fast = _in_precision(exact, precision)
        rows += _fast_rows(fast, frames, valid, truth, repeats, macs, (slow, slow_peak))
    log("fast path, one level")
    early = _in_precision(exact, "float32", ("early",))
    seconds, _, _ = _timed(lambda: early(frames, valid), repeats, where)
    whole = next(r.value for r in rows if r.measure == "fast path float32")
    cost = seconds * whole / batch
    rows.append(measure("fast path float32, --levels early, share of the time", cost, "of 1"))
    return Bench("encoder", rows)


def bench_extract(manifest: Manifest, options: ExtractOptions) -> Bench:
    """Measure a whole extract against the encoder alone, in turn, in one run.

    Files are read, decoded, encoded, pooled, compressed and written to a store that is then removed;
    the encoder alone gets one batch over and over.

    Args:
        manifest: The images.
        options: As for extract.
    """
    encoder = open_encoder(options)
    batch = options.batch or default_batch(encoder)
    side = encoder.input_size
    frames = torch.zeros(batch, side, side, 3, dtype=torch.uint8, device=encoder.device)
    valid = [(side, side)] * batch
    encoder(frames, valid)
    rates, alone = [], []
    repeats = max(3, min(40, len(manifest) // (4 * batch)))
    for _ in range(2):
        alone.append(repeats * batch / _seconds(lambda: encoder(frames, valid), repeats, encoder))
        with TemporaryDirectory() as folder:
            rates.append(
                extract(manifest, f"{folder}/s.zarr", options, allow_leak=True).images_per_second
            )
    alone.append(repeats * batch / _seconds(lambda: encoder(frames, valid), repeats, encoder))
    name = f"{options.encoder} {encoder.precision}, batch {batch}"
    mean = sum(alone) / len(alone)
    rows = [
        measure(f"{name}: encoder alone", mean, "images/s"),
        measure(f"{name}: extract", max(rates), "images/s", "encoder alone", mean),
    ]
    return Bench("extract", rows)


def _seconds(work: Callable[[], object], repeats: int, encoder: Encoder) -> float:
    def several() -> None:
        for _ in range(repeats):
            work()

    return best_seconds(several, 1, encoder.device)


class _Reference:
    """segment_anything's own forward pass, which also gives every level by hooks."""

    def __init__(self, encoder: SamEncoder) -> None:
        self.body = encoder.body
        self.body.pos_embed = torch.nn.Parameter(encoder.position, requires_grad=False)
        self._wanted = dict(zip(LEVELS[1:4], encoder.spec.global_blocks, strict=False))

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        handles = [
            self.body.blocks[0].register_forward_pre_hook(
                lambda _m, args: found.__setitem__("patch", args[0].permute(0, 3, 1, 2))
            )
        ]
        for level, block in self._wanted.items():
            handles.append(
                self.body.blocks[block].register_forward_hook(
                    lambda _m, _a, out, level=level: found.__setitem__(
                        level, out.permute(0, 3, 1, 2)
                    )
                )
            )
        with torch.inference_mode():
            found["neck"] = self.body(pixels)
        for handle in handles:
            handle.remove()
        return found


def _narrow_rows(
    reference: _Reference,
    pixels: Tensor,
    batch: int,
    repeats: int,
    compiled: bool | None,
    log: Callable[[str], None],
) -> Iterator[BenchRow]:
    """Measure the reference in bfloat16, as it comes and compiled."""
    log("reference: segment_anything, bfloat16")
    body = copy.deepcopy(reference.body).to(torch.bfloat16)
    narrow = pixels.to(torch.bfloat16)

    def run(whole: Callable[[Tensor], Tensor]) -> float:
        with torch.inference_mode():
            whole(narrow)
            return best_seconds(lambda: whole(narrow), repeats, pixels.device)

    plain = run(body)
    yield measure("segment_anything bfloat16", batch / plain, "images/s")
    if compiled or (compiled is None and pixels.device.type == "cuda"):
        log("reference: segment_anything, bfloat16, torch.compile")
        seconds = run(torch.compile(body))
        name, against = "segment_anything bfloat16, compiled", "segment_anything bfloat16"
        yield measure(name, batch / seconds, "images/s", against, batch / plain)


def _in_precision(
    encoder: SamEncoder, precision: str, levels: tuple[str, ...] = LEVELS
) -> SamEncoder:
    """Return the same weights behind another precision or other levels."""
    body = encoder.body
    digest, size = encoder.weights_sha256, encoder.input_size
    return SamEncoder(body, encoder.spec, levels, digest, size, precision).to(encoder.device)


def _fast_rows(
    fast: SamEncoder,
    frames: Tensor,
    valid: list[tuple[int, int]],
    truth: dict[str, Tensor],
    repeats: int,
    macs: float,
    slow: tuple[float, float],
) -> Iterator[BenchRow]:
    name, where, batch = f"fast path {fast.precision}", fast.device, len(frames)
    fast(frames, valid)
    seconds, peak, maps = _timed(lambda: fast(frames, valid), repeats, where)
    against = "segment_anything float32"
    yield measure(name, batch / seconds, "images/s", against, batch / slow[0])
    yield measure(f"{name}, memory above weights", peak / 1e9, "GB", against, slow[1] / 1e9)
    tokens = batch * (fast.input_size // 16) ** 2
    rate = matmul_rate(tokens, fast.spec.width, fast.dtype, where)
    yield measure(f"{name}, matrix products alone", rate / 1e9, "GMAC/s")
    yield measure(f"{name}, time over that of its products alone", seconds * rate / macs, "times")
    yield measure(f"{name}, arithmetic", 2 * macs / seconds / 1e12, "TFLOP/s")
    share = macs / seconds / rate
    yield measure(f"{name}, share of the rate of its products alone", share, "of 1")
    for level, reference in truth.items():
        found, exact = maps[level].double(), reference.double()
        relative = float((found - exact).norm() / exact.norm())
        yield measure(f"{name}, {level}: relative difference", relative, "of 1")
        cosine = torch.nn.functional.cosine_similarity(found.flatten(1), exact.flatten(1)).min()
        yield measure(f"{name}, {level}: cosine", float(cosine), "of 1")


def _timed(
    work: Callable[[], dict[str, Tensor]], repeats: int, device: torch.device
) -> tuple[float, float, dict[str, Tensor]]:
    """Return the shortest seconds, the peak bytes of one call, and its result."""
    with peak_memory(device) as peak:
        result = work()
    return best_seconds(work, repeats, device), float(peak.bytes), result
