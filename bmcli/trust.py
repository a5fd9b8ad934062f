"""Tell what this user made from what others did: a key that only the user can read, and folders nobody else writes.

A digest shows that a file was damaged; whoever changes the file on purpose changes the digest too. A seal (HMAC, RFC
2104) cannot be made without the key, so it shows that a process of this user made the content.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import hmac
import os
import pwd
import secrets
import stat
import sys
from pathlib import Path

_KEY_BYTES = 32
_ALL_USERS = ["0", "0", str(2**32 - 1)]  # the map of users outside of user namespaces


def seal(content: bytes, purpose: str) -> str | None:
    """Seal content with the key of this user.

    Args:
        purpose: What the content is for; a seal for one purpose is none for another.

    Returns:
        HMAC-SHA256 as hexadecimal digits, or None where no key can be kept.
    """
    key = _read_key(create=True)
    return None if key is None else _compute_hmac(key, content, purpose)


def is_sealed(content: bytes, purpose: str, expected_seal: object) -> bool:
    """Whether a process of this user sealed exactly this content for this purpose."""
    key = _read_key(create=False)
    return (
        key is not None
        and isinstance(expected_seal, str)
        and hmac.compare_digest(_compute_hmac(key, content, purpose), expected_seal)
    )


def locate_key() -> Path:
    """Where the key of this user lies."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "bmcli" / "key"


def explain_foreign_write_access(folder: Path) -> str:
    """Why users other than this one (and root) could change what a folder holds, or an empty text.

    The folders above count too: whoever writes those can put another folder in its place. A folder that is not there
    yet is as safe as those above it.

    Raises:
        OSError: A folder cannot be looked at.
    """
    path = folder.absolute()
    for place in (path, *path.parents):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        if found.st_uid not in (0, os.geteuid()) and (place == path or not _is_unmapped(found.st_uid)):
            return f"{place} belongs to another user (uid {found.st_uid})"
        if stat.S_ISLNK(found.st_mode):
            if reason := explain_foreign_write_access(Path(os.path.realpath(place, strict=True))):
                return reason
            continue
        # In a sticky folder, as /tmp, nobody renames what belongs to others; its own content is not safe there.
        sticky = place != path and found.st_mode & stat.S_ISVTX
        open_to = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if open_to and not sticky and not (open_to == stat.S_IWGRP and _is_private_group(found.st_gid, place)):
            return f"{place} is writable by other users (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _is_unmapped(uid: int) -> bool:
    """Whether a number stands for all users that have none in this user namespace.

    In containers that no root started the machine's root, who owns the first folders of every path, is one of them.
    """
    with contextlib.suppress(OSError, ValueError):
        mapped = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
        overflow = Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")
        return mapped != _ALL_USERS and uid == int(overflow)
    return False


def _is_private_group(gid: int, place: Path) -> bool:
    """Whether a group is the one that many systems give each user alone, where folders are made with mode 0775.

    Root has none: containers put arbitrary users into its group. Nor where a list of access rights (ACL) may name
    others, whose rights stand in the place of the group's in the mode.
    """
    with contextlib.suppress(KeyError, OSError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        own = user.pw_uid != 0 and user.pw_gid == gid and group.gr_name == user.pw_name
        return own and set(group.gr_mem) <= {user.pw_name} and not _has_access_list(place)
    return False


def _has_access_list(place: Path) -> bool:
    return sys.platform == "linux" and "system.posix_acl_access" in os.listxattr(place)


def _compute_hmac(key: bytes, content: bytes, purpose: str) -> str:
    return hmac.new(key, purpose.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def _read_key(create: bool) -> bytes | None:
    file = locate_key()
    with contextlib.suppress(OSError):
        if create and not file.exists():
            _create_key(file)
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            found = os.fstat(opened.fileno())
            private = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
            content = opened.read(_KEY_BYTES + 1) if private else b""
        return content if len(content) == _KEY_BYTES else None
    return None


def _create_key(file: Path) -> None:
    """Makes the key unless another process is faster; nobody ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file.with_name(f".key-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(_KEY_BYTES))
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(aside, file)
    finally:
        aside.unlink(missing_ok=True)
