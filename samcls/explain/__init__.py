"""Where a run looked: evidence in logits, in the picture's own coordinates, with what says how far to believe it.

The package can be called: `samcls.explain("run")` is `samcls.explain.explain.explain`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Python gives a package's name to its folder once that is imported; so the folder does the work."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from samcls.explain.explain import explain

        return explain(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
