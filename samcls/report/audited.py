"""An audit of the store that a run was trained on, made beside its report: features alone, nothing trained again."""

from collections.abc import Callable
from typing import Any

from samcls.audit.audit import audit
from samcls.audit.effect import effect_of
from samcls.audit.material import material_of
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
    try:
        found = audit(store)
    except SamclsError as error:
        log(f"no audit: {error}")
        return {}
    told = found.to_dict() | {"made": "beside the report, from the store's features alone"}
    if subject.kind in ("run", "seeds", "sweep") and all(run.scored for run in subject.runs):
        folder = subject.run.path.parent if len(subject.runs) > 1 else subject.run.path
        try:
            told["effect"] = effect_of(material_of(store), found, folder, retrain=False)
        except SamclsError as error:
            log(f"no figures without the findings: {error}")
    return told
