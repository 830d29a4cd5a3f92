"""Site: which page or file of a folder stands at which address, made when it is asked for.

Every page is made from the files as they are at that moment; nothing can be changed through it.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from atypia import files
from atypia.errors import AtypiaError, InputError
from atypia.progress import Progress, silent
from atypia.report.comparison import comparison_page
from atypia.report.kept import Kept
from atypia.report.page import report_page
from atypia.report.privacy import without_folders
from atypia.report.rendering import template
from atypia.report.results import Results, read_results
from atypia.report.samples import Samples
from atypia.report.thumbnails import NAME as THUMBNAIL
from atypia.report.training_page import training_page
from atypia.report.viewable import kind_of, places_in

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
"""For what has no policy of its own: no scripts, and nothing from anywhere else."""
MOST_DRAWN = 12
"""Thumbnails that are drawn for a page while somebody waits for it, the most abnormal first."""
MOST_KEPT = 4
"""Pages that are kept of single scans, and of all else; one may fill many megabytes."""
WRITTEN = {
    "results": "report.html",
    "comparison": "index.html",
    "prepared scans": "quality.html",
    "model": "training.html",
}
"""Pages that stand in a folder by what it holds; here they are made anew, with their policy."""

HtmlMaker = Callable[[Path], str]


@dataclass(frozen=True)
class Answer:
    """What a request gets: text made for it, or a file as it is; `policy` is the page's own."""

    status: HTTPStatus
    text: str = ""
    file: Path | None = None
    location: str = ""
    policy: str = POLICY


class Site:
    """The pages and files of one folder, by the path of a request.

    Parameters
    ----------
    folder
        Nothing outside of it is shown.
    samples
        Gives the restorations to show on the training page, if the folder is a model.
    """

    def __init__(self, folder: Path, samples: Callable[[], Samples] | None = None) -> None:
        self.folder = folder.resolve()
        self.samples = samples
        # Drawing is not safe in several threads at a time, and would only be slower.
        self._drawing = threading.Lock()
        self._pages = Kept[str](MOST_KEPT)
        self._subjects = Kept[str](MOST_KEPT)
        self._results = Kept[Results](1)

    def prepare(self, *, workers: int | None = 1, progress: Progress = silent) -> None:
        """Draw all thumbnails, if the folder holds results, and keep the page of all scans.

        A page that is made when it is asked for gets `MOST_DRAWN` new ones, so that nobody waits.

        Parameters
        ----------
        workers
            Processes that draw; None for one a core.
        """
        if kind_of(self.folder) != "results":
            return
        with self._drawing:
            self._pages.get(
                self.folder,
                _stamp(self.folder),
                lambda: report_page(self.folder, _address, workers=workers, progress=progress),
            )

    def answer(self, target: str) -> Answer:
        """Answer a request for a path; whatever goes wrong comes as a page that says what."""
        try:
            return self._answer(target)
        except AtypiaError as error:
            return self._problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception as error:  # a page must not take the server down, nor show a traceback
            told = f"This page cannot be made ({type(error).__name__}: {error})."
            return self._problem(HTTPStatus.INTERNAL_SERVER_ERROR, told)

    def _answer(self, target: str) -> Answer:
        place = self._place(target)
        if place is None:
            return self.missing()
        path = unquote(urlsplit(target).path)
        subject = self._subject(place)
        if subject is not None:
            whole = place.name == "index.html" or path.endswith("/")
            return self._page_of_scan(*subject, None if whole else self._address(place))
        if place.is_file():
            if WRITTEN.get(kind_of(place.parent) or "") == place.name:
                return Answer(HTTPStatus.FOUND, location=self._address(place.parent))
            return Answer(HTTPStatus.OK, file=place)
        if not place.is_dir():
            return self.missing()
        kind = kind_of(place)
        if kind is None and place != self.folder:
            return self.missing()
        if not path.endswith("/"):
            return Answer(HTTPStatus.MOVED_PERMANENTLY, location=self._address(place))
        if kind is None:
            return self._list_of_places()
        return self._page(place, kind)

    def _address(self, folder: Path) -> str:
        parts = folder.relative_to(self.folder).parts
        return "/" + "".join(f"{quote(part, safe='')}/" for part in parts)

    def _place(self, target: str) -> Path | None:
        """Give the file or folder that is asked for; None if it must not be shown."""
        parts = [part for part in unquote(urlsplit(target).path).split("/") if part]
        # A name of dots could lead out; what begins with a dot is unfinished or hidden.
        if any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        place = self.folder.joinpath(*parts).resolve()
        return place if place.is_relative_to(self.folder) else None

    def _subject(self, place: Path) -> tuple[Path, str] | None:
        """Give results and scan if a path is that of a subject page."""
        if place.is_dir() or place.name == "index.html" or not place.exists():
            at = place.parent if place.name == "index.html" else place
            results = at.parent.parent
            inside = at.parent.name == "scans" and results.is_relative_to(self.folder)
            if inside and kind_of(results) == "results":
                return results, at.name
        return None

    def _page(self, folder: Path, kind: str) -> Answer:
        make = self._makers()[kind]
        with self._drawing:
            if kind == "model":  # what it shows lies deeper than the stamp looks
                text = make(folder)
            else:
                text = self._pages.get(folder, _stamp(folder), lambda: make(folder))
        return Answer(HTTPStatus.OK, text=text, policy=_policy_of(text))

    def _page_of_scan(self, results: Path, scan: str, moved: str | None) -> Answer:
        with self._drawing:
            stamp = _stamp(results)
            found = self._results.get(results, stamp, lambda: read_results(results, keep=_needed))
            if scan not in {entry.id for entry in (*found.done, *found.failed)}:
                return self.missing(f"The results hold no scan {scan!r}.")
            if moved is not None:
                return Answer(HTTPStatus.MOVED_PERMANENTLY, location=moved)
            text = self._subjects.get(
                results / "scans" / scan, stamp, lambda: _subject_page(found, scan)
            )
        return Answer(HTTPStatus.OK, text=text, policy=_policy_of(text))

    def _makers(self) -> Mapping[str, HtmlMaker]:
        return {
            "results": _cohort_page,
            "comparison": comparison_page,
            "prepared scans": _quality_page,
            "model": self._training_page,
        }

    def _training_page(self, folder: Path) -> str:
        shown = self.samples() if self.samples is not None and folder == self.folder else None
        return training_page(folder, samples=shown, refreshing=True)

    def _list_of_places(self) -> Answer:
        rows = [(f"{quote(p)}/", p, kind) for p, kind in places_in(self.folder).items()]
        return _listed(self.folder.name, "What this folder holds.", rows)

    def missing(self, told: str = "There is nothing at this address.") -> Answer:
        """Give the page for what is not there, or must not be shown."""
        return self._problem(HTTPStatus.NOT_FOUND, told)

    def _problem(self, status: HTTPStatus, told: str) -> Answer:
        title = "Not found" if status == HTTPStatus.NOT_FOUND else "This cannot be shown"
        text = template("notice.html.j2").render(
            title=title, told=without_folders(told), rows=[], back="/"
        )
        return Answer(status, text=text)


