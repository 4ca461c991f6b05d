"""Many runs of stage two: a space of configs, a search through it, and what the runs found.

The package can be called: `samcls.sweep(store, folder, space)` is `samcls.sweep.call.sweep`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Python gives a package's name to its folder once that is imported; so the folder does the work."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from samcls.sweep.call import sweep

        return sweep(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
