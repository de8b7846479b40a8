"""Models in stages: trained on some tasks first, then given new ones that change no older one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.models.fingerprints import fingerprint
from mptrec_tf.models.multi_task import MultiTaskModel, Outcome
from mptrec_tf.models.objectives import prediction
from mptrec_tf.spec import Task
from mptrec_tf.spec.data_spec import check_labels_are_not_features
from mptrec_tf.spec.given import given_task
from mptrec_tf.spec.parsing import dump, parse

ModelT = TypeVar("ModelT", bound="GrowingModel")


class GrowingModel(MultiTaskModel):
    """A model in stages. Stage 1 trains its tasks; stage 2 can add others, one at a time.

    Each added task has a module of its own. All that was there before is frozen: it is not
    trained, runs without dropout, and no gradient passes through it, so the answers of the older
    tasks do not change by one bit.

    A subclass gives `represent` and `stage1_logits`. One to which tasks can be added also gives
    `_new_module`, `_added_logits` and an `add_task` that calls `_add`.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The stage 1 tasks.
        settings: The subclass's other arguments, as plain data; they are its configuration.
        **kwargs: `name` and `dtype` (such as `"mixed_bfloat16"`).

    Raises:
        SpecError: If a task's label column is a feature, or a task name is given twice.
        ModelError: If the encoder is not adapted, or there is no task.

    Example:

    ```python
    model = load_model("runs/census/model.keras", GrowingModel)  # whichever of them it is
    [task.name for task in model.tasks if task not in model.stage1_tasks]  # ["education"]
    ```
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        settings: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, tasks, **kwargs)
        self._settings = dict(settings)
        self._added: tuple[Task, ...] = ()
        self._tuned: str | None = None
        self._told_progress = False

    def build(self, input_shape: Any = None) -> None:
        """Creates the weights; called by the constructor, since the encoder defines the input."""
        self.task_modules = TaskModules(name="task_modules", dtype=self.dtype_policy)
        # Progress at the epoch's beginning, optimizer step there, progress a step, epochs trained.
        self._progress = self.add_weight(
            name="progress", shape=(4,), initializer="zeros", trainable=False, dtype="float32"
        )

    # What a subclass says

    def represent(self, inputs: Any, training: bool = False) -> Any:
        """What the tasks share of a batch, a structure of tensors.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.
            training: Whether dropout acts; never in stage 2. Defaults to `False`.
        """
        raise NotImplementedError

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        """What the towers of the stage 1 tasks give, float32 (B, outputs) for each.

        Args:
            representation: What `represent` gave.
            training: Whether dropout acts. Defaults to `False`.
        """
        raise NotImplementedError

    def _new_module(self, task: Task, description: Mapping[str, Any]) -> keras.layers.Layer:
        """A built module for a task that is added, from what `_describe` told of it."""
        raise NotImplementedError

    def _describe(self, module: Any) -> dict[str, Any]:
        """What a module is made from, as plain data, where the settings do not tell all."""
        return {}

    def _added_logits(self, module: Any, representation: Any, training: bool) -> Any:
        """What the module of an added task gives, float32 (B, outputs)."""
        raise NotImplementedError

    # Tasks

    @property
    def stage1_tasks(self) -> tuple[Task, ...]:
        """The tasks of stage 1."""
        return self._given_tasks

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks: those of stage 1, then the added ones in the order in which they came."""
        return self.stage1_tasks + self._added

    @property
    def trained_tasks(self) -> tuple[Task, ...]:
        """The tasks that `fit` trains: those of stage 1, or the added one that is tuned."""
        return self.stage1_tasks if self._tuned is None else (self.task(self._tuned),)

    @property
    def tuned_task(self) -> str | None:
        """The added task that `fit` trains, or `None` in stage 1."""
        return self._tuned

    def tune_task(self, name: str, optimizer: Any = None) -> None:
        """Makes `fit` train an added task's module, and nothing else, from now on.

        `add_task` does this for a new task; call it to train an older added task further.

        Args:
            name: The added task.
            optimizer: Optimizer of the module. Defaults to `None`: as compiled before, begun anew.

        Raises:
            ModelError: If it is not an added task, or the model was not compiled.
        """
        self._require_added(name)
        if not self.compiled:
            raise ModelError(f"compile the model before the task {name!r} is trained")
        before = self._tuned
        self._tune(name)
        try:
            self._compile_anew(optimizer)
        except BaseException:
            self._tune(before)
            raise

    def drop_task(self, name: str) -> None:
        """Removes an added task; no other task changes. Without added tasks, stage 1 goes on.

        Args:
            name: The added task.

        Raises:
            ModelError: If it is not an added task. The tasks of stage 1 are trained together and
                cannot be removed.
        """
        self._require_added(name)
        self._detach(name)
        was_tuned = self._tuned == name
        if was_tuned:
            self._tune(self._added[-1].name if self._added else None)
        if self.compiled:
            self._compile_settings["metrics"].pop(name, None)
            new_optimizer = self._new_optimizer
            self._compile_anew(None if was_tuned else self.optimizer)
            self._new_optimizer = new_optimizer
        else:  # what was traced has the task
            self.train_function = self.test_function = self.predict_function = None

    def _add(self, task: Task, make: Callable[[], keras.layers.Layer], optimizer: Any) -> None:
        """Freezes all that exists, adds a module for a new task, and compiles for it alone."""
        given_task(task)
        if task.name in {known.name for known in self.tasks}:
            raise ModelError(f"the model already has a task {task.name!r}")
        check_labels_are_not_features(self.encoder.features, (task,))
        if not self.compiled:
            raise ModelError(f"compile the model before the task {task.name!r} is added")
        if self.trained_epochs == 0 and not ops.convert_to_numpy(self.optimizer.iterations):
            raise ModelError(
                f"train the model before the task {task.name!r} is added: its module learns from "
                "frozen experts, and neither an epoch nor a step of the optimizer was counted. If "
                "these were trained without either, say so by count_epoch()"
            )
        with self.distribute_strategy.scope():
            self._attach(task, make())
        try:
            self.tune_task(task.name, optimizer)
        except BaseException:
            self._detach(task.name)
            raise

    def _attach(self, task: Task, module: keras.layers.Layer) -> None:
        self.task_modules.modules[task.name] = module
        self._added += (task,)

    def _detach(self, name: str) -> None:
        self.task_modules.modules.pop(name)
        self._added = tuple(task for task in self._added if task.name != name)

    def _require_added(self, name: str) -> None:
        if self.task(name) not in self._added:
            raise ModelError(f"{name!r} is a task of stage 1, not one that was added")

    def _tune(self, name: str | None) -> None:
        """Sets what is trainable: stage 1, less what its user has frozen there, or one module."""
        if self._tuned is None:
            self._frozen = self._frozen_layers()
        self._tuned = name
        for layer in self._stage1_layers():
            layer.trainable = name is None
        if name is None:
            self._freeze(self._frozen)
        for task, module in self.task_modules.modules.items():
            module.trainable = task == name

    @property
    def trainable(self) -> bool:
        """Whether anything is trained; in stage 2 `True` leaves frozen what is older."""
        return bool(self._trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.Model.trainable.fset(self, value)
        if value and self._tuned is not None:
            self._tune(self._tuned)

    @property
    def trainable_weights(self) -> list[Any]:
        """Those that `fit` trains: in stage 2 the module's, whatever other layers are set to."""
        if self._tuned is None:
            return super().trainable_weights
        return self.task_modules.modules[self._tuned].trainable_weights if self.trainable else []

    @property
    def trainable_variables(self) -> list[Any]:
        """The same as `trainable_weights`."""
        return self.trainable_weights

    def _frozen_layers(self) -> tuple[str, ...]:
        """Paths of the layers that stage 1 does not train, because its user has frozen them."""
        if self._tuned is not None:
            return self._frozen
        return tuple(part.path for part in self._stage1_parts() if not part.trainable)

    def _freeze(self, paths: Sequence[str]) -> None:
        for part in self._stage1_parts():
            part.trainable = part.trainable and part.path not in paths

    def _stage1_parts(self) -> list[keras.layers.Layer]:
        """The layers of stage 1 that have weights, at every depth."""
        nested = [p for layer in self._stage1_layers() for p in layer._flatten_layers()]
        return [part for part in nested if part.weights]

    def _stage1_layers(self) -> list[keras.layers.Layer]:
        others = (self.encoder, self.task_modules)
        return [layer for layer in self.layers if layer not in others]

    def _compile_anew(self, optimizer: Any = None) -> None:
        with self.distribute_strategy.scope():
            self.compile(optimizer or self._new_optimizer(), **self._compile_settings)

    def fingerprint(self, *, frozen_only: bool = False) -> str:
        """A SHA-256 over names, shapes and bytes of the weights.

        Args:
            frozen_only: Whether to cover only those that `fit` does not train now. Taken before and
                after stage 2, equal fingerprints prove that nothing older has changed. Defaults to
                `False`.

        Returns:
            The digest in hexadecimal.
        """
        moving = {id(weight) for weight in self._moving_weights()} if frozen_only else set()
        return fingerprint(
            weight
            for layer in [*self._stage1_layers(), self.task_modules]
            for weight in layer.weights
            if id(weight) not in moving and "seed_generator" not in weight.path
        )

    def _moving_weights(self) -> list[Any]:
        """What `fit` changes now: what is trained, and statistics of the module that is tuned."""
        if self._tuned is None:
            return self.trainable_weights
        return self.task_modules.modules[self._tuned].weights

    # Computation

    def call(self, inputs: Any, training: bool = False) -> dict[str, Any]:
        names = [task.name for task in self.tasks]
        logits = self.logits_of(inputs, names, training)
        return {name: prediction(self.task(name), logits[name]) for name in names}

    def logits_of(self, x: Any, names: Sequence[str], training: bool = False) -> dict[str, Any]:
        """See `MultiTaskModel.logits_of`."""
        return self.logits(self.represent(x, training), names, training)

    def logits(
        self, representation: Any, names: Sequence[str], training: bool = False
    ) -> dict[str, Any]:
        """What the towers of some tasks give.

        Args:
            representation: What `represent` gave.
            names: The tasks.
            training: Whether dropout acts. Defaults to `False`.

        Returns:
            By task, float32 (B, outputs).
        """
        logits = {}
        if any(task.name in names for task in self.stage1_tasks):
            outputs = self.stage1_logits(representation, training and self._tuned is None)
            logits = {t.name: out for t, out in zip(self.stage1_tasks, outputs, strict=True)}
        for name, module in self.task_modules.modules.items():
            if name in names:
                acts = training and name == self._tuned
                logits[name] = self._added_logits(module, representation, acts)
        return {name: logits[name] for name in names}

    # Training

    def training_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """The losses of the stage 1 tasks, or that of the added task's module."""
        if self._tuned is None:
            return self._stage1_outcome(x, y, weights)
        frozen = tf.nest.map_structure(ops.stop_gradient, self.represent(x))
        return self.with_penalties(y, weights, self.logits(frozen, [self._tuned], training=True))

    def _stage1_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """What a step of stage 1 minimizes, for subclasses that train more than the tasks."""
        return super().training_outcome(x, y, weights)

    @property
    def trained_epochs(self) -> int:
        """How many epochs of stage 1 and stage 2 this model was trained for: those counted.

        `fit` counts them; a loop of one's own does by `count_epoch`.
        """
        return int(self._progress.numpy()[3])

    def _training_progress(self) -> Any:
        """Fraction of all training steps done, in [0, 1]."""
        origin, first_step, step, _ = ops.unstack(ops.convert_to_tensor(self._progress), 4)
        done = ops.cast(self.optimizer.iterations, "float32") - first_step
        return ops.clip(origin + done * step, 0.0, 1.0)

    def begin_epoch(self, fraction_done: float, steps_left: int | None) -> None:
        """Tells how far the training is, for what depends on it.

        `fit` does so. A loop of one's own calls it before each epoch, or once before the first one
        with all its steps; else the training is always at its beginning, where the adversarial part
        of `MPTRec` has no strength.

        Args:
            fraction_done: Fraction of the whole training that is done, in [0, 1].
            steps_left: Optimizer steps from here to the end, `None` if unknown: then the progress
                moves from epoch to epoch only.

        Example:

        ```python
        for epoch in range(10):
            model.begin_epoch(epoch / 10, steps_left=(10 - epoch) * steps)
            for x, y in rows:
                model.train_on_batch(x, y)
            model.count_epoch()
        ```
        """
        self._told_progress = True
        step = (1.0 - fraction_done) / steps_left if steps_left else 0.0
        first_step = float(ops.convert_to_numpy(self.optimizer.iterations))
        self._progress.assign([fraction_done, first_step, step, self.trained_epochs])

    def count_epoch(self) -> None:
        """Counts an epoch that was trained; `fit` does so, and a loop of one's own can."""
        origin, first_step, step, epochs = self._progress.numpy()
        self._progress.assign([origin, first_step, step, epochs + 1])

    # Saving

    def get_config(self) -> dict[str, Any]:
        modules = self.task_modules.modules
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "encoder": self.encoder.get_config(),
            "tasks": [dump(task) for task in self.stage1_tasks],
            **self._settings,
            "added": [
                {"task": dump(task), "module": self._describe(modules[task.name])}
                for task in self._added
            ],
            "tuned": self._tuned,
            "frozen": list(self._frozen_layers()),
        }

    @classmethod
    def from_config(
        cls: type[ModelT], config: dict[str, Any], custom_objects: Any = None
    ) -> ModelT:
        config = dict(config)
        where = "the model's configuration"
        added, tuned = config.pop("added"), config.pop("tuned")
        frozen = config.pop("frozen", [])  # which older files lack
        encoder = FeatureEncoder.from_config(config.pop("encoder"))
        tasks = [parse(Task, task, where) for task in config.pop("tasks")]
        config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        model = cls(encoder, tasks, **config)
        model._freeze(frozen)
        for entry in added:
            task = parse(Task, entry["task"], where)
            model._attach(task, model._new_module(task, entry["module"]))
        if tuned is not None:
            model._tune(tuned)
        return model


class TaskModules(keras.layers.Layer):
    """The modules of the added tasks, by name, in the order in which they came.

    A container without a `build` of its own, so that Keras lets it grow after the model around it
    was built.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modules: dict[str, Any] = {}
        self.built = True
