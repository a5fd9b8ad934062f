"""Texts that an artefact writes, and its steps, compared with those of `bmcli generate` and of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.export import ExportableModel, ExportRows, WritingFunctions
from bmcli.export.agreement import Limits
from bmcli.generation import Sampling, TextLimits, find_writing
from bmcli.quoting import quoted
from bmcli.token_ids import PADDING

if TYPE_CHECKING:
    import numpy as np

    from bmcli.export.worker import ArtefactWorker

_SAMPLINGS = (Sampling(0.0), Sampling(0.8, 20, 0.95, 1.1))
_TEXTS = 4  # of the rows, whose first characters are prompts
_PROMPT_CHARACTERS = 40
_TOKENS = 32  # of a text, and steps that are compared
_SEED = 7


@dataclass(frozen=True)
class ExpectedWriting:
    """What a network writes.

    Args:
        prompts: Begins of rows, nothing, and a prompt that fills the window.
        texts: What is written after each, for each way of sampling.
        ids: Tokens of rows, int32 `(rows, steps)`.
        logits: After each of them, `(rows, steps, tokens)`.
    """

    prompts: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    ids: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class WritingComparison:
    """How an artefact differs from its network.

    Args:
        summary: What was compared, as sentences.
        failures: Differences, as sentences.
    """

    summary: tuple[str, ...]
    failures: tuple[str, ...]


def write_expected(exportable: ExportableModel, rows: ExportRows) -> ExpectedWriting:
    """Let a network that writes continue begins of the rows, and compute their steps as whole sequences."""
    import numpy as np

    from bmcli.generation.writer import Writer
    from bmcli.networks.incremental import IncrementalNetwork

    found = find_writing(exportable.spec)
    assert found is not None, "the format wrote functions that write"
    output, writing = found
    begins = [str(cell)[:_PROMPT_CHARACTERS] for cell in rows.raw[writing.input][:_TEXTS]]
    window = exportable.get_column(writing.input).shape[0]
    prompts = ("", *begins, " ".join([*begins, "a"] * window))
    network = IncrementalNetwork(exportable.network.model, writing.input, output)
    texts = (
        Writer(network, writing.tokenizer, window, sampling).write(prompts, TextLimits(_TOKENS), _SEED)
        for sampling in _SAMPLINGS
    )
    ids = np.asarray(rows.encoded[writing.input][:_TEXTS], "int32")
    return ExpectedWriting(
        prompts,
        tuple(tuple(each.text for each in some) for some in texts),
        ids[:, :_TOKENS],
        network.compute_all(ids).numpy()[:, :_TOKENS],
    )


def compare_writing(
    worker: ArtefactWorker, written: WritingFunctions, expected: ExpectedWriting, limits: Limits
) -> WritingComparison:
    """Let an artefact write the texts and compute the steps."""
    summary: list[str] = []
    failures: list[str] = []
    if written.generates:
        failures += _list_different_texts(worker, expected)
        what = f"{len(expected.prompts) * len(expected.texts)} texts of `generate` compared with those of the model"
        summary.append(f"{what}: all are the same." if not failures else f"{what}: some differ.")
    if written.caches is not None:
        sentence, is_within = _compare_steps(worker, expected, limits)
        (summary if is_within else failures).append(sentence)
    return WritingComparison(tuple(summary), tuple(failures))


def _compare_steps(worker: ArtefactWorker, expected: ExpectedWriting, limits: Limits) -> tuple[str, bool]:
    """Describe the largest difference of the logits of steps, and whether it is within the limit."""
    import numpy as np

    # The network passes over padding, which no text has that is written.
    is_token = expected.ids != PADDING
    found, logits = (each[is_token] for each in (worker.compute_steps(expected.ids), expected.logits))
    difference = float(np.abs(found - logits).max())
    limit = limits.limit_difference(float(np.abs(logits).max()))
    steps = f"`step`, one id after the other, gives logits with a largest difference of {difference:.1e}"
    if limit is None:
        return f"{steps}; no limit.", np.isfinite(difference).item()
    return f"{steps}, at most {limit:.1e}.", difference <= limit


def _list_different_texts(worker: ArtefactWorker, expected: ExpectedWriting) -> Iterator[str]:
    """Let an artefact write the texts, and describe the first one of each way of sampling that differs."""
    for sampling, texts in zip(_SAMPLINGS, expected.texts, strict=True):
        found = _write(worker, expected.prompts, sampling)
        for prompt, text, other in zip(expected.prompts, texts, found, strict=True):
            if other != text:
                yield (
                    f"After {quoted(prompt)}, with temperature {sampling.temperature:g}, `generate` writes "
                    f"{quoted(other)}, and the model {quoted(text)}."
                )
                break


def _write(worker: ArtefactWorker, prompts: Sequence[str], sampling: Sampling) -> list[str]:
    import numpy as np

    types = Sampling("float32", "int32", "float32", "float32")
    written = worker.write_texts(
        {
            "prompt": np.array(prompts, object),
            "tokens": np.array(_TOKENS, "int32"),
            "seed": np.array(_SEED, "int32"),
            **{
                name: np.array(value, dtype)
                for name, value, dtype in zip(Sampling._fields, sampling, types, strict=True)
            },
        }
    )
    return [text.decode() for text in written["text"].tolist()]
