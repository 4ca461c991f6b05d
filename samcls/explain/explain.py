"""`samcls explain`: where a run looked, in numbers that can be checked.

    found = explain("run", "out", store="features.zarr", manifest="manifest.csv", log=print)
    found.contrast.maps["neck"], found.contrast.bias, found.scores["deletion"].gaps["centre"]

Without `out` nothing is written. Numbers are of all images; overlays and the page are of the worst by loss, and are
pictures of patients.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samcls.data.images import png_bytes
from samcls.deploy.inputs import pictures_of
from samcls.deploy.predictor import Predictor, load_predictor
from samcls.errors import ImageError, InputError, OverwriteRefused, SamclsError
from samcls.explain.evidence import Contrast, Evidence
from samcls.explain.explained import EVIDENCE, GATE, Explained
from samcls.explain.gates import gate_evidence
from samcls.explain.geometry import grid_count
from samcls.explain.maps import shown as shown_windows
from samcls.explain.masks import mask_scores
from samcls.explain.overlay import shrunk
from samcls.explain.scores import MOST, sanity_scores, window_scores
from samcls.explain.subject import Subject, of_pictures, of_store
from samcls.explain.through_encoder import encoder_scores
from samcls.files import few, to_json, write_whole
from samcls.learn.runs.folder import Run
from samcls.store.feature_store import FeatureStore

__all__ = ["Explained", "explain", "explain_picture"]

LARGEST = 2048  # pixels of an overlay's longer side; a larger picture is shrunk by whole blocks
SEEN = 256  # pixels of pictures whose edges are looked for
DECODERS = 4
FEWEST_WINDOWS = 4
FEWEST = 20  # images below which no score is told

Picture = UInt8[np.ndarray, "_row _col 3"]
Log = Callable[[str], None]


def explain(
    run: str | Path | Run | Predictor,
    out: str | Path | None = None,
    *,
    store: str | Path | FeatureStore | None = None,
    ids: str | Sequence[str] = (),
    split: str | None = None,
    images: str | Path | Sequence[str | Path] = (),
    manifest: str | Path | None = None,
    root: str | Path | None = None,
    task: str | None = None,
    name: str | None = None,
    against: str | None = None,
    what: str = EVIDENCE,
    shown: int = 24,
    scores: bool = True,
    through: int = 0,
    masks: str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    log: Log = lambda _: None,
) -> Explained:
    """Explain what a run says of images.

    Args:
        run: Its folder, or one of several seeds, whose evidence is averaged.
        out: Folder for `evidence.npz`, `manifest.json`, `explain.html` and overlays; None writes nothing.
        store: Feature store of the images; the one that the run was trained on, if it still lies where it did.
        ids: Images of the store.
        split: Of the run, where no image is named; test by default.
        images: Files, folders or a manifest of pictures, encoded now, in place of images of the store.
        manifest: Where the store's pictures are.
        root: Folder that a manifest's relative paths start from.
        task: Of the run's; its first by default.
        name: Class that evidence is for: of two the last, of more the one that each image is answered to have.
        against: Class that it is held against: of two the other, of more all others.
        what: `evidence`, or `gate` for the mean gate of each window.
        shown: How many images get an overlay and a place in the page, the worst by loss first.
        scores: Whether evidence is held against maps that know nothing, where there are 20 images or more.
        through: Of how many images, evenly spaced, pictures are blanked and encoded again.
        masks: Folder of masks, ID.png or ID_segmentation.png, in which evidence should lie.
        checkpoint: File of the encoder's weights, where it is not found by its digest.
        device: `auto`, `cpu` or `cuda`.
        log: Called with what is being done, and what a user should know.

    Raises:
        InputError: there is nothing to explain, or the head's answers cannot be divided among windows.
        FingerprintMismatch: the store was made with other settings than the run's.
        OverwriteRefused: `out` holds something.
    """
    wanted = [ids] if isinstance(ids, str) else list(ids)
    pictures = [images] if isinstance(images, str | Path) else list(images)
    _refuse(out, what, masks, asked=(task, name, against), scored=scores, through=through)
    if pictures and (wanted or split is not None or manifest is not None):
        raise InputError(
            "--images are encoded now; --ids, --split and --manifest are for images of a store"
        )
    if isinstance(run, Run):
        run = Predictor([run], checkpoint=checkpoint, device=device, log=log)
    predictor = (
        run
        if isinstance(run, Predictor)
        else load_predictor(run, checkpoint=checkpoint, device=device, log=log)
    )
    notes: list[str] = []
    subject = _subject(predictor, store, wanted, split or "test", pictures, manifest, root, notes)
    task = next(iter(predictor.tasks)) if task is None else task
    if what == GATE:
        evidence = gate_evidence(subject)
        contrast = _gates(evidence)
    else:
        evidence = subject.evidence
        contrast = evidence.contrast(task, name, against)
    chosen = (
        _worst(subject, evidence, task)[:shown]
        if what == EVIDENCE
        else tuple(range(len(subject.ids)))[:shown]
    )
    found: dict[str, Any] = {"scores": {}, "locality": {}}
    count = len(subject.ids)
    if scores and what == EVIDENCE and count < FEWEST:
        notes.append(f"scores need at least {FEWEST} images, and {count} were explained")
    elif scores and what == EVIDENCE:
        found = _scored(subject, task, through, masks, notes, log)
    if found["scores"] and (name is not None or against is not None):
        notes.append("scores are for the class that is answered, whichever class the maps are for")
    if what == EVIDENCE and len(predictor.tasks) > 1:
        others = [one for one in predictor.tasks if one != task]
        notes.append(f"evidence is of task {task}; others by --task {', '.join(others)}")
    result = Explained(
        subject=subject,
        what=what,
        task=task,
        evidence=evidence,
        contrast=contrast,
        shown=chosen,
        pictures=_pictures(subject, chosen, notes),
        neighbours=subject.neighbours(chosen),
        notes=tuple(notes),
        **found,
    )
    if out is not None:
        _keep(result, Path(out))
    return result


def explain_picture(
    run: Run,
    image: str | Path | np.ndarray,
    *,
    task: str | None = None,
    name: str | None = None,
    against: str | None = None,
) -> Explained:
    """Explain what a run says of one picture: `run.explain(image)`.

    Args:
        run: A finished one.
        image: A file, or an array of grey or RGB values.
        task: As `explain` has it.
        name: As `explain` has it.
        against: As `explain` has it.
    """
    predictor = Predictor([run])
    subject = of_pictures(predictor, image, None, lambda _: None)
    task = task or next(iter(predictor.tasks))
    contrast = subject.evidence.contrast(task, name, against)
    return Explained(
        subject, EVIDENCE, task, subject.evidence, contrast, (0,), {0: subject.picture(0)}
    )


def _refuse(
    out: str | Path | None,
    what: str,
    masks: str | Path | None,
    *,
    asked: tuple[str | None, ...],
    scored: bool,
    through: int,
) -> None:
    """Refuse what does not go together, before anything is done."""
    if what not in (EVIDENCE, GATE):
        raise InputError(f"what is {what!r}; expected {EVIDENCE} or {GATE}")
    if what == GATE and (any(asked) or masks is not None or through):
        raise InputError(
            "gates are of no task and no class, and are not scored; leave out --task, --class, --against, --through and "
            "--masks"
        )
    if not scored and (masks is not None or through):
        raise InputError("--masks and --through are scores; leave out --no-scores")
    if through < 0:
        raise InputError(f"through is {through}; expected how many images, 0 for none")
    if masks is not None and not Path(masks).is_dir():
        raise InputError(f"there is no folder of masks {masks}")
    if out is None:
        return
    if Path(out).is_dir() and any(Path(out).iterdir()):
        raise OverwriteRefused(f"{out} is not empty; choose another folder")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder: {error.strerror}") from error


def _subject(
    predictor: Predictor,
    store: str | Path | FeatureStore | None,
    ids: Sequence[str],
    split: str,
    images: Sequence[str | Path],
    manifest: str | Path | None,
    root: str | Path | None,
    notes: list[str],
) -> Subject:
    if images:
        opened = None if store is None else _opened(store)
        return of_pictures(predictor, pictures_of(images, root=root), opened, notes.append)
    opened = _opened(_found(predictor.runs[0]) if store is None else store)
    subject = of_store(predictor, opened, ids=ids, split=split, manifest=manifest, root=root)
    if subject.read is None:
        notes.append(
            "without pictures (--manifest M.csv, or a store made with --keep-pixels) there are numbers and maps, and no "
            "overlays"
        )
    return subject


def _opened(store: str | Path | FeatureStore) -> FeatureStore:
    return store if isinstance(store, FeatureStore) else FeatureStore.open(store)


def _found(run: Run) -> str:
    """Return the store that a run's own command named, if it lies there still.

    Raises:
        InputError: it does not.
    """
    try:
        command = json.loads((run.path / "environment.json").read_text())["command"]
    except (OSError, ValueError, KeyError):
        command = []
    for text in command:
        for place in (Path(text), run.path.parent / Path(text).name):
            if (place / "zarr.json").is_file():
                return str(place)
    raise InputError(
        f"where the features of {run.path} lie is not known: name their store with --store, or pictures with --images"
    )


def _gates(evidence: Evidence) -> Contrast:
    maps = {level: values[:, 0] for level, values in evidence.maps.items()}
    nothing = np.zeros(len(evidence.ids))
    return Contrast(maps, nothing, nothing, np.zeros(len(evidence.ids), dtype=np.int64), "")


def _worst(subject: Subject, evidence: Evidence, task: str) -> tuple[int, ...]:
    """Return images by their loss, the largest first, those without a label last."""
    labels = subject.labels[:, list(evidence.tasks).index(task)]
    chance = evidence.probabilities[task][np.arange(len(labels)), labels]
    loss = np.where(labels >= 0, 1 - chance, -1.0)
    return tuple(np.argsort(-loss, kind="stable").tolist())


def _pictures(
    subject: Subject, numbers: Sequence[int], notes: list[str], most: int | None = None
) -> dict[int, Picture]:
    """Return the pictures of some images, shrunk to so many pixels a side, and note those that cannot be read."""
    if subject.read is None:
        return {}

    def read(number: int) -> Picture | ImageError:
        try:
            picture = subject.picture(number)
        except ImageError as error:
            return error
        return picture if most is None else shrunk(picture, most)

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="picture") as pool:
        read_all = dict(zip(numbers, pool.map(read, numbers), strict=True))
    bad = [f"{subject.ids[n]}: {one}" for n, one in read_all.items() if isinstance(one, ImageError)]
    if bad:
        told = f"{len(bad)} pictures cannot be read, and have numbers alone ({few(bad)})"
        notes += [] if told in notes else [told]
    return {n: one for n, one in read_all.items() if not isinstance(one, ImageError)}


def _scored(
    subject: Subject, task: str, through: int, masks: str | Path | None, notes: list[str], log: Log
) -> dict[str, Any]:
    """Return scores and locality."""
    log("scoring against maps that know nothing")
    side = subject.evidence.side(MOST)
    windows = shown_windows(subject.evidence.extents, side, grid_count(side)).sum((1, 2))
    if windows.min() < FEWEST_WINDOWS:
        notes.append(
            f"scores need {FEWEST_WINDOWS} windows of each picture or more, and some have {windows.min()}: their order "
            "says nothing"
        )
        return {"scores": {}, "locality": {}}
    small = _pictures(subject, range(len(subject.ids)), notes, SEEN)
    scores = window_scores(subject, task, small)
    if not scores:
        notes.append(
            "deletion and insertion from the cache are for heads on features; --through asks the encoder and network"
        )
    scores |= sanity_scores(subject, task)
    if masks is not None:
        scores |= mask_scores(subject, task, Path(masks), small, notes)
    local: Mapping[str, Mapping[str, float]] = {}
    if through and not small:
        notes.append("pictures are blanked and encoded again only where there are pictures")
    elif through:
        chosen = np.unique(np.linspace(0, len(subject.ids) - 1, through).astype(int)).tolist()
        some = _pictures(subject, chosen, notes)
        try:
            more, local = encoder_scores(subject, task, some, log)
            scores |= more
        except SamclsError as error:
            notes.append(f"pictures were not blanked and encoded again: {error}")
    return {"scores": scores, "locality": local}


def _keep(found: Explained, folder: Path) -> None:
    """Write the numbers, the overlays and the page."""
    (folder / "overlays").mkdir(parents=True, exist_ok=True)
    evidence = found.evidence
    arrays: dict[str, np.ndarray] = {"ids": np.array(evidence.ids), "extents": evidence.extents}
    if found.what == EVIDENCE:
        arrays |= {"bias": evidence.bias, "logits": evidence.logits}
        arrays |= {f"probabilities:{task}": said for task, said in evidence.probabilities.items()}
    for level, values in found.evidence.maps.items():
        arrays[f"map:{level}"] = values.astype(np.float32)
    np.savez_compressed(folder / "evidence.npz", **arrays)  # type: ignore[arg-type]
    files = {}
    for number in found.shown:
        if number in found.pictures:
            name = re.sub(r"[^A-Za-z0-9_-]+", "_", found.evidence.ids[number])[:60]
            file = f"overlays/{number:05}-{name}.png"
            picture = shrunk(found.pictures[number], LARGEST)
            (folder / file).write_bytes(png_bytes(found.drawn(number, picture)))
            files[found.evidence.ids[number]] = file
    write_whole(folder / "explain.html", found.html().encode())
    write_whole(folder / "manifest.json", to_json({**found.to_dict(), "overlays": files}))
