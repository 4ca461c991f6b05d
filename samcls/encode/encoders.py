"""The encoder that an extract asks for, on its device and in its precision, and the batch that suits it.

encoder = open_encoder(ExtractOptions(encoder="vit_b", levels="early,neck"))
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from samcls.device import choose_device
from samcls.encode.base import Encoder
from samcls.encode.options import ExtractOptions
from samcls.encode.precision import choose_precision
from samcls.encode.registry import encoder_module
from samcls.store.feature_store import FeatureStore

__all__ = ["default_batch", "open_encoder"]


def open_encoder(
    options: ExtractOptions,
    store_path: str | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Encoder:
    """Build the encoder that the options ask for, on its device and in its precision.

    Args:
        options: Of the extract.
        store_path: A store that may be there; `auto` precision then takes what it was made with.
        log: Called with a sentence on a checkpoint that is not the official one, or is interpolated.
    """
    device = choose_device(options.device)
    precision = options.precision
    if precision == "auto" and store_path is not None and FeatureStore.exists(store_path):
        precision = FeatureStore.open(store_path).fingerprint.precision
    elif precision == "auto":
        precision = choose_precision(device)
    choice = replace(options.encoder_choice, precision=precision)
    return encoder_module(choice.name).build(choice, log).to(device)


def default_batch(encoder: Encoder) -> int:
    """Choose a batch as a power of two.

    By tokens: 8 for `vit_t` at 256 px on a CPU and 1 for SAM at 1024 px; on a GPU what half of the free
    memory holds, at most 32 768 tokens.
    """
    tokens = max(1, encoder.input_size // 16) ** 2
    wanted = 2048
    if encoder.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(encoder.device)
        widest = max(encoder.shape(level).channels for level in encoder.levels)
        token_bytes = 48 * widest  # the stream, qkv, its copy by windows and one hidden tile
        wanted = min(32768, free // 2 // token_bytes)
    return 1 << max(0, (wanted // tokens).bit_length() - 1)
