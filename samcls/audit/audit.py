"""`samcls audit`: what is wrong with a data set, coded, with what to do about each finding.

    findings = audit("features.zarr", manifest="manifest.csv", log=print)
    findings.counts, findings.leaks, findings.table()

On a manifest every picture is decoded once; on a store its features are read, and its pictures where
`manifest` says where they are or the store keeps them. Nothing is changed, and nothing is deleted.
"""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from samcls.audit.checks import CHECKS
from samcls.audit.checks.pretraining import digests_in
from samcls.audit.clean import write_clean
from samcls.audit.finding import Finding, Findings, ordered
from samcls.audit.material import Material, material_of
from samcls.audit.sheet import contact_sheet
from samcls.data.manifest import Manifest
from samcls.errors import InputError, OverwriteRefused
from samcls.files import to_json, write_whole
from samcls.store.feature_store import FeatureStore

__all__ = ["FILES", "audit"]

FILES = ("findings.csv", "audit.json", "audit.html")

Log = Callable[[str], None]


def audit(
    data: str | Path | FeatureStore | Manifest,
    out: str | Path | None = None,
    *,
    manifest: str | Path | Manifest | None = None,
    run: str | Path | None = None,
    pretraining: str | Path | None = None,
    images: bool = False,
    retrain: bool = True,
    write: str | Path | None = None,
    root: str | Path | None = None,
    log: Log = lambda _: None,
    progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Look for everything in `CODES`.

    Args:
        data: A feature store, or a manifest (`.csv`).
        out: Folder for `findings.csv`, `audit.json` and the contact sheet `audit.html`; None keeps nothing.
        manifest: Of a store: where its pictures are, by which near-duplicates are confirmed.
        run: A run of the store: what leaks did to its figures is told too.
        retrain: Whether that run is trained again without twins.
        pretraining: A store, a run, or a text of digests of the images that the encoder was trained on.
        images: Whether the contact sheet shows thumbnails, which are pictures of patients.
        write: A manifest to write in which twins share a group and a split, and contradictions are left out.
        root: Folder that a manifest's relative paths start from.
        log: Called with a sentence on what is being done; what could not be looked at is in the `notes`.
        progress: Called with how many pictures are looked at, of how many; None for silence.

    Returns:
        The findings, the gravest first.

    Raises:
        InputError: there is nothing to look at, or what is asked for needs pictures or a manifest that are
            not there.
        OverwriteRefused: `out` or `write` holds something.
    """
    begun = time.monotonic()
    _refuse_taken(out, write)
    learned = frozenset() if pretraining is None else digests_in(pretraining)
    material = material_of(data, manifest, root=root, progress=progress)
    material = replace(material, pretraining=learned)
    if images and (material.read is None or out is None):
        raise InputError(
            "thumbnails need a folder (--out DIR) and pictures: of a store, name its manifest with --manifest"
        )
    if write is not None and material.manifest is None:
        raise InputError(
            f"a store keeps no paths: to write {write}, name the manifest of {material.source} with --manifest"
        )
    notes = list(material.notes)
    found: list[Finding] = []
    for check in CHECKS:
        found += check(material, notes.append)
    effect = {}
    if run is not None:
        from samcls.audit.effect import effect_of  # imports torch

        effect = effect_of(material, found, run, log, retrain=retrain)
    result = Findings(
        source=material.source,
        images=len(material.rows),
        found=ordered(found),
        notes=tuple(notes),
        seconds=time.monotonic() - begun,
        effect=effect,
    )
    if write is not None and material.manifest is not None:
        log(write_clean(material.manifest, result, write))
    if out is not None:
        _keep(Path(out), result, material, images=images)
    return result


def _keep(folder: Path, found: Findings, material: Material, *, images: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    columns = found.table()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_whole(folder / "findings.csv", text.getvalue().encode())
    write_whole(folder / "audit.json", to_json(found.to_dict()))
    write_whole(folder / "audit.html", contact_sheet(found, material if images else None).encode())


def _refuse_taken(out: str | Path | None, write: str | Path | None) -> None:
    """Refuse to replace anything but a former audit."""
    if out is not None and Path(out).exists():
        strangers: list[Any] = ["a file"]
        if Path(out).is_dir():
            strangers = [one.name for one in Path(out).iterdir() if one.name not in FILES]
        if strangers:
            raise OverwriteRefused(
                f"{out} holds {strangers[0]}, which is no audit's; name another folder"
            )
    if write is not None and Path(write).exists():
        raise OverwriteRefused(f"{write} is there already; name another file, or remove it first")
