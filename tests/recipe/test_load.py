"""What a recipe becomes: bases, overrides, variables and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmcli.errors import BmcliError, Fault
from bmcli.recipe.load import find_recipe, list_built_in, load_recipe, split_path
from tests.recipe.files import SMALLEST, faults, only_fault, where, write

CSV = """\
name: table
data:
  source: {kind: csv, path: data/train.csv}
  targets: {label: {kind: category}}
model: {kind: mlp, hidden: [8, 4], dropout: 0.1}
"""


def model(target: str, *overrides: str) -> dict[str, Any]:
    """The options of the model that are written."""
    return load_recipe(target, overrides).recipe.model.model_dump(exclude_unset=True)


def test_a_bare_name_is_short_for_its_kind(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, SMALLEST)).recipe.model.kind == "mlp"


# Bases


def test_a_mapping_merges_into_the_base(tmp_path: Path) -> None:
    write(tmp_path, CSV, "base.yaml")
    file = write(tmp_path, "extends: base.yaml\nmodel: {dropout: 0.5}\n")
    assert model(file) == {"kind": "mlp", "hidden": (8, 4), "dropout": 0.5}


def test_a_list_replaces_that_of_the_base(tmp_path: Path) -> None:
    write(tmp_path, CSV, "base.yaml")
    assert model(write(tmp_path, "extends: base.yaml\nmodel: {hidden: [3]}\n"))["hidden"] == (3,)


def test_null_deletes_a_value_of_the_base(tmp_path: Path) -> None:
    write(tmp_path, CSV, "base.yaml")
    assert "hidden" not in model(write(tmp_path, "extends: base.yaml\nmodel: {hidden: null}\n"))


def test_another_kind_replaces_the_whole_mapping(tmp_path: Path) -> None:
    write(tmp_path, CSV, "base.yaml")
    file = write(tmp_path, "extends: base.yaml\nmodel: {kind: cnn, filters: [2]}\n")
    assert model(file) == {"kind": "cnn", "filters": (2,)}


@pytest.mark.parametrize("same", ["mlp", "{kind: mlp}"])
def test_the_same_kind_keeps_the_options(tmp_path: Path, same: str) -> None:
    write(tmp_path, CSV, "base.yaml")
    assert model(write(tmp_path, f"extends: base.yaml\nmodel: {same}\n"))["hidden"] == (8, 4)


def test_options_over_a_bare_name_keep_its_kind(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST, "base.yaml")
    assert model(write(tmp_path, "extends: base.yaml\nmodel: {hidden: [3]}\n"))["kind"] == "mlp"


def test_a_base_is_beside_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST + "seed: 1\n", "deep/base.yaml")
    write(tmp_path, "extends: base.yaml\n", "deep/middle.yaml")
    assert load_recipe(write(tmp_path, "extends: deep/middle.yaml\n")).recipe.seed == 1


def test_a_base_can_be_a_built_in_recipe(tmp_path: Path) -> None:
    name = next(iter(list_built_in()))
    assert (
        load_recipe(write(tmp_path, f"extends: {name}\nname: mine\n")).recipe.data.source
        == load_recipe(name).recipe.data.source
    )


def test_recipes_that_extend_each_other_are_a_fault(tmp_path: Path) -> None:
    write(tmp_path, "extends: recipe.yaml\n", "base.yaml")
    found = only_fault(write(tmp_path, "extends: base.yaml\n"))
    assert ("extends itself in a circle" in found.message, where(found)) == (True, ("base.yaml", 1, 10))


def test_a_long_chain_of_bases_is_read(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST, "0.yaml")
    for number in range(1, 300):
        write(tmp_path, f"extends: {number - 1}.yaml\n", f"{number}.yaml")
    assert load_recipe(str(tmp_path / "299.yaml")).recipe.name == "smallest"


@pytest.mark.parametrize("base", ["bsae.yaml", "x" * 5000, "a/../../b", '"\\t"', "~nobody/x"])
def test_a_base_that_is_not_there_is_a_fault_at_its_name(tmp_path: Path, base: str) -> None:
    found = only_fault(write(tmp_path, f"extends: {base}\n"))
    assert (found.message.startswith("no recipe '"), where(found)) == (True, ("recipe.yaml", 1, 10))


def test_a_base_that_is_not_there_gets_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST, "base.yaml")
    assert only_fault(write(tmp_path, "extends: bsae.yaml\n")).suggestion == "Did you mean 'base.yaml'?"


@pytest.mark.parametrize("base", ["[a]", "3", "{a: b}", "''", "true"])
def test_a_base_is_one_name(tmp_path: Path, base: str) -> None:
    assert "expected the file or name of one recipe" in only_fault(write(tmp_path, f"extends: {base}\n")).message


def test_faults_of_a_base_point_into_it(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST + "train:\n  epocs: 3\n", "base.yaml")
    found = faults(write(tmp_path, "extends: base.yaml\nsead: 3\n"))
    assert [where(fault) for fault in found] == [("recipe.yaml", 2, 1), ("base.yaml", 6, 3)]


@pytest.mark.parametrize("text", ["- a\n", "3\n", "text\n"])
def test_a_recipe_is_a_mapping(tmp_path: Path, text: str) -> None:
    assert "expected a recipe, a mapping of sections" in only_fault(write(tmp_path, text)).message


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
@pytest.mark.parametrize("overrides", [(), ("train.epochs=3",)])
def test_an_empty_recipe_is_one_fault_of_its_file(tmp_path: Path, text: str, overrides: tuple[str, ...]) -> None:
    fault = only_fault(write(tmp_path, text), overrides)
    assert where(fault) == ("recipe.yaml", 1, 1)
    assert "the file has no section" in fault.message
    assert "`bmcli init DATA` writes a recipe" in fault.suggestion


def test_keys_that_a_section_without_values_lacks_are_missing_where_it_stands(tmp_path: Path) -> None:
    file = write(tmp_path, "name: a\nmodel: mlp\ndata: {}\n")
    fault = only_fault(file, ["data.seed=3"])
    assert (where(fault), fault.path) == (("recipe.yaml", 3, 1), "data.source")


# Overrides


def test_an_override_sets_a_value(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, SMALLEST), ["train.epochs=3"]).recipe.train.epochs == 3


def test_a_list_is_written_in_brackets(tmp_path: Path) -> None:
    assert model(write(tmp_path, SMALLEST), "model.hidden=[8,16]")["hidden"] == (8, 16)


def test_a_mapping_is_written_in_braces(tmp_path: Path) -> None:
    assert model(write(tmp_path, SMALLEST), "model={kind: cnn, filters: [8]}") == {"kind": "cnn", "filters": (8,)}


@pytest.mark.parametrize("kind", ["model=cnn", "model.kind=cnn"])
def test_the_order_of_overrides_is_free(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, CSV)
    one, other = model(file, kind, "model.filters=[8]"), model(file, "model.filters=[8]", kind)
    assert one == other == {"kind": "cnn", "filters": (8,)}


def test_a_key_with_dots_stands_in_quotes(tmp_path: Path) -> None:
    inputs = load_recipe(write(tmp_path, CSV), ['data.inputs."a.b".kind=number']).recipe.data.inputs
    assert inputs is not None
    assert list(inputs) == ["a.b"]


def test_a_quoted_key_can_hold_an_equals_sign(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALLEST), ['vars."a=\\"b"=c=d']).recipe
    assert recipe.vars == {'a="b': "c=d"}


def test_an_item_of_a_list_is_named_by_its_number(tmp_path: Path) -> None:
    assert model(write(tmp_path, CSV), "model.hidden.1=5")["hidden"] == (8, 5)


def test_an_item_set_to_null_is_deleted(tmp_path: Path) -> None:
    assert model(write(tmp_path, CSV), "model.hidden.0=null", "model.hidden.1=3")["hidden"] == (3,)


@pytest.mark.parametrize("nothing", ["", "null", "~", " "])
def test_nothing_gives_the_default_back(tmp_path: Path, nothing: str) -> None:
    assert "hidden" not in model(write(tmp_path, CSV), f"model.hidden={nothing}")


def test_a_gate_needs_no_quotes_of_its_own(tmp_path: Path) -> None:
    gates = load_recipe(write(tmp_path, SMALLEST), ["evaluate.gates.accuracy=>= 0.9"]).recipe.evaluate.gates
    assert gates == {"accuracy": ">= 0.9"}


OVERRIDE_FAULTS = [
    ("train.epochs", 1, "expected an override key=value, received 'train.epochs'."),
    ("=3", 1, "expected an override key=value"),
    ("a..b=3", 1, "expected an override key=value"),
    ('"a=3', 1, "expected an override key=value"),
    (".".join("a" * 60) + "=3", 1, "nested more than 50 deep."),
    ("extends=base", 1, "extends cannot be overridden."),
    ("model=[1", 9, "a closing bracket or a comma is missing."),
    ("seed=!x 1", 6, "the tag !x is not allowed in a recipe."),
    ("seed=\udcff", 6, "character U+DCFF is not allowed in a recipe."),
    ("model.hidden.2=1", 1, "there is no item 2; the list has 2, counted from 0."),
    ("model.hidden.99999999999999999999=1", 1, "expected a list"),
    ("train.epochs=ten", 14, "expected a whole number, received 'ten'."),
    ("train.stop={patiense: 3}", 13, "no such key."),
    ("train={stop: {patience: 0}}", 25, "expected a number of at least 1, received 0."),
    ("train.epocs=3", 1, "no such key."),
    ("seed=${nmae}", 6, "no variable 'nmae' in vars."),
]


@pytest.mark.parametrize(("override", "column", "message"), OVERRIDE_FAULTS)
def test_a_fault_of_an_override_points_into_it(tmp_path: Path, override: str, column: int, message: str) -> None:
    found = only_fault(write(tmp_path, CSV), ["runtime.jit=auto", override])
    assert message in found.message
    assert where(found) == ("command line", 2, column)


CONFLICTS = [
    ("seed=1", "seed=2", "this is set twice."),
    ("train={epochs: 3}", "train.epochs=4", "another override sets a value that contains this one."),
    ("train.epochs=4", "train={epochs: 3}", "another override sets a part of this value."),
    ("model=cnn", "model.kind=mlp", "this is set twice."),
    ("model.kind=mlp", "model=cnn", "another override sets a part of this value."),
]


@pytest.mark.parametrize(("one", "other", "message"), CONFLICTS)
def test_overrides_that_contradict_each_other_are_a_fault(tmp_path: Path, one: str, other: str, message: str) -> None:
    found = only_fault(write(tmp_path, SMALLEST), [one, other])
    assert (found.message, where(found)) == (message, ("command line", 2, 1))


def test_faults_of_file_and_overrides_come_together(tmp_path: Path) -> None:
    found = faults(write(tmp_path, SMALLEST + "sead: 1\n"), ["x", "train.epochs=0"])
    assert [where(fault) for fault in found] == [("recipe.yaml", 5, 1), ("command line", 1, 1), ("command line", 2, 14)]


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("model.layers.3.units", ("model", "layers", 3, "units")),
        ('data.inputs."a.b".kind', ("data", "inputs", "a.b", "kind")),
        ('"a\\"b"', ('a"b',)),
        ("evaluate.gates.test/accuracy", ("evaluate", "gates", "test/accuracy")),
        ("a..b", ("a", "", "b")),
        ("", ("",)),
    ],
)
def test_a_path_is_split_at_its_dots(path: str, steps: tuple[Any, ...]) -> None:
    assert split_path(path) == steps


# Variables


def variables(tmp_path: Path, text: str, *overrides: str) -> Any:
    return load_recipe(write(tmp_path, SMALLEST + text), overrides).recipe


def test_a_variable_alone_keeps_its_type(tmp_path: Path) -> None:
    assert variables(tmp_path, "vars: {n: 3}\ntrain:\n  epochs: ${n}\n").train.epochs == 3


def test_a_variable_inside_text_is_text(tmp_path: Path) -> None:
    assert variables(tmp_path, "vars: {n: 3, m: 'run-${n}-${n}'}").vars["m"] == "run-3-3"


@pytest.mark.parametrize(("value", "text"), [("true", "x-true"), ("1e-3", "x-0.001"), ("null", "x-null"), ("a", "x-a")])
def test_values_inside_text_are_written_as_in_yaml(tmp_path: Path, value: str, text: str) -> None:
    assert variables(tmp_path, f"vars: {{v: {value}, text: 'x-${{v}}'}}").vars["text"] == text


def test_a_variable_is_overridden(tmp_path: Path) -> None:
    assert variables(tmp_path, "vars: {n: 3}\ntrain:\n  epochs: ${n}\n", "vars.n=4").train.epochs == 4


def test_two_dollar_signs_are_one(tmp_path: Path) -> None:
    assert variables(tmp_path, "vars: {n: 3, text: '$$ $${n} $$${n} $'}").vars["text"] == "$ ${n} $3 $"


VARIABLE_FAULTS = [
    ("${nn}", "no variable 'nn' in vars."),
    ("a${}b", "no variable '' in vars."),
    ("${n", "${ without a closing brace."),
    ("${later}", "no variable 'later' in vars."),
]


@pytest.mark.parametrize(("text", "message"), VARIABLE_FAULTS)
def test_a_variable_that_is_not_there_is_one_fault_at_its_use(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, SMALLEST + f"vars:\n  n: 3\n  m: '{text}'\n  later: 1\ntrain: {{epochs: '${{m}}'}}\n")
    found = only_fault(file)
    assert (found.message, where(found)) == (message, ("recipe.yaml", 7, 6))


def test_an_unknown_variable_gets_the_nearest_name(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST + "vars: {batch: 3}\ntrain: {batch_size: '${bacth}'}\n")
    assert only_fault(file).suggestion == "Did you mean 'batch'?"


def test_a_fault_of_a_variables_value_stands_where_it_is_used(tmp_path: Path) -> None:
    file = write(tmp_path, SMALLEST + "vars: {n: ten}\ntrain:\n  epochs: ${n}\n")
    found = only_fault(file)
    assert (found.message, where(found)) == ("expected a whole number, received 'ten'.", ("recipe.yaml", 7, 11))


def test_a_variable_that_is_a_list_is_one_fault(tmp_path: Path) -> None:
    found = only_fault(write(tmp_path, SMALLEST + "vars: {n: [1]}\ntrain: {epochs: '${n}'}\n"))
    assert found.path == "vars.n"


def test_variables_cannot_fill_the_memory(tmp_path: Path) -> None:
    uses = "${a}" * 100_000
    found = only_fault(write(tmp_path, SMALLEST + f"vars: {{a: {'x' * 100_000}, b: '{uses}'}}\n"))
    assert found.message == "too long once its variables are filled in."


# Paths


def path_of(target: str, *overrides: str) -> Any:
    return load_recipe(target, overrides).recipe.data.source.path  # type: ignore[attr-defined]


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, CSV, "deep/base.yaml")
    assert path_of(write(tmp_path, "extends: deep/base.yaml\n")) == str(tmp_path / "deep/data/train.csv")


def test_a_path_of_an_override_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    assert path_of(write(tmp_path, CSV), "data.source.path=x.csv") == str(Path.cwd() / "x.csv")


def test_a_path_for_each_split_is_relative_to_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, CSV.replace("data/train.csv", "{train: a.csv, test: /b.csv}"))
    assert path_of(file) == {"train": str(tmp_path / "a.csv"), "test": "/b.csv"}


def test_a_variable_in_a_path_leaves_it_relative_to_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, CSV.replace("data/train.csv", "'data/${part}.csv'") + "vars: {part: a}\n")
    assert path_of(file, "vars.part=b") == str(tmp_path / "data/b.csv")


def test_a_path_that_begins_with_a_variable_is_relative_to_where_that_is_set(tmp_path: Path) -> None:
    file = write(tmp_path, CSV.replace("data/train.csv", "'${root}/a.csv'") + "vars: {root: here}\n")
    assert (path_of(file), path_of(file, "vars.root=there")) == (
        str(tmp_path / "here/a.csv"),
        str(Path.cwd() / "there/a.csv"),
    )


def test_home_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert path_of(write(tmp_path, CSV.replace("data/train", "~/train"))) == "/home/me/train.csv"


def test_an_empty_path_is_not_the_folder(tmp_path: Path) -> None:
    assert only_fault(write(tmp_path, CSV.replace("data/train.csv", "''"))).path == "data.source.path"


# Targets of commands


@pytest.mark.parametrize("target", ["no-such", "x" * 5000, "a\0b", "~nobody/x.yaml", ""])
def test_a_recipe_that_is_not_there_is_a_fault(target: str) -> None:
    with pytest.raises(BmcliError, match=r"no recipe|is a folder"):
        find_recipe(target)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BmcliError, match="is a folder, expected a recipe file"):
        find_recipe(str(tmp_path))


def test_later_faults_get_the_places_of_their_paths(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, CSV))
    error = loaded.locate(BmcliError(Fault("wrong", path="model.hidden.1"), Fault("nowhere")))
    assert [fault.place and fault.place.line for fault in error.faults] == [5, None]


@pytest.mark.parametrize(
    ("path", "loaded"),
    [
        ("s3://bucket/a.csv", "s3://bucket/a.csv"),
        ("[part-*.csv, gs://bucket/b.csv]", ("{here}/part-*.csv", "gs://bucket/b.csv")),
        ("{train: [a.csv, b.csv], test: hdfs://host/c}", {"train": ("{here}/a.csv", "{here}/b.csv"), "test": "hdfs://host/c"}),
    ],
)  # fmt: skip
def test_paths_are_made_absolute_and_addresses_stay(tmp_path: Path, path: str, loaded: Any) -> None:
    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(each) for key, each in value.items()}
        return value.replace("{here}", str(tmp_path)) if isinstance(value, str) else tuple(map(here, value))

    file = write(tmp_path, CSV.replace("data/train.csv", path))
    assert load_recipe(file).recipe.data.source.path == here(loaded)  # type: ignore[attr-defined]


def test_an_address_of_no_file_system_is_a_fault_at_its_place(tmp_path: Path) -> None:
    found = only_fault(write(tmp_path, CSV.replace("data/train.csv", "[a.csv, http://host/a.csv]")))
    assert found.message == "no file system for http://."
    assert found.path == "data.source.path.1"
