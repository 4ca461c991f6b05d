"""What is wrong with a data set: twins, leaks, contradictions, odd pictures, and what gives the label away.

The package can be called: `samcls.audit("features.zarr")` is `samcls.audit.audit.audit`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Python gives a package's name to its folder once that is imported; so the folder does the work."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from samcls.audit.audit import audit

        return audit(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
