"""Where gates are open, image by image.

A is in (0, 1): how much of SAM's say each channel of a stage gets in each of its cells.

    maps = attention_maps(load_run("run"), FeatureStore.open("features.zarr"), ["image-7"])
    maps["image-7"]["stage3"]                    # "channel row col", at the stage's own size
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.errors import InputError
from samcls.explain.evidence import Evidence, places_of
from samcls.explain.geometry import Place
from samcls.explain.subject import Subject
from samcls.learn.features.batches import select_rows
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.targets import UNUSED, Targets, targets_of
from samcls.learn.features.tensors import Features, image_rows, load_features
from samcls.learn.fit.prediction import Model
from samcls.learn.runs.folder import Run
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE, Fingerprint

__all__ = ["attention_maps", "gate_evidence"]

BATCH = 64  # images at once

Maps = dict[str, Float[np.ndarray, "_channel _row _col"]]


def attention_maps(
    run: Run, store: FeatureStore, ids: Sequence[str], view: str = "identity"
) -> dict[str, Maps]:
    """Return the gates A of some images at every gated stage.

    Args:
        run: Of a head whose gates have maps.
        store: Features and pixels of the images, made as those that the run learned from.
        ids: Images, as the store names them.
        view: Under which they are seen; maps lie in the turned image's own coordinates.

    Returns:
        For each image, the maps of each gated stage, shallow to deep; none for the control `plain`.
        Where only padding is shown A is what changes nothing: 0 for residual gates, 1 for others.

    Raises:
        InputError: where the run is of another head, or the store has no such image or view.
        FingerprintMismatch: where the store's features are made otherwise than the run's.
        StoreError: where the store keeps no pixels, or is damaged.
    """
    net = run.model.head
    if not net.maps_gates:
        raise InputError(
            f"{run.path} is of head {run.config.head}, which has no stages; attention maps are those "
            "of a run with a network that looks at images"
        )
    store.require(Fingerprint.from_dict(run.fingerprint))
    views = store.fingerprint.views
    if view not in views:
        raise InputError(f"{store.path} has no view {view!r}; it holds {', '.join(views)}")
    # Whose features feed the control `shuffled` depends on the run's own splits.
    whole = net.partner_seed is not None
    targets = targets_of(store, run.config) if whole else _of_images(store, ids)
    features = load_features(
        store, tuple(run.model.shape.channels), run.model.shape.window, targets
    )
    rows = _rows(features, ids, store)
    pixels = Pixels.load(store, image_rows(store, ids))
    number = views.index(view)
    order = net.feeding(features)
    found: dict[str, Maps] = {}
    for part in torch.split(torch.arange(len(ids)), BATCH):
        flat = rows[part] * len(views) + number
        fed = flat if order is None else order[flat]
        tokens = {k: v.index_select(0, fed) for k, v in features.tokens.items()}
        standard = run.model.scaler.apply(tokens)
        counts = {k: v.index_select(0, fed) for k, v in features.counts.items()}
        images = pixels.batch(part * len(views) + number, torch.device("cpu"))
        maps = net.gate_maps(standard, counts, images)
        for i, image in enumerate(part.tolist()):
            found[ids[image]] = {stage: values[i].numpy() for stage, values in maps.items()}
    return found


def _of_images(store: FeatureStore, ids: Sequence[str]) -> Targets:
    """Targets under which the features of these images alone are read."""
    encoded = store.status == DONE
    known = {name for name, done in zip(store.ids, encoded, strict=True) if done}
    strange = [name for name in ids if name not in known]
    if strange:
        raise InputError(
            f"{store.path} has no encoded image {', '.join(strange[:5])}; ids are those of its "
            "manifest, such as " + ", ".join(sorted(known)[:2])
        )
    asked = set(ids)
    splits = ["test" if name in asked else UNUSED for name in store.ids]
    return Targets(store.tasks, store.labels, splits)


def _rows(features: Features, ids: Sequence[str], store: FeatureStore) -> Int64[Tensor, " image"]:
    """Where each image is among the features."""
    places = {name: row for row, name in enumerate(features.ids)}
    strange = [name for name in ids if name not in places]
    if strange:
        raise InputError(
            f"{store.path} has no encoded image that took part in the run and is called "
            f"{', '.join(strange[:5])}; there are {', '.join(features.ids[:2])}, ..."
        )
    return torch.tensor([places[name] for name in ids], dtype=torch.int64)


def gate_evidence(subject: Subject) -> Evidence:
    """Return the mean gate of each window as evidence has it: one number, 0..1, in place of a logit.

    Gates are of the picture as it is, of several views too, and the mean over channels and runs. A network's lie on its
    stages.

    Args:
        subject: What is looked at.

    Raises:
        InputError: the head has no gates.
    """
    models = subject.predictor.models
    places = places_of(models[0], subject.made, subject.shapes)
    parts: list[dict[str, np.ndarray]] = []
    extents = []
    for features, extent in subject.chunks():
        by_run = [_mean_gates(model, features, places) for model in models]
        if not by_run[0]:
            raise InputError(
                f"head {models[0].config.head} has no gates; look at its evidence, or at a run of slca or of a guided "
                "network"
            )
        parts.append({k: np.mean([one[k] for one in by_run], axis=0) for k in by_run[0]})
        extents.append(extent)
    maps = {k: np.concatenate([part[k] for part in parts])[:, None] for k in parts[0]}
    nothing = np.zeros((len(subject.ids), 1))
    return Evidence(
        ids=subject.ids,
        tasks={},
        maps=maps,
        bias=nothing,
        logits=nothing,
        probabilities={},
        places={k: places[k] for k in maps},
        extents=np.concatenate(extents),
        method="mean gate A of each window",
    )


def _mean_gates(
    model: Model, features: Features, places: dict[str, Place]
) -> dict[str, Float[np.ndarray, "image _row _col"]]:
    """Return the mean over channels of each level's gates, or of each stage's, whose places are noted."""
    flat = torch.arange(len(features.ids)) * features.views
    tokens, counts = select_rows(features.tokens, features.counts, flat)
    standard = model.scaler.apply(tokens)
    if features.pixels is not None and model.head.maps_gates:
        found = model.head.gate_maps(
            standard, counts, features.pixels.batch(flat, torch.device("cpu"))
        )
        places.update(
            {k: Place(v.shape[2], v.shape[3], 1 / v.shape[2], 1) for k, v in found.items()}
        )
        return {k: v.mean(1).numpy() for k, v in found.items()}
    gates = model.head.window_gates(standard, counts)
    flat_maps = {
        k: v.mean(1).masked_fill(counts[k] == 0, 0.0) for k, v in gates.items() if k in places
    }
    return {k: v.numpy().reshape(len(flat), places[k].rows, -1) for k, v in flat_maps.items()}
