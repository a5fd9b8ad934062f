"""Parse YAML 1.2 into a tree in which every value has its place, and write values as YAML."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bmcli import redaction
from bmcli.advice import make_command
from bmcli.errors import BmcliError, Fault, FileLocation
from bmcli.quoting import MAX_SHOWN, brief, quoted

MAX_BYTES = 1_000_000
MAX_TEXT = 2 * MAX_BYTES  # characters of all text, once aliases and variables are written out
MAX_DEPTH = 50
MAX_NODES = 25_000
MAX_DIGITS = 40
MAX_KEY = 1_000  # YAML: the colon of a key follows within 1,024 characters

KeyPath = tuple[str | int, ...]
"""Path from the top of a recipe to a value: keys of mappings and positions in lists."""


@dataclass(frozen=True)
class Node:
    """A value of a recipe and its place.

    Args:
        value: A scalar, a dict of nodes, or a list of nodes.
        place: Start of the value.
        key_place: Place of its key, if it has one.
        folder: Folder to which a relative path in it is relative.
        faulty: A fault about this value is reported already; later checks add none.
    """

    value: Any
    place: FileLocation
    key_place: FileLocation | None = None
    folder: Path | None = None
    faulty: bool = False

    def plain(self) -> Any:
        """The value without places; lists become tuples, because options are frozen."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return tuple(node.plain() for node in self.value)
        return self.value

    def find(self, steps: KeyPath) -> Node | None:
        """Find the node at a path; None if there is none."""
        node, existing = self.nearest(steps)
        return node if existing == steps else None

    def nearest(self, steps: KeyPath) -> tuple[Node, KeyPath]:
        """Find the deepest existing node on a path; returns it with its own path."""
        node = self
        for count, step in enumerate(steps):
            child = node.child(step)
            if child is None:
                return node, steps[:count]
            node = child
        return node, steps

    def child(self, step: str | int) -> Node | None:
        if isinstance(self.value, dict):
            return self.value.get(str(step))
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def scalars(self) -> Iterator[Node]:
        """Yield every scalar below, or the node itself if it is a scalar."""
        if isinstance(self.value, (dict, list)):
            for child in self.value.values() if isinstance(self.value, dict) else self.value:
                yield from child.scalars()
        else:
            yield self

    def count(self) -> int:
        """Count the values below, and the node itself."""
        children = self.value.values() if isinstance(self.value, dict) else self.value
        return 1 + sum(child.count() for child in children) if isinstance(self.value, (dict, list)) else 1

    def map_scalars(self, change: Callable[[Node], Node]) -> Node:
        """Replace every scalar node by `change(node)`."""
        if isinstance(self.value, dict):
            return replace(self, value={key: node.map_scalars(change) for key, node in self.value.items()})
        if isinstance(self.value, list):
            return replace(self, value=[node.map_scalars(change) for node in self.value])
        return change(self)

    def place_at(self, other: Node) -> Node:
        """Give the node and all nodes below it the place of another."""
        children = self.value
        if isinstance(children, dict):
            children = {key: child.place_at(other) for key, child in children.items()}
        elif isinstance(children, list):
            children = [child.place_at(other) for child in children]
        return replace(self, value=children, place=other.place, key_place=other.key_place)

    def escape_dollars(self) -> Node:
        """Double each dollar sign in the values, because a single one can begin a variable."""
        return self.map_scalars(lambda node: replace(node, value=escape_dollars(node.value)))


