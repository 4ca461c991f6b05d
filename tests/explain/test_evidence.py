"""Evidence of runs: it sums to their logits, of every head, view and padding, and lies where the picture does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.deployed import TINY, Deployed, deployed

import samcls
from samcls.data.images import make_frame
from samcls.deploy.encoded import features_of
from samcls.deploy.predictor import load_predictor
from samcls.errors import InputError
from samcls.explain.evidence import evidence_of, places_of
from samcls.explain.gates import gate_evidence
from samcls.explain.overlay import overlay
from samcls.explain.subject import of_store
from samcls.learn.features.tensors import ChannelScaler
from samcls.learn.fit.prediction import Model
from samcls.learn.heads.base import Shape
from samcls.learn.heads.registry import build_head
from samcls.learn.settings import TrainConfig
from samcls.pooling import pool_valid, valid_cells
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.schema import DONE, Fingerprint, LevelShape, cells_under
from samcls.views import VIEWS, transform

HEADS = (
    "slca",
    "se",
    "attention-pool",
    "linear",
    "logistic",
    "logistic-statistics",
    "logistic-windows",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Padded pictures of two classes and their features."""
    return deployed(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("head", [*HEADS, "ensemble:slca", "mlp", "guided:test_resnet"])
def test_evidence_sums_to_what_the_run_says(made: Deployed, head: str) -> None:
    """To 1e-5 where it is exact; its probabilities are those that the run kept."""
    options = {"pretrained": False} if head.startswith("guided") else {}
    run = made.run(head.replace(":", "-"), head=head, **options)
    predictor = load_predictor(run)
    found = of_store(predictor, FeatureStore.open(made.store)).evidence
    assert found.error < (0.05 if head == "mlp" else 1e-5)
    kept = predictor.runs[0].predictions("test")
    order = [kept.ids.index(name) for name in found.ids]
    np.testing.assert_allclose(
        found.probabilities["grade"], kept.probabilities["grade"][order], atol=1e-6
    )
    contrast = found.contrast("grade")
    total = sum(values.sum((1, 2)) for values in contrast.maps.values())
    np.testing.assert_allclose(
        total + contrast.bias, contrast.logit, atol=0.05 if head == "mlp" else 1e-5
    )
    np.testing.assert_allclose(
        found.summed(contrast).sum((1, 2)) + contrast.bias,
        contrast.logit,
        atol=0.05 if head == "mlp" else 1e-5,
    )
    back = found.contrast("grade", "benign", "malignant")
    np.testing.assert_allclose(
        back.logit, -contrast.logit if contrast.classes[0] else contrast.logit, atol=1e-9
    )


def test_several_seeds_are_averaged_and_views_turned_back(made: Deployed, tmp_path: Path) -> None:
    """A mirrored picture has mirrored evidence where every view is seen."""
    whole = tmp_path / "d4.zarr"
    few = (made.root / "manifest.csv").read_text().splitlines()[:25]  # of every split and class
    (tmp_path / "few.csv").write_text("\n".join(few) + "\n")
    samcls.extract(tmp_path / "few.csv", whole, root=made.root, views="d4", **TINY)
    samcls.train(whole, tmp_path / "d4", head="slca", seeds=2, epochs=2, intervals=0)
    predictor = load_predictor(tmp_path / "d4")
    assert len(predictor.models) == 2
    found = of_store(predictor, FeatureStore.open(whole)).evidence
    assert found.method == "mean of members"
    assert found.error < 1e-5
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)]
    pictures += [transform(pictures[0], view) for view in VIEWS]
    maps = []
    run = samcls.load_run(tmp_path / "d4" / "seed-0")
    for picture in pictures:
        one = run.explain(picture)
        maps.append(one.contrast.maps["early"][0])
    for view, turned in zip(VIEWS, maps[1:], strict=True):
        turns, mirrored = VIEWS[view]
        expected = np.rot90(maps[0][:, ::-1] if mirrored else maps[0], turns)
        np.testing.assert_allclose(turned, expected, atol=1e-5)


def _brightness(views: tuple[str, ...]) -> tuple[Model, Fingerprint, dict[str, LevelShape]]:
    """A model whose logit is the mean brightness, by way of a linear head on one channel."""
    shape = Shape({"light": 1}, {"task": 2}, {"light": (16, 16)}, window=2)
    config = TrainConfig(head="linear")
    head = build_head(config, shape, torch.Generator())
    for name, value in head.state_dict().items():
        value.copy_(torch.tensor([[0.0], [1.0]]) if name.endswith("weight") else torch.zeros(2))
    scaler = ChannelScaler({"light": torch.zeros(1)}, {"light": torch.ones(1)})
    model = Model(config, shape, {"task": ("dark", "light")}, scaler, head)
    made = Fingerprint(
        "vit_t",
        "0" * 64,
        128,
        "longest",
        (0.0,) * 3,
        (1.0,) * 3,
        ("light",),
        2,
        views,
        "float32",
        "float32",
        1,
    )
    return model, made, {"light": LevelShape(1, 16, 16, 4)}


