"""Encoders trained on medical images that timm has the architecture of, but not the weights.

Their file comes by --checkpoint, from the address that `samcls weights list` names. Their own pixels' mean and
deviation are known here, and go into the fingerprint; their own preprocessing cuts a square from the
middle, which samcls does not: it keeps the whole picture.

    encoder = build(EncoderChoice("rad-dino", checkpoint="model.safetensors"), print)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samcls.encode.base import EncoderChoice, random_source, refuse_two_sources
from samcls.encode.timm_encoder import TimmEncoder, chosen_levels, create_body
from samcls.encode.timm_weights import load_file
from samcls.encode.weights import file_sha256, need_file
from samcls.errors import WeightsError

__all__ = ["MODELS", "MedicalModel", "build", "check"]


@dataclass(frozen=True)
class MedicalModel:
    """What timm does not know of a model whose architecture it has.

    Attributes:
        body: Of timm.
        size: Side of its input, in pixels.
        mean: Of each RGB channel, in 0..1.
        std: Of each RGB channel, in 0..1.
        file: That holds its weights, and where it is published.
    """

    body: str
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    file: str


MODELS = {  # mean and deviation from preprocessor_config.json and open_clip_config.json beside the weights
    "rad-dino": MedicalModel(
        "vit_base_patch14_dinov2",
        518,
        (0.5307, 0.5307, 0.5307),
        (0.2583, 0.2583, 0.2583),
        "model.safetensors of huggingface.co/microsoft/rad-dino",
    ),
    "biomedclip": MedicalModel(
        "vit_base_patch16_224",
        224,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        "open_clip_pytorch_model.bin of "
        "huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
    ),
}


def check(choice: EncoderChoice) -> None:
    """Refuse a choice without weights, or with two kinds of them.

    Raises:
        ConfigError: the weights are to be drawn, and come from a file.
        WeightsError: there is no file of weights.
    """
    refuse_two_sources(choice)
    if choice.checkpoint:
        need_file(Path(choice.checkpoint))
    elif not choice.random_weights:
        raise WeightsError(
            f"{choice.name} needs --checkpoint FILE: {MODELS[choice.name].file}. --encoder lite0 is there "
            "already"
        )


def build(choice: EncoderChoice, log: Callable[[str], None]) -> TimmEncoder:
    """Build the encoder with the weights of its file, or with drawn ones.

    Raises:
        ConfigError: a level or size is none that it has.
        WeightsError: the file cannot be read, or holds another model.
    """
    check(choice)
    model = MODELS[choice.name]
    size = choice.size or model.size
    body: Any = create_body(model.body, size, pretrained=False, seed=choice.seed)
    body.pretrained_cfg = {**body.pretrained_cfg, "mean": model.mean, "std": model.std}
    digest, source = None, random_source(choice.seed)
    if choice.checkpoint:
        file = Path(choice.checkpoint)
        source = {"file": file.name, "official": None, "holds": load_file(body, model.body, file)}
        digest = file_sha256(file)
        log(f"{file.name}: sha256 {digest}; it holds {source['holds']}")
    levels = chosen_levels(body, choice.levels)
    trained = choice.checkpoint is not None
    encoder = TimmEncoder(body, choice.name, levels, size, choice.precision, trained, digest)
    encoder.source = source
    return encoder
