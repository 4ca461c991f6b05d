"""The image network of a guided classifier: built by timm, its gated points found by name.

The only door to timm in stage two. A point is a place whose output can be gated: the stem, and the
four stages that timm lists for the network, whatever its family calls them. Finding them takes one
forward pass over an empty image.

    body = load_backbone("resnet18", 64, pretrained=False, seed=0)
    points_of(body, 64)["stage4"].channels
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from samcls.errors import ConfigError, WeightsError

__all__ = [
    "GUIDED",
    "POINTS",
    "Point",
    "backbone_problems",
    "features_of",
    "have_weights",
    "load_backbone",
    "normalisation",
    "own_size",
    "point_names",
    "points_of",
]

GUIDED = "guided:"  # what stands before the model's name in a head's
POINTS = ("stem", "stage1", "stage2", "stage3", "stage4")
SHOWN = 5  # names that an error lists
STEMS = ("stem", "patch_embed")  # what families call it whose list starts with the first stage


@dataclass(frozen=True)
class Point:
    """A place in a network whose output can be gated.

    Attributes:
        module: Name of the module whose output it is.
        channels: Number of channels there.
        rows: Height there, for images of the size that was asked about.
        cols: Width there.
        channels_last: Whether its axes are (image, row, col, channel), as Swin's are.
    """

    module: str
    channels: int
    rows: int
    cols: int
    channels_last: bool


def backbone_problems(name: str) -> list[str]:
    """Return a sentence where timm has no such network, or none with stages; nothing is built."""
    model, _, tag = name.partition(".")
    if timm.is_model(model):
        tags = [one.partition(".")[2] for one in timm.list_pretrained(model)]
        if not tag or tag in tags:
            return []
        known = ", ".join(tags[:SHOWN]) or "none of it"
        return [f"timm knows no weights {tag!r} of {model}; it knows {known}"]
    near = ", ".join(difflib.get_close_matches(model, timm.list_models(), SHOWN)) or "none like it"
    return [f"timm knows no model {name!r}; it knows {near}"]


def load_backbone(name: str, size: int, *, pretrained: bool, seed: int) -> nn.Module:
    """Build a network that answers with pooled features, "image feature".

    Args:
        name: A model name that timm knows.
        size: Side of the images, in pixels; networks that are built for one size are given it.
        pretrained: Load timm's weights; otherwise draw them.
        seed: Of the weights that are drawn.

    Raises:
        ConfigError: where timm has no such model, or it cannot take that size.
        WeightsError: where the pretrained weights cannot be had.
    """
    problems = backbone_problems(name)
    if problems:
        raise ConfigError(problems[0])
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return _sized(name, size, options)
        except Exception as error:
            # Models refuse sizes in ways of their own, and the hub's client raises its libraries' errors.
            if isinstance(error, AssertionError) or not pretrained:
                raise ConfigError(
                    f"{name} cannot be built for images of {size} pixels: {error}"
                ) from error
            raise WeightsError(
                f"the pretrained weights of {name} cannot be had: {str(error).rstrip('.')}. Connect "
                "to the network once, so that timm can cache them, or start from random weights with "
                "--no-pretrained"
            ) from error


@lru_cache(maxsize=32)
def have_weights(name: str, size: int) -> None:
    """Make sure, once a process, that a model's pretrained weights can be had; timm keeps them.

    Raises:
        ConfigError: as `load_backbone`.
        WeightsError: as `load_backbone`.
    """
    load_backbone(name, size, pretrained=True, seed=0)


def points_of(body: nn.Module, size: int) -> dict[str, Point]:
    """Every point of a network, by name, in the order of its depth.

    Args:
        body: As `load_backbone` builds it.
        size: Side of the images, in pixels.

    Raises:
        ConfigError: where the network has no stages, or cannot take images of that size.
    """
    info: Any = getattr(body, "feature_info", None)
    found = list(info) if info is not None else []
    if len(found) < 4 or len({entry["reduction"] for entry in found}) == 1:
        raise ConfigError(
            f"{type(body).__name__} has no stages that timm lists, all its blocks being on one grid "
            "or unnamed; expected a network such as resnet18, legacy_senet154 or swinv2_*"
        )
    modules = [entry["module"] for entry in found[-len(POINTS) :]]
    if len(modules) < len(POINTS):
        children = [name for name in STEMS if isinstance(getattr(body, name, None), nn.Module)]
        modules = [*children[:1], *modules]
    names = POINTS[-len(modules) :]
    seen = _shapes(body, modules, size)
    return {
        name: _point(module, seen[module], channels_last=_is_last(body, module, seen[module]))
        for name, module in zip(names, modules, strict=True)
    }


@lru_cache(maxsize=32)
def point_names(name: str, size: int) -> tuple[str, ...]:
    """Names of a model's points, in the order of its depth, without its weights.

    Args:
        name: A model name that timm knows.
        size: Side of the images, in pixels.

    Raises:
        ConfigError: as `load_backbone` and `points_of`.
    """
    with torch.device("meta"):
        body = load_backbone(name, size, pretrained=False, seed=0)
    return tuple(points_of(body, size))


def features_of(body: nn.Module) -> int:
    """Return the number of pooled features that a network answers with."""
    width: Any = getattr(body, "head_hidden_size", None) or body.num_features
    return int(width)


def own_size(name: str) -> int:
    """Side of the images that a model was made for, in pixels.

    Raises:
        ConfigError: where timm has no such model.
    """
    problems = backbone_problems(name)
    if problems:
        raise ConfigError(problems[0])
    config: Any = timm.get_pretrained_cfg(name)
    return int(config.input_size[1]) if config is not None else 224


def normalisation(body: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each RGB channel, in 0..1, that the network was made for."""
    config: Any = body.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def _sized(name: str, size: int, options: dict[str, Any]) -> nn.Module:
    """Give the size to models that are built for one; the others take any."""
    built: nn.Module
    try:
        built = timm.create_model(name, **options, img_size=size)
    except TypeError:
        built = timm.create_model(name, **options)
    return built


