"""A run as `samcls.load_run` gives it: read back, and a classifier of pictures.

run = load("run")
run.metrics["test"]["auc"], run.predict_proba(["lesion.jpg"]), run.classes_
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samcls.deploy.predictor import Predictor
from samcls.deploy.said import Picture
from samcls.learn.runs.folder import Run, load_run

if TYPE_CHECKING:
    from samcls.explain.explain import Explained

__all__ = ["LoadedRun", "load"]


@dataclass(frozen=True, eq=False, repr=False)
class LoadedRun(Run):
    """A finished run that predicts; its encoder is opened when the first picture comes."""

    @cached_property
    def predictor(self) -> Predictor:
        """The run as a classifier, on the device that `samcls extract` would take."""
        return Predictor([self])

    @property
    def classes_(self) -> Any:
        """Class names as scikit-learn has them: an array; of several tasks a list of arrays."""
        return self.predictor.classes_

    def predict_proba(self, pictures: Sequence[Picture] | np.ndarray) -> Any:
        """Probabilities of `classes_`, as `Predictor.predict_proba`.

        Args:
            pictures: Paths or arrays.
        """
        return self.predictor.predict_proba(pictures)

    def predict(self, pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """Class of each picture by the threshold that validation fixed, as `Predictor.predict`.

        Args:
            pictures: Paths or arrays.
        """
        return self.predictor.predict(pictures)

    def explain(self, image: str | Path | np.ndarray, **options: Any) -> "Explained":
        """Where it looked: evidence of one picture, with arrays and a figure.

        Args:
            image: A file, or an array of grey or RGB values.
            options: `task`, `name` and `against`, as `samcls.explain` has them.
        """
        from samcls.explain.explain import explain_picture

        return explain_picture(self, image, **options)


def load(path: str | Path) -> LoadedRun:
    """Read a finished run back.

    Args:
        path: Its folder; several seeds or folds are read by `load_predictor`.

    Raises:
        InputError: there is no run, it is unfinished, damaged, or by a newer version.
    """
    run = load_run(path)
    return LoadedRun(**{field.name: getattr(run, field.name) for field in fields(Run)})
