"""Naming what is not SAM's image encoder: adapters, and other models that users take for it."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["adapter_keys", "described_stranger"]

ADAPTER = re.compile(
    r"lora|adapter|prompt_generator|prompt_tuning|base_layer|linear_[ab]_[qkv]|houlsby|hypercomplex"
    r"|(^|\.)w_[ab]s?(\.|_)|(^|[._])(ssf|vpt|ia3|dora|loha|lokr)([._]|$)",
    re.IGNORECASE,
)
DECODERS = re.compile(r"mask_decoder|prompt_encoder|optimizer|scheduler")

TIMM = "one that timm knows is read with --encoder timm:NAME --checkpoint FILE"

# The first pattern that a name matches says what the file is.
STRANGERS = (
    (
        r"(^|\.)(image_encoder\.trunk|memory_attention|memory_encoder|vision_encoder\.backbone)\.",
        "a SAM 2 model, whose encoder (Hiera) is another architecture",
    ),
    (
        r"(^|\.)detector\.(backbone|transformer)\.",
        "a SAM 3 model, another architecture: give --encoder sam3",
    ),
    (
        r"(^|\.)patch_embed\.seq\.|\.attention_biases$|\.local_conv\.",
        "a TinyViT encoder, as MobileSAM and TinySAM have, another architecture",
    ),
    (
        r"\.input_stem\.|\.op_list\.|\.context_module\.",
        "an EfficientViT-SAM model, another architecture",
    ),
    (r"\.token_mixer\.|\.channel_mixer\.", "a RepViT-SAM model, another architecture"),
    (
        r"^image_encoder\.neck\.|\.image_encoder\.neck\.",
        "an encoder without SAM's relative positions, as EfficientSAM has, another architecture",
    ),
    (r"(^|\.)model\.\d+\.(cv\d|conv|m)\.", "a YOLO network, as FastSAM is, another architecture"),
    (
        r"(^|[._])(cls_token|class_embedding|register_tokens|mask_token)$",
        f"a vision transformer without SAM's neck and relative positions (DINO's, for instance); {TIMM}",
    ),
    (r"relative_position_bias_table$", f"a Swin Transformer; {TIMM}"),
    (r"(^|\.)layer[1-4]\.\d+\.conv1\.", f"a ResNet; {TIMM}"),
)


def adapter_keys(keys: Iterable[str], *, decoders: bool = False) -> list[str]:
    """Pick the names that belong to adapters (LoRA, Adapter, prompt generators and their like).

    Args:
        keys: Names of tensors.
        decoders: Leave out those of the parts that do not change the image encoder.
    """
    found = [key for key in keys if ADAPTER.search(key)]
    return [key for key in found if not (decoders and DECODERS.search(key))]


def described_stranger(table: Mapping[str, Tensor]) -> str:
    """Say what a table without SAM's image encoder is, as far as its names tell."""
    adapters = adapter_keys(table)
    if len(adapters) > len(table) // 2:
        return "adapters alone, without the encoder that they adapt"
    for pattern, what in STRANGERS:
        if any(re.search(pattern, key) for key in table):
            return what
    if any(re.search(r"(^|\.)(mask_decoder|prompt_encoder)\.", key) for key in table):
        return "SAM's mask decoder or prompt encoder without an image encoder"
    return f"no image encoder that samcls knows (its first names: {', '.join([*table][:3])})"
