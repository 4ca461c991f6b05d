"""What a pipeline has done: of each step the key of all that it rested on, so that only what changed is done again.

A key is the digest of the command, of the files that it names and no step makes, and of the keys of the steps that it
needs. It stands in `NAME.state.json` beside the pipeline, written after each step that ended.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samcls.files import to_json, write_whole
from samcls.pipeline.file import Pipeline, Step, lies_in

__all__ = ["State", "key_of"]

BLOCK = 1 << 20
LARGEST = 1 << 30  # bytes of a file whose content is read; of a larger one size and time are taken


@dataclass
class State:
    """Ended steps.

    Attributes:
        path: Of the file that keeps it.
        steps: By name: `key`, `parts` (what the key was made of), `seconds` and `makes`; of one that has begun and
            not ended, `begun` alone: the key that it began under.
    """

    path: Path
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, pipeline: Pipeline) -> "State":
        """Read it back; nothing where there is none, or it cannot be read."""
        path = pipeline.path.with_suffix(".state.json")
        try:
            found = json.loads(path.read_bytes())["steps"]
        except (OSError, ValueError, KeyError, TypeError):
            found = {}
        return cls(path, found if isinstance(found, dict) else {})

    def begun(self, step: Step, key: str) -> None:
        """Keep that a step has begun: what it made before counts no more, until it ends."""
        self.steps[step.name] = {"begun": key}
        self._write()

    def goes_on(self, step: Step, key: str) -> bool:
        """Whether a step was stopped under this very key: its command goes on by itself where it can."""
        known = self.steps.get(step.name, {})
        return step.verb == "train" and known.get("begun") == key

    def _write(self) -> None:
        write_whole(self.path, to_json({"steps": self.steps}))

    def ended(self, step: Step, key: str, parts: Mapping[str, str], seconds: float) -> None:
        """Keep that a step has ended."""
        self.steps[step.name] = {
            "key": key, "parts": dict(parts), "seconds": round(seconds, 3), "makes": step.makes,
        }  # fmt: skip
        self._write()

    def why(self, step: Step, key: str, parts: Mapping[str, str], folder: Path) -> str:
        """Return why a step must be done; "" where it need not."""
        known = self.steps.get(step.name)
        if known is None:
            return "not done yet"
        if "key" not in known:
            return "stopped before its end"
        if step.makes is not None and not (folder / step.makes).exists():
            return f"{step.makes} is gone"
        if known.get("key") == key:
            return ""
        before = known.get("parts", {})
        changed = [name for name in {**before, **parts} if before.get(name) != parts.get(name)]
        return f"{', '.join(changed[:3])} changed" if changed else "its key changed"


def key_of(pipeline: Pipeline, step: Step, keys: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return a step's key and what it is made of, by names that a reader knows.

    Args:
        pipeline: Whose files lie beside it.
        step: Of it.
        keys: Of the steps before.
    """
    made = [one.makes for one in pipeline.steps if one.makes is not None]
    parts = {"the command": _digest(json.dumps(step.arguments).encode())}
    for text in step.arguments:
        plain = not text.startswith("-") and not any(lies_in(text, place) for place in made)
        if plain and (pipeline.folder / text).exists():
            parts[text] = _of_path(pipeline.folder / text)
    parts |= {f"step {name}": keys[name] for name in step.needs}
    return _digest(json.dumps(parts, sort_keys=True).encode()), parts


def _of_path(path: Path) -> str:
    """Return the digest of a file's bytes; of a folder or a very large file, of names, sizes and times."""
    if path.is_file() and path.stat().st_size <= LARGEST:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    told = [
        (str(one.relative_to(path)), one.stat().st_size, one.stat().st_mtime_ns) for one in files
    ]
    return _digest(json.dumps(told).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
