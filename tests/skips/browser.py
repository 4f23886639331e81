"""Pages in a real browser, where there is one."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium")


@dataclass
class Page(HTMLParser):
    """What a page holds: its elements, (tag, attributes, text directly in it), in order."""

    elements: list[tuple[str, dict[str, str], list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said: list[str] = []
        self.elements.append((tag, {k: v or "" for k, v in attrs}, said))
        if tag not in ("meta", "track"):
            self._open.append((tag, said))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][1].append(data)

    def of(self, tag: str) -> list[tuple[dict[str, str], str]]:
        """(attributes, text) of the elements with this tag."""
        return [(attributes, "".join(said).strip()) for name, attributes, said in self.elements if name == tag]

    @property
    def title(self) -> str:
        return self.of("title")[0][1]


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def told_by(html: str, folder: Path, timeout_s: float = 60.0) -> Any:
    """What a page's script gives to `tell(value)`, in Chromium."""
    assert BROWSER is not None
    told: queue.Queue[bytes] = queue.Queue()

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        tell = f"const tell=v=>fetch('{url}',{{method:'POST',mode:'no-cors',body:JSON.stringify(v)}});"
        file = folder / "page.html"
        file.write_text(f"<script>{tell}</script>{html}")
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        command += ["--remote-debugging-port=0", file.as_uri()]  # the port keeps it open until it is killed
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return json.loads(told.get(timeout=timeout_s))
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
