"""A run as one module, followed by nobody yet, against the pipeline's own steps; and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.exporting import Subject, said, subject

from samcls.deploy.export.graph import HeadGraph, ImageGraph, level_shapes, refuse_unexportable
from samcls.deploy.export.pixels import shown_images, turned
from samcls.deploy.export.resize import vertical_first
from samcls.deploy.export.selfcheck import phantoms
from samcls.encode.plain import PlainBlock
from samcls.encode.sam import load_encoder
from samcls.encode.timm_encoder import load_timm
from samcls.errors import ExportError
from samcls.learn.features.meta import MetaColumn
from samcls.learn.features.pixels import Pixels, extents_of
from samcls.learn.score.calibration import temperature_scaled
from samcls.views import VIEWS, transform

HEADS = {
    "slca": {"head_window": 2},
    "slca over whole maps": {"head": "slca", "upsampling": "bilinear"},
    "slca, odd windows": {"head": "slca", "window": 3, "head_window": 6, "size": 112},
    "linear": {},
    "se": {},
    "attention-pool": {},
    "mlp": {},
    "logistic": {},
    "logistic-statistics": {},
    "logistic-windows": {},
    "regressions": {},
    "ensemble:slca": {"members": 2},
    "ordinal": {"head": "slca", "ordinal": ("grade",)},
    "guided:test_resnet": {"pretrained": False, "pixels": 48, "views": "d4"},
    "guided:test_resnet, no padding": {"pretrained": False, "pixels": 64, "resize": "stretch"},
}
WAYS = {
    "all views": {"views": "d4", "window": 2},
    "seeds": {"views": "flip", "models": 3},
    "float32": {"storage": "float32"},
    "stretched": {"resize": "stretch", "window": 2},
    "lite0": {"encoder": "lite0", "size": 64},
    "vision transformer": {"encoder": "timm:vit_tiny_patch16_224", "levels": "patch,late"},
}


def graph_of(given: Subject) -> ImageGraph:
    points = {task: point.temperature for task, point in given.points.items()}
    return ImageGraph(
        given.models, given.encoder, given.fingerprint, points, vertical_first=vertical_first()
    ).eval()


def answers(graph: ImageGraph, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        found = [graph(torch.from_numpy(one)[None]) for one in pictures]
    return dict(zip(graph.outputs, map(torch.cat, zip(*found, strict=True)), strict=True))  # type: ignore[arg-type]


def differs(given: Subject) -> float:
    pictures = phantoms(3)
    found, right = answers(graph_of(given), pictures), said(given, pictures)
    return max(float(np.abs(found[task].numpy() - right[task]).max()) for task in right)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_what_the_pipeline_says(name: str) -> None:
    """Of pictures of three sizes, the encoder's rounding apart."""
    options = {"head": name.partition(",")[0], **HEADS[name]}
    if "odd" in name or "whole" in name or name == "ordinal":
        options = HEADS[name]
    assert differs(subject(**options)) < 2e-5


@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_make_features_is_followed(name: str) -> None:
    """Views, several runs, storage, resizing and other encoders."""
    assert differs(subject(**WAYS[name])) < 2e-5


def test_values_are_rounded_as_they_are_stored() -> None:
    """A graph of a float16 store is not that of a float32 store."""
    halves = subject()
    whole = replace(halves, fingerprint=replace(halves.fingerprint, storage="float32"))
    pictures = phantoms(3)
    first, second = (answers(graph_of(one), pictures)["grade"] for one in (halves, whole))
    assert 1e-7 < float((first - second).abs().max()) < 1e-2


def test_the_second_outputs_are_under_the_temperature() -> None:
    """Each task has its own."""
    given = subject()
    found = answers(graph_of(given), phantoms(3))
    assert list(found) == ["grade", "side", "grade:scaled", "side:scaled"]
    for task, point in given.points.items():
        right = temperature_scaled(found[task].numpy(), point.temperature)
        np.testing.assert_allclose(found[f"{task}:scaled"].numpy(), right, atol=1e-6)


