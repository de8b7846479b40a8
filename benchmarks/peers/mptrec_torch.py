"""MPT-Rec in PyTorch, as published: the same computation as `mptrec_tf`, for comparison.

Written to be fast, with what PyTorch offers for that: one embedding table with offsets, the first
layer of all experts as one product, both passes through the towers as one. `check` proves that it
is the same work: same loss and same gradients for the same weights.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Settings:
    """What the weights do not tell.

    Args:
        values: The settings, as `harness.census.settings` writes them.
    """

    def __init__(self, values: dict) -> None:
        self.generic_weight: float = values["generic_weight"]
        self.adversarial_weight: float = values["adversarial_weight"]
        self.l2_embedding: float = values["l2_embedding"]
        self.l2: float = values["l2"]
        self.temperature: float = values["temperature"]
        self.learning_rate: float = values["learning_rate"]
        self.epsilon: float = values["epsilon"]
        self.progress: float = values["progress"]
        self.offsets: list[int] = values["offsets"]
        self.means: list[float] = values["means"]
        self.deviations: list[float] = values["deviations"]


class Backbone(nn.Module):
    """Input, the sharing expert (the first) and a specific expert for each task.

    Args:
        settings: Offsets of the columns within the table; mean and deviation of the numbers.
        weights: Arrays by name.
        batched: Whether the experts' second layer is one batched product instead of a loop.
    """

    def __init__(self, settings: Settings, weights: dict[str, np.ndarray], batched: bool) -> None:
        super().__init__()
        self.batched = batched
        self.register_buffer("offsets", torch.tensor(settings.offsets, dtype=torch.int32))
        self.register_buffer("means", torch.tensor(settings.means))
        self.register_buffer("deviations", torch.tensor(settings.deviations))
        self.table = _parameter(weights["table"])
        first, second = weights["expert_kernel_0"], weights["expert_kernel_1"]
        self.first_shape = first.shape[1:]
        self.first = _parameter(first.reshape(len(first), -1))
        self.first_bias = _parameter(weights["expert_bias_0"].reshape(-1))
        self.second = _parameter(second)
        self.second_bias = _parameter(weights["expert_bias_1"])

    def forward(self, numeric: Tensor, categorical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x` (B, d), the embeddings that were looked up, and all experts' outputs (E, B, h)."""
        rows = F.embedding(categorical + self.offsets, self.table)
        x = torch.cat([(numeric - self.means) / self.deviations, rows.flatten(1)], dim=1)
        hidden = F.relu(torch.addmm(self.first_bias, x, self.first))
        hidden = hidden.view(-1, *self.first_shape)
        return (
            x,
            rows,
            F.relu(_each(hidden.transpose(0, 1), self.second, self.second_bias, self.batched)),
        )


