"""An option in a wrong place, a name of Keras, or a kind that does not exist leads to what the recipe language has."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli import parts, plugins
from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe
from bmcli.recipe.option_paths import map_option_paths
from tests.recipe.files import SMALLEST, only_fault, write

MISPLACED = {
    "train.learning_rate=0.1": "Did you mean 'train.optimizer.learning_rate=0.1'?",
    "learning_rate=0.1": "Did you mean 'train.optimizer.learning_rate=0.1'?",
    "optimizer.learning_rate=0.1": "Did you mean 'train.optimizer.learning_rate=0.1'?",
    "epochs=3": "Did you mean 'train.epochs=3'?",
    "epocs=3": "Did you mean 'train.epochs=3'?",
    "batch=3": "Did you mean 'train.batch_size=3'?",
    "patience=3": "Did you mean 'train.stop.patience=3'?",
    "optimizer=adam": "Did you mean 'train.optimizer=adam'?",
    "train={learning_rate: 0.1}": "Did you mean 'train.optimizer.learning_rate'?",
    "train.metric=x": "Did you mean 'metrics'?",
    "metric=x": "Did you mean 'train.select.metric=x' or 'train.stop.metric=x'?",
    "label_smoothing=0.1": "Did you mean 'objective.label_smoothing=0.1', of kind causal_language_model, "
    "classification, tagging?",
    "temperature=4": "Did you mean 'temperature' in an item of 'distill.losses', of kind dist, soft?",
    "model.filters=[3]": "It is an option of kind cnn.",
    "data.inputs.image={kind: image, log: true}": "It is an option of kind number.",
    # A mistake in typing is one even if another section has the option.
    "train.epoch=3": "Did you mean 'epochs'?",
    "modle.kind=mlp": "Did you mean 'model'?",
}


@pytest.mark.parametrize("override", MISPLACED)
def test_an_option_in_a_wrong_place_is_found_by_its_last_name(tmp_path: Path, override: str) -> None:
    fault = only_fault(write(tmp_path, SMALLEST), [override])
    assert (fault.message, fault.suggestion) == ("no such key.", MISPLACED[override])


@pytest.mark.parametrize("override", [each for each in MISPLACED if "epochs" in each or "learning_rate=" in each])
def test_a_suggested_override_is_accepted(tmp_path: Path, override: str) -> None:
    recipe = write(tmp_path, SMALLEST)
    suggested = only_fault(recipe, [override]).suggestion.split("'")[1]
    assert "=" in suggested
    load_recipe(recipe, [suggested])


def test_a_misplaced_option_of_a_file_is_found_at_its_key(tmp_path: Path) -> None:
    fault = only_fault(write(tmp_path, SMALLEST + "train:\n  learning_rate: 0.1\n"))
    assert (fault.place is not None and fault.place.line, fault.suggestion) == (
        6,
        "Did you mean 'train.optimizer.learning_rate'?",
    )


def test_every_section_has_places() -> None:
    sections = {place.steps[0] for places in map_option_paths().values() for place in places}
    assert {"data", "model", "objective", "train", "runtime", "evaluate", "tune", "distill", "export"} <= sections


CLASS_NAMES = {
    "train.optimizer=AdamW": "train.optimizer=adamw",
    "train.optimizer={kind: RMSprop, rho: 0.8}": "train.optimizer={kind: rmsprop, rho: 0.8}",
    "train.schedule={kind: CosineDecay, decay_steps: 4}": "train.schedule={kind: cosine_decay, decay_steps: 4}",
    "train.metrics=[F1Score, {kind: TopKCategoricalAccuracy, k: 2}]": (
        "train.metrics=[f1_score, {kind: top_k_categorical_accuracy, k: 2}]"
    ),
    "train.callbacks=[ReduceLROnPlateau]": "train.callbacks=[reduce_lr_on_plateau]",
    "model.kernel_initializer=HeNormal": "model.kernel_initializer=he_normal",
    "model.kernel_regularizer={kind: L2, l2: 0.1}": "model.kernel_regularizer={kind: l2, l2: 0.1}",
    "objective={kind: classification, loss: CategoricalFocalCrossentropy}": (
        "objective={kind: classification, loss: categorical_focal_crossentropy}"
    ),
    "model={kind: layers, layers: [Flatten, {kind: Bidirectional, layer: {kind: LSTM, units: 3}}]}": (
        "model={kind: layers, layers: [flatten, {kind: bidirectional, layer: {kind: lstm, units: 3}}]}"
    ),
    "model={kind: layers, layers: [{kind: Dense, units: 3, kernel_initializer: {kind: VarianceScaling}}]}": (
        "model={kind: layers, layers: [{kind: dense, units: 3, kernel_initializer: {kind: variance_scaling}}]}"
    ),
    "model={kind: application, architecture: EfficientNetB0}": (
        "model={kind: application, architecture: efficientnet_b0}"
    ),
    "model={kind: application, architecture: ConvNeXtTiny}": "model={kind: application, architecture: convnext_tiny}",
}


@pytest.mark.parametrize("override", CLASS_NAMES)
def test_a_class_name_of_keras_is_its_kind(tmp_path: Path, override: str) -> None:
    recipe = write(tmp_path, SMALLEST)
    assert load_recipe(recipe, [override]).recipe == load_recipe(recipe, [CLASS_NAMES[override]]).recipe


def test_a_shared_layer_keeps_the_name_of_a_user(tmp_path: Path) -> None:
    layers = "[{kind: Dense, units: 3, name: Dense}, flatten, {kind: shared, layer: Dense}]"
    model = load_recipe(write(tmp_path, SMALLEST), [f"model={{kind: layers, layers: {layers}}}"]).recipe.model
    assert [entry["kind"] for entry in model.model_dump()["layers"]] == ["dense", "flatten", "shared"]
    assert model.model_dump()["layers"][2]["layer"] == "Dense"


def test_a_class_name_of_the_same_kind_keeps_the_other_options(tmp_path: Path) -> None:
    recipe = write(tmp_path, SMALLEST + "train: {optimizer: {kind: adam, learning_rate: 0.5}}\n")
    train = load_recipe(recipe, ["train.optimizer.kind=Adam"]).recipe.train
    assert (train.optimizer.kind, train.optimizer.options["learning_rate"]) == ("adam", 0.5)


ABSENT = {
    "objective=ctc": ("there is no objective 'ctc' in this version.", "objectives"),
    "objective.kind=focal": ("there is no objective 'focal' in this version.", "objectives"),
    "model=gpt": ("there is no model family 'gpt' in this version.", "models"),
    "data.inputs.x=audio": ("there is no kind of input 'audio' in this version.", "inputs"),
    "data.inputs.x={kind: text, tokens: wordpiece}": (
        "there is no kind of tokens 'wordpiece' in this version.",
        "tokens",
    ),
    "data.targets.x=boxes": ("there is no kind of target 'boxes' in this version.", "data.targets"),
    "data.source=sql": ("there is no kind of source 'sql' in this version.", "data.sources"),
    "data.augment.image=[solarize]": ("there is no augmentation 'solarize' in this version.", "augmentations"),
    "export.formats=[torchscript]": ("there is no export format 'torchscript' in this version.", "export.formats"),
    "distill.losses=[kd]": ("there is no distillation loss 'kd' in this version.", "distillation.losses"),
    "export.formats=[{kind: keras, compress: [zip]}]": (
        "there is no compression 'zip' in this version.",
        "compression.methods",
    ),
}


@pytest.mark.parametrize("override", ABSENT)
def test_what_does_not_exist_is_said_not_to_exist(tmp_path: Path, override: str) -> None:
    message, room = ABSENT[override]
    fault = only_fault(write(tmp_path, SMALLEST), [override])
    assert (fault.message, fault.suggestion) == (message, f"Known: {', '.join(parts.names(room))}.")


def test_every_room_of_a_recipe_says_what_does_not_exist() -> None:
    assert {room for _, room in ABSENT.values()} == set(plugins.ROOMS) - {"layers"}


def test_an_object_that_keras_lacks_is_said_not_to_exist(tmp_path: Path) -> None:
    fault = only_fault(write(tmp_path, SMALLEST), ["train.optimizer=Sophia"])
    assert fault.message == "there is no optimizer 'Sophia' in this version."
    assert fault.suggestion.startswith("Known: adadelta, adafactor")


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("model=EfficientNetB0", "Did you mean {kind: application, architecture: EfficientNetB0}?"),
        ("model=ResNet50", "Did you mean {kind: application, architecture: ResNet50}?"),
        ("model=lstm", "Did you mean {kind: rnn, cell: lstm}?"),
        ("data.inputs.x=one_hot", "Did you mean {kind: category, encoding: one_hot}?"),
    ],
)
def test_the_value_of_an_option_leads_to_the_kind_that_has_it(tmp_path: Path, override: str, suggestion: str) -> None:
    assert only_fault(write(tmp_path, SMALLEST), [override]).suggestion == suggestion


@pytest.mark.parametrize("formats", ["[tflite]", "[{kind: tflite}]", "[{kind: keras, quantise: int8}]"])
def test_a_wrong_item_does_not_make_a_list_too_short(tmp_path: Path, formats: str) -> None:
    assert only_fault(write(tmp_path, SMALLEST), [f"export.formats={formats}"]).path.startswith("export.formats.0")


def test_an_empty_list_is_too_short(tmp_path: Path) -> None:
    fault = only_fault(write(tmp_path, SMALLEST), ["export.formats=[]"])
    assert fault.message == "expected at least one value, received []."


def test_a_wrong_item_beside_too_few_gives_both_faults(tmp_path: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        load_recipe(write(tmp_path, SMALLEST), ["data.crosses=[{columns: [3]}]"])
    assert [fault.path for fault in caught.value.faults] == ["data.crosses.0.columns", "data.crosses.0.columns.0"]
