"""`boxcycle demo`, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxcycle.config import dump_config
from boxcycle.methods import experiment
from boxcycle.methods.demo import ARMS, DemoConfig, arm, demo


def test_both_arms_are_equal_but_for_the_method(tmp_path: Path) -> None:
    one, other = (dump_config(arm(method, tmp_path, DemoConfig(run=tmp_path / "x"))).splitlines() for method in ARMS)
    assert set(one) - set(other) == {f"run: {tmp_path / 'x' / 'supervised'}"}


@pytest.mark.slow
def test_it_ends_with_two_rows_and_a_report(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    whole = experiment.predict_dataset
    monkeypatch.setattr(experiment, "predict_dataset", lambda *given, **more: calls.append(1) or whole(*given, **more))
    demo(DemoConfig(run=tmp_path / "demo", images=8, size=64, steps=1))
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line.split()[:1] in [[name] for name in ARMS]] == [*ARMS]
    assert f"Report: {tmp_path / 'demo' / 'report.html'}" in said
    report = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "Supervised beside MTL-SSL on generated scenes" in report
    assert len(calls) == 2, "each arm predicts once"
