"""A stranger's run folder cannot run code, whichever of its files is poisoned."""

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.deployed import Deployed

import samcls
from samcls.deploy.card import card_of
from samcls.deploy.evaluate import evaluate, load_evaluation
from samcls.deploy.predict import predict
from samcls.errors import SamclsError
from samcls.learn.runs.folder import MARK, SUMMARY
from samcls.learn.runs.page import page_of

FILES = (
    "config.toml",
    "fingerprint.json",
    "metrics.json",
    "predictions.csv",
    "history.csv",
    "controls.csv",
    "known.safetensors",
    "head.json",
    "head.safetensors",
    "environment.json",
    MARK,
)


class Poison:
    """Unpickled, it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"__import__('pathlib').Path({str(self.trace)!r}).touch()",))


def poisons(trace: Path) -> dict[str, bytes]:
    """A pickle, torch's archive of one, and NumPy's."""
    saved, array = io.BytesIO(), io.BytesIO()
    torch.save({"weight": Poison(trace)}, saved)
    np.savez(array, weight=np.array([Poison(trace)], dtype=object))
    return {
        "pickle": pickle.dumps(Poison(trace)),
        "torch": saved.getvalue(),
        "npz": array.getvalue(),
    }


def test_the_poisons_work(tmp_path: Path) -> None:
    """Read by what trusts them, they leave their trace: otherwise these tests could not fail."""
    for name, content in poisons(tmp_path / "trace").items():
        (tmp_path / "trace").unlink(missing_ok=True)
        if name == "pickle":
            pickle.loads(content)  # noqa: S301 - that it is dangerous is the point
        elif name == "torch":
            torch.load(io.BytesIO(content), weights_only=False)
        else:
            dict(np.load(io.BytesIO(content), allow_pickle=True))
        assert (tmp_path / "trace").exists(), name


KINDS = ("pickle", "torch", "npz")
CASES = [(name, KINDS[i % 3]) for i, name in enumerate(FILES)]
CASES += [("head.safetensors", kind) for kind in KINDS if ("head.safetensors", kind) not in CASES]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_no_file_of_a_run_runs_code(made: Deployed, tmp_path: Path, name: str, kind: str) -> None:
    """With checksums that fit it: every reader refuses it, or does without what it holds."""
    run, trace = tmp_path / "run", tmp_path / "trace"
    shutil.copytree(made.run("slca", head="slca"), run)
    (run / name).write_bytes(poisons(trace)[kind])
    if name != MARK:
        mark = json.loads((run / MARK).read_text())
        mark["sha256"][name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
        (run / MARK).write_text(json.dumps(mark))
    refused = 0
    readers = (
        lambda: repr(samcls.load_run(run)),
        lambda: predict(run, [made.root / "06.png"]),
        lambda: evaluate(run, made.store, splits=["test"]),
        lambda: page_of(run),
        lambda: card_of(run),
    )
    for read in readers:
        try:
            read()
        except SamclsError:
            refused += 1
        assert not trace.exists()
    assert refused or name in {"environment.json", "history.csv", "controls.csv"}


@pytest.mark.parametrize("kind", ["pickle", "torch", "npz"])
def test_nor_does_a_summary_an_evaluation_or_a_picture(
    made: Deployed, tmp_path: Path, kind: str
) -> None:
    trace, poison = tmp_path / "trace", poisons(tmp_path / "trace")[kind]
    shutil.copytree(made.run("seeds", head="linear", seeds=3), tmp_path / "seeds")
    (tmp_path / "seeds" / SUMMARY).write_bytes(poison)
    with pytest.raises(SamclsError, match="damaged"):
        page_of(tmp_path / "seeds")
    evaluate(made.run("slca", head="slca"), made.store, tmp_path / "ev", splits=["test"])
    (tmp_path / "ev" / "evaluation.json").write_bytes(poison)
    with pytest.raises(SamclsError, match="damaged"):
        load_evaluation(tmp_path / "ev")
    for suffix in (".png", ".dcm", ".npz", ".tif"):
        (tmp_path / f"picture{suffix}").write_bytes(poison)
        try:
            found = predict(made.run("slca", head="slca"), [tmp_path / f"picture{suffix}"])
            assert found.failed == 1
        except SamclsError:
            pass
    with zipfile.ZipFile(tmp_path / "objects.npz", "w") as archive:
        array = io.BytesIO()
        np.save(array, np.full((2, 4, 4), Poison(trace), dtype=object), allow_pickle=True)
        archive.writestr("pictures.npy", array.getvalue())
    assert predict(made.run("slca", head="slca"), [tmp_path / "objects.npz"]).failed == 2
    assert not trace.exists()
