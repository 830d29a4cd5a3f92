"""`atypia view`: look at results, comparisons, prepared scans and trainings in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from atypia.cli.shared import Workers, progress_bar
from atypia.errors import AtypiaError, ModelError
from atypia.report.samples import FollowedSamples
from atypia.report.serving import address_of, serve
from atypia.report.viewable import require_viewable


def view(
    place: Path,
    *,
    port: int = 0,
    browser: bool = True,
    scan: Path | None = None,
    workers: Workers = None,
) -> int:
    """Show the pages of a folder, made anew when asked for, to browsers of this machine.

    Parameters
    ----------
    place
        A folder that `atypia predict`, `benchmark`, `prepare` or `fit` wrote (a fit may still be
        running), or one that holds several of these.
    port
        Of 127.0.0.1; 0 for any that is free.
    browser
        Open the page in a browser, where there is a screen.
    scan
        For a model: an image, or a cohort whose first scan is taken; each snapshot
        (`--training.snapshot-epochs`) restores it, and the page shows how that went. While a fit
        runs, those of new snapshots are added.
    workers
        Processes that draw small pictures of results; one a core by default.
    """
    require_viewable(place)
    samples = None if scan is None else FollowedSamples(place, scan)
    if samples is not None:
        try:
            with progress_bar() as progress:
                samples.restore(progress)
        except ModelError as error:
            if samples.finished:
                raise
            print(f"atypia: {error}", file=sys.stderr)  # the fit goes on, and may bring it
    with serve(place, port, samples=None if samples is None else samples.followed) as server:
        try:
            try:
                with progress_bar() as progress:
                    server.site.prepare(workers=workers, progress=progress)
            except AtypiaError as error:
                print(f"atypia: {error}", file=sys.stderr)  # the other pages are there
            url = address_of(server)
            print(f"{url}  (Ctrl-C ends it)", flush=True)
            if browser and _has_screen():
                webbrowser.open(url)
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _has_screen() -> bool:
    # Without one a browser of the terminal would open, and take the terminal.
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
