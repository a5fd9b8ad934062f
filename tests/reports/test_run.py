"""The report of a run: whole and true for every kind of target, safe whatever the data names, and seen in a browser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bmcli.commands.evaluate import evaluate
from bmcli.commands.explain import ExplanationRequest, explain
from bmcli.evaluation.folds import CrossValidationResult, FoldResult, summarize_folds
from bmcli.evaluation.intervals import Resampling, compute_wilson_interval
from bmcli.evaluation.learning_curve import Forecast, LearningCurve, RowScores, compute_learning_curve
from bmcli.evaluation.result import Evaluation
from bmcli.metrics.info import SHARE
from bmcli.number_texts import write_measure
from bmcli.records import write_record
from bmcli.reports.artefacts import ArtefactSummary, make_artefact_rows
from bmcli.reports.costs import Cost, Latency
from bmcli.reports.regenerate import render_folds, render_learning_curves
from bmcli.reports.run import make_class_row
from bmcli.reports.validation import make_curve_view
from bmcli.runs import Run
from bmcli.workflows.reporting import regenerate_report
from tests import trained
from tests.export.forging import whole
from tests.reports.browser import COMMAND, Browser, browser
from tests.reports.pages import Page


def explained(run: Run, cache: Path) -> Run:
    return explain(str(run.folder), ExplanationRequest(None, 100, 1, 2), run.folder.parent.parent, cache, print).run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    """With everything that other commands leave in a run."""
    run = trained.hostile(tmp_path_factory.mktemp("hostile"), cache)
    evaluation = Evaluation.from_json(run.read_evaluations()["test"])
    metrics = evaluation.metrics
    rounds = [FoldResult(n, 100, 50, {k: v - n / 100 for k, v in metrics.items()}, 4, 1.5) for n in (1, 2, 3)]
    right = np.arange(90) % 3 > 0
    learned = compute_learning_curve(
        "target & <i>",
        "accuracy",
        SHARE,
        [RowScores(s, right[: int(90 * s)], right) for s in (0.4, 1.0)],
        Resampling(100),
    )
    run.write(run.validation, {
        "folds": summarize_folds(f"by '{trained.SCRIPT}'", rounds, evaluation, {}).to_json(),
        "learning_curve": {"targets": [learned.to_json()]},
    })  # fmt: skip
    run.write(run.origin, {"sentences": [f"The winner of the search {trained.SCRIPT}."]})
    compared = {"metrics": {trained.FORMULA: {"model": 0.5, "artefact": 0.25}}, "samples": 56, "split": "test"}
    for name, good in (("litert", True), ("rejected/onnx", False)):
        (run.exports / name).mkdir(parents=True)
        found = {"verified": good, "agreement": 0.987, "max_difference": 1e-6, "failures": [] if good else ["too far."]}
        found["summary"] = [f"{trained.SCRIPT} at most 1e-4."]
        lineage = {"model_sha256": hashlib.sha256(run.model.read_bytes()).hexdigest()}
        card = whole(bytes=2048, gzip_bytes=1024, verification={**compared, **found}, lineage=lineage)
        write_record(run.exports / name / "card.json", card)
    cost = Cost("model", 4096, 2048, 0.5, (Latency(1, 0.002, 0.003, 0.004, 50),), 2**27, ("accuracy", 0.5))
    run.write(run.benchmark, {"artefacts": [cost.to_json()]})
    return explained(run, cache)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    return explained(trained.run_of(trained.DIGITS, tmp_path_factory.mktemp("digits"), cache), cache)


@pytest.fixture(scope="module")
def sugar(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Run:
    return trained.run_of(trained.NUMBERS, tmp_path_factory.mktemp("sugar"), cache)


def read(run: Run) -> Page:
    return Page(run.report.read_text(encoding="utf-8"))


def test_what_the_data_names_is_text_on_the_page_and_nothing_else(hostile: Run) -> None:
    page = read(hostile)
    assert page.count("script") == 1
    assert "alert" not in page.script
    assert page.count("b") == page.count("i") == page.count("u") == 0
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for named in (trained.SCRIPT, trained.FORMULA, trained.IMAGE, "target & <i>", *trained.CLASSES, "<u>a</u>"):
        assert named in page.text


def test_the_page_needs_nothing_from_elsewhere(digits: Run) -> None:
    page = read(digits)
    addresses = [*page.attributes("src"), *page.attributes("href")]
    assert addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)


def test_the_figures_of_the_page_are_those_of_the_evaluation(hostile: Run) -> None:
    found = hostile.read_evaluations()["test"]
    words = read(hostile).text
    around = found["intervals"]["accuracy"]
    interval = f"95 % interval {around['low']:.4g} to {around['high']:.4g}"
    assert f"accuracy {found['metrics']['accuracy']:.4g} {interval}; always '" in words
    assert f"evaluated on {found['count']} test rows" in words


def test_missing_cells_are_counted_as_the_table_has_them(hostile: Run) -> None:
    assert "93 (33.2 %)" in read(hostile).text


def test_data_warnings_are_on_the_page(hostile: Run) -> None:
    assert hostile.read_findings()
    assert "test rows" in read(hostile).text
    assert hostile.read_findings()[0]["message"] in read(hostile).text


@pytest.mark.parametrize(
    "text",
    [
        "The winner of the search <script>alert(1)</script>.",
        "Temperature and threshold", "Before temperature scaling", "Threshold of", "makes probabilities",
        "56 rows in 3 folds, split by '<script>alert(1)</script>'.", "all out-of-fold predictions",
        "No evidence that more data would help",
        "litert verified 2.0 1.0 98.70 %", "rejected: too far.", "=cmd() 0.25 (0.5)", "56 test rows",
        "Sample of the training rows", "calibration_error: 95 %, inverted bootstrap over rows, 1,000 resamples",
        "Measured by bmcli benchmark", "model 0.5 2 3 500 128",
    ],
)  # fmt: skip
def test_what_other_commands_found_is_part_of_the_page(hostile: Run, text: str) -> None:
    assert text in read(hostile).text


def test_sections_without_results_are_not_there(sugar: Run) -> None:
    titles = {"Origin", "Temperature and threshold", "Cross-validation", "Learning curve", "Artefacts"}
    assert not [title for title in titles if title in read(sugar).text]


def test_what_is_damaged_is_left_out_of_the_page(sugar: Run, cache: Path) -> None:
    sugar.validation.write_text('{"folds": {"splitter": 3}, "learning_curve": []}')
    sugar.decisions.write_text("[]")
    (sugar.exports / "litert").mkdir(parents=True)
    (sugar.exports / "litert" / "card.json").write_text('{"format": "litert"}')
    (sugar.exports / "onnx").mkdir()
    sugar.benchmark.write_text('{"artefacts": [{}]}')
    warnings: list[str] = []
    regenerate_report(sugar, None, cache, warnings.append)
    for name in ("validation.json", "decisions.json", "litert", "onnx", "benchmark.json"):
        assert any(name in warning for warning in warnings), name
    assert "Cross-validation" not in read(sugar).text
    assert "Artefacts" not in read(sugar).text


def test_a_regenerated_page_keeps_all_results(sugar: Run, cache: Path) -> None:
    """Such as the slices that only an earlier command computed."""
    found = evaluate(str(sugar.folder), ["evaluate.slices=[sex]"], None, None, sugar.folder.parent.parent, cache, print)
    assert found.evaluation.slices
    regenerate_report(sugar, None, cache, print)
    assert "by slice, the worst first" in read(sugar).text


def test_data_without_warnings_is_described_as_such(digits: Run) -> None:
    without_warnings = "The data checks found no problem" in read(digits).text
    assert without_warnings == (not digits.read_findings())


def test_figures_of_classes_have_intervals(hostile: Run) -> None:
    (rows,) = Evaluation.from_json(hostile.read_evaluations()["test"]).per_class.values()
    found = make_class_row(rows[1])
    around = compute_wilson_interval(round(rows[1].recall * rows[1].support), rows[1].support)
    assert (
        found.cells[3].text
        == f"{write_measure(rows[1].recall)} ({write_measure(around.low)} to {write_measure(around.high)})"
    )


def test_artefacts_of_earlier_weights_are_marked() -> None:
    made = ArtefactSummary("litert", 9, 9, True, 1.0, 0.0, 5, "test", None, (), (), "abc")
    assert [make_artefact_rows([made], model)[0].cells[1].text for model in ("abc", "def")] == [
        "verified", "verified, but of earlier weights",
    ]  # fmt: skip


def test_a_learning_curve_is_drawn_with_its_forecast() -> None:
    places = (np.arange(2000) + 0.5) / 2000
    scores = [RowScores(s, places[: int(500 * s)] > 0, places > 0.05 + (500 * s) ** -0.5) for s in (0.2, 0.4, 0.7, 1.0)]
    curve = compute_learning_curve("label", "accuracy", SHARE, scores, Resampling(100))
    assert curve.forecast.value is not None
    view = make_curve_view(curve, 0)
    assert ">forecast<" in view.figure
    assert ">1,000<" in view.figure  # the number of rows of the forecast is on the axis
    assert "With 1,000 rows it would be about" in view.summary
    without = replace(curve, forecast=Forecast(1000, reason="the points do not follow a power law"))
    assert ">forecast<" not in make_curve_view(without, 0).figure


@pytest.fixture(scope="module")
def retrained_pages(hostile: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pages of a cross-validation and a learning curve whose names attack them."""
    kept, folder = hostile.record(hostile.validation, dict) or {}, tmp_path_factory.mktemp("retrained")
    curves = [LearningCurve.from_json(each) for each in kept["learning_curve"]["targets"]]
    arguments = (trained.SCRIPT, f"runs/{trained.IMAGE}", f"name: {trained.SCRIPT}")
    pages = (
        render_folds(*arguments, CrossValidationResult.from_json(kept["folds"])),
        render_learning_curves(*arguments, curves),
    )
    files = folder / "folds.html", folder / "curves.html"
    for file, page in zip(files, pages, strict=True):
        file.write_text(page, encoding="utf-8")
    return files


