"""The law of damage: a command with a damaged file names it, or does the same as with an undamaged file.

Every file of a run, an artefact, a search, a distillation and a cross-validation is damaged in every way, for every
command that reads it. The files are those that are there, so that new ones are tried as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import shutil
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_iris

from bmcli import records
from bmcli.__main__ import main
from bmcli.runs import Run

from .conftest import Done

RECIPE = """\
bmcli: 1
name: NAME
seed: SEED
data: {source: {kind: builtin, name: iris}}
model: {kind: mlp, hidden: [4]}
objective: {kind: classification, calibrate: temperature}
train: {epochs: 2, batch_size: 32, tensorboard: false, optimizer: {kind: adam, learning_rate: 1e-2}}
runtime: {jit: false}
"""
SEARCH = "tune: {algorithm: random, trials: 2, confirm: none, space: {model.dropout: {float: [0, 0.5]}}}\n"
DISTILL = "distill: {teacher: {run: whole}, seeds: 1, baseline: false, losses: [{kind: soft}]}\n"
PATIENCE_S = 300  # until a command counts as hanging, as one that waits for a pipe
EXIT_CODES = (1, 2, 3, 4, 75)

# Files that no command reads: figures and pages for people, and what is written while something runs.
UNREAD = {"report.html", "card.md", "benchmark.svg", ".lock", "trials.csv", "best.yaml", "predictions.csv"}

# What a run or a distillation may be without, as if it had never been made: a distillation without its result is
# resumed. Faults advise to delete the files of a run.
OPTIONAL = {
    "environment.json", "decisions.json", "validation.json", "explanation.json", "checks.json", "origin.json",
    "benchmark.json", "evaluation.json", "result.json",
}  # fmt: skip


# Damages.


def _text(change: Callable[[str], str]) -> Callable[[Path, Path], bool]:
    """Change a text file; false if nothing changes, or if it is no text."""

    def damage(file: Path, other: Path) -> bool:
        try:
            before = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return False
        after = change(before)
        file.write_text(after, encoding="utf-8")
        return after != before

    return damage


def _record(change: Callable[[dict[str, Any]], None], sign: bool = False) -> Callable[[Path, Path], bool]:
    """Change the object of a record, or that of the first line of records.

    Args:
        sign: Give it the digest that it would have, as if an older or newer bmcli had written it.
    """

    def damage(file: Path, other: Path) -> bool:
        first, line_break, rest = _first_record(file)
        if first is None:
            return False
        changed = dict(first)
        change(changed)
        if sign:
            changed.pop("sha256", None)
            changed["sha256"] = records.compute_record_digest(changed)
        file.write_bytes(json.dumps(changed).encode() + line_break + rest)
        return changed != first

    return damage


def _first_record(file: Path) -> tuple[dict[str, Any] | None, bytes, bytes]:
    content = file.read_bytes()
    for part in (content.partition(b"\n"), (content, b"", b"")):
        with contextlib.suppress(ValueError):
            value = json.loads(part[0])
            if isinstance(value, dict):
                return value, part[1], part[2]
    return None, b"", b""


def _without_first(value: dict[str, Any]) -> None:
    del value[next(iter(value))]


def _retyped(value: Any) -> None:
    """Turn the first number into a text, and the first list into null, at any depth."""
    waiting, number, sequence = [value], True, True
    while waiting:
        each = waiting.pop(0)
        for key, item in list(each.items()) if isinstance(each, dict) else list(enumerate(each)):
            if number and isinstance(item, (int, float)) and not isinstance(item, bool):
                each[key], number = str(item), False
            elif sequence and isinstance(item, list):
                each[key], sequence = None, False
            elif isinstance(item, (dict, list)):
                waiting.append(item)


def _nest(value: dict[str, Any]) -> None:
    for _ in range(100):
        value["a"] = {"a": value.get("a")}


def _number(text: str) -> Callable[[str], str]:
    return lambda content: re.sub(r"(: )-?\d[\d.e+-]*(?=[,\n}])", rf"\g<1>{text}", content, count=1)


def _digit(content: str) -> str:
    """Change the first digit after the middle."""
    half = len(content) // 2
    return content[:half] + re.sub(r"\d", lambda found: str((int(found[0]) + 1) % 10), content[half:], count=1)


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], bool]:
    def damage(file: Path, other: Path) -> bool:
        before = file.read_bytes()
        file.write_bytes(change(before))
        return file.read_bytes() != before

    return damage


def _flipped(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :] if content else content


def _replaced(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], bool]:
    def damage(file: Path, other: Path) -> bool:
        kept = file.with_name(file.name + ".aside")
        file.rename(kept)
        make(file, kept)
        if kept.exists() and not file.is_symlink():
            kept.unlink()
        return True

    return damage


def _linked(file: Path, kept: Path) -> None:
    elsewhere = file.parents[2] / f"{file.name}-elsewhere"
    shutil.move(kept, elsewhere)
    file.symlink_to(elsewhere)


def _of_another(file: Path, other: Path) -> bool:
    if not other.is_file() or other.read_bytes() == file.read_bytes():
        return False
    shutil.copy(other, file)
    return True


def _forbidden(file: Path, other: Path) -> bool:
    file.chmod(0)
    return os.geteuid() != 0


DAMAGES: dict[str, Callable[[Path, Path], bool]] = {
    "removed": _replaced(lambda file, kept: None),
    "emptied": _bytes(lambda content: b""),
    "cut off": _bytes(lambda content: content[: len(content) // 2]),
    "a bit flipped": _bytes(_flipped),
    "a digit changed": _text(_digit),
    "without a key": _record(_without_first),
    "other types": _record(_retyped),
    "nested deeply": _record(_nest),
    "NaN": _text(_number("NaN")),
    "Infinity": _text(_number("Infinity")),
    "1e999": _text(_number("1e999")),
    "a folder": _replaced(lambda file, kept: file.mkdir()),
    "a link": _replaced(_linked),
    "a pipe": _replaced(lambda file, kept: os.mkfifo(file)),
    "of another": _of_another,
    "unreadable": _forbidden,
}
SIGNED: dict[str, Callable[[Path, Path], bool]] = {
    "without a key, signed": _record(_without_first, sign=True),
    "other types, signed": _record(_retyped, sign=True),
    "nested deeply, signed": _record(_nest, sign=True),
}
"""Only a deliberate change has a digest that is right: it may change values, but ends no command in a traceback."""


STRUCTURAL = {"removed", "emptied", "a folder", "a link", "a pipe", "unreadable"}
"""Damages that a command may notice without opening the file. All others change nothing for it."""


class OpenedFiles:
    """Watch which files of a folder are opened, by Python or by any library (inotify, Linux)."""

    _OPEN, _OVERFLOW, _EVENT = 0x20, 0x4000, struct.Struct("iIII")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._system = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._system.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}

    def __enter__(self) -> OpenedFiles:
        assert self._descriptor >= 0, "inotify is there"
        for each in (self._folder, *(path for path in self._folder.rglob("*") if path.is_dir())):
            watch = self._system.inotify_add_watch(self._descriptor, os.fsencode(each), self._OPEN)
            assert watch >= 0, f"{each}: {os.strerror(ctypes.get_errno())}"
            self._folders[watch] = each
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def read(self) -> set[str]:
        """Return the paths of the opened files, relative to the folder."""
        found = set()
        while True:
            try:
                events = os.read(self._descriptor, 2**20)
            except BlockingIOError:
                return found
            at = 0
            while at < len(events):
                watch, mask, _, length = self._EVENT.unpack_from(events, at)
                assert not mask & self._OVERFLOW, "too many files are opened to watch them"
                name = events[at + self._EVENT.size : at + self._EVENT.size + length].rstrip(b"\0")
                if name:
                    found.add(str((self._folders[watch] / os.fsdecode(name)).relative_to(self._folder)))
                at += self._EVENT.size + length


# Commands.


def call(*arguments: object) -> Done:
    """Call the command line in this process; an exception fails the test, and so does a hanging command."""

    def hang(number: int, frame: object) -> None:
        raise AssertionError("it hangs")

    out, err = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["bmcli", *map(str, arguments)]
    handler = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        sys.argv = before
    return Done(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Kept:
    """An undamaged folder of runs, with the paths of its parts."""

    root: Path
    rows: Path
    recipes: Path

    def latest(self, name: str) -> Path:
        return (self.root / name / "latest").resolve()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Kept]:
    """Two runs with all files that commands write into them."""
    folder = tmp_path_factory.mktemp("kept")
    made = Kept(folder / "runs", folder / "rows.csv", folder)
    iris = load_iris()
    rows = [",".join(iris.feature_names), *(",".join(map(str, row)) for row in iris.data[::15])]
    made.rows.write_text("\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.chdir(folder)
        environment.setenv("BMCLI_RUNS", str(made.root))
        environment.setenv("BMCLI_CACHE", str(cache))
        for seed, name in enumerate(("whole", "other")):
            recipe = folder / f"{name}.yaml"
            recipe.write_text(RECIPE.replace("NAME", name).replace("SEED", str(seed)))
            done = call("train", recipe, "--json")
            assert done.code == 0, done.err
            run = Run(made.latest(name))
            run.write(run.origin, {"sentences": [f"The winner of the search {name}."]})
            run.write(run.validation, {"learning_curve": {"at": str(seed), "targets": []}})
            run.exports.mkdir(exist_ok=True)
            run.write(run.benchmark, {"artefacts": []})
        (folder / "student.yaml").write_text(RECIPE.replace("NAME", "student").replace("SEED", "3") + DISTILL)
        yield made


@pytest.fixture(scope="module")
def all_kept(kept: Kept) -> Kept:
    """Runs with artefacts, a search, a distillation and a cross-validation, too."""
    recipe = kept.recipes / "search.yaml"
    recipe.write_text(RECIPE.replace("NAME", "search").replace("SEED", "4") + SEARCH)
    with pytest.MonkeyPatch.context() as environment:
        environment.chdir(kept.recipes)
        environment.setenv("BMCLI_RUNS", str(kept.root))
        for command in (
            ("explain", "whole", *BRIEFLY),
            ("export", "whole", "--formats", "keras"),
            ("tune", recipe),
            ("distill", "student.yaml"),
            ("evaluate", "whole", *FOLDS),
        ):
            done = call(*command, "--json")
            assert done.code == 0, done.err
    return kept


@dataclass(frozen=True)
class Command:
    """A command on a copy of the undamaged folder.

    Args:
        arguments: In the copy's folder.
        reads: Name of the runs, of the latest of which files are damaged.
        lacks: A file that the copy is without, so that there is something to resume.
        writes: A file that is the result beside what is printed.
        usual: Try some damages in the usual suite.
    """

    arguments: tuple[str, ...]
    reads: str = "whole"
    lacks: str = ""
    writes: str = "predicted.csv"
    usual: bool = False


FOLDS = ("--folds", "2", "--workers", "1")
BRIEFLY = ("--rows", "20", "--repeats", "1", "--examples", "1")
COMMANDS = {
    "predict": Command(("predict", "whole", "rows.csv", "--output", "predicted.csv", "--json"), usual=True),
    "predict by an artefact": Command(
        ("predict", "runs/whole/latest/exports/keras", "rows.csv", "--output", "predicted.csv", "--json")
    ),
    "evaluate": Command(("evaluate", "whole", "--json"), usual=True),
    "evaluate another split": Command(("evaluate", "whole", "--split", "validation", "--json")),
    "report": Command(("report", "whole", "--json"), writes="runs/whole/latest/report.html"),
    "explain": Command(("explain", "whole", *BRIEFLY, "--json")),
    "compare": Command(("compare", "other", "whole", "--json")),
    "runs": Command(("runs", "--json"), usual=True),
    "show": Command(("show", "whole", "--json"), usual=True),
    "export": Command(("export", "whole", "--formats", "keras", "--json")),
    "benchmark": Command(("benchmark", "whole", "--repeats", "1", "--json")),
    "train longer": Command(("train", "--resume", "whole", "train.epochs=3", "--json")),
    "train what is finished": Command(("train", "--resume", "whole", "--json")),
    "distill from it": Command(("distill", "student.yaml", "--json")),
    "tune what is finished": Command(("tune", "--resume", "search", "--json"), reads="search-tune"),
    "tune longer": Command(("tune", "--resume", "search", "tune.trials=3", "--json"), reads="search-tune"),
    "distill what is finished": Command(("distill", "--resume", "student", "--json"), reads="student-distill"),
    "distill on": Command(("distill", "--resume", "student", "--json"), reads="student-distill", lacks="result.json"),
    "folds": Command(("evaluate", "whole", *FOLDS, "--json"), reads="whole-folds", lacks="evaluation.json"),
}
_VOLATILE = re.compile(
    r'("(?:at|seconds|[a-z0-9]+_s|calls|peak_bytes|\w+_per_second|sha256|run_id|figure|created)": )[^,}\n]*'
    # Latency decides between two runs that are equally large and equally good, and for the fronts.
    r'|"(?:recommended|recommendation)": (?:"[^"]*"|null)|"pareto_fronts": \{[^}]*\}'
    r"|\d{8}-\d{6}-[0-9a-f]{4}|\d+\.\d+ m?s\b|[\d,]+ examples/s|\d{4}-\d{2}-\d{2}T[\d:+-]+"
)


class Copies:
    """Copies of the undamaged folder, each to be damaged once."""

    def __init__(self, kept: Kept, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._kept, self._folder, self._monkeypatch = kept, folder, monkeypatch
        self._number = 0

    def fresh(self, command: Command) -> Path:
        """Make a new copy, in which commands are called from now on; return the folder that the command reads."""
        before = self._folder / f"copy-{self._number}"
        shutil.rmtree(before, ignore_errors=True)
        self._number += 1
        copy = self._folder / f"copy-{self._number}"
        shutil.copytree(self._kept.recipes, copy, symlinks=True)
        self._monkeypatch.chdir(copy)
        self._monkeypatch.setenv("BMCLI_RUNS", "runs")
        folder = (copy / "runs" / command.reads / "latest").resolve()
        if command.lacks:
            (folder / command.lacks).unlink()
        return folder

    def outcome(self, command: Command, done: Done) -> str:
        """Output of a command, without times, paths and names, which differ in each call."""
        copy = self._folder / f"copy-{self._number}"
        written = copy / command.writes
        result = written.read_text() if written.is_file() else ""
        if written.suffix == ".html":
            result = re.sub(r"[\d.,:+-]+", "#", result)  # a page has a time, which differs
        return _VOLATILE.sub("", f"{done.code} {done.out} {result}".replace(str(copy), ""))


@pytest.fixture
def copies(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copies:
    return Copies(kept, tmp_path, monkeypatch)


def files_of(folder: Path) -> list[str]:
    """List all files below a folder that a command may read."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path.relative_to(folder)) for path in found if path.name not in UNREAD]


