"""Every command: parse, call one function, print one result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bmcli import __version__, parts, stopping
from bmcli.console import Console, clean
from bmcli.disk import shown_path
from bmcli.errors import BmcliError

# Imports of commands stand inside functions: `--help` must not pay for pydantic, nor `validate` for TensorFlow.

F = TypeVar("F", bound=Callable[..., Any])
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
CONTEXT = {"help_option_names": ["-h", "--help"]}


class RecipeName(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """A recipe file or the name of a built-in recipe."""

    name = "recipe"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from bmcli.recipe.load import built_in

        names = [CompletionItem(name) for name in built_in() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


class RunName(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """A run directory, a run's name, or a recipe file."""

    name = "run"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        root = Path(ctx.params.get("root") or "runs")
        folders = root.iterdir() if root.is_dir() else ()
        names = [CompletionItem(folder.name) for folder in folders if folder.name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


_ROOMS = {"model.kind": "models", "objective.kind": "objectives", "data.source.kind": "data.sources"}
_FAMILIES = {"train.optimizer.kind": "optimizers", "train.schedule.kind": "schedules"}


class Override(click.ParamType):  # type: ignore[type-arg]  # older clicks have no argument
    """`key=value`; after `kind=` the kinds of that section are offered."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in value:
            from bmcli.recipe.addresses import allow_typed

            allow_typed(value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        key, equals, start = incomplete.partition("=")
        if not equals:
            keys = sorted({*_ROOMS, *_FAMILIES, "seed", "train.epochs", "train.batch_size"})
            return [CompletionItem(f"{known}=") for known in keys if known.startswith(incomplete)]
        return [CompletionItem(f"{key}={kind}") for kind in self._kinds(key) if kind.startswith(start)]

    def _kinds(self, key: str) -> list[str]:
        from bmcli.recipe import catalogue

        if key in _FAMILIES:
            return catalogue.names(_FAMILIES[key])
        room = _ROOMS.get(key)
        if key.startswith("data.inputs.") and key.endswith(".kind"):
            room = "inputs"
        if key.startswith("data.targets.") and key.endswith(".kind"):
            room = "data.targets"
        return list(parts.names(room)) if room else []


def output_options(command: F) -> F:
    """--json, -q and -v, handed on as one `console`."""

    def collect(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        told = ctx.ensure_object(Console)
        if param.name == "as_json":
            told.as_json = told.as_json or value
        elif value:
            told.verbosity = -1 if param.name == "quiet" else value
        return value

    options: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("-v", "--verbose"), {"count": True, "help": "Tell more."}),
        (("-q", "--quiet"), {"is_flag": True, "help": "Print results and faults only."}),
        (("--json", "as_json"), {"is_flag": True, "help": "Print one JSON object on stdout."}),
    ]
    for names, settings in options:
        command = click.option(*names, expose_value=False, callback=collect, is_eager=True, **settings)(command)
    return command


def runs_option(command: F) -> F:
    return click.option(
        "--runs", "root", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), envvar="BMCLI_RUNS",
        show_default=True, help="Folder of all runs.",
    )(command)  # fmt: skip


def trust_option(command: F) -> F:
    return click.option(
        "--trust-artefact", is_flag=True,
        help="Load an artefact that this user did not export. A SavedModel, and others, is a program: it can read, "
        "write and send files as you.",
    )(command)  # fmt: skip


recipe_argument = click.argument("recipe", type=RecipeName())
overrides_argument = click.argument("overrides", nargs=-1, type=Override(), metavar="[KEY=VALUE]...")


def console() -> Console:
    """The console of the command that is running."""
    return click.get_current_context().ensure_object(Console)


class Verb(click.Command):
    """A command that is answerable to signals from here on, and tells how to go on with what it was to go on with."""

    def invoke(self, ctx: click.Context) -> Any:
        with stopping.resumable(lambda: _how_to_go_on(self.name or "", ctx.params)):
            stopping.answer(ctx.ensure_object(Console).last_words)
            return super().invoke(ctx)


class Verbs(click.Group):
    command_class = Verb


def _how_to_go_on(verb: str, given: Mapping[str, Any]) -> str | None:
    """How to go on with what a command resumes or joins; None if it does neither, or there is nothing to go on with."""
    resumed, joined = given.get("resume"), given.get("join")
    with contextlib.suppress(BmcliError):  # there is no such run, search or distillation
        if verb == "train" and resumed:
            from bmcli import runs

            return runs.find(given["root"], resumed).how_to_go_on
        if verb == "tune" and (resumed or joined):
            from bmcli.tuning import study as studies

            shown = studies.find(given["root"], str(resumed or joined)).shown
            return stopping.going_on(f"bmcli tune --{'resume' if resumed else 'join'} {shown}")
        if verb == "distill" and resumed:
            from bmcli import distillations

            return stopping.going_on(f"bmcli distill --resume {distillations.find(given['root'], resumed).shown}")
    return None


@click.group(cls=Verbs, context_settings=CONTEXT, no_args_is_help=True)
@click.version_option(__version__, prog_name="bmcli")
def cli() -> None:
    """One YAML recipe trains, tunes, evaluates and exports a Keras model.

    \b
      bmcli init table.csv         write a recipe for your own data
      bmcli cp digits my.yaml      copy a built-in recipe
      bmcli train my.yaml          train it
      bmcli evaluate my.yaml       measure its latest run
      bmcli tune my.yaml           search for better values of it
      bmcli distill my.yaml        have a small network learn from a large one
      bmcli export my.yaml         write what others can run
    """


@cli.command()
@click.argument("recipe", type=RecipeName(), required=False)
@overrides_argument
@click.option("--resume", metavar="RUN", help="Go on with a run instead of a recipe.")
@click.option("--workers", type=click.IntRange(1), help="Train in so many processes on this machine.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Short for runtime.strategy=...")
@click.option("--replicas", type=click.IntRange(1), help="Short for runtime.replicas=...")
@click.option("--profile", is_flag=True, help="Write a trace of some seconds of training for TensorBoard.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), hidden=True)
@runs_option
@output_options
def train(
    recipe: str | None, overrides: tuple[str, ...], resume: str | None, workers: int | None, strategy: str | None,
    replicas: int | None, profile: bool, into: Path | None, root: Path,
) -> int | None:  # fmt: skip
    """Train RECIPE, a file or a built-in name, with KEY=VALUE overrides."""
    from bmcli.commands import train as command
    from bmcli.runs import cache_folder

    if resume and recipe:
        overrides = (recipe, *overrides)  # beside --resume every argument is an override
        recipe = None
    if (recipe is None) == (resume is None):
        raise click.UsageError("give a recipe, or --resume RUN without one.")
    overrides = (*overrides, *_short_for("runtime.strategy", strategy), *_short_for("runtime.replicas", replicas))
    out = console()
    if workers is not None:
        given = ["train", *([recipe] if recipe else ["--resume", resume or ""]), *overrides, "--runs", str(root)]
        given += [*out.flags(), *(["--profile"] if profile else [])]
        return command.train_in_workers(recipe, resume, overrides, workers, root, given)
    setting = command.Setting(root, cache_folder(), out.watcher, out.say, profile, into)
    trained = command.resume(resume, overrides, setting) if resume else command.train(recipe or "", overrides, setting)
    out.trained(trained)
    trained.require_report()
    if trained.measured:
        trained.measured.require_gates()
    return None


@cli.command()
@click.argument("recipe", type=RecipeName(), required=False)
@overrides_argument
@click.option("--resume", metavar="SEARCH", help="Go on with a search: its folder, or the name of its recipe.")
@click.option("--join", metavar="SEARCH", help="Train trials of a search that another process leads.")
@click.option("--workers", type=click.IntRange(1), help="Train so many trials at a time on this machine.")
@runs_option
@output_options
def tune(
    recipe: str | None, overrides: tuple[str, ...], resume: str | None, join: str | None, workers: int | None,
    root: Path,
) -> None:  # fmt: skip
    """Search for better values of RECIPE where its `tune` section says.

    With --resume a RECIPE may be given, to go on only if the search was begun with just that.
    """
    from bmcli.commands import tune as command
    from bmcli.runs import cache_folder

    if resume and recipe and "=" in recipe:
        overrides, recipe = (recipe, *overrides), None
    if not (recipe or resume or join) or (join and (recipe or overrides or resume)):
        raise click.UsageError("give a recipe, --resume SEARCH, or --join SEARCH alone.")
    out = console()
    setting = command.Setting(root, cache_folder(), out.search_watcher, out.say)
    if join:
        return command.join(join, workers or 1, setting)
    overrides = (*overrides, *_short_for("tune.workers", workers))
    tuned = (
        command.resume(resume, overrides, setting, recipe) if resume else command.tune(recipe or "", overrides, setting)
    )
    out.tuned(tuned.searched, tuned.study.best, tuned.study.report, tuned.study.table)
    if tuned.measured:
        tuned.measured.require_gates()


@cli.command()
@click.argument("recipe", type=RecipeName(), required=False)
@overrides_argument
@click.option("--resume", metavar="DISTILLATION", help="Go on: its folder, or the name of its recipe.")
@runs_option
@output_options
def distill(recipe: str | None, overrides: tuple[str, ...], resume: str | None, root: Path) -> None:
    """Have a student learn from teachers as the `distill` section of RECIPE says, beside a baseline that does not."""
    from bmcli.commands import distill as command
    from bmcli.commands.train import Setting
    from bmcli.runs import cache_folder

    if (recipe is None) == (resume is None) or (resume and overrides):
        raise click.UsageError("give a recipe, or --resume DISTILLATION alone.")
    out = console()
    setting = Setting(root, cache_folder(), out.watcher, out.say)
    finished = command.resume(resume, setting) if resume else command.distill(recipe or "", overrides, setting)
    out.distilled(finished.distilled, finished.kept.report)
    finished.require_gain()


def _short_for(path: str, value: object) -> tuple[str, ...]:
    return () if value is None else (f"{path}={value}",)


@cli.command()
@click.argument("run", type=RunName())
@overrides_argument
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="By default the recipe's.")
@click.option("--data", type=click.Path(path_type=Path), help="Measure on every row of this file instead.")
@click.option(
    "--folds",
    type=click.IntRange(2, 100),
    metavar="N",
    help="Train the recipe anew on N folds, and test each row once; short for evaluate.folds=N.",
)
@click.option("--learning-curve", is_flag=True, help="Train on 5 to 100 % of the rows, and say what would help.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Trainings side by side.  [default: cores]")
@runs_option
@output_options
def evaluate(
    run: str,
    overrides: tuple[str, ...],
    split: str | None,
    data: Path | None,
    folds: int | None,
    learning_curve: bool,
    workers: int | None,
    root: Path,
) -> None:
    """Measure RUN: a run directory, a run's name, or a recipe, whose latest run is taken."""
    from bmcli.commands.evaluate import evaluate as command
    from bmcli.commands.folds import Setting, cross_validate, recipe_of
    from bmcli.commands.learning_curve import learning_curve as learn
    from bmcli.runs import cache_folder

    if split and data:
        raise click.UsageError("--split and --data exclude each other.")
    if (folds or learning_curve) and (split or data):
        raise click.UsageError("--folds and --learning-curve train anew, so --split and --data do nothing.")
    if folds and learning_curve:
        raise click.UsageError("--folds and --learning-curve exclude each other.")
    out = console()
    if not (split or data):
        anew = recipe_of(run, (*overrides, *_short_for("evaluate.folds", folds)), root)
        setting = Setting(root, cache_folder(), workers, out.trained_beside, out.say)
        if learning_curve:
            out.learned(learn(anew, setting))
            return
        if anew.loaded.recipe.evaluate.folds is not None:
            found = cross_validate(anew, setting)
            out.cross_validated(found)
            found.require_gates()
            return
    if workers:
        raise click.UsageError("--workers does nothing without --folds or --learning-curve.")
    measured = command(run, overrides, split, data, root, cache_folder(), out.say)
    out.measured(measured)
    measured.require_gates()


@cli.command()
@click.argument("run", type=RunName())
@click.option(
    "--split", type=click.Choice(["train", "validation", "test"]), help="The rows to explain; by default validation.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(2), default=2000, show_default=True, metavar="N",
    help="Measure importance on so many of them at most.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, metavar="N",
    help="Deal the cells of each column anew so often.",
)  # fmt: skip
@click.option(
    "--examples", type=click.IntRange(1, 50), default=6, show_default=True, metavar="N",
    help="Explain so many of the most wrong answers, and of the most doubtful.",
)  # fmt: skip
@runs_option
@output_options
def explain(run: str, split: str | None, rows: int, repeats: int, examples: int, root: Path) -> None:
    """Tell why the model of RUN answers as it does: by columns, single answers and layers."""
    from bmcli.commands.explain import Asked
    from bmcli.commands.explain import explain as command
    from bmcli.runs import cache_folder

    out = console()
    out.explained(command(run, Asked(split, rows, repeats, examples), root, cache_folder(), out.say))


@cli.command()
@click.argument("names", type=RunName(), nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--split", type=click.Choice(["train", "validation", "test"]), help="By default that of the first run's recipe.",
)  # fmt: skip
@click.option("--metric", metavar="NAME", help="What decides; by default the first that all have, as accuracy.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Also write a page, a new file.",
)  # fmt: skip
@runs_option
@output_options
def compare(names: tuple[str, ...], split: str | None, metric: str | None, output: Path | None, root: Path) -> None:
    """Compare runs on the same rows: what differs, what each reaches, what it costs, and which to take."""
    from bmcli.commands.compare import compare as command
    from bmcli.runs import cache_folder

    out = console()
    out.compared(command(names, split, metric, output, root, cache_folder(), out.say), output)


@cli.command()
@click.argument("run", type=RunName())
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="By default the recipe's.")
@runs_option
@output_options
def report(run: str, split: str | None, root: Path) -> None:
    """Write the report of RUN anew: a page with what it was asked, trained on, and how well it does."""
    from bmcli.commands.report import report as command
    from bmcli.runs import cache_folder

    out = console()
    written = command(run, split, root, cache_folder(), out.say).report
    out.result({"report": str(written)})
    out.text(clean(f"wrote {shown_path(written)}"))


