"""The chief of a search, with workers that compute a function instead of training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bmcli.errors import BmcliError, RunFailed
from bmcli.recipe.load import load_recipe
from bmcli.recipe.space import load_search
from bmcli.trials import SearchObjective, SearchResult, Task, Trial, TrialResult
from bmcli.tuning.journal import Journal
from bmcli.tuning.search import Search, SearchWinner, find_differences
from bmcli.tuning.study import Study, create_study
from tests.conftest import TINY, WriteRecipe

ACCURACY = SearchObjective("validation/accuracy", "max")
SPACE = "space: {model.dropout: {float: [0, 0.5]}, train.optimizer.learning_rate: {log: [1e-4, 1e-1]}}"
Do = Callable[[Task], TrialResult]


class Quiet:
    """A callback that remembers ended trials, and can interrupt the search after some of them."""

    def __init__(self, most: int = 10**6) -> None:
        self.ended_names: list[str] = []
        self.notes: list[str] = []
        self._most = most

    def on_trial_start(self, task: Task) -> None: ...

    def on_epoch_end(self, name: str, epoch: int) -> None: ...

    def on_trial_end(self, trial: Trial, searched: SearchResult) -> None:
        self.ended_names.append(trial.task.name)
        if len(self.ended_names) >= self._most:
            raise KeyboardInterrupt

    def on_confirmation_start(self, runs: int) -> None: ...

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def accuracy(task: Task) -> float:
    """Compute an accuracy that falls with dropout, and a little with the seed."""
    return 1.0 - task.values["model.dropout"] - 0.001 * task.values.get("seed", 0)


def measured(task: Task) -> TrialResult:
    value = accuracy(task)
    return TrialResult(task.name, "done", {ACCURACY.name: value}, (-value / 2, -value), epochs=2, seconds=0.1)


@contextmanager
def working(study: Study, do: Do) -> Iterator[None]:
    """Run a worker in a thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for name in study.list_open_tasks():
                if study.claim(name):
                    study.put_result(do(study.read_task(name)))
            time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


Begin = Callable[..., Study]


@pytest.fixture
def begin(tmp_path: Path, write_recipe: WriteRecipe) -> Begin:
    def make(tune: str, *overrides: str) -> Study:
        recipe = write_recipe(TINY + f"tune: {{objective: validation/accuracy, {tune}}}\n")
        return create_study(tmp_path / "runs", load_search(str(recipe), overrides), (ACCURACY,), "fingerprint")

    return make


def run(study: Study, do: Do = measured, callback: Any = None, *overrides: str) -> tuple[SearchWinner, SearchResult]:
    loaded = load_search(str(study.search), overrides)
    with working(study, do), closing(Search(study, loaded, (ACCURACY,), lambda: None)) as search:
        winner = search.run(callback or Quiet())
        return winner, search.summarize()


def test_a_search_tries_confirms_and_chooses(begin: Begin) -> None:
    study = begin(f"trials: 6, {SPACE}, confirm: {{top: 2, seeds: 3}}")
    winner, searched = run(study)
    assert [trial.task.name for trial in searched.trials] == [f"{n:04d}" for n in range(6)]
    best = min(searched.trials, key=lambda trial: trial.task.values["model.dropout"])
    assert winner.trial.task.name == best.task.name == searched.winner
    assert [len(each.values) for each in searched.confirmed] == [3, 3, 3], "the best two and the recipe"
    own = load_recipe(str(study.base)).recipe.seed
    assert winner.task.values["seed"] == own + 1, "of its seeds the one that takes the least away"
    assert winner.task.values["data.seed"] == own
    assert winner.task.keeps_model
    assert searched.stop_reasons == ()


def test_without_confirmation_the_best_is_trained_once_as_it_was(begin: Begin) -> None:
    winner, searched = run(begin(f"trials: 3, {SPACE}, confirm: none"))
    assert winner.task.values == winner.trial.task.values
    assert searched.confirmed == (), "its only seed is that of the search"


def test_the_mean_over_seeds_decides_and_not_the_luck_of_the_search(begin: Begin) -> None:
    def lucky(task: Task) -> TrialResult:
        if task.name == "0002":
            return TrialResult(task.name, "done", {ACCURACY.name: 2.0})
        return measured(task)

    winner, searched = run(begin(f"trials: 4, {SPACE}, confirm: {{top: 4, seeds: 2}}"), lucky)
    dropouts = [trial.task.values["model.dropout"] for trial in searched.trials]
    assert winner.trial.task.values["model.dropout"] == min(dropouts)
    (shrunk,) = (each for each in searched.confirmed if each.trial == "0002")
    assert shrunk.shrinkage(ACCURACY) > 0.9


