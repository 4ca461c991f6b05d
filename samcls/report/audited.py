"""An audit of the store that a run was trained on, made beside its report: features alone, nothing trained again."""

from collections.abc import Callable
from typing import Any

from samcls.audit.audit import audit
from samcls.errors import SamclsError
from samcls.report.subject import Subject

__all__ = ["audited"]

MOST = 20_000  # images, beyond which an audit takes longer than a report should

Log = Callable[[str], None]


def audited(subject: Subject, log: Log = lambda _: None) -> dict[str, Any]:
    """Return findings as JSON knows them, with figures without affected images; nothing where there is no store.

    Args:
        subject: What is reported.
        log: Called with what is being done.
    """
    store = subject.store
    if store is None or subject.external or not subject.runs or len(store.ids) > MOST:
        return {}
    log(f"auditing {store.path}")
    known = not subject.folds and all(run.scored for run in subject.runs)
    folder = subject.run.path.parent if len(subject.runs) > 1 else subject.run.path
    try:
        found = audit(store, run=folder if known else None, retrain=False)
    except SamclsError as error:
        log(f"no audit: {error}")
        return {}
    return found.to_dict() | {"made": "beside the report, from the store's features alone"}
