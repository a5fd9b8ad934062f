"""A process of its own that has loaded an artefact, and knows nothing of bmcli."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli.export import encoder, runner

if TYPE_CHECKING:
    import numpy as np

ENCODER_FILE = Path(encoder.__file__)
_ANSWER_TIMEOUT_S = 600.0


class WorkerFailed(Exception):
    """The process ended, or did not answer; with its last words."""


class ArtefactWorker:
    """Takes orders of `runner`, one after the other."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process, self._folder, self._rows = process, folder, 0
        self.load_s: float = self._read_answer()["load_s"]
        """Seconds that loading the artefact took, without importing its runtime."""

    def predict(
        self, raw: Mapping[str, np.ndarray], signature: str = runner.SERVING
    ) -> dict[tuple[str, str], np.ndarray]:
        """What the artefact gives for raw rows, by target and role."""
        into = self._folder / "predictions.npz"
        self._request(do="predict", rows=str(self.write(raw)), signature=signature, into=str(into))
        return {tuple(json.loads(key)): values for key, values in runner.read_arrays(into).items()}

    def write(self, raw: Mapping[str, np.ndarray]) -> Path:
        """Raw rows as a file that an order can name."""
        self._rows += 1
        path = self._folder / f"rows-{self._rows}.npz"
        runner.write_arrays(path, raw)
        return path

    def time(self, rows: Path, calls: int, at_most_s: float) -> list[float]:
        """Seconds of each of so many calls, of fewer once they took so long."""
        taken: list[float] = self._request(do="time", rows=str(rows), calls=calls, at_most_s=at_most_s)["seconds"]
        return taken

    def state(self) -> dict[str, Any]:
        """`peak_bytes` of its memory, and whether bmcli is loaded there: `alien`."""
        return self._request(do="state")

    def _request(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # told when the answer is missing
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if waiting.select(_ANSWER_TIMEOUT_S) else b""
        if not line:
            raise WorkerFailed(self._describe_failure())
        found: dict[str, Any] = json.loads(line)
        return found

    def _describe_failure(self) -> str:
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.returncode is None:
            return f"no answer within {_ANSWER_TIMEOUT_S:.0f} s"
        lines = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"ended with code {self._process.returncode}"


@contextlib.contextmanager
def start_worker(artefact: Path, encoder_file: Path = ENCODER_FILE) -> Iterator[ArtefactWorker]:
    """A process with an artefact that is loaded.

    Args:
        encoder_file: What encodes where the artefact does not itself.

    Raises:
        WorkerFailed: It cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        folder = Path(scratch)
        with (folder / "stderr").open("wb") as words:
            process = subprocess.Popen(
                # -P: the folder of the runner, which is bmcli's, is no place to import from.
                [sys.executable, "-P", runner.__file__, str(artefact), str(encoder_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
            )
        try:
            yield ArtefactWorker(process, folder)
        finally:
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
