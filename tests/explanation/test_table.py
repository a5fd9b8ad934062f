"""Explanations of a table whose informative and useless columns are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bmcli.evaluation.explanation_record import Explanation
from bmcli.explanation.explain import explain_network
from bmcli.workflows.opening import OpenedRun
from tests.explanation import planted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> OpenedRun:
    return planted.table(tmp_path_factory.mktemp("planted"), cache)


@pytest.fixture(scope="module")
def trained(run: OpenedRun) -> Explanation:
    return explain_network(planted.make_context(run), planted.predict(run), 500, 5, 4)


@pytest.fixture(scope="module")
def untrained(run: OpenedRun) -> Explanation:
    network = planted.random_network(run, 50)
    return explain_network(planted.make_context(run, network), planted.predict(run, network), 500, 5, 4)


def test_informative_columns_are_distinguished_from_planted_useless_ones(trained: Explanation) -> None:
    (target,) = trained.targets
    by_name = {each.column: each for each in target.importances}
    assert {each.column for each in target.importances[:2]} == set(planted.INFORMATIVE)
    assert all(by_name[name].is_significant for name in planted.INFORMATIVE)
    assert not any(by_name[name].is_significant for name in planted.USELESS)
    assert all(abs(by_name[name].increase) < 0.1 * by_name["colour"].increase for name in planted.USELESS)


def test_accuracy_decreases_with_an_informative_column(trained: Explanation) -> None:
    by_name = {each.column: each.metric_decrease for each in trained.targets[0].importances}
    assert by_name["colour"] > 0.2
    assert abs(by_name["noise"]) < 0.05


def share_of_telling(explanation: Explanation) -> float:
    return sum(each.share for each in explanation.targets[0].shares if each.feature in planted.INFORMATIVE)


def test_gradients_point_at_informative_columns_once_trained(trained: Explanation, untrained: Explanation) -> None:
    assert share_of_telling(trained) > 0.85
    assert share_of_telling(untrained) < 0.75
    assert sum(each.share for each in trained.targets[0].shares) == pytest.approx(1)


def test_a_trained_network_passes_the_sanity_check(trained: Explanation) -> None:
    checks = {check.method: check for check in trained.targets[0].sanity}
    assert set(checks) == {"permutation importance", "integrated gradients"}
    assert all(check.passed for check in checks.values()), checks


def test_importance_in_a_network_with_random_weights_fails_the_sanity_check(untrained: Explanation) -> None:
    checks = {check.method: check for check in untrained.targets[0].sanity}
    assert not checks["permutation importance"].passed


def test_contributions_add_up_to_the_difference_from_the_baseline(trained: Explanation) -> None:
    answers = [*trained.targets[0].wrong, *trained.targets[0].least_confident]
    assert answers
    assert max(each.completeness_gap for each in answers) < 0.05


def test_doubtful_answers_are_those_near_the_border(trained: Explanation) -> None:
    assert len(trained.targets[0].least_confident) == 4
    for each in trained.targets[0].least_confident:
        assert abs(sum(each.features.values())) < 3
        assert set(each.features) == {*planted.INFORMATIVE, *planted.USELESS}


def test_an_explanation_passes_through_json(trained: Explanation) -> None:
    assert Explanation.from_json(json.loads(json.dumps(trained.to_json()))) == trained


def test_layers_are_in_their_order_and_similar_to_themselves(trained: Explanation) -> None:
    assert [layer.kind for layer in trained.layers] == ["Dense", "Activation", "Dense"]
    assert [layer.is_embedding for layer in trained.layers] == [False, True, False]
    similarity = np.array(trained.similarity)
    assert np.diag(similarity) == pytest.approx(1)
    assert similarity == pytest.approx(similarity.T)


def test_the_nearest_training_rows_come_first(run: OpenedRun) -> None:
    from bmcli.explanation.explain import _find_neighbours

    (found,) = _find_neighbours(planted.make_context(run), planted.predict(run), [0])
    cosines = [cosine for _, cosine, _ in found.nearest]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.9
    assert found.nearest[0][2] == found.truth


def test_dead_units_are_counted(run: OpenedRun) -> None:
    from bmcli.explanation.activations import measure_activity

    network = planted.random_network(run, 51)
    kernel, bias = network.model.weights[0], network.model.weights[1]
    bias.assign(np.where(np.arange(16) < 5, -1000.0, bias.numpy()))
    assert kernel.shape[1] == 16
    layers, _ = measure_activity(network, run.prepared.split("validation"))
    assert next(layer for layer in layers if layer.kind == "Activation").dead >= 5
    assert layers[0].dead == 0
