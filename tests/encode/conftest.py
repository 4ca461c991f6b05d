"""What several tests of stage one share."""

import importlib

import pytest
from segment_anything.modeling import Sam


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the official builders in depth, not in any other shape, to fit a laptop's memory."""
    # the package exports a function of the module's own name, so the attribute is not the module
    builders = importlib.import_module("segment_anything.build_sam")
    whole = builders._build_sam

    def two_blocks(**kwargs: object) -> Sam:
        return whole(**{**kwargs, "encoder_depth": 2, "encoder_global_attn_indexes": [1]})

    monkeypatch.setattr(builders, "_build_sam", two_blocks)
