"""Profiling of unknown data, for `bmcli init`: source, columns and their roles."""
