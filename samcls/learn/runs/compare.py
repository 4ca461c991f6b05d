"""Runs on the same images: is one really better, or was it the draw?

What is compared is a run, or the mean of a folder's seeds, or a folder's folds with their test
images together. `samcls.learn.score.paired` holds the statistics.

    result = compare_runs(load_run("slca"), load_run("linear"))
    result["tasks"]["label"]["auc"]["difference_interval"]
    compare_runs(load_runs("slca-seeds"), load_runs("linear-seeds"), load_runs("se-seeds"))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from samcls.config import digest
from samcls.errors import InputError
from samcls.learn.runs.folder import Run
from samcls.learn.runs.predictions import Predictions, together
from samcls.learn.score.delong import places_of
from samcls.learn.score.paired import against_first
from samcls.learn.score.resampled import corrected_mean
from samcls.learn.score.scoring import auc

__all__ = ["compare_runs"]

Tasks = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _Arm:
    """One side of a comparison.

    Attributes:
        path: Of the run, or of the folder of runs.
        tasks: Class names of each task.
        folds: Whose test images are together here; 0 where there are none.
        said: By seed, what was said of the images.
        notes: Of the runs.
        fold_of: Of each image, in which fold it was tested; empty where there are none.
    """

    path: Path
    tasks: Tasks
    folds: int
    said: Mapping[int, Predictions]
    notes: tuple[str, ...]
    fold_of: Mapping[str, int]


def compare_runs(
    *runs: Run | Sequence[Run], split: str = "test", resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare what the first said of one split with what each other said of the same images.

    Args:
        runs: Two or more: each a finished run, or those of one folder of several seeds, whose
            figures are averaged, or of folds, whose test images are taken together, each as the run
            said that never saw it.
        split: `val` or `test`.
        resamples: Number of paired resamples, of whole groups.
        seed: Of the draws.

    Returns:
        `runs` (their folders), `split`, `images`, `groups` (how many were drawn as a whole),
        `seeds_by_run`, `notes`, sentences that belong under the table, and for two runs `tasks`,
        what `paired.compare` gives for each task, or with `seeds` `paired.compare_means` where each
        side has the same several seeds; of equal folds also `over_folds`, the AUC's difference fold by
        fold, as `resampled.corrected_mean` judges it. For more runs `comparisons`, each with `runs` and `tasks`.

    Raises:
        InputError: where they differ in tasks, classes, images, labels or groups, or lack a fold.
    """
    if len(runs) < 2:
        raise InputError(f"got {len(runs)} run to compare; expected two or more")
    arms = [_arm([one] if isinstance(one, Run) else list(one), split) for one in runs]
    for arm in arms[1:]:
        _refuse_other_tasks(arms[0], arm)
    reference = next(iter(arms[0].said.values()))
    aligned = [
        {seed: _aligned(arms[0], reference, arm, said, split) for seed, said in arm.said.items()}
        for arm in arms
    ]
    groups = _groups(arms, aligned)
    seeds = [list(arm) for arm in aligned]
    matched = all(one == seeds[0] for one in seeds) and len(seeds[0]) > 1
    found: list[dict[str, Any]] = [{} for _ in arms[1:]]
    for i, (task, classes) in enumerate(arms[0].tasks.items()):
        answers = [[one.probabilities[task] for one in arm.values()] for arm in aligned]
        results = against_first(
            reference.labels[:, i], answers, resamples, seed, groups, classes, seed_by_seed=matched
        )
        for place, (tasks, result) in enumerate(zip(found, results, strict=True), 1):
            tasks[task] = result | _over_folds(arms, place, reference, i, answers)
    paths = [str(arm.path) for arm in arms]
    pairs = [{"runs": [paths[0], p], "tasks": t} for p, t in zip(paths[1:], found, strict=True)]
    return {
        "runs": paths,
        "split": split,
        "images": len(reference.ids),
        "groups": len(np.unique(places_of(groups))),
        "seeds_by_run": seeds,
        "notes": _notes(arms, matched=matched),
        **({"seeds": seeds[0]} if matched else {}),
        **({"tasks": found[0]} if len(found) == 1 else {"comparisons": pairs}),
    }


