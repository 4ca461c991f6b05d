"""What the run got most wrong: probability, evidence, and the training images that are most alike."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from samcls.data.images import data_uri
from samcls.errors import SamclsError
from samcls.report.about import GALLERY, About
from samcls.report.blocks import Block, Gallery, Missing, Table, Text, count, figure, shortened
from samcls.report.subject import Answers

if TYPE_CHECKING:
    from samcls.explain.explained import Explained

__all__ = ["failures"]

SIDE, NEAR = 220, 84  # pixels
QUALITY = 82
SURE = 0.1  # probability of the label below which a wrong answer is a confident one


def failures(about: About) -> Iterator[Block]:
    """Yield the worst images of each task by loss; with pictures where they were asked for."""
    if not about.config.worst:
        return
    yield from about.each("failures", _of_task)


def _of_task(about: About, task: str) -> Iterator[Block]:
    answers = about.subject.answers(task)
    wrong = answers.answers != answers.labels
    chance = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    sure = wrong & (chance < SURE)
    source = f"{answers.source}#wrong/{task}"
    yield Text(
        (
            f"{'' if not about.several else shortened(task) + ': '}of ", count(len(answers.labels), f"{source}/images"), " images ",
            count(int(wrong.sum()), f"{source}/wrong"), " are answered wrong, ", count(int(sure.sum()), f"{source}/sure"),
            f" of them with a probability under {SURE} for their label.",
        )
    )  # fmt: skip
    worst = np.argsort(-answers.losses, kind="stable")[: about.config.worst].tolist()
    rows = []
    for at in worst:
        place = f"{answers.source}#row/{task}/{answers.rows[at]}"
        rows.append(
            (
                shortened(answers.ids[at]),
                shortened(answers.groups[at]) or "\N{EN DASH}",
                shortened(answers.classes[answers.labels[at]]),
                shortened(answers.classes[answers.answers[at]]),
                figure(float(chance[at]), f"{place}/label"),
                figure(float(answers.losses[at]), f"{place}/loss"),
            )
        )
    yield Table(
        f"The worst {len(worst)} by loss{about.of(task)}",
        ("image", "group", "label", "answer", "probability of the label", "loss (nats)"),
        tuple(rows),
        "Loss: negative logarithm of the label's probability. A very high one may be a wrong label.",
        (0, 1, 2, 3),
    )
    if about.images:
        yield from _pictures(about, answers, worst)


def _pictures(about: About, answers: Answers, worst: list[int]) -> Iterator[Block]:
    from samcls.explain.explain import explain

    subject = about.subject
    what = f"pictures of failures{about.of(answers.task)}"
    if subject.store is None:
        yield Missing(what, subject.unknown)
        return
    if subject.external:
        yield Missing(
            what,
            "evidence of another data set's images: samcls explain RUN --store STORE --manifest MANIFEST",
        )
        return
    try:
        found = explain(
            subject.run.path if len(subject.runs) == 1 else subject.run.path.parent,
            store=subject.store,
            ids=[answers.ids[at] for at in worst],
            manifest=subject.manifest,
            task=answers.task,
            scores=False,
            shown=len(worst),
        )
    except SamclsError as error:
        yield Missing(what, str(error))
        return
    for note in found.notes:
        if not note.startswith("evidence is of task"):  # every task has its own here
            yield Text((note,), "note")
    if not found.pictures:
        yield Missing(
            what, "no picture could be read; name the manifest of the store with --manifest"
        )
        return
    low, middle, high = found.ends
    told = f"{middle} Colours: blue {low}; yellow {high}. To the right the nearest training images, by features."
    yield Text((told,), "note")
    shown = [number for number in found.shown if number in found.pictures]
    about.names.add(GALLERY)
    yield Gallery(tuple(_item(found, number, answers) for number in shown))


def _item(found: "Explained", number: int, answers: Answers) -> dict[str, Any]:
    from samcls.explain.overlay import fitted

    picture = fitted(found.pictures[number], SIDE)
    near, others = [], found.subject.others
    if found.neighbours is not None and others is not None:
        column = list(found.subject.predictor.tasks).index(answers.task)
        labels = dict(zip(others.ids, others.labels[:, column].tolist(), strict=True))
        told = zip(found.neighbours.ids[number], found.neighbours.distances[number], strict=True)
        for name, far in told:
            other = found.near_picture(name)
            known = labels[name] >= 0
            label = f"label {answers.classes[labels[name]]}" if known else "no label"
            near.append(
                {
                    "uri": None if other is None else data_uri(fitted(other, NEAR), QUALITY),
                    "name": shortened(name, 40),
                    "label": shortened(label, 40),
                    "far": f"{far:.1f}",
                }
            )
    return {
        "name": shortened(found.evidence.ids[number]),
        "said": found.said(number),
        "wrong": found.wrong(number),
        "images": [
            {"uri": data_uri(picture, QUALITY), "says": "picture"},
            {
                "uri": data_uri(found.drawn(number, picture), QUALITY),
                "says": "evidence, all levels",
            },
        ],
        "near": near,
    }
