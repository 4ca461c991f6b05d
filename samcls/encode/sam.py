"""The frozen SAM image encoder: frames in, maps of five depths out; the only door to segment_anything.

Runs `segment_anything`'s own modules and weights. Only the blocks up to the deepest requested level
run: ViT-H `early` alone costs a quarter of the whole. `vit_t` is a built-in miniature of the same
architecture (4.4 M parameters, 256 px, 50 images/s on 2 CPU cores) with seeded, untrained weights.

    encoder = load_encoder("vit_b", "sam_vit_b_01ec64.pth", levels=("early", "neck"))
    maps = encoder(frames, valid)            # {"early": (image, 768, 64, 64), "neck": (image, 256, ...)}
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional

from samcls.encode.attention import Scratch
from samcls.encode.base import (
    LEVELS,
    Encoder,
    EncoderChoice,
    MapShape,
    draw_weights,
    random_source,
    state_sha256,
)
from samcls.encode.block import FastBlock
from samcls.encode.plain import PlainSam
from samcls.encode.sam_weights import HeldEncoder, WantedEncoder, read_image_encoder
from samcls.encode.specs import (
    ENCODERS,
    PATCH,
    EncoderSpec,
    check_size,
    encoder_spec,
    parse_levels,
    resolve_level,
)
from samcls.encode.weights import CheckpointFile, checkpoint_file
from samcls.errors import ConfigError

__all__ = ["SamEncoder", "build", "check", "empty_body", "held_by", "load_encoder"]

# segment_anything/modeling/sam.py, Sam.__init__
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class SamEncoder(Encoder):
    """SAM's image encoder, frozen, giving the requested depths.

    Attributes:
        spec: The architecture.
        body: segment_anything's own module.
    """

    position: Tensor
    _on: torch.device

    def __init__(
        self,
        body: ImageEncoderViT,
        spec: EncoderSpec,
        levels: tuple[str, ...],
        weights_sha256: str,
        input_size: int,
        precision: str = "float32",
        trained: bool = True,
    ) -> None:
        super().__init__(
            spec.name,
            levels,
            weights_sha256,
            input_size,
            PIXEL_MEAN,
            PIXEL_STD,
            precision,
            trained,
        )
        self.body = body.eval().requires_grad_(requires_grad=False)
        self.spec = spec
        self._needs = {name: resolve_level(name, spec) for name in levels}
        self._fast: list[FastBlock] = []
        position = _resize_positions(body.pos_embed, input_size // PATCH)
        self.register_buffer("position", position, persistent=False)

    def shape(self, level: str) -> MapShape:
        """Return the shape of a level's map: one cell a patch at every level."""
        side = self.input_size // PATCH
        channels = self.spec.neck_width if level == "neck" else self.spec.width
        return MapShape(channels, side, side, PATCH)

    @torch.inference_mode()
    def forward(
        self, frames: UInt8[Tensor, "image size size 3"], valid: Sequence[tuple[int, int]]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Encode frames, as `Encoder.forward`.

        Blocks after the deepest level that is wanted do not run.
        """
        wanted = set(self._needs.values())
        scratch = Scratch()
        x = self.body.patch_embed(self.normalise(frames, valid)) + self.position
        after = {0: x.permute(0, 3, 1, 2)}
        for done, block in enumerate(self._prepared(), start=1):
            x = block(x, scratch)
            if done in wanted:
                after[done] = x.permute(0, 3, 1, 2)
        if "neck" in self._needs:
            after[self.spec.depth + 1] = self._neck(x.permute(0, 3, 1, 2))
        return {name: after[self._needs[name]] for name in self.levels}

    def plain(self) -> nn.Module:
        """Return the encoder without the fast path, as `Encoder.plain`."""
        self.require_float32()
        return PlainSam(self.body, self.position, self._needs)

    def _prepared(self) -> list[FastBlock]:
        """Return the wanted blocks' fast form, made once for the device that the encoder is on."""
        if not self._fast or self._on != self.device:
            side = self.input_size // PATCH
            needed = self.body.blocks[: max(self._needs.values())]
            self._fast = [FastBlock(block, (side, side), self.dtype) for block in needed]
            self._on = self.device
        return self._fast

    def _neck(self, x: Float[Tensor, "image channel row col"]) -> Tensor:
        """Run the neck: convolutions in the chosen precision, norms in float32."""
        for layer in self.body.neck:
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight.to(self.dtype)
                x = functional.conv2d(x.to(self.dtype), weight, padding=layer.padding).float()
            else:
                x = layer(x)
        return x


def _resize_positions(
    table: Float[Tensor, "1 row col channel"], side: int
) -> Float[Tensor, "1 side side channel"]:
    """Fit the learned positions to another grid, bicubically, as DeiT and ViTDet do."""
    if tuple(table.shape[1:3]) == (side, side):
        return table.detach().clone()
    resized = functional.interpolate(
        table.detach().permute(0, 3, 1, 2),
        size=(side, side),
        mode="bicubic",
        antialias=False,
        align_corners=False,
    )
    return resized.permute(0, 2, 3, 1).contiguous()


def check(choice: EncoderChoice) -> None:
    """Refuse levels, a size or a window that the encoder does not have.

    Raises:
        ConfigError: naming the option, what was got and what was expected.
    """
    spec = encoder_spec(choice.name)
    parse_levels(choice.levels, spec)
    if choice.size is not None:
        check_size(choice.size)
    side = (choice.size or spec.input_size) // PATCH
    if not 1 <= choice.window <= side:
        raise ConfigError(
            f"window is {choice.window}; expected 1 to {side}, the side of the map at "
            f"{side * PATCH} pixels"
        )


def build(choice: EncoderChoice, log: Callable[[str], None]) -> SamEncoder:
    """Build the encoder of a choice, as `load_encoder`."""
    return load_encoder(
        choice.name,
        choice.checkpoint,
        parse_levels(choice.levels, encoder_spec(choice.name)),
        choice.size,
        seed=choice.seed,
        precision=choice.precision,
        random_weights=choice.random_weights,
        log=log,
    )


def load_encoder(
    name: str,
    checkpoint: str | Path | None = None,
    levels: tuple[str, ...] = LEVELS,
    input_size: int | None = None,
    seed: int = 0,
    precision: str = "float32",
    random_weights: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> SamEncoder:
    """Build an encoder and load its weights.

    Args:
        name: One of `ENCODERS`.
        checkpoint: A file that holds this encoder, in any layout and precision; by default the
            official one that was fetched before. None for `vit_t`.
        levels: Depths to give.
        input_size: Side of the frames in pixels, a multiple of 16; the encoder's own by default.
        seed: Of drawn weights, which `vit_t` always has.
        precision: `float32`, `bfloat16` or `float16`.
        random_weights: Draw the weights of a SAM size instead of loading them.
        log: Called with a sentence where the file is not the official one, or is not taken as it is.

    Raises:
        ConfigError: unknown name or level, a checkpoint where there can be none, or a bad size.
        WeightsError: the checkpoint is absent, damaged, or of another encoder.
    """
    spec = encoder_spec(name)
    size = check_size(input_size or spec.input_size)
    for level in levels:
        resolve_level(level, spec)
    if not (spec.trained and not random_weights):
        if checkpoint is not None:
            raise ConfigError(
                f"{name} with seeded random weights takes no checkpoint; got {checkpoint}. Leave "
                "--checkpoint out, or choose vit_b, vit_l or vit_h without --random-weights"
            )
        body = _seeded(spec, seed)
        digest = state_sha256(body.state_dict())
        encoder = SamEncoder(body, spec, levels, digest, size, precision, trained=False)
        encoder.source = random_source(seed)
        return encoder
    file = checkpoint_file(name, None if checkpoint is None else Path(checkpoint))
    body = empty_body(name)
    held = read_image_encoder(file.path, _wanted(name, body))
    _fill(body, held)
    for sentence in _said(file, held, size):
        log(sentence)
    encoder = SamEncoder(body, spec, levels, file.sha256, size, precision)
    encoder.source = {"file": file.path.name, "official": file.official, "holds": str(held)}
    return encoder


def held_by(name: str, path: Path) -> HeldEncoder:
    """Return what a checkpoint file holds of an encoder.

    Raises:
        WeightsError: it cannot be read, or holds none.
    """
    return read_image_encoder(path, _wanted(name, empty_body(name)))


def _wanted(name: str, body: ImageEncoderViT) -> WantedEncoder:
    shapes = {key: tuple(value.shape) for key, value in body.state_dict().items()}
    return WantedEncoder(name, shapes, tuple(block.window_size for block in body.blocks))


def _fill(body: ImageEncoderViT, held: HeldEncoder) -> None:
    """Give a body its weights, with positions for the size that they were trained at."""
    for key, value in held.state.items():
        owner, _, name = key.rpartition(".")
        module = body.get_submodule(owner)
        setattr(module, name, nn.Parameter(value, requires_grad=False))


def _said(file: CheckpointFile, held: HeldEncoder, size: int) -> Iterator[str]:
    """Say of a checkpoint what a reader of the results must know."""
    if file.official is None:
        yield (
            f"{file.path.name} is not an official checkpoint: sha256 {file.sha256}; it holds {held}"
        )
    if held.precision != "float32":
        yield f"its weights are {held.precision}; they are read as float32"
    rows, cols = held.grid
    if (rows, cols) != (size // PATCH, size // PATCH):
        yield (
            f"its positions are those of {rows * PATCH} x {cols * PATCH} pixels; they, and the relative "
            f"ones, are interpolated to {size} x {size}"
            + (f" (--size {rows * PATCH} takes them as they are)" if rows == cols else "")
        )


def empty_body(name: str) -> ImageEncoderViT:
    """Build an encoder without weights, SAM's three with segment_anything's own builder.

    The parameters are on the meta device: nothing is drawn or held before the checkpoint is assigned.
    """
    if not ENCODERS[name].trained:
        return _miniature(ENCODERS[name])
    with torch.device("meta"):
        body: ImageEncoderViT = sam_model_registry[name]().image_encoder
    return body


def _seeded(spec: EncoderSpec, seed: int) -> ImageEncoderViT:
    body = empty_body(spec.name)
    body.to_empty(device="cpu")
    draw_weights(body, seed)
    return body


def _miniature(spec: EncoderSpec) -> ImageEncoderViT:
    with torch.device("meta"):
        return ImageEncoderViT(
            img_size=spec.input_size,
            patch_size=PATCH,
            embed_dim=spec.width,
            depth=spec.depth,
            num_heads=spec.width // 64,
            out_chans=spec.neck_width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=spec.window,
            global_attn_indexes=spec.global_blocks,
        )
