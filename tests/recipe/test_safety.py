"""A recipe may come from anybody: it reaches no network, shows no foreign file, keeps no secret, fills no memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bmcli.commands.validate import ValidationResult, validate
from bmcli.data.files import Address
from bmcli.errors import BmcliError
from bmcli.recipe import addresses, nodes
from bmcli.recipe.load import load_recipe
from bmcli.recipe.render import render_base, render_recipe
from tests.recipe.files import SMALLEST, faults, only_fault, write

TABLE = "name: t\ndata:\n  source: {{kind: csv, path: '{}'}}\n  targets: {{y: category}}\nmodel: mlp\n"


@pytest.mark.parametrize("path", ["s3://bucket/a.csv", "gs://bucket/*.csv", "abfs://c@account.net/folder"])
def test_validating_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def refuse(self: Address) -> None:
        raise AssertionError("a file system was made")

    monkeypatch.setattr(Address, "_system", refuse)
    recipe = write(tmp_path, TABLE.format(path))
    assert validate(recipe, (), None) == ValidationResult(recipe, None)


@pytest.mark.parametrize("command", ["validate", "show", "plan", "train"])
@pytest.mark.parametrize("in_query", [True, False])
def test_no_credential_reaches_a_host_that_a_recipe_names(tmp_path: Path, command: str, in_query: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host = f"127.0.0.1:{server.getsockname()[1]}"
        query = f"?endpoint_override={host}&scheme=http" if in_query else "?region=eu-west-1"
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": "canary", "AWS_SECRET_ACCESS_KEY": "canary",
                       "AWS_SESSION_TOKEN": "canary", "AWS_ENDPOINT_URL": f"http://{host}"}  # fmt: skip
        environment.pop(addresses.ENVIRONMENT_VARIABLE, None)
        file = write(tmp_path, TABLE.format(f"s3://bucket/a.csv{query}"))
        subprocess.run([sys.executable, "-m", "bmcli", command, file], env=environment, cwd=tmp_path, timeout=120)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://b/x?endpoint_override=h&scheme=http", "an address of s3:// has no option 'endpoint_override'"),
        ("s3://b/x?region=evil.com/", "option region of an address may contain letters"),
        ("s3://b/x?access_key=canary", "an address must not contain a user, password, key"),
        ("s3://canary:canary@b/x", "an address must not contain a user, password, key"),
        ("gs://b/x?scheme=http", "an address of gs:// has no option 'scheme'"),
        ("file://host/x", "file:// is for files of this machine"),
        ("s3://b/x#y", "an address has no fragment (#)"),
        ("http://host/x", "no file system for http://"),
    ],
)
def test_an_address_contains_only_the_location_of_a_file(tmp_path: Path, path: str, message: str) -> None:
    found = only_fault(write(tmp_path, TABLE.format(path)))
    assert found.message.startswith(message)
    assert "canary" not in found.message


def test_an_address_of_a_recipe_alone_is_not_read_until_the_user_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.ENVIRONMENT_VARIABLE, "s3://other")
    address = Address("s3://bucket/a.csv")
    with pytest.raises(BmcliError, match="the recipe reads from s3://bucket"):
        address.open()
    monkeypatch.setenv(addresses.ENVIRONMENT_VARIABLE, "s3://other, s3://bucket/")
    assert addresses.is_allowed(str(address))


def test_an_address_that_the_user_types_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses.ENVIRONMENT_VARIABLE, "")
    addresses.allow_typed("data.source.path=[s3://bucket/a.csv, 'gs://more/b']")
    assert addresses.is_allowed("s3://bucket/b.csv?region=x")
    assert addresses.is_allowed("gs://more/c")
    assert not addresses.is_allowed("s3://buckets/b.csv")


SECRETS = "# password: canary\nvars:\n  hf_token: canary\n  api_key: |\n    canary\n    canary\n  n: 3\n"


def test_nothing_that_is_written_of_a_recipe_holds_a_secret(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, SMALLEST + SECRETS), ["vars.password=canary phrase"])
    kept = [render_recipe(loaded.recipe, loaded.tree), render_base(loaded), loaded.document.text, repr(loaded.recipe)]
    assert [text for text in kept if "canary" in text] == []
    for text in kept[:3]:
        again = load_recipe(write(tmp_path, text, "kept.yaml")).recipe
        assert (again.vars["hf_token"], again.vars["n"]) == ("***", 3)


def test_a_recipe_without_secrets_is_kept_as_it_was_written(tmp_path: Path) -> None:
    text = SMALLEST + "# a comment\nvars: {n: 3, key: x}\n"
    assert load_recipe(write(tmp_path, text)).document.text == text


def test_a_value_cannot_hold_a_secret(tmp_path: Path) -> None:
    found = only_fault(write(tmp_path, SMALLEST + "vars: {hf_token: canary, a: 'x${hf_token}'}\n"))
    assert "variable 'hf_token' is a secret by its name" in found.message
    assert "canary" not in found.message


FOREIGN = (
    "github.com:\n  oauth: canary\n",
    "A=canary\0B=canary\n",
    "canary:x:0:0\nb:x:1\n",
    "- canary: [\n",
    "canary\n",
)


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("extended", [True, False])
def test_a_file_that_is_no_recipe_is_not_quoted(tmp_path: Path, foreign: str, extended: bool) -> None:
    target = write(tmp_path, foreign, "foreign")
    for fault in faults(write(tmp_path, "extends: foreign\nname: t\n") if extended else target):
        assert "canary" not in repr(fault)


def test_the_secret_of_another_program_is_not_quoted_though_a_key_is_known(tmp_path: Path) -> None:
    write(tmp_path, "apiVersion: v1\ndata: [canary]\n", "secret.yaml")
    assert "canary" not in repr(only_fault(write(tmp_path, "extends: secret.yaml\nname: t\n")))


def test_variables_together_cannot_fill_the_memory(tmp_path: Path) -> None:
    uses = "".join(f"  v{number}: 'y${{a}}'\n" for number in range(100))
    found = only_fault(write(tmp_path, SMALLEST + f"vars:\n  a: {'x' * 100_000}\n{uses}"))
    assert found.message == "too long once its variables are filled in."


def test_aliases_of_a_long_text_cannot_fill_the_memory(tmp_path: Path) -> None:
    uses = "".join(f"  v{number}: *a\n" for number in range(100))
    found = only_fault(write(tmp_path, SMALLEST + f"vars:\n  a: &a {'x' * 100_000}\n{uses}"))
    assert found.message == "too long once aliases are expanded."


def test_a_chain_of_bases_cannot_fill_the_memory(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST, "0.yaml")
    many = f"vars: {{a: [{'x,' * 20_000}]}}\n"
    for number in range(1, 4):
        write(tmp_path, f"extends: {number - 1}.yaml\n{many}", f"{number}.yaml")
    assert "too large together with the recipes" in only_fault(str(tmp_path / "3.yaml")).message


def test_a_part_of_an_address_that_the_user_types_is_no_word_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(addresses.ENVIRONMENT_VARIABLE, "")
    recipe = write(tmp_path, TABLE.format("s3://${bucket}/a.csv") + "vars: {bucket: other}\n")
    addresses.allow_typed("vars.bucket=mine")
    address = Address(load_recipe(recipe, ["vars.bucket=mine"]).recipe.data.source.path)  # type: ignore[attr-defined]
    with pytest.raises(BmcliError, match="the recipe reads from s3://mine") as caught:
        address.open()
    assert "A part of an address, such as vars.bucket=NAME, does not allow it" in caught.value.faults[0].suggestion


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "device", "a link to a device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str, extended: bool) -> None:
    path = tmp_path / "base.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero")
    target = write(tmp_path, f"bmcli: 1\nname: x\nextends: {path}\n") if extended else str(path)
    done = subprocess.run(
        [sys.executable, "-m", "bmcli", "validate", target], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 2
    assert ("is a folder, expected" if kind == "folder" else "is a device or pipe, expected") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipe_behind_the_look_is_not_waited_for_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BmcliError, match="found a device or pipe"):
        nodes.read_text(tmp_path / "pipe", "pipe")


def test_thousands_of_unknown_keys_are_reported_soon(tmp_path: Path) -> None:
    """As many comparisons as 24 words for each would take minutes where a word is compared with thousands."""
    variables = ", ".join(f"variable_{number}: 1" for number in range(3000))
    used = ", ".join(f'"${{varable_{number}}}"' for number in range(3000))
    text = f"vars: {{{variables}}}\n{SMALLEST}"
    with pytest.raises(BmcliError) as caught:
        load_recipe(write(tmp_path, text + f"tune: [{used}]\n"))
    hints = [fault.suggestion for fault in caught.value.faults if fault.suggestion.startswith("Did you mean")]
    assert 0 < len(hints) < 20
    assert len(caught.value.faults) >= 3000
