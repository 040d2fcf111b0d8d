from boxcycle.engine.metrics import MetricsFile, read_metrics


def test_rows_columns_and_blanks(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = MetricsFile(path, 0)
    rows.add(10, {"loss": 0.5, "lr": 0.001})
    rows.add(20, {"loss": 0.25, "lr": 0.002})
    rows.add(20, {"AP50": 0.125})
    rows.add(30, {"lr": 0.003})
    assert path.read_text().splitlines() == [
        "step,loss,lr,AP50", "10,0.5,0.001,", "20,0.25,0.002,0.125", "30,,0.003,",
    ]  # fmt: skip
    assert read_metrics(path) == {
        10: {"loss": 0.5, "lr": 0.001},
        20: {"loss": 0.25, "lr": 0.002, "AP50": 0.125},
        30: {"lr": 0.003},
    }


def test_going_on_drops_the_rows_that_will_be_written_again(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = MetricsFile(path, 0)
    for step in (1, 2, 3):
        rows.add(step, {"loss": float(step)})
    again = MetricsFile(path, 1)
    assert read_metrics(path) == {1: {"loss": 1.0}}
    again.add(2, {"loss": 22.0, "new": 1.0})
    assert read_metrics(path) == {1: {"loss": 1.0}, 2: {"loss": 22.0, "new": 1.0}}


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,lr\n1,0.5,0.1\n2,0.2")
    assert read_metrics(path) == {1: {"loss": 0.5, "lr": 0.1}}
    MetricsFile(path, 2).add(2, {"loss": 0.25, "lr": 0.1})
    assert path.read_text() == "step,loss,lr\n1,0.5,0.1\n2,0.25,0.1\n"


def test_numbers_come_back_exactly_also_odd_ones(tmp_path):
    path = tmp_path / "metrics.csv"
    values = {"third": 1 / 3, "small": 1e-300, "inf": float("inf")}
    MetricsFile(path, 0).add(1, values)
    assert read_metrics(path) == {1: values}
