"""Evidence: which windows of a picture a run's logits come from.

Of several runs (seeds, folds) it is the mean of theirs, of several views the mean after turning back. It sums, with the
bias, to the mean logit; the probability is that of the averaged probabilities, as `samcls predict` gives it.

    found = evidence_of(runs, features, extents, places)
    contrast = found.contrast("melanoma")          # for the positive class, against the other
    contrast.maps["neck"], contrast.bias           # "image row col", in logits; they sum to contrast.logit
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from samcls.errors import InputError
from samcls.explain.geometry import Extents, Place, common_side, on_grid, turned_back
from samcls.learn.features.batches import batch_size, select_rows
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import Model, predict_logits, to_probabilities
from samcls.learn.heads.base import NetworkHead
from samcls.learn.heads.contributions import Contributions, mean_of
from samcls.learn.runs.operating import mean_probabilities
from samcls.store.schema import Fingerprint, LevelShape

__all__ = ["Contrast", "Evidence", "evidence_of", "joined", "places_of"]

AT_ONCE = 128  # images under all their views
REST = "all others"


@dataclass(frozen=True, eq=False)
class Contrast:
    """Evidence for a class against another, or against the mean of all others.

    Attributes:
        maps: Of each level, what each window adds, in logits.
        bias: What no window adds.
        logit: What they sum to: how far the class is ahead.
        classes: Which class, of each image.
        against: The other's name, or `all others`.
    """

    maps: Mapping[str, Float[np.ndarray, "image _row _col"]]
    bias: Float[np.ndarray, " image"]
    logit: Float[np.ndarray, " image"]
    classes: Int[np.ndarray, " image"]
    against: str


@dataclass(frozen=True, eq=False)
class Evidence:
    """What each window adds to each logit, of some images.

    Attributes:
        ids: Of the images.
        tasks: Class names of each task; logits stand side by side in their order.
        maps: Of each level, "image logit row col", in logits; 0 where only padding is shown.
        bias: What no window adds, "image logit".
        logits: What they sum to, "image logit": the mean over runs and views.
        probabilities: By task, as the runs say them together.
        places: Where the windows of a level lie; a level of columns beside the image has none.
        extents: Height and width of each picture, as shares of the encoder's frame, in which it lies at the upper
            left.
        method: `exact`, or what was done where the head is not additive.
    """

    ids: tuple[str, ...]
    tasks: Mapping[str, tuple[str, ...]]
    maps: Mapping[str, Float[np.ndarray, "image logit _row _col"]]
    bias: Float[np.ndarray, "image logit"]
    logits: Float[np.ndarray, "image logit"]
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]]
    places: Mapping[str, Place]
    extents: Extents
    method: str

    @property
    def error(self) -> float:
        """Largest distance of sum and bias from the logit."""
        sums = sum(values.sum((2, 3)) for values in self.maps.values())
        return float(np.abs(sums + self.bias - self.logits).max(initial=0.0))

    def contrast(self, task: str, name: str | None = None, against: str | None = None) -> Contrast:
        """Return evidence for a class against another.

        Args:
            task: One of `tasks`.
            name: The class; of two the last by default, of more the one that each image is most probable to have.
            against: The other; of two the other one, of more the mean of all others by default.

        Raises:
            InputError: there is no such task or class, or both are one.
        """
        if task not in self.tasks:
            raise InputError(f"unknown task {task}; the run has {', '.join(self.tasks)}")
        names = self.tasks[task]
        start = sum(
            len(self.tasks[one]) for one in list(self.tasks)[: list(self.tasks).index(task)]
        )
        images = len(self.ids)
        if name is None and len(names) > 2:
            classes = self.probabilities[task].argmax(1)
        else:
            classes = np.full(images, len(names) - 1 if name is None else _index(name, names, task))
        weights = np.zeros((images, self.bias.shape[1]))
        if against is None:
            weights[:, start : start + len(names)] = -1 / max(1, len(names) - 1)
        else:
            other = _index(against, names, task)
            if (classes == other).any():
                raise InputError(
                    f"evidence for {against} against itself is nothing; name two classes"
                )
            weights[:, start + other] = -1
        weights[np.arange(images), start + classes] = 1
        if against is None:
            against = names[1 - classes[0]] if len(names) == 2 and images else REST
        maps = {k: np.einsum("nl,nlrc->nrc", weights, v) for k, v in self.maps.items()}
        bias, logit = ((weights * part).sum(1) for part in (self.bias, self.logits))
        return Contrast(maps, bias, logit, classes, against)

    def summed(
        self, contrast: Contrast, most: int | None = None
    ) -> Float[np.ndarray, "image row col"]:
        """Return all levels of a contrast in the finest level's windows, or the finest with at most so many a side."""
        placed = {level: contrast.maps[level] for level in self.places}
        return on_grid(placed, self.places, self.extents, self.side(most))

    def side(self, most: int | None = None) -> float:
        """Side of the windows that levels are summed in, as a share of the frame's."""
        return common_side(self.places, most)


