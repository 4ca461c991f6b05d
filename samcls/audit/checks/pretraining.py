"""`pretraining`: images that the encoder was trained on, where the digests of its training images are known.

Features of such an image were shaped by it, so that its figures say less of new ones. Digests are those of samcls:
SHA-256 of the decoded pixels, of a store, a run, or a text of one hexadecimal digest a line.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from samcls.audit.finding import Finding
from samcls.audit.material import Material
from samcls.errors import InputError
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE

__all__ = ["digests_in", "find"]

DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield each image whose pixels are among those that the encoder was trained on."""
    if not material.pretraining:
        note(
            "whether the encoder was trained on some of the images is not known; --pretraining names their digests"
        )
        return
    for row in material.rows.tolist():
        if material.digests[row] in material.pretraining:
            told = f"{material.ids[row]} ({material.splits[row] or 'unused'}): the encoder was trained on it"
            yield material.finding("pretraining", [row], told)


def digests_in(path: str | Path) -> frozenset[bytes]:
    """Read digests of pixels.

    Args:
        path: A feature store, a run, or a text of one hexadecimal digest a line.

    Raises:
        InputError: there are none.
    """
    path = Path(path)
    from samcls.learn.runs.known import KNOWN, parse_known  # imports torch

    if (path / KNOWN).is_file():
        return frozenset(
            one.tobytes() for one in parse_known((path / KNOWN).read_bytes(), str(path)).sha256
        )
    if path.is_dir():
        store = FeatureStore.open(path)
        return frozenset(one.tobytes() for one in store.sha256[store.status == DONE])
    try:
        lines = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}; name a store, a run or a text of digests"
        ) from error
    strange = [line for line in lines if not DIGEST.fullmatch(line)]
    if strange or not lines:
        raise InputError(
            f"{path} holds {strange[0][:40] if strange else 'nothing'!r}; expected a SHA-256 of decoded pixels, 64 "
            "hexadecimal digits, on each line"
        )
    return frozenset(bytes.fromhex(line) for line in lines)