@cli.command()
@click.argument("run", type=RunName())
@overrides_argument
@click.option(
    "--formats", metavar="FORMAT,...",
    help="In the place of the recipe's, as saved_model,litert:int8,onnx.",
)  # fmt: skip
@runs_option
@output_options
def export(run: str, overrides: tuple[str, ...], formats: str | None, root: Path) -> None:
    """Write artefacts of RUN that take raw rows, and check each against the model.

    RUN is a run directory, a run's name, or a recipe, whose latest run is taken. Exit code 4: one was rejected.
    """
    from bmcli.commands.export import export as command
    from bmcli.runs import cache_folder

    out = console()
    exported = command(run, overrides, formats, root, cache_folder(), out.say)
    out.exported(exported)
    exported.require_verified()


@cli.command()
@click.argument("targets", nargs=-1, required=True, type=RunName(), metavar="RUN|ARTEFACT...")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Turns of each.")
@click.option(
    "--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg",
    help="A new file for the figure; by default benchmark.svg beside the artefacts.",
)  # fmt: skip
@trust_option
@runs_option
@output_options
def benchmark(targets: tuple[str, ...], repeats: int, figure: Path | None, trust_artefact: bool, root: Path) -> None:
    """Measure size, load time, latency, throughput and memory of artefacts, or of all those of a RUN, in turn."""
    from bmcli.commands.benchmark import measure
    from bmcli.runs import cache_folder

    out = console()
    out.benchmarked(measure(targets, figure, repeats, root, cache_folder(), out.say, trust_artefact))


