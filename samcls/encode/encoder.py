"""The frozen SAM image encoder: frames in, maps of five depths out; the only door to segment_anything.

Runs `segment_anything`'s own modules and weights. Only the blocks up to the deepest requested level
run: ViT-H `early` alone costs a quarter of the whole. `vit_t` is a built-in miniature of the same
architecture (4.4 M parameters, 256 px, 50 images/s on 2 CPU cores) with seeded, untrained weights.

    encoder = load_encoder("vit_b", "sam_vit_b_01ec64.pth", levels=("early", "neck"))
    maps = encoder(frames, valid)            # {"early": (image, 768, 64, 64), "neck": (image, 256, ...)}
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional

from samcls.encode.attention import Scratch
from samcls.encode.base import LEVELS, Encoder, MapShape, state_sha256
from samcls.encode.block import FastBlock
from samcls.encode.state import check_keys, load_state_dict
from samcls.encode.weights import CHECKPOINTS, cache_dir, file_sha256
from samcls.errors import ConfigError, WeightsError

__all__ = [
    "ENCODERS",
    "EncoderSpec",
    "SamEncoder",
    "empty_body",
    "encoder_spec",
    "load_encoder",
    "parse_levels",
    "resolve_level",
]

# segment_anything/modeling/sam.py, Sam.__init__
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

PATCH = 16
_PREFIX = "image_encoder."


@dataclass(frozen=True)
class EncoderSpec:
    """What is fixed about an encoder before any weight is loaded.

    Attributes:
        name: as on the command line.
        input_size: side of the square input that the position table is made for, in pixels.
        depth: number of transformer blocks.
        global_blocks: indices of the blocks that attend over the whole map, four of them.
        width: channels of every level but the neck.
        neck_width: channels of the neck.
        window: side of the other blocks' attention windows, in map cells.
        trained: whether official weights exist; `vit_t` has seeded ones alone.
    """

    name: str
    input_size: int
    depth: int
    global_blocks: tuple[int, ...]
    width: int
    neck_width: int = 256
    window: int = 14
    trained: bool = True


# segment_anything/build_sam.py for the three; vit_t keeps their proportions at a grid of 16 x 16.
ENCODERS = {
    "vit_t": EncoderSpec("vit_t", 256, 8, (1, 3, 5, 7), 192, window=8, trained=False),
    "vit_b": EncoderSpec("vit_b", 1024, 12, (2, 5, 8, 11), 768),
    "vit_l": EncoderSpec("vit_l", 1024, 24, (5, 11, 17, 23), 1024),
    "vit_h": EncoderSpec("vit_h", 1024, 32, (7, 15, 23, 31), 1280),
}


def encoder_spec(name: str) -> EncoderSpec:
    """Look an encoder up.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in ENCODERS:
        raise ConfigError(f"unknown encoder {name!r}; expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def parse_levels(text: str, spec: EncoderSpec) -> tuple[str, ...]:
    """Read a comma-separated list of levels; `all` means the five named ones.

    Raises:
        ConfigError: a level is unknown or named twice.
    """
    names = LEVELS if text == "all" else tuple(part.strip() for part in text.split(","))
    for name in names:
        resolve_level(name, spec)
    if len(set(names)) != len(names):
        raise ConfigError(f"levels {text!r} name one level twice; name each once")
    return tuple(names)


def resolve_level(name: str, spec: EncoderSpec) -> int:
    """Return how many blocks a level needs: 0 for `patch`, `depth + 1` for the neck.

    `early`, `middle` and `late` are the outputs of the first three global-attention blocks. That
    choice is our reading of the paper; `block:<i>` names any other.

    Raises:
        ConfigError: the level is unknown, with the known ones.
    """
    named = dict(zip(LEVELS[1:4], spec.global_blocks, strict=False))
    if name == "patch":
        return 0
    if name == "neck":
        return spec.depth + 1
    if name in named:
        return named[name] + 1
    kind, _, number = name.partition(":")
    if kind == "block" and number.isdecimal() and int(number) < spec.depth:
        return int(number) + 1
    raise ConfigError(
        f"unknown level {name!r} for {spec.name}; expected {', '.join(LEVELS)} "
        f"or block:0 to block:{spec.depth - 1}"
    )


class SamEncoder(Encoder):
    """SAM's image encoder, frozen, giving the requested depths.

    Attributes:
        spec: the architecture.
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
    if table.shape[1] == side:
        return table.detach().clone()
    resized = functional.interpolate(
        table.detach().permute(0, 3, 1, 2),
        size=(side, side),
        mode="bicubic",
        antialias=False,
        align_corners=False,
    )
    return resized.permute(0, 2, 3, 1).contiguous()


def load_encoder(
    name: str,
    checkpoint: str | Path | None = None,
    levels: tuple[str, ...] = LEVELS,
    input_size: int | None = None,
    seed: int = 0,
    precision: str = "float32",
    random_weights: bool = False,
) -> SamEncoder:
    """Build an encoder and load its weights.

    Args:
        name: one of `ENCODERS`.
        checkpoint: an official SAM checkpoint file, by default the one fetched before; none for
            `vit_t`.
        levels: depths to give.
        input_size: side of the frames in pixels, a multiple of 16; the encoder's own by default.
        seed: of drawn weights, which `vit_t` always has.
        precision: `float32`, `bfloat16` or `float16`.
        random_weights: draw the weights of a SAM size instead of loading them.

    Raises:
        ConfigError: unknown name or level, a checkpoint where there can be none, or a bad size.
        WeightsError: the checkpoint is absent, damaged, or of another encoder.
    """
    spec = encoder_spec(name)
    size = check_size(input_size or spec.input_size)
    for level in levels:
        resolve_level(level, spec)
    trained = spec.trained and not random_weights
    if not trained:
        if checkpoint is not None:
            raise ConfigError(
                f"{name} with seeded random weights takes no checkpoint; got {checkpoint}. Leave "
                "--checkpoint out, or choose vit_b, vit_l or vit_h without --random-weights"
            )
        body = _seeded(spec, seed)
        digest = state_sha256(body.state_dict())
    else:
        checkpoint = Path(checkpoint) if checkpoint else _fetched(name)
        state = load_state_dict(checkpoint)
        body = empty_body(name)
        expected = {_PREFIX + key: value for key, value in body.state_dict().items()}
        encoder_state = {k: v for k, v in state.items() if k.startswith(_PREFIX)}
        check_keys(expected, encoder_state, checkpoint)
        bare = {k.removeprefix(_PREFIX): v for k, v in encoder_state.items()}
        body.load_state_dict(bare, assign=True)
        digest = file_sha256(checkpoint)
    return SamEncoder(body, spec, levels, digest, size, precision, trained=trained)


def _fetched(name: str) -> Path:
    """Return the official checkpoint that was fetched before."""
    path = cache_dir() / CHECKPOINTS[name].file_name
    if not path.exists():
        raise WeightsError(
            f"{name} needs a checkpoint and there is none at {path}; give --checkpoint FILE, or "
            f"fetch the official one with: samcls weights fetch {name}"
        )
    return path


def check_size(size: int) -> int:
    """Return the size if an encoder can take it.

    Raises:
        ConfigError: it is not a positive multiple of the patch.
    """
    if size < PATCH or size % PATCH:
        raise ConfigError(f"input size is {size}; expected a multiple of {PATCH}, such as 512")
    return size


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
    """Draw every weight from a generator of its own, so that no global seed is touched."""
    body = empty_body(spec.name)
    body.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(body.named_parameters()):
        with torch.no_grad():
            _draw(name, parameter, generator)
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
