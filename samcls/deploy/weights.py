"""The encoder that made a run's features, found again by the digest of its weights; no other is taken.

encoder, options = encoder_of(run.fingerprint, run.metrics.get("weights", {}))
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from samcls.encode.base import Encoder
from samcls.encode.encoders import open_encoder
from samcls.encode.extract import fingerprint_of
from samcls.encode.options import ExtractOptions
from samcls.encode.weights import cache_dir, file_sha256, official_name
from samcls.errors import InputError, WeightsError, side_by_side
from samcls.store.schema import Fingerprint

__all__ = ["encoder_of"]

SUFFIXES = frozenset({".pth", ".pt", ".bin", ".safetensors"})
DRAWN = re.compile(r"seed (\d+)")

Log = Callable[[str], None]


def encoder_of(
    made: Mapping[str, Any],
    weights: Mapping[str, str | None],
    *,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    pixels: int = 0,
    log: Log = lambda _: None,
) -> tuple[Encoder, ExtractOptions]:
    """Open the encoder that made a run's features, on a device.

    Args:
        made: The run's fingerprint.
        weights: What the run says of the file that they came from.
        checkpoint: That file, where it is neither an official one nor in the cache folder.
        device: As `ExtractOptions.device`.
        batch: Images encoded together; chosen where None.
        pixels: Side of the images that the head looks at besides features; 0 where it does not.
        log: Called with a sentence on the weights.

    Raises:
        WeightsError: they cannot be found.
        InputError: what was found gives other features.
    """
    wanted = Fingerprint.from_dict(made)
    given: dict[str, Any] = {"device": device, "batch": batch, "keep_pixels": pixels or None}
    if checkpoint is not None:
        given["checkpoint"] = str(checkpoint)
    elif drawn := DRAWN.search(weights.get("untrained") or ""):
        given |= {"random_weights": True, "seed": int(drawn[1])}
    elif weights.get("file") and official_name(wanted.checkpoint_sha256) is None:
        given["checkpoint"] = str(_in_cache(wanted, str(weights["file"])))
    options = ExtractOptions.of(wanted, **given)
    encoder = open_encoder(options, log=log)
    differing = wanted.differing(fingerprint_of(encoder, options))
    if differing:
        remedy = (
            "Give the file of these weights with --checkpoint"
            if checkpoint is None
            else "Give another --checkpoint"
        )
        raise InputError(
            "the run's features were made by another encoder:\n"
            f"{side_by_side(differing, 'the run', 'found')}\n{remedy}"
        )
    return encoder, options


def _in_cache(wanted: Fingerprint, name: str) -> Path:
    """Return the file with the run's weights among those in the cache folder."""
    folder = cache_dir()
    files = [p for p in sorted(folder.glob("*")) if p.suffix in SUFFIXES] if folder.is_dir() else []
    for file in sorted(files, key=lambda file: file.name != name):
        if file_sha256(file) == wanted.checkpoint_sha256:
            return file
    raise WeightsError(
        f"the run's features were made with the weights {name} (sha256 {wanted.checkpoint_sha256}), which "
        f"are not in {folder}; name the file with --checkpoint FILE, or put it there"
    )