def read_text(path: Path, file_name: str, keys: Collection[str] = ()) -> str:
    """Read the text of a recipe file.

    Args:
        keys: Known top-level keys; the line of a fault is quoted only if the file has one of them.

    Raises:
        BmcliError: The file cannot be read, is too large, or no UTF-8 text.
    """
    try:
        # Nonblocking, and with a limit: a path may name a pipe or an endless device such as /dev/zero.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BmcliError(Fault("expected a file, found a device or pipe.", place=FileLocation(file_name, 1, 1)))
            data = file.read(MAX_BYTES + 1) or b""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BmcliError(Fault(f"cannot be read: {reason}.", place=FileLocation(file_name, 1, 1))) from None
    if len(data) > MAX_BYTES:
        message = f"expected at most {MAX_BYTES:,} bytes, received more."
        raise BmcliError(Fault(message, place=FileLocation(file_name, 1, 1)))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _locate_byte(file_name, data, error.start)
        if not _looks_like_recipe(data.decode("utf-8", "replace"), keys, exclusive=False):
            place = replace(place, text="")
        raise BmcliError(
            Fault(
                f"expected UTF-8 text, received byte 0x{data[error.start]:02x}.",
                place=place,
                suggestion="Save the file as UTF-8.",
            )
        ) from None


def parse_recipe_file(
    text: str, file_name: str, folder: Path, keys: Collection[str], exclusive: bool, faults: list[Fault]
) -> Node:
    """Parse the text of a recipe file, as `parse_tree` does; a file that is no recipe is not quoted in faults.

    A path in a recipe can name any file of the machine, such as a private key or `/proc/self/environ`, and faults end
    in logs.

    Args:
        keys: Known top-level keys.
        exclusive: No other top-level key is allowed; otherwise one known key is enough.
        faults: List to which faults are added that leave the rest readable.

    Raises:
        BmcliError: The text is not YAML 1.2 as recipes use it, or no recipe.
    """
    own_faults: list[Fault] = []
    try:
        tree = parse_tree(text, file_name, folder, own_faults)
    except BmcliError:
        if _looks_like_recipe(text, keys, exclusive):
            raise
        raise BmcliError(_make_foreign_file_fault(file_name, exclusive)) from None
    own_keys = set(tree.value) if isinstance(tree.value, dict) else {""}
    if not own_keys and not exclusive:
        raise BmcliError(_make_empty_file_fault(tree.place))
    if own_keys and not (own_keys <= set(keys) if exclusive else own_keys & set(keys)):
        raise BmcliError(_make_foreign_file_fault(file_name, exclusive))
    faults += own_faults
    return tree


def _looks_like_recipe(text: str, keys: Collection[str], exclusive: bool) -> bool:
    """Whether the unindented lines of a text that cannot be parsed begin with known keys: all of them, or one."""
    firsts = [match[1] for match in _FIRST_WORD.finditer(text)]
    return bool(firsts) and (all if exclusive else any)(first in keys for first in firsts)


# Not of lines that continue the value above: list items, comments, closing brackets.
_FIRST_WORD = re.compile(r"""^(?![\s#\-\]}%.])[{"' ]{0,9}([^\s:"'{]*)""", re.MULTILINE)


def _make_empty_file_fault(place: FileLocation) -> Fault:
    return Fault(
        "expected a recipe with the sections `name`, `data` and `model`; the file has no section.",
        place=place,
        suggestion=f"{make_command('init', 'DATA')} writes a recipe for your data; {make_command('ls')} lists those "
        "that can be copied.",
    )


def _make_foreign_file_fault(file_name: str, exclusive: bool) -> Fault:
    received = "a top-level key that is no section" if exclusive else "no section at the top level"
    return Fault(
        f"expected a recipe, a mapping of sections; received {received}.",
        place=FileLocation(file_name, 1, 1),
        suggestion="Its text is not shown, because it may be another kind of file."
        + (f" If it is a recipe, run {make_command('validate', file_name)} to see its faults." if exclusive else ""),
    )


def _locate_byte(file_name: str, data: bytes, position: int) -> FileLocation:
    start = data.rfind(b"\n", 0, position) + 1
    line = data[start:].split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
    column = len(data[start:position].decode("utf-8", "replace")) + 1
    return FileLocation(file_name, data.count(b"\n", 0, position) + 1, column, line)


