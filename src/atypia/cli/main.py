"""The `atypia` command: its sub-commands by name, and errors as one line with exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cyclopts

from atypia import __version__
from atypia.errors import AtypiaError
from atypia.registry import METHODS

COMMANDS = {
    "simulate": ("atypia.cli.cohorts:simulate", "Write a cohort of simulated brains."),
    "split": ("atypia.cli.cohorts:split", "Divide a cohort by subject into a manifest."),
    "leakage": ("atypia.cli.cohorts:leakage", "Find people who stand in several cohorts."),
    "prepare": ("atypia.cli.preparing:prepare", "Prepare a cohort once, and check its quality."),
    "combine": ("atypia.cli.combining:combine", "Make one model of several fitted ones."),
    "calibrate": ("atypia.cli.scoring:calibrate", "Learn a model's threshold from healthy scans."),
    "drift": ("atypia.cli.scoring:drift", "Check new healthy scans against the calibration."),
    "predict": ("atypia.cli.scoring:predict", "Find anomalies in one scan or a cohort."),
    "weights": ("atypia.cli.weights:weights", "List the weights that come with atypia."),
    "evaluate": ("atypia.cli.scoring:evaluate", "Compare with labels, beside the baselines."),
    "power": ("atypia.cli.power:power", "Plant lesions and tell which are found."),
    "benchmark": ("atypia.cli.comparing:benchmark", "Compare methods by a protocol."),
    "report": ("atypia.cli.reporting:report", "Write the HTML pages of results or a training."),
    "view": ("atypia.cli.viewing:view", "Look at results or a training in a browser."),
    "import-ifl": (
        "atypia.cli.importing:import_ifl",
        "Make a model of an experiment of the public IFL code.",
    ),
    "methods": ("atypia.cli.info:methods", "List the detectors."),
    "doctor": ("atypia.cli.info:doctor", "Tell what is installed, the devices and the data found."),
    "demo": ("atypia.cli.demo:demo", "Run everything once on simulated brains."),
}
"""Name -> where the command lives, and its line in the help."""

PRETRAINING = {
    "spark": (
        "atypia.cli.pretraining:spark",
        "Pre-train the encoder that diffusion starts from with --encoder (no detector)",
    ),
}
"""As `COMMANDS`, for what `atypia fit` learns besides detectors."""

USER_ERROR = 2
SOME_FAILED = 1
INTERRUPTED = 130

PUBLISHED = {
    "spark": (
        "atypia.cli.published:spark",
        "Pre-train the encoder of every fold (SparK).\n\n"
        "Example: atypia published spark DATA_DIR model.cfg.mask_ratio=0.65 -o OUT --leaking drop",
    ),
    "train": (
        "atypia.cli.published:train",
        "Train the model of every fold.\n\n"
        "Example: atypia published train DATA_DIR model.cfg.unet_dim=64 -o OUT --leaking drop",
    ),
    "evaluate": (
        "atypia.cli.published:evaluate",
        "Evaluate all folds: mean and standard deviation.\n\n"
        "Example: atypia published evaluate DATA_DIR mh_regu=0.01 -o OUT/mhd --models OUT "
        "--experiment mhd --leaking drop",
    ),
}
"""As `COMMANDS`, for those below `atypia published`."""


def build_app() -> cyclopts.App:
    """Assemble the application; no command is imported yet."""
    app = cyclopts.App(
        name="atypia",
        help="Unsupervised anomaly detection in 3D medical images.",
        help_epilogue="Every command takes --debug, to show the traceback of an error.",
        help_format="plaintext",
        version=__version__,
        suppress_keyboard_interrupt=False,
    )
    fit = cyclopts.App(
        name="fit", help="Learn what healthy looks like: atypia fit METHOD COHORT -o MODEL."
    )
    for method, line in METHODS.items():
        fit.command(f"atypia.cli.fit:{method}", name=[method, *line.aliases], help=line.summary)
    for name, (place, summary) in PRETRAINING.items():
        fit.command(place, name=name, help=summary)
    app.command(fit)
    published = cyclopts.App(
        name="published",
        help="The published cDDPM, pDDPM and MHD experiments, from their data and split tables.",
    )
    for name, (place, summary) in PUBLISHED.items():
        published.command(place, name=name, help=summary)
    app.command(published)
    for name, (place, summary) in COMMANDS.items():
        app.command(place, name=name, help=summary)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 all well; 1 some scans of a cohort failed; 2 an error that the user can mend;
    3 drift was found; 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = run(words)
    except (AtypiaError, cyclopts.CycloptsError) as error:
        if debug:
            raise
        print(f"atypia: {one_line(error)}", file=sys.stderr)
        code = USER_ERROR
    except KeyboardInterrupt:
        if debug:
            raise
        print("atypia: interrupted; the same command goes on from here", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has closed it, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except MemoryError:
        if debug:
            raise
        print(
            "atypia: out of memory. Use a coarser --spacing-mm or fewer --workers", file=sys.stderr
        )
        code = USER_ERROR
    sys.exit(code)


def run(words: Sequence[str]) -> int:
    """Run one command; give its exit code."""
    result = build_app()(
        words,
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    return result if isinstance(result, int) else 0


def one_line(error: Exception) -> str:
    """Say an error in one line."""
    cause = error.__cause__
    if type(cause).__module__.startswith("pydantic"):
        from atypia.settings import settings_error  # pydantic is slow to import, and there by now

        error = settings_error("settings", cause)  # type: ignore[arg-type]
    return " ".join(str(error).split())
