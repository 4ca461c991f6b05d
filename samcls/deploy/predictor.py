"""Runs made usable: pictures in, probabilities out, through the very pipeline that made the run's features.

What a run says of its own images it says again, of files or of arrays: read, framed, encoded, pooled and rounded
to the store's type, then standardised and given to the head. Several seeds or folds are averaged in probability.

    predictor = load_predictor("run")
    predictor.predict_proba(["lesion.jpg"])          # "image class", as scikit-learn has it
    for said in predictor.stream(pictures): ...      # a batch at a time, with everything that is known
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from samcls.deploy.encoded import features_of, placed, stored
from samcls.deploy.said import Picture, Said, encoded
from samcls.deploy.weights import encoder_of
from samcls.encode.base import Encoder
from samcls.encode.encoders import default_batch
from samcls.encode.extract import pooled_shape
from samcls.encode.options import ExtractOptions
from samcls.errors import ImageError, InputError
from samcls.files import few
from samcls.learn.features.meta import LEVEL as META
from samcls.learn.features.meta import unseen
from samcls.learn.features.tensors import Features
from samcls.learn.fit.fit import steady_threads
from samcls.learn.fit.prediction import Model, predict_logits, to_probabilities
from samcls.learn.heads.registry import reads
from samcls.learn.runs.folder import Run, load_runs
from samcls.learn.runs.known import image_means
from samcls.learn.runs.operating import OperatingPoint, mean_probabilities, operating_points
from samcls.learn.score.calibration import temperature_scaled
from samcls.learn.score.operating import answered
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.schema import DONE, Fingerprint, LevelShape

__all__ = ["Predictor", "load_predictor"]


Log = Callable[[str], None]


class Predictor:
    """One run, or all seeds and folds of one config, as a classifier of pictures.

    Args:
        runs: Finished ones of one encoder and one config, but for seed and fold.
        checkpoint: File of the encoder's weights, where it is not found by its digest.
        device: `auto` (the GPU where there is one), `cpu` or `cuda`.
        batch: Images encoded together; chosen from the input size and free memory where None.
        log: Called with a sentence on anything that a user should know.

    Raises:
        InputError: the runs are not of one kind, or one of them cannot say anything of single pictures.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        batch: int | None = None,
        log: Log = lambda _: None,
    ) -> None:
        if batch is not None and batch < 1:
            raise InputError(f"batch is {batch}; expected at least 1")
        self.runs = tuple(runs)
        self.models: tuple[Model, ...] = tuple(run.model for run in runs)
        self.fingerprint = Fingerprint.from_dict(runs[0].fingerprint)
        self._asked = {"checkpoint": checkpoint, "device": device, "batch": batch}
        self._log = log
        self._refuse_mixed()
        self._refuse_shuffled()

    @property
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of each task."""
        return self.models[0].tasks

    @property
    def classes_(self) -> Any:
        """Class names as scikit-learn has them: an array; of several tasks a list of arrays."""
        found = [np.array(names) for names in self.tasks.values()]
        return found[0] if len(found) == 1 else found

    @cached_property
    def points(self) -> dict[str, OperatingPoint]:
        """Temperature and threshold of each task, as validation fixed them."""
        return operating_points(self.runs)

    @property
    def encoder(self) -> Encoder:
        """The encoder that made the runs' features, opened when it is first asked for.

        Raises:
            WeightsError: its weights cannot be found.
            InputError: they are others than the runs'.
        """
        return self._opened[0]

    @property
    def options(self) -> ExtractOptions:
        """How pictures become features: the runs' own settings, on this machine."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[Encoder, ExtractOptions]:
        run, asked = self.runs[0], self._asked
        encoder, options = encoder_of(
            run.fingerprint,
            run.metrics.get("weights", {}),
            pixels=self.models[0].shape.pixels if self.looks else 0,
            log=self._log,
            **asked,  # type: ignore[arg-type]
        )
        return encoder, replace(options, batch=options.batch or default_batch(encoder))

    @property
    def knows(self) -> bool:
        """Whether every run keeps digests of its images, and where its features lie."""
        return all(run.known is not None for run in self.runs)

    def release(self) -> None:
        """Let the encoder go; it is opened again when it is asked for."""
        self.__dict__.pop("_opened", None)

    @property
    def looks(self) -> bool:
        """Whether the head looks at the images too."""
        return reads(self.models[0].config).pixels

    # -- what scikit-learn users expect ---------------------------------------------------------------

    def predict_proba(self, pictures: Sequence[Picture] | np.ndarray) -> Any:
        """Probabilities of `classes_`, in [0, 1], not temperature-scaled; each row sums to 1.

        Args:
            pictures: Paths, or arrays of grey or RGB values of any size, "row col" or "row col 3"; or one
                array of many, "image row col" or "image row col 3". Values of other types than uint8 are
                scaled as `samcls.data.arrays.to_rgb` says.

        Returns:
            "image class"; of several tasks a list, one array a task.

        Raises:
            ImageError: a picture cannot be used; all that cannot are named.
        """
        said = self.say(pictures)
        bad = [i for i, reason in enumerate(said.error) if reason]
        if bad:
            reasons = "; ".join(said.error[i] for i in bad[:3])
            raise ImageError(
                f"{len(bad)} of {len(said.error)} pictures cannot be used (number {few(bad)}): {reasons}. "
                "Leave them out, or use predict_table, in which each costs its own row"
            )
        found = [said.probabilities[task] for task in self.tasks]
        return found[0] if len(found) == 1 else found

    def predict(self, pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """Return each picture's class, by the threshold that validation fixed.

        Args:
            pictures: As for `predict_proba`.

        Returns:
            Class names, "image"; of several tasks "image task".

        Raises:
            ImageError: as `predict_proba`.
        """
        found = self.predict_proba(pictures)
        by_task = dict(zip(self.tasks, found if len(self.tasks) > 1 else [found], strict=True))
        answers = [
            np.array(self.tasks[task])[self.answers(task, values)]
            for task, values in by_task.items()
        ]
        return answers[0] if len(answers) == 1 else np.stack(answers, 1)

    def say(self, pictures: Sequence[Picture] | np.ndarray) -> Said:
        """Return everything that is said of some pictures; those that cannot be used have an error.

        Args:
            pictures: As for `predict_proba`.
        """
        given = list(pictures)
        if not given:
            raise InputError("no picture was given; expected paths or arrays")
        parts = list(self.stream(given))
        return Said(
            rows=np.concatenate([part.rows for part in parts]),
            error=tuple(one for part in parts for one in part.error),
            probabilities={
                task: np.concatenate([part.probabilities[task] for part in parts])
                for task in self.tasks
            },
            spread={
                task: np.concatenate([part.spread[task] for part in parts]) for task in self.tasks
            },
            seen=tuple(one for part in parts for one in part.seen),
            unfamiliar=np.concatenate([part.unfamiliar for part in parts]),
        )

    def answers(
        self, task: str, probabilities: Float[np.ndarray, "image class"]
    ) -> Int[np.ndarray, " image"]:
        """Return the class answered: by the threshold fixed on validation, of more than two the most probable."""
        return answered(probabilities, self.points[task].threshold)

    def scaled(
        self, task: str, probabilities: Float[np.ndarray, "image class"]
    ) -> Float[np.ndarray, "image class"]:
        """Return probabilities at the temperature fixed on validation."""
        return temperature_scaled(probabilities, self.points[task].temperature)

    # -- a batch at a time ----------------------------------------------------------------------------

    def stream(
        self,
        pictures: Sequence[Picture],
        todo: Int[np.ndarray, " image"] | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[Said]:
        """Yield what is said of pictures, batch by batch, in order; a bad one costs its own row.

        Args:
            pictures: Rows of `pictures_of`, paths, or arrays.
            todo: Numbers of those wanted, ascending; None means all.
            texts: Columns of the manifest, for runs with columns beside the image.

        Raises:
            InputError: the runs need columns that are not there.
        """
        self.need_columns(texts or {})
        wanted = np.arange(len(pictures)) if todo is None else todo
        for batch in encoded(pictures, wanted, self.encoder, self.options, self._log):
            yield self.of_batch(batch, texts)

    def of_batch(
        self,
        batch: RowBatch,
        texts: Mapping[str, Sequence[str]] | None = None,
        shapes: Mapping[str, LevelShape] | None = None,
    ) -> Said:
        """Return what is said of encoded images.

        Args:
            batch: As stage one gives it.
            texts: Columns of the manifest, by row, for runs with columns beside the image.
            shapes: Of each level's pooled map; the encoder's own by default.
        """
        good = batch.status == DONE
        by_run: list[dict[str, np.ndarray]] = []
        far = None
        if good.any():
            rows, made = np.flatnonzero(good), self.fingerprint
            levels = [level for level in self.models[0].shape.channels if level != META]
            of_encoder = shapes or {k: pooled_shape(self.encoder, k, made.window) for k in levels}
            by_run, far = self.of_features(
                features_of(self.models[0], made, batch, rows, texts or {}, of_encoder)
            )
        means: dict[str, np.ndarray] = {}
        spreads: dict[str, np.ndarray] = {}
        for task, names in self.tasks.items():
            parts = [one[task] for one in by_run]
            means[task] = placed(mean_probabilities(parts) if parts else None, good, len(names))
            apart = np.stack(parts).std(0) if parts else None
            spreads[task] = placed(apart, good, len(names))
        return Said(
            rows=batch.rows,
            error=tuple(batch.error),
            probabilities=means,
            spread=spreads,
            seen=tuple(
                one if there else ""
                for one, there in zip(self.seen(batch.sha256), good.tolist(), strict=True)
            ),
            unfamiliar=placed(None if far is None else far[:, None], good, 1)[:, 0],
        )

    def of_store(
        self,
        store: FeatureStore,
        rows: Int[np.ndarray, " image"],
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[Said]:
        """Yield what is said of images whose features a store holds.

        Args:
            store: An open store.
            rows: Which of its images, ascending.
            texts: Columns of the manifest, by the store's row, for runs with columns beside the image.

        Raises:
            FingerprintMismatch: the store was made with other settings.
            InputError: the runs look at images or columns that the store does not keep.
        """
        self.need_columns(texts or {})
        for batch in stored(self.models[0], self.fingerprint, store, rows):
            yield self.of_batch(batch, texts, store.levels)

    def of_features(
        self, features: Features
    ) -> tuple[
        list[dict[str, Float[np.ndarray, "image _class"]]], Float[np.ndarray, " image"] | None
    ]:
        """Return what each run says of features, and how unfamiliar they are, where the runs know.

        Args:
            features: As cached; they are standardised in place.
        """
        said, far = [], []
        for run, model in zip(self.runs, self.models, strict=True):
            last = run is self.runs[-1]  # which may have the features themselves
            standard = (features.standardise_ if last else features.standardised)(model.scaler)
            # As many threads as training answered with: bits are those of equal threads.
            with torch.inference_mode(), steady_threads(standard, model.config):
                said.append(to_probabilities(predict_logits(model.head, standard), model.tasks))
                if run.known is not None:
                    found = run.known.unfamiliar(image_means(standard))
                    far += [] if found is None else [found]
        return said, np.mean(far, axis=0) if far else None

    def seen(self, sha256: UInt8[np.ndarray, "image 32"]) -> list[str]:
        """Return where pictures stood in the runs' own data, training first: train, val, test, or empty.

        Args:
            sha256: Of the decoded pixels.
        """
        digests = [one.tobytes() for one in sha256]
        found = [run.known.splits_of(digests) for run in self.runs if run.known is not None]
        return [
            next((split for split in ("train", "val", "test") if split in of_runs), "")
            for of_runs in zip(*found, strict=True)
        ] or [""] * len(digests)

    def need_columns(self, texts: Mapping[str, Sequence[str]]) -> None:
        """Make sure that the columns beside the image are there.

        Args:
            texts: Columns of the manifest.

        Raises:
            InputError: one is not.
        """
        columns = self.models[0].meta
        missing = [one.name for one in columns if one.name not in texts]
        if missing:
            raise InputError(
                f"the run was trained with columns beside the image and needs meta:{', meta:'.join(missing)}; "
                "give a manifest that has them"
            )
        for line in unseen(columns, texts):
            self._log(line)

    def _refuse_mixed(self) -> None:
        first = self.runs[0]
        for run in self.runs[1:]:
            if run.fingerprint != first.fingerprint or dict(run.tasks) != dict(first.tasks):
                raise InputError(
                    f"{run.path} and {first.path} have other features or tasks; only seeds and folds of one "
                    "config can be averaged"
                )

    def _refuse_shuffled(self) -> None:
        for run, model in zip(self.runs, self.models, strict=True):
            if model.head.partner_seed is not None:
                raise InputError(
                    f"{run.path} is the control whose gates are fed with other images' features: of single "
                    "pictures it can say nothing. Name a run of the head itself"
                )


def load_predictor(
    path: str | Path,
    *,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    log: Log = lambda _: None,
) -> Predictor:
    """Make a classifier of pictures of a run, or of the seeds and folds in a folder.

    Args:
        path: What `samcls train` made, or a sweep's folder, whose winner is taken.
        checkpoint: As for `Predictor`.
        device: As for `Predictor`.
        batch: As for `Predictor`.
        log: As for `Predictor`.

    Raises:
        InputError: there is no finished run, or it is damaged or by a newer version.
    """
    return Predictor(load_runs(path), checkpoint=checkpoint, device=device, batch=batch, log=log)
