"""Coded checks of a run: what a reviewer would ask first, each with a sentence and a remedy.

    for check in checks_of(results):
        print(check.code, check.level, check.sentence)

`error` is what makes figures wrong or empty, `warning` what a reader must know to read them, `note` what is worth
doing. A check is a function and a line in `CHECKS`; what it cannot judge it leaves out. Limits are our own choice
unless a source is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samcls.errors import ConfigError
from samcls.files import meant
from samcls.report.looks import Found, Level, data, figures
from samcls.report.results import Results
from samcls.report.subject import CannotShow

__all__ = ["CHECKS", "Check", "Checked", "checks_of"]


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        code: Such as SC001.
        level: `error`, `warning` or `note`.
        sentence: What was found.
        remedy: What to do.
        silenced: Whether the config accepts it.
    """

    code: str
    level: Level
    sentence: str
    remedy: str
    silenced: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return vars(self).copy()


@dataclass(frozen=True)
class Checked:
    """What all checks came to.

    Attributes:
        found: Errors first, silenced ones last.
        passed: Code and title of those that found nothing.
        unjudged: Code, title and the reason of those that could not be judged.
    """

    found: tuple[Check, ...]
    passed: tuple[tuple[str, str], ...]
    unjudged: tuple[tuple[str, str, str], ...]

    @property
    def errors(self) -> tuple[Check, ...]:
        """Those of level error that the config does not accept."""
        return tuple(one for one in self.found if one.level == "error" and not one.silenced)


@dataclass(frozen=True)
class Kind:
    """A check.

    Attributes:
        title: What it asks, in a few words.
        look: Yields what it found; raises CannotShow where it cannot judge.
        each: Whether it is asked of each task.
    """

    title: str
    look: Callable[..., Found]
    each: bool = False


def checks_of(results: Results, silence: Sequence[str] = ()) -> Checked:
    """Return what the checks came to.

    Args:
        results: Of what is reported.
        silence: Codes that are accepted.

    Raises:
        ConfigError: a code to silence is none.
    """
    for code in silence:
        if code not in CHECKS:
            raise ConfigError(
                f"silence: there is no check {code}{meant(code, CHECKS)}; known are {', '.join(CHECKS)}"
            )
    found: list[Check] = []
    passed, unjudged = [], []
    for code, kind in CHECKS.items():
        own: list[Check] = []
        reasons: list[str] = []
        for arguments in [(task,) for task in results.subject.tasks] if kind.each else [()]:
            try:
                told = list(kind.look(results, *arguments))
            except CannotShow as reason:
                reasons.append(str(reason))
                continue
            except KeyError as lacking:
                reasons.append(f"the run's files hold no {lacking}, being of an earlier version")
                continue
            own += [Check(code, level, said, todo, code in silence) for level, said, todo in told]
        found += own
        if reasons or (kind.each and not results.subject.tasks):
            why = "; ".join(dict.fromkeys(reasons)) or results.subject.reason
            unjudged.append((code, kind.title, why))
        elif not own:
            passed.append((code, kind.title))
    order = ("error", "warning", "note")
    found.sort(key=lambda one: (one.silenced, order.index(one.level)))
    return Checked(tuple(found), tuple(passed), tuple(unjudged))


# A check is a function and a line.
CHECKS: Mapping[str, Kind] = {
    "SC001": Kind("no leak across splits", data.leak),
    "SC002": Kind("ahead of the best control", figures.control, each=True),
    "SC003": Kind("seeds agree", figures.seeds, each=True),
    "SC004": Kind("best setting inside the space", figures.edge),
    "SC005": Kind("test large enough for the claim", figures.small, each=True),
    "SC006": Kind("calibrated", figures.calibrated, each=True),
    "SC007": Kind("subgroups alike", figures.subgroups, each=True),
    "SC008": Kind("test opened once", data.opened),
    "SC009": Kind("encoder trained", data.untrained),
    "SC010": Kind("patients named where images are grouped", data.groups),
    "SC011": Kind("run finished", data.unfinished),
    "SC012": Kind("every class in the test", data.absent, each=True),
    "SC013": Kind("validation not flattered by choosing", figures.flattered, each=True),
    "SC014": Kind("images encoded", data.left_out),
    "SC015": Kind("as good elsewhere as inside", figures.elsewhere, each=True),
}
