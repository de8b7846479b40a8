"""The MPT-Rec model: several tasks trained together, and new ones added without changing them."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mptrec_tf.cache import cached_dataset
from mptrec_tf.data.datasets import EXAMPLE_ID, require_rules
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.layers import Gate, TaskPrompt, TowerBank, reversal_strength
from mptrec_tf.layers.dropout import seed_of
from mptrec_tf.models.adversary import Adversary, assign_lowest_loss
from mptrec_tf.models.arguments import check_sizes, check_weights
from mptrec_tf.models.backbone import Backbone, Representation
from mptrec_tf.models.fingerprints import fingerprint
from mptrec_tf.models.growing import GrowingModel
from mptrec_tf.models.inputs import check_inputs
from mptrec_tf.models.multi_task import Outcome
from mptrec_tf.models.prompt_module import PromptModule
from mptrec_tf.models.task_module import TaskModule, TowerModule
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump


@keras.saving.register_keras_serializable("mptrec_tf")
class MPTRec(GrowingModel):
    """Two-stage multi-task prompt tuning for recommendation.

    Stage 1 trains all tasks of `tasks` together: `compile`, `fit`. Stage 2 adds a task with
    `add_task`; from then on `fit` trains the new task's module alone, and everything older is
    frozen: the outputs of the older tasks do not change by one bit. Stage 2 can be repeated for any
    number of tasks.

    Stage 1 minimizes `sum_k w_k L_k(T_k(f_k)) + generic_weight * sum_k w_k L_k(T_k(g)) +
    adversarial_weight * L_adversarial + L2`, with `f_k = a_k[0] s_k * p_k + a_k[1] g`.

    Args:
        encoder: An adapted `FeatureEncoder`. A copy is kept (and saved) with the model, and is not
            part of the computation: the model reads what the encoder gives.
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

    `fit` and `evaluate` take labels as a dict by task, float (B,) or (B, 1), NaN for no label, and
    optional example weights as a dict by task. Metrics: `loss`, `<task>_loss`, `<task>_auc` (or
    `_accuracy`, `_rmse`), `mean_auc`; NaN, and left out of `mean_auc`, where no labels were given
    or an AUC has those of one kind only.

    Raises:
        SpecError: If a task's label column is a feature, or a task name is given twice.
        ModelError: If the encoder is not adapted.
        ValueError: If a size is below 1, or a weight or penalty below 0.

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
        expert_units, tower_units = tuple(expert_units), tuple(tower_units)
        check_sizes(embedding_dim=embedding_dim, expert_units=expert_units, tower_units=tower_units)
        check_weights(
            generic_weight=generic_weight,
            adversarial_weight=adversarial_weight,
            l2_embedding=l2_embedding,
            l2=l2,
        )
        settings = {
            "embedding_dim": embedding_dim,
            "expert_units": expert_units,
            "tower_units": tower_units,
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
        super().__init__(encoder, tasks, settings, **{"name": "mptrec", **kwargs})
        self.generic_weight = generic_weight
        self.adversarial_weight = adversarial_weight
        count = len(self.stage1_tasks)
        regularizer = keras.regularizers.L2(l2) if l2 else None
        self.backbone = Backbone(
            encoder,
            count,
            embedding_dim=embedding_dim,
            expert_units=expert_units,
            activation=activation,
            dropout=expert_dropout,
            l2_embedding=l2_embedding,
            l2=l2,
            seed=seed_of(seed, "backbone"),
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
            seed=seed_of(seed, "towers"),
            name="towers",
            dtype=self.dtype_policy,
        )
        self.adversary = None
        if adversarial is not None:
            self.adversary = Adversary(
                adversarial, count, name="adversary", dtype=self.dtype_policy
            )
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
        super().build()

    # Tasks

    @property
    def representation_shape(self) -> Representation:
        """The shape of what `represent` gives."""
        hidden = self._settings["expert_units"][-1]
        count = len(self.stage1_tasks)
        width, ids = self.backbone.input_dim, self.backbone.num_ids
        return Representation((None, width), (None, hidden), (None, count, hidden), (None, ids))

    def add_task(
        self,
        task: Task,
        *,
        optimizer: Any = None,
        module: TaskModule | None = None,
        **settings: Any,
    ) -> None:
        """Freezes all that exists, adds a module for a new task, and compiles for it alone.

        The training data of the new task may be other rows than those of stage 1 and need not carry
        the older tasks' labels.

        Args:
            task: The new task.
            optimizer: Optimizer of the module. Defaults to `None`: as the model was compiled
                before, begun anew.
            module: What is trained, such as `PromptModule()`, `ProbeModule()` or `LoRAModule()`.
                It is a description: the model makes a module of its own from it, with the task's
                number of outputs and the model's precision. Defaults to `None`:
                `PromptModule(**settings)`.
            **settings: Arguments of `PromptModule`, where no module is given.

        Raises:
            ModelError: If the model was not compiled or not trained, or has a task of that name, or
                `module` is none.
            SpecError: If the task is none, or its label column is a feature.
            TypeError: If both a module and settings are given.

        Example:

        ```python
        model.add_task(Task("education", label="education", positive="Bachelors degree(BA AB BS)"))
        model.fit(education_rows, validation_data=..., epochs=10)
        ```
        """
        if module is not None and settings:
            raise TypeError(f"give a module or its settings, not both. Received: {settings}")
        if not isinstance(module, TaskModule | None):
            raise ModelError(
                "module must be one that is made, such as PromptModule() or ProbeModule(). "
                f"Received: {module!r}"
            )

        def make() -> TaskModule:
            if module is not None:
                return self._new_module(task, self._describe(module))
            own = PromptModule(
                task.num_outputs,
                name=task.name,
                dtype=self.dtype_policy,
                **self._with_activation(settings),
            )
            own.build_on(self)
            return own

        self._add(task, make, optimizer)

    def _describe(self, module: TaskModule) -> dict[str, Any]:
        name = keras.saving.get_registered_name(type(module))
        return {"class_name": name, "config": module.get_config()}

    def _new_module(self, task: Task, description: Mapping[str, Any]) -> TaskModule:
        kind = keras.saving.get_registered_object(description["class_name"])
        if not isinstance(kind, type) or not issubclass(kind, TaskModule):
            raise ModelError(f"{description['class_name']!r} is not a registered TaskModule")
        config = description["config"]
        if issubclass(kind, TowerModule) and "activation" in config:
            config = self._with_activation(config)
        module = kind.from_config(
            {
                **config,
                "name": task.name,
                "num_outputs": task.num_outputs,
                "dtype": self.dtype_policy,
                # A layer passes this on to its parts when it changes, not when it is made so.
                "trainable": True,
            }
        )
        module.build_on(self)
        return module

    def _with_activation(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a module with a tower, with the model's activation if they have none."""
        own = settings.get("activation")
        return {**settings, "activation": self._settings["activation"] if own is None else own}

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
                batches that were represented before, see `mptrec_tf.cache.cache_rows`.
            training: Whether dropout acts; never in stage 2. Defaults to `False`.
        """
        if isinstance(inputs, Representation):
            x, shared, specific = (ops.cast(part, self.compute_dtype) for part in inputs[:3])
            return Representation(x, shared, specific, inputs.ids)
        return self.backbone(inputs, training=training and self._tuned is None)

    def stage1_logits(self, representation: Representation, training: bool = False) -> list[Any]:
        """See `GrowingModel.stage1_logits`."""
        return self.towers(self._fuse(representation), training=training)

    def _added_logits(
        self, module: TaskModule, representation: Representation, training: bool
    ) -> Any:
        (logits,) = module.logits_on(self, representation, training)
        return logits

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
        for name, module in self.task_modules.modules.items():
            if isinstance(module, PromptModule) and module.gate is not None:
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
            for name, module in self.task_modules.modules.items()
            if isinstance(module, PromptModule) and module.attention is not None
        }

    # Training

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        cache: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains stage 1, or the module of the task that was added; see `keras.Model.fit`.

        Args:
            x: A dataset as `make_dataset` gives it, or arrays.
            y: Labels by task, where `x` are arrays.
            *args: As in Keras.
            cache: Computes what the frozen part makes of each row once instead of in every epoch,
                in stage 2: `"memory"`, or a directory, whose files a later `fit` of the same rows
                uses; those of `make_dataset` may be shuffled, those of another dataset must come in
                the same order. `x` and `validation_data` are datasets then; the rows of `x` are
                shuffled anew in each epoch, unless `shuffle=False`, in the order of `x` where
                `make_dataset` shuffles that. See
                `mptrec_tf.cache.cache_rows` for more. Defaults to `None`.
            **kwargs: As in Keras.

        Raises:
            ModelError: If labels of a task that is trained are missing, another worker was lost, or
                `cache` is given in stage 1 or with anything but datasets.
            DataError: If a label is not one that its task allows (checked where labels are arrays).
        """
        if cache is not None:
            if self._tuned is None:
                raise ModelError("cache= is for stage 2: stage 1 changes what would be cached")
            check_inputs(x, self.encoder)
            require_rules(x, [self._tuned])
            shuffle = bool(kwargs.pop("shuffle", True))
            x = cached_dataset(self, x, cache, "train", shuffle=shuffle)
            if (data := kwargs.get("validation_data")) is not None:
                check_inputs(data, self.encoder)
                kwargs["validation_data"] = cached_dataset(self, data, cache, "validation")
        return super().fit(x, y, *args, **kwargs)

    def _stage1_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        if isinstance(x, Representation):
            raise ModelError(
                "cached representations can train an added task only; stage 1 changes them and "
                "needs encoded rows"
            )
        names = [task.name for task in self.stage1_tasks]
        representation = self.represent(x, training=True)
        features = self._fuse(representation)
        rows = ops.shape(features)[0]
        if self.generic_weight:
            shared = ops.broadcast_to(representation.shared[:, None], ops.shape(features))
            features = ops.concatenate([features, shared], axis=0)
        outputs = self.towers(features, training=True)
        logits = {name: out[:rows] for name, out in zip(names, outputs, strict=True)}
        outcome = self.with_penalties(y, weights, logits)
        if self.generic_weight:
            generic = {name: out[rows:] for name, out in zip(names, outputs, strict=True)}
            parts = self._outcome(y, weights, generic).task_losses
            task_losses = {
                name: loss + self.generic_weight * parts[name]
                for name, loss in outcome.task_losses.items()
            }
            outcome = outcome._replace(task_losses=task_losses)
        if self.adversary is not None:
            self._require_progress()
            adversarial = self.adversary(
                representation.shared,
                representation.specific,
                alpha=reversal_strength(self._training_progress()),
                assignment=self._assignment(x, outcome.losses),
            )
            other = self.adversarial_weight * ops.cast(adversarial, "float32")
            outcome = outcome._replace(other=outcome.other + other)
        return outcome

    def _require_progress(self) -> None:
        """Warns, once, where nobody has told how far the training is."""
        if self._told_progress:
            return
        self._told_progress = True
        with tf.init_scope():
            begun = np.any(self._progress.numpy())  # by an earlier process
        if not begun and self.adversarial_weight:
            warnings.warn(
                "stage 1 is trained without begin_epoch(), so the adversarial part has no strength "
                "throughout; fit calls it, and a loop of your own has to",
                stacklevel=2,
            )

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


class AssignedTasks:
    """The task that each example is assigned to, by the number of its row.

    Args:
        assignment: int (rows,).
    """

    def __init__(self, assignment: np.ndarray) -> None:
        self._variable = tf.Variable(assignment, dtype=tf.int32, trainable=False, shape=(None,))

    def of(self, example_ids: Any) -> Any:
        """The tasks of some rows, int32 (B,)."""
        return tf.gather(self._variable, example_ids)

    def assign(self, assignment: np.ndarray) -> None:
        """Replaces the assignment of all rows."""
        self._variable.assign(assignment)
