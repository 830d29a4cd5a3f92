"""Serving: the right pages at the right addresses, and nothing else to nobody else."""

from __future__ import annotations

import http.client
import importlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atypia import files
from atypia.errors import InputError, SettingsError
from atypia.report import site as site_module
from atypia.report.results import Results
from atypia.report.serving import serve
from atypia.report.site import POLICY, Site
from atypia.report.viewable import kind_of, places_in
from tests.report.test_page import parsed
from tests.report.test_training_page import log_line, write_model, write_unfinished


class Client:
    """Asks one server, raw: no redirect is followed and no path is tidied up."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, method: str = "GET", host: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True)
            if host != "":
                connection.putheader("Host", host or f"127.0.0.1:{self.port}")
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def page(self, path: str) -> str:
        status, _, body = self.ask(path)
        assert status == 200, body.decode()
        return body.decode("utf-8")


@contextmanager
def serving_of(folder: Path) -> Iterator[Client]:
    server = serve(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Client(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def site(
    untouched: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Client]]:
    """A folder with results, a model, an unfinished model, and something secret beside it."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(untouched, root / "all" / "out")
    write_model(root / "all" / "models" / "mäßig 1")
    write_unfinished(root / "all" / "models" / "new")
    (root / "secret.txt").write_text("a patient's name")
    (root / "all" / "link").symlink_to(root / "secret.txt")
    (root / "all" / "out" / "away").symlink_to(root)
    (root / "all" / ".hidden").write_text("hidden")
    with serving_of(root / "all") as client:
        yield root / "all", client


def test_kinds_and_what_lies_below(site: tuple[Path, Client], tmp_path: Path) -> None:
    folder, _ = site
    below = {"models/mäßig 1": "model", "models/new": "model", "out": "results"}
    assert places_in(folder) == below
    assert kind_of(folder) is None
    for name, kind in (("benchmark.json", "comparison"), ("prepare.json", "prepared scans")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).write_text("{}")
        assert kind_of(tmp_path / kind) == kind


def test_an_index_leads_to_every_page(site: tuple[Path, Client]) -> None:
    _, client = site
    text = client.page("/")
    parsed(text)
    for target in ("out/", "models/m%C3%A4%C3%9Fig%201/", "models/new/"):
        assert f'href="{target}"' in text
        assert "<h1>" in client.page(f"/{target}")


def test_results_and_their_scans(site: tuple[Path, Client]) -> None:
    folder, client = site
    text = client.page("/out/")
    assert "tumour-1" in text
    assert "scans/tumour-1/" in text
    assert not (folder / "out" / "report.html").exists()  # looking writes no page


