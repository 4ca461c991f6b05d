"""A sweep as Python calls it: the space may be a file, its tables as a dict, or a `Space`.

samcls.sweep("features.zarr", "sweep", {"search": "grid", "space": {"head": ["slca", "linear"]}})
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samcls.errors import ConfigError
from samcls.sweep.space import Space, load_space, parse_space
from samcls.sweep.sweep import SweepResult
from samcls.sweep.sweep import sweep as sweep_space

__all__ = ["sweep"]


def sweep(
    store: str | Path,
    folder: str | Path,
    space: str | Path | Mapping[str, Any] | Space,
    **options: Any,
) -> SweepResult:
    """Train every configuration of a space, choose on validation, score the winner once.

    Args:
        store: Path or URL of a feature store.
        folder: The sweep's; one that is there goes on.
        space: What to run: a TOML file, the same as a dict, or a `Space`.
        options: Of `samcls.sweep.sweep.sweep`: `workers`, `dask`, `device`, `retry`, `log`, ...

    Raises:
        ConfigError: The space is wrong, or the store cannot serve it.
        SamclsError: As `samcls.sweep.sweep.sweep`.
    """
    if isinstance(space, Mapping):
        space = parse_space("".join(f"{_value(k)} = {_value(v)}\n" for k, v in space.items()))
    elif isinstance(space, str | Path):
        space = load_space(space)
    return sweep_space(store, folder, space, **options)


def _value(value: Any) -> str:
    """Return the value as TOML writes it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_value(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str | bool | int):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return repr(value)
    raise ConfigError(
        f"a space holds texts, numbers, true or false, lists and tables; got {value!r}"
    )
