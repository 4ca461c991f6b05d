"""The registry's encoders as a user chooses between them: what each is, what it costs, what is here.

for one in catalogue(): print(one.name, one.entry.licence, one.bytes, one.state)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samcls.encode.registry import REGISTRY, Entry
from samcls.encode.weights import CHECKPOINTS, listing

__all__ = ["Known", "catalogue"]

State = Literal["here", "absent", "wrong size", "built in"]
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Known:
    """One encoder and its weights on this machine.

    Attributes:
        name: As on the command line.
        entry: What is known of it.
        bytes: Of its weights; None where that is not known.
        state: Whether they are here; of timm's models as its cache says.
        path: Of their file; empty where there is none.
        sha256: That the file must have; empty where none is fixed.
    """

    name: str
    entry: Entry
    bytes: int | None
    state: State
    path: str = ""
    sha256: str = ""


def catalogue() -> tuple[Known, ...]:
    """Return every encoder that has a name of its own, in the registry's order."""
    here = {one.checkpoint.name: one for one in listing()}
    found = []
    for name, entry in REGISTRY.items():
        if name in here:
            record, one = CHECKPOINTS[name], here[name]
            state: State = "here" if one.state == "present" else one.state
            found.append(Known(name, entry, record.bytes, state, str(one.path), record.sha256))
        elif name.startswith("timm:") and name != "timm:":
            found.append(_of_timm(name, entry))
        elif "--checkpoint" in entry.source:  # by file alone
            found.append(Known(name, entry, _float_bytes(entry), "absent"))
        elif not name.endswith(":"):
            found.append(Known(name, entry, None, "built in"))
    return tuple(found)


def _of_timm(name: str, entry: Entry) -> Known:
    import huggingface_hub

    model = name.partition(":")[2]
    cached = huggingface_hub.try_to_load_from_cache(f"timm/{model}", "model.safetensors")
    if isinstance(cached, str):
        return Known(name, entry, Path(cached).stat().st_size, "here", cached)
    return Known(name, entry, _float_bytes(entry), "absent")


def _float_bytes(entry: Entry) -> int | None:
    return None if entry.parameters is None else int(FLOAT_BYTES * entry.parameters * 1e6)
