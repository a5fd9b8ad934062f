from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bmcli.generation import Sampling
from bmcli.generation.sampling import change_logits, choose_tokens

PROBABILITIES = np.array([0.1, 0.4, 0.2, 0.3], "float32")
LOGITS = np.log(PROBABILITIES)[np.newaxis]
DRAWS = (np.arange(10_000) + 0.5) / 10_000


def frequencies(sampling: Sampling) -> np.ndarray:
    """Shares of the tokens that are chosen with equally spaced draws."""
    logits = tf.constant(np.repeat(LOGITS, len(DRAWS), axis=0))
    chosen = choose_tokens(logits, tf.constant(DRAWS, tf.float32), sampling).numpy()
    return np.bincount(chosen, minlength=4) / len(DRAWS)


def test_tokens_are_drawn_with_their_probabilities() -> None:
    np.testing.assert_allclose(frequencies(Sampling()), PROBABILITIES, atol=2e-3)


def test_a_temperature_sharpens_the_probabilities() -> None:
    expected = PROBABILITIES**2 / np.sum(PROBABILITIES**2)
    np.testing.assert_allclose(frequencies(Sampling(temperature=0.5)), expected, atol=2e-3)


def test_without_temperature_the_likeliest_token_is_taken() -> None:
    np.testing.assert_array_equal(frequencies(Sampling(temperature=0.0)), [0, 1, 0, 0])


def test_top_k_draws_from_the_likeliest_tokens() -> None:
    np.testing.assert_allclose(frequencies(Sampling(top_k=2)), [0, 4 / 7, 0, 3 / 7], atol=2e-3)
    np.testing.assert_allclose(frequencies(Sampling(top_k=99)), PROBABILITIES, atol=2e-3)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.05, [0, 1, 0, 0]), (0.41, [0, 4 / 7, 0, 3 / 7]), (0.75, [0, 4 / 9, 2 / 9, 3 / 9]), (1.0, PROBABILITIES)],
)
def test_top_p_draws_from_the_fewest_tokens_that_have_the_share(share: float, expected: list[float]) -> None:
    np.testing.assert_allclose(frequencies(Sampling(top_p=share)), expected, atol=2e-3)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_the_least_and_the_largest_draw_choose_a_token_that_is_kept(draw: float) -> None:
    logits = tf.constant([[0.0, -1e9, -1e9, -1e9]], tf.float32)
    assert choose_tokens(logits, tf.constant([draw], tf.float32), Sampling()).numpy().tolist() == [0]


def test_the_penalty_makes_tokens_of_the_text_less_probable() -> None:
    logits = tf.constant([[2.0, 2.0, -1.0, -1.0]])
    seen = tf.constant([[True, False, True, False]])
    changed = change_logits(logits, seen, tf.constant([False] * 4), 2.0)
    np.testing.assert_allclose(changed, [[1.0, 2.0, -2.0, -1.0]])


def test_excluded_tokens_are_never_chosen() -> None:
    excluded = tf.constant([False, True, False, True])
    logits = change_logits(tf.constant(LOGITS), tf.zeros((1, 4), tf.bool), excluded, 1.0)
    chosen = choose_tokens(tf.repeat(logits, len(DRAWS), 0), tf.constant(DRAWS, tf.float32), Sampling()).numpy()
    assert set(chosen.tolist()) == {0, 2}
