from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Nothing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Task(_message.Message):
    __slots__ = ("run", "kind", "content")
    RUN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    run: int
    kind: str
    content: bytes
    def __init__(self, run: _Optional[int] = ..., kind: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("run", "kind", "content")
    RUN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    run: int
    kind: str
    content: bytes
    def __init__(self, run: _Optional[int] = ..., kind: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("content", "failure")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    failure: str
    def __init__(self, content: _Optional[bytes] = ..., failure: _Optional[str] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("site", "version", "busy", "waiting", "answered", "refused", "uptime_seconds", "state", "phase", "done", "total", "backbone", "architecture")
    SITE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    site: str
    version: str
    busy: str
    waiting: int
    answered: int
    refused: int
    uptime_seconds: float
    state: str
    phase: str
    done: int
    total: int
    backbone: str
    architecture: str
    def __init__(self, site: _Optional[str] = ..., version: _Optional[str] = ..., busy: _Optional[str] = ..., waiting: _Optional[int] = ..., answered: _Optional[int] = ..., refused: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., state: _Optional[str] = ..., phase: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., backbone: _Optional[str] = ..., architecture: _Optional[str] = ...) -> None: ...
