"""`bmcli doctor`: whether this machine has what bmcli needs, and how to get what it lacks."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bmcli import __version__, plugins, trust
from bmcli.console import hide_native_stderr
from bmcli.errors import BmcliError
from bmcli.runs import locate_cache, require_private

REQUIRED_PACKAGES = (
    "tensorflow",
    "keras",
    "keras-tuner",
    "tensorboard",
    "click",
    "rich",
    "pyyaml",
    "pydantic",
    "pyarrow",
    "scikit-learn",
    "matplotlib",
    "jinja2",
    "numpy",
)
EXTRAS = {
    "test": ("pytest", "hypothesis", "jsonschema", "ruff", "mypy"),
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino",),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at: `mark` is ok, note or missing."""

    mark: str
    name: str
    found: str
    advice: str = ""


def check_machine() -> list[Check]:
    """Versions, devices, extras and folders of this machine."""
    return [
        Check("ok", "bmcli", __version__),
        Check("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_check_package(name) for name in REQUIRED_PACKAGES),
        *_check_devices(),
        *(_check_extra(name, packages) for name, packages in EXTRAS.items()),
        *_check_plugins(),
        _check_cache(locate_cache()),
        _check_key(),
        _check_folder("runs", Path(os.environ.get("BMCLI_RUNS", "runs")), "Give another folder with --runs."),
    ]


def _check_package(name: str) -> Check:
    try:
        return Check("ok", name, version(name))
    except PackageNotFoundError:
        return Check("missing", name, "not installed", "Install bmcli again: pip install bmcli")


def _check_devices() -> list[Check]:
    if importlib.util.find_spec("tensorflow") is None:
        return [Check("missing", "devices", "unknown without tensorflow")]
    with hide_native_stderr():
        from bmcli.distribution import strategy

        described = strategy.describe_machine()
    accelerators = [device for device in described["devices"] if not device.startswith("CPU")]
    advice = "" if accelerators else "No GPU or TPU is visible to TensorFlow; training uses the CPU."
    return [
        Check("ok", "processor", f"{described['processor']}, {described['cores']} cores"),
        Check("ok" if accelerators else "note", "devices", "; ".join(described["devices"]), advice),
    ]


def _check_extra(name: str, packages: tuple[str, ...]) -> Check:
    lacking = [package for package in packages if importlib.util.find_spec(package) is None]
    if lacking:
        return Check("note", f"extra [{name}]", f"lacks {', '.join(lacking)}", f"pip install 'bmcli[{name}]'")
    return Check("ok", f"extra [{name}]", "installed")


def _check_plugins() -> list[Check]:
    try:
        origins = plugins.list_plugins()
        for origin in origins:
            plugins.load_part(origin.part)
    except BmcliError as error:
        return [Check("missing", "plug-in", fault.message, fault.suggestion) for fault in error.faults]
    return [Check("ok", f"plug-in {each.part}", f"{each}, sha256 {each.sha256[:12]}") for each in origins]


def _check_cache(folder: Path) -> Check:
    try:
        require_private(folder)
    except BmcliError as error:
        (fault,) = error.faults
        return Check("missing", "cache", fault.message, fault.suggestion)
    return _check_folder("cache", folder, "Set BMCLI_CACHE to a folder you may write.")


def _check_key() -> Check:
    file = trust.locate_key()
    if trust.seal(b"", "doctor") is not None:
        return Check("ok", "key", f"{file}, which only you can read")
    return Check(
        "note",
        "key",
        f"{file} cannot be made, or is no key that only you can read",
        "Remove it, or set XDG_CONFIG_HOME to a folder you may write. Without it programs are compiled in every run.",
    )


def _check_folder(name: str, folder: Path, advice: str) -> Check:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Check("missing", name, f"{folder} cannot be written", advice)
    mark = "ok" if free > 2**30 else "note"
    return Check(
        mark,
        name,
        f"{folder}, {free / 2**30:.1f} GiB free",
        "" if mark == "ok" else "Less than 1 GiB is free.",
    )
