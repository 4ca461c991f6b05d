"""A run as one torch module: pictures of any size in, each task's probabilities out, nothing left outside.

Resizing, padding, normalisation, encoder, pooling over valid cells, rounding to what the store keeps,
larger windows, standardisation, heads, the mean over views and over runs, softmax and temperature:
every step is the pipeline's own, in operations that a tracer follows. It runs as fast as the encoder,
besides the resize (`resize.py`).

    module = ImageGraph(models, encoder, fingerprint, {"malignancy": 1.3}).eval()
    module(images)                       # one tensor "image class" for each of module.outputs
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from samcls.config import Resize
from samcls.deploy.export.pixels import shown_images, turned
from samcls.deploy.export.resize import resized
from samcls.encode.base import Encoder
from samcls.encode.extract import pooled_shape
from samcls.errors import ExportError
from samcls.learn.fit.prediction import Model, merge_views
from samcls.learn.heads.base import split_logits
from samcls.pooling import pool, pool_valid, to_tokens
from samcls.store.schema import TRANSPOSED, Fingerprint, LevelShape

__all__ = ["SCALED", "HeadGraph", "ImageGraph", "level_shapes", "refuse_unexportable"]

SCALED = ":scaled"  # ends the name of a task's output under its temperature
TOGETHER = 512  # pixels: frames up to this side are encoded in all views at once
SMALLEST = 1e-12  # as in samcls.learn.score.calibration


def level_shapes(encoder: Encoder, fingerprint: Fingerprint) -> dict[str, LevelShape]:
    """Shapes of the levels as they are cached.

    Args:
        encoder: That made the features.
        fingerprint: Of the features.
    """
    window = fingerprint.window
    return {level: pooled_shape(encoder, level, window) for level in fingerprint.levels}


def refuse_unexportable(models: Sequence[Model], fingerprint: Fingerprint) -> None:
    """Refuse what no graph can answer for.

    Raises:
        ExportError: there is no model, the models answer for different tasks, one reads columns of a
            manifest, its head cannot be traced, or the features are rounded to fewer bits; with the
            remedy.
    """
    if not models:
        raise ExportError("there is no model to export; name a finished run")
    if any(dict(model.tasks) != dict(models[0].tasks) for model in models):
        raise ExportError(
            "the runs answer for different tasks or classes, whose mean is nothing; export each alone"
        )
    for model in models:
        if model.meta:
            named = ", ".join(column.name for column in model.meta)
            raise ExportError(
                f"the run reads columns of the manifest besides the image ({named}), and an exported "
                "model is given images alone; train without --with-meta and export that"
            )
        if model.head.untraceable:
            raise ExportError(model.head.untraceable)
    if fingerprint.keep_bits is not None:
        raise ExportError(
            f"the store keeps {fingerprint.keep_bits} bits of each value (--keep-bits), a rounding that "
            "a graph does not know; extract without --keep-bits, and train and export on that"
        )


class _FittedHead(nn.Module):
    """One model: from cached window means to logits."""

    def __init__(self, model: Model, stored: int) -> None:
        super().__init__()
        self.head = model.head
        self.levels = tuple(model.shape.channels)
        self.factor = model.shape.window // stored
        self.looks = model.shape.pixels
        for i, level in enumerate(self.levels):
            self.register_buffer(f"mean_{i}", model.scaler.mean[level].clone())
            self.register_buffer(f"std_{i}", model.scaler.std[level].clone())


class HeadGraph(nn.Module):
    """From window means as they are cached to probabilities: the part that `--head-only` exports.

    Args:
        models: Of one run, or of several whose probabilities are averaged.
        fingerprint: Of the features.
        shapes: Of the levels as they are cached.
        temperatures: For tasks that get a second output.

    Attributes:
        levels: Names of the levels that are read, in the order of the inputs.
        pixels: Side of the images that a head looks at besides; 0 where none does.
        outputs: Names of what `forward` returns.

    Raises:
        ExportError: as `refuse_unexportable`.
    """

    def __init__(
        self,
        models: Sequence[Model],
        fingerprint: Fingerprint,
        shapes: Mapping[str, LevelShape],
        temperatures: Mapping[str, float],
    ) -> None:
        super().__init__()
        refuse_unexportable(models, fingerprint)
        self.tasks = {task: tuple(names) for task, names in models[0].tasks.items()}
        self.temperatures = {t: temperatures[t] for t in self.tasks if t in temperatures}
        self.outputs = [*self.tasks, *(task + SCALED for task in self.temperatures)]
        self.fingerprint = fingerprint
        self.shapes = dict(shapes)
        wanted = {level for model in models for level in model.shape.channels}
        self.levels = tuple(level for level in fingerprint.levels if level in wanted)
        self.members = nn.ModuleList(_FittedHead(model, fingerprint.window) for model in models)
        self.pixels = max(model.shape.pixels for model in models)
        self.requires_grad_(requires_grad=False)

    def forward(
        self,
        maps: Mapping[str, Float[Tensor, "image view _channel _row _col"]],
        valid: Int64[Tensor, "image 2"],
        pixels: Float[Tensor, "image 3 size size"] | None = None,
    ) -> tuple[Float[Tensor, "image _class"], ...]:
        """Each task's probabilities, in [0, 1], each row of sum 1; then those under a temperature.

        Args:
            maps: For each level, window means as cached.
            valid: Height and width of the picture in the encoder's frame, in its pixels.
            pixels: The pictures at the side that a head asks for, 0..255, for such a head.
        """
        views = self.fingerprint.views
        counts = {level: self._counts(level, valid).flatten(0, 1) for level in self.levels}
        flat = {level: maps[level].flatten(0, 1) for level in self.levels}
        images = None
        if self.pixels and pixels is not None:
            images = shown_images(pixels, valid, views, self.fingerprint.input_size)
        pooled: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        said = []
        for member in self._members():
            tokens, cells = {}, {}
            for i, level in enumerate(member.levels):
                key = (level, member.factor)
                if key not in pooled:
                    mean, count = pool(flat[level], counts[level], member.factor)
                    pooled[key] = to_tokens(mean), count.flatten(1)
                own, cells[level] = pooled[key]
                tokens[level] = (own - getattr(member, f"mean_{i}")) / getattr(member, f"std_{i}")
            logits = member.head.traced(tokens, cells, images if member.looks else None)
            classes = [len(names) for names in self.tasks.values()]
            merged = split_logits(merge_views(logits, len(views), classes), classes)
            said.append([part.softmax(1) for part in merged])
        found = [torch.stack(list(task)).mean(0) for task in zip(*said, strict=True)]
        by_task = dict(zip(self.tasks, found, strict=True))
        scaled = [
            (by_task[task].clamp(SMALLEST, 1.0).log() / temperature).softmax(1)
            for task, temperature in self.temperatures.items()
        ]
        return (*found, *scaled)

    def _members(self) -> list[_FittedHead]:
        return [member for member in self.members if isinstance(member, _FittedHead)]

    def _counts(
        self, level: str, valid: Int64[Tensor, "image 2"]
    ) -> Float[Tensor, "image view row col"]:
        """How many cells that show picture lie under each window, as the store counts them."""
        shape, window = self.shapes[level], self.fingerprint.window
        cells = torch.div(valid + (shape.patch - 1), shape.patch, rounding_mode="floor")
        found = []
        for view in self.fingerprint.views:
            seen = cells.flip(1) if view in TRANSPOSED else cells
            down = (seen[:, :1] - window * torch.arange(shape.rows)).clamp(0, window)
            across = (seen[:, 1:] - window * torch.arange(shape.cols)).clamp(0, window)
            found.append((down[:, :, None] * across[:, None, :]).float())
        return torch.stack(found, 1)


class ImageGraph(nn.Module):
    """From pictures to probabilities.

    Args:
        models: Of one run, or of several whose probabilities are averaged.
        encoder: That made the features, in float32, on the CPU.
        fingerprint: Of the features.
        temperatures: For tasks that get a second output.
        vertical_first: As `vertical_first` in `resize.py` says.

    Attributes:
        outputs: Names of what `forward` returns.

    Raises:
        ExportError: as `refuse_unexportable`, or the encoder has no plain form.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        models: Sequence[Model],
        encoder: Encoder,
        fingerprint: Fingerprint,
        temperatures: Mapping[str, float],
        *,
        vertical_first: bool = False,
    ) -> None:
        super().__init__()
        self.head = HeadGraph(models, fingerprint, level_shapes(encoder, fingerprint), temperatures)
        self.outputs = self.head.outputs
        self.fingerprint = fingerprint
        self.resize = cast("Resize", fingerprint.resize)
        self.vertical_first = vertical_first
        self.given = encoder.levels
        self.encoder = encoder.plain().requires_grad_(requires_grad=False)
        self.register_buffer("mean", encoder.mean.clone())
        self.register_buffer("std", encoder.std.clone())

    def forward(
        self, images: UInt8[Tensor, "image row col 3"]
    ) -> tuple[Float[Tensor, "image _class"], ...]:
        """Each task's probabilities, in [0, 1], each row of sum 1; then those under a temperature.

        Args:
            images: RGB, 0..255, all of one size.
        """
        made, pictures = self.fingerprint, images.permute(0, 3, 1, 2)
        size, views = made.input_size, made.views
        framed = [self._framed(turned(pictures, view), size) for view in views]
        stored: dict[str, list[Tensor]] = {level: [] for level in self.head.levels}
        # One call keeps a graph of eight views as short as that of one; at SAM's own size the memory
        # of a call counts more.
        step = len(views) if size <= TOGETHER else 1
        for part in (framed[i : i + step] for i in range(0, len(views), step)):
            normal = [(x - self.mean) / self.std * _shows(sides, size) for x, sides in part]
            given = self.encoder(torch.stack(normal, 1).flatten(0, 1))
            for level, values in zip(self.given, given, strict=True):
                if level in stored:
                    each = values.view(images.shape[0], len(part), *values.shape[1:])
                    stored[level].append(self._stored(level, each, [sides for _, sides in part]))
        maps = {level: torch.cat(found, 1) for level, found in stored.items()}
        frames, sides = framed[0]
        valid = torch.stack(sides).long()[None].expand(images.shape[0], 2)
        side = self.head.pixels
        kept = frames if side in {0, size} else self._framed(pictures, side)[0]
        said: tuple[Tensor, ...] = self.head(maps, valid, kept if side else None)
        return said

    def _framed(self, pictures: Tensor, size: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return resized(pictures, size, self.resize, vertical_first=self.vertical_first)

    def _stored(
        self,
        level: str,
        values: Float[Tensor, "image view channel row col"],
        sides: Sequence[tuple[Tensor, Tensor]],
    ) -> Float[Tensor, "image view channel down across"]:
        """Pool maps over their valid cells, and round them as the store does."""
        patch, window = self.head.shapes[level].patch, self.fingerprint.window
        shows = torch.stack([_shows(one, values.shape[-1], patch) for one in sides])
        every = shows[None].expand(values.shape[0], -1, -1, -1)
        pooled = pool_valid(values.flatten(0, 1), every.flatten(0, 1), window)
        kept = pooled.half().float() if self.fingerprint.storage == "float16" else pooled
        return kept.view(values.shape[0], len(sides), *kept.shape[1:])


def _shows(
    sides: tuple[Float[Tensor, ""], Float[Tensor, ""]], cells: int, patch: int = 1
) -> Bool[Tensor, "{cells} {cells}"]:
    """Mark the cells that show picture, as `valid_cells` does."""
    place = torch.arange(cells, dtype=torch.float64) * patch
    return (place < sides[0])[:, None] & (place < sides[1])[None]
