"""Formats. Each module writes one."""
