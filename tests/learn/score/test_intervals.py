"""Intervals: a group's images left out together, Wilson's form, and none where few carry a figure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from samcls.learn.runs.repeats import train_repeats
from samcls.learn.runs.train import train
from samcls.learn.score.delong import delong
from samcls.learn.score.intervals import FEWEST, interval_notes, left_out, unit_numbers
from samcls.learn.score.metrics import FIGURES
from samcls.learn.score.scoring import mean_intervals, score
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]
LOOK = ("auc", "accuracy", "balanced_accuracy", "kappa", "brier", "average_precision", "f1")


def table(labels: np.ndarray, p: np.ndarray, **options: Any) -> dict[str, Any]:
    """The table of one task with classes named by letters."""
    classes = tuple("abcdefgh"[: p.shape[1]])
    return score(labels[:, None], {"task": p}, {"task": classes}, {"task": 0}, **options)


def case(
    seed: int, images: int, classes: int = 2, strength: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Labels that all classes share evenly, and probabilities that lean towards them."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(images) % classes)
    raised = np.exp(generator.normal(size=(images, classes)) + strength * np.eye(classes)[labels])
    return labels, raised / raised.sum(1, keepdims=True)


def whole(images: int, groups: int) -> str:
    """The note of images that come in groups."""
    said = f"95 % intervals: {images} labelled test images of {groups} groups"
    return f"{said}, each group (patient) taken as a whole"


def alone(images: int) -> str:
    """The note of images without groups."""
    said = f"95 % intervals: {images} labelled test images"
    return f"{said}, each taken on its own: the store names no groups (patients)"


@pytest.mark.parametrize("classes", [2, 4])
def test_an_interval_is_that_of_a_loop_that_leaves_each_group_out(classes: int) -> None:
    """Jackknife error, Satterthwaite's degrees of freedom and Wilson's form, written out."""
    labels, p = case(3, 60, classes)
    groups = [f"patient {i % 31}" for i in range(60)]
    got = table(labels, p, groups=groups)
    rows = [np.array([g != name for g in groups]) for name in sorted(set(groups))]
    loops = [table(labels[row], p[row], parts=0) for row in rows]
    for name in LOOK:
        low, high = {"kappa": (-1, 1), "brier": (0, 1 if classes == 2 else 2)}.get(name, (0, 1))
        share = (got[name] - low) / (high - low)
        values = np.array([one[name] for one in loops]) / (high - low)
        squares = (values - values.mean()) ** 2 * 30 / 31
        variance = squares.sum()
        freedom = min(2 * variance**2 / ((squares**2).sum() - variance**2 / 31), 30)
        n, t2 = share * (1 - share) / variance, student.ppf(0.975, freedom) ** 2
        # The roots of (share - x)^2 = t^2 x (1 - x) / n.
        ends = np.roots([1 + t2 / n, -2 * share - t2 / n, share**2])
        expected = low + (high - low) * np.sort(ends)
        np.testing.assert_allclose(got[f"{name}_interval"], expected, rtol=1e-9)


def test_of_many_images_accuracy_has_wilsons_interval() -> None:
    """Images on their own are a binomial's draws, and the interval is the one of textbooks."""
    labels, p = case(0, 2000, strength=1.0)
    got = table(labels, p)
    right = int(((p[:, 1] > 0.5) == labels).sum())
    wilson = binomtest(right, 2000).proportion_ci(method="wilson")
    np.testing.assert_allclose(got["accuracy_interval"], [wilson.low, wilson.high], atol=2e-4)


def test_of_many_images_the_error_of_an_auc_is_delongs() -> None:
    """The interval's half width is that of DeLong, DeLong and Clarke-Pearson (1988)."""
    labels, p = case(1, 900, strength=0.7)
    low, high = table(labels, p)["auc_interval"]
    error = delong(labels == 1, p[:, 1], np.zeros(900))["standard_error"]
    assert high - low == pytest.approx(2 * norm.ppf(0.975) * error, rel=0.01)


