"""What sites answered in a session of secure aggregation, on disk, in case a crash cuts it.

A session that is taken up again is no second release: every site has masked one vector in it, and
says to the same question what it said before. A new session would be one, because two sums over
different survivors show their difference.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.app import ConfigRecord, RecordDict

from fedtl.errors import CacheError
from fedtl.home import unwritable, write_atomic
from fedtl.transport._identity import records_from_bytes, records_to_bytes

MOST_TRIES = 3
"""Times that a session is taken up before a new one is begun, which sites have to pay for."""
_SESSION = "session.json"


class Journal:
    """The session that is going on, stage by stage.

    Parameters
    ----------
    folder : Path
        Of the run's checkpoint; holds one session at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def session(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return the session that belongs to a key; one for another key is forgotten.

        Parameters
        ----------
        key : str
            Stands for what is asked of whom.
        make : callable
            Returns a new session.

        Raises
        ------
        CacheError
            What is on disk is damaged, or it cannot be written.
        """
        path = self._folder / _SESSION
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["key"] == key and found["failed"] < MOST_TRIES:
                return bytes.fromhex(found["session"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error
        self.forget()
        session = make()
        self._write(key, session, 0)
        return session

    def forget(self) -> None:
        """Forget the session."""
        try:
            shutil.rmtree(self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def answers(self, stage: str) -> dict[str, RecordDict | str] | None:
        """Return what sites answered in a stage, by name: records, or a failure code."""
        path = self._folder / stage
        try:
            kept = records_from_bytes(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _damaged(path) from error
        return {name: _answer(record, path) for name, record in kept.items()}

    def keep(self, stage: str, answers: Mapping[str, RecordDict | str]) -> None:
        """Write what sites answered in a stage."""
        kept = RecordDict({name: _record(answer) for name, answer in answers.items()})
        body = records_to_bytes(kept)
        write_atomic(self._folder / stage, lambda file: file.write(body))

    def failed(self, stage: str, *, masked: bool) -> None:
        """Note that too few answered in a stage; it will be asked again.

        Parameters
        ----------
        masked : bool
            Whether sites may have sent masked vectors; before that a new session costs nothing.
        """
        if not masked:
            self.forget()
            return
        (self._folder / stage).unlink(missing_ok=True)
        found = json.loads((self._folder / _SESSION).read_text("utf-8"))
        self._write(found["key"], bytes.fromhex(found["session"]), found["failed"] + 1)

    def _write(self, key: str, session: bytes, failed: int) -> None:
        text = json.dumps({"key": key, "session": session.hex(), "failed": failed})
        write_atomic(self._folder / _SESSION, lambda file: file.write(text.encode()))


def _record(answer: RecordDict | str) -> ConfigRecord:
    if isinstance(answer, str):
        return ConfigRecord({"code": answer})
    return ConfigRecord({"records": records_to_bytes(answer)})


def _answer(record: object, path: Path) -> RecordDict | str:
    values = dict(record.items()) if isinstance(record, ConfigRecord) else {}
    code, body = values.get("code"), values.get("records")
    if isinstance(code, str):
        return code
    if not isinstance(body, bytes):
        raise _damaged(path)
    return records_from_bytes(body)


def _damaged(path: Path) -> CacheError:
    return CacheError(
        f"'{path}' is damaged.",
        next_step="Delete the folder it lies in: the round is asked for anew, and sites pay for it "
        "again.",
    )