def _shapes(body: nn.Module, modules: list[str], size: int) -> Mapping[str, torch.Size]:
    """Shape of each module's output; each must be called once, with one answer."""
    seen: dict[str, list[Any]] = {name: [] for name in modules}
    handles = []
    for name in modules:

        def hook(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            seen[name].append(output)

        try:
            handles.append(body.get_submodule(name).register_forward_hook(hook))
        except AttributeError as error:
            raise ConfigError(
                f"{type(body).__name__} has no module {name}, where timm lists one of its stages, so "
                "that it cannot be gated there; take another network"
            ) from error
    training = body.training
    device = next(body.parameters()).device
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, size, size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{type(body).__name__} cannot take images of {size} pixels: {error}"
        ) from error
    finally:
        body.train(training)
        for handle in handles:
            handle.remove()
    for name, outputs in seen.items():
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].dim() != 4:
            raise ConfigError(
                f"{type(body).__name__} gives no single map at {name}, so that it cannot be gated "
                "there; take another network"
            )
    return {name: outputs[0].shape for name, outputs in seen.items()}


def _is_last(body: nn.Module, module: str, shape: torch.Size) -> bool:
    """Whether a module's output has its channels last.

    Images are square, so that two equal axes are the map's. Where all three are equal, timm's word on
    the whole network decides; some channels-last networks keep the other order in a stem of
    convolutions, which is no `patch_embed`.
    """
    _, first, second, third = shape
    if first != third:
        return first == second
    last = getattr(body, "output_fmt", "NCHW") == "NHWC"
    return last and (module == "patch_embed" or module.startswith("layers"))


def _point(module: str, shape: torch.Size, *, channels_last: bool) -> Point:
    _, *sides = shape
    if channels_last:
        rows, cols, channels = sides
    else:
        channels, rows, cols = sides
    return Point(module, channels, rows, cols, channels_last)