def parse_tree(text: str, file_name: str, folder: Path, faults: list[Fault] | None = None) -> Node:
    """Parse the text of a recipe; an empty text is an empty mapping.

    Args:
        folder: Folder to which paths are relative.
        faults: List to which faults are added that leave the rest readable, and whose nodes are marked faulty; without
            it they are raised.

    Raises:
        BmcliError: The text is not YAML 1.2 as recipes use it.
    """
    lines = text.splitlines()
    _check_characters(text, file_name, lines)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise BmcliError(_make_syntax_fault(error, file_name, lines)) from None
    except (ValueError, OverflowError):
        # PyYAML calls chr() for \U00110000 and int() for a very long %YAML version without checks.
        place = _make_location(file_name, lines, loader.get_mark())
        raise BmcliError(
            Fault("not valid YAML: the number of a character or version is too large.", place=place)
        ) from None
    if root is None:
        return Node({}, FileLocation(file_name, 1, 1, lines[0] if lines else ""), folder=folder)
    converter = _Converter(file_name, lines, folder, loader.tags)
    node = converter.convert(root)
    if faults is None and converter.faults:
        raise BmcliError(*converter.faults)
    if faults is not None:
        faults += converter.faults
    return node


# Characters that YAML does not allow, and three line breaks of YAML 1.1 that are plain characters in YAML 1.2.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _check_characters(text: str, file_name: str, lines: list[str]) -> None:
    match = _FORBIDDEN.search(text)
    if match is None:
        return
    lines_before = text[: match.start()].splitlines() or [""]
    if text[: match.start()].endswith(("\n", "\r")):
        lines_before.append("")
    place = FileLocation(
        file_name, len(lines_before), len(lines_before[-1]) + 1, lines[len(lines_before) - 1] if lines else ""
    )
    raise BmcliError(
        Fault(
            f"character U+{ord(match[0]):04X} is not allowed in a recipe.",
            place=place,
            suggestion=f'Write "{_escape(match)}" in text.' if _is_text(match[0]) else "",
        )
    )


_SYNTAX_MESSAGES = (
    ("'\\t'", "a tab is not allowed here.", "Use spaces."),
    ("mapping values are not", "a colon is not allowed here.", "Quote text with a colon, or check the indentation."),
    ("expected <block end>", "this does not fit the lines above.", "Check the indentation and the quotes."),
    ("expected '<document", "this does not fit the lines above.", "Check the indentation."),
    ("second occurrence", "there are two anchors of this name.", "Rename one of them."),
    ("found another document", "a second document starts here.", "Write one document."),
    ("could not find expected ':'", "the key here has no colon.", "Write key: value."),
    ("found unexpected end of stream", "a closing quote is missing.", ""),
    ("expected ',' or", "a closing bracket or a comma is missing.", ""),
)  # fmt: skip


def _make_syntax_fault(error: yaml.MarkedYAMLError, file_name: str, lines: list[str]) -> Fault:
    problem = error.problem or error.context or "this cannot be parsed"
    place = _make_location(file_name, lines, error.problem_mark or error.context_mark)
    if isinstance(error, _TooLarge):
        return Fault(problem, place=place)
    if "${" in place.text and "expected ',' or" in problem:
        return Fault("not valid YAML: braces inside braces.", place=place, suggestion='Write "${NAME}" in quotes.')
    for words, message, suggestion in _SYNTAX_MESSAGES:
        if words in problem:
            return Fault(f"not valid YAML: {message}", place=place, suggestion=suggestion)
    return Fault(f"not valid YAML: {problem}.", place=place)


def _make_location(file_name: str, lines: list[str], mark: Any) -> FileLocation:
    text = lines[mark.line] if mark.line < len(lines) else ""
    return FileLocation(file_name, mark.line + 1, mark.column + 1, text)


class _TooLarge(yaml.MarkedYAMLError):
    """Valid YAML beyond the limits of recipes."""


