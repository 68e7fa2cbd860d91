"""A server of one file or several, at which what goes wrong can be set."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves ``content`` under every path, or the content of each path in ``files``."""

    def __init__(self, content: bytes, files: dict[str, bytes] | None = None) -> None:
        self.content = content
        self.files = files
        self.ranges = True
        self.most_bytes: int | None = None  # of an answer, before the connection breaks
        self.statuses: list[int] = []  # of the next answers
        self.asked: list[str | None] = []  # ranges
        self.paths: list[str] = []  # asked for
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.folder = f"http://127.0.0.1:{self._http.server_port}"
        self.url = f"{self.folder}/trace.csv"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        self.paths.append(handler.path)
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        content = self.content if self.files is None else self.files.get(handler.path)
        if content is None:
            handler.send_error(404)
            return
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if first >= len(content):
            handler.send_error(416)
            return
        body = content[first:]
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.most_bytes])
