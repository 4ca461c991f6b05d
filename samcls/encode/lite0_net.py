"""EfficientNet-Lite0 (Tan and Le, 1905.11946; its Lite form has ReLU6 and no squeeze-and-excitation).

The layers, names and bits are those of timm's `tf_efficientnet_lite0`, a test says; it stands here because
importing timm takes longer than many a prediction: with torchvision and the compiler behind it some 5 s.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BLOCKS", "Lite0Net"]

# Of each stage: blocks, side of the depthwise kernel, stride of the first block, widening, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BLOCKS = tuple(stage[0] for stage in STAGES)
STEM, HEAD = 32, 1280  # channels; the head's layer is loaded and not run
EPSILON = 1e-3
GIVEN = (0, 1, 2, 4, 6)  # stages after which the side is halved, or that are the last


class Lite0Net(nn.Module):
    """The network without its classifier, as `TimmEncoder` takes one of timm's.

    Attributes:
        feature_info: Of each intermediate map its reduction and channels.
        pretrained_cfg: Mean and deviation of its pixels, in 0..1.
    """

    feature_info: ClassVar = [
        {"reduction": 2 << i, "num_chs": STAGES[stage][4]} for i, stage in enumerate(GIVEN)
    ]
    pretrained_cfg: ClassVar = MappingProxyType({"mean": (0.5,) * 3, "std": (0.5,) * 3})

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _Conv(3, STEM, 3, 2)
        self.bn1 = nn.BatchNorm2d(STEM, EPSILON)
        stages, channels = [], STEM
        for count, side, stride, widening, out in STAGES:
            blocks: list[nn.Module] = []
            for place in range(count):
                step = stride if place == 0 else 1
                kind = _Separable if widening == 1 else _Widening
                blocks.append(kind(channels, out, side, step, channels * widening))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, HEAD, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD, EPSILON)

    def forward_intermediates(
        self,
        pixels: Float[Tensor, "image 3 row col"],
        indices: Sequence[int],
        *,
        stop_early: bool,
        output_fmt: str,
        intermediates_only: bool,
    ) -> list[Float[Tensor, "image _channel _row _col"]]:
        """Return maps of the intermediates that are asked for, ascending, as timm's method of this name.

        Args:
            pixels: Normalised.
            indices: Of `feature_info`.
            stop_early: Nothing behind the last of them runs, whatever it says.
            output_fmt: `NCHW`.
            intermediates_only: True.
        """
        if output_fmt != "NCHW" or not intermediates_only:
            raise ValueError(f"got {output_fmt}, {intermediates_only}; expected NCHW, True")
        del stop_early
        wanted = [GIVEN[i] for i in indices]
        x, found = functional.relu6(self.bn1(self.conv_stem(pixels)), inplace=True), []
        for number, stage in enumerate(self.blocks[: max(wanted) + 1]):
            x = stage(x)
            if number in wanted:
                found.append(x)
        return found


class _Conv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: to a whole number of strides, right and bottom first."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, groups: int = 1) -> None:
        even = stride == 1
        padding = side // 2 if even else 0
        super().__init__(inputs, outputs, side, stride, padding, groups=groups, bias=False)
        self._pads = not even

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        x = input
        if self._pads:
            side, stride = self.kernel_size[0], self.stride[0]
            rows, cols = (
                max((-(-extent // stride) - 1) * stride + side - extent, 0)
                for extent in x.shape[-2:]
            )
            x = functional.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


class _Separable(nn.Module):
    """A depthwise convolution and one across channels."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, inner: int) -> None:
        super().__init__()
        self.conv_dw = _Conv(inputs, inner, side, stride, inputs)
        self.bn1 = nn.BatchNorm2d(inner, EPSILON)
        self.conv_pw = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, EPSILON)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        seen = functional.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        out: Tensor = self.bn2(self.conv_pw(seen))
        return out + x if self._adds else out


class _Widening(nn.Module):
    """Across channels into more of them, depthwise, and across channels into fewer."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, inner: int) -> None:
        super().__init__()
        self.conv_pw = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, EPSILON)
        self.conv_dw = _Conv(inner, inner, side, stride, inner)
        self.bn2 = nn.BatchNorm2d(inner, EPSILON)
        self.conv_pwl = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, EPSILON)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        seen = functional.relu6(self.bn2(self.conv_dw(wide)), inplace=True)
        out: Tensor = self.bn3(self.conv_pwl(seen))
        return out + x if self._adds else out