def test_names_are_text_on_the_pages_of_retrained_recipes(retrained_pages: tuple[Path, Path]) -> None:
    for file in retrained_pages:
        page = Page(file.read_text(encoding="utf-8"))
        assert page.count("script") == 1
        assert "alert" not in page.script
        assert page.count("img") == page.count("b") == 0
        assert trained.SCRIPT in page.text


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_pages_of_retrained_recipes(
    retrained_pages: tuple[Path, Path], width: int, window: Browser
) -> None:
    for file in retrained_pages:
        seen = window.look(file, width, dark=True)
        assert (seen.width, seen.overflowing, seen.complaints, seen.requests) == (width, [], [], [])


def test_groups_have_their_own_rates(hostile: Run) -> None:
    assert "Slices and groups" in read(hostile).text
    assert "selection rate" in read(hostile).text


def test_an_explained_run_shows_its_explanation(digits: Run, hostile: Run, sugar: Run) -> None:
    assert "Grad-CAM" in read(digits).text
    assert "contributions" in read(digits).text
    assert "Adebayo et al. 2018" in read(hostile).text
    assert "Explanation" not in read(sugar).text


def test_a_damaged_explanation_is_left_out(sugar: Run) -> None:
    from bmcli.workflows.report_data import read_explanation

    sugar.explanation.write_text('{"split": "test"}')
    assert read_explanation(sugar, print) is None
    sugar.explanation.unlink()


