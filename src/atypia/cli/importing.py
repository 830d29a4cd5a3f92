"""`atypia import-ifl`: models that the public code of a method has trained."""

from __future__ import annotations

from pathlib import Path

from atypia.cli.shared import Output
from atypia.runs.imported_field import import_experiment


def import_ifl(experiment: Path, *, output: Output, epoch: int | None = None) -> int:
    """Make a model of an experiment of the public IFL code (implicit fields).

    Nothing in its files is run. Calibrate the model before masks are wanted; who its training
    subjects were is not known, so keep them apart yourself.

    Parameters
    ----------
    experiment
        Folder with specs.json, ModelParameters and LatentCodes.
    output
        The model folder.
    epoch
        A snapshot's epoch; the latest weights if unset.
    """
    detector = import_experiment(experiment, output, "latest" if epoch is None else str(epoch))
    count = sum(parameter.numel() for parameter in detector.network_.parameters())
    print(f"decoder of {count:,} parameters, {len(detector.codes_)} codes: {output}")
    print(f"Next: atypia calibrate {output} HEALTHY_SCANS, atypia predict {output} SCANS -o OUT")
    return 0