@pytest.mark.parametrize("views", [("identity",), tuple(VIEWS)])
def test_a_bright_square_is_where_the_overlay_is_strongest(views: tuple[str, ...]) -> None:
    """Within half a window, in the picture's own pixels, of 50 pictures of odd sizes; of turned views within a cell more."""
    model, made, shapes = _brightness(views)
    rng = np.random.default_rng(3)
    sizes = [(400, 50), (50, 400), (128, 128), (127, 33), (13, 100)]
    sizes += [tuple(rng.integers(20, 700, 2).tolist()) for _ in range(45)]
    for height, width in sizes:
        window = max(height, width) / 16
        side = max(2, round(window))
        top, left = (int(rng.integers(max(1, n - side))) for n in (height, width))
        picture = np.full((height, width, 3), 40, np.uint8)
        picture[top : top + side, left : left + side] = 250
        maps = []
        for view in views:
            frame = make_frame(transform(picture, view), 128)
            light = torch.from_numpy(frame.pixels[:, :, :1].copy()).permute(2, 0, 1)[None].float()
            cells = valid_cells([frame.valid], (32, 32), 4)
            coarse = torch.nn.functional.avg_pool2d(light, 4)
            maps.append(pool_valid(coarse, cells, 2).numpy())
        valid = np.array([make_frame(picture, 128).valid])
        batch = RowBatch(
            np.array([0]),
            {"light": np.stack(maps, 1)},
            valid.astype(np.uint16),
            np.zeros((1, 32), np.uint8),
            np.array([DONE], np.uint8),
            [""],
        )
        features = features_of(model, made, batch, np.array([0]), {}, shapes)
        places = places_of(model, made, shapes)
        found = evidence_of([model], features, valid / 128, places)
        values = found.summed(found.contrast("task"))[0]
        counts = cells_under(valid, shapes["light"], 2, "identity")[0]
        density = np.where(counts > 0, values / np.maximum(counts, 1), 0)
        drawn = overlay(picture, density, found.side(), valid[0] / 128, float(density.max()))
        strength = drawn[:, :, 0].astype(int) - drawn[:, :, 2]
        rows, cols = np.nonzero(strength == strength.max())
        away = max(abs(rows.mean() - (top + side / 2)), abs(cols.mean() - (left + side / 2)))
        assert away <= window * (0.5 if len(views) == 1 else 0.75) + 2, (
            height,
            width,
            top,
            left,
            away,
            window,
        )


def test_gates_are_shown_by_level(made: Deployed) -> None:
    """Of SLCA in windows, of a network in its stages; a head without gates is refused."""
    store = FeatureStore.open(made.store)
    for head, options in (("slca", {}), ("guided:test_resnet", {"pretrained": False})):
        run = made.run(head.replace(":", "-"), head=head, **options)
        found = gate_evidence(of_store(load_predictor(run), store))
        for values in found.maps.values():
            assert values.min() >= 0
            assert 0 < values.max() < 1
    linear = made.run("linear", head="linear")
    with pytest.raises(InputError, match="no gates"):
        gate_evidence(of_store(load_predictor(linear), store))


def test_what_cannot_be_explained_is_refused(made: Deployed) -> None:
    """Neighbours, unknown ids, tasks and classes: each with what there is."""
    store = FeatureStore.open(made.store)
    with pytest.raises(InputError, match="votes of the nearest"):
        _ = of_store(load_predictor(made.run("knn", head="knn")), store).evidence
    predictor = load_predictor(made.run("linear", head="linear"))
    with pytest.raises(InputError, match=r"not in .*\(nope\)"):
        of_store(predictor, store, ids=["nope"])
    with pytest.raises(InputError, match=r"no features \(image-00\)"):
        of_store(predictor, store, ids=["image-00"])
    found = of_store(predictor, store, ids=["image-03"]).evidence
    with pytest.raises(InputError, match="no class big; it has"):
        found.contrast("grade", "big")
    with pytest.raises(InputError, match="unknown task size"):
        found.contrast("size")
    with pytest.raises(InputError, match="name two classes"):
        found.contrast("grade", "benign", "benign")
