"""Standard output that is full or closed is no defect: one line at most, and an honest exit status."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m samcls"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("verb", ["weights list", "weights list --json", "--help", "--version"])
def test_a_full_output_is_one_line_and_status_1(verb: str) -> None:
    """A disk that is full under the output is said once, and nothing is called a defect."""
    done = shell(f"{COMMAND} {verb} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: No space left")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["weights list", "--help"])
def test_a_reader_that_leaves_is_met_with_silence(verb: str) -> None:
    """A pipe whose reader has ended leaves no message behind, and no status 0."""
    done = shell(f"{COMMAND} {verb} | true")
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_do_not_stop_the_work(closed: str) -> None:
    """Without standard streams, as under some schedulers, a verb does its work and ends with 0."""
    done = shell(f"{COMMAND} weights list {closed}")
    assert (done.returncode, done.stderr) == (0, "")
