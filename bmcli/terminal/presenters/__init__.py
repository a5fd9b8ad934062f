"""Presenters, one module for each type of result.

Each has `to_json`, which makes the object of `--json`, and `print_result`, which prints the result as text; together
they are what `Console.present` takes. Types of results are imported for the type checker alone: a presenter must not
make a command import what made the result.
"""
