"""What it cost, on what it was made, and the commands that make it again."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from samcls.config import defaults_of, to_dict
from samcls.encode.options import ExtractOptions
from samcls.learn.runs.folder import MARK
from samcls.learn.settings import TrainConfig
from samcls.report.about import About
from samcls.report.blocks import Block, Cell, Listing, Part, Table, Text, count, figure, shortened
from samcls.report.subject import CannotShow, Subject

__all__ = ["commands", "extract_command", "making"]

VIEWS = {1: "none", 2: "flip"}  # options by the number of views
LEVELS = ("patch", "early", "middle", "late", "neck")  # which `--levels all` means
STAGES = {
    "load": "reading the store",
    "train": "training and choosing",
    "baselines": "training the controls",
    "score": "scoring",
}


def making(about: About) -> Iterator[Block]:
    """Yield cost, environment, settings, commands and files."""
    if not about.subject.runs:
        raise CannotShow(about.subject.reason or "the run is not where the evaluation says")
    yield _cost(about)
    yield from _environment(about)
    yield from _settings(about)
    yield Text(("The same again, from the images:",))
    for command in commands(about.subject):
        yield Text((command,), "command")
    yield from about.attempt("files", lambda: _files(about))
    notes = about.subject.trained.get("notes", [])
    if notes:
        yield Text(("What the run says of its figures:",))
        yield Listing(tuple((str(note),) for note in notes))


def _cost(about: About) -> Table:
    subject = about.subject
    rows: list[tuple[Part, ...]] = []
    folder = f"{subject.folder}metrics.json"
    for stage, title in STAGES.items():
        found = [run.metrics.get("seconds_by_stage", {}).get(stage) for run in subject.runs]
        known = [one for one in found if one is not None]
        if known:
            rows.append(
                (
                    f"{title}, seconds",
                    figure(sum(known), f"{folder}#sum/seconds_by_stage/{stage}", 1),
                )
            )
    total = sum(run.metrics.get("seconds", 0.0) for run in subject.runs)
    rows.append(
        (
            f"all {len(subject.runs)} runs, seconds"
            if len(subject.runs) > 1
            else "the run, seconds",
            figure(total, f"{folder}#sum/seconds", 1),
        )
    )
    if subject.kind == "sweep":
        seconds = sum(row["seconds"] for row in subject.board["rows"])
        rows.append(
            ("the sweep's runs, seconds", figure(seconds, "leaderboard.json#sum/rows/seconds", 1))
        )
    images = sum(subject.run.metrics["images"].get(k, 0) for k in ("train", "val", "test"))
    train = sum(run.metrics.get("seconds_by_stage", {}).get("train", 0.0) for run in subject.runs)
    passed = sum(run.metrics["images"]["train"] * run.metrics["epochs"] for run in subject.runs)
    if train and max(run.metrics["epochs"] for run in subject.runs) > 1:
        rows.append(("training, images a second", figure(passed / train, f"{folder}#rate", 0)))
    rows.append(
        (
            "trained values",
            count(subject.trained.get("parameters", 0), f"{subject.trained_file}#/parameters"),
        )
    )
    if subject.store is not None and not subject.external:
        size = subject.store.stored_bytes
        rows.append(("feature store, GB", figure(size / 1e9, "the store#bytes", 3)))
        rows.append(
            (
                "feature store, kB an image",
                figure(size / 1e3 / max(1, images), "the store#bytes_an_image", 1),
            )
        )
    return Table(
        "Cost",
        ("", "value"),
        tuple(rows),
        f"On {shortened(subject.run.metrics.get('device', 'cpu'))}, in {subject.run.metrics.get('precision', 'float32')}. Seconds of encoding are printed by samcls extract, and not kept. Energy was not measured.",
    )


def _environment(about: About) -> Iterator[Block]:
    found = about.subject.environment
    rows: list[tuple[Part, ...]] = [
        (name, shortened(version)) for name, version in found.get("packages", {}).items() if version
    ]
    rows += [
        (title, shortened(found[key]))
        for key, title in {
            "python": "Python",
            "platform": "platform",
            "processors": "processors",
            "threads": "threads",
        }.items()
        if key in found
    ]
    yield Table(
        "Environment",
        ("", "version"),
        tuple(rows),
        "Kept by the run in environment.json, without names.",
        (0, 1),
    )


def _settings(about: About) -> Iterator[Block]:
    """Yield what was given, and all other settings to fold out."""
    config, usual = about.subject.run.config, defaults_of(TrainConfig)
    given: list[tuple[Part, ...]] = []
    rest: list[tuple[Part, ...]] = []
    for name, value in to_dict(config).items():
        told = ", ".join(map(str, value)) if isinstance(value, list) else value
        row: tuple[Part, ...] = (name, shortened("\N{EN DASH}" if told in (None, "") else told))
        (rest if usual[name] == getattr(config, name) else given).append(row)
    if given:
        yield Table("Settings that were given", ("setting", "value"), tuple(given), "", (0, 1))
    yield Table(
        "Settings left as they are",
        ("setting", "value"),
        tuple(rest),
        "Of config.toml.",
        (0, 1),
        folded=True,
    )


def commands(subject: Subject) -> list[str]:
    """Return the commands that make the run again, from the manifest on."""
    said = [str(part) for part in subject.environment.get("command", [])]
    known = bool(said) and Path(said[0]).name.startswith("samcls") and len(said) > 1
    store = next(
        (part for part in said if part.endswith(".zarr") or "://" in part), "features.zarr"
    )
    found = [extract_command(subject, store)]
    found.append(shlex.join(["samcls", *said[1:]]) if known else _train_command(subject, store))
    if subject.external:
        run, data = str(subject.evaluation["run"]), str(subject.evaluation["store"])
        found.append(shlex.join(["samcls", "evaluate", run, data, "--out", subject.name]))
    return [*found, shlex.join(["samcls", "report", str(subject.path)])]


def _train_command(subject: Subject, store: str) -> str:
    """Return what makes a run again that was made from Python: from the settings that it kept."""
    run = subject.run
    place = run.path.parent if len(subject.runs) > 1 else run.path
    again = f"{place.name}-again"  # a finished run is not trained over
    parts = ["samcls", "train", store, again, "--config", str(run.path / "config.toml")]
    parts += ["--seeds", str(subject.seeds)] if subject.seeds > 1 else []
    parts += ["--folds", str(subject.folds)] if subject.folds else []
    return shlex.join(parts)


def extract_command(subject: Subject, store: str) -> str:
    """Return the command of stage one that a fingerprint tells, without what is the default."""
    made: dict[str, Any] = dict(subject.run.fingerprint)
    made["size"] = made.get("input_size")
    if made.get("levels") == [*LEVELS]:
        made["levels"] = "all"
    made["views"] = VIEWS.get(len(made.get("views", ())), "d4")
    if made.get("precision") == "float32":
        del made["precision"]  # a CPU's own
    if subject.store is not None and subject.store.pixel_size:
        made["keep_pixels"] = subject.store.pixel_size
    parts = [
        "samcls",
        "extract",
        "manifest.csv",
        store,
        "--encoder",
        str(made.pop("encoder", None)),
    ]
    for one in fields(
        ExtractOptions
    ):  # by their defaults: options that are made import torch's companions
        value = made.get(one.name)
        told = ",".join(value) if isinstance(value, list) else value
        if told is not None and told != one.default:
            parts += [f"--{one.name.replace('_', '-')}", str(told)]
    if subject.untrained and subject.run.fingerprint.get("encoder") != "vit_t":
        parts.append("--random-weights")
    return shlex.join(parts)


def _files(about: About) -> Iterator[Block]:
    subject = about.subject
    path = subject.run.path
    try:
        sums = json.loads((path / MARK).read_bytes())["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise CannotShow(f"the mark of {path.name} cannot be read: {error}") from error
    rows = [(name, Cell(digest)) for name, digest in sorted(sums.items())]
    rows.append(
        (
            "weights of the encoder",
            Cell(shortened(subject.run.fingerprint.get("checkpoint_sha256"))),
        )
    )
    told = f"Of {path.name}; others keep theirs likewise." if len(subject.runs) > 1 else ""
    yield Table("Files, by sha256", ("file", "sha256"), tuple(rows), told, (0, 1), folded=True)
