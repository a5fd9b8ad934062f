"""Distinguish files of this user from foreign ones: a private key for seals, and checks of folder permissions.

A checksum detects damage only, since an attacker who changes a file can change its checksum too. A seal (HMAC, RFC
2104) cannot be made without the key, so it proves that a process of this user wrote the content.
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
_ALL_USERS = ["0", "0", str(2**32 - 1)]  # the user map outside of user namespaces


def seal(content: bytes, purpose: str) -> str | None:
    """Seal content with the key of this user.

    Args:
        purpose: Use of the content; a seal is not valid for another purpose.

    Returns:
        HMAC-SHA256 as hexadecimal digits, or None if no key can be stored.
    """
    key = _read_key(create=True)
    return None if key is None else _compute_hmac(key, content, purpose)


def is_sealed(content: bytes, purpose: str, expected_seal: object) -> bool:
    """Whether a process of this user sealed this content for this purpose."""
    key = _read_key(create=False)
    return (
        key is not None
        and isinstance(expected_seal, str)
        and hmac.compare_digest(_compute_hmac(key, content, purpose), expected_seal)
    )


def locate_key() -> Path:
    """The path of this user's key."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "bmcli" / "key"


def explain_foreign_write_access(folder: Path) -> str:
    """Explain why users other than this one and root can change the content of a folder; empty if they cannot.

    Its parents are checked too, because users who can write there can replace the folder by another. A folder that does
    not exist yet is as safe as its parents.

    Raises:
        OSError: The permissions of a folder cannot be read.
    """
    path = folder.absolute()
    for each in (path, *path.parents):
        try:
            status = each.lstat()
        except FileNotFoundError:
            continue
        if status.st_uid not in (0, os.geteuid()) and (each == path or not _is_unmapped(status.st_uid)):
            return f"{each} belongs to another user (uid {status.st_uid})"
        if stat.S_ISLNK(status.st_mode):
            if reason := explain_foreign_write_access(Path(os.path.realpath(each, strict=True))):
                return reason
            continue
        # In a sticky folder such as /tmp, users can rename only their own entries: a folder below it is safe, but files
        # directly in it are not.
        is_sticky_parent = each != path and status.st_mode & stat.S_ISVTX
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others and not is_sticky_parent and not (others == stat.S_IWGRP and _is_private_group(status.st_gid, each)):
            return f"{each} is writable by other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _is_unmapped(uid: int) -> bool:
    """Whether a user number represents all users without a number in this user namespace.

    In rootless containers, root of the host, who owns the top folders of every path, is one of these users.
    """
    with contextlib.suppress(OSError, ValueError):
        mapped = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
        overflow = Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")
        return mapped != _ALL_USERS and uid == int(overflow)
    return False


def _is_private_group(gid: int, folder: Path) -> bool:
    """Whether a group has this user as its only member, as on many systems that create folders with mode 0775.

    The group of root is never private, because containers put arbitrary users into it. Nor is a group private if there
    is an access control list: the group bits of the mode are then the mask of all users and groups in that list.
    """
    with contextlib.suppress(KeyError, OSError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        is_own = user.pw_uid != 0 and user.pw_gid == gid and group.gr_name == user.pw_name
        return is_own and set(group.gr_mem) <= {user.pw_name} and not _has_access_list(folder)
    return False


def _has_access_list(folder: Path) -> bool:
    return sys.platform == "linux" and "system.posix_acl_access" in os.listxattr(folder)


def _compute_hmac(key: bytes, content: bytes, purpose: str) -> str:
    return hmac.new(key, purpose.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def _read_key(create: bool) -> bytes | None:
    file = locate_key()
    with contextlib.suppress(OSError):
        if create and not file.exists():
            _create_key(file)
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(opened.fileno())
            is_private = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
            content = opened.read(_KEY_BYTES + 1) if is_private else b""
        return content if len(content) == _KEY_BYTES else None
    return None


def _create_key(file: Path) -> None:
    """Create the key in one step, unless another process is faster."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".key-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(_KEY_BYTES))
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)  # unlike a rename, fails if the key exists
    finally:
        temporary.unlink(missing_ok=True)
