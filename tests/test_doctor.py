"""`samcls doctor` says what there is, what is missing, and what to do about it."""

import json
from pathlib import Path

import pytest
from support.cli import samcls

from samcls import doctor
from samcls.doctor import Check, examine
from samcls.encode.weights import CHECKPOINTS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.01)


def by_name(store: Path, **options: bool) -> dict[str, Check]:
    return {check.name: check for check in examine(str(store), **options)}


def test_here_nothing_stands_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check has a line of its own; weights that were not fetched are a note with the command."""
    monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path))
    found = by_name(tmp_path / "s.zarr")
    assert [check for check in found.values() if not check.ok] == []
    assert set(doctor.CHECKS) - {"object store", "disks", "weights"} <= set(found)
    assert found["weights vit_b"].state == "note"
    assert found["weights vit_b"].remedy == "samcls weights fetch vit_b"
    assert "Apache-2.0" in found["weights lite0"].found
    assert "images/s" in found["speed"].found


def test_three_things_that_are_wrong_are_each_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that was cut short, a package that is too old, a folder that is a file."""
    monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path))
    (tmp_path / CHECKPOINTS["vit_b"].file_name).write_bytes(b"half of it")
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(
        doctor.importlib.metadata, "version", lambda n: "1.0" if n == "s3fs" else real(n)
    )
    (tmp_path / "file").touch()
    found = by_name(tmp_path / "file" / "s.zarr")
    cut = found["weights vit_b"]
    assert not cut.ok
    assert "another size" in cut.found
    assert cut.remedy.endswith("samcls weights fetch vit_b")
    assert "s3fs is 1.0, expected >=" in found["extra s3"].found
    assert found["extra s3"].remedy == 'python -m pip install "samcls[s3]"'
    assert not found["disk for the store"].ok
    assert "nothing can be written there" in found["disk for the store"].found
    assert found["disk for the store"].remedy == "name a store elsewhere"


def test_a_check_that_fails_is_a_problem_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(store: str, deep: bool) -> None:
        raise RuntimeError(f"no {store} today, deep {deep}")

    monkeypatch.setattr(doctor, "CHECKS", {"luck": broken})
    (found,) = examine("s.zarr", deep=True)
    assert found == Check(
        "luck", "problem", "this could not be looked at: no s.zarr today, deep True"
    )


def test_a_bucket_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"object store": doctor.CHECKS["object store"]})
    (found,) = examine("nosuchscheme://bucket/s.zarr")
    assert not found.ok
    assert "nosuchscheme://bucket/s.zarr does not answer" in found.found


def test_the_verb_prints_lines_and_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 where something stands in the way."""
    good = lambda *_: iter([Check("sun", "ok", "it shines")])  # noqa: E731
    bad = lambda *_: iter([Check("rain", "problem", "it falls", "take an umbrella")])  # noqa: E731
    monkeypatch.setattr(doctor, "CHECKS", {"sun": good})
    assert "Nothing stands in the way." in samcls("doctor").stdout
    monkeypatch.setattr(doctor, "CHECKS", {"sun": good, "rain": bad})
    done = samcls("doctor", "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert values["ok"] is False
    assert [set(check) for check in values["checks"]] == [
        {"name", "state", "found", "remedy", "ok"}
    ] * 2
    assert "-> take an umbrella" in samcls("doctor").stdout
