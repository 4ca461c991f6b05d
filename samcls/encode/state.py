"""Reading a checkpoint's tensors, and whether they are the ones that an encoder needs.

No code that a file may contain is run. Keys of another encoder are named, with the encoder they seem
to belong to.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from samcls.encode.weights import need_file
from samcls.errors import WeightsError

__all__ = ["check_keys", "guess_encoder", "load_state_dict"]

_EMBED_DIMS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors without running any code that it may contain.

    Returns:
        Name to tensor, on the CPU; mapped from the file where its format allows, so that tensors
        which are never used are never read.

    Raises:
        WeightsError: there is no such file, it is damaged or no checkpoint, or it holds something
            else than one table of tensors.
    """
    need_file(path)
    try:
        # Only PyTorch's zip format can be mapped; the older one is read in full.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except MemoryError:
        raise
    except Exception as error:  # random damage was seen to raise eight kinds of exception
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a PyTorch checkpoint of "
            f"plain tensors: {reason or type(error).__name__}. It may be truncated or another "
            "kind of file; compare its size and SHA-256 with the source's."
        ) from error
    return _need_tensors(state, path)


def _need_tensors(state: object, path: Path) -> dict[str, torch.Tensor]:
    expected = "expected a table of named tensors"
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, {expected}. Save a state_dict.")
    others = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if others or not state:
        inner = [key for key in others if isinstance(state[key], dict)]
        remedy = f"Perhaps {inner[0]!r} is the table meant: save it alone." if inner else ""
        found = ", ".join(f"{key!r}: {type(state[key]).__name__}" for key in others[:3])
        raise WeightsError(f"{path} holds {found or 'nothing'}; {expected}. {remedy}".rstrip())
    return state


def guess_encoder(state: Mapping[str, Any]) -> str | None:
    """Name the SAM encoder whose embedding has this table's number of channels, if one has."""
    for key, value in state.items():
        if key.endswith("patch_embed.proj.bias"):
            return _EMBED_DIMS.get(int(value.shape[-1]))
    return None


def check_keys(expected: Mapping[str, Any], found: Mapping[str, Any], path: Path) -> None:
    """Check that a checkpoint has just the tensors that a model needs.

    Args:
        expected: the model's own state, name to anything with a `shape`.
        found: what the file holds.
        path: the file, for the message.

    Raises:
        WeightsError: keys are missing, unexpected or of another shape; the first few of each are
            named, with their number, and the encoder that the file seems to belong to.
    """
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and tuple(found[key].shape) != tuple(value.shape)
    ]
    faults = [
        _few("missing", [key for key in expected if key not in found]),
        _few("unexpected", [key for key in found if key not in expected]),
        _few("wrongly shaped", shapes),
    ]
    if not any(faults):
        return
    guess = guess_encoder(found)
    hint = f" By its width it is {guess}: ask for that encoder, or" if guess else " Either ask for"
    other = " name another file." if guess else " the encoder it belongs to, or name another file."
    raise WeightsError(
        f"{path} does not fit the encoder: {'; '.join(filter(None, faults))}.{hint}{other}"
    )


def _few(kind: str, names: list[str], count: int = 3) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > count else ""
    return f"{len(names)} {kind} ({', '.join(names[:count])}{more})"