@cli.command()
@recipe_argument
@overrides_argument
@click.option(
    "--replicas",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="Predict for so many replicas; may be given again.  [default: 1, 2, 8, 64, 1024]",
)
@click.option(
    "--pictures", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
    help="Also draw some training pictures as the network will see them.",
)  # fmt: skip
@output_options
def plan(
    recipe: str, overrides: tuple[str, ...], replicas: tuple[int, ...], pictures: Path | None,
) -> None:  # fmt: skip
    """Show columns, layers and memory of RECIPE; measure a step here, and predict it for more replicas."""
    from bmcli.commands.plan import REPLICAS
    from bmcli.commands.plan import plan as command
    from bmcli.runs import cache_folder

    chosen = sorted(set(replicas)) or REPLICAS
    console().planned(command(recipe, overrides, chosen, cache_folder(), pictures))


@cli.command()
@click.argument("run", type=RunName())
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="A new file for the predictions; by default standard output.",
)  # fmt: skip
@click.option(
    "--format", "chosen", type=click.Choice(["csv", "parquet", "jsonl"]),
    help="Of the predictions; by default what the file's name ends in, or csv, where texts that a spreadsheet would "
    "take for formulas get an apostrophe before them.",
)  # fmt: skip
@click.option("--keep", multiple=True, metavar="COLUMN", help="Pass a column of DATA on; may be given again.")
@click.option("--skip-bad-rows", is_flag=True, help="Leave out rows that cannot be read, and tell how many.")
@trust_option
@runs_option
@output_options
def predict(
    run: str, data: Path, output: Path | None, chosen: Any, keep: tuple[str, ...], skip_bad_rows: bool,
    trust_artefact: bool, root: Path,
) -> None:  # fmt: skip
    """Predict the rows of DATA with RUN, or with the folder of an artefact.

    DATA is a table, a folder of pictures, or - for standard input (CSV or JSON lines).
    """
    from bmcli.commands.predict import Asked
    from bmcli.commands.predict import predict as command
    from bmcli.runs import cache_folder

    out = console()
    if out.as_json and output is None:
        raise click.UsageError("--json prints one object on standard output: give --output FILE for the predictions.")
    asked = Asked(data, output, chosen, tuple(dict.fromkeys(keep)), skip_bad_rows)
    out.predicted(command(run, asked, root, cache_folder(), trust_artefact))


