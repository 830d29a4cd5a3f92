"""A small tree in the published layout, its split tables leaking as the published ones do."""

from __future__ import annotations

from pathlib import Path

from atypia import io
from tests.phantoms import phantom

HEADER = ",img_name,age,label,img_path,mask_path,seg_path\n"
HEALTHY = {
    "IXI_train_fold0": (0, 1, 2, 3, 1),
    "IXI_val_fold0": (4, 5),
    "IXI_train_fold1": (2, 3, 4, 6),
    "IXI_val_fold1": (1, 7),
    "IXI_test": (10, 11, 10),
}
"""Table -> subjects; some stand twice in one table, as in the published ones."""
ILL = {"Brats21_val": (20,), "Brats21_test": (21, 22), "MSLUB_test": (30,)}
LEAK = {"IXI_train_fold1": (2, 3, 4, 6, 11), "IXI_val_fold1": (3, 7)}
"""What to put in place of tables, so that subject 11 leaks into fold 1, and 3 stands twice."""


def grow(root: Path, leaking: bool = False) -> Path:
    """Write images of phantoms and the tables that list them."""
    tables = HEALTHY | ILL | (LEAK if leaking else {})
    for name, subjects in tables.items():
        rows = [_row(root, name, subject) for subject in subjects]
        path = root / "Data" / "splits" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + "".join(rows))
    return root


def _row(root: Path, table: str, subject: int) -> str:
    dataset, ill = table.split("_")[0], table in ILL
    name = f"S{subject:03d}"
    below = f"/Test/{dataset}" if ill else "/Train/ixi"
    paths = {k: f"{below}/{k}/{name}_{k}.nii.gz" for k in ("t1", "t2", "mask", "seg")}
    places = {kind: root / "Data" / path.lstrip("/") for kind, path in paths.items()}
    if not places["t2"].exists():
        image, brain, lesion = phantom(subject, lesion=ill)
        io.write(image, places["t2"])
        io.write(brain, places["mask"])
        if ill:
            io.write(lesion, places["seg"])
    seg = paths["seg"] if ill else ""
    return f"0,{name},40,{int(ill)},{paths['t1']},{paths['mask']},{seg}\n"