def places_of(
    model: Model, made: Fingerprint, shapes: Mapping[str, LevelShape]
) -> dict[str, Place]:
    """Return where the windows of each level lie; a network's last map is added when it is seen.

    Args:
        model: Says which levels, at which window.
        made: What made the features.
        shapes: Of each level's stored map.
    """
    return {
        level: Place(*model.shape.grids[level], shape.patch / made.input_size, model.shape.window)
        for level, shape in shapes.items()
        if level in model.shape.channels
    }


def evidence_of(
    models: Sequence[Model],
    features: Features,
    extents: Extents,
    places: Mapping[str, Place],
) -> Evidence:
    """Return the evidence of some images.

    Args:
        models: Of the runs that are averaged.
        features: Of the images, not standardised, all of them looked at.
        extents: Height and width of each picture, as shares of the frame.
        places: From `places_of`.

    Raises:
        InputError: the head's answers cannot be divided among windows.
    """
    images, views = len(features.ids), Fingerprint.from_dict(features.fingerprint).views
    said = [
        to_probabilities(predict_logits(m.head, features.standardised(m.scaler)), m.tasks)
        for m in models
    ]
    parts: list[dict[str, np.ndarray]] = []
    method = ""
    where = dict(places)
    step = max(1, min(AT_ONCE, batch_size(features.tokens) // len(views)))
    for rows in torch.split(torch.arange(images), step):
        flat = features.flat(rows)
        found = mean_of(
            [_divided(model, features, flat) for model in models], [1 / len(models)] * len(models)
        )
        method = found.method
        part = {"bias": _mean(found.bias, views), "logits": _mean(found.logits, views)}
        for level, values in found.maps.items():
            if level not in where and level not in features.tokens:
                side = round(values.shape[2] ** 0.5)
                where = {level: Place(side, side, 1 / side, 1)}
            place = where.get(level)
            rows_, cols = (1, values.shape[2]) if place is None else (place.rows, place.cols)
            whole = values.reshape(len(rows), len(views), -1, rows_, cols).numpy()
            if place is not None:
                own = extents[rows.numpy()]
                turned = [turned_back(whole[:, v], place, own, n) for v, n in enumerate(views)]
                part[f"map {level}"] = np.mean(turned, axis=0)
            else:
                part[f"map {level}"] = whole.mean(1)
        parts.append(part)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Evidence(
        ids=features.ids,
        tasks=models[0].tasks,
        maps={k.removeprefix("map "): v for k, v in joined.items() if k.startswith("map ")},
        bias=joined["bias"],
        logits=joined["logits"],
        probabilities={task: mean_probabilities([one[task] for one in said]) for task in said[0]},
        places={level: place for level, place in where.items() if f"map {level}" in joined},
        extents=extents,
        method=method,
    )


def joined(parts: Sequence[Evidence], ids: Sequence[str]) -> Evidence:
    """Return the evidence of several batches as one.

    Args:
        parts: In order.
        ids: Of all their images.
    """
    first = parts[0]
    together = [(part.maps, part.probabilities) for part in parts]
    return Evidence(
        ids=tuple(ids),
        tasks=first.tasks,
        maps={k: np.concatenate([maps[k] for maps, _ in together]) for k in first.maps},
        bias=np.concatenate([part.bias for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        probabilities={k: np.concatenate([said[k] for _, said in together]) for k in first.tasks},
        places=first.places,
        extents=np.concatenate([part.extents for part in parts]),
        method=first.method,
    )


def _divided(model: Model, features: Features, flat: Tensor) -> Contributions:
    """Return the terms of some rows of tokens, of one run."""
    tokens, counts = select_rows(features.tokens, features.counts, flat)
    standard = model.scaler.apply(tokens)
    if isinstance(model.head, NetworkHead):
        if features.pixels is None:
            raise InputError(
                "the run's network looks at images, and the store keeps none; explain it on --images FILES"
            )
        images = features.pixels.batch(flat, torch.device("cpu"))
        return model.head.contributions_of(standard, counts, images)
    return model.head.contributions(standard, counts)


def _mean(values: Tensor, views: Sequence[str]) -> Float[np.ndarray, "image logit"]:
    found: np.ndarray = values.view(-1, len(views), values.shape[1]).mean(1).numpy()
    return found


def _index(name: str, names: tuple[str, ...], task: str) -> int:
    if name not in names:
        raise InputError(f"task {task} has no class {name}; it has {', '.join(names)}")
    return names.index(name)