@cli.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--target", metavar="COLUMN", help="The column to predict; by default the one that is clearly meant.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("recipe.yaml"), show_default=True,
    help="The recipe to write; a file that is there is never overwritten.",
)  # fmt: skip
@output_options
def init(data: Path, target: str | None, output: Path) -> None:
    """Look at DATA, a table or a folder of tables or pictures, and write a recipe that trains on it."""
    from bmcli.commands.init import init as command

    console().drafted(command(data, target, output))


@cli.command()
@recipe_argument
@overrides_argument
@click.option("--deep", is_flag=True, help="Also read the data and build the model.")
@output_options
def validate(recipe: str, overrides: tuple[str, ...], deep: bool) -> None:
    """Check RECIPE and print every fault at once."""
    from bmcli.commands.validate import validate as command
    from bmcli.runs import cache_folder

    checked = command(recipe, overrides, cache_folder() if deep else None)
    out = console()
    out.result(checked)
    out.text(f"{clean(recipe)} is valid." + (f" {checked['parameters']:,} parameters." if deep else ""))


@cli.command()
@click.argument("what", type=RecipeName(), metavar="RECIPE|RUN")
@overrides_argument
@click.option("--why", metavar="PATH", help="Say where the value of a dotted path comes from.")
@runs_option
@output_options
def show(what: str, overrides: tuple[str, ...], why: str | None, root: Path) -> None:
    """Print a recipe or run with every default and override resolved, and where each value comes from."""
    from bmcli.commands.show import show as command

    shown = command(what, overrides, why, root)
    out = console()
    out.result(shown.value)
    out.text(clean(shown.text).rstrip("\n"))


