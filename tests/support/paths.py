"""Where things lie: the tests, the project around them, and the package, wherever it is installed."""

from pathlib import Path

import samcls

__all__ = ["PACKAGE", "ROOT", "TESTS"]

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
PACKAGE = Path(samcls.__file__).resolve().parent
