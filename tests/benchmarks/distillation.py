"""Ten epochs of distillation next to `keras.distillation.Distiller.fit`, with the same models, data and batches.

    python -m tests.benchmarks.distillation [--rows 20000] [--epochs 10] [--augment] [--repeats 3]

Teacher and student are multi-layer perceptrons on Fashion-MNIST. Neither side measures while it trains: no validation.
The time of bmcli is that of a student's training once its teacher is trained: opening the teacher, asking it of all
rows, compiling, and the epochs; that of Keras is `fit`, compiling included, with 32 steps an execution from tf.data.
With --augment pictures are shifted by up to two pixels, for teacher and student alike: in Keras by its own layer in
front of both. Both take turns in one process; medians are told. Prints a table, and a JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

_RECIPE = """\
bmcli: 1
name: distilled
extends: fashion-mlp
data: {{sample: {rows}, split: {{validation: null}}{augment}}}
model: {{kind: mlp, hidden: [800, 800]}}
train: {{epochs: 1, batch_size: 64, schedule: constant, tensorboard: false, select: {{metric: last}}}}
distill:
  student: {{model: {{hidden: [64, 64]}}, train: {{epochs: {epochs}}}}}
  losses: [{{kind: hard, weight: 0.1}}, {{kind: soft, weight: 0.9, temperature: 4}}]
"""
_SHIFT = 2 / 28


class Rival:
    """The same teacher and student in Keras' own words."""

    def __init__(self, session: Any, teacher: Any, augment: bool) -> None:
        import keras

        self._split, self._augment = session.prepared.split("train"), augment
        self._weights = teacher.get_weights()
        self._keras = keras

    def _network(self, hidden: int) -> Any:
        layers = self._keras.layers
        return self._keras.Sequential(
            [
                layers.Input((28, 28, 1)), layers.Flatten(), layers.Dense(hidden, "relu"),
                layers.Dense(hidden, "relu"), layers.Dense(10),
            ]
        )  # fmt: skip

    def _data(self, batch: int) -> Any:
        import tensorflow as tf

        pictures = self._split.inputs["image"].astype("float32") / 255
        data = tf.data.Dataset.from_tensor_slices((pictures, self._split.targets["label"]))
        data = data.shuffle(len(pictures)).batch(batch)
        if self._augment:
            shift = self._keras.layers.RandomTranslation(_SHIFT, _SHIFT)
            data = data.map(lambda x, y: (shift(x, training=True), y), tf.data.AUTOTUNE)
        return data.prefetch(tf.data.AUTOTUNE)

    def seconds(self, epochs: int) -> float:
        keras = self._keras
        teacher = self._network(800)
        teacher.set_weights(self._weights)
        distiller = keras.distillation.Distiller(
            teacher=teacher,
            student=self._network(64),
            distillation_losses=keras.distillation.LogitsDistillation(4.0, keras.losses.KLDivergence()),
            student_loss_weight=0.1,
        )
        distiller.compile(
            optimizer=keras.optimizers.Adam(1e-3), metrics=["accuracy"], steps_per_execution=32,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )  # fmt: skip
        start = time.perf_counter()
        distiller.fit(self._data(64), epochs=epochs, verbose=0)
        return time.perf_counter() - start


def ours(session: Any, folder: Path) -> float:
    """Seconds of a student's training, its teacher asked anew."""
    from bmcli import runs
    from bmcli.training.progress import LineProgress

    shutil.rmtree(session.cache / "teachers", ignore_errors=True)
    start = time.perf_counter()
    session.build_trainer(runs.create(folder, "distilled")).train(LineProgress(lambda text: None))
    return time.perf_counter() - start


def measure(rows: int, epochs: int, augment: bool, repeats: int) -> dict[str, Any]:
    from bmcli.distillations import resolve_teacher
    from bmcli.recipe import students
    from bmcli.recipe.distill import TeacherOptions
    from bmcli.recipe.load import load_recipe
    from bmcli.terminal.console import Console
    from bmcli.workflows import session as sessions
    from bmcli.workflows.training import TrainingContext, train_recipe

    with tempfile.TemporaryDirectory(prefix="bmcli-distillation-") as name:
        folder = Path(name)
        shift = f", augment: {{image: [{{kind: translate, factor: {_SHIFT}}}]}}" if augment else ""
        (folder / "recipe.yaml").write_text(_RECIPE.format(rows=rows, epochs=epochs, augment=shift), encoding="utf-8")
        loaded, console = load_recipe(str(folder / "recipe.yaml")), Console(verbosity=-1)
        setting = TrainingContext(folder / "runs", folder / "cache", console.make_progress, console.log)
        run = train_recipe(students.make_own_teacher(loaded), setting).run
        assert run is not None
        options = students.get_distill_options(loaded)
        by = resolve_teacher(TeacherOptions(run=str(run.folder)), run)
        session = sessions.start_session(
            students.make_distilled_student(students.make_student(loaded), options, [by], {}), folder / "cache"
        )
        from bmcli.distillation.teacher_ensemble import TeacherEnsemble

        recipe = session.loaded.recipe
        assert recipe.distillation is not None
        school = TeacherEnsemble.load_teachers(
            recipe, recipe.distillation, session.prepared, session.placement, session.cache
        )
        assert school.predictor is not None
        rival = Rival(session, school.predictor.teachers[0].model, augment)
        turns = [(ours(session, folder / "runs"), rival.seconds(epochs)) for _ in range(repeats)]
    mine, its = (statistics.median(each) for each in zip(*turns, strict=True))
    return {"rows": rows, "epochs": epochs, "augment": augment, "bmcli_s": mine, "distiller_s": its,
            "ratio": its / mine, "turns": turns}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = measure(asked.rows, asked.epochs, asked.augment, asked.repeats)
    print(f"{'':24}{'seconds':>10}")
    print(f"{'bmcli distill':24}{found['bmcli_s']:>10.1f}")
    print(f"{'Distiller.fit':24}{found['distiller_s']:>10.1f}   {found['ratio']:.1f}x")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
