"""Signatures of samcls that are executed: types by beartype, and where they have shapes, these by jaxtyping.

jaxtyping wraps each function twice, to hold the shapes of a call against each other. Most signatures have no
shapes, and beartype alone checks these as strictly: the tests take two thirds of the time.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

__all__ = ["execute"]

with_shapes = jaxtyping.jaxtyped
with_types = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def execute(package: str) -> None:
    """Have the signatures of a package checked that is not imported yet."""
    jaxtyping.jaxtyped = checked  # the name by which the hook's decorators find it
    jaxtyping.install_import_hook(package, "beartype.beartype")


def checked(given: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Decorate a function or a class as `jaxtyping.jaxtyped` does."""
    if given is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isfunction(given) and not _may_have_shapes(given):
        return with_types(given)
    if dataclasses.is_dataclass(given) and not _may_have_shapes(given.__init__):
        given.__init__ = with_types(given.__init__)
        return given
    return with_shapes(given, typechecker=typechecker)


def _may_have_shapes(function: Callable[..., object]) -> bool:
    """Whether a hint has shapes, or is not to be read yet."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (AttributeError, NameError, TypeError):
        return True
    return any(map(_has_shapes, hints.values()))


def _has_shapes(hint: object) -> bool:
    if isinstance(hint, list):  # of a Callable's arguments
        return any(map(_has_shapes, hint))
    array = inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)
    return array or any(map(_has_shapes, get_args(hint)))
