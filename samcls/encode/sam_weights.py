"""What a table of tensors holds of SAM's image encoder, under whose names and in what precision.

Read are segment_anything's own names, Hugging Face's and timm's, alone or inside any model, whatever
prefix they carry. What is none, or more than the encoder (adapters), or not the size that was asked for, is
refused, saying what was found.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from samcls.encode.checkpoints import few_of, load_state_dict
from samcls.encode.strangers import adapter_keys, described_stranger
from samcls.errors import WeightsError

__all__ = ["HeldEncoder", "WantedEncoder", "precision_of", "read_image_encoder", "require_finite"]

# What wrappers put into the middle of names: torch.compile, FSDP, activation checkpointing.
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
DEPTHS = {"vit_b": 12, "vit_l": 24, "vit_h": 32}
PATCH = 16

# For each layout the name that says where its encoder begins, and how its names become our own.
LAYOUTS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "segment_anything's": (
        "patch_embed.proj.weight",
        ((r"^(blocks\.\d+\.mlp)\.fc([12])\.", r"\1.lin\2."),),  # timm's one difference
    ),
    "Hugging Face's": (
        "patch_embed.projection.weight",
        (
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"^layers\.(\d+)\.layer_norm([12])\.", r"blocks.\1.norm\2."),
            (r"^layers\.(\d+)\.", r"blocks.\1."),
            (r"^neck\.conv1\.", "neck.0."),
            (r"^neck\.layer_norm1\.", "neck.1."),
            (r"^neck\.conv2\.", "neck.2."),
            (r"^neck\.layer_norm2\.", "neck.3."),
        ),
    ),
}
# Beside an encoder whose names carry no prefix: the other parts of SAM, and nothing else.
BESIDE = re.compile(r"^(mask_decoder|prompt_encoder|shared_image_embedding|pixel_mean|pixel_std)\b")


@dataclass(frozen=True)
class WantedEncoder:
    """The encoder that was asked for.

    Attributes:
        name: As on the command line.
        shapes: Of each tensor, by segment_anything's names.
        windows: Side of each block's attention windows, in map cells; 0 over the whole map.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    windows: tuple[int, ...]

    def __str__(self) -> str:
        width = self.shapes["pos_embed"][-1]
        return f"{self.name}'s ({len(self.windows)} blocks of {width} channels)"


@dataclass(frozen=True)
class HeldEncoder:
    """The image encoder that a file holds.

    Attributes:
        state: Tensors by segment_anything's names, in float32 once they were checked.
        layout: Whose names the file uses.
        prefix: That its names carry.
        precision: In which the file holds them.
    """

    state: dict[str, Tensor]
    layout: str
    prefix: str
    precision: str

    @property
    def width(self) -> int:
        """Channels of the blocks."""
        return int(self.state["patch_embed.proj.weight"].shape[0])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        numbers = [re.match(r"blocks\.(\d+)\.", key) for key in self.state]
        return 1 + max((int(found[1]) for found in numbers if found), default=-1)

    @property
    def size(self) -> str:
        """Which of SAM's encoders it is, as far as width and depth say."""
        name = WIDTHS.get(self.width)
        if name is None or DEPTHS[name] != self.depth:
            like = f", the width of {name}" if name else ""
            return f"an encoder of {self.depth} blocks of {self.width} channels{like}"
        return f"{name}'s image encoder ({self.depth} blocks of {self.width} channels)"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of its positions, in map cells."""
        _, rows, cols, _ = self.state["pos_embed"].shape
        return rows, cols

    def __str__(self) -> str:
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"{self.size} in {self.layout} layout, {self.precision}, {len(self.state)} tensors{under}"


def read_image_encoder(path: Path, wanted: WantedEncoder) -> HeldEncoder:
    """Read the image encoder that a checkpoint file holds, ready for float32 arithmetic.

    Args:
        path: A file of any kind that `load_state_dict` reads.
        wanted: What was asked for; positions may be for another input size.

    Raises:
        WeightsError: the file cannot be read, holds no such encoder, two different ones, another
            size, adapters or unknown tensors in it, or values that are not finite.
    """
    table = {WRAPPERS.sub("", key): value for key, value in load_state_dict(path).items()}
    held = _only_encoder(table, path, wanted)
    outside = [key for key in table if not key.startswith(held.prefix)]
    if adapters := adapter_keys(outside, decoders=True):
        raise WeightsError(_adapted(path, held, adapters))
    _check_size(path, held, wanted)
    _check_names(path, held, wanted)
    _check_positions(path, held, wanted)
    state = {key: _as_float32(path, key, value) for key, value in held.state.items()}
    require_finite(path, state)
    return HeldEncoder(state, held.layout, held.prefix, held.precision)


def _only_encoder(table: dict[str, Tensor], path: Path, wanted: WantedEncoder) -> HeldEncoder:
    found = list(_encoders(table))
    if not found:
        raise WeightsError(
            f"{path} holds {described_stranger(table)}; {len(table)} tensors, {precision_of(table)}. "
            f"Expected SAM's image encoder, {wanted}"
        )
    first, *others = found
    for other in others:
        if not _equal(first.state, other.state):
            names = " and ".join(repr(one.prefix) for one in found)
            raise WeightsError(
                f"{path} holds {len(found)} image encoders that differ, under {names}; save the one that "
                "is meant alone, so that it cannot be mistaken"
            )
    return first


def _encoders(table: Mapping[str, Tensor]) -> Iterator[HeldEncoder]:
    """Find every image encoder of SAM's kind: patches, and relative positions in its blocks."""
    for layout, (anchor, rules) in LAYOUTS.items():
        for key in table:
            prefix = key.removesuffix(anchor)
            if prefix == key or (prefix and not prefix.endswith(".")):
                continue
            own = {k[len(prefix) :]: v for k, v in table.items() if k.startswith(prefix)}
            if any(re.match(r"(blocks|layers)\.\d+\.attn\.rel_pos_h$", name) for name in own):
                state = {
                    _renamed(name, rules): value
                    for name, value in own.items()
                    if prefix or not BESIDE.match(name)
                }
                yield HeldEncoder(state, layout, prefix, precision_of(state))


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, own in rules:
        name, changed = re.subn(pattern, own, name)
        if changed:
            break
    return name


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _check_size(path: Path, held: HeldEncoder, wanted: WantedEncoder) -> None:
    width, depth = wanted.shapes["pos_embed"][-1], len(wanted.windows)
    if (held.width, held.depth) == (width, depth):
        return
    name = WIDTHS.get(held.width)
    fits = name is not None and name != wanted.name and DEPTHS[name] == held.depth
    remedy = f"Give --encoder {name}, or name" if fits else "Name"
    raise WeightsError(f"{path} holds {held}; expected {wanted}. {remedy} another file")


