"""Results of every command, made without running it.

    python -m tests.terminal.results

Writes what presenters print of them as `golden/*.txt` and `golden/*.json`; read the differences before you keep them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from bmcli.commands.benchmark import BenchmarkResult
from bmcli.commands.compare import ComparisonResult
from bmcli.commands.distill import DistillationResult
from bmcli.commands.doctor import Check
from bmcli.commands.explain import ExplanationResult
from bmcli.commands.export import ExportedArtefact, ExportResult
from bmcli.commands.folds import CrossValidationRun
from bmcli.commands.generate import GeneratedText, GenerationResult
from bmcli.commands.init import DraftResult, SectionChoice
from bmcli.commands.kinds import ListedKind, ListedRoom
from bmcli.commands.learning_curve import LearningCurveResult
from bmcli.commands.plan import Plan
from bmcli.commands.predict import PredictionResult
from bmcli.commands.recipes import BuiltInRecipe
from bmcli.commands.runs import RunList, RunSummary
from bmcli.commands.show import ResolvedRecipe
from bmcli.commands.tune import TuningResult
from bmcli.commands.validate import NetworkSize, ValidationResult
from bmcli.cost_model.measurement import CostMeasurement
from bmcli.cost_model.model_summary import LayerSummary, MemoryEstimate
from bmcli.cost_model.prediction import ClusterModel, Line, Link, StepTime, Workload
from bmcli.data.profiling.column_profile import ColumnProfile
from bmcli.data.profiling.roles import ColumnRole
from bmcli.distillations import Distillation, DistillationComparison, DistillationGain, NetworkResult
from bmcli.errors import BmcliError
from bmcli.evaluation.baseline import BaselineComparison
from bmcli.evaluation.comparison import Comparison, Contender
from bmcli.evaluation.explanation_record import (
    Explanation,
    FeatureAttribution,
    PermutationImportance,
    SanityCheck,
    TargetExplanation,
)
from bmcli.evaluation.fairness import Fairness, GroupRates, Rate
from bmcli.evaluation.folds import CrossValidationResult, FoldMean, FoldResult
from bmcli.evaluation.gates import Gate, MissedGate
from bmcli.evaluation.improvement import Improvement
from bmcli.evaluation.intervals import Difference
from bmcli.evaluation.learning_curve import CurvePoint, Forecast, LearningCurve
from bmcli.evaluation.predictions import Predictions
from bmcli.evaluation.result import Evaluation
from bmcli.evaluation.slices import Slice, Slices
from bmcli.export.agreement import OutputComparison
from bmcli.export.verify import Verification
from bmcli.generation import WrittenText
from bmcli.inputs import TokenSummary
from bmcli.metrics.calibration import Calibration, CalibrationBin
from bmcli.metrics.classification import ClassMetrics
from bmcli.metrics.proportions import Interval
from bmcli.networks.network import Network
from bmcli.recipe.distill import DistillOptions
from bmcli.recipe.search import SearchParameter
from bmcli.reports.costs import Cost, Latency
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec, Split
from bmcli.terminal.console import Console
from bmcli.terminal.presenters import (
    artefacts,
    benchmark,
    built_in_recipes,
    comparison,
    copied_recipe,
    cross_validation,
    distillation,
    draft,
    evaluation,
    explanation,
    generation,
    kinds,
    learning_curve,
    machine_checks,
    prediction,
    resolved_recipe,
    runs,
    schema,
    search,
    training,
    training_plan,
    validation,
    written_report,
)
from bmcli.training.trainer import TrainingOutcome
from bmcli.trials import ConfirmedCandidate, SearchObjective, SearchResult, Task, Trial, TrialResult
from bmcli.tuning.study import Study
from bmcli.workflows.run_evaluation import EvaluationResult
from bmcli.workflows.training import TrainingResult

GOLDEN = Path(__file__).parent / "golden"
RUN = Run(Path("runs/loans/2026-01-01T12-00-00"))
WILSON = "Wilson score interval over 240 rows"


def make_interval(low: float, high: float) -> Interval:
    return Interval(low, high, 0.95, WILSON)


def make_evaluation() -> Evaluation:
    lost = ClassMetrics("lost", 0.8, 0.9, 0.8471, 150, 0.9, 0.9)
    paid = ClassMetrics("paid", None, 0.0, None, 90, None, None)
    calibration = Calibration("paid", (CalibrationBin(0.0, 1.0, 240, 0.6, 0.5, 0.4, 0.6),), 0.1, 0.1, 0.2, 0.08, 0.01)
    slices = (
        Slice("clinic", "B", 60, 0.5167, make_interval(0.39, 0.64), -0.3944, 1e-7, 4e-7, {"accuracy": 0.5167}),
        Slice("sex", "a", 120, 0.8, None, -0.025, 0.62, 1.0, {"accuracy": 0.8}),
    )
    high, low = Rate(0.6, 0.5, 0.7, 120), Rate(0.4, 0.3, 0.5, 120)
    groups = (GroupRates("a", 120, high, low, None), GroupRates("b", 120, low, high, high))
    return Evaluation(
        {"accuracy": 0.8125, "log_loss": 0.4321},
        {"label": (lost, paid)},
        {"label": ((135, 15), (30, 60))},
        240,
        undefined={"roc_auc": "one class alone."},
        intervals={"accuracy": make_interval(0.758, 0.857)},
        without_interval={"log_loss": "no resample differs."},
        calibration={"label": calibration},
        slices=(Slices("label", "accuracy", 0.8125, 6, 1, 1, slices),),
        fairness=(Fairness("sex", "label", "paid", groups, ()),),
        baselines=(BaselineComparison("label", "always 'lost'", {"accuracy": 0.8125}, "accuracy", False),),
        positive={"label": "lost"},
    )


def make_evaluation_result() -> EvaluationResult:
    predicted = Predictions("test", Split({}, {}), {}, {})
    missed = MissedGate("accuracy", Gate(">=", 0.9), 0.8125)
    return EvaluationResult(RUN, "test", make_evaluation(), (missed,), predicted, {"sex": 3}, ("3 cells are new",))


def make_training_result() -> TrainingResult:
    network = cast(Network, None)  # which is not shown
    outcome = TrainingOutcome(network, 20, 400, 17, {"validation/accuracy": 0.85}, "patience", None, 12.345, 45678.9)
    return TrainingResult(RUN, outcome, make_evaluation_result())


def make_cross_validation() -> CrossValidationRun:
    folds = tuple(FoldResult(n, 160, 80, {"accuracy": 0.8 + n / 100}, 10, 1.5) for n in (1, 2, 3))
    means = {"accuracy": FoldMean(0.82, 0.01, 0.78, 0.86, 3)}
    found = CrossValidationResult("by chance", folds, means, "t interval of the folds", make_evaluation())
    run = Run(Path("runs/loans-folds/2026-01-01T12-00-00"))
    return CrossValidationRun(run, run.folder / "predictions.csv", found, ())


def make_learning_curve() -> LearningCurveResult:
    few = CurvePoint(0.4, 400, 0.9, make_interval(0.88, 0.92), 0.8, make_interval(0.75, 0.85))
    every = CurvePoint(1.0, 1000, 0.88, None, 0.84, None)
    more = Difference("accuracy", 0.8, 0.84, make_interval(0.01, 0.07), 0.02, "paired bootstrap", direction="max")
    forecast = Forecast(2000, 0.86, make_interval(0.85, 0.88))
    return LearningCurveResult(
        RUN, (LearningCurve("label", "accuracy", 1.0, (few, every), more, forecast),), (0.05, 0.1)
    )


def make_generation() -> GenerationResult:
    written = {"Once ": WrittenText("upon a time", 11, "stop"), "\x1b": WrittenText("and\x07 then", 200, "length")}
    texts = tuple(GeneratedText(prompt, text) for prompt, text in written.items())
    notes = ("a prompt is longer than the window.",)
    return GenerationResult(RUN.folder, texts, None, 2, 211, 0.5, False, False, notes)


def make_explanation() -> ExplanationResult:
    sanity = (
        SanityCheck("integrated gradients", "Sundararajan et al. 2017", "rank correlation", 0.1, 0.5),
        SanityCheck("permutation importance", "Breiman 2001", "rank correlation", 0.7, 0.5),
    )
    importances = (
        PermutationImportance("score", 0.31, 0.25, 0.37, 0.2),
        PermutationImportance("sex", 0.001, -0.004, 0.006, 0.0),
    )
    shares = (FeatureAttribution("score", 0.9), FeatureAttribution("sex", 0.1))
    target = TargetExplanation("label", "log loss", importances, shares, (), (), sanity)
    return ExplanationResult(RUN, Explanation("validation", 240, 5, (target,), (), (), (), 3))


def make_comparison() -> ComparisonResult:
    intervals = {"accuracy": make_interval(0.88, 0.92)}
    small = Contender("small", "runs/small/1", {"accuracy": 0.9}, intervals, 1000, 5000, 0.0004, 1.5, ())
    large = Contender("large", "runs/large/1", {"accuracy": 0.91}, {}, 250000, 1100000, 0.003, None, ())
    difference = Difference("accuracy", 0.9, 0.91, make_interval(-0.01, 0.03), 0.4, "paired bootstrap", direction="max")
    back = Difference("accuracy", 0.91, 0.9, make_interval(-0.03, 0.01), 0.4, "paired bootstrap", direction="max")
    found = Comparison(
        "test", 240, "accuracy", "max", (small, large),
        {"model.hidden": ("[8]", "[512, 512]")}, {"rows": ("240", "250")}, "",
        {"large": {"accuracy": difference}}, {"small": back},
    )  # fmt: skip
    return ComparisonResult(found, Path("comparison.html"))


def make_draft() -> DraftResult:
    roles = [ColumnRole(ColumnProfile("label", 240), "target", "category", "two values, the last column")]
    roles += [ColumnRole(ColumnProfile(f"x{n}", 240), "input", "number", "numbers") for n in range(100)]
    return DraftResult(
        Path("recipe.yaml"), "name: loans\n", 240, tuple(roles), SectionChoice({"validation": 0.2}, "few rows"),
        SectionChoice({"kind": "mlp"}, "a table"), ("column 'id' counts the rows.",),
    )  # fmt: skip


def make_export() -> ExportResult:
    compared = OutputComparison("the same class", "in a probability", 1.2e-7, 3.5, 1e-4, None)
    sentences = ("240 of 240 rows have the same answer, 100.00%; at least 100.00%.", "accuracy: 0.8125.")
    accepted = Verification(
        "test", 240, ("missing",), 1.0, {"accuracy": (0.8125, 0.8125)}, {"label": compared}, summary=sentences
    )
    rejected = Verification("test", 240, (), 0.91, failures=("91 % agree, expected 99 %.",))
    artefacts = (
        ExportedArtefact("saved_model", RUN.exports / "saved_model", accepted, 123_456, 45_678),
        ExportedArtefact("litert:int8", RUN.exports / "litert-int8", rejected, 1_234_567, 987),
    )
    return ExportResult(RUN, artefacts, {"onnx": BmcliError("tf2onnx is not installed.")})


def make_benchmark() -> BenchmarkResult:
    latencies = (Latency(1, 0.00012, 0.0002, 0.0003, 1000), Latency(256, 0.0031, 0.004, 0.005, 100))
    model = Cost("model", 123_456, 45_678, 0.5, latencies, 300 * 2**20, None)
    artefact = Cost("litert", 99_999, 1000, 0.001, latencies, 25 * 2**20, ("accuracy", 0.8125))
    return BenchmarkResult((model, artefact), RUN.exports / "benchmark.svg", 5, ("no dot products of bytes.",))


def make_plan() -> Plan:
    inputs = tuple(Column(f"x{n}", "number", (1,), "float32") for n in range(30))
    target = Column("label", "category", (), "int32", classes=("lost", "paid"))
    spec = DataSpec(inputs, (target,), {"train": 800, "validation": 100, "test": 0}, "", "")
    work = Workload(800, 10, 32, 120.0, 6000.0, 4000.0, 12000.0, True)
    cluster = ClusterModel(Line(0.0005, 2e-6), Link(1e9, 2e-5), 5e8, 1e9, 1e8)
    measured = CostMeasurement(work, cluster, {16: 0.00053, 32: 0.000564}, 0.001, 0.002, Link(1e9, 2e-5))
    one = StepTime(1, 32, 0.000564, 0.0, 0.0, 0.00001, 56737.6, 1.0, 0.0141, 3725.0, True)
    eight = StepTime(8, 32, 0.00051, 0.0003, 0.0, 0.00001, 39024.4, 0.0859, 0.0205, 0.205, False)
    layers = (LayerSummary("dense", "Dense", (16,), 496), LayerSummary("head", "Dense", (), 17))
    return Plan(
        "loans", spec, "Some CPU", 1234, layers, MemoryEstimate(4936, 4936, 9872, 70000),
        {"prepared data": True, "compilation": False}, True, measured, one,
        (one, eight), ("no stragglers.",), ("no row tests.",),
        ((0, 0.001), (100, 0.01), (249, 0.0)), Path("pictures.png"),
        {"note": TokenSummary("8,000 words", 64, 0.0213, 0.004, (("late", "\x1b[31m", "\u2581red"), ("paid",) * 20))},
    )  # fmt: skip


def make_search() -> TuningResult:
    def make_trial(name: str, accuracy: float | None, **result: Any) -> Trial:
        objectives = {} if accuracy is None else {"validation/accuracy": accuracy}
        values = {"model.dropout": 0.25, "model.kind": "mlp"}
        found = {"state": "done", "epochs": 4, "seconds": 65.0, **result}
        return Trial(Task(name, values), TrialResult(name, objectives=objectives, **found))

    trials = (
        make_trial("0000", 0.5),
        make_trial("0001", 0.75),
        make_trial("0002", None, state="failed", reason="killed"),
        make_trial("0003", float("nan"), state="failed", reason="the loss is no number"),
        Trial(Task("0004", {"model.kind": "cnn"}, continues="0001"), None),
    )
    space = {
        "model.dropout": SearchParameter("float", low=0.0, high=0.5),
        "model.kind": SearchParameter("choice", ("cnn", "mlp")),
    }
    found = SearchResult(
        "digits", "random", (SearchObjective("validation/accuracy", "max"),), space, trials,
        (ConfirmedCandidate("0001", 0.75, (0.7, 0.72)), ConfirmedCandidate("0000", 0.5, (0.51,))), "0001",
        "runs/digits/1", {"test/accuracy": 0.7}, 75.0, ("All 5 trials were made.",),
    )  # fmt: skip
    worse = Difference("accuracy", 0.75, 0.7, make_interval(-0.08, -0.01), 0.01, "McNemar's exact test", "", "max")
    error = Difference("calibration_error", 0.1, 0.12, None, 1.0, "paired bootstrap", "it is biased.", "min")
    improvement = Improvement("test", 240, "accuracy", {each.metric: each for each in (worse, error)})
    found = replace(found, verdict=improvement.describe())
    return TuningResult(Study(Path("runs/digits-tune/1")), found, None, improvement)


def make_distillation() -> DistillationResult:
    teacher = NetworkResult("teacher", ("runs/large/1",), {"accuracy": 0.95}, (), 1_200_000, 4_800_000, 0.004)
    baseline = NetworkResult("baseline", (), {"accuracy": 0.9, "log_loss": 0.3}, (), 12_000, 48_000, None)
    students = tuple(
        NetworkResult("student", (f"runs/small/{n}",), {"log_loss": 0.3 - n / 100}, (), 12_000, 48_000, 0.0002)
        for n in (1, 2)
    )
    gain = DistillationGain("accuracy", "max", 0.02, (0.01, 0.03), "paired bootstrap", (0.015, 0.025), 0.4)
    found = DistillationComparison(
        "small",
        "test",
        240,
        (1, 2),
        teacher,
        baseline,
        students,
        gain,
        {},
        {},
        {"risk": "bad"},
        (),
        "One teacher.",
        61.5,
    )
    return DistillationResult(Distillation(Path("runs/small-distill/1")), found, DistillOptions())


def make_runs() -> RunList:
    done = RunSummary(
        "loans", "1", "runs/loans/1", "2026-01-31 12:00", "mlp", "done", 20, None, "test/accuracy 0.8125", 12.345,
        {"test/accuracy": 0.8125},
    )  # fmt: skip
    damaged = RunSummary("loans", "2", "runs/loans/2", "", "", "damaged", 3, "status.json is damaged.", "", "", {})
    return RunList(Path("runs"), (done, damaged))


def make_resolved_recipe() -> ResolvedRecipe:
    return ResolvedRecipe("name: loans  # recipe.yaml:1\nseed: 0  # default\n\n", {"name": "loans", "seed": 0})


Show = Callable[[Console], None]
RESULTS: dict[str, Show] = {
    "artefacts": lambda console: console.present(artefacts, make_export()),
    "benchmark": lambda console: console.present(benchmark, make_benchmark()),
    "built_in_recipes": lambda console: console.present(
        built_in_recipes, [BuiltInRecipe("digits", "images", "Digits of 8 x 8."), BuiltInRecipe("sms", "text", "Spam.")]
    ),
    "kinds": lambda console: console.present(
        kinds,
        ListedRoom("models", (ListedKind("mlp", "Dense layers.", ""), ListedKind("sine", "Sines.", "sine.py"))),
    ),
    "comparison": lambda console: console.present(comparison, make_comparison()),
    "copied_recipe": lambda console: console.present(copied_recipe, [Path("sms.yaml"), Path("data/sms.csv")]),
    "cross_validation": lambda console: console.present(cross_validation, make_cross_validation()),
    "distillation": lambda console: console.present(distillation, make_distillation()),
    "draft": lambda console: console.present(draft, make_draft()),
    "evaluation": lambda console: console.present(evaluation, make_evaluation_result()),
    "explanation": lambda console: console.present(explanation, make_explanation()),
    "generation": lambda console: console.present(generation, make_generation()),
    "learning_curve": lambda console: console.present(learning_curve, make_learning_curve()),
    "machine_checks": lambda console: console.present(
        machine_checks, [Check("ok", "python", "3.12"), Check("missing", "keras", "not installed", "Install it.")]
    ),
    "prediction": lambda console: console.present(
        prediction,
        PredictionResult(
            ("run", RUN.folder),
            Path("out.csv"),
            ("label",),
            12_345,
            12_345,
            2,
            {"sex": 9},
            ("9 cells are new",),
            3,
            ("the delimiter is ';'.",),
            0.5,
            ("._a.jpg",),
        ),
    ),
    "resolved_recipe": lambda console: console.present(resolved_recipe, make_resolved_recipe()),
    "runs": lambda console: console.present(runs, make_runs()),
    "schema": lambda console: console.present(schema, {"type": "object", "properties": {}}),
    "search": lambda console: console.present(search, make_search()),
    "training": lambda console: console.present(training, make_training_result()),
    "training_plan": lambda console: console.present(training_plan, make_plan()),
    "validation": lambda console: console.present(
        validation,
        ValidationResult("loans.yaml", NetworkSize({"train": 800, "test": 100}, 1234, ("the delimiter is ';'.",))),
    ),
    "written_report": lambda console: console.present(written_report, RUN),
}
"""Shows a result of each presenter, by its name."""


def print_golden(name: str, as_json: bool) -> str:
    """Return what a presenter prints in a folder with the report of RUN: its results, then its messages."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.makedirs(RUN.folder)
        RUN.report.touch()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            RESULTS[name](Console(as_json=as_json, verbosity=1))
    return out.getvalue() if as_json else out.getvalue() + err.getvalue()


if __name__ == "__main__":
    for each in RESULTS:
        (GOLDEN / f"{each}.txt").write_text(print_golden(each, as_json=False))
        value = json.loads(print_golden(each, as_json=True))
        (GOLDEN / f"{each}.json").write_text(json.dumps(value, indent=1) + "\n")
