"""Features where a device can use them: all of them in its memory, or batch by batch.

On a GPU all features live in its memory where they fit; where not, each batch is gathered into
pinned host memory and copied while the batch before it is computed. Whatever is random is drawn on
the CPU, so the order of images, their views and dropout's masks are the same on any device; figures
and the choice of the epoch are computed in float32 whatever training runs in.

None of this has been run on a GPU yet; its arithmetic is tested on the CPU.

    features = placed(features, choose_device("auto", training=True))
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.learn.features.tensors import Features

__all__ = ["Hosted", "moved", "placed"]

ROOM = 0.8  # share of a device's free memory that features may take; steps need the rest
ROOM_BESIDE_NETWORK = 0.25  # where a network over images has to go there too


class Hosted:
    """Tokens of one level that stay on the host and are copied to a device by the batch.

    Args:
        values: In memory, or mapped from a file.
        device: Where batches are wanted.
    """

    def __init__(self, values: Tensor, device: torch.device) -> None:
        self.values, self.shape, self.device = values, values.shape, device

    def index_select(
        self, dim: int, index: Int64[Tensor, " row"]
    ) -> Float[Tensor, "row token channel"]:
        """Return some rows in any order, on the device.

        Args:
            dim: 0, the axis along which rows lie.
            index: Row numbers, on the CPU.
        """
        if self.device.type == "cpu":
            return self.values.index_select(dim, index)
        # PyTorch keeps pinned blocks and gives one away again once its copy is done, so gathering
        # the next batch overlaps with this one's copy and step.
        batch = torch.empty((len(index), *self.shape[1:]), pin_memory=True)
        torch.index_select(self.values, dim, index, out=batch)
        return batch.to(self.device, non_blocking=True)


def placed(features: Features, device: torch.device) -> Features:
    """Return the same features where a device can use them; on a CPU they stay what and where they are.

    Args:
        features: In memory or in a scratch file.
        device: Takes all of them where they fit into four fifths of its free memory, a quarter beside
            images; otherwise they stay where they are and are copied by the batch.
    """
    if device.type == "cpu":
        return features
    free, _ = torch.cuda.mem_get_info(device)
    room = ROOM if features.pixels is None else ROOM_BESIDE_NETWORK
    return moved(features, device, whole=_bytes(features) <= room * free)


def moved(features: Features, device: torch.device, *, whole: bool) -> Features:
    """Return the same features on a device, all of them or by the batch; labels stay on the CPU.

    Args:
        features: In memory or in a scratch file.
        device: Where batches are wanted.
        whole: Whether the device takes all of them.
    """
    held = {k: v.values if isinstance(v, Hosted) else v for k, v in features.tokens.items()}
    tokens = {k: v.to(device) if whole else Hosted(v, device) for k, v in held.items()}
    counts = {level: values.to(device) for level, values in features.counts.items()}
    return replace(features, tokens=tokens, counts=counts)


def _bytes(features: Features) -> int:
    """Return what all tokens and counts take on a device, as float32."""
    held = [*features.tokens.values(), *features.counts.values()]
    return 4 * sum(int(math.prod(values.shape)) for values in held)
