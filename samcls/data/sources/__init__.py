"""Where manifests come from: a file for each source, and a line for it here.

A source is a function of what it reads and of the CSV to write; its other options are keywords. Each is
annotated with its type and its help, from which the command line makes `samcls manifest NAME`, and the
first sentence of its docstring is the help of the whole. It ends in `samcls.data.summary.finish`.

    summary = SOURCES["folder"]("breast/", "breast.csv", seed=0)
"""

from collections.abc import Callable, Mapping

from samcls.data.sources.folder import folder_manifest
from samcls.data.sources.isic2017 import isic2017_manifest
from samcls.data.sources.medmnist import medmnist_manifest
from samcls.data.sources.table import table_manifest
from samcls.data.summary import Summary

__all__ = [
    "SOURCES",
    "Summary",
    "folder_manifest",
    "isic2017_manifest",
    "medmnist_manifest",
    "table_manifest",
]

SOURCES: Mapping[str, Callable[..., Summary]] = {
    "folder": folder_manifest,
    "table": table_manifest,
    "medmnist": medmnist_manifest,
    "isic2017": isic2017_manifest,
}
