"""One supervised process, and supervisord's configuration for a folder of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedtl.errors import ConfigError
from fedtl.home import unwritable, write_atomic

CONFIG, SOCKET, PID_FILE, LOGS = "services.conf", "services.sock", "services.pid", "logs"
_LOG_LIMIT = "10MB"
_LOG_COPIES = 5

_HEAD = """\
# Written by fedtl at each start; changes are lost.
[supervisord]
logfile=logs/services.log
logfile_maxbytes={limit}
logfile_backups={copies}
pidfile=services.pid
umask=077
strip_ansi=true
nocleanup=true
{user}
[unix_http_server]
file=services.sock
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
# as many retries as there are seconds in a year: each waits a second longer than the one before
_PROGRAM = """
[program:{name}]
command={command}
priority={priority}
startsecs={start}
startretries=31536000
autorestart=true
stopwaitsecs={stop}
stopasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}.log
stdout_logfile_maxbytes={limit}
stdout_logfile_backups={copies}
{user}"""


@dataclass(frozen=True, slots=True)
class Service:
    """One process that is started again whenever it ends.

    Attributes
    ----------
    name : str
        Of letters, digits and dashes; its log is ``logs/NAME.log``.
    command : tuple of str
        Program and arguments.
    environment : mapping
        Added to the environment of whoever starts the services.
    user : str
        Unix user it runs as, if root starts it; empty: the same user.
    start_seconds : int
        How long it has to live before it counts as started.
    stop_seconds : int
        How long after SIGTERM it is killed, its process group with it.
    ready : callable, optional
        Says whether it does its work; :func:`start` waits for that.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    start_seconds: int = 1
    stop_seconds: int = 10
    ready: Callable[[], bool] | None = None


def write_config(folder: Path, services: Sequence[Service]) -> None:
    """Write ``services.conf`` and make ``logs/``.

    Raises
    ------
    CacheError
        The folder cannot be written.
    ConfigError
        ``services.path``: a word of a command holds control characters.
    """
    try:
        (folder / LOGS).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise unwritable(folder / LOGS, error) from error
    text = _HEAD.format(limit=_LOG_LIMIT, copies=_LOG_COPIES, user=_user_line())
    for at, service in enumerate(services):
        user = f"user={service.user}\n" if service.user else ""
        text += _PROGRAM.format(
            name=service.name,
            command=_command(service),
            priority=at + 1,
            start=service.start_seconds,
            stop=service.stop_seconds,
            limit=_LOG_LIMIT,
            copies=_LOG_COPIES,
            user=user,
        )
    write_atomic(folder / CONFIG, lambda file: file.write(text.encode()), mode=0o600)


def _user_line() -> str:
    return "user=root\n" if os.geteuid() == 0 else ""  # else supervisord warns


def _command(service: Service) -> str:
    """Return a command line that also sets the environment.

    ``env`` does, because supervisord's own ``environment=`` cannot express every value. Where
    there is ``setpriv``, a service gets SIGTERM if supervisord is killed.
    """
    dies = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
    words = ("env", *(f"{k}={v}" for k, v in service.environment.items()), *dies, *service.command)
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Quote a word for supervisord: shell-like, ``%`` doubled, and no comment sign after a blank.

    Examples
    --------
    >>> print(_quoted("100% sure"), _quoted("a ;b"))
    '100%% sure' 'a '';b'
    """
    if re.search(r"[\x00-\x1f\x7f]", word):
        raise ConfigError(
            f"{word!r} holds a control character, which no service's command or path may.",
            next_step="Use another folder or value.",
            code="services.path",
        )
    return re.sub(r"(?<=\s)(?=[;#])", "''", shlex.quote(word)).replace("%", "%%")