class Towers(nn.Module):
    """A tower for each task.

    Args:
        weights: Arrays by name.
        prefix: Of the names.
        batched: Whether the towers are batched products instead of a loop.
    """

    def __init__(self, weights: dict[str, np.ndarray], prefix: str, batched: bool) -> None:
        super().__init__()
        self.batched = batched
        self.kernels = nn.ParameterList(
            _parameter(weights[f"{prefix}_kernel_{i}"]) for i in range(3)
        )
        self.biases = nn.ParameterList(_parameter(weights[f"{prefix}_bias_{i}"]) for i in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (K, B) of the inputs (K, B, h)."""
        outputs = inputs
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            outputs = _each(outputs, kernel, bias, self.batched)
            if layer < 2:
                outputs = F.relu(outputs)
        return outputs.squeeze(-1)

    def l2(self) -> Tensor:
        """Sum of squares of the kernels."""
        return _squares(list(self.kernels))


class Stage1(nn.Module):
    """Stage 1: the loss of a batch.

    Args:
        settings: Weights of the loss.
        weights: Arrays by name.
        batched: Whether experts and towers are batched products instead of loops.
    """

    def __init__(self, settings: Settings, weights: dict[str, np.ndarray], batched: bool) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings, weights, batched)
        self.prompts = _parameter(weights["prompts"])
        self.gates = _parameter(weights["gates"])
        self.towers = Towers(weights, "tower", batched)
        self.classifier = _parameter(weights["classifier_kernel"])
        self.classifier_bias = _parameter(weights["classifier_bias"])

    def forward(
        self, numeric: Tensor, categorical: Tensor, labels: Tensor, alpha: Tensor
    ) -> Tensor:
        """The loss, with labels (K, B)."""
        settings, backbone = self.settings, self.backbone
        x, rows, experts = backbone(numeric, categorical)
        shared, specific = experts[0], experts[1:]
        tasks, batch = labels.shape
        gates = (x @ self.gates).view(batch, tasks, 2).softmax(-1).transpose(0, 1)
        fused = gates[..., :1] * (specific * self.prompts[:, None]) + gates[..., 1:] * shared
        both = torch.cat([fused, shared.expand(tasks, -1, -1)], dim=1)
        losses = F.binary_cross_entropy_with_logits(
            self.towers(both), labels.repeat(1, 2), reduction="none"
        )
        main, generic = losses[:, :batch], losses[:, batch:]
        loss = main.mean(1).sum() + settings.generic_weight * generic.mean(1).sum()
        assigned = main.detach().argmin(0)
        logits = torch.addmm(self.classifier_bias, _reverse(shared, alpha), self.classifier)
        loss = loss + settings.adversarial_weight * F.cross_entropy(logits, assigned)
        loss = loss + settings.l2_embedding * rows.square().sum() / batch
        kernels = _squares([backbone.first, backbone.second, self.gates])
        return loss + settings.l2 * (kernels + self.towers.l2())


class Stage2(nn.Module):
    """Stage 2: the loss of a new task on a batch, the backbone run without gradients.

    Args:
        settings: Weights of the loss, temperature of the attention.
        weights: Arrays by name.
        batched: Whether the experts are a batched product instead of a loop.
    """

    def __init__(self, settings: Settings, weights: dict[str, np.ndarray], batched: bool) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings, weights, batched).requires_grad_(False)
        self.register_buffer("sources", torch.from_numpy(weights["prompts"]))
        self.prompt = _parameter(weights["new_prompt"])
        self.query_hidden = _parameter(weights["new_query_hidden"])
        self.query_output = _parameter(weights["new_query_output"])
        self.norm_scale = _parameter(weights["new_norm_scale"])
        self.norm_shift = _parameter(weights["new_norm_shift"])
        self.gate = _parameter(weights["new_gate"])
        self.tower = Towers(weights, "new_tower", batched=False)

    def forward(self, numeric: Tensor, categorical: Tensor, labels: Tensor) -> Tensor:
        """The loss, with labels (1, B)."""
        with torch.no_grad():
            x, _, experts = self.backbone(numeric, categorical)
        shared, specific = experts[0], experts[1:]
        query = F.relu(x @ self.query_hidden) @ self.query_output
        query = F.layer_norm(query, query.shape[1:], self.norm_scale, self.norm_shift, 1e-3)
        weights = (query @ self.sources.T / self.settings.temperature).softmax(-1)
        mixed = (weights.T[..., None] * specific).sum(0)
        gate = (x @ self.gate).softmax(-1)
        fused = gate[:, :1] * (mixed * self.prompt) + gate[:, 1:] * shared
        loss = F.binary_cross_entropy_with_logits(self.tower(fused[None]), labels)
        kernels = _squares([self.query_hidden, self.query_output, self.gate])
        return loss + self.settings.l2 * (kernels + self.tower.l2())


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(alpha)
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        return -ctx.saved_tensors[0] * upstream, None


_reverse = _Reversal.apply


def reversal_strength(progress: float) -> float:
    """How strongly the gradient is reversed at a fraction of the training."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def _parameter(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array)))


def _each(inputs: Tensor, kernels: Tensor, biases: Tensor, batched: bool) -> Tensor:
    """`inputs[e] @ kernels[e] + biases[e]` for each `e`."""
    if batched:
        return torch.baddbmm(biases[:, None], inputs, kernels)
    parts = zip(biases, inputs, kernels, strict=True)
    return torch.stack([torch.addmm(bias, part, kernel) for bias, part, kernel in parts])


def _squares(kernels: list[Tensor]) -> Tensor:
    return sum(kernel.square().sum() for kernel in kernels)
