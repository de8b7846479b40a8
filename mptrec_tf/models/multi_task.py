"""What every multi-task model shares: tasks, losses, metrics, and how `fit` runs them."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf import balancing as balancings
from mptrec_tf.balancing import Balancing
from mptrec_tf.data.datasets import require_rules, rows_by_number
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.layers.replicas import over_replicas
from mptrec_tf.models.inputs import check_inputs
from mptrec_tf.models.labels import (
    by_row,
    check_label_arrays,
    checked_weights,
    require_labels_of,
    unpack,
)
from mptrec_tf.models.multi_step import MultiStep, can_gather, can_run, in_blocks
from mptrec_tf.models.objectives import (
    TaskMetrics,
    example_losses,
    mean_loss,
    metric_names,
    metrics_by_task,
)
from mptrec_tf.models.progress import TrainingProgress
from mptrec_tf.optimizers.anew import maker_of
from mptrec_tf.spec import DataSpec, Task
from mptrec_tf.spec.given import given_tasks
from mptrec_tf.spec.parsing import dump, parse

MANY_STEPS = 32


class Outcome(NamedTuple):
    """What a step gives of its batch.

    Attributes:
        task_losses: By task, its part of the total loss, a scalar, its `loss_weight` included.
        logits: float32 (B, outputs) by task.
        losses: float32 (B,) by task, NaN for no label.
        other: What belongs to no task of the total loss, such as penalties, a scalar.
    """

    task_losses: dict[str, Any]
    logits: dict[str, Any]
    losses: dict[str, Any]
    other: Any = 0.0

    @property
    def loss(self) -> Any:
        """The total loss."""
        return sum(self.task_losses.values()) + self.other


class MultiTaskModel(keras.Model):
    """A model of several tasks: its losses, metrics and masks follow from the tasks.

    A subclass gives `logits_of`; `training_outcome` where more is trained than the tasks' losses,
    which `with_penalties` gives; `measured` where predictions answer to other labels than those
    given. `fit` runs `steps_per_execution` steps in one XLA computation, see `MultiStep`.

    The metric `loss` of a training step is what the step minimizes: the tasks' losses by their
    weights, what a subclass adds to them, and the penalties of layers. That of `evaluate`, and so
    `val_loss`, is the tasks' losses by their weights alone, of the tasks whose labels are given.
    The two are no measure of overfitting; `<task>_loss` and `val_<task>_loss` are alike.

    Args:
        encoder: An adapted `FeatureEncoder`. A copy is kept (and saved) with the model, and is not
            part of the computation: the model reads what the encoder gives. The one that was given
            may be adapted again.
        tasks: The tasks.
        **kwargs: `name` and `dtype` (such as `"mixed_bfloat16"`).

    Raises:
        SpecError: If a task's label column is a feature, or a task name is given twice.
        ModelError: If the encoder is not adapted, or there is no task.
    """

    steps_per_execution: int
    _compile_settings: dict[str, Any]
    train_function: Any
    test_function: Any
    predict_function: Any
    balancing: Balancing | None = None

    def __init__(self, encoder: FeatureEncoder, tasks: Sequence[Task], **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        if not isinstance(encoder, FeatureEncoder):
            raise ModelError(
                "a model needs an encoder, FeatureEncoder(features).adapt(rows). "
                f"Received: {type(encoder).__name__}"
            )
        if not encoder.is_adapted:
            raise ModelError("the encoder has not learned its encoding yet; call adapt(data) first")
        tasks = given_tasks(tasks)
        if not tasks:
            raise ModelError("a model needs at least one task")
        self.encoder = encoder.copy(adaptable=False)
        spec = {"features": dump(encoder.features), "tasks": dump(tasks)}
        self._given_tasks = parse(DataSpec, spec, "the model").tasks
        self._metrics_of_tasks = TaskMetrics(list(self._given_tasks))

    # What a subclass says

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks."""
        return self._given_tasks

    @property
    def trained_tasks(self) -> tuple[Task, ...]:
        """The tasks that `fit` trains now."""
        return self.tasks

    def logits_of(self, x: Any, names: Sequence[str], training: bool = False) -> dict[str, Any]:
        """What the towers of some tasks give, float32 (B, outputs) by task.

        Args:
            x: A batch as `FeatureEncoder` gives it.
            names: The tasks.
            training: Whether dropout acts. Defaults to `False`.
        """
        raise TypeError(f"{type(self).__name__} does not say what its logits are")

    def training_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """What a training step minimizes, with the penalties that layers add.

        Args:
            x: A batch as `FeatureEncoder` gives it.
            y: Labels by task, float (B,), NaN for no label.
            weights: Example weights by task, float (B,), of the tasks that have some.
        """
        names = [task.name for task in self.trained_tasks]
        return self.with_penalties(y, weights, self.logits_of(x, names, training=True))

    def measured(self, y: Mapping[str, Any]) -> Mapping[str, Any]:
        """The labels that losses and metrics compare predictions with; a subclass may correct them.

        Args:
            y: Labels by task, float (B,), NaN for no label; of some tasks, or such as this gave.
        """
        return y

    # Tasks

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            ModelError: If the model has no such task; the message lists those it has.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise ModelError(f"the model has no task {name!r}; its tasks are {self._names}")

    @property
    def _names(self) -> list[str]:
        return [task.name for task in self.tasks]

    # Training

    def compile(
        self,
        optimizer: Any = "adam",
        *,
        run_eagerly: bool = False,
        steps_per_execution: int | None = None,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        balancing: Any = None,
        metrics: Mapping[str, Sequence[Any]] | None = None,
        loss: None = None,
    ) -> None:
        """Configures the training; losses, metrics and masks follow from the tasks.

        Args:
            optimizer: A Keras optimizer or its name. Defaults to `"adam"`.
            run_eagerly: Whether to run without a graph, to debug. Defaults to `False`.
            steps_per_execution: Steps in one call of the graph; callbacks hear of batches that
                often. Defaults to `None`: 32, or 1 with several replicas or `run_eagerly`; where
                `fit`, `evaluate` or `predict` is told how many steps to take, the largest number
                up to that which divides them. One that is given must divide them.
            jit_compile: Whether to compile with XLA. Defaults to `"auto"`: always, but with several
                replicas or `run_eagerly`.
            auto_scale_loss: Whether to scale the loss under `mixed_float16`. Defaults to `True`.
            balancing: How much each task counts: `"uncertainty"`, `"gradnorm"`, `"pcgrad"`,
                `"famo"` or a `mptrec_tf.balancing.Balancing`, of which a copy is made. Has no
                effect while one task is trained, as in stage 2; metrics are those of the static
                weights. Defaults to `None`: the static weights, each task's `loss_weight`.
            metrics: More metrics by task: Keras metrics that heed `sample_weight`, of which copies
                are made, or their names, of which `"accuracy"` and `"crossentropy"` mean that of
                the task's kind. They compare the labels with what `predict` gives, and are told as
                `<task>_<name>`. Defaults to `None`.
            loss: Not for these models: a task's `kind` and `loss_weight` say what its loss is.

        Raises:
            ModelError: If several replicas are to balance several tasks, a loss is given, or
                `metrics` is no dict by task, has a task that the model has not, or two would have
                the same name.

        Example:

        ```python
        model.compile(metrics={"click": [keras.metrics.AUC(curve="PR", name="pr_auc")]})
        model.fit(rows).history["click_pr_auc"]
        ```
        """
        if loss is not None:
            raise ModelError(
                "the losses follow from the tasks: give each Task its kind and loss_weight instead "
                f"of a loss. Received: loss={loss!r}"
            )
        own_metrics = metrics_by_task(metrics, self.task)
        metrics_of_tasks = TaskMetrics(list(self.tasks), own_metrics)
        # With several replicas Keras' loop over steps fails, and XLA lacks what joins them. Keras'
        # own "auto" leaves XLA out on a CPU, where it is what makes steps fast.
        fast = self.distribute_strategy.num_replicas_in_sync == 1 and not run_eagerly
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution or (MANY_STEPS if fast else 1),
            jit_compile=fast if jit_compile == "auto" else jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        self._most_steps = self.steps_per_execution
        self._functions: dict[int, tuple[Any, Any, Any]] = {}
        begun = balancings.get(balancing)
        # As it is now: training changes the learning rate, and `get_config` would give that.
        self._new_optimizer = maker_of(self.optimizer)
        settings = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
            "balancing": begun and keras.saving.serialize_keras_object(begun),
            "metrics": own_metrics,
        }
        # Past Keras' tracking, which would take these metrics for the model's own.
        object.__setattr__(self, "_compile_settings", settings)
        self._begin(begun if len(self.trained_tasks) > 1 else None)
        self._metrics_of_tasks = metrics_of_tasks

    def _begin(self, balancing: Balancing | None) -> None:
        if balancing is not None:
            replicas = self.distribute_strategy.num_replicas_in_sync
            if replicas > 1:
                raise ModelError(
                    f"balancing by {type(balancing).__name__} compares the tasks on a whole batch, "
                    f"of which {replicas} replicas see a part each; train on one replica, or give "
                    "each task a loss_weight and balancing=None"
                )
            weights = [task.loss_weight for task in self.trained_tasks]
            with self.distribute_strategy.scope():
                balancing.begin(weights, self.trainable_weights)
        self._balance_by(balancing)

    def _balance_by(self, balancing: Balancing | None) -> None:
        if balancing is not self.balancing:
            self.train_function = None  # which was made with another one
        # Past Keras' tracking: saved with the model, as the optimizer is, but none of its weights.
        object.__setattr__(self, "balancing", balancing)

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        return {
            **self._compile_settings,
            "metrics": {
                name: [keras.metrics.serialize(metric) for metric in given]
                for name, given in self._compile_settings["metrics"].items()
            },
            "optimizer": keras.optimizers.serialize(self.optimizer),
            "new_optimizer": keras.optimizers.serialize(self._new_optimizer()),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = dict(config)
        new = config.pop("new_optimizer", None)  # which older files lack
        self.compile(keras.optimizers.deserialize(config.pop("optimizer")), **config)
        if new is not None:
            self._new_optimizer = maker_of(keras.optimizers.deserialize(new))
        self.build_optimizer()

    def build_optimizer(self) -> None:
        """Creates the optimizer's state, unless it has one.

        One that scales losses would forget its scale.
        """
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Every metric of every task."""
        return self._metrics_of_tasks.all if self.compiled else []

    @property
    def metrics_names(self) -> list[str]:
        """What `evaluate` gives, in its order, where all tasks have labels."""
        if not self.compiled:
            return []
        others = self._metrics_of_tasks.others.values()
        return metric_names(self.tasks, [metric.name for several in others for metric in several])

    def get_metrics_result(self) -> dict[str, Any]:
        """Every metric of every task, NaN where nothing that defines it was counted."""
        return self._metrics_of_tasks.results(self._names)

    def _get_metrics_result_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        # Of the tasks in the logs. Keras takes the logs themselves where some tasks are not in
        # them; with several replicas those are means of what each replica has counted.
        return {name: value for name, value in self.get_metrics_result().items() if name in logs}

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains the tasks; see `keras.Model.fit`.

        With a `tf.data.Dataset` of your own, an epoch's end may wait for seconds until `tf.data`
        has ended the tuning of its buffers; `options.autotune.enabled = False` in its
        `tf.data.Options` leaves that out, as the datasets of this library do.

        Raises:
            ModelError: If labels of a task that is trained are missing from `y` or have another
                shape than (B,) or (B, 1), another worker was lost, or `steps_per_epoch` or
                `validation_steps` is no multiple of the `steps_per_execution` that `compile` was
                given, there are example weights of tasks without labels, `class_weight` is given,
                the rows are not encoded, or by another encoder than the model's, or nothing is
                trainable.
            DataError: If a label is not one that its task allows, or a labelled row has an example
                weight that is none (checked where they are arrays).
        """
        if not self.trainable_weights:
            raise ModelError(
                "there is nothing to train, since all layers are frozen; set trainable = True of "
                "the model, or of those that are to be trained, and compile it again"
            )
        given = _by_name(keras.Model.fit, self, x, y, *args, **kwargs)
        given["sample_weight"] = self._checked(x, y, given.get("sample_weight"))
        require_rules(x, [task.name for task in self.trained_tasks])
        if given.get("class_weight") is not None:
            raise ModelError(
                "class_weight is for models with one output; here a Task has example weights "
                "(weight=, a column) and a loss_weight"
            )
        self._meet(given, "steps_per_epoch", "validation_steps")
        given["callbacks"] = self._with_progress(given.get("callbacks"), given.get("epochs", 1))
        if (validation := given.get("validation_data")) is not None:
            given["validation_data"] = self._checked_validation(validation)
        if isinstance(x, tf.data.Dataset):
            given.setdefault("shuffle", False)  # the dataset shuffles, Keras cannot
        rows = rows_by_number(x) if self.compiled and can_run(self) and can_gather() else None
        if rows is not None:
            given["x"] = in_blocks(rows, self.steps_per_execution, self._names)
        try:
            return super().fit(**given)
        except tf.errors.OpError as error:
            if "Collective" not in error.message:
                raise
            raise ModelError(
                "another worker was lost, and none can train alone: start all of them again. With "
                "ResumableEarlyStopping, as the commands have it, training goes on after the last "
                "finished epoch"
            ) from error
        finally:
            self._initial_epoch = None  # where a callback let this training go on

    def _checked(self, x: Any, y: Any, weights: Any) -> Any:
        """Checks rows as far as can be seen, and gives their weights as Keras takes them."""
        check_inputs(x, self.encoder)
        check_label_arrays(y, self.task)
        return checked_weights(y, weights, self.task, self.measured)

    def _checked_validation(self, validation: Any) -> Any:
        if not isinstance(validation, tuple | list):
            check_inputs(validation, self.encoder)
            return validation
        x, y, weights = keras.utils.unpack_x_y_sample_weight(validation)
        return x, y, self._checked(x, y, weights)

    def _with_progress(self, callbacks: Any, epochs: int) -> Any:
        """The callbacks that `fit` is given, and one that tells the model how far it is."""
        whole = callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else None
        given = whole.callbacks if whole else _as_list(callbacks or [])
        if any(isinstance(one, TrainingProgress) for one in given):
            return callbacks
        progress = TrainingProgress()
        if whole is None:
            return [progress, *given]
        progress.set_model(self)
        progress.set_params({"epochs": epochs, "steps": None})
        whole.callbacks.append(progress)
        return whole

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Loss and metrics of the tasks whose labels `y` holds; see `keras.Model.evaluate`.

        Raises:
            ModelError: If `y` holds no labels of the model's tasks or some of another shape than
                (B,) or (B, 1), `steps` is no multiple of the `steps_per_execution` that `compile`
                was given, or the rows are not encoded, or by another encoder than the model's.
            DataError: As `fit`.
        """
        given = _by_name(keras.Model.evaluate, self, x, y, *args, **kwargs)
        if "_use_cached_eval_dataset" not in given:  # not within `fit`, which has seen to it
            given["sample_weight"] = self._checked(x, y, given.get("sample_weight"))
            self._meet(given, "steps")
        return super().evaluate(**given)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """What the tasks are predicted to be, by task; see `keras.Model.predict`.

        Raises:
            ModelError: If `steps` is no multiple of the `steps_per_execution` that `compile` was
                given, or the rows are not encoded, or by another encoder than the model's.
        """
        check_inputs(x, self.encoder)
        given = _by_name(keras.Model.predict, self, x, *args, **kwargs)
        self._meet(given, "steps")
        return super().predict(**given)

    def _meet(self, given: Mapping[str, Any], *names: str) -> None:
        """Makes calls of so many steps that the numbers of steps that are asked for are met.

        Keras takes whole calls, and so more steps than it was told where a call's do not divide
        them.
        """
        if not self.compiled:
            return
        counts = {name: given[name] for name in names if given.get(name)}
        if limit := keras.config.max_steps_per_epoch():
            counts = {name: min(count, limit) for name, count in counts.items()}
            counts["keras.config.max_steps_per_epoch()"] = limit
        steps = self._most_steps
        if self._compile_settings["steps_per_execution"] is not None:
            for name, count in counts.items():
                if count % steps:
                    raise ModelError(
                        f"{name}={count} is no multiple of steps_per_execution={steps}, so Keras "
                        "would take more steps; give another number, or compile without "
                        "steps_per_execution, which is then chosen to fit"
                    )
        common = math.gcd(*counts.values())  # 0 of none
        steps = next(n for n in range(steps, 0, -1) if common % n == 0)
        if steps != self.steps_per_execution:
            functions = (self.train_function, self.test_function, self.predict_function)
            self._functions[self.steps_per_execution] = functions
            made = self._functions.pop(steps, (None, None, None))
            self.train_function, self.test_function, self.predict_function = made
            self.steps_per_execution = steps

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Refuses: `mptrec_tf.serving.export` is what exports these models.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            "mptrec_tf.serving.export(model, directory) exports these models: with their encoder, "
            "so that what is served takes raw rows"
        )

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Does nothing: these models are built when they are made.

        Keras averages the first batch over the replicas for it, and fails where these have parts of
        other sizes.
        """

    def begin_epoch(self, fraction_done: float, steps_left: int | None) -> None:
        """Tells how far the training is; for subclasses that depend on it.

        `fit` calls it before each epoch, and a loop of one's own should.

        Args:
            fraction_done: Fraction of the whole training that is done, in [0, 1].
            steps_left: Optimizer steps from here to the end, `None` if unknown.
        """

    def count_epoch(self) -> None:
        """Tells that an epoch was trained, as `fit` does; for subclasses that depend on it."""

    def make_train_function(self, force: bool = False) -> None:
        if force or self.train_function is None:
            # A step that failed while it was traced would leave the optimizer half built.
            self.build_optimizer()
            super().make_train_function(force)
            if can_run(self):
                self.train_function = MultiStep(self, self.train_function)

    def train_step(self, data: Any) -> dict[str, Any]:
        return self.counted(data, self.learn(data))

    def learn(self, data: Any) -> Outcome:
        """One optimizer step.

        Args:
            data: `(x, y)` or `(x, y, weights)`.
        """
        x, y, weights = unpack(data, self._names)
        require_labels_of(y, [task.name for task in self.trained_tasks])
        balancing, variables = self.balancing, self.trainable_weights
        replicas = self.distribute_strategy.num_replicas_in_sync
        dropout = [(s, tf.convert_to_tensor(s)) for s in self._seeds_of_dropout()]
        with tf.GradientTape(persistent=balancing is not None) as tape:
            outcome = self.training_outcome(x, y, weights or {})
            scaled = self.optimizer.scale_loss(outcome.loss / replicas)
        if balancing is None:
            gradients = tape.gradient(scaled, variables)
        else:
            gradients = balancing.gradients(
                tape,
                list(outcome.task_losses.values()),
                outcome.other,
                variables,
                self.optimizer.scale_loss(1.0),
            )
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        if balancing is not None and balancing.looks_back:
            for state, value in dropout:
                state.assign(value)
            again = self.training_outcome(x, y, weights or {})
            balancing.look_back(
                *(balancing.losses_of(o.task_losses.values()) for o in (outcome, again))
            )
        return outcome

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, weights = unpack(data, self._names)
        names = [name for name in self._names if name in (y or {})]
        if not names:
            raise ModelError(f"y holds no labels of {self._names}")
        outcome = self._outcome(self.measured(y), weights or {}, self.logits_of(x, names))
        return self.counted(data, outcome)

    def outcome_shapes(self, rows: int) -> Outcome:
        """The shapes within what `learn` gives, all float32.

        Args:
            rows: Rows of the batch.
        """
        outputs = {task.name: task.num_outputs for task in self.trained_tasks}
        logits = {name: tf.TensorShape((rows, count)) for name, count in outputs.items()}
        task_losses = dict.fromkeys(outputs, tf.TensorShape(()))
        losses = dict.fromkeys(outputs, tf.TensorShape((rows,)))
        return Outcome(task_losses, logits, losses, tf.TensorShape(()))

    def counted(self, data: Any, outcome: Outcome) -> dict[str, Any]:
        """Counts the outcome of one step in the metrics, and gives their values so far.

        Args:
            data: The batch, `(x, y)` or `(x, y, weights)`.
            outcome: The outcome.
        """
        _, y, weights = unpack(data, self._names)
        rows = ops.shape(next(iter(y.values())))[0]
        return self.count(y, weights, outcome.logits, outcome.losses, outcome.loss, rows)

    def count(
        self,
        y: Mapping[str, Any],
        weights: Mapping[str, Any] | None,
        logits: Mapping[str, Any],
        losses: Mapping[str, Any],
        loss: Any,
        rows: Any,
    ) -> dict[str, Any]:
        """Counts rows of one step or of several in the metrics, and gives their values so far.

        Args:
            y: Labels by task, float (rows,), NaN for those that count nowhere.
            weights: Example weights by task, float (rows,), or `None`.
            logits: float32 (rows, outputs) by task.
            losses: float32 (rows,) by task.
            loss: The total loss, of one step or (steps,).
            rows: How many rows it is of, likewise.
        """
        metrics = self._metrics_of_tasks
        # Each replica's loss is a part of their mean, however many rows it has.
        rows = over_replicas(tf.distribute.ReduceOp.MEAN, ops.cast(rows, "float32"))
        metrics.loss.update_state(loss, sample_weight=rows)
        y = self.measured(y)
        for name, out in logits.items():
            labels = ops.cast(y[name], "float32")
            metrics.update(name, labels, out, losses[name], (weights or {}).get(name))
        return metrics.results(logits)

    def with_penalties(
        self, y: Mapping[str, Any], weights: Mapping[str, Any], logits: dict[str, Any]
    ) -> Outcome:
        """The tasks' losses, and the penalties that layers have added in this step.

        Penalties are read before the losses are taken, at which replicas wait for one another: they
        run in threads of one process, which share what a layer has added.

        Args:
            y: Labels by task, float (B,), NaN for no label.
            weights: Example weights by task, float (B,), of the tasks that have some.
            logits: float32 (B, outputs) by task.
        """
        penalties = sum((ops.cast(term, "float32") for term in self.losses), 0.0)
        return self._outcome(y, weights, logits)._replace(other=penalties)

    def _outcome(
        self, y: Mapping[str, Any], weights: Mapping[str, Any], logits: dict[str, Any]
    ) -> Outcome:
        """The tasks' losses and nothing else: no `other`."""
        losses = self._example_losses(y, logits)
        task_losses = {
            name: self.task(name).loss_weight
            * mean_loss(values, ops.cast(y[name], "float32"), weights.get(name))
            for name, values in losses.items()
        }
        return Outcome(task_losses, logits, losses)

    def _example_losses(self, y: Mapping[str, Any], logits: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: example_losses(self.task(name), by_row(name, ops.cast(y[name], "float32")), out)
            for name, out in logits.items()
        }

    def _seeds_of_dropout(self) -> list[Any]:
        """The states of the dropout, where a step is to be looked back at."""
        if self.balancing is None or not self.balancing.looks_back:
            return []
        return [v for v in self.non_trainable_variables if "seed_generator" in v.path]


def _by_name(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a method's call by name, without `self`."""
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    del given["self"]
    return given | given.pop("kwargs", {})


def _as_list(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
