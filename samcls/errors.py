"""Every exception that samcls raises on purpose, as one tree.

    SamclsError                    exit 1   anything this package says went wrong
    ├── RunError                   exit 1   work began and could not be finished
    │   ├── DownloadError                   a checkpoint could not be fetched
    │   ├── ExportError                     a model cannot be handed over, or is not the run's own
    │   └── NotFiniteError                  features are not finite, whatever the image
    └── InputError                 exit 2   what was given cannot be used; nothing was changed
        ├── ManifestError                   a manifest, its rows, splits or labels
        ├── ImageError                      one image; costs its row, never the run
        ├── WeightsError                    a checkpoint file
        ├── StoreError                      a feature store
        │   └── FingerprintMismatch         a store made with other settings
        ├── ConfigError                     options and configuration files
        │   └── ParameterError              an estimator's parameters; a ValueError too
        └── OverwriteRefused                something finished is already there

A message says what was got, what was expected and what to do. `exit_status` is what the command line
returns for it.
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ConfigError",
    "DownloadError",
    "ExportError",
    "FingerprintMismatch",
    "ImageError",
    "InputError",
    "ManifestError",
    "NotFiniteError",
    "OverwriteRefused",
    "ParameterError",
    "RunError",
    "SamclsError",
    "StoreError",
    "WeightsError",
    "side_by_side",
]


class SamclsError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_status = 1


class RunError(SamclsError):
    """Work began and could not be finished."""


class DownloadError(RunError):
    """A checkpoint could not be fetched."""


class ExportError(RunError):
    """A model cannot be exported, or what was exported does not answer as the run does."""


class NotFiniteError(RunError):
    """Features are NaN or infinite, whatever the image."""


class InputError(SamclsError):
    """What was given cannot be used; nothing was changed."""

    exit_status = 2


class ManifestError(InputError):
    """A manifest, its rows, splits or labels cannot be used."""


class ImageError(InputError):
    """One image cannot be read or used."""


class WeightsError(InputError):
    """A checkpoint file cannot be used."""


class StoreError(InputError):
    """A feature store cannot be used."""


def side_by_side(differing: Mapping[str, tuple[Any, Any]], own: str, other: str) -> str:
    """Return a line for each field that differs.

    Args:
        differing: By field, both values.
        own: What is said of the first.
        other: What is said of the second.
    """
    width = max(len(name) for name in differing)
    pairs = differing.items()
    return "\n".join(f"  {name:<{width}}  {own}: {a}   {other}: {b}" for name, (a, b) in pairs)


class FingerprintMismatch(StoreError):
    """A store was made with other settings than those asked for.

    `differing` maps each field's name to the pair (in the store, asked for).
    """

    def __init__(self, store: str, differing: Mapping[str, tuple[Any, Any]]) -> None:
        self.store = store
        self.differing = dict(differing)
        super().__init__(
            f"the store {store} was made with other settings:\n"
            + side_by_side(self.differing, "in the store", "asked for")
            + "\nGive the store's own settings to go on with it, or name another store."
        )


class ConfigError(InputError):
    """An option or a configuration file cannot be used."""


class ParameterError(ConfigError, ValueError):
    """A parameter of an estimator cannot be used; a ValueError, as scikit-learn's callers expect."""


class OverwriteRefused(InputError):
    """Something is already at the path that was to be written."""
