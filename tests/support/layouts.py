"""The names that other projects give to the weights of SAM's image encoder."""

from torch import Tensor

__all__ = ["State", "as_hugging_face", "prefixed"]

State = dict[str, Tensor]

# Hugging Face's names beside segment_anything's, written from transformers' SamVisionEncoder.
OF_BLOCKS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn": "attn",
    "mlp": "mlp",
}
OF_NECK = {"0": "conv1", "1": "layer_norm1", "2": "conv2", "3": "layer_norm2"}


def as_hugging_face(own: State) -> State:
    """Rename by hand, each name by its parts."""
    renamed = {}
    for key, value in own.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts = ["layers", parts[1], OF_BLOCKS[parts[2]], *parts[3:]]
        elif parts[0] == "neck":
            parts = ["neck", OF_NECK[parts[1]], *parts[2:]]
        elif parts[:2] == ["patch_embed", "proj"]:
            parts[1] = "projection"
        renamed[".".join(parts)] = value
    return renamed


def prefixed(prefix: str, own: State) -> State:
    return {prefix + key: value for key, value in own.items()}
