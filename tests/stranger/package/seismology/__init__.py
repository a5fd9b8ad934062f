"""Traces of a seismograph: each is a series of readings, and a person marks every reading."""
