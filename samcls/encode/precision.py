"""Which number type an encoder computes in.

Matrix products take it; layer norms, softmax and pooled sums accumulate in float32. `samcls extract
--check N` shows what it costs in accuracy on one's own images.

Native bfloat16 is not always faster: on an Intel Xeon with AVX512-BF16 but without AMX, PyTorch's
products ran at 0.6 of the float32 rate (83 against 138 GMAC/s on 2 cores). So a CPU is asked.
"""

import torch

from samcls.device import multiplies_bfloat16
from samcls.encode.cost import matmul_rate

__all__ = ["PRECISIONS", "choose_precision"]

PRECISIONS = ("float32", "bfloat16", "float16")

WORTH = 1.3  # times the float32 rate; less does not pay for the lost digits


def choose_precision(device: torch.device) -> str:
    """Return bfloat16 where the hardware multiplies it natively, and faster; float32 elsewhere.

    That is CUDA from compute capability 8.0 on, and CPUs with AMX or AVX512-BF16 on which a short
    measurement (0.1 s) confirms it.
    """
    if device.type == "cuda":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        rates = [matmul_rate(512, 512, dtype, device) for dtype in (torch.float32, torch.bfloat16)]
        return "bfloat16" if rates[1] > WORTH * rates[0] else "float32"
    return "float32"


def _cpu_multiplies_bfloat16() -> bool:
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