@pytest.mark.parametrize("classes", [2, 3])
def test_copies_of_an_image_in_its_group_change_no_interval(classes: int) -> None:
    """Five pictures that say the same of each patient are worth one, and singly they are not."""
    labels, p = case(2, 50, classes)
    once = table(labels, p, groups=[f"patient {i}" for i in range(50)])
    repeated = np.repeat(labels, 5), np.repeat(p, 5, axis=0)
    copies = table(*repeated, groups=[f"patient {i // 5}" for i in range(250)])
    alone = table(*repeated)
    for name in LOOK:
        np.testing.assert_allclose(copies[f"{name}_interval"], once[f"{name}_interval"], atol=1e-12)
        width = np.ptp(alone[f"{name}_interval"]) / np.ptp(once[f"{name}_interval"])
        assert width == pytest.approx(1 / np.sqrt(5), rel=0.2)


def test_names_and_order_of_groups_change_nothing() -> None:
    """Images shuffled and patients renamed have the same intervals; images without one stand alone."""
    labels, p = case(4, 40)
    groups = ["" if i % 4 == 0 else str(i // 3) for i in range(40)]
    order = np.random.default_rng(0).permutation(40)
    got, again = (
        table(labels, p, groups=groups),
        table(labels[order], p[order], groups=[groups[i] and f"x{groups[i]}" for i in order]),
    )
    assert got["units"] == again["units"]
    assert got["units"]["groups"] == len(set(groups) - {""}) + 10
    for name in LOOK:
        np.testing.assert_allclose(got[f"{name}_interval"], again[f"{name}_interval"], atol=1e-12)


def test_a_group_is_never_mistaken_for_an_image() -> None:
    """A patient named as an image's number is another unit than that image."""
    assert unit_numbers(["1", "", "1", ""]).tolist() == [0, 1, 0, 2]
    assert unit_numbers([]).tolist() == []


def test_groups_without_a_label_are_no_part_of_a_task() -> None:
    """A task's intervals are those of its labelled images alone."""
    labels, p = case(5, 60)
    groups = [str(i // 2) for i in range(60)]
    missing = np.arange(60) < 24
    got = table(np.where(missing, -1, labels), p, groups=groups)
    assert got == table(labels[~missing], p[~missing], groups=groups[24:])


def test_a_perfect_auc_is_not_certain() -> None:
    """Its lower end is Wilson's for as many successes as the rarer class has groups."""
    labels = np.arange(60) % 6 == 0
    p = np.stack([~labels, labels], axis=1).astype(float)
    got = table(labels.astype(int), p)
    t2 = student.ppf(0.975, 59) ** 2
    assert got["auc_interval"] == pytest.approx([10 / (10 + t2), 1.0])
    assert got["brier_interval"] == pytest.approx([0.0, t2 / (10 + t2)])


def test_scores_that_are_all_alike_have_their_auc_for_certain() -> None:
    """An answer that no image changes has an AUC of one half whatever the images."""
    labels, _ = case(6, 40)
    assert table(labels, np.full((40, 2), 0.5))["auc_interval"] == [0.5, 0.5]


@pytest.mark.parametrize(("positives", "shown"), [(FEWEST - 1, False), (FEWEST, True)])
def test_no_interval_rests_on_too_few_groups(positives: int, shown: bool) -> None:
    """Five positive patients are too few whatever their images; specificity needs none of them."""
    y = np.repeat(np.arange(40) < positives, 3).astype(int)
    generator = np.random.default_rng(0)
    positive = 1 / (1 + np.exp(-(y + generator.normal(size=120))))
    groups = [f"patient {i // 3}" for i in range(120)]
    got = table(y, np.stack([1 - positive, positive], axis=1), groups=groups)
    for name in ("auc", "accuracy", "brier", "kappa", "sensitivity"):
        assert got[name] is not None
        assert (got[f"{name}_interval"] is not None) == shown
    assert got["specificity_interval"] is not None
    assert got["units"]["classes"] == {"a": 40 - positives, "b": positives}
    said = "no interval (-) where it rests on 5 groups with b: fewer than 6"
    assert (said in interval_notes(got)) != shown


def test_a_rare_third_class_takes_the_mean_over_classes_its_interval_and_not_the_accuracy() -> None:
    """Four images of one class in 200 leave an average over all images as sure as it was."""
    labels, p = case(7, 200, 3)
    labels[np.flatnonzero(labels == 2)[4:]] = 0
    got = table(labels, p)
    assert (got["auc_interval"], got["f1_interval"]) == (None, None)
    assert got["accuracy_interval"] is not None


def test_images_of_one_class_have_an_interval_of_their_sensitivity_alone() -> None:
    """What the other class would have added to accuracy and Brier score nobody has seen."""
    _, p = case(13, 40)
    got = table(np.ones(40, dtype=np.int64), p)
    shown = {name for name in FIGURES if got[f"{name}_interval"] is not None}
    assert shown == {"sensitivity"}
    assert interval_notes(got)[1:] == (
        "no interval (-): the labels of the test images are of one class",
    )


def test_the_calibration_error_has_no_interval() -> None:
    """Noise only adds to it: an interval around it would not hold the truth."""
    labels, p = case(8, 300)
    assert table(labels, p)["ece_interval"] is None


def test_the_mean_over_tasks_is_as_sure_as_its_least_sure_task() -> None:
    """A task with too few groups has no interval, nor has the mean; the other task keeps its own."""
    (first, p), (second, q) = case(9, 60), case(10, 60)
    second[np.flatnonzero(second == 1)[3:]] = 0
    tasks = dict.fromkeys(("sure", "unsure"), ("a", "b"))
    both = np.stack([first, second], axis=1)
    got = score(both, {"sure": p, "unsure": q}, tasks, dict.fromkeys(tasks, 0))
    assert got["auc"] is not None
    assert got["auc_interval"] is None
    assert got["tasks"]["unsure"]["auc_interval"] is None
    assert got["tasks"]["sure"]["auc_interval"] is not None
    assert interval_notes(got) == (
        alone(60),
        "unsure: no interval (-) where it rests on 3 images with b: fewer than 6",
    )


def test_the_mean_of_models_is_taken_before_the_error() -> None:
    """One model's interval is its own, equal models' too, and models that err apart are surer."""
    generator = np.random.default_rng(4)
    tasks = {"a": ("no", "yes"), "b": ("0", "1", "2")}
    labels = np.stack([generator.integers(-1, 2, 90), generator.integers(0, 3, 90)], axis=1)
    answers = [{t: generator.dirichlet(np.ones(len(c)), 90) for t, c in tasks.items()}
               for _ in range(3)]  # fmt: skip
    groups = [str(i // 2) for i in range(90)]
    alone = mean_intervals(labels, answers[:1], tasks, groups=groups)
    own = score(labels, answers[0], tasks, {"a": 0, "b": 0}, groups=groups)
    assert alone["auc_interval"] == own["auc_interval"]
    assert alone["tasks"]["b"] == {
        k: v for k, v in own["tasks"]["b"].items() if k.endswith("_interval") or k == "units"
    }
    assert mean_intervals(labels, [answers[0]] * 2, tasks, groups=groups) == alone
    mean = mean_intervals(labels, answers, tasks, groups=groups)
    assert np.ptp(mean["tasks"]["a"]["auc_interval"]) < 0.8 * np.ptp(
        alone["tasks"]["a"]["auc_interval"]
    )


def test_more_groups_than_parts_are_left_out_several_at_a_time() -> None:
    """Parts put together at random give about the same interval, and too few parts give none."""
    labels, p = case(11, 600)
    groups = [str(i // 2) for i in range(600)]
    rows = np.concatenate(list(left_out(unit_numbers(groups), 60)))
    assert rows.shape == (61, 600)
    assert np.array_equal((rows[1:] == 0).sum(0), np.ones(600))
    assert np.array_equal(rows[:, ::2], rows[:, 1::2])
    whole, some = (table(labels, p, groups=groups, parts=parts) for parts in (1000, 60))
    assert np.ptp(some["auc_interval"]) == pytest.approx(np.ptp(whole["auc_interval"]), rel=0.3)
    assert table(labels, p, groups=groups, parts=FEWEST - 1)["auc_interval"] is None


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are held at once, they are the same."""
    units = unit_numbers([str(i // 3) for i in range(40)])
    whole = np.concatenate(list(left_out(units, 10)))
    monkeypatch.setattr("samcls.learn.score.intervals.BLOCK_VALUES", 100)
    blocks = list(left_out(units, 10))
    assert len(blocks) == 6
    assert np.array_equal(np.concatenate(blocks), whole)


def test_figures_of_every_name_have_a_place_for_their_interval() -> None:
    """Whoever reads a table finds the key, whether there is an interval or none."""
    labels, p = case(12, 30)
    assert {f"{name}_interval" for name in FIGURES} <= set(table(labels, p))
    assert "units" not in table(labels, p, parts=0)


def of_intervals(notes: Sequence[str]) -> list[str]:
    """The notes that speak of intervals."""
    return [note for note in notes if "interval" in note]


def test_a_run_says_what_its_intervals_take_as_a_whole(make_store: MakeStore) -> None:
    """Groups of the store reach the head's and the baselines' intervals, and the note counts them."""
    labels = (np.arange(200) // 10 % 2)[:, None]
    groups = [f"patient-{i // 10}" for i in range(200)]
    splits = [("train", "val", "test")[min(i // 10 % 3, 2)] for i in range(200)]
    options: dict[str, Any] = {"labels": labels, "splits": splits, "strength": 1.0}
    grouped = make_store(200, name="grouped.zarr", groups=groups, **options)
    single = make_store(200, name="single.zarr", groups=[""] * 200, **options)
    config = TrainConfig(epochs=2, reduction=2, head="logistic")
    of_groups, of_images = (train(store, config) for store in (grouped, single))
    images = of_images.images["test"]
    few = "3 groups with benign or 3 groups with malignant"
    assert of_intervals(of_groups.notes) == [
        whole(images, images // 10),
        f"no interval (-) where it rests on {few}: fewer than 6",
    ]
    assert of_intervals(of_images.notes) == [alone(images)]
    assert of_images.test["auc_interval"] is not None
    for tables in (of_groups.to_dict(), *of_groups.baselines.values()):
        assert tables["test"]["auc_interval"] is None
    assert of_groups.labelled == {"malignancy": {k: of_groups.images[k] for k in splits[0:21:10]}}


def test_seeds_and_folds_take_groups_as_a_whole(make_store: MakeStore, tmp_path: Path) -> None:
    """The interval of a mean over seeds and of pooled folds rest on patients, and the notes say so."""
    labels = (np.arange(240) // 3 % 2)[:, None]
    groups = [f"patient-{i // 3}" for i in range(240)]
    splits = [("train", "test", "test", "val")[i // 6 % 4] for i in range(240)]
    store = make_store(240, labels=labels, groups=groups, splits=splits, strength=0.5)
    config = TrainConfig(epochs=2, reduction=2, head="linear")
    seeds = train_repeats(store, config, tmp_path / "seeds", seeds=2)
    assert seeds["test"]["units"]["groups"] == 40
    assert of_intervals(seeds["notes"]) == [whole(120, 40)]
    folds = train_repeats(store, config, tmp_path / "folds", folds=3)
    (pooled,) = folds["pooled"]
    assert (pooled["images"], pooled["units"]["groups"]) == (240, 80)
    assert of_intervals(folds["notes"]) == [whole(240, 80)]
