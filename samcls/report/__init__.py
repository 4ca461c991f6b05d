"""One page that can be forwarded and defended: figures with intervals, displays, checks, and what is yours to write.

The package can be called: `samcls.report("run", "report.html")` is `samcls.report.report.report`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Python gives a package's name to its folder once that is imported; so the folder does the work."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from samcls.report.report import report

        return report(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