def _over_folds(
    arms: Sequence[_Arm],
    place: int,
    reference: Predictions,
    task: int,
    answers: Sequence[Sequence[np.ndarray]],
) -> dict[str, Any]:
    """Return the AUC's difference to the first arm's fold by fold, where both have the same folds."""
    first = arms[0]
    if not first.folds or first.fold_of != arms[place].fold_of:
        return {}
    folds = np.array([first.fold_of[one] for one in reference.ids])
    labels = reference.labels[:, [task]]
    apart = []
    for fold in range(first.folds):
        rows = folds == fold
        values = [
            [auc(labels[rows], {"": one[rows]}) for one in answers[side]] for side in (0, place)
        ]
        if all(value is not None for side in values for value in side):
            ours, theirs = (float(np.mean(np.array(side, dtype=np.float64))) for side in values)
            apart.append(ours - theirs)
    if not apart:
        return {}
    return {"over_folds": corrected_mean(apart, train=first.folds - 1.0, test=1.0)}


def _arm(runs: Sequence[Run], split: str) -> _Arm:
    """Return a run, or a folder's, with what was said by each seed."""
    if not runs:
        raise InputError("got no run on one side; expected at least one")
    first = runs[0]
    folds = first.config.folds if len(runs) > 1 else 0
    path = first.path if len(runs) == 1 else first.path.parent
    settings: dict[int, set[str]] = {}
    for one in runs:  # nested folds have each chosen for themselves
        alike = settings.setdefault(one.config.fold if folds else 0, set())
        alike.add(digest(replace(one.config, seed=0, fold=0)))
    if max(map(len, settings.values())) > 1 or any(one.tasks != first.tasks for one in runs):
        raise InputError(
            f"the runs in {path} have different settings; expected those of one config, which differ "
            "in seed and fold alone"
        )
    if folds and split != "test":
        raise InputError(
            f"{path} holds {folds} folds, whose {split} images overlap or leave images out; compare "
            "folds on their test images"
        )
    by_seed: dict[int, list[Run]] = {}
    for one in runs:
        by_seed.setdefault(one.config.seed, []).append(one)
    said = {}
    for number, own in sorted(by_seed.items()):
        expected = list(range(folds)) if folds else [own[0].config.fold]
        if sorted(one.config.fold for one in own) != expected:
            got = ", ".join(str(one.config.fold) for one in own)
            raise InputError(
                f"{path} holds fold {got} of seed {number}; expected each of {folds} folds once. Run "
                "the same samcls train again to finish them"
                if folds
                else f"{path} holds seed {number} {len(own)} times; expected each seed once"
            )
        said[number] = together([one.predictions(split) for one in own])
    notes = dict.fromkeys(note for one in runs for note in one.metrics.get("notes", ()))
    tested = runs if folds else []
    fold_of = {one: run.config.fold for run in tested for one in run.predictions(split).ids}
    return _Arm(path, first.tasks, folds, said, tuple(notes), fold_of)


def _refuse_other_tasks(first: _Arm, second: _Arm) -> None:
    if list(first.tasks) != list(second.tasks):
        raise InputError(
            f"{first.path} learned {_named(first.tasks)} and {second.path} {_named(second.tasks)}; "
            "runs can be compared on the same tasks only: train both with the same --tasks"
        )
    for task, ours in first.tasks.items():
        theirs = second.tasks[task]
        if ours == theirs:
            continue
        if len(ours) == 2 and set(ours) == set(theirs):
            raise InputError(
                f"task {task}: the positive class is {ours[-1]} in {first.path} and {theirs[-1]} in "
                f"{second.path}; sensitivity would be of another class in each. Train both with the "
                "same --positive"
            )
        raise InputError(
            f"task {task} has classes {', '.join(ours)} in {first.path} and {', '.join(theirs)} in "
            f"{second.path}; runs can be compared on the same classes in the same order only"
        )


