"""Serving: the site of a folder for browsers of this machine only."""

from __future__ import annotations

import mimetypes
import os
import shutil
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from atypia import __version__
from atypia.errors import SettingsError
from atypia.report.samples import Samples
from atypia.report.site import Answer, Site
from atypia.report.viewable import require_viewable

ADDRESS = "127.0.0.1"
HOSTS = frozenset({"127.0.0.1", "localhost"})
"""Names by which a browser may ask: another one means that a foreign site has led it here."""
ALWAYS = ("base-uri", "form-action", "frame-ancestors")
"""What no page may do; a page's own policy may say so already."""


class Server(ThreadingHTTPServer):
    """One folder's site."""

    daemon_threads = True

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        super().__init__((ADDRESS, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, refuses what is not ours to answer, and writes the answer."""

    server: Server
    server_version = f"atypia/{__version__}"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with headers and content."""
        self._reply(content=True)

    def do_HEAD(self) -> None:
        """Answer with headers only."""
        self._reply(content=False)

    def _reply(self, content: bool) -> None:
        if not _is_local(self.headers.get_all("Host") or []):
            self.send_error(HTTPStatus.FORBIDDEN, "Host is not this machine")
            return
        answer = self.server.site.answer(self.path)
        try:
            if answer.file is not None:
                self._file(answer, answer.file, content)
            else:
                self._text(answer, content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser has gone on

    def _text(self, answer: Answer, content: bool) -> None:
        data = answer.text.encode("utf-8")
        self.send_response(answer.status)
        if answer.location:
            self.send_header("Location", answer.location)
        self._headers("text/html; charset=utf-8", len(data), answer.policy)
        if content:
            self.wfile.write(data)

    def _file(self, answer: Answer, path: Path, content: bool) -> None:
        try:
            stream = path.open("rb")
        except OSError:
            self._text(self.server.site.missing("This file cannot be read."), content)
            return
        with stream:
            self.send_response(answer.status)
            # Of what is open: the file may be replaced in this moment.
            size = os.fstat(stream.fileno()).st_size
            self._headers(_type_of(path), size, answer.policy)
            if content:
                shutil.copyfileobj(stream, self.wfile)

    def _headers(self, kind: str, size: int, policy: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        known = {part.split()[0] for part in policy.split(";") if part.strip()}
        more = "".join(f"; {name} 'none'" for name in ALWAYS if name not in known)
        self.send_header("Content-Security-Policy", policy + more)
        self.end_headers()

    def end_headers(self) -> None:
        """Add what every answer tells, refusals included."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
        """Say nothing about each request."""


def serve(folder: Path, port: int = 0, *, samples: Callable[[], Samples] | None = None) -> Server:
    """Open a server for a folder on 127.0.0.1; `serve_forever` runs it.

    Parameters
    ----------
    port
        0 for any that is free.
    samples
        See `Site`.

    Raises
    ------
    InputError
        Nothing of the folder can be shown.
    SettingsError
        The port cannot be used.
    """
    require_viewable(folder)
    try:
        return Server(Site(folder, samples), port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"--port {port}", f"cannot be used ({reason})", "Choose another, or leave it out"
        ) from error


def address_of(server: Server) -> str:
    """Give the URL of a server's first page."""
    return f"http://{ADDRESS}:{server.server_address[1]}/"


def _is_local(hosts: list[str]) -> bool:
    if len(hosts) != 1:
        return False
    try:
        # The port may be another one: that of a tunnel from the reader's machine.
        return urlsplit(f"//{hosts[0]}").hostname in HOSTS
    except ValueError:
        return False


def _type_of(path: Path) -> str:
    kind, encoding = mimetypes.guess_type(path.name)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
