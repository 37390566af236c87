"""A small forward proxy: CONNECT and nothing else, as hospitals have."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Any


class ConnectProxy:
    """Listens on loopback until the block is left; ``asked`` holds what it was asked for."""

    def __init__(self, *, answer: bytes = b"200 Connection established") -> None:
        self.asked: list[str] = []
        self._answer = answer
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ear.getsockname()[1]}"

    def __enter__(self) -> ConnectProxy:
        self._ear = socket.create_server(("127.0.0.1", 0))
        self._ear.settimeout(0.2)
        self._spawn(self._listen)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._ear.close()

    def _spawn(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                line, _ = self._ear.accept()
                self._spawn(self._serve, line)

    def _serve(self, line: socket.socket) -> None:
        with line:
            line.settimeout(10)
            asked = b""
            while b"\r\n\r\n" not in asked:
                if not (some := line.recv(4096)):
                    return
                asked += some
            method, target, _ = asked.split(b" ", 2)
            self.asked.append(f"{method.decode()} {target.decode()}")
            line.sendall(b"HTTP/1.1 " + self._answer + b"\r\n\r\n")
            if not self._answer.startswith(b"200"):
                return
            host, _, port = target.decode().rpartition(":")
            with suppress(OSError), socket.create_connection((host, int(port))) as far:
                self._carry(line, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        ends = {near: far, far: near}
        while not self._stopping.is_set():
            for end in select.select(list(ends), [], [], 0.2)[0]:
                if not (some := end.recv(65536)):
                    return
                ends[end].sendall(some)
