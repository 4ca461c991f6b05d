"""Where the real data sets lie that some tests read; without them these tests are skipped."""

import os
from pathlib import Path

from support.paths import ROOT

__all__ = ["DATA"]

DATA = Path(os.environ.get("SAMCLS_TEST_DATA") or ROOT.parent / "shared" / "data")
