"""The report of a search: whole whatever the search was like, safe whatever it names, and true."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from bmcli.evaluation.improvement import Improvement
from bmcli.evaluation.intervals import Difference, Interval
from bmcli.recipe.search import SearchParameter
from bmcli.reports.scales import make_scale
from bmcli.reports.tune import compute_seed_deviation, find_cheapest_within, render_search, summarize_winner
from bmcli.trials import ConfirmedCandidate, SearchObjective, SearchResult, Task, Trial, TrialResult
from tests.reports.pages import Page
from tests.reports.searches import ACCURACY, DROPOUT, HIDDEN, LOSS, PARAMETERS, RATE, SPACE, search

HOSTILE = "<script>alert(1)</script>"


def bands() -> SearchResult:
    """A search by Hyperband: of nine trials three continue, of those one."""
    values = [{RATE: 10 ** -(1 + i / 4), HIDDEN: [16]} for i in range(9)]
    trials, number = [], 0
    before: list[tuple[str | None, int]] = [(None, i) for i in range(9)]
    for epochs in (1, 3, 9):
        after = []
        for continues, i in before[: 9 // epochs]:
            name = f"{number:04}"
            curve = tuple(0.1 * i + 1 / epoch for epoch in range(1, epochs + 1))
            result = TrialResult(name, "done", {LOSS.name: curve[-1]}, curve, epochs=epochs, seconds=1.0)
            trials.append(Trial(Task(name, values[i], until=epochs, continues=continues), result))
            after.append((name, i))
            number += 1
        before = after
    space = {path: SPACE[path] for path in (RATE, HIDDEN)}
    return SearchResult("bands", "hyperband", (LOSS,), space, tuple(trials), winner=trials[-1].task.name)


def not_finite() -> SearchResult:
    """Losses that are not numbers, among them those of trials that are done, and very large ones."""
    found = search(12, objectives=(LOSS,), measure=lambda *_: 0.5)
    strange = [math.nan, math.inf, -math.inf, 1e30, 0.0]
    trials = list(found.trials)
    for place, value in enumerate(strange):
        result = TrialResult(f"{place:04}", "done", {LOSS.name: value}, (0.5, None, 1e30), epochs=3, seconds=1.0)
        trials[place] = replace(trials[place], result=result)
    return replace(found, trials=tuple(trials))


def without_curves() -> SearchResult:
    """Trials that were measured at their end alone, and one that failed with nothing but NaN on the way."""
    found = search(3)
    ended = [replace(trial, result=replace(trial.result, curve=())) for trial in found.trials if trial.result]
    lost = Trial(Task("0003", ended[0].task.values), TrialResult("0003", "failed", curve=(None, None, None), epochs=3))
    return replace(found, trials=(*ended, lost))


def running() -> SearchResult:
    found = search(4)
    return replace(found, winner=None, trials=(*found.trials, Trial(Task("0004", {RATE: 0.1}), None)))


SEARCHES: dict[str, Callable[[], SearchResult]] = {
    "no trial": lambda: search(0),
    "one trial": lambda: search(1),
    "two trials, one parameter": lambda: search(2, {RATE: SPACE[RATE]}),
    "one choice": lambda: search(5, {"model.kind": SearchParameter("choice", ("mlp",))}),
    "all failed": lambda: search(6, fail=1.0),
    "all stopped": lambda: search(6, stop=1.0),
    "some of each": lambda: search(30, fail=0.2, stop=0.3),
    "three objectives": lambda: search(25, objectives=(ACCURACY, PARAMETERS, SearchObjective("latency", "min"))),
    "hyperband": bands,
    "not finite": not_finite,
    "without curves": without_curves,
    "running": running,
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_page_is_whole_and_needs_nothing_else(kind: str) -> None:
    text = render_search(SEARCHES[kind]())
    page = Page(text)
    assert not re.search(r"https?:|url\((?!#)|@import|\bsrc=", text)
    assert all(address.startswith("#") for address in page.attributes("href"))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert "viewport" in page.attributes("name")


@pytest.mark.slow
def test_two_hundred_trials_make_a_page() -> None:
    page = Page(render_search(search(200, objectives=(ACCURACY, PARAMETERS), fail=0.05, stop=0.2)))
    assert page.count("tr") > 200


def test_only_the_script_of_the_page_may_run() -> None:
    page = Page(render_search(search(1)))
    (policy,) = [attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes and tag]
    allowed = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{allowed}'" in policy
    assert page.count("script") == 1


def test_foreign_names_are_text_wherever_they_stand() -> None:
    objective, cost = SearchObjective(f"validation/{HOSTILE}", "max"), SearchObjective(f'"{HOSTILE}', "min")
    space = {f"data.inputs.{HOSTILE}.kind": SearchParameter("choice", (HOSTILE, "$x_2$", "\u202ered", "a" * 300))}
    found = search(8, space, (objective, cost), measure=lambda _, chance: chance.random(), fail=0.3)
    trials = [replace(t, result=replace(t.result, reason=HOSTILE)) for t in found.trials if t.result is not None]
    hostile = replace(
        found,
        **{
            "name": HOSTILE,
            "trials": tuple(trials),
            "run": HOSTILE,
            "test": {HOSTILE: 0.5},
            "stop_reasons": (HOSTILE,),
        },
        confirmed=(ConfirmedCandidate(found.winner or "", 0.5, (0.4, 0.5)),),
        algorithm=HOSTILE,
    )
    text = render_search(hostile)
    page = Page(text)
    assert page.count("script") == 1
    assert "alert" not in page.script
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert "\u202e" not in text


def test_the_page_is_the_same_each_time() -> None:
    assert render_search(search(25, fail=0.1)) == render_search(search(25, fail=0.1))


def test_the_page_says_what_the_search_was_worth() -> None:
    auc = Difference("roc_auc", 0.809, 0.781, Interval(-0.05, -0.01, 0.95, "b"), 0.01, "b", "", "max")
    accuracy = Difference("accuracy", 0.8, 0.81, Interval(-0.01, 0.03, 0.95, "b"), 0.4, "b", "", "max")
    error = Difference("calibration_error", 0.1, 0.1, None, 1.0, "b", "it is biased.", "min")
    improvement = Improvement("test", 262, "accuracy", {each.metric: each for each in (accuracy, auc, error)})
    found = replace(search(5), verdict=improvement.describe(), test={"test/accuracy": 0.81})
    text = Page(render_search(found, improvement)).text
    assert "What the search was worth" in text
    assert "the winner is worse than the recipe as it is written in roc_auc (0.781 instead of 0.809;" in text
    rows = [["accuracy", "0.8000", "0.8100", "+0.0100", "-0.0100 to +0.0300", "within noise"]]
    rows += [["roc_auc", "0.8090", "0.7810", "-0.0280", "-0.0500 to -0.0100", "worse"]]
    rows += [["calibration_error", "0.1000", "0.1000", "0.0000", "none", "it is biased."]]
    for row in rows:
        assert " ".join(row) in " ".join(text.split())


def test_the_recipe_may_lie_outside_of_the_space() -> None:
    found = search(12)
    written = {RATE: "auto", HIDDEN: [512], DROPOUT: None, "train.batch_size": 0}
    recipe = replace(found.trials[0], task=Task("0000", written))
    text = render_search(replace(found, trials=(recipe, *found.trials[1:])))
    assert "0000 (recipe)" in text
    scale = make_scale(RATE, SPACE[RATE], [recipe, *found.trials[1:]])
    assert scale.bounds == (1e-4, 1e-1), "the axis stays that of the range"
    assert scale.position(recipe) is None


def test_the_summary_has_the_confirmed_result_of_the_winner() -> None:
    found = search(10)
    best = found.best()
    assert best is not None
    measured = best.objectives[ACCURACY.name]
    found = replace(
        found,
        confirmed=(ConfirmedCandidate(best.task.name, measured, (measured - 0.02, measured - 0.04)),),
        run="runs/digits-tune/best",
        test={"test/accuracy": 0.8125},
        stop_reasons=("All 10 requested trials are done.",),
    )
    summary = summarize_winner(found)
    assert summary is not None
    assert summary.shrinkage == pytest.approx(0.03)
    text = Page(render_search(found)).text
    for words in (
        "shrinkage 0.03",
        "± 0.0141 (standard deviation over seeds)",
        "test/accuracy 0.8125",
        "runs/digits-tune/best",
    ):
        assert words in text
    assert "All 10 requested trials are done." in text
    assert "was not trained again with other seeds" not in text


def test_a_winner_that_was_not_confirmed_is_called_so() -> None:
    assert "was not trained again with other seeds" in Page(render_search(search(5))).text


def test_reasons_are_counted() -> None:
    text = Page(render_search(search(6, fail=1.0))).text
    assert "6 failed killed by SIGKILL, as happens when memory runs out" in text
    assert "No trial has a result" in text


def test_a_stopped_trial_is_never_shown_as_failed() -> None:
    text = Page(render_search(search(6, stop=1.0))).text
    assert "6 stopped" in text
    assert "failed" not in text.replace("Trials that failed or were refused have no value", "")


def sizes(*measured: tuple[float, float], seeds: tuple[float, ...] = ()) -> SearchResult:
    """Trials of some accuracy and size; the seeds are those of the first, confirmed."""
    trials = tuple(
        Trial(
            Task(f"{i}", {DROPOUT: 0.1 * i}),
            TrialResult(f"{i}", "done", {ACCURACY.name: accuracy, PARAMETERS.name: size}, epochs=1, seconds=1.0),
        )
        for i, (accuracy, size) in enumerate(measured)
    )
    confirmed = (ConfirmedCandidate("0", measured[0][0], seeds),) if seeds else ()
    space = {DROPOUT: SPACE[DROPOUT]}
    return SearchResult("sizes", "grid", (ACCURACY, PARAMETERS), space, trials, confirmed, winner="0")


def test_the_cheapest_within_one_standard_deviation_is_found() -> None:
    found = sizes((0.90, 1000.0), (0.895, 500.0), (0.885, 250.0), (0.7, 10.0), seeds=(0.89, 0.91))
    assert compute_seed_deviation(found) == pytest.approx(0.0141, abs=1e-4)
    cheapest = find_cheapest_within(found, PARAMETERS, 0.01)
    assert cheapest is not None
    assert cheapest.task.name == "1"
    text = Page(render_search(found)).text
    assert "Trial 1 is the cheapest within one standard deviation (0.0141 over seeds) of the best" in text
    assert "with 50 % of its parameters" in text


def test_without_seeds_no_cheaper_trial_is_suggested() -> None:
    found = sizes((0.90, 1000.0), (0.895, 500.0))
    assert find_cheapest_within(found, PARAMETERS, compute_seed_deviation(found)) is None
    assert "is unknown, since no candidate was trained with several seeds" in Page(render_search(found)).text


def test_curves_are_drawn_if_there_are_any() -> None:
    assert "Each line is a candidate, by epoch" in Page(render_search(search(2))).text
    assert "Each line is a candidate, by epoch" not in Page(render_search(without_curves())).text


def test_rungs_are_drawn_where_trials_continued() -> None:
    text = Page(render_search(bands())).text
    assert "At the dotted lines trials were paused" in text
    assert "At the dotted lines" not in Page(render_search(search(3))).text


def test_a_candidate_that_lacks_a_parameter_is_shown_as_such() -> None:
    assert "not set" in Page(render_search(search(12))).text
    assert "not set" not in Page(render_search(search(12, {RATE: SPACE[RATE]}))).text
