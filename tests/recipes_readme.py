"""The list of built-in recipes, written from their headers: `python -m tests.recipes_readme > recipes/README.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from bmcli.recipe.load import list_built_in

HEADER = re.compile(
    r"# (?P<command>bmcli (?:train|tune|distill) \S+) · (?P<hardware>.+): (?P<time>\S+ \w+) · test (?P<result>.+)"
)
SENTENCE = re.compile(r".*?(?<!\bal)[.?](?= |$)")  # "et al." ends no sentence

OPENING = """\
# Built-in recipes

Written from the headers of the recipes by `python -m tests.recipes_readme > recipes/README.md`.

`bmcli ls` lists the recipes, `bmcli cp NAME FILE` copies one with the data it needs, and `bmcli train NAME` trains one
in place. "Result" is measured on the test rows. "Time" is approximate, for the whole command ({hardware}), including
the 6 to 10 s that TensorFlow takes to start. Results vary a little from machine to machine, and a search may end with
another winner.
"""

CLOSING = """\
## Data

Where a script stands beside a recipe, it writes the recipe's data:

```console
$ bmcli cp waves . && python make_waves.py && bmcli train waves.yaml
```

Fashion-MNIST is the Debian package `dataset-fashion-mnist`; elsewhere put its four files into a folder and pass
`vars.folder=FOLDER`. The result of `bikes-later` is lower than that of `bikes`, and it is the one to expect when the
weeks to come are predicted.

| file | data | licence |
|---|---|---|
| `penguins.csv` | Palmer penguins, Horst, Hill and Gorman (2020) | CC0 |
| `abalone.csv.gz` | Abalone, Nash et al. (UCI) | CC BY 4.0 |
| `bikes.parquet` | Bike Sharing, Fanaee-T (UCI), the hours of 2011; date and hour joined into one time | CC BY 4.0 |
| `cars.jsonl.gz` | Automobile, Schlimmer (UCI), 201 rows with a price, as nested records | CC BY 4.0 |
| `concrete.csv` | Concrete Compressive Strength, Yeh (UCI) | CC BY 4.0 |
| `letter.csv.gz` | Letter Recognition, Slate (UCI) | CC BY 4.0 |
| `sms.csv.gz` | SMS Spam Collection, Almeida and Hidalgo (UCI), without duplicates | CC BY 4.0 |
| `declaration.csv.gz` | sentences of the Universal Declaration of Human Rights | public domain |
| `shakespeare.txt.gz` | plays of Shakespeare, 1.1 million characters, as in char-rnn, Karpathy (2015) | public domain |
| `atis.csv.gz` | parts of speech of questions about flights, Universal Dependencies English ATIS | CC BY-SA 4.0 |
"""


def write_readme() -> str:
    """Write the page from the headers of all built-in recipes."""
    entries = {name: _read_header(file) for name, file in list_built_in().items()}
    (hardware,) = {header["hardware"] for header, _ in entries.values()}
    sections = [OPENING.format(hardware=hardware)]
    for folder, names in groupby(entries, key=lambda name: list_built_in()[name].parent.name):
        sections.append("\n".join(_write_section(folder, {name: entries[name] for name in names})))
    return "\n".join([*sections, CLOSING])


def _read_header(file: Path) -> tuple[re.Match[str], str]:
    """The first line of a recipe, and the first sentence of the comment below it."""
    first, *lines = file.read_text(encoding="utf-8").splitlines()
    header = HEADER.fullmatch(first)
    assert header, f"{file}: the first line is not command, hardware, time and result: {first}"
    comment = " ".join(line.removeprefix("#").strip() for line in lines[: _comment_lines(lines)])
    sentence = SENTENCE.match(comment)
    assert sentence, f"{file}: no sentence below the first line"
    return header, sentence[0]


def _comment_lines(lines: list[str]) -> int:
    return next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _write_section(folder: str, entries: dict[str, tuple[re.Match[str], str]]) -> Iterator[str]:
    yield f"## {folder.capitalize()}\n"
    yield "| recipe | description | command | result | time |"
    yield "|---|---|---|---|---|"
    for name, (header, sentence) in entries.items():
        file = list_built_in()[name]
        link = f"[{name}]({folder}/{file.name})"
        yield f"| {link} | {sentence} | `{header['command']}` | {header['result']} | {header['time']} |"
    yield ""


if __name__ == "__main__":
    print(write_readme(), end="")
