"""Every number of a report is what its source says: recomputed here from the run's files, by other means."""

import csv
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from samcls.learn.runs.compare import compare_runs
from samcls.learn.runs.folder import load_runs
from samcls.learn.score.curves import Curves
from samcls.learn.score.operating import fit_threshold
from samcls.report.blocks import Cell
from samcls.report.numbers import numbers_of
from samcls.report.report import _about, _section, _sections
from samcls.report.settings import ReportConfig
from samcls.store.feature_store import FeatureStore

BOUNDS = re.compile(
    r"interval|/p$|threshold_range|_(low|high)$"
)  # of chance: judged by where they lie


@dataclass(frozen=True)
class Files:
    """A run's files, read without the package where that can be."""

    folder: Path
    store: Path
    audit: dict

    @cached_property
    def fields(self) -> dict:
        return json.loads((self.folder / "evaluation.json").read_text()) if self.external else {}

    @property
    def external(self) -> bool:
        return (self.folder / "evaluation.json").exists()

    def rows(self, file: str, split: str, task: str, control: str | None = None) -> list[dict]:
        """Rows of one task that have a label: of several seeds the mean, of folds one behind another."""
        found: dict[tuple[str, str], list[dict]] = {}
        for path in sorted(self.root(file).glob(file)):
            with path.open(newline="") as lines:
                for row in csv.DictReader(lines):
                    if (
                        row["task"] == task
                        and split in (row["split"], "all")
                        and row.get("control") == control
                    ):
                        fold = path.parent.name.partition("-fold")[2]
                        found.setdefault((fold, row["id"]), []).append(row)
        merged = []
        order = ("train", "val", "test").index  # in which an evaluation's images are taken
        for rows in sorted(found.values(), key=lambda rows: order(rows[0]["split"])):
            names = [name for name in rows[0] if name.startswith("p_") and rows[0][name]]
            merged.append(
                rows[0]
                | {
                    name: float(np.float32(np.mean([float(row[name]) for row in rows])))
                    for name in names
                }
            )
        return merged

    def root(self, file: str) -> Path:
        """Where a source starts: of an evaluation, its run lies beside it."""
        return self.folder.parent if self.external and "/" in file else self.folder

    def answers(self, place: str, task: str) -> "Said":
        file, _, rest = place.partition(", ")
        control = rest if file.endswith("controls.csv") else None
        split = rest.removeprefix("split ") if control is None else "test"
        rows = self.rows(file, split, task, control)
        return Said(rows, self.classes(task))

    def classes(self, task: str) -> list[str]:
        if self.external:
            return list(self.fields["shares"][task])
        return list(load_runs(self.folder)[0].tasks[task])


@dataclass(frozen=True)
class Said:
    """What was said of the images of a task."""

    all: list[dict]
    classes: list[str]

    @property
    def rows(self) -> list[dict]:
        return [row for row in self.all if row["label"]]

    @property
    def y(self) -> np.ndarray:
        return np.array([self.classes.index(row["label"]) for row in self.rows])

    @property
    def p(self) -> np.ndarray:
        return np.array(
            [[row[f"p_{name}"] for name in self.classes] for row in self.rows], dtype=np.float64
        )


def scaled(p: np.ndarray, temperature: float) -> np.ndarray:
    raised = np.exp(np.log(np.clip(p, 1e-12, 1)) / temperature)
    return raised / raised.sum(1, keepdims=True)


def calibration(y: np.ndarray, p: np.ndarray, what: str) -> float:
    """Slope, intercept with slope 1, and ratio, by scikit-learn and a root."""
    kept = np.clip(p, 1e-6, 1 - 1e-6)
    logits = np.log(kept / (1 - kept))
    if what == "slope":
        return float(
            LogisticRegression(C=np.inf, max_iter=5000, tol=1e-10)
            .fit(logits[:, None], y)
            .coef_[0, 0]
        )
    if what == "intercept":
        return float(
            brentq(
                lambda a: float((1 / (1 + np.exp(-(logits + a)))).sum() - y.sum()),
                -20,
                20,
                xtol=1e-12,
            )
        )
    return float(y.sum() / p.sum())


