"""Checkpoint files of every kind are read, or named as what they are; no code in them runs."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from samcls.encode.checkpoints import load_state_dict
from samcls.errors import WeightsError


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_is_read_in_both_formats(zipped: bool, tmp_path: Path) -> None:
    """Tensors come back as saved, from PyTorch's present and its former file format."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(2, dtype=torch.int64)}
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = load_state_dict(tmp_path / "x.pth")
    assert list(found) == ["a", "b.c"]
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(zipped: bool, share: float, tmp_path: Path) -> None:
    """A checkpoint cut anywhere is refused with its size, never half read."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        WeightsError,
        match=r"is empty|truncated or damaged|cannot be read as a PyTorch checkpoint.*truncated",
    ):
        load_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_random_damage_never_escapes_as_another_error(zipped: bool, tmp_path: Path) -> None:
    """Flipped bytes give the saved names or a WeightsError, whatever the reader stumbles over."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(50)}, path, _use_new_zipfile_serialization=zipped)
    data, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[random.integers(len(data), size=3)] ^= random.integers(1, 256, 3, np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            load_state_dict(path)
        except WeightsError:
            refused += 1
    assert refused > 0


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    """Reading a checkpoint never calls what is pickled in it."""

    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"a": Evil()}, tmp_path / "x.pth")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": Evil()}))
    for name in ("x.pth", "x.pkl"):
        with pytest.raises(WeightsError, match=r"would call posix\.mkdir") as caught:
            load_state_dict(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    """A pickled module is no table of weights: its class is named, with how to save the weights alone."""
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"call torch.nn.*Linear.*torch.save\(model.state_dict"):
        load_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (torch.zeros(2), "holds a Tensor, expected a table of named tensors"),
        ({}, "holds nothing; expected"),
        ({"epoch": 3, "model": {}}, "holds 'epoch': int, 'model': dict; expected"),
    ],
    ids=["tensor", "empty", "number"],
)
def test_a_file_without_a_table_of_tensors_is_refused(
    saved: object, words: str, tmp_path: Path
) -> None:
    """What a file holds instead of named tensors is said, and where they may be."""
    torch.save(saved, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=words):
        load_state_dict(tmp_path / "x.pth")


def test_tables_in_tables_are_laid_flat(tmp_path: Path) -> None:
    """Tensors keep the path to them as their name; numbers and texts beside them are left out."""
    saved = {"epoch": 3, "model": {"net": {"a": torch.ones(2)}, "b": torch.zeros(1)}, "c": "text"}
    torch.save(saved, tmp_path / "x.pth")
    assert list(load_state_dict(tmp_path / "x.pth")) == ["model.net.a", "model.b"]


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    """The content decides: safetensors under a PyTorch name give their tensors, bit for bit."""
    state = {"a": torch.arange(4.0).bfloat16(), "b": torch.ones(2, 3)}
    save_file(state, tmp_path / "x.bin")
    found = load_state_dict(tmp_path / "x.bin")
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9, 0.999])
def test_truncated_safetensors_are_named(share: float, tmp_path: Path) -> None:
    """A safetensors file cut anywhere says that it was cut off."""
    save_file({"a": torch.zeros(1000)}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match=r"is empty|was cut off|no checkpoint"):
        load_state_dict(tmp_path / "x.safetensors")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ec2d\nsize 375042383\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"\(0 bytes\) is empty"),
        (LFS, r"is a Git LFS pointer to one of 375,042,383 bytes.*git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", r"is a web page \(HTML\)"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML page"),
        (
            b'{"metadata": {}, "weight_map": {"a": "model-1.bin"}}',
            "index of a checkpoint in several",
        ),
        (b'{"lr": 1}', "is JSON text, without weights"),
        (b"\x1f\x8b" + bytes(99), "compressed with gzip: unpack it first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, such as Keras writes"),
        (b"epoch,loss\n1,0.5\n", r"no checkpoint; it begins with b'epoch,loss"),
        (pickle.dumps([1, 2]), "a pickle that torch.save did not write"),
    ],
    ids=["empty", "lfs", "html", "xml", "index", "json", "gzip", "hdf5", "text", "pickle"],
)
def test_what_is_no_checkpoint_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    """Each other kind of file is named as what it is, and torch's advice is never repeated."""
    (tmp_path / "sam.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        load_state_dict(tmp_path / "sam.pth")
    assert "weights_only" not in str(caught.value)
    assert str(tmp_path / "sam.pth") in str(caught.value)


def test_archives_of_other_kinds_are_named(tmp_path: Path) -> None:
    """A NumPy archive, another zip and a TorchScript program are told from a checkpoint."""
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"):
            archive.writestr(name, "x")
    for name, words in {
        "x.npz": "a NumPy archive",
        "x.zip": "holds notes.txt",
        "x.pt": "a TorchScript",
    }.items():
        with pytest.raises(WeightsError, match=words):
            load_state_dict(tmp_path / name)
