"""Hide secrets in output and files: values of keys that name a secret, and passwords in addresses.

A name before a colon is not always a key: a sentence may begin with the name of a recipe, a column or a file, which may
be `token` or `secret`. What the text itself shows to be such a name is recognized (`_names_subject`); a sentence that
begins with a bare name is composed with `introduce`.

Texts are foreign and can be long, so no pattern may backtrack: the time must stay linear in the length of a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

HIDDEN = "***"

# A key with one of these words anywhere names a secret: `db_password_old`.
_ALWAYS = ("password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "apikey",
           "accesskey", "secretkey", "privatekey")  # fmt: skip
# A key that ends with one of these words names a secret: `hf_token` does, `token_dropout` is an option.
_AT_END = ("token", "auth", "authorization", "signature", "sig", "bearer")
_KEYS = ("api", "access", "secret", "private", "account", "encryption", "signing", "auth")
_HARMLESS_ENDS = ("id", "value", "prod", "production", "staging", "dev", "test", "live", "old", "new")
# Before `token`: symbols of a vocabulary and counts, such as `mask_token` and `per_token`.
_HARMLESS_TOKENS = ("mask", "pad", "padding", "unk", "unknown", "bos", "eos", "cls", "sep", "start", "end", "special",
                    "class", "per", "num", "max", "min", "next", "oov")  # fmt: skip
_JOINED = ("token", "password", "passwd", "secret", "apikey")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LONGEST_KEY = 200
# Every quantifier is possessive, so it never backtracks.
_PAIR = re.compile(r"""(?<![\w.%-])([\w.%-]++)(["']?+)([ \t]*+)([=:]++)([ \t]*+)""")
_TEXTS = {'"': re.compile(r'"(?:[^"\\]|\\.)*+"?+', re.DOTALL), "'": re.compile(r"'[^']*+'?+")}
_BARE = re.compile(r"""[^\s&"'<>]*+""")
_FLOW = re.compile(r"""[^,}\]\n\r]*+""")
_BLOCK = re.compile(r"""(?:[^\n\r #]|[ ](?!#)|(?<! )#)*+""")
# Before the opening quote of a name: no key of JSON, YAML or a query stands after such a word.
_SUBJECT = re.compile(
    r"""\b(?:column|target|input|recipe|run|search|distillation|teacher|artefact|file|folder) ["']\Z"""
)
_LONGEST_SUBJECT = 20
_USER = re.compile(r"""://([^/?#\s"'<>]*)@""")
_MAY_MATTER = re.compile(r"(?i)token|auth|sig|bearer|passw|passphrase|pwd|secret|credential|key")


@lru_cache(maxsize=1000)
def is_secret(key: str) -> bool:
    """Whether a key names a secret: `hf_token` and `X-Amz-Signature` do, `num_tokens` and `tokenizer` do not.

    Args:
        key: One key, not a dotted path.
    """
    words = [word.lower() for word in _WORD.findall(key[-_LONGEST_KEY:])]
    if any(word in _ALWAYS for word in words):
        return True
    if any(first in _KEYS and second == "key" for first, second in pairwise(words)):
        return True
    while len(words) > 1 and words[-1] in _HARMLESS_ENDS:
        words.pop()
    if not words or (len(words) > 1 and words[-1] == "token" and words[-2] in _HARMLESS_TOKENS):
        return False
    return words[-1] in _AT_END or words[-1].endswith(_JOINED)


def may_hold_secrets(text: str) -> bool:
    """Whether a text may contain secrets: a fast test, which is also true for many texts without any."""
    return _MAY_MATTER.search(text) is not None or ("://" in text and "@" in text)


class RedactedText(str):
    """A text whose secrets are hidden already, which `redact_text` leaves as it is."""


def introduce(name: str, text: str) -> RedactedText:
    """Begin a sentence with a name that is no key, such as that of a recipe: `secret: 120 train rows`.

    Secrets within name and text are hidden.
    """
    return RedactedText(f"{redact_text(name)}: {redact_text(text)}")


def redact_text(text: str) -> str:
    """Hide the secrets of a text.

    Hidden are the values of `key=value` and `key: value`, also in JSON, in the query of an address and after a dotted
    path, and user and password of an address. A second call changes nothing.
    """
    if isinstance(text, RedactedText):
        return text
    if "://" in text and "@" in text:
        text = _USER.sub(_hide_user, text)
    return _hide_values(text) if _MAY_MATTER.search(text) else text


def redact_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Hide secrets in the texts, and lists of texts, of a status record: error messages quote their input."""

    def redact(value: Any) -> Any:
        if isinstance(value, str):
            return redact_text(value)
        return [redact(each) for each in value] if isinstance(value, (list, tuple)) else value

    return {name: redact(value) for name, value in details.items()}


def redact_argument(argument: str) -> str:
    """Hide secrets in an argument of a command: of a `key=value` that names a secret, the whole value."""
    key, _, value = argument.partition("=")
    if value and is_secret(key.rpartition(".")[2]):
        return f"{key}={HIDDEN}"
    return redact_text(argument)


def _hide_user(match: re.Match[str]) -> str:
    scheme = match.string[max(0, match.start() - 5) : match.start()]
    # `abfs://container@account` and `gs://anonymous@bucket` contain no secret.
    is_harmless = scheme.endswith(("abfs", "abfss", "hdfs")) and ":" not in match[1]
    return match[0] if is_harmless or match[1] in ("", "anonymous") else f"://{HIDDEN}@"


def _hide_values(text: str) -> str:
    pieces: list[str] = []
    done = counted = depth = 0
    for match in _PAIR.finditer(text):
        if match.start() < done or not is_secret(match[1].rpartition(".")[2][-_LONGEST_KEY:]):
            continue
        if _names_subject(match, done):
            continue
        # Number of open brackets on this line. Counting continues from the last match, so that the time stays linear.
        line = text.rfind("\n", counted, match.start()) + 1
        start = line or counted
        depth = (0 if line else depth) + _count_open_brackets(text, start, match.start())
        counted = match.start()
        end = _find_value_end(text, match, depth > 0)
        value = text[match.end() : end]
        if value:
            quote = value[0] if value[0] in "\"'" else ""
            closed = quote if len(value) > 1 and value.endswith(quote) else ""
            pieces += [text[done : match.end()], quote, HIDDEN, closed]
            done = end
    return "".join([*pieces, text[done:]])


def _names_subject(match: re.Match[str], done: int) -> bool:
    """Whether a key is rather the name of what a sentence is about: `column 'token': ...` or `data/token: ...`.

    Args:
        match: Match of `_PAIR`.
        done: Where the text begins that is kept: a word before it may be hidden.
    """
    _, quote, space, separator, gap = match.groups()
    if (space, separator, gap) != ("", ":", " ") or match.string[match.end() : match.end() + 1] in (*"\"'{[|>", ""):
        return False
    before = match.string[max(done, match.start() - _LONGEST_SUBJECT) : match.start()]
    return bool(_SUBJECT.search(before)) and before[-1] == quote if quote else before.endswith("/")


def _count_open_brackets(text: str, start: int, end: int) -> int:
    return sum(text.count(mark, start, end) for mark in "{[") - sum(text.count(mark, start, end) for mark in "}]")


def _find_value_end(text: str, match: re.Match[str], in_flow: bool) -> int:
    """Find the end of the value after a key.

    Args:
        match: Match of `_PAIR`.
        in_flow: Whether the value is inside of brackets, where a comma ends it.
    """
    start = match.end()
    if start == len(text):
        return start
    if text[start] in _TEXTS:
        value = _TEXTS[text[start]].match(text, start)
    elif match[4] == "=" and text[start] not in "{[":
        value = _BARE.match(text, start)
    else:
        value = (_FLOW if in_flow else _BLOCK).match(text, start)
    return value.end() if value else start
