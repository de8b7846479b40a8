"""The MPT-Rec model: several tasks trained together, and new ones added without changing them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mptrec_tf.data.datasets import EXAMPLE_ID
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.layers import Gate, TaskPrompt, TowerBank, reversal_strength
from mptrec_tf.models.adversary import Adversary, assign_lowest_loss
from mptrec_tf.models.backbone import Backbone, Representation
from mptrec_tf.models.freezing import fingerprint
from mptrec_tf.models.multi_task import MultiTaskModel, Outcome
from mptrec_tf.models.objectives import prediction
from mptrec_tf.models.prompt_module import PromptModule, PromptModules
from mptrec_tf.spec import Task
from mptrec_tf.spec.data_spec import check_labels_are_not_features
from mptrec_tf.spec.parsing import dump, parse


@keras.saving.register_keras_serializable("mptrec_tf")
class MPTRec(MultiTaskModel):
    """Two-stage multi-task prompt tuning for recommendation.

    Stage 1 trains all tasks of `tasks` together: `compile`, `fit`. Stage 2 adds a task with
    `add_task`; from then on `fit` trains the new task's prompt module alone, and everything older
    is
    frozen: the outputs of the older tasks do not change by one bit. Stage 2 can be repeated for any
    number of tasks.

    Stage 1 minimizes `sum_k w_k L_k(T_k(f_k)) + generic_weight * sum_k w_k L_k(T_k(g)) +
    adversarial_weight * L_adversarial + L2`, with `f_k = a_k[0] s_k * p_k + a_k[1] g`.

    Args:
        encoder: An adapted `FeatureEncoder`. It is kept (and saved) with the model, and is not part
            of the computation: the model reads what the encoder gives.
        tasks: The stage 1 tasks.
        embedding_dim: Width of the embeddings of features that give none of their own. Defaults to
            8 (published: 4 to 5).
        expert_units: Widths of each expert's layers. Defaults to (256, 128).
        tower_units: Hidden widths of each tower. Defaults to (64, 32).
        activation: Activation of experts and towers. Defaults to `"relu"`.
        expert_dropout: Dropout after each layer of the experts. Defaults to 0.
        tower_dropout: Dropout after each hidden layer of the towers. Defaults to 0.
        generic_weight: `lambda_g`, weight of the predictions from the shared representation alone.
            Defaults to 0.2 (published: 0.9).
        adversarial: `"representations"` (default), `"assigned"` (published), `"periodic"`
            (reference code) or `None`; see `mptrec_tf.models.adversary.Adversary`.
        adversarial_weight: `lambda_d`. Defaults to 0.1, as published.
        l2_embedding: L2 penalty on the embeddings that a batch looks up, a mean over its rows.
            Defaults to 0.
        l2: L2 penalty on the other kernels. Defaults to 0.
        seed: Seed of the dropout. Weights are seeded by `keras.utils.set_random_seed`. Defaults to
            `None`.
        **kwargs: `name` and `dtype` (such as `"mixed_bfloat16"`).

    Input: a dict as `FeatureEncoder` gives it. Output of `model(x)` and `predict`: a dict by task:
    probability (B,) for a binary task, class probabilities (B, C) for a multiclass task, the number
    (B,) for a regression task.

    `fit` and `evaluate` take labels as a dict by task, float (B,), NaN for no label, and optional
    example weights as a dict by task. Metrics: `loss`, `<task>_loss`, `<task>_auc` (or `_accuracy`,
    `_rmse`), `mean_auc`.

    Raises:
        SpecError: If a task's label column is a feature, or a task name is given twice.
        ModelError: If the encoder is not adapted.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1], "buy": [0, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> tasks = [Task("click", "click"), Task("like", "like")]
    >>> model = MPTRec(encoder, tasks, expert_units=(8, 4), tower_units=(4,))
    >>> model.compile("adam")
    >>> history = model.fit(make_dataset(rows, encoder, tasks), verbose=0)
    >>> model.add_task(Task("buy", "buy"))
    >>> history = model.fit(make_dataset(rows, encoder, [Task("buy", "buy")]), verbose=0)
    >>> sorted(model.predict(encoder.encode(rows), verbose=0))
    ['buy', 'click', 'like']

    Reference: Bai et al., "Efficient Multi-task Prompt Tuning for Recommendation",
    arXiv:2408.17214.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        embedding_dim: int = 8,
        expert_units: Sequence[int] = (256, 128),
        tower_units: Sequence[int] = (64, 32),
        activation: Any = "relu",
        expert_dropout: float = 0.0,
        tower_dropout: float = 0.0,
        generic_weight: float = 0.2,
        adversarial: str | None = "representations",
        adversarial_weight: float = 0.1,
        l2_embedding: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, tasks, **{"name": "mptrec", **kwargs})
        self._settings = {
            "embedding_dim": embedding_dim,
            "expert_units": tuple(expert_units),
            "tower_units": tuple(tower_units),
            "activation": keras.activations.serialize(keras.activations.get(activation)),
            "expert_dropout": expert_dropout,
            "tower_dropout": tower_dropout,
            "generic_weight": generic_weight,
            "adversarial": adversarial,
            "adversarial_weight": adversarial_weight,
            "l2_embedding": l2_embedding,
            "l2": l2,
            "seed": seed,
        }
        self.generic_weight = generic_weight
        self.adversarial_weight = adversarial_weight
        count = len(self.stage1_tasks)
        regularizer = keras.regularizers.L2(l2) if l2 else None
        self.backbone = Backbone(
            encoder,
            count,
            embedding_dim=embedding_dim,
            expert_units=tuple(expert_units),
            activation=activation,
            dropout=expert_dropout,
            l2_embedding=l2_embedding,
            l2=l2,
            seed=seed,
            name="backbone",
            dtype=self.dtype_policy,
        )
        self.prompts = TaskPrompt(count, name="prompts", dtype=self.dtype_policy)
        self.gates = Gate(
            count, kernel_regularizer=regularizer, name="gates", dtype=self.dtype_policy
        )
        self.towers = TowerBank(
            [task.num_outputs for task in self.stage1_tasks],
            tower_units,
            activation,
            tower_dropout,
            kernel_regularizer=regularizer,
            seed=seed,
            name="towers",
            dtype=self.dtype_policy,
        )
        self.adversary = None
        if adversarial is not None:
            self.adversary = Adversary(
                adversarial, count, name="adversary", dtype=self.dtype_policy
            )
        self.prompt_modules = PromptModules(name="prompt_modules", dtype=self.dtype_policy)
        self._added: tuple[Task, ...] = ()
        self._tuned: str | None = None
        self.assignments: AssignedTasks | None = None
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Creates the weights; called by the constructor, since the encoder defines the input."""
        width, hidden = self.backbone.input_dim, self._settings["expert_units"][-1]
        self.backbone.build()
        self.prompts.build((None, len(self.stage1_tasks), hidden))
        self.gates.build((None, width))
        self.towers.build((None, len(self.stage1_tasks), hidden))
        if self.adversary is not None:
            self.adversary.build((None, hidden))
        # Progress at the epoch's beginning, optimizer step there, progress a step, epochs trained.
        self._progress = self.add_weight(
            name="progress", shape=(4,), initializer="zeros", trainable=False, dtype="float32"
        )

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

    def add_task(
        self,
        task: Task,
        *,
        optimizer: Any = None,
        attention: str = "example",
        representation: str = "both",
        query_units: int | None = None,
        temperature: float = 150.0,
        input_projection: int = 16,
        tower_units: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
    ) -> None:
        """Freezes all that exists, adds a prompt module for a new task, and compiles for it alone.

        The training data of the new task may be other rows than those of stage 1 and need not carry
        the older tasks' labels.

        Args:
            task: The new task.
            optimizer: Optimizer of the module. Defaults to `None`: as the model was compiled
                before, begun anew.
            attention: Defaults to `"example"`, see `PromptModule` for this and what follows.
            representation: Defaults to `"both"`.
            query_units: Defaults to `None`, half an expert's width.
            temperature: Defaults to 150.
            input_projection: Defaults to 16.
            tower_units: Defaults to (64, 32).
            dropout: Defaults to 0.
            l2: Defaults to 0.
            seed: Seed of the dropout. Defaults to `None`.

        Raises:
            ModelError: If the model was not compiled or not trained, or has a task of that name.
            SpecError: If the task's label column is a feature.

        Example:

        ```python
        model.add_task(Task("education", label="education", positive="Bachelors degree(BA AB BS)"))
        model.fit(education_rows, validation_data=..., epochs=10)
        ```
        """
        if task.name in {known.name for known in self.tasks}:
            raise ModelError(f"the model already has a task {task.name!r}")
        check_labels_are_not_features(self.encoder.features, (task,))
        if not self.compiled:
            raise ModelError(f"compile the model before the task {task.name!r} is added")
        if self.trained_epochs == 0:
            raise ModelError(
                f"train the model before the task {task.name!r} is added: its module learns from "
                "frozen experts, and these are still as they were initialized"
            )
        with self.distribute_strategy.scope():
            module = PromptModule(
                task.num_outputs,
                attention=attention,
                representation=representation,
                query_units=query_units,
                temperature=temperature,
                input_projection=input_projection,
                tower_units=tuple(tower_units),
                dropout=dropout,
                l2=l2,
                seed=seed,
                name=task.name,
                dtype=self.dtype_policy,
            )
            self._attach(task, module)
        self.tune_task(task.name, optimizer)

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
        self._tune(name)
        with self.distribute_strategy.scope():
            settings = self._compile_settings
            self.compile(**{**settings, "optimizer": optimizer or _anew(settings["optimizer"])})

    def drop_task(self, name: str) -> None:
        """Removes an added task; no other task changes. Without added tasks, stage 1 goes on.

        Args:
            name: The added task.

        Raises:
            ModelError: If it is not an added task. The tasks of stage 1 are trained together and
                cannot be removed.
        """
        self._require_added(name)
        self.prompt_modules.modules.pop(name)
        self._added = tuple(task for task in self._added if task.name != name)
        if self._tuned == name:
            self._tune(self._added[-1].name if self._added else None)
        if self.compiled:
            with self.distribute_strategy.scope():
                settings = self._compile_settings
                self.compile(**{**settings, "optimizer": _anew(settings["optimizer"])})

    def _require_added(self, name: str) -> None:
        if self.task(name) not in self._added:
            raise ModelError(f"{name!r} is a task of stage 1, not one that was added")

    def _attach(self, task: Task, module: PromptModule) -> None:
        hidden = self._settings["expert_units"][-1]
        count = len(self.stage1_tasks)
        shapes = Representation(
            (None, self.backbone.input_dim), (None, hidden), (None, count, hidden)
        )
        module.build(shapes, (count, hidden))
        self.prompt_modules.modules[task.name] = module
        self._added += (task,)

    def _tune(self, name: str | None) -> None:
        """Sets what is trainable: stage 1, or one module."""
        self._tuned = name
        for layer in (self.backbone, self.prompts, self.gates, self.towers, self.adversary):
            if layer is not None:
                layer.trainable = name is None
        for task, module in self.prompt_modules.modules.items():
            module.trainable = task == name

    def fingerprint(self, *, frozen_only: bool = False) -> str:
        """A SHA-256 over names, shapes and bytes of the weights.

        Args:
            frozen_only: Whether to cover only those that `fit` does not train now. Taken before and
                after stage 2, equal fingerprints prove that nothing older has changed. Defaults to
                `False`.

        Returns:
            The digest in hexadecimal.
        """
        layers: list[keras.layers.Layer] = [self.backbone, self.prompts, self.gates, self.towers]
        layers += [layer for layer in (self.adversary,) if layer is not None]
        layers += list(self.prompt_modules.modules.values())
        trainable = {id(weight) for weight in self.trainable_weights} if frozen_only else set()
        return fingerprint(
            weight
            for layer in layers
            for weight in layer.weights
            if id(weight) not in trainable and "seed_generator" not in weight.path
        )

    def representation_fingerprint(self) -> str:
        """A SHA-256 over all that `represent` depends on: encoding, precision, backbone's weights.

        Adding, training and dropping tasks of stage 2 leave it as it is.

        Returns:
            The digest in hexadecimal.
        """
        config = {
            "features": dump(self.encoder.features),
            "numeric_state": self.encoder.numeric_state,
            "activation": self._settings["activation"],
            "dtype": self.backbone.compute_dtype,
        }
        weights = (w for w in self.backbone.weights if "seed_generator" not in w.path)
        text = json.dumps(config, sort_keys=True) + fingerprint(weights)
        return hashlib.sha256(text.encode()).hexdigest()

    # Computation

    def represent(
        self, inputs: Mapping[str, Any] | Representation, training: bool = False
    ) -> Representation:
        """What all tasks share of a batch: input `x`, shared `g`, specific `s_k`.

        Args:
            inputs: A batch as `FeatureEncoder` gives it, or its `Representation`, which is given
                back in the model's precision: so `fit` (in stage 2), `evaluate` and `predict` take
                batches that were represented before, see `mptrec_tf.training.cache_rows`.
            training: Whether dropout acts; never in stage 2. Defaults to `False`.
        """
        if isinstance(inputs, Representation):
            return Representation(*(ops.cast(part, self.compute_dtype) for part in inputs))
        return self.backbone(inputs, training=training and self._tuned is None)

    def call(
        self, inputs: Mapping[str, Any] | Representation, training: bool = False
    ) -> dict[str, Any]:
        representation = self.represent(inputs, training)
        names = [task.name for task in self.tasks]
        logits = self.logits(representation, names, training)
        return {name: prediction(self.task(name), logits[name]) for name in names}

    def logits(
        self, representation: Representation, names: Sequence[str], training: bool = False
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
            fused = self._fuse(representation)
            outputs = self.towers(fused, training=training and self._tuned is None)
            logits = {t.name: out for t, out in zip(self.stage1_tasks, outputs, strict=True)}
        sources = ops.stop_gradient(self.prompts.prompts)
        for name, module in self.prompt_modules.modules.items():
            if name in names:
                (logits[name],) = module(
                    representation, sources, training=training and name == self._tuned
                )
        return {name: logits[name] for name in names}

    def _fuse(self, representation: Representation) -> Any:
        """`f_k` of the stage 1 tasks, (B, K, h)."""
        gates = self.gates(representation.x)
        prompted = self.prompts(representation.specific)
        return gates[..., :1] * prompted + gates[..., 1:] * representation.shared[:, None]

    def gate_weights(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """How much each task uses of its specific and of the shared representation.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.

        Returns:
            By task, float (B, 2): specific, shared. Tasks without a gate are left out.
        """
        x = self.represent(inputs).x
        gates = self.gates(x)
        weights = {task.name: gates[:, k] for k, task in enumerate(self.stage1_tasks)}
        for name, module in self.prompt_modules.modules.items():
            if module.gate is not None:
                weights[name] = module.gate(x)[:, 0]
        return weights

    def prompt_weights(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """How much each added task takes from each stage 1 task's expert.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.

        Returns:
            By added task, float (B, K) or (1, K). Tasks without attention are left out.
        """
        representation = self.represent(inputs)
        return {
            name: module.attend(representation, self.prompts.prompts)
            for name, module in self.prompt_modules.modules.items()
            if module.attention is not None
        }

    # Training

    @property
    def trained_epochs(self) -> int:
        """How many epochs of stage 1 and stage 2 this model has been trained for."""
        return int(self._progress.numpy()[3])

    def logits_of(self, x: Any, names: Sequence[str], training: bool = False) -> dict[str, Any]:
        """See `MultiTaskModel.logits_of`; `x` may be a `Representation`."""
        return self.logits(self.represent(x, training), names, training)

    def training_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """The loss of stage 1, or that of the added task's module.

        Raises:
            ModelError: If stage 1 is given cached representations.
        """
        if self._tuned is None:
            if isinstance(x, Representation):
                raise ModelError(
                    "cached representations can train an added task only; stage 1 changes them and "
                    "needs encoded rows"
                )
            return self._stage1_outcome(x, y, weights)
        frozen = Representation(*map(ops.stop_gradient, self.represent(x)))
        return self._outcome(y, weights, self.logits(frozen, [self._tuned], training=True))

    def _stage1_outcome(
        self, x: Mapping[str, Any], y: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> Outcome:
        names = [task.name for task in self.stage1_tasks]
        representation = self.represent(x, training=True)
        features = self._fuse(representation)
        rows = ops.shape(features)[0]
        if self.generic_weight:
            shared = ops.broadcast_to(representation.shared[:, None], ops.shape(features))
            features = ops.concatenate([features, shared], axis=0)
        outputs = self.towers(features, training=True)
        logits = {name: out[:rows] for name, out in zip(names, outputs, strict=True)}
        outcome = self._outcome(y, weights, logits)
        if self.generic_weight:
            generic = {name: out[rows:] for name, out in zip(names, outputs, strict=True)}
            parts = self._outcome(y, weights, generic).task_losses
            task_losses = {
                name: loss + self.generic_weight * parts[name]
                for name, loss in outcome.task_losses.items()
            }
            outcome = outcome._replace(task_losses=task_losses)
        if self.adversary is not None:
            adversarial = self.adversary(
                representation.shared,
                representation.specific,
                alpha=reversal_strength(self._training_progress()),
                assignment=self._assignment(x, outcome.losses),
            )
            other = self.adversarial_weight * ops.cast(adversarial, "float32")
            outcome = outcome._replace(other=other)
        return outcome

    def example_losses(self, x: Mapping[str, Any], y: Mapping[str, Any]) -> Any:
        """The losses of the stage 1 tasks on each example.

        Args:
            x: A batch as `FeatureEncoder` gives it.
            y: Labels by task, float (B,), NaN for no label.

        Returns:
            float32 (B, K), NaN where an example has no label of a task.
        """
        names = [task.name for task in self.stage1_tasks]
        logits = self.logits(self.represent(x), names, training=False)
        return ops.stack(list(self._example_losses(y, logits).values()), axis=-1)

    def _assignment(self, x: Mapping[str, Any], losses: Mapping[str, Any]) -> Any:
        """The task `z` to which each example is assigned, for the forms that use one."""
        if self._settings["adversarial"] == "assigned":
            return assign_lowest_loss(ops.stack(list(losses.values()), axis=-1))
        if self._settings["adversarial"] == "periodic":
            if self.assignments is None or EXAMPLE_ID not in x:
                raise ModelError(
                    'adversarial="periodic" needs the callback PeriodicAssignment and a dataset '
                    "made with with_example_ids=True"
                )
            return self.assignments.of(x[EXAMPLE_ID])
        return None

    def _training_progress(self) -> Any:
        """Fraction of all training steps done, in [0, 1]."""
        origin, first_step, step, _ = ops.unstack(ops.convert_to_tensor(self._progress), 4)
        done = ops.cast(self.optimizer.iterations, "float32") - first_step
        return ops.clip(origin + done * step, 0.0, 1.0)

    def begin_epoch(self, fraction_done: float, steps_left: int | None) -> None:
        """Tells how far the training is, for the strength of the adversarial part.

        Args:
            fraction_done: Fraction of the whole training that is done, in [0, 1].
            steps_left: Optimizer steps from here to the end, `None` if unknown: then the progress
                moves from epoch to epoch only.
        """
        step = (1.0 - fraction_done) / steps_left if steps_left else 0.0
        first_step = float(ops.convert_to_numpy(self.optimizer.iterations))
        self._progress.assign([fraction_done, first_step, step, self.trained_epochs])

    def count_epoch(self) -> None:
        """Counts an epoch that was trained."""
        origin, first_step, step, epochs = self._progress.numpy()
        self._progress.assign([origin, first_step, step, epochs + 1])

    # Saving

    def get_config(self) -> dict[str, Any]:
        modules = self.prompt_modules.modules
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "encoder": self.encoder.get_config(),
            "tasks": [dump(task) for task in self.stage1_tasks],
            **self._settings,
            "added": [
                {"task": dump(task), "module": modules[task.name].get_config()}
                for task in self._added
            ],
            "tuned": self._tuned,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MPTRec":
        config = dict(config)
        where = "the model's configuration"
        added, tuned = config.pop("added"), config.pop("tuned")
        encoder = FeatureEncoder.from_config(config.pop("encoder"))
        tasks = [parse(Task, task, where) for task in config.pop("tasks")]
        config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        model = cls(encoder, tasks, **config)
        for entry in added:
            # A layer passes `trainable` on to its parts when it changes, not when it is made so.
            module = PromptModule.from_config({**entry["module"], "trainable": True})
            model._attach(parse(Task, entry["task"], where), module)
        model._tune(tuned)
        return model


class AssignedTasks:
    """The task that each example is assigned to, by the number of its row.

    Args:
        assignment: int (rows,).
    """

    def __init__(self, assignment: np.ndarray) -> None:
        self._variable = tf.Variable(assignment, dtype=tf.int32, trainable=False)

    def of(self, example_ids: Any) -> Any:
        """The tasks of some rows, int32 (B,)."""
        return tf.gather(self._variable, example_ids)

    def assign(self, assignment: np.ndarray) -> None:
        """Replaces the assignment of all rows."""
        self._variable.assign(assignment)


def _anew(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    return type(optimizer).from_config(optimizer.get_config())
