"""The law of advice: what a message tells a user to run, to set or to install exists, and is accepted."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from bmcli import parts
from bmcli.advice import make_command
from bmcli.cli import cli
from tests.advised import (
    HOLE,
    PACKAGE,
    CommandCall,
    find_accepted,
    find_accepted_kind,
    find_schemas,
    list_command_calls,
    list_fragments,
    list_kind_mappings,
    list_texts,
    read_schema,
)

SECTIONS = [name for name in read_schema()["$defs"]["Recipe"]["properties"] if name not in ("name", "bmcli", "seed")]
_FOREIGN_FLAGS = {"--distribution", "--tf_xla_persistent_cache_directory", "--tf_xla_persistent_cache_prefix"}
"""Of `srun` and XLA."""


def parse_command(words: list[str]) -> None:
    """Parse a command line as Click does, without running it."""
    with cli.make_context("bmcli", list(words), resilient_parsing=False) as context:
        name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        command.make_context(name, rest, parent=context)


def list_flags(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


ALL_FLAGS = set().union({"--help"}, list_flags(cli), *map(list_flags, cli.commands.values()))


def test_the_source_advises_something() -> None:
    assert len(list_command_calls()) > 20
    assert len(list_texts()) > 1000


@pytest.mark.parametrize("call", list_command_calls(), ids=lambda call: call.place)
def test_every_advised_command_is_one_that_the_command_line_accepts(call: CommandCall) -> None:
    if all(word is None for word in call.words):
        pytest.fail("the verb is written where the command is made")
    parse_command(["runs/my run" if word is None else word for word in call.words])


def test_a_command_can_be_copied_into_a_shell() -> None:
    command = str(make_command("train", "--resume", "runs/it's my run", "train.stop={metric: null}"))
    assert shlex.split(command.strip("`")) == [
        "bmcli", "train", "--resume", "runs/it's my run", "train.stop={metric: null}",
    ]  # fmt: skip


def test_messages_write_commands_by_make_command_alone() -> None:
    """A command that is a part of a text is neither quoted nor found by this law."""
    verbs = "|".join(cli.commands)
    pattern = re.compile(rf"(?:`|: |# )bmcli(?: --\S+)* ({verbs})\b ?[^`\s]")
    found = [text.place for text in list_texts() if not text.is_help and pattern.search(text.text)]
    assert found == [], found


def test_every_command_that_a_text_names_exists() -> None:
    faults = []
    for text in list_texts():
        for match in re.finditer(r"`bmcli ([a-z][^`]*)`", text.text):
            words = shlex.split(match[1])
            try:
                parse_command(words) if len(words) > 1 else cli.commands[words[0]]
            except (click.UsageError, KeyError) as error:
                faults.append(f"{text.place}: {match[0]}: {error}")
    assert faults == []


def test_every_flag_that_a_text_names_exists() -> None:
    """A module of a verb names the flags of its verb; other modules those of any."""
    faults = []
    for text in list_texts():
        verb = text.module.removeprefix("commands/").removesuffix(".py")
        command = cli.commands.get(verb) if text.module.startswith("commands/") else None
        named = [each for name, each in cli.commands.items() if re.search(rf"\b{name}\b", text.text)]
        known = ALL_FLAGS if command is None else set().union(*map(list_flags, (command, cli, *named)))
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text.text):
            if flag not in known and flag not in _FOREIGN_FLAGS:
                faults.append(f"{text.place}: {flag}")
    assert faults == []


_PATH = re.compile(rf"(?<![\w./'{{-])((?:{'|'.join(SECTIONS)})(?:\.(?:[a-z_]\w*|\d+|{HOLE}))+)(?!\.?\w)(?!\()")
_FILES = re.compile(r"\.(?:json|yaml|keras|csv|html|jsonl|py|h5|txt|tfrecord)$")


def test_every_option_that_a_text_names_exists() -> None:
    faults = []
    for text in list_texts():
        # The example of a card is a program, in which `model` is a variable.
        for path in _PATH.findall(text.text) if text.module != "export/example.py" else ():
            if not _FILES.search(path) and not find_schemas(tuple(path.split("."))):
                faults.append(f"{text.place}: {path}")
    assert faults == []


def list_overrides(text: str) -> list[tuple[str, str]]:
    """List the overrides in a text: path and value."""
    found = re.findall(rf"((?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+)=(\{{[^}}]*\}}|[^\s,;`]+)", text)
    return [(path, value.rstrip(".,")) for path, value in found]


def test_every_override_that_a_text_advises_is_accepted() -> None:
    faults, count = [], 0
    for text in list_texts():
        for path, value in list_overrides(text.text):
            count += 1
            if re.fullmatch(r"[A-Z]*", value) or (text.module, path) in _NO_ADVICE:
                continue
            if not find_accepted(path, value):
                faults.append(f"{text.place}: {path}={value}")
    assert count > 10
    assert faults == []


def _is_pattern(value: str) -> bool:
    """Whether a value has no keys of its own: they are filled in."""
    return re.search(rf"{HOLE}(?:: |, {HOLE}\}}|\}})", value.replace(": " + HOLE, ": x")) is not None


def test_every_piece_of_yaml_that_a_text_advises_is_accepted() -> None:
    faults, count = [], 0
    for text in list_texts():
        for key, value in list_fragments(text.text):
            count += 1
            if "..." not in value and not _is_pattern(value) and key != "key" and not find_accepted(key, value):
                faults.append(f"{text.place}: {key}: {value}")
        for value in list_kind_mappings(text.text):
            count += 1
            if "..." not in value and not _is_pattern(value) and not find_accepted_kind(value):
                faults.append(f"{text.place}: {value}")
    assert count > 60
    assert faults == []


_OTHER_NAMES = {
    *("srun", "completions", "subdomain"),  # of Slurm and Kubernetes
    *("save_weights",),  # of Keras
    *("prompt",),  # a key of JSON lines for `bmcli generate`
    *("top_p", "repetition_penalty", "position"),  # tensors of the functions of an artefact that writes
    *("iso", "seconds", "milliseconds", "whitespace", "unseen", "local"),  # values of options that are any text
}


def test_every_name_in_backticks_is_one_of_an_option_a_kind_or_a_verb() -> None:
    schema = json.dumps(read_schema())
    faults = []
    for text in list_texts():
        for name in re.findall(r"`([a-z][a-z_0-9.]*)`", text.text):
            known = f'"{name}"' in schema or find_schemas(tuple(name.split("."))) or name in cli.commands
            if not known and name not in _OTHER_NAMES:
                faults.append(f"{text.place}: `{name}`")
    assert faults == []


def test_wrong_advice_is_seen() -> None:
    assert not find_schemas(("train", "epocs"))
    assert not find_accepted("train.epochs", "many")
    assert not find_accepted("stop", "{patienc: 5}")
    assert not find_accepted_kind("{kind: dense, unit: 32}")
    assert list_fragments("Write stop: {patience: 5}, or `shape: linear`.") == [
        ("stop", "{patience: 5}"), ("shape", "linear"),
    ]  # fmt: skip
    for wrong in (["trian", "RECIPE"], ["train", "--resumes", "x"], ["plan", "--pictures"]):
        with pytest.raises(click.UsageError):
            parse_command(wrong)


def test_every_variable_of_the_environment_that_a_text_names_is_read() -> None:
    named = {name for text in list_texts() for name in re.findall(r"\bBMCLI_[A-Z_]+", text.text)}
    code = "".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py"))
    assert named
    assert {name for name in named if not re.search(rf"[\"']{name}[\"']", code)} == set()


def test_every_extra_that_a_format_advises_can_be_installed() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needing = {kind: parts.load("export.formats", kind).Options.EXTRA for kind in parts.names("export.formats")}
    assert {"onnx", "openvino"} <= {kind for kind, modules in needing.items() if modules}
    assert {kind for kind, modules in needing.items() if modules} <= project["optional-dependencies"].keys()
    named = [extra for text in list_texts() for extra in re.findall(r"bmcli\[([a-z,]+)\]", text.text)]
    assert set(named) <= project["optional-dependencies"].keys()


_LIMITS = ("patience", "overfit", "time", "steps")
OBEYED = {
    "test_obeyed_advice": {
        "test_who_has_no_run_is_led_to_one": ("runs.py:find", "recipe/source_run.py:_find_run"),
        "test_an_empty_list_of_runs_leads_to_a_run": ("terminal/presenters/runs.py:print_result",),
        "test_who_names_no_recipe_is_led_to_the_built_in_ones": ("recipe/load.py:find_recipe",),
        "test_an_empty_recipe_leads_to_the_built_in_ones": ("recipe/nodes.py:_make_empty_file_fault",),
        "test_a_foreign_base_leads_to_its_faults": ("recipe/nodes.py:_make_foreign_file_fault",),
        "test_a_draft_is_trained_by_its_own_words": (
            "commands/init.py:_render_recipe", "terminal/presenters/draft.py:print_result",
        ),
        "test_pictures_that_look_alike_lead_to_a_sheet": ("data/checks.py:_find_flaws",),
        "test_a_damaged_file_of_a_run_is_written_again": ("runs.py:_advise_repair",),
        "test_a_report_that_was_not_written_is_written_by_the_advised_command": (
            "workflows/reporting.py:report_training", "workflows/reporting.py:refresh_report",
        ),
        "test_a_run_without_artefacts_is_led_to_one": ("commands/benchmark.py:_list_targets_of_run",),
        "test_a_search_is_led_from_nothing_to_its_end_and_beyond": (
            "tuning/study.py:find_study", "commands/tune.py:join", "commands/tune.py:_require_unfinished",
        ),
        "test_a_distillation_is_led_from_nothing_to_its_end": ("distillations.py:find_distillation",),
        "test_workers_that_know_no_others_are_led_to_two_on_this_machine": ("distribution/cluster.py:detect_cluster",),
    },
    "test_resume": {
        "test_a_signal_at_any_moment_of_a_resumed_run_ends_with_how_to_go_on": ("cli/group.py:_find_resume_advice",),
        "test_the_advice_to_train_longer_works": ("runs.py:resume_command",),
    },
    "test_tune": {"test_ctrl_c_says_how_to_go_on": ("commands/tune.py:_record_end",)},
    "test_distill": {"test_what_was_interrupted_is_gone_on_with": ("commands/distill.py:_record_end",)},
}  # fmt: skip
"""The tests that run what messages advise, by module, and the functions that make the commands."""

OBEYED_OVERRIDES = {
    ("training/trainer.py", "train.gradient_accumulation"): (
        "commands/test_obeyed_advice.py", "test_batches_that_are_too_large_fit_in_the_advised_number_of_parts"
    ),
    ("commands/plan.py", "runtime.strategy"): (
        "commands/test_obeyed_advice.py", "test_what_cannot_be_planned_is_planned_as_advised"
    ),
    ("commands/learning_curve.py", "data.sample"): (
        "commands/test_obeyed_advice.py", "test_a_curve_that_draws_its_own_samples_is_measured_without_another"
    ),
    ("distribution/strategy.py", "runtime.replicas"): (
        "commands/test_obeyed_advice.py", "test_a_machine_without_gpus_mirrors_as_advised"
    ),
    ("workflows/run_messages.py", "train.schedule.span"): (
        "commands/test_resume.py", "test_a_schedule_over_more_epochs_is_told_with_its_rates_and_a_choice"
    ),
    ("commands/plan.py", "train.schedule.span"): (
        "commands/test_resume.py", "test_a_time_that_ends_a_schedule_early_is_told"
    ),
    **{
        ("training/selection.py", path): ("commands/test_resume.py", "test_the_advice_to_train_longer_works")
        for path in ("train.epochs", "train.stop", *(f"train.stop.{name}" for name in _LIMITS))
    },
    **{
        ("tuning/search.py", path): ("tuning/test_search.py", "test_the_advice_to_search_longer_works")
        for path in ("tune.trials", "tune.stop.failures", "tune.stop.time")
    },
    ("data/files.py", "data.source.path"): ("recipe/test_safety.py", "test_an_address_that_the_user_types_is_allowed"),
}  # fmt: skip
"""The tests that set what messages advise to set, by the module of the message and the option."""

_NO_ADVICE = {
    *(("commands/export.py", "export.formats"), ("commands/train.py", "runtime.strategy")),  # on behalf of flags
    ("data/files.py", "vars.bucket"),  # what does not work
}

_SHOWN_TO_NOBODY = {"distribution/launch.py:_build_result"}  # only the exit code of its error is used


def test_every_advised_command_is_obeyed_by_a_test() -> None:
    obeyed = {function for tests in OBEYED.values() for functions in tests.values() for function in functions}
    assert {call.function for call in list_command_calls()} - _SHOWN_TO_NOBODY == obeyed


def test_every_advised_override_is_obeyed_by_a_test() -> None:
    advised = {
        (text.module, path)
        for text in list_texts()
        if not text.is_help and not text.module.startswith("cli/")
        for path, _ in list_overrides(text.text)
    }
    assert advised - _NO_ADVICE == OBEYED_OVERRIDES.keys()
    for file, name in OBEYED_OVERRIDES.values():
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, tests in OBEYED.items() for name in tests])
def test_the_tests_that_obey_run_what_a_message_advises(module: str, name: str) -> None:
    file = Path(__file__).parent / "commands" / f"{module}.py"
    functions = ast.parse(file.read_text(encoding="utf-8")).body
    (function,) = (each for each in functions if isinstance(each, ast.FunctionDef) and each.name == name)
    calls = [each.func for each in ast.walk(function) if isinstance(each, ast.Call)]
    called = {each.id for each in calls if isinstance(each, ast.Name)}
    called |= {each.attr for each in calls if isinstance(each, ast.Attribute)}
    assert called & {"obey", "try_advice", "interrupt"}