class _Loader(
    yaml.reader.Reader,
    yaml.scanner.Scanner,
    yaml.parser.Parser,
    yaml.composer.Composer,
    yaml.resolver.BaseResolver,
):
    """PyYAML without its constructors: scalars stay text, because YAML 1.1 reads `no` as false and `1e-3` as text."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        yaml.resolver.BaseResolver.__init__(self)
        self.depth = self.count = 0
        self.tags: dict[int, str] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node within the limits; its explicit tag, if any, is kept in `tags` by the node's id."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # types-PyYAML does not annotate it
        self.depth, self.count = self.depth + 1, self.count + 1
        if self.depth > MAX_DEPTH:
            raise _TooLarge(problem=f"nested more than {MAX_DEPTH} deep.", problem_mark=event.start_mark)
        if self.count > MAX_NODES:
            raise _TooLarge(problem=f"more than {MAX_NODES:,} values.", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if getattr(event, "tag", None) is not None:
            self.tags[id(node)] = event.tag
        return node


class _Converter:
    """Convert PyYAML's nodes into `Node`, by the rules of recipes; faults are collected."""

    def __init__(self, file_name: str, lines: list[str], folder: Path, tags: Mapping[int, str]) -> None:
        self.file_name, self.lines, self.folder, self.tags = file_name, lines, folder, tags
        self._faults: dict[Fault, None] = {}  # an alias repeats a node with its faults
        self.count = self.characters = 0

    @property
    def faults(self) -> list[Fault]:
        return list(self._faults)

    def convert(self, node: Any, depth: int = 0) -> Node:
        """Convert a node with its children; they are counted with every alias expanded, against YAML bombs."""
        place = self._place(node)
        self.count += 1
        if self.count > MAX_NODES:
            raise BmcliError(Fault(f"more than {MAX_NODES:,} values once aliases are expanded.", place=place))
        if depth > MAX_DEPTH:
            raise BmcliError(Fault(f"nested more than {MAX_DEPTH} deep.", place=place))
        value, faulty = self._value(node, depth)
        return Node(value, place, folder=self.folder, faulty=self._refuse_tag(node) or faulty)

    def _value(self, node: Any, depth: int) -> tuple[Any, bool]:
        """Convert a value; returns it, and whether it is faulty itself."""
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, depth + 1) for item in node.value], False
        self.characters += len(node.value)
        if self.characters > MAX_TEXT:
            raise BmcliError(Fault("too long once aliases are expanded.", place=self._place(node)))
        try:
            return self._scalar(node), False
        except ValueError as error:
            self._fault(node, str(error))
            return None, True

    def _scalar(self, node: Any) -> Any:
        """Convert a scalar; one in quotes or in a block stays text."""
        if not _is_text(node.value):
            raise ValueError("text must not contain NUL or lone surrogates.")
        return parse_scalar(node.value) if node.style is None else node.value

    def _mapping(self, node: Any, depth: int) -> tuple[dict[str, Node], bool]:
        values: dict[str, Node] = {}
        complete = True
        for key_node, value_node in node.value:
            if not self._is_key(key_node):
                complete = False
            elif key_node.value in values:
                first = values[key_node.value].key_place
                line = first.line if first else "?"
                self._fault(key_node, f"{quoted(key_node.value)} is written twice, first on line {line}.")
            else:
                child = self.convert(value_node, depth + 1)
                values[key_node.value] = replace(child, key_place=self._place(key_node))
        return values, not complete

    def _is_key(self, node: Any) -> bool:
        """Whether a node can be a key; if not, a fault is added."""
        if not isinstance(node, yaml.ScalarNode):
            self._fault(node, "a key must be text, not a collection.", "Put braces and brackets of text in quotes.")
        elif node.value == "<<" and node.style is None:
            self._fault(node, "merge keys are not part of YAML 1.2.", "Use extends, or repeat the options.")
        elif not node.value:
            self._fault(node, "a key cannot be empty.")
        elif len(_quote(node.value)) > MAX_KEY or not _is_text(node.value):
            self._fault(node, f"a key must be text of at most {MAX_KEY:,} characters.")
        else:
            return not self._refuse_tag(node)
        return False

    def _refuse_tag(self, node: Any) -> bool:
        tag = self.tags.get(id(node))
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(node, f"the tag {shown} is not allowed in a recipe.", "Put text that starts with ! in quotes.")
        return tag is not None

    def _fault(self, node: Any, message: str, suggestion: str = "") -> None:
        self._faults.setdefault(Fault(message, place=self._place(node), suggestion=suggestion))

    def _place(self, node: Any) -> FileLocation:
        return _make_location(self.file_name, self.lines, node.start_mark)


