"""What an experiment compares, as one YAML."""

import dataclasses
import os
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mptrec_tf.config import Positive, TunerConfig
from mptrec_tf.spec.features import Name, Strings
from mptrec_tf.spec.parsing import STRICT, load_yaml, parse

Settings = dict[str, Any]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
EXTERNAL = "external"


@dataclass(frozen=True, config=STRICT)
class Variant:
    """One of the ways that an experiment compares.

    Args:
        name: What tables call it.
        model: A name in `mptrec_tf.models.registry.MODELS`; `"lightgbm"`: gradient boosted
            trees, one model for each task; or `"external"`: a model of another library, whose
            results a program of its own adds.
        settings: Arguments of the model that differ from the base's `stage1.model`, or that only
            this model has. Defaults to nothing.
        new_task: How a new task comes to the model: `"added"` (default), by `add_task` to the model
            of the older tasks; `"together"`, by training all tasks anew; `"alone"`, by a model of
            its own.
        module: What is added to `MPTRec` for a new task, a name in
            `mptrec_tf.experiments.plan.MODULES`. Defaults to `"prompt"`. Other models are
            fine-tuned in their own way.
        module_settings: Arguments of the module: of a prompt module what differs from the base's
            `stage2.module`, of another what differs from its own defaults. Defaults to nothing.

    Raises:
        ValueError: If a module is described where none is added, or anything of what is external.

    Example:

    >>> Variant("MMoE anew", "mmoe", settings={"num_experts": 4}, new_task="together").is_external
    False
    """

    name: Name
    model: Name
    settings: Settings = Field(default_factory=dict)
    new_task: Literal["added", "together", "alone"] = "added"
    module: Name | None = None
    module_settings: Settings = Field(default_factory=dict)

    @property
    def is_external(self) -> bool:
        """Whether the results come from another program."""
        return self.model == EXTERNAL

    @model_validator(mode="after")
    def _check_described(self) -> "Variant":
        described = self.module is not None or self.module_settings
        if self.is_external and (described or self.settings or self.new_task != "added"):
            raise ValueError("model: external takes no other key than name")
        if described and (self.model != "mptrec" or self.new_task != "added"):
            raise ValueError(
                "module and module_settings are for model: mptrec with new_task: added, not for "
                f"{self.model} with {self.new_task}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """What is compared, on which tasks, how often.

    Every variant is trained on `tasks` with every seed. Where there are new tasks, each of them
    then comes to each of these models.

    Args:
        name: Name of the file of its results.
        title: What the report calls it.
        question: What it is to answer, a sentence or two for the report. Defaults to `""`.
        base: The configuration of a run (`mptrec_tf.config.Config`) that gives data, features,
            tasks and all settings that a variant leaves as they are. A relative path starts at the
            current directory.
        variants: What is compared.
        tasks: Tasks that are trained together. Defaults to `None`: those of the base's stage 1.
        new_tasks: Tasks that come later. Defaults to none.
        one_after_another: Whether each new task comes to the model that has those before it, and
            not to the model of `tasks`. Defaults to `False`.
        reference: The variant that the others are tested against. Defaults to `None`, the first.
        seeds: Seeds of weights, dropout and shuffle. Defaults to five.
        epochs: Most epochs of a training. Defaults to `None`: the base's.
        tuning: Trials and space of a search that each variant's settings go through first, as in a
            configuration's `tuner`, on the validation rows with the first seed. Of the space, a
            variant takes what its model has. Defaults to `None`: no search, whatever the base says.
        check: Whether the results only show that all runs, and say nothing about quality. Defaults
            to `False`.

    Raises:
        ValueError: If names are given twice, or the reference is no variant.

    Example:

    ```yaml
    name: new_task
    title: A new task
    base: configs/census_income.yaml
    new_tasks: [education]
    variants:
      - {name: prompt tuning, model: mptrec}
      - {name: MMoE together, model: mmoe, new_task: together}
    ```
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: str
    base: str
    variants: Annotated[tuple[Variant, ...], Field(strict=False, min_length=1)]
    question: str = ""
    tasks: Annotated[Strings, Field(min_length=1)] | None = None
    new_tasks: Strings = ()
    one_after_another: bool = False
    reference: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = (0, 1, 2, 3, 4)
    epochs: Positive | None = None
    tuning: TunerConfig | None = None
    check: bool = False

    @model_validator(mode="after")
    def _check_names(self) -> "Experiment":
        names = [variant.name for variant in self.variants]
        for what, given in (
            ("variant", names),
            ("task", [*(self.tasks or ()), *self.new_tasks]),
            ("seed", self.seeds),
        ):
            repeated = [name for name in given if list(given).count(name) > 1]
            if repeated:
                raise ValueError(f"the {what} {repeated[0]!r} is given twice")
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference: no variant {self.reference!r}; they are {names}")
        return self

    @property
    def compared_with(self) -> str:
        """The variant that the others are tested against."""
        return self.reference or self.variants[0].name

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> "Experiment":
        """Reads an experiment.

        Raises:
            SpecError: If anything does not fit; every problem is named with its key and value.
        """
        return parse(cls, load_yaml(path), str(path))

    def reduced(
        self,
        *,
        seeds: int | None = None,
        new_tasks: int | None = None,
        epochs: int | None = None,
        tuning: bool = True,
    ) -> "Experiment":
        """A smaller version, to see that all runs.

        Args:
            seeds: Only so many of the seeds. Defaults to `None`, all.
            new_tasks: Only so many of the new tasks. Defaults to `None`, all.
            epochs: Most epochs of a training. Defaults to `None`, as it is.
            tuning: Whether to search for better settings where the experiment does. Defaults to
                `True`.
        """
        return dataclasses.replace(
            self,
            seeds=self.seeds[:seeds],
            new_tasks=self.new_tasks[:new_tasks],
            epochs=epochs or self.epochs,
            tuning=self.tuning if tuning else None,
        )