def test_a_subject_page_is_made_when_asked_for(
    site: tuple[Path, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, client = site
    asked = []

    def stand_in(results: Results, scan: str) -> str:
        asked.append((results.folder, scan))
        return f"<main>{scan}</main>"

    monkeypatch.setattr("atypia.report.subject_page.subject_page", stand_in)
    for address in ("/out/scans/tumour-1/", "/out/scans/stroke-1/index.html"):
        assert address.split("/")[3] in client.page(address)
    results = (folder / "out").resolve()
    assert asked == [(results, "tumour-1"), (results, "stroke-1")]
    status, headers, _ = client.ask("/out/scans/tumour-1")
    assert (status, headers["Location"]) == (301, "/out/scans/tumour-1/")


def test_the_real_subject_page_comes(site: tuple[Path, Client]) -> None:
    _, client = site
    status, headers, body = client.ask("/out/scans/tumour-1/")
    assert status == 200
    assert b"tumour-1" in body
    policy = headers["Content-Security-Policy"]
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy.count(f"{name} 'none'") == 1


@pytest.mark.parametrize(
    "path",
    ["/out/scans/no/", "/out/scans/no/index.html", "/nothing", "/models/", "/out/scans/no"],
)
def test_what_is_not_there_is_not_found(site: tuple[Path, Client], path: str) -> None:
    status, _, body = site[1].ask(path)
    assert status == 404
    assert b"Not found" in body
    assert b"Traceback" not in body


def test_a_failed_or_damaged_scan_says_what_is_wrong(results: Path) -> None:
    for path in (results / "scans" / "tumour-1").glob("*.nii.gz"):
        path.write_bytes(b"no image")
    with serving_of(results) as client:
        for scan, why in (("lost-1", "no such file"), ("tumour-1", "nii.gz")):
            status, _, body = client.ask(f"/scans/{scan}/")
            assert status == 500
            assert why in body.decode()
            assert "Traceback" not in body.decode()


def test_an_unforeseen_error_is_a_page_and_not_the_end(
    site: tuple[Path, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("<b>oh</b>")

    _, client = site
    monkeypatch.setattr(site_module, "training_page", broken)
    status, _, body = client.ask("/models/new/")
    assert status == 500
    assert b"ZeroDivisionError" in body
    assert b"<b>oh" not in body
    monkeypatch.undo()
    client.page("/models/new/")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/out/../../secret.txt",
        "/out/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "//secret.txt",
        "/link",
        "/out/away/secret.txt",
        "/out/away/",
        "/.hidden",
        "/out%00/run.json",
    ],
)
def test_nothing_outside_of_the_folder_is_shown(site: tuple[Path, Client], path: str) -> None:
    status, _, body = site[1].ask(path)
    assert status == 404, body
    assert b"patient" not in body
    assert b"hidden" not in body


def test_an_absolute_path_is_taken_below_the_folder(site: tuple[Path, Client]) -> None:
    folder, client = site
    for path in (str(folder.parent / "secret.txt"), f"/{folder.parent}/secret.txt"):
        status, _, body = client.ask(path)
        assert status == 404
        assert b"patient" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1"]
)
def test_another_host_is_refused(site: tuple[Path, Client], host: str) -> None:
    status, headers, body = site[1].ask("/", host=host)
    assert status == 403
    assert b"models" not in body
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "LOCALHOST"])
def test_names_of_this_machine_are_answered(site: tuple[Path, Client], host: str) -> None:
    assert site[1].ask("/", host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_answered(site: tuple[Path, Client], method: str) -> None:
    folder, client = site
    status, _, _ = client.ask("/out/run.json", method=method)
    assert status in (405, 501)
    assert (folder / "out" / "run.json").exists()


def test_head_gives_headers_only(site: tuple[Path, Client]) -> None:
    _, client = site
    for path in ("/models/new/", "/out/run.json"):
        status, headers, body = client.ask(path, method="HEAD")
        assert status == 200
        assert int(headers["Content-Length"]) > 0
        assert body == b""


def test_files_come_as_they_are_with_strict_headers(site: tuple[Path, Client]) -> None:
    folder, client = site
    (folder / "out" / "page.html").write_text("<script>1</script>")
    for name, kind in (("run.json", "application/json"), ("page.html", "text/html; charset=utf-8")):
        status, headers, body = client.ask(f"/out/{name}")
        assert status == 200
        assert body == (folder / "out" / name).read_bytes()
        assert headers["Content-Type"] == kind
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith(POLICY)
        assert "script-src" not in headers["Content-Security-Policy"]
    (folder / "out" / "page.html").unlink()
    image = next((folder / "out" / "scans" / "tumour-1").glob("*.nii.gz"))
    _, headers, body = client.ask(f"/out/scans/tumour-1/{image.name}")
    assert headers["Content-Type"] == "application/octet-stream"
    assert body == image.read_bytes()


def test_a_page_s_own_policy_is_repeated_and_only_from_its_head() -> None:
    meta = '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
    assert site_module._policy_of(f"<head>{meta}</head>") == "script-src 'none'"
    assert site_module._policy_of(f"<head></head>{meta}") == POLICY


def test_the_page_of_a_running_training_follows_its_log(tmp_path: Path) -> None:
    model = write_unfinished(tmp_path / "m", steps=3)
    with serving_of(model) as client:
        before = client.page("/")
        assert 'http-equiv="refresh"' in before
        assert "3 of 6" in before
        with (model / "training" / "training.jsonl").open("a") as log:
            log.write(log_line(4))
        after = client.page("/")
        assert "4 of 6" in after
        assert "0.9 at step 4" in after
        # It ends: the page does not refresh any more.
        shutil.rmtree(model / "training")
        write_model(model)
        assert 'http-equiv="refresh"' not in client.page("/")


def counted(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> list[object]:
    """Count the calls of a function."""
    calls: list[object] = []
    real = getattr(importlib.import_module(module), name)

    def counting(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        return real(*arguments, **named)

    monkeypatch.setattr(f"{module}.{name}", counting)
    return calls


def test_pages_are_kept_beside_each_other_until_their_files_change(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_thumbnails(results)
    made = counted(monkeypatch, "atypia.report.site", "report_page")
    read = counted(monkeypatch, "atypia.report.site", "read_results")
    subjects: list[str] = []

    def subject_page(found: Results, scan: str) -> str:
        (entry,) = [entry for entry in found.done if entry.id == scan]
        assert entry.description["details"]  # all of it is there
        subjects.append(scan)
        return "<main></main>"

    monkeypatch.setattr("atypia.report.subject_page.subject_page", subject_page)
    with serving_of(results) as client:
        for _ in range(2):
            client.page("/")
            for scan in ("tumour-1", "stroke-1"):
                client.page(f"/scans/{scan}/")
        assert list((results / "scans").glob("*/thumbnail.webp"))  # and yet no file has changed
        assert (len(made), subjects, len(read)) == (1, ["tumour-1", "stroke-1"], 1)
        run = json.loads((results / "run.json").read_text())
        files.write_json(results / "run.json", run | {"python": "3.99"})
        client.page("/")
        client.page("/scans/stroke-1/")
        assert (len(made), subjects[2:], len(read)) == (2, ["stroke-1"], 2)


def without_thumbnails(results: Path) -> None:
    """Remove those that a page of another test has left in what was copied."""
    for path in results.glob("scans/*/thumbnail.webp"):
        path.unlink()


def test_a_page_on_demand_draws_few_thumbnails_and_a_prepared_one_all(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_thumbnails(results)
    monkeypatch.setattr(site_module, "MOST_DRAWN", 1)
    place = Site(results)
    assert "2 scans have no thumbnail" in place.answer("/").text
    assert "not drawn yet" in place.answer("/").text
    assert len(list(results.glob("scans/*/thumbnail.webp"))) == 1
    told: list[tuple[str, int, int]] = []
    place = Site(results)
    place.prepare(progress=lambda task, done, total, note="": told.append((task, done, total)))
    assert ("thumbnails", 3, 3) in told
    assert len(list(results.glob("scans/*/thumbnail.webp"))) == 3
    made = counted(monkeypatch, "atypia.report.site", "report_page")
    assert "not drawn" not in place.answer("/").text
    assert made == []


def test_a_folder_of_several_is_not_prepared(results: Path) -> None:
    without_thumbnails(results)
    Site(results.parent).prepare()
    assert not list(results.glob("scans/*/thumbnail.webp"))


def test_pages_that_were_written_lead_to_those_that_work(results: Path, tmp_path: Path) -> None:
    """As files they would get the policy of files, which lets no script run."""
    root = results.parent
    (results / "report.html").write_text("<script>1</script>")
    (results / "scans" / "tumour-1" / "index.html").write_text("old")
    write_model(root / "models" / "mäßig 1")
    (root / "models" / "mäßig 1" / "training.html").write_text("<script>1</script>")
    for name, mark, page in (
        ("compared", "benchmark.json", "index.html"),
        ("prepared", "prepare.json", "quality.html"),
    ):
        (root / name).mkdir()
        (root / name / mark).write_text("{}")
        (root / name / page).write_text("<script>1</script>")
    out = results.name
    with serving_of(root) as client:
        for address, target in (
            (f"/{out}/report.html", f"/{out}/"),
            ("/models/m%C3%A4%C3%9Fig%201/training.html", "/models/m%C3%A4%C3%9Fig%201/"),
            ("/compared/index.html", "/compared/"),
            ("/prepared/quality.html", "/prepared/"),
        ):
            status, headers, _ = client.ask(address)
            assert (status, headers.get("Location")) == (302, target)
        _, headers, _ = client.ask(f"/{out}/")
        assert "script-src" in headers["Content-Security-Policy"]
        _, headers, body = client.ask(f"/{out}/scans/tumour-1/index.html")
        assert body != b"old"
        assert "script-src" in headers["Content-Security-Policy"]


def test_no_page_about_a_problem_tells_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "O'Brien, Jane" / "prepared"
    files.write_json(place / "prepare.json", {"items": []})
    with serving_of(place) as client:
        status, _, body = client.ask("/")
    assert status == 500
    assert "prepared: holds no quality.html" in body.decode()
    for word in ("Brien", "Jane", str(tmp_path.parent)):
        assert word not in body.decode()


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_whole(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (results / "run.json").read_bytes()
    real = Path.open

    def replaced(self: Path, *arguments: Any, **named: Any) -> Any:
        stream = real(self, *arguments, **named)
        if self.name == "run.json" and arguments == ("rb",):
            monkeypatch.setattr(Path, "open", real)
            files.write_text(results / "run.json", "{}")
        return stream

    with serving_of(results) as client:
        monkeypatch.setattr(Path, "open", replaced)
        status, headers, body = client.ask("/run.json")
    assert (status, body) == (200, before)
    assert int(headers["Content-Length"]) == len(before)
    assert (results / "run.json").read_text() == "{}"


def test_prepared_scans_show_their_page_or_say_what_to_do(tmp_path: Path) -> None:
    files.write_json(tmp_path / "prepare.json", {"items": []})
    with serving_of(tmp_path) as client:
        status, _, body = client.ask("/")
        assert status == 500
        assert b"atypia prepare" in body
        (tmp_path / "quality.html").write_text("<p>fine")
        assert client.page("/") == "<p>fine"


def test_places_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, problem in (
        (tmp_path, "holds no results, comparison, prepared scans or model"),
        (tmp_path / "file", "is no folder"),
        (tmp_path / "absent", "no such folder"),
    ):
        with pytest.raises(InputError, match=f"{problem}. Name a folder that `atypia predict`"):
            serve(place)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    with serving_of(tmp_path) as client:
        for port in (client.port, 70_000):
            with pytest.raises(SettingsError, match=f"--port {port}: cannot be used"):
                serve(tmp_path, port)


def test_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    server = serve(tmp_path)
    assert server.server_address[0] == "127.0.0.1"
    server.server_close()
