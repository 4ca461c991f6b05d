"""A checkpoint of one's own through extract: read alike from every layout, and never taken for official."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from segment_anything import sam_model_registry
from support.extracting import image_folder
from support.layouts import as_hugging_face, prefixed

from samcls.data.manifest import read_manifest
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.sam import load_encoder
from samcls.encode.timm_encoder import load_timm
from samcls.encode.weights import CHECKPOINTS, file_sha256
from samcls.errors import NotFiniteError, WeightsError
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

LEVELS = ("patch", "block:1", "neck")
SMALL = ExtractOptions(
    encoder="vit_b", levels="patch,block:0", size=64, window=2, batch=2, precision="float32"
)


@pytest.fixture
def sam(shallow: None) -> torch.nn.Module:
    """Of two blocks, every position drawn."""
    del shallow
    torch.manual_seed(0)
    built = sam_model_registry["vit_b"]()
    for key, parameter in built.image_encoder.named_parameters():
        if "pos" in key:
            parameter.data.normal_(0, 0.02)
    return built


def maps(path: Path, **options: int) -> dict[str, torch.Tensor]:
    encoder = load_encoder("vit_b", path, LEVELS, **options)
    generator = torch.Generator().manual_seed(0)
    side = encoder.input_size
    frames = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8, generator=generator)
    return encoder(frames, [(side, side)])


def test_hugging_faces_file_gives_the_official_files_features(
    sam: torch.nn.Module, tmp_path: Path
) -> None:
    """The same weights under Hugging Face's names give the same maps, bit for bit."""
    torch.save(sam.state_dict(), tmp_path / "own.pth")
    renamed = prefixed("vision_encoder.", as_hugging_face(sam.image_encoder.state_dict()))
    torch.save(renamed, tmp_path / "hf.bin")
    own, other = (maps(tmp_path / name, input_size=64) for name in ("own.pth", "hf.bin"))
    assert all(torch.equal(own[level], other[level]) for level in LEVELS)


def test_a_file_trained_at_another_size_is_interpolated_and_it_is_said(
    sam: torch.nn.Module, tmp_path: Path
) -> None:
    """Positions for 64 pixels give their own maps at 64, are interpolated elsewhere, and the log says it."""
    own = sam.image_encoder.state_dict()
    own["pos_embed"] = own["pos_embed"][:, :4, :4].clone()
    own["blocks.1.attn.rel_pos_h"] = own["blocks.1.attn.rel_pos_h"][:7].clone()
    own["blocks.1.attn.rel_pos_w"] = own["blocks.1.attn.rel_pos_w"][:7].clone()
    torch.save({key: value.half() for key, value in own.items()}, tmp_path / "own.pth")
    said: list[str] = []
    encoder = load_encoder("vit_b", tmp_path / "own.pth", LEVELS, 96, log=said.append)
    grid = torch.nn.functional.interpolate(
        own["pos_embed"].half().float().permute(0, 3, 1, 2), (6, 6), mode="bicubic"
    )
    torch.testing.assert_close(encoder.position, grid.permute(0, 2, 3, 1))
    assert said[1:] == [
        "its weights are float16; they are read as float32",
        (
            "its positions are those of 64 x 64 pixels; they, and the relative ones, are interpolated "
            "to 96 x 96 (--size 64 takes them as they are)"
        ),
    ]
    said.clear()
    alike = load_encoder("vit_b", tmp_path / "own.pth", LEVELS, 64, log=said.append)
    assert torch.equal(alike.position, alike.body.pos_embed)
    assert len(said) == 2


