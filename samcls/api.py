"""The functions of `import samcls`: those of the parts, for paths as well as for opened things.

    summary = samcls.extract("manifest.csv", "features.zarr", encoder="vit_b", log=print)
    store = samcls.open_store("features.zarr")
    result = samcls.train(store, "run", head="slca", levels=("late", "neck"), epochs=30)
    samcls.load_run("run").metrics["test"]["auc"]

They say nothing unless they are given a `log`, such as `print`.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from samcls.config import load_toml, parse, to_dict
from samcls.data.manifest import Manifest, check_files, check_labels, read_manifest
from samcls.encode.options import ExtractOptions
from samcls.errors import ConfigError
from samcls.learn.runs.folder import Run
from samcls.learn.runs.folder import load_run as read_run
from samcls.learn.runs.overview import runs_in as runs
from samcls.learn.runs.repeats import RepeatsResult, train_repeats
from samcls.learn.runs.train import RunResult
from samcls.learn.runs.train import train as train_head
from samcls.learn.runs.writing import refuse_overwrite
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

if TYPE_CHECKING:
    from samcls.deploy.predictor import Predictor
    from samcls.deploy.said import Picture
    from samcls.encode.extract import ExtractSummary, Progress
    from samcls.explain.explain import Explained

__all__ = ["LoadedRun", "extract", "load_run", "open_store", "runs", "train"]

Log = Callable[[str], None]


def extract(
    manifest: str | Path | Manifest,
    store: str | Path,
    options: ExtractOptions | None = None,
    *,
    root: str | Path | None = None,
    missing: Sequence[str] = (),
    allow_leak: bool = False,
    progress: "Progress | None" = None,
    log: Log = lambda _: None,
    **settings: Any,
) -> "ExtractSummary":
    """Encode every image of a manifest once; called again after a stop, it goes on.

    Args:
        manifest: A CSV, or what `read_manifest` made of it.
        store: Path or URL of the feature store to make or to go on with.
        options: How images become features; the defaults where none are given.
        root: Folder that a CSV's relative paths start from; its own by default.
        missing: What means in a CSV that a label is missing, besides an empty cell.
        allow_leak: Whether a group may lie in several splits.
        progress: Called with (rows finished, rows in all, rows failed, feature bytes so far).
        log: Called with a sentence on anything that a user should know.
        settings: Fields of `ExtractOptions`, such as `encoder="vit_b"`; they win over `options`.

    Raises:
        ManifestError: The manifest is wrong, or a group lies in several splits.
        ConfigError: The settings cannot be.
        SamclsError: As `samcls.encode.extract.extract`.
    """
    from samcls.encode.extract import extract as extract_rows

    chosen = _options(options, settings)
    rows = manifest
    if not isinstance(rows, Manifest):
        rows = read_manifest(rows, root, missing=missing)
    check_labels(rows)
    absent = check_files(rows)
    if absent:
        log(f"{len(absent)} of {len(rows)} files do not exist; their rows will be marked failed")
    return extract_rows(rows, store, chosen, progress, log, allow_leak=allow_leak)


def open_store(path: str | Path, mode: Literal["r", "r+"] = "r") -> FeatureStore:
    """Open a feature store.

    Args:
        path: Local path, or any URL that Zarr opens.
        mode: `r` to read, `r+` to write too.

    Raises:
        StoreError: There is no store, or it cannot be read.
    """
    return FeatureStore.open(path, mode)


def train(
    store: str | Path | FeatureStore,
    run: str | Path | None = None,
    config: TrainConfig | str | Path | None = None,
    *,
    seeds: int = 1,
    baselines: bool = False,
    memory: int | None = None,
    medmnist: str | None = None,
    device: str = "auto",
    allow_leak: bool = False,
    strict: bool = False,
    log: Log = lambda _: None,
    **settings: Any,
) -> RunResult | RepeatsResult:
    """Train one head on a store: validation chooses, the test split is scored once.

    With several seeds, or `folds=5`, it is trained for each, a folder of runs below `run`; the figures
    are then their mean and spread.

    Args:
        store: A feature store, or its path or URL.
        run: Folder to keep the run in; None keeps nothing.
        config: Settings, or a TOML file of them; the defaults where none are given.
        seeds: Number of seeds, the first of them the config's.
        baselines: Whether to train the other controls too.
        memory: MB that the features may take; above it they are streamed.
        medmnist: Data set's flag, such as `breastmnist_64`: keep predictions as MedMNIST does.
        device: `auto` (the GPU where there is one), `cpu` or `cuda`.
        allow_leak: Whether groups may lie in several splits.
        strict: Whether identical pixels in several splits are an error, not a note.
        log: Called with a line of progress now and then.
        settings: Fields of `TrainConfig`, such as `head="slca"`; they win over `config`. Of
            `folds`, all are run where no `fold` is named.

    Raises:
        ConfigError: The settings cannot be, or the store cannot serve them.
        OverwriteRefused: The folder holds a finished run, or something else.
        SamclsError: As `samcls.learn.runs.train.train`.
    """
    folds = 0 if "fold" in settings else settings.pop("folds", 0)
    chosen, several = _config(config, settings), seeds != 1 or bool(folds)
    if several and (seeds < 1 or run is None):
        raise ConfigError(
            f"got seeds={seeds}, folds={folds}, run={run}; expected at least one seed, and a folder "
            "for the runs"
        )
    if run is not None and not several:
        refuse_overwrite(run)
    opened = store if isinstance(store, FeatureStore) else open_store(store)
    options: dict[str, Any] = {
        "every_baseline": baselines,
        "memory": None if memory is None else memory * 1_000_000,
        "medmnist": medmnist,
        "device": device,
        "allow_leak": allow_leak,
        "strict": strict,
    }
    if run is not None and several:
        return train_repeats(opened, chosen, run, log, seeds=seeds, folds=folds, **options)
    return train_head(opened, chosen, run, log, **options)


def _options(options: ExtractOptions | None, settings: Mapping[str, Any]) -> ExtractOptions:
    """Return the options with the settings in their place; levels may be a list of names."""
    known = [f.name for f in fields(ExtractOptions)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known options: {', '.join(known)}"
            raise ConfigError(f"{name}: unknown option; {advice}")
    levels = settings.get("levels")
    joined = {} if levels is None or isinstance(levels, str) else {"levels": ",".join(levels)}
    return replace(options or ExtractOptions(), **{**settings, **joined})


def _config(config: TrainConfig | str | Path | None, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the config with the settings in its place; a text names the entries of a list by commas."""
    base = load_toml(TrainConfig, config) if isinstance(config, str | Path) else config
    base = base or TrainConfig()
    lists = {name for name, value in vars(base).items() if isinstance(value, tuple)}
    given = {
        name: [part.strip() for part in value.split(",") if part.strip()]
        if name in lists and isinstance(value, str)
        else value
        for name, value in settings.items()
    }
    return parse(TrainConfig, {**to_dict(base), **given}, "the settings")


