"""Reading a checkpoint file of any kind into a table of named tensors; no code in it is run.

A file is known by what it holds, not by its suffix: PyTorch's present and former formats and safetensors
are read, and what is something else (a web page, a Git LFS pointer, another pickle) is named as that.
Tables inside tables are laid flat: `{"model": {"a.weight": x}}` gives `model.a.weight`.
"""

import contextlib
import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from samcls.encode.weights import need_file
from samcls.errors import WeightsError

__all__ = ["faults_of", "few_of", "load_state_dict"]

DEPTH = 8  # of tables in tables; what lies deeper is no checkpoint that anybody writes

# What a file begins with, and what it then is.
OTHERS = {
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}
# torch/serialization.py: the number with which the format before the zip one begins, pickled
LEGACY = re.compile(rb"\x80.\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
SAVE = (
    "Where it was made, save the weights alone: torch.save(model.state_dict(), FILE), or "
    "safetensors.torch.save_file(model.state_dict(), FILE)"
)


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors without running any code that it may contain.

    Returns:
        Name to tensor, on the CPU, tables inside tables joined by dots; mapped from the file where its
        format allows, so that tensors which are never used are never read.

    Raises:
        WeightsError: there is no such file, it is damaged or another kind of file, or it holds
            something else than named tensors.
    """
    need_file(path)
    with path.open("rb") as stream:
        head = stream.read(1024)
    if _is_safetensors(head):
        return _safetensors(path)
    _refuse_others(path, head)
    if head.startswith(b"PK"):
        _check_zip(path)
    elif not head.startswith(b"\x80"):
        raise _is(path, f"no checkpoint; it begins with {head[:12]!r}")
    elif not LEGACY.match(head):
        raise _is(path, f"a pickle that torch.save did not write{_calls(path)}. {SAVE}")
    return _tables(_torch(path), path)


def _is(path: Path, what: str) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{path} ({size:,} bytes) is {what}. Expected a checkpoint: .pth, .pt, .bin or .safetensors"
    )


def _refuse_others(path: Path, head: bytes) -> None:
    """Name what is no checkpoint at all."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise _is(path, "empty: copy or download it again")
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"size (\d+)", head)
        meant = f" to one of {int(size[1]):,} bytes" if size else ""
        raise _is(
            path, f"a Git LFS pointer{meant}, not the file itself: run git lfs pull, or download it"
        )
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text:
        raise _is(
            path,
            "a web page (HTML), not the file: a sign-in, licence or error page was saved in its place. "
            "Open its address in a browser, or use the link of the raw file",
        )
    if text.startswith((b"<?xml", b"<error")):
        raise _is(path, "an XML page, such as a server's error message. Download the file again")
    if text.startswith((b"{", b"[")):
        if b'"weight_map"' in path.read_bytes()[: 1 << 24]:
            raise _is(path, f"the index of a checkpoint in several files. {_merge()}")
        raise _is(path, "JSON text, without weights: name the file that holds them")
    for magic, what in OTHERS.items():
        if head.startswith(magic):
            raise _is(path, what)


def _merge() -> str:
    return (
        "Make one of them: load it with its own library, then torch.save(model.state_dict(), FILE)"
    )


# -- safetensors --------------------------------------------------------------------------------------


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and int.from_bytes(head[:8], "little") < 1 << 32 and head[8:9] == b"{"


def _safetensors(path: Path) -> dict[str, Tensor]:
    missing = _safetensors_missing(path)
    if missing:
        raise _is(path, f"a safetensors file that was cut off: {missing}. Download it again")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except MemoryError:
        raise
    except Exception as error:
        raise _is(path, f"a damaged safetensors file ({_first_line(error)})") from error
    if not found:
        raise _is(path, "a safetensors file that holds nothing")
    return found


def _safetensors_missing(path: Path) -> str:
    """Say how far a file falls short of what its header promises."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            return f"its header alone has {length:,} bytes"
        try:
            header = json.loads(stream.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return ""  # the reader says what is wrong
    promised = 8 + length + max(ends, default=0)
    return f"its header promises {promised:,} bytes" if size < promised else ""


# -- PyTorch ------------------------------------------------------------------------------------------


def _check_zip(path: Path) -> None:
    """See that a zip archive is whole and PyTorch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:
        raise _is(
            path,
            "truncated or damaged: it begins as PyTorch's zip format and its end is missing. Compare "
            "its size with the source's and download it again",
        ) from error
    if any("/code/" in name for name in names):
        raise _is(path, f"a TorchScript archive: a program, not a table of weights. {SAVE}")
    if not any(Path(name).name == "data.pkl" for name in names):
        kind = "a NumPy archive" if any(n.endswith(".npy") for n in names) else "a zip archive"
        raise _is(path, f"{kind} that torch.save did not write; it holds {', '.join(names[:3])}")


def _torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickle protocols
            # Only PyTorch's zip format can be mapped; the older one is read in full.
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except MemoryError:
        raise
    except Exception as error:  # random damage was seen to raise eight kinds of exception
        named = re.search(r"GLOBAL ([\w.]*\w)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named:
            raise WeightsError(
                f"{path} holds more than tensors: reading it would call {named[1]}, and samcls runs no "
                f"code from a checkpoint. {SAVE}"
            ) from error
        raise WeightsError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a PyTorch checkpoint of "
            f"plain tensors: {_first_line(error)}. It may be truncated or damaged; compare its size and "
            "SHA-256 with the source's."
        ) from error


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return type(error).__name__ if not line or "weights_only" in line else line.rstrip(".")


def _calls(path: Path) -> str:
    """Say what a pickle would call, from its instructions alone."""
    texts: list[str] = []
    with path.open("rb") as stream, contextlib.suppress(Exception):  # damage: nothing is said
        for code, value, _ in pickletools.genops(stream):
            if isinstance(value, str):
                texts.append(value)
            if code.name in {"GLOBAL", "STACK_GLOBAL"}:
                named = texts[-1].split(" ") if code.name == "GLOBAL" else texts[-2:]
                return f" (reading it would call {'.'.join(named)})"
    return ""


def _tables(saved: object, path: Path) -> dict[str, Tensor]:
    """Lay tables flat; what is no tensor (epochs, settings) is left out."""
    expected = "expected a table of named tensors"
    if not isinstance(saved, Mapping):
        raise WeightsError(f"{path} holds a {type(saved).__name__}, {expected}. {SAVE}")
    found = dict(_flat(saved, "", DEPTH))
    if not found:
        names = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in saved.items())
        raise WeightsError(f"{path} holds {names or 'nothing'}; {expected}. {SAVE}")
    return found


def _flat(table: Mapping[object, object], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    for key, value in table.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth:
            yield from _flat(value, f"{prefix}{key}.", depth - 1)


def few_of(kind: str, names: list[str], count: int = 3) -> str:
    """Count names and show the first few; nothing where there are none."""
    if not names:
        return ""
    more = ", ..." if len(names) > count else ""
    return f"{len(names)} {kind} ({', '.join(names[:count])}{more})"


def faults_of(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return what a table of tensors lacks, has too much, or has in another shape; empty where it fits.

    Args:
        state: What a file holds.
        wanted: What a model takes, by the same names.
    """
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    found = [
        few_of("missing", [key for key in wanted if key not in state]),
        few_of("unknown", [key for key in state if key not in wanted]),
        few_of("wrongly shaped", shapes),
    ]
    return [one for one in found if one]