def breaches(command: Command, copies: Copies, chosen: Callable[[int], bool]) -> list[str]:
    """List the damages that a command does not report or tolerate.

    Args:
        chosen: Which of them to try, by their number.
    """
    undamaged = copies.fresh(command)
    files = files_of(undamaged)
    assert files, "the list that the law runs over must not be empty"
    with OpenedFiles(undamaged) as watched:
        wanted = copies.outcome(command, call(*command.arguments))
        opened = watched.read()
    assert opened, "the command reads a file"
    found, number, tried = [], -1, 0
    for file in files:
        for name, damage in {**DAMAGES, **SIGNED}.items():
            number += 1
            if not chosen(number) or (file not in opened and name not in STRUCTURAL):
                continue
            folder = copies.fresh(command)
            if not damage(folder / file, folder.parents[1] / "other" / "latest" / file):
                continue
            tried += 1
            case = f"{file}, {name}"
            try:
                done = call(*command.arguments)
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                found.append(f"{case}: {type(error).__name__}: {error} at {last.filename}:{last.lineno}")
                continue
            if name in SIGNED or (name == "removed" and Path(file).name in OPTIONAL):
                continue
            if breach := _breach(done, copies.outcome(command, done), wanted, file):
                found.append(f"{case}: {breach}")
    assert tried, "no damage was tried"
    return found


def _breach(done: Done, outcome: str, wanted: str, file: str) -> str:
    output = done.err + done.out
    if "Traceback" in output:
        return f"a traceback: {output[-500:]}"
    if outcome == wanted:
        return ""
    name = Path(file).name
    names = (name, *Path(file).parts[:-1])
    if done.code == 0:
        return "" if any(each in output for each in names) else f"another result without a message: {outcome[:300]}"
    if done.code not in EXIT_CODES:
        return f"exit code {done.code}: {output[-300:]}"
    return "" if any(each in output for each in names) else f"the fault does not name it: {output[-300:]}"


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.usual])
def test_a_damaged_file_is_told_or_changes_nothing(name: str, copies: Copies) -> None:
    step = {"runs": 7, "show": 7, "predict": 31}.get(name, 113)
    assert breaches(COMMANDS[name], copies, lambda number: number % step == len(name) % step) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_damage_of_every_file_is_told_or_changes_nothing(name: str, all_kept: Kept, copies: Copies) -> None:
    assert breaches(COMMANDS[name], copies, lambda number: True) == []