@cli.command()
@output_options
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    import json

    from bmcli.recipe.json_schema import recipe_schema

    described = recipe_schema()
    out = console()
    out.result(described)
    out.text(json.dumps(described, indent=2))


@cli.command("ls")
@output_options
def list_recipes() -> None:
    """List the built-in recipes."""
    from itertools import groupby

    from bmcli.commands.recipes import describe_all

    found = describe_all()
    out = console()
    out.result({"recipes": found})
    for folder, entries in groupby(found, key=lambda entry: entry["folder"]):
        out.table("", [folder, "what it does"], [[entry["name"], entry["headline"]] for entry in entries])


@cli.command("cp")
@recipe_argument
@click.argument("destination", type=click.Path(path_type=Path))
@output_options
def copy_recipe(recipe: str, destination: Path) -> None:
    """Copy the built-in RECIPE, and data that comes with it, to DESTINATION."""
    from bmcli.commands.recipes import copy

    written = copy(recipe, destination)
    out = console()
    out.result({"written": [str(path) for path in written]})
    out.text("\n".join(clean(f"wrote {shown_path(path)}") for path in written))


@cli.command("runs")
@click.argument("name", required=False)
@runs_option
@output_options
def list_runs(name: str | None, root: Path) -> None:
    """List the runs, newest last; with NAME only those of that recipe."""
    from bmcli.commands.runs import list_all

    found = list_all(root, name)
    out = console()
    out.result({"runs": found})
    rows = [[run["name"], run["id"], run["state"], run["epochs"], run["headline"], run["seconds"]] for run in found]
    out.table("", ["recipe", "run", "state", "epochs", "metric", "seconds"], rows)
    for run in found:
        if run["fault"]:
            out.say(f"warning: {run['fault']}")
    if not found:
        out.say(f"no runs in {root} yet; `bmcli train digits` makes one.")


@cli.command()
@output_options
def doctor() -> None:
    """Tell versions, devices, extras, and what is missing."""
    from bmcli.commands.doctor import examine

    report = examine()
    out = console()
    out.result({"checks": [vars(check) for check in report]})
    out.table("", ["", "what", "found", "what to do"], [[c.mark, c.name, c.found, c.advice] for c in report])
    if any(check.mark == "missing" for check in report):
        raise click.exceptions.Exit(1)
