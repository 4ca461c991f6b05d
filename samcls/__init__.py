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
    from samcls.audit.audit import audit
    from samcls.data.manifest import read_manifest
    from samcls.deploy.predict import predict
    from samcls.deploy.predictor import load_predictor
    from samcls.explain.explain import explain
    from samcls.learn.estimator import SLCAClassifier
    from samcls.report.report import report
    from samcls.sweep.call import sweep

__all__ = [
    "SLCAClassifier",
    "audit",
    "explain",
    "extract",
    "load_predictor",
    "load_run",
    "open_store",
    "predict",
    "read_manifest",
    "report",
    "runs",
    "sweep",
    "train",
]

__version__ = "0.1.0"

HOMES = {  # of what is not in samcls.api: module, and its name there
    "audit": ("samcls.audit.audit", "audit"),
    "SLCAClassifier": ("samcls.learn.estimator", "SLCAClassifier"),
    "explain": ("samcls.explain.explain", "explain"),
    "load_predictor": ("samcls.deploy.predictor", "load_predictor"),
    "predict": ("samcls.deploy.predict", "predict"),
    "read_manifest": ("samcls.data.manifest", "read_manifest"),
    "report": ("samcls.report.report", "report"),
    "sweep": ("samcls.sweep.call", "sweep"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module 'samcls' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    module, own = HOMES.get(name, ("samcls.api", name))
    return getattr(import_module(module), own)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