@dataclass(frozen=True, eq=False, repr=False)
class LoadedRun(Run):
    """A finished run that predicts; its encoder is opened when the first picture comes."""

    @cached_property
    def predictor(self) -> "Predictor":
        """The run as a classifier, on the device that `samcls extract` would take."""
        from samcls.deploy.predictor import Predictor  # imports the encoders

        return Predictor([self])

    @property
    def classes_(self) -> Any:
        """Class names as scikit-learn has them: an array; of several tasks a list of arrays."""
        return self.predictor.classes_

    def predict_proba(self, pictures: "Sequence[Picture] | np.ndarray") -> Any:
        """Probabilities of `classes_`, as `Predictor.predict_proba`.

        Args:
            pictures: Paths or arrays.
        """
        return self.predictor.predict_proba(pictures)

    def predict(self, pictures: "Sequence[Picture] | np.ndarray") -> np.ndarray:
        """Class of each picture by the threshold that validation fixed, as `Predictor.predict`.

        Args:
            pictures: Paths or arrays.
        """
        return self.predictor.predict(pictures)

    def explain(
        self,
        image: str | Path | np.ndarray,
        *,
        task: str | None = None,
        name: str | None = None,
        against: str | None = None,
    ) -> "Explained":
        """Where it looked: evidence of one picture, with arrays and a figure.

        Args:
            image: A file, or an array of grey or RGB values.
            task: As `samcls.explain` has it.
            name: As `samcls.explain` has it: the class.
            against: As `samcls.explain` has it.
        """
        from samcls.explain.explain import explain_picture

        return explain_picture(self, image, task=task, name=name, against=against)


def load_run(path: str | Path) -> LoadedRun:
    """Read a finished run back.

    Args:
        path: Its folder; several seeds or folds are read by `load_predictor`.

    Raises:
        InputError: there is no run, it is unfinished, damaged, or by a newer version.
    """
    run = read_run(path)
    return LoadedRun(**{field.name: getattr(run, field.name) for field in fields(Run)})
