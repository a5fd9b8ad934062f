"""`bmcli generate`: continue texts with a language model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from bmcli import disk
from bmcli.answers import Writing
from bmcli.data import files
from bmcli.errors import BmcliError
from bmcli.generation import Sampling, TextLimits, find_writing
from bmcli.printable import clean
from bmcli.quoting import quoted
from bmcli.run_data import read_data_spec
from bmcli.runs import Run
from bmcli.specs import DataSpec
from bmcli.workflows.opening import find_run, load_network, load_run_recipe

if TYPE_CHECKING:
    from bmcli.generation import WrittenText
    from bmcli.networks.incremental import IncrementalNetwork

STANDARD_INPUT = Path("-")
_BATCH = 16  # texts that are written at once


@dataclass(frozen=True)
class GenerationRequest:
    """Texts to continue, and how.

    Args:
        prompts: Begins of texts; an empty one lets the model begin.
        file: A file with more of them, one a line or JSON lines with `prompt`, or `-` for standard input.
        output: A new file of JSON lines; None for standard output.
        count: Number of texts for each prompt.
        tokens: Largest number of tokens of a text.
        sampling: How tokens are drawn.
        beams: Number of beginnings that a beam search keeps; 0 for no beam search.
        length_power: Power of the number of tokens by which a beam search divides log-probabilities.
        stop: Texts before which a text ends.
        seed: Of the random numbers.
        use_cache: Whether to keep what was computed for earlier tokens.
    """

    prompts: tuple[str, ...]
    file: Path | None
    output: Path | None
    count: int
    tokens: int
    sampling: Sampling
    beams: int
    length_power: float
    stop: tuple[str, ...]
    seed: int
    use_cache: bool


@dataclass(frozen=True)
class GeneratedText:
    """A text with the prompt that it continues."""

    prompt: str
    written: WrittenText

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        written = self.written
        return {"prompt": self.prompt, "text": written.text, "tokens": written.tokens, "ending": written.ending}


@dataclass(frozen=True)
class GenerationResult:
    """Texts that were written.

    Args:
        texts: In the order of the prompts; empty if they are in a file.
        output: The file, if there is one.
        count: Number of texts.
        tokens: Number of their tokens.
        seconds: Time to write them, without the start of TensorFlow and the first token.
        is_cached: Whether each token was computed from what was kept for those before.
        is_shown: Whether the text was shown while it was written.
        notes: Sentences about what was changed.
    """

    run: Path
    texts: tuple[GeneratedText, ...]
    output: Path | None
    count: int
    tokens: int
    seconds: float
    is_cached: bool
    is_shown: bool
    notes: tuple[str, ...]


def generate(
    target: str, request: GenerationRequest, stream: TextIO | None, root: Path, cache: Path
) -> GenerationResult:
    """Continue prompts with the language model of a run.

    Args:
        target: A run directory, a run's name, or a recipe, whose latest run is taken.
        stream: Where a single text is shown while it is written; None to write texts when they are complete.

    Raises:
        BmcliError: The run has no language model, a prompt cannot be read, or the output exists.
    """
    _check_output(request.output)
    run = find_run(target, root)
    spec = read_data_spec(run)
    output, writing = _find_writing(run, spec)
    prompts = [prompt for prompt in _read_prompts(request) for _ in range(request.count)]
    network = _open_network(run, spec, output, writing, cache)
    window = spec.input(writing.input).shape[0]
    write = (_BeamWriter if request.beams else _SampledWriter)(network, writing, window, request)
    texts: list[GeneratedText] = []
    shown = stream if len(prompts) == 1 and not request.beams else None
    start = time.perf_counter()
    for first in range(0, len(prompts), _BATCH):
        batch = prompts[first : first + _BATCH]
        on_text = None if shown is None else _make_streamer(shown, batch[0])
        texts += map(GeneratedText, batch, write(batch, first, on_text))
    seconds = time.perf_counter() - start
    if shown is not None:
        shown.write("\n")
        shown.flush()
    if request.output is not None:
        lines = "".join(json.dumps(text.to_json(), ensure_ascii=False) + "\n" for text in texts)
        disk.write_new(request.output, lines.encode())
    return GenerationResult(
        run.folder, () if request.output else tuple(texts), request.output, len(texts),
        sum(text.written.tokens for text in texts), seconds, write.is_cached, shown is not None,
        _list_notes(prompts, writing, window, write.is_cached, request),
    )  # fmt: skip


def _check_output(output: Path | None) -> None:
    """Refuse an output that cannot be written, before any text is."""
    if output is None:
        return
    if output.exists():
        raise BmcliError(f"{output} exists already.", suggestion="Name another file with --output.")
    if not output.absolute().parent.is_dir():
        raise BmcliError(f"{output.parent}: no such folder.")


def _make_streamer(stream: TextIO, prompt: str) -> Callable[[int, str], None]:
    """Write the prompt, and make a function that writes each piece of the text after it."""

    def show(position: int, piece: str) -> None:
        stream.write(clean(piece))
        stream.flush()

    show(0, prompt)
    return show


def _find_writing(run: Run, spec: DataSpec) -> tuple[str, Writing]:
    """Find the output of a run that writes texts, and how."""
    found = find_writing(spec)
    if found is None:
        kinds = ", ".join(output.objective for output in spec.outputs)
        raise BmcliError(
            f"{run.display_path}: writes no texts; it learned {kinds}.",
            suggestion="Train a recipe with `objective: causal_language_model`, or use `bmcli predict`.",
        )
    return found


def _open_network(run: Run, spec: DataSpec, output: str, writing: Writing, cache: Path) -> IncrementalNetwork:
    recipe = load_run_recipe(run).recipe
    network = load_network(recipe, spec, run, cache)
    others = [name for name in network.model.input if name != writing.input]
    if others:
        raise BmcliError(
            f"{run.display_path}: the network also reads {', '.join(map(quoted, others))}, of which nothing is known "
            "while it writes.",
            suggestion="Train it on the text alone: leave the others out of data.inputs.",
        )
    from bmcli.networks.incremental import IncrementalNetwork

    return IncrementalNetwork(network.model, writing.input, output)


class _SampledWriter:
    """Writer that draws tokens."""

    def __init__(self, network: IncrementalNetwork, writing: Writing, window: int, request: GenerationRequest) -> None:
        from bmcli.generation.writer import Writer

        self._writer = Writer(network, writing.tokenizer, window, request.sampling, request.use_cache)
        self._limits, self._seed = TextLimits(request.tokens, request.stop), request.seed

    @property
    def is_cached(self) -> bool:
        return self._writer.is_cached

    def __call__(
        self, prompts: Sequence[str], first: int, on_text: Callable[[int, str], None] | None
    ) -> list[WrittenText]:
        return self._writer.write(prompts, self._limits, self._seed, first, on_text)


class _BeamWriter:
    """Writer of the best texts of a beam search."""

    def __init__(self, network: IncrementalNetwork, writing: Writing, window: int, request: GenerationRequest) -> None:
        from bmcli.generation.beams import BeamSearch

        self._tokenizer, self._limits = writing.tokenizer, TextLimits(request.tokens, request.stop)
        self.is_cached = request.use_cache and network.agrees()
        self._search = BeamSearch(
            network, writing.tokenizer, window, request.beams, request.length_power, self.is_cached
        )

    def __call__(
        self, prompts: Sequence[str], first: int, on_text: Callable[[int, str], None] | None
    ) -> list[WrittenText]:
        return [self._write(prompt) for prompt in prompts]

    def _write(self, prompt: str) -> WrittenText:
        from bmcli.generation.writer import end_text

        best = self._search.search(prompt, self._limits.tokens)[0]
        return end_text(self._tokenizer, prompt, best.ids, best.has_end, self._limits)


def _read_prompts(request: GenerationRequest) -> Iterator[str]:
    """Read all prompts; an empty one if there are none."""
    yield from request.prompts
    if request.file is not None:
        yield from _read_prompt_file(request.file)
    elif not request.prompts:
        yield ""


def _read_prompt_file(path: Path) -> Iterator[str]:
    """Read prompts, one a line; a line may be a JSON object with `prompt`."""
    name = "standard input" if path == STANDARD_INPUT else files.format_path(path)
    content = sys.stdin.buffer.read() if path == STANDARD_INPUT else files.read_bytes(path)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BmcliError(f"{name}: byte {error.start + 1:,} is not UTF-8.", suggestion="Save it as UTF-8.") from None
    if not lines:
        raise BmcliError(f"{name}: holds no prompt.", suggestion="Write one a line.")
    for number, line in enumerate(lines, 1):
        yield _parse_prompt(line, f"{name}:{number}")


def _parse_prompt(line: str, place: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        value = json.loads(line)
    except ValueError:
        return line  # a text may begin with a brace
    prompt = value.get("prompt") if isinstance(value, Mapping) else None
    if not isinstance(prompt, str):
        raise BmcliError(f"{place}  expected a text as `prompt`, received {quoted(line)}.")
    return prompt


def _list_notes(
    prompts: Sequence[str], writing: Writing, window: int, is_cached: bool, request: GenerationRequest
) -> tuple[str, ...]:
    notes = []
    ids, starts = writing.tokenizer.encode_flat(list(dict.fromkeys(prompts)))
    if unknown := int((ids == writing.tokenizer.unknown).sum()):
        notes.append(f"{unknown:,} tokens of the prompts are unknown to the model.")
    long = sum(length > window - 2 for length in starts[1:] - starts[:-1])
    if long:
        what = f"{long:,} prompts are" if long > 1 else "a prompt is"
        notes.append(f"{what} longer than the {window - 2:,} tokens that the network reads; the last ones count.")
    if request.use_cache and not is_cached:
        notes.append("the network cannot be computed token by token: every token costs a pass over the whole window.")
    return tuple(notes)
