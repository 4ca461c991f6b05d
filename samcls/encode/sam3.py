"""`sam3`: SAM 3's image encoder from its official checkpoint, without the `sam3` package, which needs Triton.

A ViT of patch 14 with a norm before its blocks, rotary positions, windows of 24 x 24 cells but for four
blocks over the whole map, and the convolutions of its pyramid's level of the same stride as neck. Its own
preprocessing stretches a picture to 1008 x 1008 pixels: `--resize stretch`. The file (sam3.pt) is under the
SAM License and its source asks for an account that accepted it, so it comes by --checkpoint alone.

    encoder = build(EncoderChoice("sam3", checkpoint="sam3.pt", levels="early,neck"), print)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from samcls.encode.base import (
    Encoder,
    EncoderChoice,
    MapShape,
    draw_weights,
    random_source,
    refuse_two_sources,
    state_sha256,
)
from samcls.encode.checkpoints import faults_of, load_state_dict
from samcls.encode.sam_weights import precision_of, require_finite
from samcls.encode.specs import EncoderSpec, check_size, parse_levels, resolve_level
from samcls.encode.strangers import described_stranger
from samcls.encode.weights import file_sha256, need_file
from samcls.errors import ConfigError, WeightsError

__all__ = ["SPEC", "Sam3Body", "Sam3Encoder", "build", "check"]

# sam3/model_builder.py, _create_vit_backbone and _create_vit_neck
SPEC = EncoderSpec("sam3", 1008, 32, (7, 15, 23, 31), 1024, 256, 24, patch=14)
HIDDEN = 4736  # of a block's perceptron: 4.625 times the width
POSITIONS = 24  # rows and columns of the learned positions, which are laid side by side
HEAD = 64  # channels of an attention head
TRUNK, NECK = "trunk.", "convs.2."  # of the pyramid's four levels the one of the trunk's stride
PIXEL = (127.5, 127.5, 127.5)  # mean and deviation: pixels become -1..1
SOURCE = "huggingface.co/facebook/sam3 (SAM License; it asks for an account that accepted it)"


class Sam3Body(nn.Module):
    """The architecture, its parameters named as the checkpoint names them, but for `trunk` and `convs.2`.

    Args:
        spec: Of another depth and width in tests.
        hidden: Channels of the blocks' perceptrons.
    """

    def __init__(self, spec: EncoderSpec = SPEC, hidden: int = HIDDEN) -> None:
        super().__init__()
        width, patch = spec.width, spec.patch
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv2d(3, width, patch, patch, bias=False))
        # The first position was the class token's, which the image encoder does without.
        self.pos_embed = nn.Parameter(torch.zeros(1, POSITIONS**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        windows = [0 if i in spec.global_blocks else spec.window for i in range(spec.depth)]
        self.blocks = nn.ModuleList(_Block(width, hidden, window) for window in windows)
        self.neck = nn.Sequential()
        self.neck.add_module("conv_1x1", nn.Conv2d(width, spec.neck_width, 1))
        self.neck.add_module("conv_3x3", nn.Conv2d(spec.neck_width, spec.neck_width, 3, padding=1))

    def embed(self, pixels: Float[Tensor, "image 3 size size"]) -> Tensor:
        """Return what the first block takes, (image, row, col, channel)."""
        tokens = self.patch_embed(pixels).permute(0, 2, 3, 1)
        side = tokens.shape[1]
        table = self.pos_embed[:, 1:].reshape(1, POSITIONS, POSITIONS, -1)
        repeats = -(-side // POSITIONS)
        out: Tensor = self.ln_pre(tokens + table.repeat(1, repeats, repeats, 1)[:, :side, :side])
        return out


class _Block(nn.Module):
    """Attention over windows, or over the whole map where `window` is 0, and a perceptron."""

    def __init__(self, width: int, hidden: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Perceptron(width, hidden)

    def forward(self, x: Float[Tensor, "image row col channel"]) -> Tensor:
        """Return the stream after the block, in the shape that it had."""
        side, channels = x.shape[1], x.shape[-1]
        window = self.window or side
        around = -side % window  # of padding, which takes part as it does in SAM 3
        count = (side + around) // window
        grid = functional.pad(self.norm1(x), (0, 0, 0, around, 0, around))
        grid = grid.view(-1, count, window, count, window, channels).transpose(2, 3)
        seen = self.attn(grid.reshape(-1, window**2, channels), _angles(window, x.device))
        grid = seen.view(-1, count, count, window, window, channels).transpose(2, 3)
        grid = grid.reshape(-1, count * window, count * window, channels)
        x = x + grid[:, :side, :side]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "group token channel"], angles: Tensor) -> Tensor:
        groups, tokens, channels = x.shape
        qkv = self.qkv(x).view(groups, tokens, 3, channels // HEAD, HEAD)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(_rotate(q, angles), _rotate(k, angles), v)
        out: Tensor = self.proj(found.transpose(1, 2).reshape(groups, tokens, channels))
        return out


class _Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


def _angles(side: int, device: torch.device) -> Float[Tensor, "token half"]:
    """Return by how much each pair of a head's channels turns at each token, in radians.

    The first half of the pairs tells the column and the second the row. A map of another side than a
    window's is scaled to one, so that its positions stay among those that were learned.
    """
    quarter = HEAD // 4
    speeds = 10000.0 ** -(torch.arange(quarter, device=device) / quarter)
    place = torch.arange(side, device=device) * (SPEC.window / side)
    turns = torch.outer(place, speeds)
    cols, rows = turns.repeat(side, 1), turns.repeat_interleave(side, 0)
    return torch.cat([cols, rows], dim=1)


def _rotate(x: Float[Tensor, "group head token channel"], angles: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels; in float32, whatever the arithmetic."""
    even, odd = x.float().view(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Sam3Encoder(Encoder):
    """SAM 3's image encoder, frozen, giving the requested depths.

    Levels: `patch` what the first block takes; `early`, `middle` and `late` after the first three blocks
    over the whole map (8, 16 and 24 of 32), which is our reading of the paper; `neck`; `block:<i>`.
    """

    def __init__(
        self,
        body: Sam3Body,
        levels: tuple[str, ...],
        weights_sha256: str,
        input_size: int,
        precision: str = "float32",
        trained: bool = True,
        spec: EncoderSpec = SPEC,
    ) -> None:
        super().__init__(
            spec.name, levels, weights_sha256, input_size, PIXEL, PIXEL, precision, trained
        )
        self.body = body.eval().requires_grad_(requires_grad=False).to(self.dtype)
        self.spec = spec
        self._needs = {name: resolve_level(name, spec) for name in levels}

    def shape(self, level: str) -> MapShape:
        """Return the shape of a level's map: one cell a patch at every level."""
        side = self.input_size // self.spec.patch
        channels = self.spec.neck_width if level == "neck" else self.spec.width
        return MapShape(channels, side, side, self.spec.patch)

    @torch.inference_mode()
    def forward(
        self, frames: UInt8[Tensor, "image size size 3"], valid: Sequence[tuple[int, int]]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Encode frames, as `Encoder.forward`."""
        return self.maps(self.normalise(frames, valid).to(self.dtype))

    def maps(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Each level's whole map, as `Encoder.maps`; blocks after the deepest wanted level do not run."""
        wanted = set(self._needs.values())
        x = self.body.embed(pixels)
        after = {0: x.permute(0, 3, 1, 2)}
        for done, block in enumerate(self.body.blocks[: max(wanted)], start=1):
            x = block(x)
            if done in wanted:
                after[done] = x.permute(0, 3, 1, 2)
        if "neck" in self._needs:
            after[self.spec.depth + 1] = self.body.neck(x.permute(0, 3, 1, 2))
        return {name: after[self._needs[name]] for name in self.levels}


def check(choice: EncoderChoice) -> None:
    """Refuse what the encoder cannot be, and a choice without weights.

    Raises:
        ConfigError: naming the option, what was got and what was expected.
        WeightsError: there is no file of weights.
    """
    parse_levels(choice.levels, SPEC)
    size = check_size(choice.size or SPEC.input_size, SPEC.patch)
    if not 1 <= choice.window <= size // SPEC.patch:
        raise ConfigError(
            f"window is {choice.window}; expected 1 to {size // SPEC.patch}, the side of the map at "
            f"{size} pixels"
        )
    refuse_two_sources(choice)
    if choice.checkpoint:
        need_file(Path(choice.checkpoint))
    elif not choice.random_weights:
        raise WeightsError(
            f"sam3 needs --checkpoint FILE: sam3.pt from {SOURCE}. --encoder lite0 is there already"
        )


def build(choice: EncoderChoice, log: Callable[[str], None]) -> Sam3Encoder:
    """Build the encoder with a checkpoint's weights, or with drawn ones.

    Raises:
        ConfigError: neither, or both, of a checkpoint and drawn weights.
        WeightsError: the file cannot be read, or does not hold SAM 3's image encoder.
    """
    check(choice)
    levels = parse_levels(choice.levels, SPEC)
    size = choice.size or SPEC.input_size
    with torch.device("meta"):
        body = Sam3Body()
    if choice.checkpoint is None:
        body.to_empty(device="cpu")
        draw_weights(body, choice.seed)
        digest = state_sha256(body.state_dict())
        encoder = Sam3Encoder(body, levels, digest, size, choice.precision, trained=False)
        encoder.source = random_source(choice.seed)
        return encoder
    path = Path(choice.checkpoint)
    state, held = _read(path, body)
    body.load_state_dict(state, assign=True)
    digest = file_sha256(path)
    log(
        f"{path.name}: sha256 {digest}; it holds {held}. samcls knows no digest of SAM 3's own file"
    )
    encoder = Sam3Encoder(body, levels, digest, size, choice.precision)
    encoder.source = {"file": path.name, "official": None, "holds": held}
    return encoder


def _read(path: Path, body: Sam3Body) -> tuple[dict[str, Tensor], str]:
    """Read the body's tensors from a checkpoint, in float32, and say what was found."""
    table = load_state_dict(path)
    anchor = f"{TRUNK}patch_embed.proj.weight"
    prefixes = [key.removesuffix(anchor) for key in table if key.endswith(anchor)]
    if not prefixes:
        raise WeightsError(
            f"{path} holds {described_stranger(table)}; {len(table)} tensors. Expected SAM 3's image "
            f"encoder, sam3.pt from {SOURCE}"
        )
    if len(prefixes) > 1:
        raise WeightsError(
            f"{path} holds {len(prefixes)} image encoders, under {' and '.join(map(repr, prefixes))}; "
            "save the one that is meant alone"
        )
    held = {
        name: value
        for key, value in table.items()
        if (name := _own_name(key.removeprefix(prefixes[0]))) and key.startswith(prefixes[0])
    }
    faults = faults_of(held, body.state_dict())
    if faults:
        raise WeightsError(
            f"{path} does not hold SAM 3's image encoder as it was published: "
            f"{'; '.join(faults)}. Name {SOURCE.partition(' ')[0]}'s sam3.pt"
        )
    said = f"SAM 3's image encoder, {precision_of(held)}, {len(held)} tensors"
    state = {key: value.float() for key, value in held.items()}
    require_finite(path, state)
    return state, said


def _own_name(key: str) -> str:
    """Return the body's name of a checkpoint's tensor; nothing for other parts and tables of angles."""
    if key.startswith(TRUNK):
        return "" if key.endswith("freqs_cis") else key.removeprefix(TRUNK)
    return f"neck.{key.removeprefix(NECK)}" if key.startswith(NECK) else ""
