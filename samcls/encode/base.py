"""What every encoder keeps to: frames in, one map for each level out; it knows no files.

An encoder is frozen and says of itself what a store's fingerprint must hold.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from samcls.errors import ConfigError, ExportError
from samcls.pooling import valid_cells

__all__ = [
    "LEVELS",
    "Encoder",
    "EncoderChoice",
    "MapShape",
    "draw_weights",
    "random_source",
    "refuse_two_sources",
    "state_sha256",
]

LEVELS = ("patch", "early", "middle", "late", "neck")


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder is wanted, as far as the encoder itself is concerned.

    Attributes:
        name: As on the command line.
        levels: Comma-separated names, or `all`.
        window: Side of the pooling window, in map cells.
        size: Side of the frames in pixels; the encoder's own by default.
        checkpoint: File that holds the weights, if it is not the official one.
        random_weights: Draw the weights instead.
        seed: Of drawn weights.
        precision: `float32`, `bfloat16` or `float16`; settled only when the encoder is built.
    """

    name: str
    levels: str = "all"
    window: int = 1
    size: int | None = None
    checkpoint: str | None = None
    random_weights: bool = False
    seed: int = 0
    precision: str = "float32"


@dataclass(frozen=True)
class MapShape:
    """Shape of one level's whole map.

    Attributes:
        channels: Number of channels.
        rows: Height, in cells.
        cols: Width, in cells.
        patch: Side of a cell, in encoder-input pixels.
    """

    channels: int
    rows: int
    cols: int
    patch: int


class Encoder(nn.Module, ABC):
    """A frozen image encoder.

    Args:
        name: As on the command line.
        levels: Names of the depths that are given, in order.
        weights_sha256: Of the checkpoint file, or of the weights where there is none.
        input_size: Side of the frames, in pixels.
        mean: Of each RGB channel, in 0..255.
        std: Of each RGB channel, in 0..255.
        precision: Type of the arithmetic: `float32`, `bfloat16` or `float16`.
        trained: Whether the weights come from training.

    Attributes:
        source: Of weights from a checkpoint file its name, the official checkpoint that it is (None
            for another file) and what it holds; of drawn weights `untrained`; empty for others.
    """

    mean: Tensor
    std: Tensor
    source: Mapping[str, str | None]
    side_by_side = False

    def __init__(
        self,
        name: str,
        levels: tuple[str, ...],
        weights_sha256: str,
        input_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str,
        trained: bool,
    ) -> None:
        super().__init__()
        self.name = name
        self.levels = levels
        self.weights_sha256 = weights_sha256
        self.input_size = input_size
        self.pixel_mean = tuple(mean)
        self.pixel_std = tuple(std)
        self.precision = precision
        self.trained = trained
        self.source = {}
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the arithmetic."""
        chosen: torch.dtype = getattr(torch, self.precision)
        return chosen

    @abstractmethod
    def shape(self, level: str) -> MapShape:
        """Return the shape of a level's map."""

    @abstractmethod
    def forward(
        self, frames: UInt8[Tensor, "image size size 3"], valid: Sequence[tuple[int, int]]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Encode frames.

        Args:
            frames: RGB, 0..255, padded right and bottom to `input_size`.
            valid: Height and width that show picture, for each image.

        Returns:
            For each level, the whole map. Cells of padding are not masked here.
        """

    def maps(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Each level's whole map, in operations that a tracer follows.

        Args:
            pixels: As `normalise` gives them, in the type of the arithmetic.

        Raises:
            ExportError: the encoder has no such form.
        """
        del pixels
        raise ExportError(
            f"encoder {self.name} has no form that can be exported; export the head alone with "
            "--head-only, which takes features as samcls extract caches them"
        )

    def plain(self) -> nn.Module:
        """Return what lies between `normalise` and the maps, for a graph.

        Returns:
            A module from normalised pixels, "image 3 size size" in float32, to each level's whole
            map, a tuple in the order of `levels`; every tensor that it reads is its parameter or buffer.

        Raises:
            ExportError: the encoder has no such form, or computes in 16 bits.
        """
        self.require_float32()
        if type(self).maps is Encoder.maps:
            self.maps(self.mean[None])
        return _Plain(self)

    def require_float32(self) -> None:
        """Refuse another type of arithmetic, which a graph would not follow bit by bit.

        Raises:
            ExportError: the encoder computes in 16 bits.
        """
        if self.precision != "float32":
            raise ExportError(
                f"encoder {self.name} computes in {self.precision}, and a graph is made of float32; "
                "open it with precision float32"
            )

    def normalise(
        self, frames: UInt8[Tensor, "image size size 3"], valid: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "image 3 size size"]:
        """Normalise the picture and set its padding to zero, as `Sam.preprocess` does.

        Args:
            frames: RGB, 0..255, padded right and bottom.
            valid: Height and width that show picture, for each image.

        Returns:
            float32.
        """
        pixels = (frames.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if all(extent == (self.input_size, self.input_size) for extent in valid):
            return pixels
        shows = valid_cells(valid, (self.input_size, self.input_size), patch=1)
        return pixels * shows.to(pixels.device)[:, None]


class _Plain(nn.Module):
    """What `Encoder.plain` gives of an encoder that is plain already; the weights are its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = self.encoder.maps(pixels)
        return tuple(maps[level] for level in self.encoder.levels)


def random_source(seed: int) -> dict[str, str | None]:
    """Return what a store must know of weights that were drawn."""
    return {"untrained": f"random weights of seed {seed}"}


def refuse_two_sources(choice: EncoderChoice) -> None:
    """Refuse weights that are to be drawn and come from a file, with a `ConfigError`."""
    if choice.checkpoint and choice.random_weights:
        raise ConfigError(
            f"--random-weights draws the weights of {choice.name}, and --checkpoint "
            f"{choice.checkpoint} brings some; leave one of them out"
        )


def draw_weights(body: nn.Module, seed: int) -> None:
    """Draw every parameter from a generator of its own, so that no global seed is touched."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(body.named_parameters()):
        with torch.no_grad():
            _draw(name, parameter, generator)


def _draw(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Draw one parameter: positions small, matrices scaled to keep variance, norms neutral."""
    if "pos" in name:
        parameter.normal_(0, 0.02, generator=generator)
    elif parameter.dim() > 1:
        fan_in = math.prod(parameter.shape[1:])
        parameter.normal_(0, fan_in**-0.5, generator=generator)
    elif name.endswith("bias"):
        parameter.zero_()
    else:
        parameter.fill_(1)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Digest weights themselves: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