@pytest.mark.parametrize(
    "part", ["Confusion matrix", "ROC of the classes with the lowest ROC AUC", "Most wrong", "Least confident"]
)
def test_a_run_of_classes_shows_how_well_they_are_classified(digits: Run, part: str) -> None:
    assert part in read(digits).text


def test_examples_of_a_run_on_pictures_are_pictures(digits: Run) -> None:
    page = read(digits)
    assert page.count("img") >= 12
    assert "28 by 28" not in page.text
    assert "8 by 8 by 1 pixels" in page.text


@pytest.mark.parametrize("part", ["Predicted against true", "Largest errors", "Smallest errors"])
def test_a_run_of_numbers_shows_its_errors(sugar: Run, part: str) -> None:
    assert part in read(sugar).text
    assert "Least confident" not in read(sugar).text


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    if COMMAND is None:
        pytest.skip("this machine has no browser")
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["hostile", "digits", "sugar"])
def test_a_browser_shows_all_of_it_without_a_complaint(
    name: str, width: int, dark: bool, window: Browser, request: pytest.FixtureRequest
) -> None:
    seen = window.look(request.getfixturevalue(name).report, width, dark)
    assert seen.width == width
    assert seen.overflowing == []
    assert seen.complaints == []
    assert seen.requests == []


def test_a_page_with_requests_or_overflow_is_noticed(window: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    wide = "<p style='width: 9rem; white-space: nowrap'>words that take more room than they are given here</p>"
    page.write_text(f"<img src='other.png'>{wide}<div style='width: 900px'>.</div><script>console.error(1)</script>")
    seen = window.look(page, 400, dark=False)
    assert seen.width >= 900
    assert any("words that" in each for each in seen.overflowing)
    assert any(address.endswith("other.png") for address in seen.requests)
    assert seen.complaints
