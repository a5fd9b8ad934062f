"""bmcli trains, evaluates and keeps Keras models described by one YAML recipe."""

__version__ = "0.1.0"