def _policy_of(text: str) -> str:
    """Give the policy that a page of ours states about itself, else the strict one."""
    head = text.partition("</head>")[0]
    stated = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"<>]+)">', head)
    return html.unescape(stated[1]) if stated else POLICY


def _stamp(folder: Path) -> object:
    """Give what changes when the files behind a page do."""
    paths = [*folder.glob("*.json"), *folder.glob("*.html"), *folder.glob("scans/*/*")]
    found = []
    for path in sorted(paths):
        # Thumbnails are written while the page is made, and belong to what is there anyway.
        if path.name == THUMBNAIL or path.name.startswith("."):
            continue
        try:
            status = path.stat()
        except OSError:
            continue  # removed in this very moment
        found.append((path, status.st_mtime_ns, status.st_size))
    return found


def _cohort_page(results: Path) -> str:
    return report_page(results, _address, most_drawn=MOST_DRAWN)


def _address(place: Path) -> str:
    return f"scans/{quote(place.name, safe='')}/"


def _needed(description: dict[str, Any]) -> dict[str, Any]:
    """Keep of other scans what the page of one shows: thousands of them fill the memory."""
    return {name: description.get(name) for name in ("condition", "score", "threshold")}


def _subject_page(found: Results, scan: str) -> str:
    from atypia.report.subject_page import subject_page

    done = tuple(
        replace(entry, description=files.read_json(entry.place / "scan.json"))
        if entry.id == scan
        else entry
        for entry in found.done
    )
    return _with_link(
        subject_page(replace(found, done=done), scan), "../../", "Back to all results"
    )


def _quality_page(folder: Path) -> str:
    page = folder / "quality.html"
    if not page.is_file():
        raise InputError(folder, "holds no quality.html", "Run the same `atypia prepare` again")
    return page.read_text("utf-8")


def _with_link(text: str, target: str, words: str) -> str:
    link = f'<p class="note"><a href="{target}">{html.escape(words)}</a></p>'
    return text.replace("<main>", f"<main>\n{link}", 1)


def _listed(title: str, told: str, rows: list[tuple[str, str, str]], back: str = "") -> Answer:
    text = template("notice.html.j2").render(title=title, told=told, rows=rows, back=back)
    return Answer(HTTPStatus.OK, text=text)