def test_pictures_in_a_batch_do_not_touch_each_other() -> None:
    """A batch says what each picture alone does."""
    graph, (one, *_) = graph_of(subject(views="flip")), phantoms(3)
    other = np.ascontiguousarray(one[::-1])
    together = answers(graph, [one, other])["grade"]
    with torch.no_grad():
        batch = graph(torch.from_numpy(np.stack([one, other])))[0]
    torch.testing.assert_close(batch, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [96, 256])
def test_sam_without_the_fast_path_gives_its_maps(size: int) -> None:
    """To 1e-5 of a map's spread, windows that overhang and other sizes than its own among them."""
    levels = ("patch", "block:0", "neck")
    encoder = load_encoder("vit_t", levels=levels, input_size=size)
    frames = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    valid = [(size, size), (size, size // 2 + 3)]
    with torch.no_grad():
        plain = encoder.plain()(encoder.normalise(frames, valid))
    for level, found in zip(levels, plain, strict=True):
        right = encoder(frames, valid)[level]
        assert float((found - right).abs().max()) < 1e-5 * float(right.std()), level


def test_heads_that_attend_one_after_another_say_the_same() -> None:
    """As where there is room for all of them at once."""
    block = load_encoder("vit_t", levels=("block:0",), input_size=96).body.blocks[0]
    tokens = torch.randn(2, 6, 6, 192)
    with torch.no_grad():
        whole, single = (PlainBlock(block, (6, 6), pairs)(tokens) for pairs in (1 << 24, 1))
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("view", VIEWS)
def test_pictures_are_turned_as_in_the_store(view: str) -> None:
    """By flips and swaps of axes alone."""
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = turned(torch.from_numpy(picture).permute(2, 0, 1)[None], view)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), transform(picture, view))


def test_heads_are_shown_the_pixels_that_the_store_shows() -> None:
    """Padded either way, black at the edge, under all views."""
    rng = np.random.default_rng(0)
    values = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    valid = torch.tensor([[64, 64], [64, 33], [29, 64], [1, 64]])
    for i, (height, width) in enumerate(((32, 32), (32, 17), (14, 32), (1, 32))):
        drawn = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        values[i, :height, :width] = torch.from_numpy(drawn)
    views = tuple(VIEWS)
    right = Pixels(values, extents_of(values, valid, 64), views)
    wanted = right.batch(torch.arange(4 * len(views)), torch.device("cpu"))
    found = shown_images(values.permute(0, 3, 1, 2).float(), valid, views, 64)
    torch.testing.assert_close(found.values, wanted.values, atol=0, rtol=0)
    assert torch.equal(found.shown, wanted.shown)


def test_what_cannot_be_exported_is_refused_by_name() -> None:
    """With the remedy, before anything is traced."""
    plain = subject(head="linear")
    made = plain.fingerprint
    model = plain.models[0]
    cases = {
        "no model": ([], made, "no model to export"),
        "bits": ([model], replace(made, keep_bits=5), "--keep-bits.*extract without"),
        "columns": (
            [replace(model, meta=(MetaColumn("age", None, 50.0),))],
            made,
            r"\(age\).*--with-meta",
        ),
        "tasks": ([model, replace(model, tasks={"a": ("x", "y")})], made, "export each alone"),
        "neighbours": (subject(head="knn").models, made, "head knn.*export a head that is trained"),
        "shuffled": (
            subject(
                head="guided:test_resnet", pixels=32, pretrained=False, control="shuffled"
            ).models,
            made,
            "control shuffled.*without that control",
        ),
    }
    for models, fingerprint, words in cases.values():
        with pytest.raises(ExportError, match=f"(?s){words}"):
            refuse_unexportable(models, fingerprint)


def test_an_encoder_of_16_bits_is_refused() -> None:
    """A graph is made of float32."""
    encoder = load_timm(
        "timm:test_resnet", input_size=64, random_weights=True, precision="bfloat16"
    )
    with pytest.raises(ExportError, match=r"computes in bfloat16.*precision float32"):
        encoder.plain()


def test_the_head_alone_takes_what_a_store_holds() -> None:
    """Its levels are those that the models read, in the store's order."""
    given = subject(levels="neck,early")
    shapes = level_shapes(given.encoder, given.fingerprint)
    assert HeadGraph(given.models, given.fingerprint, shapes, {}).levels == ("neck", "early")
