"""What a new task trains: a prompt, its attention over the old tasks, a gate and a tower."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from mptrec_tf.errors import ModelError
from mptrec_tf.layers import Gate, PromptAttention, TaskPrompt
from mptrec_tf.models.arguments import check_own_embeddings
from mptrec_tf.models.backbone import Representation
from mptrec_tf.models.input_path import InputPath
from mptrec_tf.models.task_module import TowerModule

if TYPE_CHECKING:
    from mptrec_tf.models.mptrec import MPTRec

REPRESENTATIONS = ("both", "specific", "shared")


@keras.saving.register_keras_serializable("mptrec_tf")
class PromptModule(TowerModule):
    """The head of a task that was added to a trained model.

    `w` = attention over the old prompts, `s_n = sum_k w_k s_k`, `r_n = s_n * p_n`,
    `f_n = a[0] r_n + a[1] g` with the task's own gate, and the tower reads `f_n`.

    Args:
        num_outputs: Outputs of the tower. Defaults to 1.
        attention: `"example"` (default), `"embedding"` or `"fixed"`, see `PromptAttention`.
        representation: What the tower reads: `"both"` (default), `"specific"` (`r_n` alone) or
            `"shared"` (`g` alone).
        query_units: Width of the query network's hidden layer. Defaults to `None`: half the width
            of an expert's output.
        temperature: Temperature of the attention. Defaults to 150, as published.
        input_projection: Width of a low-rank path of the task's own from `x`, standardized, into
            the tower; 0 leaves it out, as published. Defaults to 16.
        embedding_dim: Width of embeddings of the task's own for category ids, which join that path:
            the frozen ones hold of a category what the older tasks needed. Each id of a feature
            costs so many parameters. Defaults to 0: none, as published.
        embedding_features: The categorical features that are embedded so. Defaults to `None`: all.
        **kwargs: See `TowerModule`.

    Call arguments:
        representation: A `Representation` from the frozen backbone.
        source_prompts: float (K, h), the prompts of the stage 1 tasks.

    Output: a list with one float32 tensor (B, `num_outputs`), logits.

    Example:

    >>> module = PromptModule(input_projection=0)
    >>> ids = ops.zeros((2, 1), "int32")
    >>> r = Representation(ops.ones((2, 5)), ops.ones((2, 4)), ops.ones((2, 3, 4)), ids)
    >>> module(r, source_prompts=ops.ones((3, 4)))[0].shape
    TensorShape([2, 1])

    Reference: arXiv:2408.17214, section 3; `representation` and `attention` are its ablations
    "Share", "Specific", "TES" and "FW". The low-rank path is ours, see
    `mptrec_tf.models.input_path`.
    """

    def __init__(
        self,
        num_outputs: int = 1,
        *,
        attention: str = "example",
        representation: str = "both",
        query_units: int | None = None,
        temperature: float = 150.0,
        input_projection: int = 16,
        embedding_dim: int = 0,
        embedding_features: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_outputs, **kwargs)
        if representation not in REPRESENTATIONS:
            raise ValueError(
                f"representation must be one of {REPRESENTATIONS}. Received: {representation!r}"
            )
        self.attention_kind = attention
        self.representation_kind = representation
        self.query_units = query_units
        self.temperature = temperature
        self.input_projection = input_projection
        self.embedding_dim = embedding_dim
        self.embedding_features = _names(embedding_features)
        if embedding_dim < 0:
            raise ValueError(f"embedding_dim must be 0 or more. Received: {embedding_dim}")
        check_own_embeddings(embedding_dim, input_projection, self.embedding_features)
        regularizer, dtype = self._common["kernel_regularizer"], self.dtype_policy
        self.prompt: TaskPrompt | None = None
        self.attention: PromptAttention | None = None
        self.gate: Gate | None = None
        self.input_path: InputPath | None = None
        if representation != "shared":
            self.prompt = TaskPrompt(name="prompt", dtype=dtype)
            self.attention = PromptAttention(
                attention, query_units, temperature, regularizer, name="attention", dtype=dtype
            )
        if representation == "both":
            self.gate = Gate(1, name="gate", **self._common)
        if input_projection:
            self.input_path = InputPath(
                input_projection,
                embedding_dim,
                self.embedding_features,
                name="input_path",
                **self._common,
            )
        self.tower = self._tower()

    def build(
        self, representation_shape: Representation, source_prompts_shape: tuple[int, int]
    ) -> None:
        x_shape, shared_shape, _, _ = representation_shape
        width = shared_shape[-1]
        if self.prompt is not None:
            self.prompt.build((None, 1, width))
        if self.attention is not None:
            self.attention.build(x_shape, source_prompts_shape)
        if self.gate is not None:
            self.gate.build(x_shape)
        if self.input_path is not None:
            self.input_path.build(x_shape)
        self.tower.build((None, 1, width + self.input_projection))

    def build_on(self, model: "MPTRec") -> None:
        if self.input_path is not None:
            self.input_path.embed(model.encoder)
        self.build(model.representation_shape, tuple(model.prompts.prompts.shape))

    def logits_on(
        self, model: "MPTRec", representation: Representation, training: bool = False
    ) -> list[Any]:
        sources = ops.stop_gradient(model.prompts.prompts)
        return self(representation, sources, training=training)

    def attend(self, representation: Representation, source_prompts: Any) -> Any:
        """Attention over the stage 1 tasks, float (B, K), or (1, K) if equal for all examples.

        Raises:
            ModelError: If the module reads the shared representation alone.
        """
        if self.attention is None or self.prompt is None:
            raise ModelError(f"the task {self.name!r} reads the shared representation alone")
        return self.attention(representation.x, source_prompts, self.prompt.prompts[0])

    def call(
        self, representation: Representation, source_prompts: Any, training: bool = False
    ) -> list[Any]:
        x, shared, specific, ids = representation
        fused = shared
        if self.prompt is not None:
            weights = self.attend(representation, source_prompts)
            mixed = ops.sum(weights[:, :, None] * specific, axis=1)
            prompted = self.prompt(mixed[:, None])[:, 0]
            fused = prompted
            if self.gate is not None:
                gate = self.gate(x)[:, 0]
                fused = gate[:, :1] * prompted + gate[:, 1:] * shared
        if self.input_path is not None:
            fused = ops.concatenate([fused, self.input_path(x, ids, training=training)], axis=-1)
        return self.tower(fused[:, None], training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "attention": self.attention_kind,
            "representation": self.representation_kind,
            "query_units": self.query_units,
            "temperature": self.temperature,
            "input_projection": self.input_projection,
            "embedding_dim": self.embedding_dim,
            "embedding_features": self.embedding_features,
        }


def _names(features: Sequence[str] | None) -> tuple[str, ...] | None:
    if features is None:
        return None
    if isinstance(features, str) or not features:
        raise ValueError(
            "embedding_features must be the names of one or more features in a list, or None for "
            f"all. Received: {features!r}"
        )
    return tuple(features)
