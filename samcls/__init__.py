"""samcls: Segment Anything features for medical image classification, cached once and trained on many times.

    import samcls

    samcls.extract("manifest.csv", "features.zarr", encoder="vit_t")
    result = samcls.train("features.zarr", "run", head="slca", epochs=30)
    print(result)

Importing the package imports nothing else; each name is loaded when it is first used. Options are those of
the command line, by the same names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samcls.api import extract, load_run, open_store, runs, train
    from samcls.data.manifest import read_manifest
    from samcls.learn.estimator import SLCAClassifier
    from samcls.sweep.call import sweep

__all__ = [
    "SLCAClassifier",
    "extract",
    "load_run",
    "open_store",
    "read_manifest",
    "runs",
    "sweep",
    "train",
]

__version__ = "0.1.0"

HOMES = {
    "SLCAClassifier": "samcls.learn.estimator",
    "read_manifest": "samcls.data.manifest",
    "sweep": "samcls.sweep.call",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module 'samcls' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(import_module(HOMES.get(name, "samcls.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
