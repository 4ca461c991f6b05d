"""Any table of images, as a hospital or a challenge hands it over, to a manifest.

The table is read once and each picture's header for its number of frames. All that is wrong is reported
together, by line. 10,000 images take about five seconds.

    summary = table_manifest(
        "export.xlsx", "skin.csv", path="file", images="pictures/", label=["diagnosis"],
        group="patient_id", meta=["sex", "age"], positive=["melanoma"],
    )
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated

from samcls.data.columns import TaskColumn
from samcls.data.frames import frames_of
from samcls.data.labels import near_misses, read_task, unused_missing
from samcls.data.locate import Locator
from samcls.data.manifest import SPLIT_SPELLINGS, Row
from samcls.data.manifest_file import refuse_existing
from samcls.data.pictures import FrameRule
from samcls.data.sources.options import Frames, Ordinal, Out, Overwrite, Positive, Seed, Split
from samcls.data.splits import SHARES, draw_missing_splits, shares_of
from samcls.data.summary import Summary, finish, listed
from samcls.data.tabular import Table, read_table, refuse
from samcls.data.tree import SHOWN, existing_folder
from samcls.errors import ConfigError

__all__ = ["table_manifest"]


def table_manifest(
    file: Annotated[str | Path, "CSV, TSV, Excel (.xlsx) or Parquet, a row for each image."],
    out: Out,
    *,
    path: Annotated[str, "Column of the image files; a name without suffix will do."] = "",
    images: Annotated[str, "Folder of the images; by default the table's own."] = "",
    label: Annotated[
        Sequence[str],
        "Columns to learn, comma-separated or repeated, each by its name or as TASK=COLUMN.",
    ] = (),
    id_column: Annotated[str, "--id", "Column of unique names; by default the files' names."] = "",
    group: Annotated[str, "Column of the patient or lesion, whose images stay in one split."] = "",
    split: Split = "",
    split_column: Annotated[str, "Column that holds train, val and test, in place of a draw."] = "",
    meta: Annotated[
        Sequence[str],
        "Columns to keep for reports, comma-separated; training never sees them.",
    ] = (),
    positive: Positive = (),
    ordinal: Ordinal = (),
    missing: Annotated[
        Sequence[str], "Texts that mean a missing label, comma-separated, such as nan,NA."
    ] = (),
    frames: Frames = "all",
    sheet: Annotated[str, "Of an Excel workbook; the first by default."] = "",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> Summary:
    """From any table, CSV, Excel or Parquet, with whole patients in one split each.

    A file that is not there under its name is looked for by name below the image folder, where
    exactly one may fit. Rows without a file are left out and counted; rows that repeat another are
    dropped.

    Args:
        file: The table; its first line names the columns.
        out: The CSV to write, beside which paths are relative.
        path: Column of the image files.
        images: Folder that they are relative to.
        label: Columns to learn, each a task.
        id_column: Column of unique names.
        group: Column of what must not be divided; no cell of it may be empty.
        split: Shares of train, val and test.
        split_column: Column of given splits, in any common spelling.
        meta: Columns to keep.
        positive: Which of a task's two classes sensitivity and its like are of.
        ordinal: Tasks whose classes are steps of one scale.
        missing: What means a missing label, beside an empty cell.
        frames: Which frames of a file with several are rows: all, first or middle. The file is
            their group where there is no other.
        sheet: Of a workbook.
        seed: The same table and seed give the same splits.
        overwrite: Replace a manifest that is there.

    Raises:
        ManifestError: With everything that is wrong with the table: columns, paths, ids, splits.
        ConfigError: Options that do not go together.
        OverwriteRefused: Something is at `out` already.
    """
    source, out = Path(file), Path(out)
    if os.path.realpath(source) == os.path.realpath(out):
        raise ConfigError(f"the manifest would replace the table {source}: name another file")
    refuse_existing(out, overwrite=overwrite)
    if split and split_column:
        raise ConfigError(
            "--split and --split-column do not go together: a split is drawn or given"
        )
    shares = shares_of(split or SHARES)
    rule = FrameRule(frames)
    table = read_table(source, sheet or None)
    chosen = _columns(table, path, label, id_column, group, split_column, meta)
    locator = Locator(existing_folder(images or source.parent))
    reader = _Reader(table, chosen, locator, listed(missing))
    records = reader.records()
    rows = [row for record in records for row in _rows(record, rule)]
    rows, notes = draw_missing_splits(rows, shares, seed)
    return finish(
        rows,
        list(chosen.tasks),
        out,
        meta=list(chosen.meta),
        positive=positive,
        ordinal=ordinal,
        notes=[*table.notes, *reader.notes, *locator.notes(), *rule.notes(), *notes],
        remarks=reader.remarks,
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _Columns:
    """The columns that are used, each named as in the table."""

    path: str
    id: str
    group: str
    split: str
    tasks: dict[str, str]
    meta: dict[str, str]


@dataclass(frozen=True)
class _Record:
    """A row of the table whose file is there."""

    id: str
    file: str
    group: str
    split: str
    labels: tuple[str, ...]
    meta: tuple[str, ...]


def _columns(
    table: Table,
    path: str,
    label: Sequence[str],
    id_column: str,
    group: str,
    split_column: str,
    meta: Sequence[str],
) -> _Columns:
    """Return the columns that the options name; all that are not there are named together."""
    problems = []
    if not path:
        problems.append("no --path: name the column of the image files")
    if not label:
        problems.append("no --label: name the column to learn, and repeat it for several")
    tasks: dict[str, str] = {}
    kept: dict[str, str] = {}
    for option, texts, named in (
        ("--label", listed(label, table.columns), tasks),
        ("--meta", listed(meta, table.columns), kept),
    ):
        for text in texts:
            name, mark, column = text.partition("=")
            if text in table.columns or not mark:
                name = column = text
            if name in named:
                problems.append(f"{option} {name} is given twice")
            named[name.strip()] = column.strip()
    options = [("--path", path), ("--id", id_column), ("--group", group)]
    options += [("--split-column", split_column)]
    options += [("--label", column) for column in tasks.values()]
    options += [("--meta", column) for column in kept.values()]
    problems += [
        f"{option} {column}: there is no such column{near_misses(column, table.columns)}"
        for option, column in options
        if column and column not in table.columns
    ]
    problems += [
        f"--label {column} and --meta {column}: what is learned is not kept from training"
        for column in tasks.values()
        if column in kept.values()
    ]
    used = {column for _, column in options}
    problems += [fault for column, fault in table.faults if column in used - {""}]
    shown = ", ".join(column or "(no name)" for column in table.columns)
    refuse(table.source, problems, f"Columns found: {shown}.")
    return _Columns(path, id_column, group, split_column, tasks, kept)


class _Reader:
    """Turns the table's rows into records, and keeps each problem met on the way."""

    def __init__(
        self, table: Table, chosen: _Columns, locator: Locator, missing: Sequence[str]
    ) -> None:
        self.table = table
        self.chosen = chosen
        self.locator = locator
        self.missing = list(missing)
        self.notes: list[str] = []
        self.remarks: list[str] = []
        self.problems: list[str] = []
        self.first: dict[str, tuple[int, _Record]] = {}
        self.repeated: list[int] = []

    def records(self) -> list[_Record]:
        """All rows with a file, once each; every problem of the table is raised together."""
        cells = {name: self.table.column(name) for name in self._used()}
        splits = self._splits(cells)
        tasks = self.chosen.tasks.items()
        labels = [self._labels(task, cells[column]) for task, column in tasks]
        spelled = [cell for _, column in tasks for cell in cells[column]]
        self.remarks += unused_missing(self.missing, spelled)
        meta = [cells[column] for column in self.chosen.meta.values()]
        blank = [""] * len(self.table.rows)
        ids = cells.get(self.chosen.id, blank)
        groups = cells.get(self.chosen.group, blank)
        self._refuse_empty("--id", self.chosen.id, ids)
        self._refuse_empty("--group", self.chosen.group, groups)
        for i, (line, name) in enumerate(
            zip(self.table.lines, cells[self.chosen.path], strict=True)
        ):
            own = tuple(column[i] for column in labels), tuple(column[i] for column in meta)
            self._add(line, name, ids[i], groups[i], splits[i], *own)
        records = self._identified()
        self._check_classes(records)
        refuse(self.table.source, self.problems)
        self._tell()
        return records

    def _used(self) -> set[str]:
        chosen = self.chosen
        named = {chosen.path, chosen.id, chosen.group, chosen.split} - {""}
        return named | set(chosen.tasks.values()) | set(chosen.meta.values())

    def _labels(self, task: str, cells: Sequence[str]) -> tuple[str, ...]:
        found = read_task(TaskColumn(task), cells, self.missing)
        self.remarks += found.remarks
        if gone := found.texts.count("") - list(cells).count(""):
            self.notes.append(f"{task}: {gone} label(s) that --missing names were read as missing")
        return found.texts

    def _splits(self, cells: dict[str, list[str]]) -> list[str]:
        column = self.chosen.split
        if not column:
            return [""] * len(self.table.rows)
        found = [SPLIT_SPELLINGS.get(cell.lower(), "") for cell in cells[column]]
        wrong = Counter(cell for cell, split in zip(cells[column], found, strict=True) if not split)
        if wrong:
            shown = ", ".join(f"{cell!r} ({count})" for cell, count in wrong.most_common(SHOWN))
            more = f" and {len(wrong) - SHOWN} other values" if len(wrong) > SHOWN else ""
            problem = f"column {column!r}: {shown}{more}: expected train, val or test in every row"
            if len(wrong) <= 20 and all(map(str.isdigit, wrong)):
                problem += (
                    "; these look like numbers of folds: leave the option out and train with "
                    "--folds, or add a column that says train, val or test for each fold"
                )
            self.problems.append(problem)
        return found

    def _refuse_empty(self, option: str, column: str, cells: list[str]) -> None:
        lines = [str(line) for line, cell in zip(self.table.lines, cells, strict=True) if not cell]
        if column and lines:
            self.problems.append(
                f"{option} {column} is empty in {len(lines)} row(s), lines "
                f"{', '.join(lines[:SHOWN])}: fill it in, with a value of its own where it is not "
                "known"
            )

    def _add(
        self,
        line: int,
        name: str,
        id_: str,
        group: str,
        split: str,
        labels: tuple[str, ...],
        meta: tuple[str, ...],
    ) -> None:
        if not name:
            self.problems.append(f"line {line}: the path is empty")
            return
        file, problem = self.locator.find(name)
        if file is None:
            self.problems += [f"line {line}: {problem}"] if problem else []
            return
        record = _Record(id_, file, group, split, labels, meta)
        first, known = self.first.setdefault(os.path.realpath(file), (line, record))
        if first == line:
            return
        if known == record:
            self.repeated.append(line)
        else:
            self.problems.append(
                f"line {line}: the image {name} stands on line {first} too, with other values: keep "
                "one row for each image"
            )

    def _identified(self) -> list[_Record]:
        """Return the records with their ids: those of the column, else the shortest names that are unique."""
        records = [record for _, record in self.first.values()]
        if self.chosen.id:
            lines = {record.id: [] for record in records}  # type: dict[str, list[int]]
            for line, record in self.first.values():
                lines[record.id].append(line)
            self.problems += [
                f"--id {self.chosen.id}: {name!r} is the id of {len(own)} images, lines "
                f"{', '.join(map(str, own[:SHOWN]))}"
                for name, own in lines.items()
                if name and len(own) > 1
            ]
            return records
        names = [PurePath(record.file).stem for record in records]
        if len(set(names)) < len(names):
            home = self.locator.base
            names = [PurePath(os.path.relpath(record.file, home)).as_posix() for record in records]
        return [
            _Record(name, record.file, record.group, record.split, record.labels, record.meta)
            for name, record in zip(names, records, strict=True)
        ]

    def _check_classes(self, records: Sequence[_Record]) -> None:
        if not records:
            if self.locator.absent:
                self.problems.append(
                    f"none of the {len(self.locator.absent)} images is in {self.locator.base}, the "
                    f"first would be {self.locator.absent[0]}: name their folder with --images"
                )
            return
        for place, task in enumerate(self.chosen.tasks):
            found = Counter(record.labels[place] for record in records)
            labelled = len(records) - found.pop("", 0)
            if len(found) < 2:
                held = ", ".join(found) or "no label at all"
                self.problems.append(f"--label {task}: expected two classes or more, got {held}")
            elif len(found) > 20 and 2 * len(found) > labelled:
                self.notes.append(
                    f"WARNING: {task} has {len(found)} classes in {labelled} labelled images: is it "
                    "a measurement? What is not to be learned belongs to --meta"
                )

    def _tell(self) -> None:
        if self.repeated:
            shown = ", ".join(map(str, self.repeated[:SHOWN]))
            self.notes.append(
                f"{len(self.repeated)} row(s) repeat another and were dropped, lines {shown}"
            )
        if absent := self.locator.absent:
            more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
            self.notes.append(
                f"WARNING: {len(absent)} image(s) are not in {self.locator.base}, and their rows "
                f"were left out: {', '.join(absent[:SHOWN])}{more}"
            )


def _rows(record: _Record, rule: FrameRule) -> list[Row]:
    frames = rule.rows_of(frames_of(record.file))
    group = record.group or (record.id if len(frames) > 1 else "")
    return [
        Row(
            record.id + one.suffix,
            record.file,
            one.index,
            record.split,
            group,
            record.labels,
            record.meta,
        )
        for one in frames
    ]
