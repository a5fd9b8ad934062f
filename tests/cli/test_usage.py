"""Wrong combinations of arguments are usage errors before anything is read."""

from __future__ import annotations

import click
import pytest

from bmcli.cli import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train", "RECIPE or --resume RUN is required."),
        ("tune", "RECIPE, --resume SEARCH or --join SEARCH is required."),
        ("tune --join a --resume b", "--join excludes RECIPE, KEY=VALUE and --resume."),
        ("tune recipe.yaml --join a", "--join excludes RECIPE, KEY=VALUE and --resume."),
        ("distill", "RECIPE or --resume DISTILLATION is required."),
        ("distill recipe.yaml --resume a", "--resume excludes RECIPE and KEY=VALUE."),
        ("evaluate a --split test --data a.csv", "--split and --data exclude each other."),
        ("evaluate a --folds 5 --learning-curve", "--folds and --learning-curve exclude each other."),
        ("evaluate a --folds 5 --split test", "--folds and --learning-curve retrain the recipe and exclude --split"),
        ("evaluate a --learning-curve --data a.csv", "--folds and --learning-curve retrain the recipe and exclude"),
        ("evaluate a --split test --workers 2", "--workers requires --folds or --learning-curve."),
        ("predict a new.csv --json", "--json prints to standard output, so predictions need --output FILE."),
    ],
)
def test_a_wrong_combination_is_a_usage_error(arguments: str, message: str) -> None:
    with pytest.raises(click.UsageError) as error:
        cli.main(arguments.split(), standalone_mode=False)
    assert error.value.format_message().startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train iris --epochs 3", "No such option '--epochs'. Did you mean train.epochs=3?"),
        ("train iris --epochs=3", "No such option '--epochs'. Did you mean train.epochs=3?"),
        ("train iris --batch-size 16 -v", "No such option '--batch-size'. Did you mean train.batch_size=16?"),
        ("tune iris --learning-rate", "No such option '--learning-rate'. Did you mean train.optimizer.learning_rate="),
        ("train iris --stategy mirrored", "No such option '--stategy'. Did you mean '--strategy'?"),
        # A run is not trained again.
        ("evaluate iris --epochs 3", "No such option '--epochs'."),
    ],
)
def test_an_unknown_option_leads_to_the_value_of_the_recipe(arguments: str, message: str) -> None:
    with pytest.raises(click.UsageError) as error:
        cli.main(arguments.split(), standalone_mode=False)
    assert error.value.format_message().startswith(message)
