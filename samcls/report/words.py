"""Sentences that a run's files allow: for the paper's methods and results, and for checklists.

    facts = facts_of(about)
    facts["selection"]           # parts of a sentence, each number with its source; absent where not known

A fact is a function and a line in `FACTS`. One that raises CannotShow is not there.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from samcls.report import methods_words, results_words
from samcls.report.about import About
from samcls.report.blocks import Part
from samcls.report.subject import CannotShow

__all__ = ["FACTS", "METHODS", "RESULTS", "facts_of"]

Parts = Iterator[Part]

# In which order facts make the paragraphs of a paper.
METHODS = (
    "data_source", "data_counts", "groups", "labels", "preprocessing", "encoder", "model", "training", "selection",
    "threshold", "baselines", "metrics", "uncertainty", "test_opened", "environment",
)  # fmt: skip
RESULTS = (
    "performance",
    "claims",
    "calibration",
    "utility",
    "subgroups",
    "robustness",
    "audit",
    "external",
)


@lru_cache(maxsize=1)  # two sections tell them
def facts_of(about: About) -> dict[str, tuple[Part, ...]]:
    """Return the sentences that can be told, by name."""
    if not about.subject.runs and not about.subject.external:
        return {}
    found = {}
    for name, tell in FACTS.items():
        try:
            parts = tuple(tell(about))
        except (CannotShow, KeyError):  # of a run of an earlier version, which lacks it
            continue
        if parts:
            found[name] = parts
    return found


FACTS: Mapping[str, Callable[[About], Parts]] = {
    "model": methods_words.model,
    "data_source": methods_words.data_source,
    "data_counts": methods_words.data_counts,
    "groups": methods_words.groups,
    "labels": methods_words.labels,
    "audit": methods_words.audit,
    "preprocessing": methods_words.preprocessing,
    "encoder": methods_words.encoder,
    "training": methods_words.training,
    "selection": methods_words.selection,
    "test_opened": methods_words.test_opened,
    "threshold": methods_words.threshold,
    "uncertainty": methods_words.uncertainty,
    "metrics": methods_words.metrics,
    "performance": results_words.performance,
    "claims": results_words.claims,
    "calibration": results_words.calibration,
    "utility": results_words.utility,
    "baselines": methods_words.baselines,
    "sample_size": results_words.sample_size,
    "subgroups": results_words.subgroups,
    "failures": results_words.failures,
    "explain": results_words.explain,
    "external": results_words.external,
    "robustness": results_words.robustness,
    "environment": methods_words.environment,
    "cost": methods_words.cost,
    "commands": methods_words.commands,
    "model_files": methods_words.model_files,
}
