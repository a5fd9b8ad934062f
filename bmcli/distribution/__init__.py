"""Devices, replicas and worker processes that a training runs on."""
