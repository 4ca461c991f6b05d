"""The verbs that look after a store, by their output and exit status."""

import json
from pathlib import Path

import typer
from support.stores import make_parted, table
from typer.testing import CliRunner

from samcls.cli.store import register


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["store", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_verify_names_the_images_and_exits_1(tmp_path: Path) -> None:
    """A sound store exits 0; a damaged one exits 1 with row, level and kind, and says what to do."""
    path = tmp_path / "s.zarr"
    make_parted(path)
    status, out, _ = run("verify", str(path), "--json")
    assert (status, json.loads(out)["ok"], json.loads(out)["checked"]) == (0, True, 21)
    (path / "features/neck/c/2/0/0/0/0").unlink()
    status, out, _ = run("verify", str(path), "--json")
    values = json.loads(out)
    assert (status, values["ok"]) == (1, False)
    assert [(p["row"], p["level"], p["kind"]) for p in values["problems"]] == [
        (row, "neck", "shard missing") for row in range(16, 21)
    ]
    status, out, err = run("verify", str(path))
    assert status == 1
    assert f"shard missing: neck, row 16 ({table(21).ids[16]})" in err
    assert f"samcls store repair {path}" in out


def test_info_says_what_is_there(tmp_path: Path) -> None:
    """Counts, levels and the fingerprint are shown."""
    make_parted(tmp_path / "s.zarr")
    status, out, _ = run("info", str(tmp_path / "s.zarr"))
    assert status == 0
    assert "21 images: 21 done, 0 failed, 0 pending" in out
    assert "encoder: vit_t" in out