def calibration_error(y: np.ndarray, p: np.ndarray) -> float:
    said = (p[:, 1] > 0.5).astype(int) if p.shape[1] == 2 else p.argmax(1)
    sure = p[np.arange(len(y)), said]
    bins = np.clip(np.ceil(sure * 15) - 1, 0, 14)
    return sum(abs(((said == y) - sure)[bins == b].sum()) for b in range(15)) / len(y)


def brier(y: np.ndarray, p: np.ndarray) -> float:
    if p.shape[1] == 2:
        return float(brier_score_loss(y, p[:, 1], pos_label=1))
    return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean())


class Recomputed:
    """The value that a source names.

    Args:
        files: Of the run.
        points: Temperature and threshold of each task.
    """

    def __init__(self, files: Files, points: dict) -> None:
        self.files, self.points = files, points

    def __call__(self, source: str) -> float | None:
        """Return the number; None where chance has a part in it."""
        place, _, what = source.partition("#")
        if what.startswith("/"):
            return self.pointed(place, what)
        name, *rest = what.split("/")
        found = getattr(self, f"of_{name}")(place, *self.parts(rest))
        return None if BOUNDS.search(what) and found is None else found

    def parts(self, rest: list[str]) -> list[str]:
        """Tasks may hold a slash."""
        text = "/".join(rest)
        for task in sorted(self.points, key=len, reverse=True):
            if text == task or text.startswith(f"{task}/"):
                more = text[len(task) + 1 :]
                return [task, *(more.split("/") if more else [])]
        return rest

    def pointed(self, file: str, pointer: str) -> float | None:
        found = (
            self.files.audit
            if file == "audit.json"
            else json.loads((self.files.root(file) / file).read_text())
        )
        for part in pointer.split("#", maxsplit=1)[0].strip("/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
        if pointer.endswith("#width"):
            return found[1] - found[0]
        return (
            found[0]
            if isinstance(found, list)
            else 100 * found
            if "beyond_95" in pointer
            else found
        )

    def of_difference(self, _place: str, task: str, control: str, what: str) -> float | None:
        folder = self.files.folder / (
            "winner/run" if (self.files.folder / "winner").exists() else ""
        )
        arms = []
        for path in sorted(folder.glob("seed-*")) or [folder]:
            both = []
            for file, name in (("predictions.csv", None), ("controls.csv", control)):
                said = Files(path, self.files.store, {}).rows(file, "test", task, name)
                both.append(Said(said, self.files.classes(task)))
            arms.append((path.name, both))
        by_seed: dict[str, list[list[Said]]] = {}
        for name, both in arms:
            by_seed.setdefault(name.split("-fold")[0], []).append(both)
        gaps = []
        for parts in by_seed.values():
            aucs = [
                self.auc(
                    Said([row for part in parts for row in part[side].all], parts[0][side].classes)
                )
                for side in (0, 1)
            ]
            gaps.append(aucs[0] - aucs[1])
        return abs(float(np.mean(gaps))) if what == "size" else None

    @staticmethod
    def auc(said: Said) -> float:
        if len(said.classes) == 2:
            return float(roc_auc_score(said.y, said.p[:, 1]))
        each = [
            roc_auc_score(said.y == c, said.p[:, c])
            for c in range(len(said.classes))
            if 0 < (said.y == c).sum() < len(said.y)
        ]
        return float(np.mean(each))

    def of_pooled(self, place: str, task: str, what: str) -> float | None:
        said = self.files.answers(place, task)
        values = {"auc": self.auc(said), "brier": brier(said.y, said.p)}
        values["average_precision"] = average_precision_score(said.y == 1, said.p[:, 1])
        return None if what.endswith("_interval") else values[what]

    def of_calibration(self, place: str, task: str, c: str, kind: str, what: str) -> float:
        said = self.files.answers(place, task)
        p = scaled(said.p, self.points[task].temperature) if kind == "scaled" else said.p
        if what.endswith("_interval"):
            groups = [row["group"] for row in said.rows]
            found = Curves(said.y == int(c), p[:, int(c)], groups).calibration().intervals
            return found[what.removesuffix("_interval")][0]
        return calibration((said.y == int(c)).astype(int), p[:, int(c)], what)

    def of_errors(self, place: str, task: str, kind: str, what: str) -> float:
        said = self.files.answers(place, task)
        y, p = said.y, said.p
        if kind == "at the temperature":
            p = scaled(p, self.points[task].temperature)
        elif kind != "as given":
            p = np.tile(np.bincount(y, minlength=p.shape[1]) / len(y), (len(y), 1))
        if what == "log_loss":
            return float(log_loss(y, p / p.sum(1, keepdims=True), labels=range(p.shape[1])))
        return brier(y, p) if what == "brier" else calibration_error(y, p)

    def of_net_benefit(self, place: str, task: str, threshold: str, what: str = "") -> float | None:
        said, t = self.files.answers(place, task), float(threshold)
        y, above, odds = said.y == 1, said.p[:, 1] > t, t / (1 - t)
        own = ((above & y).sum() - odds * (above & ~y).sum()) / len(y)
        everyone = (y.sum() - odds * (~y).sum()) / len(y)
        values = {
            "": own,
            "all": everyone,
            "beyond": own - max(everyone, 0.0),
            "avoided": 100 * (own - everyone) / odds,
        }
        return values.get(what)

    def table(self, place: str, task: str) -> tuple[int, int, int, int]:
        said = self.files.answers(place, task)
        above, y = said.p[:, 1].astype(np.float32) > self.points[task].threshold, said.y == 1
        return (
            int((above & y).sum()),
            int((above & ~y).sum()),
            int((~above & y).sum()),
            int((~above & ~y).sum()),
        )

    def of_rates(self, place: str, task: str, what: str) -> float | None:
        hit, alarm, missed, quiet = self.table(place, task)
        sensitivity, specificity = hit / (hit + missed), quiet / (quiet + alarm)
        values = {
            "hit": hit, "alarm": alarm, "missed": missed, "quiet": quiet, "sensitivity": sensitivity, "specificity": specificity,
            "precision": hit / max(1, hit + alarm), "negative_predictive_value": quiet / max(1, quiet + missed),
            "accuracy": (hit + quiet) / (hit + alarm + missed + quiet), "f1": 2 * hit / (2 * hit + alarm + missed),
            "lr_plus": sensitivity / max(1e-12, 1 - specificity), "lr_minus": (1 - sensitivity) / max(1e-12, specificity),
            "specificity_at": self.specificity_at(place, task),
        }  # fmt: skip
        return values.get(what)

    def specificity_at(self, place: str, task: str) -> float:
        """Best specificity of all thresholds that miss at most 5 of 100."""
        said = self.files.answers(place, task)
        y, p = said.y == 1, said.p[:, 1]
        fits = [(p[~y] < cut).mean() for cut in np.unique(p) if (p[y] >= cut).mean() >= 0.95 - 1e-9]
        return float(max(fits))

    def of_prevalence(self, place: str, task: str, share: str, what: str) -> float:
        hit, alarm, missed, quiet = self.table(place, task)
        a, b = hit / (hit + missed), quiet / (quiet + alarm)
        s = next(
            (x for x in (0.01, 0.05, 0.1, 0.2, 0.5) if f"{x:g}" == share),
            (hit + missed) / (hit + alarm + missed + quiet),
        )
        return (
            a * s / (a * s + (1 - b) * (1 - s))
            if what == "positive"
            else b * (1 - s) / (b * (1 - s) + (1 - a) * s)
        )

    def of_threshold(self, place: str, task: str) -> float:
        val = self.files.answers(
            re.sub("split .*", "split val", place) if not self.files.external else place, task
        )
        if self.files.external:
            return self.points[task].threshold
        return fit_threshold(val.y, val.p.astype(np.float32))

    def of_threshold_range(self, *_: str) -> None:
        return None

    def of_class(self, place: str, task: str, c: str, what: str) -> float:
        said = self.files.answers(place, task)
        y, answered = said.y == int(c), said.p.argmax(1) == int(c)
        values = {
            "images": y.sum(), "auc": roc_auc_score(y, said.p[:, int(c)]), "sensitivity": answered[y].mean(),
            "specificity": (~answered[~y]).mean(), "precision": y[answered].mean() if answered.any() else None,
        }  # fmt: skip
        return values[what]

    def of_order(self, place: str, task: str, what: str, step: str = "") -> float:
        said = self.files.answers(place, task)
        away = np.abs(said.p.argmax(1) - said.y)
        return away.mean() if what == "distance" else (away == int(step)).sum()

    def of_subgroup(self, place: str, task: str, column: str, part: str, what: str) -> float | None:
        said = self.files.answers(place, task)
        store = FeatureStore.open(self.files.store)
        texts = dict(zip(store.ids, store.meta[column], strict=True))
        inside = np.array(
            [
                belongs(texts[row["id"]], part, [texts[r["id"]] for r in said.rows])
                for row in said.rows
            ]
        )
        y, p = said.y, said.p[:, 1]
        above = p.astype(np.float32) > self.points[task].threshold
        values = {
            "images": inside.sum, "events": (y[inside] == 1).sum,
            "auc": lambda: roc_auc_score(y[inside], p[inside]), "rest": lambda: roc_auc_score(y[~inside], p[~inside]),
            "gap": lambda: roc_auc_score(y[inside], p[inside]) - roc_auc_score(y[~inside], p[~inside]),
            "sensitivity": above[inside & (y == 1)].mean, "specificity": (~above[inside & (y == 0)]).mean,
        }  # fmt: skip
        return float(values[what]()) if what in values else None

    def wrong(self, place: str, task: str) -> tuple[np.ndarray, np.ndarray, Said]:
        said = self.files.answers(place, task)
        point = self.points[task]
        answer = (
            said.p.argmax(1)
            if point.threshold is None
            else (said.p[:, 1].astype(np.float32) > point.threshold).astype(int)
        )
        return answer != said.y, said.p[np.arange(len(said.y)), said.y], said

    def of_wrong(self, place: str, task: str, what: str) -> float:
        wrong, chance, _ = self.wrong(place, task)
        return {"images": len(wrong), "wrong": wrong.sum(), "sure": (wrong & (chance < 0.1)).sum()}[
            what
        ]

    def of_row(self, place: str, task: str, row: str, what: str) -> float:
        said = self.files.answers(place, task)
        one = said.all[int(row)]
        chance = one[f"p_{one['label']}"]
        return chance if what == "label" else -np.log(max(chance, 1e-12))

    def of_split(self, place: str, task: str, what: str) -> float:
        said = self.files.answers(place, task)
        values = {
            "images": lambda: len(said.y),
            "auc": lambda: self.auc(said),
            "brier": lambda: brier(said.y, said.p),
        }
        values["log_loss"] = lambda: log_loss(
            said.y, said.p / said.p.sum(1, keepdims=True), labels=range(said.p.shape[1])
        )
        return float(values[what]())

    def of_count(self, place: str, task: str, name: str | None = None) -> float:
        said = self.files.answers(place, task)
        return len(said.rows) if name is None else sum(row["label"] == name for row in said.rows)

    def of_groups(self, place: str) -> float:
        file, _, split = place.partition(", split ")
        with (self.files.root(file) / file).open(newline="") as lines:
            return len(
                {row["group"] for row in csv.DictReader(lines) if row["split"] == split} - {""}
            )

    def of_images(self, place: str, _what: str) -> float:
        images = json.loads((self.files.root(place) / place).read_text())["images"]
        return sum(images[split] for split in ("train", "val", "test"))

    def of_missing(self, place: str, task: str, split: str) -> float:
        found = json.loads((self.files.root(place) / place).read_text())
        return found["images"][split] - found["labelled"][task][split]

    def of_sum(self, place: str, *keys: str) -> float:
        if keys == ("rows", "seconds"):
            return sum(
                row["seconds"]
                for row in json.loads((self.files.root(place) / place).read_text())["rows"]
            )
        total = 0.0
        for path in self.files.root(place).glob(place):
            found = json.loads(path.read_text())
            for key in keys:
                found = found[key]
            total += found
        return total

    def of_rate(self, place: str) -> float:
        found = [json.loads(path.read_text()) for path in self.files.root(place).glob(place)]
        return sum(one["images"]["train"] * one["epochs"] for one in found) / sum(
            one["seconds_by_stage"]["train"] for one in found
        )

    def of_bytes(self, _place: str) -> float:
        return FeatureStore.open(self.files.store).stored_bytes / 1e9

    def of_bytes_an_image(self, _place: str) -> float:
        return (
            FeatureStore.open(self.files.store).stored_bytes
            / 1e3
            / len(FeatureStore.open(self.files.store).ids)
        )

    def of_twins(self, place: str) -> float:
        leaks = json.loads((self.files.root(place) / place).read_text())["leaks"]
        return leaks["equal"]["count"] + leaks["contradictory"]["count"]

    def of_problems(self, _place: str) -> float:
        return len(self.files.audit["problems"])

    def of_across(self, _place: str, code: str) -> float:
        return sum(
            one["kind"] == code and one["across_splits"] for one in self.files.audit["problems"]
        )

    def of_auc_interval(self, *_: str) -> None:
        return None


def belongs(text: str, part: str, texts: list[str]) -> bool:
    """Whether an image is of a part: a text, or a quarter of a column of numbers."""
    if " to " in part:
        low, high = map(float, part.split(" to "))
        numbers = sorted(float(one) for one in texts if one)
        edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75)))
        shown = [f"{one:g}" for one in (numbers[0], *edges, numbers[-1])]
        place = (
            min(int(np.searchsorted(edges, float(text), side="left")), len(edges)) if text else -1
        )
        return (
            bool(text)
            and (shown[place], shown[place + 1]) == tuple(part.split(" to "))
            and low <= high
        )
    return (text or "missing") == part


