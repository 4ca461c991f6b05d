"""SAM's encoder sizes: what is fixed about each before any weight is loaded, and its levels."""

from dataclasses import dataclass

from samcls.encode.base import LEVELS
from samcls.errors import ConfigError
from samcls.files import meant

__all__ = [
    "ENCODERS",
    "PATCH",
    "EncoderSpec",
    "check_size",
    "encoder_spec",
    "parse_levels",
    "resolve_level",
]

PATCH = 16


@dataclass(frozen=True)
class EncoderSpec:
    """What is fixed about an encoder before any weight is loaded.

    Attributes:
        name: As on the command line.
        input_size: Side of the square input that the position table is made for, in pixels.
        depth: Number of transformer blocks.
        global_blocks: Indices of the blocks that attend over the whole map, four of them.
        width: Channels of every level but the neck.
        neck_width: Channels of the neck.
        window: Side of the other blocks' attention windows, in map cells.
        trained: Whether official weights exist; `vit_t` has seeded ones alone.
        patch: Side of a map's cell, in pixels.
    """

    name: str
    input_size: int
    depth: int
    global_blocks: tuple[int, ...]
    width: int
    neck_width: int = 256
    window: int = 14
    trained: bool = True
    patch: int = PATCH


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
        raise ConfigError(
            f"unknown encoder {name!r}; expected one of {', '.join(ENCODERS)}{meant(name, ENCODERS)}"
        )
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
        f"or block:0 to block:{spec.depth - 1}{meant(name, LEVELS)}"
    )


def check_size(size: int, patch: int = PATCH) -> int:
    """Return the size if an encoder of this patch can take it.

    Raises:
        ConfigError: it is not a positive multiple of the patch.
    """
    if size < patch or size % patch:
        raise ConfigError(
            f"input size is {size}; expected a multiple of {patch}, such as {32 * patch}"
        )
    return size
