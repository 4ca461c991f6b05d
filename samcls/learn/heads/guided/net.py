"""A timm network whose stages are gated by SLCA computed from cached features.

Our reading of how arXiv 2505.06217 integrates SLCA's attention weights into a classification network:
the five cached levels gate, in order, the stem and the four stages. The frozen encoder is never run.

    net = GuidedNet(body, shape, gating, classifier, size=224, generator=torch.Generator())
    logits = net(tokens, counts, pixels=pixels)
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from samcls.errors import ConfigError, InputError, SamclsError
from samcls.files import meant
from samcls.learn.features.batches import partners, select_rows
from samcls.learn.features.pixels import Images, Pixels
from samcls.learn.features.tensors import Features
from samcls.learn.heads.base import Counts, NetworkHead, Shape, Tokens
from samcls.learn.heads.classifier import Classifier
from samcls.learn.heads.contributions import Contributions
from samcls.learn.heads.guided.backbone import (
    GUIDED,
    Point,
    backbone_problems,
    features_of,
    have_weights,
    load_backbone,
    normalisation,
    point_names,
    points_of,
)
from samcls.learn.heads.guided.cost import Cost, cost_of
from samcls.learn.heads.guided.gates import GatedPoint, SelfGate, StageGate, switched_off
from samcls.learn.heads.guided.last_map import of_last_map
from samcls.learn.settings import Control, Gate, TrainConfig, Upsampling

__all__ = ["Gating", "GuidedNet", "cost_of_network", "paired_levels"]

BATCH = 64  # images answered at once


@dataclass(frozen=True)
class Gating:
    """Which points are gated, and how.

    Attributes:
        stages: Points, as in `POINTS`; none named means the last ones, one for each level.
        gate: `residual` gives x + x * A, `multiply` gives x * A.
        upsampling: From a level's windows to a stage's cells.
        reduction: Each gate's bottleneck: the level's channels / reduction.
        bias: Whether the gates' layers have biases.
        control: `plain` has no gates; `se` has gates of as many parameters on the network's own
            features; `shuffled` is built as `none` is, and fed with other images' features.
    """

    stages: tuple[str, ...] = ()
    gate: Gate = "residual"
    upsampling: Upsampling = "nearest"
    reduction: int = 16
    bias: bool = True
    control: Control = "none"

    @classmethod
    def of(cls, config: TrainConfig) -> "Gating":
        """Return the config's."""
        return cls(
            stages=config.stages,
            gate=config.gate or "residual",
            upsampling=config.upsampling,
            reduction=config.reduction,
            bias=config.gate_bias,
            control=config.control,
        )


def paired_levels(
    levels: Sequence[str], stages: Sequence[str], points: Sequence[str]
) -> dict[str, str]:
    """Return the level that gates each point.

    Args:
        levels: Of the features, shallow to deep, or in the order of the stages.
        stages: Points asked for; as many as levels are paired one by one as both are named, fewer
            with the levels at their own place where there is a level for each point of the network.
            None named means the network's last points, as many as there are levels.
        points: Of the network, shallow to deep.

    Raises:
        ConfigError: where they cannot be paired.
    """
    unknown = [name for name in stages if name not in points]
    if unknown:
        raise ConfigError(
            f"unknown stage {', '.join(unknown)}; the network has {', '.join(points)}"
            f"{meant(unknown[0], points)}"
        )
    named = list(stages) or list(points[-len(levels) :])
    ordered = [name for name in points if name in named]
    if len(named) == len(levels):
        pairs = dict(zip(named, levels, strict=True))
        return {name: pairs[name] for name in ordered}
    if len(levels) == len(points):
        by_place = dict(zip(points, levels, strict=True))
        return {name: by_place[name] for name in ordered}
    raise ConfigError(
        f"{len(levels)} levels ({', '.join(levels)}) cannot be paired with {len(ordered)} stages "
        f"({', '.join(ordered)}); name as many levels as stages with --levels and --stages"
    )