@pytest.mark.parametrize(
    "kind", ["run", "tasks", "ordinal", "seeds", "folds", "sweep", "evaluation"]
)
def test_every_number_is_what_its_source_says(made, kind: str) -> None:
    """Read from the file that the source names, or computed anew from its rows; of chance, it lies where it must."""
    store = made.stores[
        {"tasks": "tasks", "ordinal": "ordinal", "evaluation": "elsewhere"}.get(kind, "run")
    ]
    about = _about(made[kind], store, None, None, ReportConfig(), lambda _: None)
    sections = [_section(about, name, title, one) for name, (title, one) in _sections(about)]
    recomputed = Recomputed(
        Files(made[kind], store, dict(about.subject.audit)), about.subject.points
    )
    numbers = list(numbers_of(sections))
    assert len(numbers) > 150
    chance = 0
    for section, table, row, column, cell in numbers:
        expected = recomputed(cell.source)
        where = f"{section}, {table}, {row}, {column}: {cell.source}"
        if expected is None:
            chance += 1
            assert isinstance(cell.value, float), where
        else:
            assert cell.value == pytest.approx(float(expected), rel=2e-4, abs=2e-6), where
    assert chance < 0.35 * len(numbers)


@pytest.mark.parametrize("kind", ["run", "tasks", "ordinal"])
def test_differences_to_controls_are_those_of_compare(made, kind: str) -> None:
    """The claim's difference, interval and p are what `samcls compare` says of the two."""
    about = _about(made[kind], None, None, None, ReportConfig(), lambda _: None)
    run = about.subject.runs[0]
    for task, claim in about.results.claims.items():
        control = about.subject.controls[claim.control]
        other = type(run)(
            **{**vars_of(run), "tables": {**run.tables, "predictions.csv": as_csv(run, control)}}
        )
        found = compare_runs(run, other)["tasks"][task]["auc"]
        assert found["difference"] == pytest.approx(claim.difference, abs=1e-12)
        assert found["difference_interval"] == pytest.approx(list(claim.interval), abs=1e-12)
        assert found["p"] == claim.p


def vars_of(run) -> dict:
    return {name: getattr(run, name) for name in run.__dataclass_fields__}


def as_csv(run, said) -> bytes:
    from samcls.learn.runs.predictions import predictions_csv

    return predictions_csv(said, ["test"] * len(said.ids), run.tasks)


def test_a_number_shows_what_it_is() -> None:
    """The text is the value, rounded; the source goes with it."""
    from samcls.report.blocks import figure, interval

    assert figure(0.93149, "metrics.json#/test/auc") == Cell(
        "0.931", 0.93149, "metrics.json#/test/auc"
    )
    assert figure(-0.0123, "x", 2, sign=True).text == "\N{MINUS SIGN}0.01"
    assert figure(None, "x").text == figure(float("nan"), "x").text == "\N{EN DASH}"
    assert interval([0.1, 0.25], "x", 2).text == "0.10 to 0.25"
    assert interval(None, "x").value is None
