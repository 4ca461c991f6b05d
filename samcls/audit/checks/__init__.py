"""What is looked for, in the order in which it is told: one file a kind, one line here."""

from collections.abc import Callable, Iterator

from samcls.audit.checks import (
    acquisition,
    balance,
    groups,
    labels,
    pictures,
    pretraining,
    topic,
    twins,
)
from samcls.audit.finding import Finding
from samcls.audit.material import Material

__all__ = ["CHECKS"]

Note = Callable[[str], None]

CHECKS: tuple[Callable[[Material, Note], Iterator[Finding]], ...] = (
    twins.find,
    groups.find,
    pretraining.find,
    labels.find,
    topic.find,
    pictures.find,
    balance.find,
    acquisition.find,
)
