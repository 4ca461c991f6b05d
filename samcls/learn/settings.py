"""The settings of stage two: every field with its sentence, its role, its group and its range.

config = TrainConfig(head="slca", levels=("neck",))
print(TrainConfig.__doc__)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from samcls.config import Config, Precision, documented, option

__all__ = ["Control", "Gate", "Loss", "TrainConfig", "Upsampling"]

Control = Literal["none", "plain", "shuffled", "se"]
Gate = Literal["multiply", "residual"]
Loss = Literal["cross_entropy", "focal"]
Upsampling = Literal["nearest", "bilinear"]

_data = partial(option, role="data", group="Data")
_form = partial(option, role="form", group="Head")
_member = partial(option, role="member", group="Optimiser")
_guided = partial(option, role="form", group="Guided", heads=("guided",))

OTHER_LABELS = "configurations that learn other {} cannot be ranked; make a sweep for each"


@documented
@dataclass(frozen=True)
class TrainConfig(Config):
    """One run of stage two: which features, which head, how it is trained.

    The default head was chosen on divisions of training splits alone (`samcls bench recipe`), its other
    defaults on the validation AUC of BreastMNIST and RetinaMNIST under an untrained
    miniature encoder, among rates of 0.001 to 0.03, dropout of 0 to 0.5, decay of 0.01 to 1.
    """

    former_defaults = {"head": "slca"}  # noqa: RUF012 - read, and never written to

    head: str = _form(
        "ensemble:slca",
        "slca, linear, se, attention-pool, mlp, knn, logistic, logistic-statistics, logistic-windows, "
        "regressions (the mean of these three), ensemble:<head> (it and them), or guided:<timm model>.",
    )
    members: int = _form(
        2,
        "Heads of an ensemble, each with a seed of its own.",
        unit="heads",
        heads=("ensemble",),
        at_least=1,
    )
    levels: tuple[str, ...] = _data(
        (), "Levels of the store that the head sees; empty means all of them.", distinct=True
    )
    tasks: tuple[str, ...] = _data(
        (),
        "Label columns to learn; empty means all of them.",
        distinct=True,
        unswept=OTHER_LABELS.format("tasks"),
    )
    labels: str | None = _data(
        None,
        "CSV with a column id and one for each task, in place of the store's labels.",
        unswept=OTHER_LABELS.format("labels"),
    )
    missing: tuple[str, ...] = _data(
        (),
        "What means that a label is missing in that CSV, besides an empty cell.",
        distinct=True,
        unswept=OTHER_LABELS.format("labels"),
    )
    ordinal: tuple[str, ...] = _form(
        (),
        "Tasks whose classes are learned as ordered, by a cumulative link; empty means those that "
        "the manifest declares, none means none of them.",
        distinct=True,
    )
    positive: tuple[str, ...] = _data(
        (),
        "Class of each task of two that scores, sensitivity and its like are of, as CLASS or "
        "TASK=CLASS; the last one where none is named.",
        distinct=True,
        unswept="figures of another class cannot be ranked together; set it under [fixed]",
    )
    folds: int = _data(
        0,
        "Divide all images into so many group-aware, stratified folds in place of the stored "
        "splits; 0 keeps the splits.",
        at_least=0,
        repeats=True,
        unswept="the file's own key folds cross-validates every configuration",
    )
    fold: int = _data(
        0,
        "Which of the folds is the test split, from 0; samcls train --folds runs all where none is "
        "named.",
        at_least=0,
        repeats=True,
        unswept="the file's own key folds runs every fold",
    )
    train_fraction: float = _data(
        1.0,
        "Share of the training split that is learned from; validation and test stay whole. Shares "
        "of one seed are nested, stratified by class, groups whole.",
        above=0.0,
        at_most=1.0,
        repeats=True,
        unswept="the file's own key fractions is the axis of training shares",
    )
    select: str = _data(
        "holdout",
        "What chooses epochs and strengths: holdout (the validation split), or inner:5 or inner:5x3, so many "
        "stratified folds of train and validation together, repeated so often, groups whole; the head "
        "is then fitted on all of them.",
        pattern=r"holdout|inner:([2-9]|[1-9]\d+)(x[1-9]\d*)?",
        expected="holdout, inner:FOLDS or inner:FOLDSxREPEATS, such as inner:5x3",
        unswept="figures of another selection cannot be ranked together; set it under [fixed]",
    )
    with_meta: tuple[str, ...] = _data(
        (),
        "Columns of the manifest (meta:NAME) beside the image, as one more level: numbers standardised, "
        "categories one-hot, what is missing a channel of its own; NAME=category takes numbers for "
        "categories.",
        distinct=True,
    )
    window: int | None = _data(
        None,
        "Side of SLCA's pooling window in cells of the encoder's map, a multiple of the store's; "
        "unset means the window that the store was pooled with.",
        group="Head",
        unit="cells",
        at_least=1,
    )
    reduction: int = _form(
        16,
        "SLCA's bottleneck: channels / reduction hidden channels.",
        unit="channels / hidden",
        heads=("slca", "se", "attention-pool", "guided"),
        at_least=1,
    )
    gate: Gate | None = _form(
        None,
        "multiply gives x * A, residual gives x + x * A; unset means the head's own: multiply for "
        "slca, residual for guided networks.",
        heads=("slca", "se", "guided"),
        former="guided_gate",
    )
    upsampling: Upsampling = _form(
        "nearest",
        "nearest gives every cell its window's gate; bilinear interpolates between windows, which "
        "needs a store of whole maps (window 1).",
        heads=("slca", "guided"),
    )
    gate_bias: bool = _form(
        True, "Whether SLCA's two layers have biases.", heads=("slca", "se", "guided")
    )
    gate_channels: int = _form(
        0,
        "Channels of SLCA's gate (C_out), each for a run of neighbouring channels; 0 gives every "
        "channel its own.",
        unit="0: all",
        heads=("slca", "se"),
        at_least=0,
    )
    hidden: int = _form(
        0,
        "Width of the hidden layer after pooling; 0 means a linear classifier, and for the mlp "
        "head 256.",
        unit="0: linear",
        heads=("slca", "se", "attention-pool", "mlp", "guided"),
        at_least=0,
    )
    dropout: float = _member(
        0.2,
        "Share of pooled features dropped in training.",
        unit="share",
        at_least=0.0,
        below=1.0,
    )
    epochs: int = _member(60, "Most passes over the training split.", at_least=1)
    patience: int = _member(
        20,
        "Epochs without a better validation AUC before training stops; 0 means never.",
        unit="epochs",
        at_least=0,
    )
    batch_size: int = _member(64, "Images a step.", role="step", unit="images", at_least=1)
    learning_rate: float = _member(
        5e-3,
        "AdamW's peak rate, reached after the warm-up and then lowered along a cosine.",
        flags=("--learning-rate", "--lr"),
        above=0.0,
    )
    warmup: float = _member(
        0.05,
        "Share of all steps over which the rate rises from zero.",
        unit="share of steps",
        at_least=0.0,
        below=1.0,
    )
    weight_decay: float = _member(
        0.1, "AdamW's decoupled decay, on weights and not on biases.", at_least=0.0
    )
    loss: Loss = _member(
        "cross_entropy",
        "focal weighs an image down by (1 - p) ** focal_gamma, p being its class's probability.",
    )
    focal_gamma: float = _member(2.0, "The focal loss's exponent.", at_least=0.0)
    label_smoothing: float = _member(
        0.0, "Share of each label that is spread over all classes.", at_least=0.0, below=1.0
    )
    class_weights: Literal["none", "balanced"] = _member(
        "none", "balanced weighs each class by the inverse of its share in training."
    )
    precision: Precision = option(
        "float32",
        "Of training's matrix products; auto is bfloat16 on GPUs that multiply it natively and "
        "float32 elsewhere. Weights, loss and all figures stay in float32.",
        role="step",
        group="Machine",
    )
    stages: tuple[str, ...] = _guided(
        (),
        "Which points of the network are gated (stem, stage1 to stage4); empty means the last "
        "ones, one for each level.",
        distinct=True,
    )
    control: Control = _guided(
        "none",
        "What stands in for the network's gates: plain has none; se has gates of as many parameters "
        "on its own features; shuffled feeds them other images' features.",
        former="guided_control",
    )
    pretrained: bool = _guided(True, "Whether the network starts from timm's pretrained weights.")
    freeze_backbone: bool = _guided(
        False, "Whether only the network's gates and its classifier learn."
    )
    backbone_learning_rate: float = _guided(
        3e-4,
        "The network's own peak rate; learning_rate is its gates' and its classifier's.",
        role="member",
        flags=("--backbone-learning-rate", "--backbone-lr", "--backbone-rate"),
        above=0.0,
    )
    accumulate: int = _guided(
        1,
        "Parts in which a step's images pass through the network, for want of memory.",
        role="step",
        at_least=1,
    )
    channels_last: bool = _guided(
        False,
        "Whether the network's maps lie in memory with their channels innermost, as GPUs like it.",
        role="step",
    )
    compile: bool = _guided(
        False,
        "Whether the network is compiled, which costs a minute before the first step.",
        role="step",
    )
    jitter: float = _guided(
        0.0,
        "Most by which brightness and contrast of training images are changed.",
        role="member",
        at_least=0.0,
        below=1.0,
    )
    intervals: int = option(
        1000,
        "Most parts of the images (groups, where there are not more of them) that are left out in "
        "turn for the intervals; 0 means no intervals.",
        role="figures",
        group="Evaluation",
        at_least=0,
        former="bootstrap",
        unswept="they change no head; set it under [fixed]",
    )
    seed: int = _member(
        0,
        "Of initial weights, order of images, dropout and the training share.",
        at_least=0,
        at_most=2**63 - 1,
        repeats=True,
        unswept="the file's own key seeds runs every configuration with several",
    )

    @property
    def inner(self) -> tuple[int, int] | None:
        """Inner folds and repeats that choose; None where the validation split does."""
        if self.select == "holdout":
            return None
        folds, _, repeats = self.select.removeprefix("inner:").partition("x")
        return int(folds), int(repeats or 1)

    @classmethod
    def renewed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the names of today; once, guided networks alone read `guided_gate`."""
        own = dict(values)
        if {"gate", "guided_gate"} <= set(own):
            of_network = own.pop("guided_gate")
            if str(own.get("head")).startswith("guided:"):
                own["gate"] = of_network
        return super().renewed(own)
