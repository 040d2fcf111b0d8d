"""Pictures of priors: colours where the map is high, and a page with the chosen updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from boxcycle.report.priors import KINDS, draw_view, heat, write_priors_report

GREY = np.full((40, 60, 3), 120, dtype=np.uint8)


def test_heat_is_bright_where_the_map_is_high_and_absent_where_it_is_flat() -> None:
    attention = np.zeros((4, 6), dtype=np.float32)
    attention[:2, 3:] = 1
    shown = heat(GREY, attention).astype(int)
    assert (shown[:20, 30:].sum(-1) > shown[20:, :30].sum(-1).max()).all()
    assert len(np.unique(shown[:20, 30:].reshape(-1, 3), axis=0)) == 1
    assert (heat(GREY, np.zeros((4, 6), dtype=np.float32)) == 120).all()


def test_each_kind_of_box_has_its_colour_and_place() -> None:
    box = np.array([[0.25, 0.25, 0.75, 0.75]])
    for kind, colour in KINDS.items():
        picture = np.asarray(draw_view(GREY, np.zeros((4, 6), dtype=np.float32), {kind: (box, [0.5])}))
        rows = (picture == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).nonzero()[0]
        assert len(rows), kind
        assert (rows.min() > picture.shape[0] / 2) == (kind == "prior")


def test_a_page_of_many_updates_shows_the_first_the_last_and_some_between(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    updates = {number: (f"{number} regions", tmp_path / "a.png") for number in range(20)}
    write_priors_report(tmp_path / "priors.html", "priors of a run", {"<b>.jpg": updates, "c.jpg": {0: updates[0]}})
    page = (tmp_path / "priors.html").read_text(encoding="utf-8")
    assert page.count("<img") == 6
    assert [f"R{number}: " in page for number in (0, 4, 9, 14, 19)] == [True] * 5
    assert "&lt;b&gt;.jpg" in page