def _is_text(text: str) -> bool:
    """Whether a text can be stored in a file and in a path: escapes can make NUL and lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_scalar(text: str) -> Any:
    """Parse a plain scalar by the core schema of YAML 1.2, chapter 10.3.2: `1e-3` is a number, `no` is text.

    Raises:
        ValueError: It is a number that no option accepts: infinite, NaN, or too long.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            # Python refuses to print integers of thousands of digits, and arithmetic with them is slow.
            raise ValueError(f"expected a whole number of at most {MAX_DIGITS} digits.")
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        raise ValueError(f"expected a finite number, received {text[:40]}.")
    return text


_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*( [\w./-]+)*", re.ASCII)


def write_scalar(value: Any) -> str:
    """Write a scalar, list or mapping on one line of YAML; parsing it gives the same value."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(write_scalar(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{write_scalar(str(key))}: {write_scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and _reads_as_text(value) else _quote(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _reads_as_text(text: str) -> bool:
    """Whether a plain scalar is parsed as text."""
    number = _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text)
    return text not in _WORDS and not number and not text.startswith("...")  # `...` on a line ends a document


def _quote(text: str) -> str:
    """Write text in double quotes on one line, with escapes for characters that a YAML file cannot contain."""
    return _FORBIDDEN.sub(_escape, json.dumps(text, ensure_ascii=False))


def escape_dollars(value: Any) -> Any:
    """Double each dollar sign in plain values, because a single one can begin a variable."""
    if isinstance(value, dict):
        return {key: escape_dollars(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape_dollars(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def compose(text: str) -> Any:
    """Compose the text of a recipe into PyYAML's nodes, which have the start and end of each value; None if empty.

    Args:
        text: Text that `parse_tree` accepts.
    """
    return _Loader(text).get_single_node()


def hide_secrets(text: str) -> str:
    """Replace secrets in the text of a recipe by `***`: variables whose names mark them as secret, and in comments.

    Args:
        text: Text that `parse_tree` accepts.
    """
    if not redaction.may_hold_secrets(text):
        return text
    root = compose(text)
    for start, end in sorted(_find_secret_spans(root), reverse=True):
        value = text[start:end].rstrip()
        anchor = re.match(r"&\S+\s+", value)  # kept, because aliases may refer to it
        text = f'{text[:start]}{anchor[0] if anchor else ""}"{redaction.HIDDEN}"{text[start + len(value) :]}'
    return "".join(_hide_secret_comment(line) for line in text.splitlines(keepends=True))


def _find_secret_spans(root: Any) -> set[tuple[int, int]]:
    """Find the start and end of the values of secret variables in the text."""
    sections = root.value if isinstance(root, yaml.MappingNode) else ()
    return {
        (value.start_mark.index, value.end_mark.index)
        for section, variables in sections
        if section.value == "vars" and isinstance(variables, yaml.MappingNode)
        for key, value in variables.value
        if isinstance(key.value, str)
        and redaction.is_secret(key.value)
        and value.end_mark.index > value.start_mark.index
    }


def _hide_secret_comment(line: str) -> str:
    start = 0 if line.lstrip().startswith("#") else line.find(" #")
    return line if start < 0 else line[:start] + redaction.redact_text(line[start:])


def format_value(value: Any) -> str:
    """Format a value for a message: as a recipe has it if it is short, else by its type."""
    if value is None:
        return "nothing"
    if isinstance(value, (Mapping, list, tuple)):
        items = value.values() if isinstance(value, Mapping) else value
        is_short = len(value) <= 8 and not any(isinstance(item, (Mapping, list, tuple)) for item in items)
        text = write_scalar(value) if is_short else ""
        return text if 0 < len(text) <= 40 else "a mapping" if isinstance(value, Mapping) else "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else brief(repr(value), MAX_SHOWN)