def _check_names(path: Path, held: HeldEncoder, wanted: WantedEncoder) -> None:
    """See that the names are just the ones wanted, and the shapes but for positions."""
    extra = [key for key in held.state if key not in wanted.shapes]
    if adapters := adapter_keys(extra):
        raise WeightsError(_adapted(path, held, adapters))
    shapes = [
        f"{key} {tuple(held.state[key].shape)} instead of {shape}"
        for key, shape in wanted.shapes.items()
        if key in held.state and not _same_but_places(key, held.state[key], shape)
    ]
    faults = [
        few_of("missing", [key for key in wanted.shapes if key not in held.state]),
        few_of("unknown", extra),
        few_of("wrongly shaped", shapes),
    ]
    if any(faults):
        raise WeightsError(
            f"{path} holds {held}, but not as segment_anything builds it: "
            f"{'; '.join(filter(None, faults))}. Only this architecture is read: a network that was "
            "changed gives other features. Name the file of an unchanged one"
        )


def _same_but_places(key: str, value: Tensor, shape: tuple[int, ...]) -> bool:
    found = tuple(value.shape)
    if key == "pos_embed":
        return len(found) == 4 and (found[0], found[3]) == (shape[0], shape[3])
    if "rel_pos" in key:
        return len(found) == 2 and found[1] == shape[1]
    return found == shape


def _check_positions(path: Path, held: HeldEncoder, wanted: WantedEncoder) -> None:
    """See that each block attends over what the wanted one does: its relative positions say so."""
    for number, window in enumerate(wanted.windows):
        for side, cells in zip(("h", "w"), held.grid, strict=True):
            length = len(held.state[f"blocks.{number}.attn.rel_pos_{side}"])
            windowed = {2 * size - 1 for size in wanted.windows if size} - {2 * cells - 1}
            if (length != 2 * window - 1) if window else (length in windowed):
                meant = f"windows of {window} x {window} cells" if window else "the whole map"
                raise WeightsError(
                    f"{path} holds {held}, but block {number} has {length} relative positions, those "
                    f"of windows of {(length + 1) // 2} cells; in {wanted.name} it attends over {meant}. "
                    "This is another architecture"
                )


def _as_float32(path: Path, key: str, value: Tensor) -> Tensor:
    if value.layout != torch.strided or not value.is_floating_point() or value.element_size() < 2:
        kind = str(value.dtype).removeprefix("torch.")
        raise WeightsError(
            f"{path}: {key} is {kind}, quantised or no number with a fraction; expected float32, "
            "float16, bfloat16 or float64. Name the file before it was quantised"
        )
    return value.to(torch.float32)


def require_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity, or did once they became float32.

    Raises:
        WeightsError: naming the first few tensors.
    """
    # a sum is not finite where a value is not, and needs no second table
    bad = [
        key
        for key, value in state.items()
        if value.is_floating_point() and not value.sum(dtype=torch.float64).isfinite()
    ]
    if bad:
        raise WeightsError(
            f"{path} holds weights that are not finite (NaN or infinity): {few_of('tensors', bad)}. "
            "Its training diverged or the file is damaged; name another"
        )


def _adapted(path: Path, held: HeldEncoder, keys: list[str]) -> str:
    return (
        f"{path} holds {held}, and adapters beside it: {few_of('tensors', keys)}. They change what the "
        "encoder computes and need code of their own. Merge them into the weights where they were "
        "trained (LoRA: merge_and_unload), or name the file without them"
    )


def precision_of(state: Mapping[str, Tensor]) -> str:
    """Name the types of a table's tensors, the one with most values first."""
    values: dict[str, int] = {}
    for value in state.values():
        name = str(value.dtype).removeprefix("torch.")
        values[name] = values.get(name, 0) + value.numel()
    return " and ".join(sorted(values, key=lambda name: -values[name]))
