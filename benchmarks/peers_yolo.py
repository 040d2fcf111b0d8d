"""Trains Ultralytics' smallest model for peers.py, in a process of its own: it is no dependency of boxcycle.

    PYTHONPATH=<where peers.py installed ultralytics> python benchmarks/peers_yolo.py JOB.json

The job names model, data.yaml, epochs, pixels, seed, threads, folder and the images to predict; the answer is written
into the folder as ``answer.json``: seconds of processor time at the end of every training batch, counted from the start
of the first epoch, and COCO results in the pixels of the files.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    marks: list[float] = []

    def begin(_: Any) -> None:
        torch.set_num_threads(job["threads"])  # Ultralytics has set its own number
        marks.append(time.process_time())

    model = YOLO(job["model"])  # from a .yaml: random weights
    model.add_callback("on_train_start", begin)
    model.add_callback("on_train_batch_end", lambda _: marks.append(time.process_time()))
    model.train(
        data=job["data"],
        epochs=job["epochs"],
        imgsz=job["pixels"],
        seed=job["seed"],
        device="cpu",
        workers=0,  # what loading costs counts
        cache="ram",
        amp=False,
        val=False,
        plots=False,
        verbose=False,
        project=job["folder"],
        name="run",
        exist_ok=True,
    )
    found = list(predictions(Path(job["folder"]) / "run" / "weights" / "last.pt", job)) if job["images"] else []
    answer = {"seconds": [mark - marks[0] for mark in marks[1:]], "predictions": found}
    (Path(job["folder"]) / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def predictions(weights: Path, job: dict[str, Any]) -> Any:
    """Rows of a COCO results file, but for the category, which is Ultralytics' number of the class."""
    model = YOLO(weights)
    for image_id, file in job["images"]:
        [result] = model.predict(file, imgsz=job["pixels"], conf=0.001, max_det=100, device="cpu", verbose=False)
        boxes = result.boxes
        for (x1, y1, x2, y2), label, score in zip(
            boxes.xyxy.tolist(), boxes.cls.tolist(), boxes.conf.tolist(), strict=True
        ):
            yield {"image_id": image_id, "class": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}


if __name__ == "__main__":
    main()
