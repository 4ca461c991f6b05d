"""Every encoder that stage one can run. A new one is a module and one line in `REGISTRY`.

The module offers two functions: `check(choice)` refuses what the encoder cannot be, before any file is
touched, and `build(choice, log)` returns it with its weights. It is imported when it is asked for.

    encoder = encoder_module("vit_b").build(EncoderChoice("vit_b", levels="early,neck"), print)
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from samcls.errors import ConfigError
from samcls.files import meant

if TYPE_CHECKING:
    from samcls.encode.base import Encoder, EncoderChoice

__all__ = ["REGISTRY", "EncoderModule", "Entry", "encoder_module"]

SAM, TIMM, MEDICAL = (f"samcls.encode.{module}" for module in ("sam", "timm_encoder", "medical"))
GLOBAL = "patch, after the first three blocks with global attention, neck"
QUARTERS = "patch, after each quarter of the blocks"
STAGES = "the outputs of the stages"
IMAGENET = "ImageNet's mean and deviation"
HUB = "timm fetches them from huggingface.co/timm when first used"
BY_FILE = "samcls weights fetch"


@dataclass(frozen=True)
class Entry:
    """What is known of an encoder before anything is loaded.

    Attributes:
        module: That offers `check` and `build`.
        about: What it is, in a few words.
        parameters: In millions.
        size: Side of its input, in pixels.
        levels: What the five levels are; fewer where an encoder has fewer.
        normalisation: Of its pixels.
        licence: Of its weights.
        source: Where they come from.
        gated: Whether the source asks for an account that accepted the licence.
    """

    module: str
    about: str = ""
    parameters: float | None = None
    size: int | None = None
    levels: str = ""
    normalisation: str = ""
    licence: str = ""
    source: str = ""
    gated: bool = False


def _sam(about: str, parameters: float) -> Entry:
    return Entry(SAM, about, parameters, 1024, GLOBAL, IMAGENET, "Apache-2.0", BY_FILE)


def _timm(about: str, parameters: float, size: int, levels: str, licence: str) -> Entry:
    return Entry(TIMM, about, parameters, size, levels, IMAGENET, licence, HUB)


REGISTRY = {  # a name, or what ends in a colon and goes before one
    "vit_b": _sam("SAM ViT-B; also MedSAM and other fine-tunes, by --checkpoint", 89.7),
    "vit_l": _sam("SAM ViT-L", 308.3),
    "vit_h": _sam("SAM ViT-H", 637.0),
    "sam3": Entry(
        "samcls.encode.sam3",
        "SAM 3's image encoder",
        447.1,
        1008,
        GLOBAL,
        "to -1..1; its own pictures are stretched: --resize stretch",
        "SAM License",
        "sam3.pt of huggingface.co/facebook/sam3, by --checkpoint",
        gated=True,
    ),
    "lite0": Entry(
        "samcls.encode.lite0",
        "EfficientNet-Lite0 trained on ImageNet, no SAM: for laptops, first looks, controls",
        3.4,
        224,
        STAGES,
        "to -1..1",
        "Apache-2.0",
        "a package that is installed with samcls",
    ),
    "vit_t": Entry(
        SAM,
        "UNTRAINED miniature of SAM's, for tests and controls",
        4.4,
        256,
        GLOBAL,
        IMAGENET,
        "none",
        "seeded when used",
    ),
    "rad-dino": Entry(
        MEDICAL,
        "RAD-DINO: DINOv2 ViT-B trained on chest radiographs",
        86.6,
        518,
        QUARTERS,
        "its own mean and deviation",
        "MSRLA",
        "model.safetensors of huggingface.co/microsoft/rad-dino, by --checkpoint",
    ),
    "biomedclip": Entry(
        MEDICAL,
        "BiomedCLIP: ViT-B trained on figures of biomedical papers",
        85.8,
        224,
        QUARTERS,
        "CLIP's mean and deviation",
        "MIT",
        "open_clip_pytorch_model.bin of huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-"
        "vit_base_patch16_224, by --checkpoint",
    ),
    "timm:sam2_hiera_tiny.fb_r896_2pt1": _timm(
        "SAM 2.1 Hiera, tiny", 26.9, 896, STAGES, "Apache-2.0"
    ),
    "timm:sam2_hiera_small.fb_r896_2pt1": _timm(
        "SAM 2.1 Hiera, small", 33.9, 896, STAGES, "Apache-2.0"
    ),
    "timm:sam2_hiera_base_plus.fb_r896_2pt1": _timm(
        "SAM 2.1 Hiera, base+", 68.7, 896, STAGES, "Apache-2.0"
    ),
    "timm:sam2_hiera_large.fb_r1024_2pt1": _timm(
        "SAM 2.1 Hiera, large", 212.2, 1024, STAGES, "Apache-2.0"
    ),
    "timm:vit_small_patch14_dinov2.lvd142m": _timm(
        "DINOv2 ViT-S", 22.1, 518, QUARTERS, "Apache-2.0"
    ),
    "timm:vit_base_patch14_dinov2.lvd142m": _timm(
        "DINOv2 ViT-B", 86.6, 518, QUARTERS, "Apache-2.0"
    ),
    "timm:vit_small_patch16_dinov3.lvd1689m": _timm(
        "DINOv3 ViT-S", 21.6, 256, QUARTERS, "DINOv3 License"
    ),
    "timm:vit_base_patch16_dinov3.lvd1689m": _timm(
        "DINOv3 ViT-B", 85.6, 256, QUARTERS, "DINOv3 License"
    ),
    "timm:": Entry(
        TIMM,
        "any timm model",
        None,
        None,
        "as the model has",
        "the model's own",
        "the model's own",
        HUB,
    ),
}


@runtime_checkable
class EncoderModule(Protocol):
    """What a module in the registry offers."""

    def check(self, choice: "EncoderChoice") -> None:
        """Refuse a choice that cannot be.

        Raises:
            ConfigError: naming the option, what was got and what was expected.
        """

    def build(self, choice: "EncoderChoice", log: Callable[[str], None]) -> "Encoder":
        """Return the encoder with its weights, on the CPU.

        Args:
            choice: Checked.
            log: Called with a sentence on weights that are not the official ones.

        Raises:
            WeightsError: the weights cannot be used.
        """


def encoder_module(name: str) -> EncoderModule:
    """Import the module of an encoder.

    Raises:
        ConfigError: there is no such encoder.
    """
    kind, colon, _ = name.partition(":")
    entry = REGISTRY.get(kind + colon)
    if entry is None:
        plain = [key for key in REGISTRY if not key.rpartition(":")[2] or ":" not in key]
        known = ", ".join(f"{key}<model>" if key.endswith(":") else key for key in plain)
        raise ConfigError(
            f"unknown encoder {name!r}; expected one of {known}{meant(name, _names())}; samcls weights "
            "list describes them"
        )
    return cast("EncoderModule", import_module(entry.module))


def _names() -> list[str]:
    """Every name, and those of timm's models without what goes before them."""
    return [*REGISTRY, *(key.partition(":")[2] for key in REGISTRY if key.partition(":")[2])]