@pytest.mark.parametrize("algorithm", ["random", "{kind: bayesian, initial: 3}", "grid", "hyperband"])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_search_that_was_stopped_goes_on_to_the_same_end(begin: Begin, algorithm: str, after: int) -> None:
    tune = f"algorithm: {algorithm}, trials: 6, {SPACE}, confirm: {{top: 1, seeds: 1}}"
    winner, searched = run(begin(tune))
    study = begin(tune)
    with pytest.raises(KeyboardInterrupt):
        run(study, callback=Quiet(after))
    again, taken_up = run(study)
    assert [trial.task for trial in taken_up.trials] == [trial.task for trial in searched.trials]
    assert again.trial.task == winner.trial.task
    assert taken_up.confirmed == searched.confirmed
    assert taken_up.seconds > 0


def test_a_result_that_came_while_nobody_looked_is_not_trained_again(begin: Begin) -> None:
    study = begin(f"trials: 2, {SPACE}, confirm: none")
    with pytest.raises(KeyboardInterrupt):
        run(study, callback=Quiet(1))
    done: list[str] = []

    def note(task: Task) -> TrialResult:
        done.append(task.name)
        return measured(task)

    run(study, note)
    assert "0000" not in done


def test_more_trials_extend_a_finished_search(begin: Begin) -> None:
    study = begin(f"trials: 3, {SPACE}, confirm: {{top: 1, seeds: 1}}")
    _, first = run(study)
    _, longer = run(study, measured, None, "tune.trials=6")
    assert longer.trials[:3] == first.trials
    assert len(longer.trials) == 6


def test_failures_in_a_row_end_a_search(begin: Begin) -> None:
    def fails(task: Task) -> TrialResult:
        if task.name in ("0002", "0003", "0004"):
            return TrialResult(task.name, "failed", reason="the loss is NaN.")
        return measured(task)

    _, searched = run(begin(f"trials: 20, {SPACE}, stop: {{failures: 3}}, confirm: none"), fails)
    assert len(searched.trials) == 5
    assert searched.stop_reasons == ("3 trials in a row failed, the last one: the loss is NaN.",)
    assert searched.winner in ("0000", "0001")


def test_trials_that_diverge_do_not_end_a_search(begin: Begin) -> None:
    def diverges(task: Task) -> TrialResult:
        is_first = task.name in ("0000", "confirm-0000")
        return measured(task) if is_first else TrialResult(task.name, "diverged", reason="the loss is NaN.")

    _, searched = run(begin(f"trials: 20, {SPACE}, stop: {{failures: 3}}, confirm: none"), diverges)
    assert (len(searched.trials), searched.stop_reasons, searched.winner) == (20, (), "0000")


@pytest.mark.parametrize(
    ("tune", "ends"), [("trials: 4", 0), ("trials: 20, stop: {failures: 2}", 2), ("trials: 4, stop: {failures: 2}", 2)]
)
def test_the_advice_to_search_longer_works(begin: Begin, tune: str, ends: int) -> None:
    def fails(task: Task) -> TrialResult:
        is_late = task.name.isdigit() and int(task.name) >= 2
        return TrialResult(task.name, "failed", reason="killed.") if ends and is_late else measured(task)

    study = begin(f"{tune}, {SPACE}, confirm: none")
    _, before = run(study, fails)
    with closing(Search(study, load_search(str(study.search)), (ACCURACY,), lambda: None)) as search:
        assert search.is_over
        changes = search.suggest_changes()
    assert changes
    _, longer = run(study, fails, None, *changes)
    assert len(longer.trials) > len(before.trials)


def test_an_exhausted_search_has_no_advice_to_go_on(begin: Begin) -> None:
    study = begin("algorithm: grid, trials: 50, space: {model.dropout: {choice: [0.1, 0.2]}}, confirm: none")
    run(study)
    with closing(Search(study, load_search(str(study.search)), (ACCURACY,), lambda: None)) as search:
        assert (search.is_over, search.suggest_changes()) == (True, [])


def test_where_every_trial_fails_the_reason_is_told(begin: Begin) -> None:
    study = begin(f"trials: 9, {SPACE}, stop: {{failures: 2}}")
    with pytest.raises(RunFailed, match="no trial could be measured") as error:
        run(study, lambda task: TrialResult(task.name, "failed", reason="NaN."))
    assert "The last one: NaN." in str(error.value.faults[0].suggestion)


