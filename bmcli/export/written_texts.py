"""Texts that an artefact writes, compared with those of `bmcli generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bmcli.export import ExportableModel, ExportRows
from bmcli.generation import Sampling, TextLimits, find_writing
from bmcli.quoting import quoted

if TYPE_CHECKING:
    from bmcli.export.worker import ArtefactWorker

_SAMPLINGS = (Sampling(0.0), Sampling(0.8, 20, 0.95, 1.1))
_TEXTS = 4  # of the rows, whose first characters are prompts
_PROMPT_CHARACTERS = 40
_TOKENS = 32
_SEED = 7


@dataclass(frozen=True)
class ExpectedTexts:
    """Texts of a network.

    Args:
        prompts: Begins of rows, nothing, and a prompt that fills the window.
        texts: What is written after each, for each way of sampling.
    """

    prompts: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]


def write_expected(exportable: ExportableModel, rows: ExportRows) -> ExpectedTexts:
    """Let a network that writes continue begins of the rows."""
    from bmcli.generation.writer import Writer
    from bmcli.networks.incremental import IncrementalNetwork

    found = find_writing(exportable.spec)
    assert found is not None, "the format wrote `generate`"
    output, writing = found
    begins = [str(cell)[:_PROMPT_CHARACTERS] for cell in rows.raw[writing.input][:_TEXTS]]
    window = exportable.get_column(writing.input).shape[0]
    prompts = ("", *begins, " ".join([*begins, "a"] * window))
    network = IncrementalNetwork(exportable.network.model, writing.input, output)
    texts = (
        Writer(network, writing.tokenizer, window, sampling).write(prompts, TextLimits(_TOKENS), _SEED)
        for sampling in _SAMPLINGS
    )
    return ExpectedTexts(prompts, tuple(tuple(each.text for each in some) for some in texts))


def list_differences(worker: ArtefactWorker, expected: ExpectedTexts) -> Iterator[str]:
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
