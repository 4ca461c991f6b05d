"""`samcls run`: a pipeline's steps, each done only where something that it rests on changed; stop it anywhere, and it goes on.

    found = run_pipeline(load_pipeline("study.toml"), log=print)
    [(step.name, step.state, step.seconds) for step in found.steps]

A step is a process of its own, whose words stand in `NAME.logs/STEP.log`. One that fails stops what needs it, and nothing else. What
a step made before and would make otherwise now is kept beside it, as `NAME.before-1`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samcls.errors import ConfigError, InputError, RunError
from samcls.files import meant
from samcls.pipeline.file import Pipeline, Step
from samcls.pipeline.state import State, key_of

__all__ = ["Done", "Ran", "run_pipeline"]

Log = Callable[[str], None]
Execute = Callable[[Sequence[str], Path, Path], int]

DONE, KEPT, FAILED, WAITS, WOULD = "done", "kept", "failed", "waits", "would run"


@dataclass(frozen=True)
class Done:
    """What became of a step.

    Attributes:
        step: Its name.
        state: `done`, `kept` (nothing changed), `failed`, `waits` (a step that it needs failed), or of a dry run
            `would run`.
        why: What changed, or what went wrong.
        seconds: That it took, now or when it was done; None where it never was.
        makes: What it makes.
        price: Of a dry run, what `samcls extract --plan` says: minutes and GB; "" of others.
    """

    step: str
    state: str
    why: str
    seconds: float | None
    makes: str | None
    price: str = ""


@dataclass(frozen=True)
class Ran:
    """What became of a pipeline.

    Attributes:
        pipeline: Its file.
        steps: In its order.
    """

    pipeline: str
    steps: tuple[Done, ...]

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return not any(one.state in (FAILED, WAITS) for one in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {
            "pipeline": self.pipeline,
            "ok": self.ok,
            "steps": [asdict(one) for one in self.steps],
        }


def run_pipeline(
    pipeline: Pipeline,
    *,
    start: str | None = None,
    dry: bool = False,
    execute: Execute | None = None,
    log: Log = lambda _: None,
) -> Ran:
    """Do what has changed.

    Args:
        pipeline: The file.
        start: Name of a step that is done again with all that follow from it, changed or not.
        dry: Whether to say what would be done and what encoding would cost, and do nothing.
        execute: Runs a command, given its arguments, the folder and the file of its words; returns its exit
            status. By default a process of its own.
        log: Called with a line as each step begins and ends.

    Raises:
        ConfigError: there is no step `start`.
        RunError: another process runs the pipeline.
    """
    names = [step.name for step in pipeline.steps]
    if start is not None and start not in names:
        raise ConfigError(
            f"there is no step {start}{meant(start, names)}; there are {', '.join(names)}"
        )
    state = State.of(pipeline)
    if dry:
        return _run(pipeline, state, start, _would, log)
    with _alone(pipeline):
        return _run(pipeline, state, start, _doing(execute or _process, state, log), log)


Do = Callable[[Pipeline, Step, str, Mapping[str, str], str], Done]


def _run(pipeline: Pipeline, state: State, start: str | None, do: Do, log: Log) -> Ran:
    again = _following(pipeline, start)
    found: dict[str, Done] = {}
    keys: dict[str, str] = {}
    for step in pipeline.steps:
        key, parts = key_of(pipeline, step, keys)
        keys[step.name] = key
        lost = [name for name in step.needs if found[name].state in (FAILED, WAITS)]
        if lost:
            found[step.name] = Done(step.name, WAITS, f"step {lost[0]} failed", None, step.makes)
            continue
        why = state.why(step, key, parts, pipeline.folder)
        if not why and step.name in again:
            why = f"asked for from step {start}"
        redone = [name for name in step.needs if found[name].state == WOULD]
        if not why and redone:
            why = f"step {redone[0]} would be done again"
        if not why:
            seconds = state.steps[step.name].get("seconds")
            found[step.name] = Done(step.name, KEPT, "nothing changed", seconds, step.makes)
            log(f"{step.name}: kept, nothing changed")
            continue
        found[step.name] = do(pipeline, step, key, parts, why)
    return Ran(str(pipeline.path), tuple(found.values()))


def _following(pipeline: Pipeline, start: str | None) -> set[str]:
    """Return a step and all that need it, however far."""
    found = set() if start is None else {start}
    for step in pipeline.steps:
        if found & set(step.needs):
            found.add(step.name)
    return found


def _would(pipeline: Pipeline, step: Step, key: str, parts: Mapping[str, str], why: str) -> Done:
    del key, parts
    return Done(step.name, WOULD, why, None, step.makes, _price(pipeline, step))


def _price(pipeline: Pipeline, step: Step) -> str:
    """Return what encoding would cost, as `samcls extract --plan` says, where the manifest is there already."""
    if step.verb != "extract" or not (pipeline.folder / step.arguments[1]).exists():
        return ""
    command = [sys.executable, "-m", "samcls", *step.arguments, "--plan", "--json"]
    done = subprocess.run(  # noqa: S603 - the very Python that runs this
        command, cwd=pipeline.folder, capture_output=True, text=True, check=False
    )
    try:
        asked = json.loads(done.stdout)["plan"][0]
    except (ValueError, KeyError, IndexError):
        return (
            "the price cannot be told: " + (done.stderr.strip().splitlines() or ["no reason"])[-1]
        )
    return f"{asked['minutes']:.1f} min, {asked['bytes'] / 1e9:.2f} GB, {asked['memory'] / 1e9:.1f} GB of memory"


def _doing(execute: Execute, state: State, log: Log) -> Do:
    def do(pipeline: Pipeline, step: Step, key: str, parts: Mapping[str, str], why: str) -> Done:
        log(f"{step.name}: {why}; samcls {' '.join(step.arguments)}")
        aside = _set_aside(pipeline, step, state, key)
        if aside:
            log(f"{step.name}: what was there is kept as {aside}")
        state.begun(step, key)
        words = pipeline.path.with_suffix(".logs") / f"{step.name}.log"
        words.parent.mkdir(exist_ok=True)
        begun = time.monotonic()
        status = execute(step.arguments, pipeline.folder, words)
        seconds = time.monotonic() - begun
        # 3: finished, but some images failed and are listed.
        if status not in (0, 3):
            lines = words.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            told = f"exit status {status}: {lines[-1] if lines else 'it said nothing'}"
            log(f"{step.name}: failed; {told}")
            return Done(step.name, FAILED, told, round(seconds, 3), step.makes)
        state.ended(step, key, parts, seconds)
        log(f"{step.name}: done in {seconds:.1f} s")
        return Done(step.name, DONE, why, round(seconds, 3), step.makes)

    return do


def _set_aside(pipeline: Pipeline, step: Step, state: State, key: str) -> str:
    """Keep beside it what a step made otherwise before; return its new name, "" where nothing was in the way."""
    if step.makes is None or step.kind.resumes or state.goes_on(step, key):
        return ""
    place = pipeline.folder / step.makes
    if step.name not in state.steps or not place.exists():
        return ""
    number = 1
    while (aside := place.with_name(f"{place.name}.before-{number}")).exists():
        number += 1
    place.rename(aside)
    return aside.name


def _process(arguments: Sequence[str], folder: Path, words: Path) -> int:
    """Run a command in a process of its own; what it says goes to a file, and to standard error too."""
    command = [sys.executable, "-m", "samcls", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        words.open("w", encoding="utf-8") as file,
        subprocess.Popen(command, cwd=folder, **pipes) as process,  # noqa: S603 - the very Python that runs this
    ):
        try:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                sys.stderr.write(f"  {line}")
        except BaseException:  # the step is stopped with its pipeline
            process.terminate()
            raise
    return process.returncode


class _alone:  # noqa: N801 - reads as the word that it is
    """Hold a pipeline while it runs; the system lets go of it if this process dies."""

    def __init__(self, pipeline: Pipeline) -> None:
        from filelock import FileLock

        self.pipeline = pipeline
        self.lock = FileLock(pipeline.path.with_suffix(".lock"), timeout=0)

    def __enter__(self) -> None:
        from filelock import Timeout

        if not os.access(self.pipeline.folder, os.W_OK):
            raise InputError(
                f"{self.pipeline.folder} cannot be written: a pipeline keeps its state beside its file"
            )
        try:
            self.lock.acquire()
        except Timeout as error:
            raise RunError(
                f"{self.pipeline.path} runs already, in another process; wait for it"
            ) from error

    def __exit__(self, *_: object) -> None:
        self.lock.release()
