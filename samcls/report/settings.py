"""How a report is made: options that a TOML file may hold too.

config = ReportConfig(silence=("SC010",))
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from samcls.config import Config, documented, option

__all__ = ["ReportConfig"]

_shown = partial(option, role="figures", group="Evaluation")


@documented
@dataclass(frozen=True)
class ReportConfig(Config):
    """What a report shows."""

    lang: Literal["en"] = _shown("en", "Language of the report.")
    silence: tuple[str, ...] = _shown(
        (),
        "Codes of checks that are known and accepted, such as SC010; they are listed as such.",
        distinct=True,
    )
    worst: int = _shown(12, "Failures that are shown, the worst by loss.", at_least=0, at_most=200)
