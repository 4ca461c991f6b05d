"""What a head gains over the best control that sees the same windows: whether attention pays, in a sentence.

The control is the one that validation prefers of those that were trained, for each task; the difference is paired, on the test
images, whole groups at a time.

    gain = gain_over_controls(tasks, labels, groups, [head], {"logistic-windows": [other]}, chosen)
    gain_sentences("slca", gain)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from samcls.learn.heads.controls import MEANINGS
from samcls.learn.runs.folder import Run
from samcls.learn.runs.predictions import together
from samcls.learn.score.paired import against_first

__all__ = ["best_controls", "gain_of_runs", "gain_over_controls", "gain_sentences"]

Said = Mapping[str, Float[np.ndarray, "image _class"]]
SHOWN = ("first", "second", "difference", "difference_interval", "p")


def best_controls(
    tasks: Sequence[str],
    controls: Sequence[str],
    validations: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, str]:
    """For each task the control of the same windows with the best validation AUC, the first of equals.

    Args:
        tasks: Names.
        controls: Names, as `judges` gives them.
        validations: Of each baseline the validation tables, one a run.
    """

    def mean_auc(control: str, task: str) -> float:
        tables = [one.get("tasks", {}).get(task, one) for one in validations[control]]
        found = [one["auc"] for one in tables if one["auc"] is not None]
        return float(np.mean(found)) if found else -1.0

    known = [name for name in controls if name in validations]
    return {task: max(known, key=lambda name: mean_auc(name, task)) for task in tasks if known}


def gain_of_runs(runs: Sequence[Run], beside: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the mean of a config's runs gains over that of a control; folds are put together.

    Args:
        runs: Scored on test, all of one config: of one seed or several, with or without folds.
        beside: Controls among which validation chooses.

    Returns:
        As `gain_over_controls`; nothing where a run, being of an earlier version, kept no controls.
    """
    tasks = runs[0].tasks
    validations = {
        name: [run.metrics["baselines"][name]["validation"] for run in runs]
        for name in runs[0].metrics.get("baselines", {})
        if all("validation" in run.metrics["baselines"].get(name, {}) for run in runs)
    }
    chosen = best_controls([*tasks], beside, validations)
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        by_seed.setdefault(run.config.seed, []).append(run)
    heads = [together([run.predictions("test") for run in own]) for own in by_seed.values()]
    said = [[run.controls("test") for run in own] for own in by_seed.values()]
    if not all(name in one for own in said for one in own for name in chosen.values()):
        return {}
    controls = {
        name: [together([one[name] for one in own]).probabilities for own in said]
        for name in set(chosen.values())
    }
    first = heads[0]
    answers = [one.probabilities for one in heads]
    return gain_over_controls(tasks, first.labels, first.groups, answers, controls, chosen)


def gain_over_controls(
    tasks: Mapping[str, Sequence[str]],
    labels: Int[np.ndarray, "image task"],
    groups: Sequence[str],
    head: Sequence[Said],
    controls: Mapping[str, Sequence[Said]],
    chosen: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the head's AUC minus its control's on the same test images, for each task.

    Args:
        tasks: Class names of each task.
        labels: Class indices of the test images; -1 where a label is missing.
        groups: Of the test images.
        head: Probabilities that the runs gave, one a seed.
        controls: Those of the controls, likewise.
        chosen: The control of each task.

    Returns:
        For each task `control`, the two AUCs (`first`, `second`; means over seeds), their `difference`
        with its 95 % `difference_interval` and `p`, which is None where too few groups are there.
    """
    found = {}
    for column, (task, classes) in enumerate(tasks.items()):
        if task not in chosen:
            continue
        arms = [[one[task] for one in head], [one[task] for one in controls[chosen[task]]]]
        (result,) = against_first(labels[:, column], arms, groups=groups, classes=classes)
        found[task] = {"control": chosen[task]} | {name: result["auc"][name] for name in SHOWN}
    return found


def gain_sentences(head: str, gain: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say of each task whether the head is ahead of its control, and by how much.

    Args:
        head: Name of the head.
        gain: From `gain_over_controls`.
    """
    lines = []
    for task, one in gain.items():
        if one["difference"] is None:
            continue
        of = f" of task {task}" if len(gain) > 1 else ""
        start = (
            f"test AUC{of}, {head} minus {MEANINGS[one['control']]} (which sees the same windows): "
            f"{one['difference']:+.3f}"
        )
        if one["p"] is None:
            lines.append(f"{start}; too few groups to say whether that is noise")
            continue
        low, high = one["difference_interval"]
        verdict = "not more than noise" if low <= 0 <= high else "more than noise"
        lines.append(f"{start} ({low:+.3f} to {high:+.3f}), p {one['p']:.3f}: {verdict}")
    return lines
