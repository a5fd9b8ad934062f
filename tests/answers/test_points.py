"""Answers reduce predictions to one answer for each row."""

from __future__ import annotations

import numpy as np

from bmcli.answers import fits_shape
from tests.evaluation.columns import answers_of, labels, ordered


def test_a_label_is_predicted_if_it_is_more_probable_than_not() -> None:
    answers = answers_of(labels("a", "b"))["tags"]
    assert answers.predict_points(np.array([[0.5, 0.51], [0.49, 1.0]])).tolist() == [[0, 1], [0, 1]]


def test_an_ordered_category_is_the_median() -> None:
    answers = answers_of(ordered("poor", "fair", "good"))["grade"]
    probabilities = np.array([[0.4, 0.25, 0.35], [0.6, 0.2, 0.2], [0.1, 0.3, 0.6], [0.5, 0.5, 0.0]])
    assert answers.predict_points(probabilities).tolist() == [1, 0, 2, 0]


def test_no_answer_is_nearer_in_expectation_than_the_median() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), 200)
    ranks = np.arange(6)
    distances = probabilities @ np.abs(ranks[:, None] - ranks)
    chosen = answers_of(ordered(*"abcdef"))["grade"].predict_points(probabilities)
    np.testing.assert_allclose(distances[np.arange(200), chosen], distances.min(axis=1))


def test_an_array_may_have_any_size_where_its_shape_has_none() -> None:
    values = np.zeros((4, 7, 2))
    assert fits_shape(values, (4, 7, 2))
    assert fits_shape(values, (4, None, 2))
    assert not fits_shape(values, (4, None, 3))
    assert not fits_shape(values, (4, None))
