"""Fuzzing a reader: damaged files, read in a process that is bounded in time and memory.

A reader of damaged files must do one of two things: refuse them with one line, or read what they say.
Everything else is counted against it: another exception, a crash, a hang, too much memory, and a value
that is not what the files hold.
"""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.mutations import Damage
from helpers.process_server import start

MEMORY = 2**30
"""Bytes that a process which reads may have in all."""
LIMIT_S, LIMIT_WALL_S = 10, 120
"""Seconds of processor time for one mutation, and of waiting where the machine is busy; then it is ended."""


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        name: the row in the table of results; also what the mutations depend on.
        write: writes undamaged files into an empty folder.
        damage: changes the files.
        read: what the project makes of the folder; it may raise AblationError.
        wrong: (folder, value read, value of the undamaged files) -> why that value is not what the damaged
            files hold, found out in another way than by the project's code; None where it is right.
        special: damages that are tried first, by name.
        kept: numbers of random mutations that once found a fault; the short form tries them too.
        names: every refusal must contain one of these texts; empty: no matter.
    """

    name: str
    write: Callable[[Path], None]
    damage: Callable[[Path, Damage], None]
    read: Callable[[Path], Any]
    wrong: Callable[[Path, Any, Any], str | None]
    special: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass
class Result:
    """The counts of a reader's row, and what was not right."""

    name: str
    seconds: float = 0.0
    peak_mb: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    HEAD = "reader | mutations | clean errors | accepted rightly | unclean | hangs | silently wrong | s | MB"

    def line(self) -> str:
        """The row."""
        kinds = ("clean", "accepted", "unclean", "hang", "wrong")
        numbers = [sum(self.counts.values()), *(self.counts[kind] for kind in kinds)]
        return f"{self.name} | {' | '.join(map(str, numbers))} | {self.seconds:.0f} | {self.peak_mb}"


def fuzz(file: Path, attribute: str, reader: Reader, mutations: int, folder: Path) -> Result:
    """Read all special damages, the kept mutations and those numbered below `mutations`.

    Args:
        file, attribute: where the reader is defined: the process imports the file anew.
        folder: an empty one.
    """
    cases: list[str | int] = [*reader.special, *sorted({*reader.kept, *range(mutations)})]
    result, started, done = Result(reader.name), time.monotonic(), 0
    log, answers = str(folder / "log"), folder / "answers"
    while done < len(cases):
        answers.write_text("")
        arguments = (str(answers), str(file), attribute, str(folder), cases[done:])
        process = start("helpers.fuzz:read_damaged", *arguments, folder=folder, out=log, err=log)
        process.join()
        for line in answers.read_text().splitlines():
            kind, detail, peak_mb = json.loads(line)
            result.peak_mb = max(result.peak_mb, peak_mb)
            _count(result, cases[done], kind, detail)
            done += 1
        if done < len(cases):
            hang = process.exitcode in (-signal.SIGALRM, -signal.SIGPROF)
            ended = f"the process ended with {process.exitcode}: {Path(log).read_text()[-2000:]}"
            _count(result, cases[done], "hang" if hang else "unclean", ended)
            done += 1
    result.seconds = time.monotonic() - started
    return result


def _count(result: Result, case: str | int, kind: str, detail: str) -> None:
    result.counts[kind] += 1
    if kind not in ("clean", "accepted"):
        result.failures.append(f"{result.name}, {case!r}: {kind}: {detail}")


# in the process that reads


def read_damaged(answers: str, file: str, attribute: str, folder: str, cases: Iterable[str | int]) -> None:
    """Try the cases one by one; a line of `answers` for each says how it went."""
    reader: Reader = getattr(_module(Path(file)), attribute)
    seed = Path(folder) / "undamaged"
    if not seed.exists():
        seed.mkdir()
        reader.write(seed)
    undamaged = reader.read(_copy(seed, Path(folder) / "whole"))
    _bound_memory()
    for case in cases:
        place = _copy(seed, Path(folder) / f"case-{case}"[:100])
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        signal.alarm(LIMIT_WALL_S)
        try:
            if isinstance(case, str):
                reader.special[case](place)
            else:
                reader.damage(place, Damage(reader.name, case))
            kind, detail = _outcome(reader, place, undamaged)
        except Exception:
            kind, detail = "unclean", "while damaging or comparing: " + traceback.format_exc(limit=-4)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        shutil.rmtree(place, ignore_errors=True)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        with Path(answers).open("a") as lines:
            lines.write(json.dumps([kind, detail[:3000], peak_mb]) + "\n")


def _outcome(reader: Reader, place: Path, undamaged: Any) -> tuple[str, str]:
    from ablation.errors import AblationError

    try:
        value = reader.read(place)
    except AblationError as error:
        text = str(error)
        if "\n" in text or not text.strip():
            return "unclean", f"not one line: {text!r}"
        if re.search(r"\bmemory\b|\ballocate|unexpected \w*(Error|Exception)", text):
            return "unclean", f"asked for too much memory, or did not expect it: {text}"
        if reader.names and not any(name in text for name in reader.names):
            return "unclean", f"names none of {reader.names}: {text}"
        return "clean", text
    except BaseException:
        return "unclean", traceback.format_exc(limit=-6)
    why = reader.wrong(place, value, undamaged)
    return ("accepted", "") if why is None else ("wrong", why)


def _copy(seed: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(seed, place, symlinks=True)
    return place


def _bound_memory() -> None:
    """What is resident now and what is still to come: MEMORY in all."""
    pages = Path("/proc/self/statm").read_text().split()
    size, resident = (int(number) * resource.getpagesize() for number in pages[:2])
    resource.setrlimit(resource.RLIMIT_AS, (size + max(MEMORY - resident, 2**27),) * 2)


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"fuzzed_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