def test_time_ends_a_search(begin: Begin) -> None:
    def slow(task: Task) -> TrialResult:
        time.sleep(0.3)
        return measured(task)

    _, searched = run(begin(f"trials: 50, {SPACE}, stop: {{time: 1s}}, confirm: none"), slow)
    assert 1 <= len(searched.trials) < 10
    assert searched.stop_reasons == ("The time limit was reached.",)


OUTSIDE = "space: {model.dropout: {float: [0.3, 0.5]}, train.optimizer.learning_rate: {log: [1e-4, 1e-1]}}"
ALGORITHMS = ["random", "{kind: bayesian, initial: 3}", "grid", "hyperband"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_recipe_as_written_is_the_first_of_the_trials(begin: Begin, algorithm: str, workers: int) -> None:
    study = begin(f"algorithm: {algorithm}, trials: 6, workers: {workers}, {SPACE}, confirm: none")
    _, searched = run(study)
    assert len(searched.trials) == 6, "it is one of those that were asked for"
    recipe, *others = searched.trials
    assert recipe.is_recipe
    assert recipe.task.values == {"model.dropout": 0.2, "train.optimizer.learning_rate": 0.01}
    assert recipe.task.until == (3 if algorithm == "hyperband" else None), "it is trained to the end"
    assert study.load_candidate(recipe.task.values).recipe.model == load_recipe(str(study.base)).recipe.model
    assert not any(trial.is_recipe or trial.task.values == recipe.task.values for trial in others)


@pytest.mark.parametrize("confirm", ["none", "{top: 2, seeds: 2}"])
def test_where_nothing_is_better_the_recipe_wins(begin: Begin, confirm: str) -> None:
    winner, searched = run(begin(f"trials: 4, {OUTSIDE}, confirm: {confirm}"))
    assert (winner.trial.is_recipe, searched.winner) == (True, "0000")
    assert winner.recipe_task == winner.task


def test_a_tie_is_won_by_the_recipe(begin: Begin) -> None:
    def equal(task: Task) -> TrialResult:
        better_in_search = task.name == "0002"
        return TrialResult(task.name, "done", {ACCURACY.name: 0.9 if better_in_search else 0.8})

    winner, _ = run(begin(f"trials: 4, {SPACE}, confirm: {{top: 1, seeds: 2}}"), equal)
    assert winner.trial.is_recipe, "a change that gains nothing is none"


def test_the_recipe_is_trained_again_with_the_seeds_of_the_winner(begin: Begin) -> None:
    study = begin(f"trials: 6, {SPACE}, confirm: {{top: 1, seeds: 2}}")
    winner, searched = run(study)
    assert winner.recipe_task is not None
    assert not winner.trial.is_recipe
    seeds = {each.trial: len(each.values) for each in searched.confirmed}
    assert seeds == {"0000": 2, winner.trial.task.name: 2}
    assert winner.recipe_task.values == {**searched.trials[0].task.values, "seed": 6, "data.seed": 5}
    assert winner.recipe_task.keeps_model


@pytest.mark.parametrize("state", ["diverged", "failed", "refused"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_recipe_that_cannot_be_trained_does_not_end_its_search(begin: Begin, algorithm: str, state: Any) -> None:
    def train(task: Task) -> TrialResult:
        return TrialResult(task.name, state, reason="NaN.") if task.name == "0000" else measured(task)

    study = begin(f"algorithm: {algorithm}, trials: 6, {SPACE}, confirm: {{top: 1, seeds: 1}}")
    winner, searched = run(study, train)
    assert winner.recipe_task is None
    assert [each.trial for each in searched.confirmed] == [winner.trial.task.name]
    assert len(searched.trials) == (7 if state == "refused" else 6), "what the recipe refuses costs no trial"


def test_a_recipe_that_fails_with_other_seeds_is_not_compared(begin: Begin) -> None:
    def train(task: Task) -> TrialResult:
        is_recipe_again = task.name.startswith("confirm-0000")
        return TrialResult(task.name, "failed", reason="killed.") if is_recipe_again else measured(task)

    winner, _ = run(begin(f"trials: 6, {SPACE}, confirm: {{top: 1, seeds: 2}}"), train)
    assert (winner.trial.is_recipe, winner.recipe_task) == (False, None)


@pytest.mark.parametrize("algorithm", ["random", "{kind: bayesian, initial: 3}", "grid"])
def test_every_candidate_of_a_small_space_is_tried_once(begin: Begin, algorithm: str) -> None:
    space = "space: {model.dropout: {choice: [0.1, 0.2, 0.3]}, model.hidden: {choice: [[8], [4], [2]]}}"
    _, searched = run(begin(f"algorithm: {algorithm}, trials: 50, {space}, confirm: none"))
    tried = [repr(sorted(trial.task.values.items())) for trial in searched.trials]
    assert len(tried) == len(set(tried)) == 9
    assert searched.trials[0].task.values == {"model.dropout": 0.2, "model.hidden": [8]}


def test_a_search_needs_a_trial_beside_the_recipe(begin: Begin) -> None:
    with pytest.raises(BmcliError, match="expected a number of at least 2, received 1"):
        begin(f"trials: 1, {SPACE}")


def test_a_small_space_ends_a_search(begin: Begin) -> None:
    tune = "algorithm: grid, trials: 50, space: {model.dropout: {choice: [0.1, 0.2]}}, confirm: none"
    _, searched = run(begin(tune))
    assert [trial.task.values["model.dropout"] for trial in searched.trials] == [0.2, 0.1], "the first is the recipe"
    assert searched.stop_reasons == ("Nothing is left to try in this space.",)


def test_what_the_recipe_refuses_costs_no_trial(begin: Begin) -> None:
    tune = "algorithm: grid, trials: 4, space: {model.width: {choice: [8, 12]}, model.heads: {choice: [2, 3, 4, 6]}}"
    study = begin(
        f"{tune}, confirm: none", "model={kind: transformer, patch: [4, 4], depth: 1, width: 12, heads: 2}",
        "data.source={kind: builtin, name: digits}",
    )  # fmt: skip

    def scored(task: Task) -> TrialResult:
        return TrialResult(task.name, "done", {ACCURACY.name: float(task.values["model.heads"])})

    _, searched = run(study, scored)
    refused = [trial for trial in searched.trials if trial.state == "refused"]
    assert refused, "8 is no multiple of 3"
    assert all("model.width=8" in trial.result.reason for trial in refused if trial.result)
    assert len(searched.trials) - len(refused) == 4


def test_the_median_rule_gives_later_trials_bounds(begin: Begin) -> None:
    study = begin(f"trials: 8, {SPACE}, confirm: none", "train.epochs=4")

    def curve(task: Task) -> TrialResult:
        number = int(task.name[:4]) if task.name[0] == "0" else 0
        return TrialResult(task.name, "done", {ACCURACY.name: 0.5}, tuple(float(number) for _ in range(4)), epochs=4)

    _, searched = run(study, curve)
    bounds = [trial.task.bounds for trial in searched.trials]
    assert bounds[4] == (None,) * 4, "four are not enough"
    assert bounds[5] == (None, 2.0, 2.0, 2.0), "the median of 0 to 4; the first epoch is spared"
    assert bounds[7] == (None, 3.0, 3.0, 3.0)


def test_hyperband_has_no_bounds(begin: Begin) -> None:
    _, searched = run(begin(f"algorithm: hyperband, trials: 8, {SPACE}, confirm: none"))
    assert all(trial.task.bounds == () for trial in searched.trials)


def test_a_journal_that_lacks_a_task_is_refused(begin: Begin) -> None:
    study = begin(f"trials: 2, {SPACE}, confirm: none")
    study.put_task(Task("0000", {"model.dropout": 0.1}))
    with pytest.raises(BmcliError, match=r"journal\.jsonl: damaged \(task 0000 is missing\)"):
        run(study)


def test_a_journal_of_another_space_is_refused(begin: Begin) -> None:
    study = begin(f"trials: 2, {SPACE}, confirm: none")
    run(study)
    other = begin("trials: 2, space: {model.dropout: {float: [0.6, 0.9]}}, confirm: none")
    events = Journal(study.journal, study.id).read_events()
    for _, event in events:
        Journal(other.journal, other.id).add(event)
    with pytest.raises(BmcliError, match="other candidates would be chosen now"):
        run(other)


def test_differences_are_told_by_path() -> None:
    before = {"recipe": {"model": {"units": 64, "kind": "mlp"}, "seed": 0}, "data": "a"}
    now = {"recipe": {"model": {"units": 32, "kind": "mlp"}, "seed": 0}, "data": "b"}
    assert find_differences(before, now) == ["recipe.model.units: 64, now 32", "data: 'a', now 'b'"]
    assert find_differences(before, before) == []
