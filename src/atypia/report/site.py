"""Site: which page or file of a folder stands at which address, made when it is asked for.

Every page is made from the files as they are at that moment; nothing can be changed through it.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from atypia.errors import AtypiaError, InputError
from atypia.report.comparison import comparison_page
from atypia.report.page import report_page
from atypia.report.rendering import template
from atypia.report.results import read_results
from atypia.report.samples import Samples
from atypia.report.training_page import is_model, training_page
from atypia.runs.preparing import RECORD

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
"""For what has no policy of its own: no scripts, and nothing from anywhere else."""
DEPTH = 3
"""How far below a folder results and models are looked for."""
MOST_PLACES = 500

HtmlMaker = Callable[[Path], str]


@dataclass(frozen=True)
class Answer:
    """What a request gets: text made for it, or a file as it is; `policy` is the page's own."""

    status: HTTPStatus
    text: str = ""
    file: Path | None = None
    location: str = ""
    policy: str = POLICY


def kind_of(folder: Path) -> str | None:
    """Tell what a folder holds: results, comparison, prepared scans, model, or None of these."""
    if (folder / "benchmark.json").is_file():
        return "comparison"
    if (folder / "run.json").is_file():
        return "results"
    if (folder / RECORD).is_file():
        return "prepared scans"
    return "model" if is_model(folder) else None


def places_in(folder: Path) -> dict[str, str]:
    """Find what can be shown below a folder: path -> kind, sorted; links are not followed."""
    found: dict[str, str] = {}

    def look(at: Path, depth: int) -> None:
        try:
            inner = sorted(p for p in at.iterdir() if p.is_dir() and not p.is_symlink())
        except OSError:
            return  # not ours to read
        for one in inner:
            if one.name.startswith(".") or len(found) >= MOST_PLACES:
                continue
            kind = kind_of(one)
            if kind is not None:
                found[one.relative_to(folder).as_posix()] = kind
            elif depth > 1:
                look(one, depth - 1)

    look(folder, DEPTH)
    return found


def require_viewable(folder: Path) -> None:
    """Refuse a place of which nothing can be shown.

    Raises
    ------
    InputError
        It is no folder, or holds nothing that atypia wrote.
    """
    remedy = "Name a folder that `atypia predict`, `benchmark`, `prepare` or `fit` wrote"
    if not folder.is_dir():
        raise InputError(folder, "is no folder" if folder.exists() else "no such folder", remedy)
    if kind_of(folder) is None and not places_in(folder):
        problem = "holds no results, comparison, prepared scans or model"
        raise InputError(folder, problem, f"{remedy}, or one that holds such folders")


class Site:
    """The pages and files of one folder, by the path of a request.

    Parameters
    ----------
    folder
        Nothing outside of it is shown.
    samples
        Restorations to show on the training page, if the folder is a model.
    """

    def __init__(self, folder: Path, samples: Samples | None = None) -> None:
        self.folder = folder.resolve()
        self.samples = samples
        # Drawing is not safe in several threads at a time, and would only be slower.
        self._drawing = threading.Lock()
        self._made: dict[Path, tuple[object, str]] = {}

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
            results, scan = subject
            known = read_results(results)
            if scan not in {entry.id for entry in (*known.done, *known.failed)}:
                return self.missing(f"The results hold no scan {scan!r}.")
            if place.name != "index.html" and not path.endswith("/"):
                return Answer(HTTPStatus.MOVED_PERMANENTLY, location=f"/{quote(path.strip('/'))}/")
            return self._page(results, lambda folder: _subject_page(folder, scan), place)
        if place.is_file():
            return Answer(HTTPStatus.OK, file=place)
        if not place.is_dir():
            return self.missing()
        kind = kind_of(place)
        if kind is None and place != self.folder:
            return self.missing()
        if not path.endswith("/"):
            return Answer(HTTPStatus.MOVED_PERMANENTLY, location=f"/{quote(path.strip('/'))}/")
        if kind is None:
            return self._list_of_places()
        return self._page(place, self._makers()[kind], place)

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

    def _page(self, folder: Path, make: HtmlMaker, key: Path) -> Answer:
        with self._drawing:
            stamp = _stamp(folder)
            before = self._made.get(key)
            if before is not None and before[0] == stamp and kind_of(folder) != "model":
                text = before[1]
            else:
                text = make(folder)
                # The stamp of before: a page made while files changed is made again.
                self._made = {key: (stamp, text)}
        return Answer(HTTPStatus.OK, text=text, policy=_policy_of(text))

    def _makers(self) -> Mapping[str, HtmlMaker]:
        return {
            "results": _cohort_page,
            "comparison": comparison_page,
            "prepared scans": _quality_page,
            "model": lambda folder: training_page(
                folder,
                samples=self.samples if folder == self.folder else None,
                refreshing=True,
            ),
        }

    def _list_of_places(self) -> Answer:
        rows = [(f"{quote(p)}/", p, kind) for p, kind in places_in(self.folder).items()]
        return _listed(self.folder.name, "What this folder holds.", rows)

    def missing(self, told: str = "There is nothing at this address.") -> Answer:
        """Give the page for what is not there, or must not be shown."""
        return self._problem(HTTPStatus.NOT_FOUND, told)

    def _problem(self, status: HTTPStatus, told: str) -> Answer:
        title = "Not found" if status == HTTPStatus.NOT_FOUND else "This cannot be shown"
        text = template("notice.html.j2").render(title=title, told=told, rows=[], back="/")
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
        try:
            status = path.stat()
        except OSError:
            continue  # removed in this very moment
        found.append((path, status.st_mtime_ns, status.st_size))
    return found


def _cohort_page(results: Path) -> str:
    return report_page(results, lambda place: f"scans/{quote(place.name, safe='')}/")


def _subject_page(results: Path, scan: str) -> str:
    from atypia.report.subject_page import subject_page

    return _with_link(subject_page(results, scan), "../../", "Back to all results")


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