def test_what_is_not_official_is_named_in_output_store_and_run(
    sam: torch.nn.Module, tmp_path: Path
) -> None:
    """The log, the summary, the store and the run's notes say that a file is no official checkpoint."""
    path = tmp_path / "tuned.pth"
    torch.save(sam.state_dict(), path)
    digest = file_sha256(path)
    source = image_folder(tmp_path, [(40 + i, 60 - i) for i in range(8)])
    header, *rows = source.read_text().splitlines()
    lines = [
        f"{row.split(',')[0]},{row.split(',')[1]},{('train', 'val', 'test')[i // 2 % 3]},{'ab'[i % 2]}"
        for i, row in enumerate(rows[:6])
    ]
    source.write_text("\n".join(["id,path,split,label", *lines]) + "\n")
    del header
    said: list[str] = []
    options = ExtractOptions(**{**SMALL.__dict__, "checkpoint": str(path)})
    summary = extract(read_manifest(source), tmp_path / "s.zarr", options, log=said.append)
    assert said[0].startswith(f"tuned.pth is not an official checkpoint: sha256 {digest}; it holds")
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert summary.checkpoint == store.checkpoint
    assert (store.checkpoint["file"], store.checkpoint["official"]) == ("tuned.pth", None)
    assert store.fingerprint.checkpoint_sha256 == digest
    result = train(store, TrainConfig(epochs=1, intervals=10), tmp_path / "run")
    assert f"the features come from tuned.pth, not an official checkpoint: sha256 {digest}" in (
        result.notes
    )


def test_a_damaged_official_file_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached file of another size stops the extract, and there is no store."""
    monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path))
    (tmp_path / CHECKPOINTS["vit_b"].file_name).write_bytes(b"x")
    manifest = read_manifest(image_folder(tmp_path, [(40, 60)]))
    with pytest.raises(WeightsError, match=r"is not the vit_b checkpoint: it has 1 bytes"):
        extract(manifest, tmp_path / "s.zarr", SMALL)
    assert not (tmp_path / "s.zarr").exists()


def test_weights_that_overflow_stop_the_run(sam: torch.nn.Module, tmp_path: Path) -> None:
    """Features beyond float16 stop at the first batch, with level, value and remedy; float32 keeps them."""
    own = sam.image_encoder.state_dict()
    own["pos_embed"] = own["pos_embed"] + 70000
    torch.save(own, tmp_path / "own.pth")
    manifest = read_manifest(image_folder(tmp_path, [(40 + i, 60) for i in range(6)]))
    options = ExtractOptions(**{**SMALL.__dict__, "checkpoint": str(tmp_path / "own.pth")})
    with pytest.raises(
        NotFiniteError, match=r"level patch reaches 70,\d\d\d, beyond float16's 65,5"
    ):
        extract(manifest, tmp_path / "s.zarr", options)
    assert not FeatureStore.open(tmp_path / "s.zarr").status.any()
    wide = ExtractOptions(**{**options.__dict__, "storage": "float32"})
    assert extract(manifest, tmp_path / "wide.zarr", wide).done == 6


def test_timm_encoders_take_a_checkpoint(tmp_path: Path) -> None:
    """A file's tensors become the model's under any prefix, its head left out, its sha256 recorded."""
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", num_classes=7)
    state = {f"module.backbone.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 2}, tmp_path / "own.pth")
    encoder = load_timm("timm:resnet10t", input_size=64, checkpoint=tmp_path / "own.pth")
    for key, value in encoder.body.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    assert encoder.weights_sha256 == file_sha256(tmp_path / "own.pth")
    assert encoder.source["official"] is None


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("conv1.0.weight", {}, r"does not hold resnet10t: 1 missing \(conv1.0.weight\)"),
        ("", {"adapter.weight": torch.ones(1)}, r"1 unknown \(adapter.weight\)"),
        ("", {"bn1.weight": torch.ones(3)}, r"bn1.weight \(3,\) instead of"),
        ("", {"bn1.weight": torch.full((64,), torch.nan)}, r"not finite.*bn1.weight"),
    ],
    ids=["missing", "unknown", "shape", "nan"],
)
def test_a_file_of_another_timm_model_is_named(
    drop: str, add: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    """Missing, unknown, wrongly shaped and broken tensors are refused by name."""
    state = timm.create_model("resnet10t").state_dict() | add
    torch.save({k: v for k, v in state.items() if k != drop}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=words):
        load_timm("timm:resnet10t", input_size=64, checkpoint=tmp_path / "own.pth")


def test_positions_of_timm_models_follow_the_size(tmp_path: Path) -> None:
    """A transformer's file trained at 224 pixels serves 64, its positions resized by timm's own rule."""
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    torch.save(state, tmp_path / "own.pth")
    encoder = load_timm(
        "timm:vit_tiny_patch16_224", "neck", input_size=64, checkpoint=tmp_path / "own.pth"
    )
    assert encoder.shape("neck").rows == 4
    np.testing.assert_array_equal(
        encoder.body.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"]
    )
