"""The law over the whole schema: an option has a test that shows its effect.

`OWNERS` of the other modules name the parts and sections whose options they try, all that the schema has. What needs
more than a small recipe, such as several processes or a finished run, is listed here with the test that shows it.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from bmcli import runs
from bmcli.inputs import image
from bmcli.models import VECTOR, application
from tests.models.fakes import spec
from tests.options import (
    test_data,
    test_evaluation_and_search,
    test_models,
    test_parts,
    test_sources,
    test_training,
)
from tests.options.law import Subject, find_idle_options
from tests.options.options import is_section, list_owners, list_values
from tests.recipe.files import SMALLEST, only_fault, write

ROOT = Path(__file__).parents[2]
MODULES = (test_data, test_evaluation_and_search, test_models, test_parts, test_sources, test_training)

_DISTILL = "tests/commands/test_distill.py::"
_STUDENT = "tests/distillation/test_student_loss.py::"
_SEARCH = "tests/tuning/test_search.py::"
_REJECTING = "tests/export/test_rejecting.py::"
_FORMATS = "tests/export/test_formats.py::"
_CLUSTER = "tests/distribution/test_cluster.py::"
_SPACES = "tests/options/test_evaluation_and_search.py::"
_LAWS = "tests/distillation/test_laws.py::"
_TRAINER = "tests/training/test_trainer.py::"
_RESUMING = "tests/training/test_resuming.py::"
_SESSION = "tests/workflows/test_session.py::"
_LAYERS = "tests/models/test_layers.py::"
_TAGS = "tests/data/targets/test_tags.py::"
_TAGGING = "tests/objectives/test_tagging.py::"
ELSEWHERE = {
    "Recipe.extends": "tests/recipe/test_load.py::test_a_mapping_merges_into_the_base",
    "Recipe.bmcli": "tests/options/test_every_option.py::test_another_version_of_the_language_is_refused",
    "Recipe.name": "tests/options/test_every_option.py::test_a_run_has_the_name_of_its_recipe",
    "Recipe.plugins": "tests/test_plugins.py::test_a_run_without_its_plug_in_names_it",
    "Recipe.vars": "tests/recipe/test_load.py::test_a_variable_alone_keeps_its_type",
    "Recipe.seed": f"{_TRAINER}test_another_seed_gives_other_weights",
    "Recipe.model": "tests/options/test_every_option.py::test_every_choice_of_a_part_is_another_value",
    "Recipe.objective": "tests/options/test_every_option.py::test_every_choice_of_a_part_is_another_value",
    "PluginOptions.source": "tests/test_plugins.py::test_a_run_without_its_plug_in_names_it",
    "PluginOptions.version": "tests/test_plugins.py::test_a_run_without_its_plug_in_names_it",
    "PluginOptions.sha256": "tests/test_plugins.py::test_a_run_with_another_plug_in_warns",
    "ModelSourceField.run": "tests/commands/test_model_from.py::test_the_first_weights_are_those_of_the_source",
    "ModelSourceField.sha256": "tests/commands/test_model_from.py::test_a_source_that_changed_is_a_fault",
    "models.from": "tests/commands/test_model_from.py::test_the_first_weights_are_those_of_the_source",
    # An architecture takes seconds to build.
    "models.application.from": "tests/recipe/test_source_run.py::test_model_and_inputs_come_from_the_run",
    "models.application.architecture": "tests/models/test_application.py::test_every_architecture_is_one_of_keras",
    "models.application.weights": "tests/models/test_application.py::test_weights_come_from_the_file",
    "models.application.freeze": "tests/models/test_application.py::test_frozen_weights_are_not_trained",
    "models.application.dropout": "tests/options/test_every_option.py::test_an_architecture_drops_its_features",
    # Tags are read beside the words of a text.
    "data.targets.tags.input": "tests/commands/test_tags.py::test_words_of_a_column_that_is_no_input_are_a_fault",
    "data.targets.tags.classes": f"{_TAGS}test_tags_can_be_named_before_and_others_are_faults",
    "data.targets.tags.length": f"{_TAGS}test_longer_rows_are_cut",
    "objectives.tagging.weight": f"{_TAGGING}test_the_weight_is_kept_beside_the_loss",
    "objectives.tagging.class_weights": f"{_TAGGING}test_class_weights_weight_words_by_their_tags",
    "objectives.tagging.beta": f"{_TAGGING}test_class_weights_weight_words_by_their_tags",
    "objectives.tagging.label_smoothing": f"{_TAGGING}test_the_loss_is_the_sum_of_the_cross_entropies_of_words",
    "CheckpointOptions.time": f"{_TRAINER}test_checkpoints_are_written_at_the_intervals_of_the_recipe",
    "CheckpointOptions.steps": f"{_RESUMING}test_checkpoints_are_written_at_the_steps_of_the_recipe",
    # Results are equal up to rounding: what differs is where and how the steps run.
    "RuntimeOptions.strategy": "tests/training/test_replicas.py::test_replicas_learn_what_one_device_learns",
    "RuntimeOptions.replicas": "tests/training/test_replicas.py::test_replicas_learn_what_one_device_learns",
    "RuntimeOptions.cluster": f"{_CLUSTER}test_what_the_recipe_demands_has_to_be_there",
    "RuntimeOptions.tpu": f"{_SESSION}test_devices_that_are_not_there_are_told_before_data_is_read",
    "RuntimeOptions.start_timeout": f"{_CLUSTER}test_a_peer_that_never_starts_ends_the_wait",
    "RuntimeOptions.feed": "tests/training/test_feed.py::test_the_recipe_chooses_the_feed",
    "RuntimeOptions.memory": "tests/training/test_feed.py::test_the_recipe_chooses_the_feed",
    "RuntimeOptions.jit": "tests/training/autotune/test_compilation.py::test_the_recipe_decides_what_is_measured",
    "RuntimeOptions.jit_steps": "tests/training/autotune/test_compilation.py::test_the_recipe_decides_what_is_measured",
    # A search, a distillation and an export need trained runs.
    "TuneOptions.algorithm": "tests/tuning/test_oracle.py::test_the_same_calls_have_the_same_answers",
    "TuneOptions.objective": f"{_SEARCH}test_a_search_tries_confirms_and_chooses",
    "TuneOptions.trials": f"{_SEARCH}test_more_trials_extend_a_finished_search",
    "TuneOptions.workers": "tests/tuning/test_worker.py::test_two_workers_share_tasks_and_double_none",
    "TuneOptions.space": f"{_SPACES}test_no_option_of_a_search_space_is_idle",
    "TuneOptions.pruning": f"{_SEARCH}test_the_median_rule_gives_later_trials_bounds",
    "TuneOptions.confirm": f"{_SEARCH}test_without_confirmation_the_best_is_trained_once_as_it_was",
    **{f"SearchSpaceField.{name}": f"{_SPACES}test_no_option_of_a_search_space_is_idle"
       for name in ("choice", "int", "float", "log", "step", "scale")},
    "SearchSpaceField.when": "tests/tuning/test_oracle.py::test_values_are_those_of_the_space_and_conditions_hold",
    "SearchSpaceField.bool": "tests/recipe/test_search.py::test_an_entry_becomes_a_parameter",
    "SearchStopOptions.time": f"{_SEARCH}test_time_ends_a_search",
    "SearchStopOptions.trial_time": "tests/tuning/test_worker.py::test_a_task_that_takes_too_long_is_ended",
    "SearchStopOptions.failures": f"{_SEARCH}test_failures_in_a_row_end_a_search",
    "ConfirmField.top": f"{_SEARCH}test_a_search_tries_confirms_and_chooses",
    "ConfirmField.seeds": f"{_SEARCH}test_the_mean_over_seeds_decides_and_not_the_luck_of_the_search",
    "DistillOptions.teacher": f"{_DISTILL}test_teacher_baseline_and_student_are_reported_side_by_side",
    "DistillOptions.average": f"{_LAWS}test_an_ensemble_has_the_mean_of_its_distributions_at_the_temperature",
    "DistillOptions.student": f"{_DISTILL}test_a_student_is_an_ordinary_run",
    "DistillOptions.losses": f"{_DISTILL}test_a_search_over_temperature_and_weight_trains_students",
    "DistillOptions.generations": f"{_DISTILL}test_each_generation_teaches_the_next",
    "DistillOptions.baseline": f"{_DISTILL}test_teacher_baseline_and_student_are_reported_side_by_side",
    "DistillOptions.seeds": f"{_DISTILL}test_teacher_baseline_and_student_are_reported_side_by_side",
    "DistillOptions.metric": f"{_DISTILL}test_a_metric_that_is_not_measured_is_a_fault",
    "DistillOptions.teacher_gate": f"{_DISTILL}test_a_missed_gate_ends_with_3",
    "DistillOptions.min_gain": f"{_DISTILL}test_a_missed_gate_ends_with_3",
    "TeachersField.run": f"{_DISTILL}test_teacher_baseline_and_student_are_reported_side_by_side",
    "TeachersField.recipe": f"{_DISTILL}test_teacher_baseline_and_student_are_reported_side_by_side",
    "TeachersField.file": f"{_STUDENT}test_a_saved_model_is_the_same_teacher_as_its_run",
    "TeachersField.weight": f"{_STUDENT}test_an_ensemble_of_one_network_twice_is_that_network",
    "distillation.losses.hard.weight": f"{_STUDENT}test_the_loss_is_the_weighted_sum_of_its_terms_and_the_regularisers",
    "LayerPair.student": f"{_STUDENT}test_layers_that_cannot_be_compared_are_faults",
    "LayerPair.teacher": f"{_STUDENT}test_layers_that_cannot_be_compared_are_faults",
    "LayerPair.of": f"{_STUDENT}test_layers_that_cannot_be_compared_are_faults",
    "TransferOptions.excluded_classes": f"{_STUDENT}test_rows_of_a_class_can_be_left_out",
    "TransferOptions.unlabelled": f"{_STUDENT}test_rows_without_labels_have_soft_losses_alone",
    "DistillationOptions.teachers": f"{_STUDENT}test_the_labels_alone_are_an_ordinary_training_which_a_teacher_changes",
    "DistillationOptions.average": f"{_LAWS}test_an_ensemble_has_the_mean_of_its_distributions_at_the_temperature",
    "DistillationOptions.losses": f"{_STUDENT}test_the_loss_is_the_weighted_sum_of_its_terms_and_the_regularisers",
    "TrainedTeacherOptions.model": f"{_STUDENT}test_a_saved_model_is_the_same_teacher_as_its_run",
    "TrainedTeacherOptions.run": f"{_STUDENT}test_a_teacher_whose_lock_was_changed_is_refused",
    "TrainedTeacherOptions.sha256": f"{_STUDENT}test_a_teacher_that_changed_is_refused",
    "TrainedTeacherOptions.weight": f"{_STUDENT}test_an_ensemble_of_one_network_twice_is_that_network",
    "ExportOptions.formats": f"{_REJECTING}test_the_formats_of_the_command_line",
    "ExportOptions.license": f"{_FORMATS}test_the_card_has_the_lineage",
    "VerifyOptions.samples": f"{_REJECTING}test_a_recipe_sets_the_limits",
    "VerifyOptions.agreement": f"{_REJECTING}test_a_recipe_sets_the_limits",
    "VerifyOptions.max_difference": f"{_REJECTING}test_a_recipe_sets_the_limits",
    "VerifyOptions.model_r2": f"{_REJECTING}test_a_recipe_sets_the_limits",
    "VerifyOptions.metric_drop": f"{_REJECTING}test_a_recipe_sets_the_limits",
    **{f"export.formats.{kind}.compress": f"{_FORMATS}test_a_compressed_artefact_has_its_sizes"
       for kind in ("keras", "litert", "onnx", "openvino", "saved_model")},
    **{f"export.formats.{kind}.quantize": f"{_FORMATS}test_a_compressed_artefact_has_its_sizes"
       for kind in ("keras", "onnx", "openvino", "saved_model")},
    "export.formats.litert.quantize": f"{_FORMATS}test_pictures_keep_their_classes_in_integers",
    "export.formats.saved_model.warm_up": f"{_FORMATS}test_warm_up_requests_are_what_tensorflow_serving_reads",
}  # fmt: skip


def list_tried() -> set[str]:
    return {owner for module in MODULES for owner in module.OWNERS}


def test_every_option_has_a_test_of_its_effect() -> None:
    tried = list_tried()
    options = {
        f"{owner}.{name}"
        for owner, options in list_owners().items()
        if owner not in tried and not owner.startswith("layers.")
        for name, option in options.items()
        if not is_section(option)
    }
    assert len(list_owners()) > 300
    assert options - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) - options == set()


def test_only_parts_of_the_schema_are_tried() -> None:
    assert list_tried() - set(list_owners()) == set()


def list_named_tests() -> set[str]:
    named = set(ELSEWHERE.values())
    named |= {
        test for module in (test_training,) for _, _, _, tests in module.TRAIN.values() for test in tests.values()
    }
    named |= {test for *_, tests in test_evaluation_and_search.EVALUATION.values() for test in tests.values()}
    return (
        named
        | set(test_models.ELSEWHERE.values())
        | set(test_parts.ELSEWHERE.values())
        | {test for *_, tests in test_training.LANGUAGE_MODELS.values() for test in tests.values()}
        | {test_data.AUGMENTED}
    )


@pytest.mark.parametrize("test", sorted(list_named_tests()))
def test_a_test_that_is_named_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_a_layer_of_a_graph_has_the_options_of_keras_and_two_of_its_own() -> None:
    owners = list_owners()
    kinds = {owner.removeprefix("layers.") for owner in owners if owner.startswith("layers.")} - {"shared"}
    assert kinds
    for kind in kinds:
        assert set(owners[f"layers.{kind}"]) - set(owners[f"keras.layers.{kind}"]) == {"name", "from"}
    # `name`, `from`, and `layer` of a shared one, make the graph.
    for name in ("test_a_residual_connection_adds", "test_a_shared_layer_has_one_set_of_weights"):
        test_a_test_that_is_named_exists(f"{_LAYERS}{name}")


def test_an_option_that_is_added_has_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {**list_owners(), "TuneOptions": {**list_owners()["TuneOptions"], "mood": {"type": "string"}}}
    monkeypatch.setattr("tests.options.test_every_option.list_owners", lambda: owners)
    with pytest.raises(AssertionError, match="mood"):
        test_every_option_has_a_test_of_its_effect()


def test_an_option_without_effect_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    owners = {"Thing": {"used": {"type": "integer", "default": 1}, "idle": {"type": "boolean", "default": False}}}
    monkeypatch.setattr("tests.options.law.list_owners", lambda: owners)
    subject = Subject("Thing", "", {}, (lambda values: str(values.get("used")),), load=lambda values, folder: values)
    assert [each.partition(":")[0] for each in find_idle_options(subject, tmp_path)] == ["Thing.idle"]


def test_another_version_of_the_language_is_refused(tmp_path: Path) -> None:
    for version in list_values(list_owners()["Recipe"]["bmcli"]):
        if version != 1:
            assert only_fault(write(tmp_path, SMALLEST), [f"bmcli={version}"]).path == "bmcli"


def test_a_run_has_the_name_of_its_recipe(tmp_path: Path) -> None:
    assert runs.create(tmp_path, "first").folder.parent != runs.create(tmp_path, "second").folder.parent


@pytest.mark.parametrize("name", ["model", "objective"])
def test_every_choice_of_a_part_is_another_value(name: str) -> None:
    """A kind is an option, too: each has options of its own, which the tests of its part try."""
    room = {"model": "models", "objective": "objectives"}[name]
    kinds = [kind for kind in list_values(list_owners()["Recipe"][name]) if isinstance(kind, str)]
    assert kinds
    assert {f"{room}.{kind}" for kind in kinds} <= set(list_owners())


def test_an_architecture_drops_its_features() -> None:
    rows = np.arange(2, dtype="uint8")[:, None, None, None] + np.zeros((2, 32, 32, 3), "uint8")
    described = spec(image.fit("photo", rows, image.Options()))

    def count_dropout(rate: float) -> int:
        options = application.Options(architecture="mobilenet_v3_small", dropout=rate)
        backbone = application.build(options, described, (VECTOR,))
        features = backbone.find_features("label", VECTOR)
        assert features is not None
        layers = keras.Model(backbone.inputs, features.tensor).layers
        return [type(layer).__name__ for layer in layers].count("Dropout")

    assert count_dropout(0.5) == count_dropout(0.0) + 1
