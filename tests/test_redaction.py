"""Secrets are hidden wherever a text shows or keeps them, in time that is linear in its length."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmcli.recipe.json_schema import make_recipe_schema
from bmcli.recipe.load import list_built_in
from bmcli.recipe.nodes import hide_secrets
from bmcli.redaction import introduce, is_secret, redact_argument, redact_text

SECRET = (
    "hf_token", "HF_TOKEN", "hfToken", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "sig", "api_key",
    "apikey", "AWSAccessKeyId", "secret_key", "db_password_old", "client_secret", "auth", "token_prod", "AccountKey",
)  # fmt: skip
HARMLESS = (
    "num_tokens", "tokens", "tokenizer", "token_dropout", "mask_token", "author", "sigma", "keys", "key_dim", "monkey",
    "design", "num_key_value_heads",
)  # fmt: skip


@pytest.mark.parametrize("key", SECRET)
def test_a_key_that_names_a_secret_is_known(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize("key", HARMLESS)
def test_a_key_of_a_model_is_no_secret(key: str) -> None:
    assert not is_secret(key)


def _keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for item in schema.values():
            yield from _keys(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from _keys(item)


def test_no_key_of_the_recipe_language_is_a_secret() -> None:
    keys = set(_keys(make_recipe_schema()))
    assert len(keys) > 100
    assert [key for key in keys if is_secret(key)] == []


@pytest.mark.parametrize("name", list_built_in())
def test_a_built_in_recipe_loses_nothing(name: str) -> None:
    text = list_built_in()[name].read_text()
    assert hide_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("vars.HF_TOKEN=canary=canary", "vars.HF_TOKEN=***"),
        ("https://user:canary@host/x", "https://***@host/x"),
        ("s3://b/x?X-Amz-Signature=canary&region=x", "s3://b/x?X-Amz-Signature=***&region=x"),
        ("{hf_token: canary, a: 1}", "{hf_token: ***, a: 1}"),
        ("  hf_token: canary phrase # x", "  hf_token: *** # x"),
        ('{"token": "canary", "a": 1}', '{"token": "***", "a": 1}'),
        ("abfs://container@account.net/x", "abfs://container@account.net/x"),
        ("train.epochs=3", "train.epochs=3"),
    ],
)
def test_a_text_loses_its_secrets_alone(text: str, hidden: str) -> None:
    assert redact_text(text) == hidden


@pytest.mark.parametrize("name", ["secret", "token", "password", "hf_token"])
def test_a_sentence_after_a_name_is_shown(name: str) -> None:
    sentence = f"{name}: 1,258 train, 270 validation rows; inputs: 1 image; target: label"
    assert redact_text(sentence) == f"{name}: ***"
    assert redact_text(introduce(name, sentence.partition(": ")[2])) == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "column 'token': expected a number, received 'n/a'.",
        "no recipe 'secret': no such file, and no built-in recipe of that name.",
        "no run 'token': neither a run directory nor a name in runs.",
        "data/secret: no such folder.",
    ],
)
def test_a_sentence_about_a_name_is_shown(sentence: str) -> None:
    assert redact_text(sentence) == sentence


def test_a_sentence_after_a_name_loses_its_secrets() -> None:
    assert introduce("secret", "read s3://u:canary@b, token: canary") == "secret: read s3://***@b, token: ***"
    assert introduce("token=canary", "text") == "token=***: text"
    assert redact_text(introduce("secret", "text") + " token: canary") == "secret: ***"


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1, 'token': 'canary'}", "column {'token': canary}", "column 'token': 'canary'", "column 'token'=canary",
        "'token': canary", "- 'token': canary", "invalid field 'token': canary", "token=column 'token': canary",
        "https://host/?a=b/token=canary", "/token:canary",
    ],
)  # fmt: skip
def test_a_key_in_quotes_or_after_a_slash_still_hides_its_value(text: str) -> None:
    assert "canary" not in redact_text(text)


def test_the_whole_value_of_an_argument_is_hidden() -> None:
    assert redact_argument("vars.api_key=my canary & 'more'") == "vars.api_key=***"


_CHARACTERS = st.text(st.sampled_from("token=:/@ '\"{}[],&#\\\nx.-"), max_size=60)
_PIECES = st.sampled_from(["column ", "token", "'", '"', ": ", "=", "x", " ", "/", "\n"])


@given(_CHARACTERS | st.lists(_PIECES, max_size=20).map("".join))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)


def test_a_megabyte_takes_no_time_worth_telling() -> None:
    pieces = ["token=", "a", "://", "token: '", "{token: a, ", "token\t", "@://", "vars.", "token: #"]
    code = (
        "from bmcli.redaction import redact_argument\n"
        f"for piece in {pieces!r}:\n    redact_argument(piece * (1_000_000 // len(piece)))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