class GuidedNet(NetworkHead):
    """A network over pixels, each of whose points is gated by one level's features.

    Weights are drawn in this order: the network's and the classifier's by whoever made them, then the
    gates', so that controls with other gates, or none, start from the same network.

    Args:
        body: A timm network that answers with pooled features.
        shape: What the features are; the classes are the classifier's.
        gating: Which points are gated, and how.
        classifier: From pooled features to logits; called with a generator in training.
        size: Side of the images, in pixels.
        generator: Source of the gates' initial weights.

    Raises:
        ConfigError: where the network has no stages, cannot take the size, or cannot be paired with
            the levels.
    """

    maps_gates = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        shape: Shape,
        gating: Gating,
        classifier: nn.Module,
        *,
        size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.size = size
        self.gating = gating
        self.frozen = False
        self.body = body
        self.classifier = classifier
        self.gates = nn.ModuleDict()
        mean, std = normalisation(body)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        points = points_of(body, size)
        paired = paired_levels(tuple(shape.channels), gating.stages, tuple(points))
        if gating.control == "plain":
            return
        for name, level in paired.items():
            gated = _gated_point(points[name], level, shape, gating, generator)
            self.gates[name] = gated
            body.get_submodule(points[name].module).register_forward_hook(gated.hook)

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "GuidedNet":
        """Return a network with the config's options, its backbone pretrained or fresh.

        Raises:
            ConfigError: as the class says.
            WeightsError: where pretrained weights are asked for and cannot be had.
        """
        drawn = torch.randint(2**62, (1,), generator=generator)
        body = load_backbone(
            config.head.removeprefix(GUIDED),
            shape.pixels,
            pretrained=config.pretrained,
            seed=int(drawn),
        )
        classifier = Classifier(features_of(body), config, shape.classes, config.hidden, generator)
        net = cls(
            body, shape, Gating.of(config), classifier, size=shape.pixels, generator=generator
        )
        if config.control == "shuffled":
            net.partner_seed = config.seed
        if config.freeze_backbone:
            net.frozen = True
            body.requires_grad_(requires_grad=False)
        return net

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return what stands against it: no pixels, an unknown network, stages that cannot be paired.

        Raises:
            WeightsError: where pretrained weights are asked for and cannot be had.
        """
        name = config.head.removeprefix(GUIDED)
        if not shape.pixels:
            missing = "looks at images, and the store keeps none; extract into another store with"
            return [f"head {config.head} {missing} --keep-pixels 224"]
        if backbone_problems(name):
            return backbone_problems(name)
        try:
            points = point_names(name, shape.pixels)
            paired_levels(tuple(shape.channels), config.stages, points)
        except SamclsError as error:
            return [str(error)]
        if config.pretrained:
            have_weights(name, shape.pixels)
        return []

    @classmethod
    def title(cls, config: TrainConfig) -> str:
        """Its name, with that of its control where it has one."""
        control = config.control
        return config.head if control == "none" else f"{config.head}, {control}"

    def learning(self) -> None:
        """Into training; a frozen backbone keeps its running means and drops no paths."""
        self.train()
        if self.frozen:
            self.body.eval()

    def normalise(self, images: Images) -> Float[Tensor, "image 3 size size"]:
        """Pixels as the network was made for; padding becomes 0, as in the encoder's own frames."""
        return (images.values - self.mean) / self.std * images.shown

    @property
    def needs_features(self) -> bool:
        """Whether the answer depends on cached features at all."""
        return self.gating.control in {"none", "shuffled"}

    def forward(
        self,
        tokens: Tokens,
        counts: Counts,
        generator: torch.Generator | None = None,
        pixels: Float[Tensor, "image 3 size size"] | None = None,
    ) -> Float[Tensor, "image logit"]:
        """Logits of all tasks side by side.

        Args:
            tokens: For each level, standardised window means, "image token channel".
            counts: For each level, number of valid map cells under each token.
            generator: Source of the classifier's dropout in training; None means evaluation.
            pixels: The images, normalised as the network wants them, 0 where padding is shown.

        Raises:
            InputError: where there are no pixels, or they are of another size.
        """
        if pixels is None:
            raise InputError(
                "a guided network looks at images, and got none; keep them in the store with "
                f"samcls extract --keep-pixels {self.size}"
            )
        if pixels.shape[2:] != (self.size, self.size):
            raise InputError(
                f"got images of {pixels.shape[2]} x {pixels.shape[3]} pixels; this network was built "
                f"for {self.size} x {self.size}"
            )
        for point in self.points():
            point.feed(tokens, counts)
        logits: Tensor = self.classifier(self.body(pixels), generator)
        return logits

    @torch.no_grad()
    def attention_maps(
        self, tokens: Tokens, counts: Counts, pixels: Float[Tensor, "image 3 size size"]
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """Return the gates A of a batch at every gated point, at the point's own size, without dropout.

        Where only padding is shown A is what changes nothing: 0 for `residual`, 1 for `multiply`.

        Args:
            tokens: As for `forward`.
            counts: As for `forward`.
            pixels: As for `forward`.
        """
        training = self.training
        self.eval()
        try:
            for point in self.points():
                point.keeps = True
            self(tokens, counts, pixels=pixels)
        finally:
            for point in self.points():
                point.keeps = False
            self.train(training)
        taken = {name: point.taken() for name, point in zip(self.gates, self.points(), strict=True)}
        return {name: values for name, values in taken.items() if values is not None}

    def gate_maps(
        self, tokens: Tokens, counts: Counts, images: Images
    ) -> dict[str, Float[Tensor, "image _channel _row _col"]]:
        """As `attention_maps`, of images as they are kept."""
        return self.attention_maps(tokens, counts, self.normalise(images))

    def contributions_of(self, tokens: Tokens, counts: Counts, images: Images) -> Contributions:
        """Gradient times value of the last map."""
        return of_last_map(self, tokens, counts, images)

    def answer(
        self,
        tokens: Mapping[str, Any],
        counts: Counts,
        rows: Int64[Tensor, " row"],
        pixels: Pixels | None = None,
        feeding: Int64[Tensor, " view"] | None = None,
    ) -> Float[Tensor, "row logit"]:
        """Logits without dropout, a batch at a time, on the CPU; its mode is left as evaluation.

        Raises:
            InputError: where there are no pixels, or they are of another size than the network's.
        """
        if pixels is None or pixels.size != self.size:
            got = "none" if pixels is None else f"images of {pixels.size} pixels"
            raise InputError(
                f"this network looks at images of {self.size} pixels, and got {got}; give those of a "
                f"store that was extracted with --keep-pixels {self.size}"
            )
        self.eval()
        device = next(self.parameters()).device
        found = []
        with torch.no_grad():
            for part in torch.split(rows, BATCH):
                images = self.normalise(pixels.batch(part, device))
                fed = part if feeding is None else feeding[part]
                own, shown = select_rows(tokens, counts, fed) if self.needs_features else ({}, {})
                found.append(self(own, shown, pixels=images).float().cpu())
        return torch.cat(found)

    def traced(
        self, tokens: Tokens, counts: Counts, images: Images | None
    ) -> Float[Tensor, "image logit"]:
        """As every head; its mode is left as evaluation.

        Raises:
            InputError: where there are no images, or they are of another size than the network's.
        """
        self.eval()
        logits: Tensor = self(
            tokens, counts, pixels=None if images is None else self.normalise(images)
        )
        return logits

    def feeding(self, features: Features) -> Int64[Tensor, " view"] | None:
        """For the control `shuffled` another image's row, under the same view; None for its own."""
        seed = self.partner_seed
        return None if seed is None else features.flat(partners(features, seed))

    def cost(self, shape: Shape) -> Cost:
        """Its own cost, and what its gates add."""
        return cost_of(self, self.points(), shape)

    def added(self, shape: Shape) -> str:
        """Return what its gates add; nothing is said of a network without any."""
        return str(self.cost(shape)) if self.gates else ""

    def ungated(self) -> AbstractContextManager[None]:
        """Run the network as if it had no gates."""
        return switched_off(self.points())

    def points(self) -> list[GatedPoint]:
        """Return the gated points, shallow to deep."""
        return [gate for gate in self.gates.values() if isinstance(gate, GatedPoint)]


def _gated_point(
    point: Point, level: str, shape: Shape, gating: Gating, generator: torch.Generator
) -> GatedPoint:
    gate: StageGate | SelfGate = StageGate(
        shape.channels[level],
        point.channels,
        reduction=gating.reduction,
        gate=gating.gate,
        bias=gating.bias,
        generator=generator,
    )
    if gating.control == "se":
        wanted = sum(value.numel() for value in gate.parameters())
        gate = SelfGate(
            point.channels, wanted, gate=gating.gate, bias=gating.bias, generator=generator
        )
    grid = shape.grids[level]
    reach = shape.reach.get(level, 1.0)
    return GatedPoint(point, gate, gating.gate, level, grid, reach, gating.upsampling)


def cost_of_network(config: TrainConfig, shape: Shape) -> Cost:
    """Return what the network of a config costs, and its gates add, without its weights.

    Args:
        config: Of a guided network; its weights are neither fetched nor drawn.
        shape: What it is built for.

    Raises:
        ConfigError: where it cannot be built so.
    """
    with torch.device("meta"):
        name = config.head.removeprefix(GUIDED)
        body = load_backbone(name, shape.pixels, pretrained=False, seed=0)
    generator = torch.Generator()
    classifier = Classifier(features_of(body), config, shape.classes, config.hidden, generator)
    net = GuidedNet(
        body, shape, Gating.of(config), classifier, size=shape.pixels, generator=generator
    )
    return net.cost(shape)
