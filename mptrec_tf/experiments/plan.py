"""From an experiment to the trainings that it needs, each of which is done once."""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mptrec_tf.config import Config, ModelConfig, ModuleConfig, TrainingConfig, TunerConfig
from mptrec_tf.errors import SpecError
from mptrec_tf.experiments.config import Experiment, Variant
from mptrec_tf.models.registry import MODELS
from mptrec_tf.spec.parsing import dump, parse
from mptrec_tf.spec.space import Parameter

TREES = "lightgbm"
GIVEN = {"self", "encoder", "tasks", "task", "optimizer", "seed", "name", "dtype"}
"""Arguments that a run gives itself."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, and all that its result depends on.

    Attributes:
        config: Data, features, tasks, and the settings of training, model and module.
        model: Name of the model.
        settings: Arguments that only this model has.
        tasks: The tasks that are trained.
        seed: Seed of weights, dropout and shuffle.
        tuning_seed: Seed of the search for better settings, `None` without one.
        parent: The run whose model the task is added to; `None` for a new model.
        method: Arguments of `add_task` that `config.stage2.module` does not have.
    """

    config: Config
    model: str
    settings: Mapping[str, Any]
    tasks: tuple[str, ...]
    seed: int
    tuning_seed: int | None = None
    parent: "Run | None" = None
    method: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def stage(self) -> Any:
        """The stage of the configuration whose training this is."""
        return self.config.stage1 if self.parent is None else self.config.stage2

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the model, or of `add_task`, with their values."""
        if self.model == TREES:
            return dict(self.settings)
        if self.parent is None:
            common: Any = self.config.stage1.model
            return _taken_by(MODELS[self.model], common) | self.settings
        common = self.config.stage2.module
        return _taken_by(_add_task(self.model), common) | self.method

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this run apart from others, as plain data."""
        return {
            "data": dump(self.config.data),
            "features": dump(self.config.features),
            "tasks": [dump(self.config.spec.task(name)) for name in self.tasks],
            "model": self.model,
            "arguments": self.arguments,
            "training": dataclasses.asdict(self.stage.training),
            "seed": self.seed,
            "tuning": None
            if self.tuning_seed is None
            else {"seed": self.tuning_seed, "tuner": self._tuner},
            "parent": None if self.parent is None else self.parent.digest,
        }

    @property
    def _tuner(self) -> dict[str, Any]:
        tuner, stage = self.config.tuner, "stage1" if self.parent is None else "stage2"
        return {"trials": tuner.trials, "space": dump(getattr(tuner, stage))}

    @functools.cached_property
    def digest(self) -> str:
        """A short digest of the identity."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> "Run":
        """The same run with another seed, on a model that was trained with that seed."""
        parent = None if self.parent is None else self.parent.with_seed(seed)
        return dataclasses.replace(self, seed=seed, parent=parent)


class Cell(NamedTuple):
    """What a line of an experiment's results is about.

    Attributes:
        variant: Name of the variant.
        new_tasks: The tasks that have come so far, in their order.
        seed: The seed.
        run: The training.
    """

    variant: str
    new_tasks: tuple[str, ...]
    seed: int
    run: Run


def plan(experiment: Experiment) -> list[Cell]:
    """All that an experiment trains, in an order in which each run finds its parent done.

    Args:
        experiment: The experiment.

    Returns:
        The cells. Several may have the same run.

    Raises:
        SpecError: If the base or a variant does not fit; the message names what is allowed.
    """
    base = Config.from_yaml(experiment.base)
    if base.data.stream:
        raise SpecError(f"{experiment.base}: data.stream: an experiment holds its rows in memory")
    makers = [_runs_of(experiment, base, variant) for variant in experiment.variants]
    return [cell for seed in experiment.seeds for maker in makers for cell in maker(seed)]


def _runs_of(
    experiment: Experiment, base: Config, variant: Variant
) -> Callable[[int], Iterator[Cell]]:
    where = f"{experiment.name}: the variant {variant.name!r}"
    known = [*MODELS, TREES]
    if variant.model not in known:
        raise SpecError(f"{where}: model: no model {variant.model!r}; there are {sorted(known)}")
    if variant.model == TREES and experiment.new_tasks and variant.new_task != "alone":
        raise SpecError(f"{where}: new_task: trees are trained for each task alone")
    adds = bool(experiment.new_tasks) and variant.new_task == "added"
    config, settings, method = _effective(experiment, base, variant, where, adds)
    old = experiment.tasks or base.stage1.tasks
    base.spec.with_tasks(*old, *experiment.new_tasks)

    def tuning_seed(space: Mapping[str, Any]) -> int | None:
        return experiment.seeds[0] if space and variant.model != TREES else None

    def runs(seed: int) -> Iterator[Cell]:
        def new(tasks: tuple[str, ...]) -> Run:
            searched = tuning_seed(config.tuner.stage1)
            return Run(config, variant.model, settings, tasks, seed, searched)

        first = new(tuple(old))
        yield Cell(variant.name, (), seed, first)
        come: tuple[str, ...] = ()
        latest = first
        for task in experiment.new_tasks:
            come = (*come, task) if experiment.one_after_another else (task,)
            if variant.new_task == "alone":
                run = new((task,))
            elif variant.new_task == "together":
                run = new((*old, *come))
            else:
                parent = latest if experiment.one_after_another else first
                run = latest = dataclasses.replace(
                    first,
                    tasks=(task,),
                    parent=parent,
                    method=method,
                    tuning_seed=tuning_seed(config.tuner.stage2),
                )
            yield Cell(variant.name, come, seed, run)

    return runs


def _effective(
    experiment: Experiment, base: Config, variant: Variant, where: str, adds: bool
) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """The base as the variant changes it, and the settings that the base does not know."""
    settings, method = dict(variant.settings), dict(variant.method)
    stage1, stage2, tuner = base.stage1, base.stage2, experiment.tuning or TunerConfig()
    if variant.model != TREES:
        cls = MODELS[variant.model]
        common, settings = _divide(cls, ModelConfig, settings, f"{where}: settings")
        model = parse(ModelConfig, _plain(stage1.model) | common, f"{where}: settings")
        stage1 = dataclasses.replace(stage1, model=model)
        tuner = dataclasses.replace(tuner, stage1=_space(cls, tuner.stage1))
    if adds:
        add_task = _add_task(variant.model, where)
        common, method = _divide(add_task, ModuleConfig, method, f"{where}: method")
        module = parse(ModuleConfig, _plain(stage2.module) | common, f"{where}: method")
        stage2 = dataclasses.replace(stage2, module=module)
        tuner = dataclasses.replace(tuner, stage2=_space(add_task, tuner.stage2))
    if experiment.epochs is not None:
        stage1, stage2 = (
            dataclasses.replace(
                stage, training=dataclasses.replace(stage.training, epochs=experiment.epochs)
            )
            for stage in (stage1, stage2)
        )
    config = dataclasses.replace(base, stage1=stage1, stage2=stage2, tuner=tuner)
    return config, settings, method


def _space(function: Callable[..., Any], space: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """What of a search space a model or `add_task`, and its training, have."""
    own = arguments_of(function) | {field.name for field in dataclasses.fields(TrainingConfig)}
    return {name: parameter for name, parameter in space.items() if name in own}


def _divide(
    function: Callable[..., Any], known: type, given: dict[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings that a class of the configuration has, and the others; all must be arguments."""
    allowed = arguments_of(function)
    for name in given:
        if name not in allowed:
            raise SpecError(f"{where}: no argument {name!r}; there are {sorted(allowed)}")
    common = {field.name for field in dataclasses.fields(known)}
    return (
        {name: value for name, value in given.items() if name in common},
        {name: value for name, value in given.items() if name not in common},
    )


def arguments_of(function: Callable[..., Any]) -> set[str]:
    """The arguments of a model or of `add_task` that a variant can set."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - GIVEN


def _taken_by(function: Callable[..., Any], settings: Any) -> dict[str, Any]:
    """Those settings that a model or `add_task` takes."""
    allowed = arguments_of(function)
    return {k: v for k, v in dataclasses.asdict(settings).items() if k in allowed}


def _add_task(model: str, where: str = "") -> Callable[..., Any]:
    add_task = getattr(MODELS[model], "add_task", None)
    if add_task is None:
        able = [name for name, cls in MODELS.items() if hasattr(cls, "add_task")]
        raise SpecError(
            f"{where}: new_task: {model} cannot have a task added; give together or alone, or one "
            f"of the models {sorted(able)}"
        )
    return add_task


def _plain(settings: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(settings)))