def _aligned(
    first: _Arm, reference: Predictions, arm: _Arm, said: Predictions, split: str
) -> Predictions:
    """Return the predictions in the reference's order of images, which must be the same with equal labels."""
    places = {one: i for i, one in enumerate(said.ids)}
    known = set(reference.ids)
    if len(places) != len(said.ids):
        raise InputError(f"{arm.path} holds an image of split {split} twice; expected each once")
    if set(places) != known:
        shared = known & set(places)
        extra = [
            f"{len(ids)} only in {path} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})"
            for path, ids in (
                (first.path, [one for one in reference.ids if one not in places]),
                (arm.path, [one for one in said.ids if one not in known]),
            )
            if ids
        ]
        raise InputError(
            f"{first.path} and {arm.path} were not scored on the same {split} images: "
            f"{len(known)} and {len(places)}, of which {len(shared)} in both, {', '.join(extra)}. "
            "Compare runs of the same images and splits, or all folds with all folds"
        )
    order = [places[one] for one in reference.ids]
    labels = said.labels[order]
    if not np.array_equal(labels, reference.labels):
        rows, columns = np.nonzero(labels != reference.labels)
        task, image = list(first.tasks)[columns[0]], reference.ids[rows[0]]
        named = [
            "no label" if label < 0 else first.tasks[task][label]
            for label in (reference.labels[rows[0], columns[0]], labels[rows[0], columns[0]])
        ]
        raise InputError(
            f"{first.path} and {arm.path} were not scored with the same labels: "
            f"{len(np.unique(rows))} of {len(order)} {split} images have others, such as {image} "
            f"({task}: {named[0]} and {named[1]}). Train both on the same labels"
        )
    return Predictions(
        reference.ids,
        labels,
        {task: p[order] for task, p in said.probabilities.items()},
        tuple(said.groups[i] for i in order),
    )


def _groups(arms: Sequence[_Arm], aligned: Sequence[Mapping[int, Predictions]]) -> tuple[str, ...]:
    """Each image's group, which those runs that know of groups must agree in."""
    chosen: tuple[str, ...] | None = None
    where = arms[0].path
    for arm, by_seed in zip(arms, aligned, strict=True):
        for one in by_seed.values():
            if not any(one.groups):
                continue
            if chosen is None:
                chosen, where = one.groups, arm.path
            elif not np.array_equal(places_of(chosen), places_of(one.groups)):
                image = next(i for i, g in enumerate(chosen) if g != one.groups[i])
                raise InputError(
                    f"{where} and {arm.path} group their images differently: {one.ids[image]} "
                    f"belongs to {chosen[image] or 'no group'} and {one.groups[image] or 'no group'}. "
                    "Extract both stores from one manifest"
                )
    return chosen or next(iter(aligned[0].values())).groups


def _notes(arms: Sequence[_Arm], *, matched: bool) -> list[str]:
    """Return what must be known of these comparisons, and what their runs' tables say."""
    counts = [len(arm.said) for arm in arms]
    notes = []
    if any(arm.folds for arm in arms):
        folds = ", ".join(str(arm.folds or "no") for arm in arms)
        notes.append(
            f"test images of all folds together ({folds} folds), each as the run said that never saw it"
        )
    if not matched and max(counts) > 1:
        notes.append(
            f"means over {_listed(counts)} seeds, which are not the same ones: p says what other "
            "images would change, and nothing of other seeds"
        )
    if len(arms) > 2:
        notes.append(
            f"p Holm: corrected for the {len(arms) - 1} comparisons of each figure (Holm 1979); "
            "intervals are of each comparison alone"
        )
    return [*notes, *dict.fromkeys(note for arm in arms for note in arm.notes)]


def _listed(counts: Sequence[int]) -> str:
    return f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"


def _named(tasks: Tasks) -> str:
    return ", ".join(f"{task} ({', '.join(classes)})" for task, classes in tasks.items())
