"""Other encoders, for controls: `timm:<name>` gives any timm model's maps by depth.

The only door to timm in stage one. The same store, levels and commands serve, so that whether SAM's
features matter can be asked: DINOv2 instead of SAM, or any model with random weights.

    encoder = load_timm("timm:vit_small_patch14_dinov2", levels=("early", "neck"))
"""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from samcls.encode.base import (
    LEVELS,
    Encoder,
    EncoderChoice,
    MapShape,
    random_source,
    refuse_two_sources,
    state_sha256,
)
from samcls.encode.timm_weights import load_file, pretrained_overlay
from samcls.encode.weights import file_sha256, need_file
from samcls.errors import ConfigError, WeightsError
from samcls.files import meant

__all__ = ["TimmEncoder", "build", "check", "chosen_levels", "create_body", "depths", "load_timm"]

PREFIX = "timm:"


class TimmEncoder(Encoder):
    """A timm model giving maps by depth.

    Flat transformers (all blocks on one grid) give `early`, `middle` and `late` after a quarter, a half
    and three quarters of their blocks, which for ViT-B are the very blocks that SAM's levels name;
    `neck` after the last one, or after SAM's own neck; `patch` before the first; and `block:<i>`.
    Models with stages give their last four stages as `early` to `neck`, and `stage:<i>`; `patch` is the
    stem where timm lists five. No final norm is applied: stage two standardises each channel.
    """

    def __init__(
        self,
        body: nn.Module,
        name: str,
        levels: tuple[str, ...],
        input_size: int,
        precision: str,
        trained: bool,
        weights_sha256: str | None = None,
    ) -> None:
        config: dict[str, Any] = body.pretrained_cfg  # type: ignore[assignment]
        super().__init__(
            name,
            levels,
            weights_sha256 or state_sha256(body.state_dict()),
            input_size,
            [255 * value for value in config["mean"]],
            [255 * value for value in config["std"]],
            precision,
            trained,
        )
        self.body = body.eval().requires_grad_(requires_grad=False).to(self.dtype)
        # On a CPU convolutions are nearly twice as fast with the channels last, and too short to share
        # between cores: a batch on each is faster.
        self.side_by_side = _convolves(body)
        self._layout = torch.channels_last if self.side_by_side else torch.contiguous_format
        self.body.to(memory_format=self._layout)
        self._depths = {level: _depth(level, name, body) for level in levels}
        self._shapes = self._measure()

    def shape(self, level: str) -> MapShape:
        """Return the shape of a level's map."""
        return self._shapes[level]

    @torch.inference_mode()
    def forward(
        self, frames: UInt8[Tensor, "image size size 3"], valid: Sequence[tuple[int, int]]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Encode frames, as `Encoder.forward`."""
        pixels = self.normalise(frames, valid).to(self.dtype, memory_format=self._layout)
        return self.maps(pixels)

    def maps(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Each level's whole map, as `Encoder.maps`."""
        body: Any = self.body
        kept: dict[str, Tensor] = {}
        handles = []
        if "patch" in self._depths and self._depths["patch"] is None:
            handles.append(body.blocks[0].register_forward_pre_hook(_keep(kept, body, pixels)))
        wanted = sorted({depth for depth in self._depths.values() if isinstance(depth, int)})
        whole = "neck" in self._depths and self._depths["neck"] is None
        try:
            found = body.forward_intermediates(
                pixels,
                indices=wanted or [0],
                stop_early=not whole,
                output_fmt="NCHW",
                intermediates_only=not whole,
            )
        finally:
            for handle in handles:
                handle.remove()
        last, maps = found if whole else (pixels, found)
        by_depth: dict[int, Tensor] = dict(zip(wanted or [0], maps, strict=True))
        special = {**kept, "neck": last}
        return {
            level: special[level] if depth is None else by_depth[depth]
            for level, depth in self._depths.items()
        }

    def _measure(self) -> dict[str, MapShape]:
        side = self.input_size
        with torch.inference_mode():
            maps = self.maps(torch.zeros(1, 3, side, side, dtype=self.dtype))
        shapes = {}
        for level, found in maps.items():
            _, channels, rows, cols = found.shape
            if side % rows:
                raise ConfigError(
                    f"{self.name} gives a map of {rows} x {cols} for {side} pixels at level {level}; "
                    "choose a --size that its strides divide"
                )
            shapes[level] = MapShape(channels, rows, cols, side // rows)
        return shapes


def _keep(kept: dict[str, Tensor], body: Any, pixels: Tensor) -> Any:
    """Make a hook that keeps the first block's input as a map."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tokens = inputs[0]
        if tokens.dim() == 3:
            rows, cols = body.patch_embed.dynamic_feat_size(pixels.shape[2:])
            tokens = tokens[:, body.num_prefix_tokens :]
            tokens = tokens.reshape(tokens.shape[0], rows, cols, -1)
        kept["patch"] = tokens.permute(0, 3, 1, 2)

    return hook


def _convolves(body: nn.Module) -> bool:
    """Tell whether most of a model's weights are convolutions'."""
    convolved = sum(m.weight.numel() for m in body.modules() if isinstance(m, nn.Conv2d))
    return 2 * convolved > sum(parameter.numel() for parameter in body.parameters())


def _is_flat(body: Any) -> bool:
    return hasattr(body, "blocks") and len({f["reduction"] for f in body.feature_info}) == 1


def depths(body: nn.Module) -> dict[str, int | None]:
    """Return every level that a model can give, with its index among timm's intermediates.

    None stands for what is not among them: the input of the first block, and SAM's neck.
    """
    info: Any = body.feature_info
    count = len(info)
    if _is_flat(body):
        named: dict[str, int | None] = {"patch": None}
        quarters = zip(LEVELS[1:4], (1, 2, 3), strict=True)
        named |= {level: max(0, count * part // 4 - 1) for level, part in quarters}
        named["neck"] = None if isinstance(getattr(body, "neck", None), nn.Module) else count - 1
        return named | {f"block:{i}": i for i in range(count)}
    last = min(count, 5)
    named = dict(zip(LEVELS[-last:], range(count - last, count), strict=True))
    return named | {f"stage:{i}": i for i in range(count)}


def chosen_levels(body: nn.Module, levels: str) -> tuple[str, ...]:
    """Read a comma-separated list of levels; `all` means those of the five that the model has."""
    known = depths(body)
    if levels == "all":
        return tuple(level for level in LEVELS if level in known)
    return tuple(part.strip() for part in levels.split(","))


def _depth(level: str, name: str, body: nn.Module) -> int | None:
    known = depths(body)
    if level not in known:
        raise ConfigError(
            f"unknown level {level!r} for {name}; expected one of {', '.join(known)}"
            f"{meant(level, known)}"
        )
    return known[level]


def check(choice: EncoderChoice) -> None:
    """Refuse weights from two places; the rest is known when timm has built the model.

    Raises:
        ConfigError: the weights are to be drawn, and come from a file.
    """
    refuse_two_sources(choice)


def build(choice: EncoderChoice, log: Callable[[str], None]) -> TimmEncoder:
    """Build the encoder of a choice, as `load_timm`."""
    return load_timm(
        choice.name,
        choice.levels,
        choice.size,
        random_weights=choice.random_weights,
        seed=choice.seed,
        precision=choice.precision,
        checkpoint=choice.checkpoint,
        log=log,
    )


def load_timm(
    name: str,
    levels: str = "all",
    input_size: int | None = None,
    random_weights: bool = False,
    seed: int = 0,
    precision: str = "float32",
    checkpoint: str | Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> TimmEncoder:
    """Build a timm model, with its pretrained weights or seeded random ones.

    Args:
        name: `timm:` and a model name that timm knows.
        levels: comma-separated, or `all` for those of the five that the model has.
        input_size: Side of the frames in pixels; the model's own by default.
        random_weights: Draw the weights instead of fetching them.
        seed: Of random weights.
        precision: `float32`, `bfloat16` or `float16`.
        checkpoint: File with the model's weights, instead of those that timm fetches.
        log: Called with a sentence on what such a file holds.

    Raises:
        ConfigError: unknown model, level or size.
        WeightsError: pretrained weights cannot be had, or the file does not hold the model's.
    """
    model = name.removeprefix(PREFIX)
    import timm  # five seconds with torchvision and the compiler behind it, for models of timm's alone

    if not timm.is_model(model.split(".")[0]):
        near = (
            ", ".join(difflib.get_close_matches(model.split(".")[0], timm.list_models(), 5))
            or "none like it"
        )
        raise ConfigError(f"timm knows no model {model!r}; it knows {near}")
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None:
        need_file(file)
    body = create_body(model, input_size, not random_weights and file is None, seed)
    held = "" if file is None else load_file(body, model, file)
    config: Any = body.pretrained_cfg
    size = input_size or config["input_size"][1]
    digest = None if file is None else file_sha256(file)
    trained = not random_weights
    encoder = TimmEncoder(body, name, chosen_levels(body, levels), size, precision, trained, digest)
    if random_weights:
        encoder.source = random_source(seed)
    if file is not None:
        encoder.source = {"file": file.name, "official": None, "holds": held}
        log(f"{file.name} is not an official checkpoint: sha256 {digest}; it holds {held}")
    return encoder


def create_body(model: str, size: int | None, pretrained: bool, seed: int) -> nn.Module:
    """Create a timm model without a classification head, its random weights seeded.

    Raises:
        WeightsError: its pretrained weights are asked for and cannot be had.
    """
    import timm

    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    if pretrained:
        overlay = pretrained_overlay(model, timm.get_pretrained_cfg(model))
        options |= {"pretrained_cfg_overlay": overlay} if overlay else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return _sized(model, size, options)
        except GatedRepoError as error:
            published: Any = timm.get_pretrained_cfg(model)
            raise WeightsError(
                f"the weights of {model} are given to accounts alone that accepted their licence: accept "
                f"it at https://huggingface.co/{published.hf_hub_id}, then run hf auth login (or set "
                "HF_TOKEN), or give --checkpoint FILE"
            ) from error
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"the pretrained weights of {model} cannot be had: {error}. Connect to the network "
                "once, so that timm can cache them, or give --random-weights for a control"
            ) from error


def _sized(model: str, size: int | None, options: dict[str, Any]) -> nn.Module:
    """Give the size to models that are built for one; the others take any."""
    import timm

    built: nn.Module
    try:
        built = timm.create_model(model, **(options | ({"img_size": size} if size else {})))
    except TypeError:
        built = timm.create_model(model, **options)
    return built
