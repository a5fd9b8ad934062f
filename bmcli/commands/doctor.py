"""`bmcli doctor`: check packages, devices and folders of this machine, with advice on everything missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bmcli import __version__, plugins, run_folders, trust
from bmcli.errors import BmcliError
from bmcli.native_output import hide_native_stderr
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
    "text": ("sentencepiece", "tensorflow_text"),
}


@dataclass(frozen=True)
class Check:
    """Result of one check; `mark` is ok, note or missing."""

    mark: str
    name: str
    found: str
    advice: str = ""


def check_machine() -> list[Check]:
    """Check versions, devices, extras and folders of this machine."""
    return [
        Check("ok", "bmcli", __version__),
        Check("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_check_package(name) for name in REQUIRED_PACKAGES),
        *_check_devices(),
        *(_check_extra(name, packages) for name, packages in EXTRAS.items()),
        *_check_plugins(),
        _check_cache(locate_cache()),
        _check_key(),
        _check_runs(run_folders.get_default_root()),
    ]


def _check_package(name: str) -> Check:
    try:
        return Check("ok", name, version(name))
    except PackageNotFoundError:
        return Check("missing", name, "not installed", "Install bmcli again: pip install bmcli")


def _check_devices() -> list[Check]:
    if importlib.util.find_spec("tensorflow") is None:
        return [Check("missing", "devices", "unknown without tensorflow")]
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # TensorFlow cannot even be imported then
        return [
            Check("missing", "temporary files", "no writable folder for them", "Set TMPDIR to a writable folder."),
            Check("missing", "devices", "unknown without temporary files"),
        ]
    with hide_native_stderr():  # TensorFlow logs from C++ while it is imported and looks for devices
        from bmcli.distribution import strategy

        facts = strategy.describe_machine()
    accelerators = [device for device in facts["devices"] if not device.startswith("CPU")]
    advice = "" if accelerators else "No GPU or TPU is visible to TensorFlow; training uses the CPU."
    return [
        Check("ok", "processor", f"{facts['processor']}, {facts['cores']} cores"),
        Check("ok" if accelerators else "note", "devices", "; ".join(facts["devices"]), advice),
    ]


def _check_extra(name: str, packages: tuple[str, ...]) -> Check:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        return Check("note", f"extra [{name}]", f"lacks {', '.join(missing)}", f"pip install 'bmcli[{name}]'")
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
    return _check_folder("cache", folder, "Set BMCLI_CACHE to a writable folder.")


def _check_key() -> Check:
    file = trust.locate_key()
    # Sealing creates the key if there is none, so it also shows whether a key can be kept.
    if trust.seal(b"", "doctor") is not None:
        return Check("ok", "key", f"{file}, readable only by you")
    return Check(
        "note",
        "key",
        f"{file} cannot be written, or is not a key readable only by you",
        "Remove it, or set XDG_CONFIG_HOME to a writable folder. Without a key, programs are compiled in every run.",
    )


def _check_runs(folder: Path) -> Check:
    """Check the folder of runs; it is no requirement, since another one may be used where training starts."""
    check = _check_folder("runs", folder, "Before training, set BMCLI_RUNS or --runs to a writable folder.")
    return replace(check, mark="note") if check.mark == "missing" else check


def _check_folder(name: str, folder: Path, advice: str) -> Check:
    # The folder may not exist yet; then its nearest existing parent decides.
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
