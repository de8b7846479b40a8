"""From an experiment to the trainings that it needs, each of which is done once."""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from mptrec_tf.config import Config, ModelConfig, ModuleConfig, TrainingConfig, TunerConfig
from mptrec_tf.data.readers import expand_paths
from mptrec_tf.errors import SpecError
from mptrec_tf.experiments.config import EXTERNAL, Experiment, Variant
from mptrec_tf.experiments.store import Line
from mptrec_tf.models.lora_module import LoRAModule
from mptrec_tf.models.probe_module import ProbeModule
from mptrec_tf.models.prompt_module import PromptModule
from mptrec_tf.models.registry import MODELS
from mptrec_tf.models.task_module import TaskModule
from mptrec_tf.spec.parsing import dump, parse
from mptrec_tf.spec.space import Parameter

TREES = "lightgbm"
PROMPT = "prompt"
MODULES: dict[str, type[TaskModule]] = {
    PROMPT: PromptModule,
    "probe": ProbeModule,
    "lora": LoRAModule,
}
"""What can be added to `MPTRec` for a new task, by name."""

GIVEN = {"self", "encoder", "tasks", "settings", "num_outputs", "seed", "name"}
"""Arguments that no variant sets."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, and all that its result depends on.

    Attributes:
        config: Data, features, tasks, and the settings of training, model and module.
        model: Name of the model.
        settings: Arguments that only this model, or the module, has.
        tasks: The tasks that are trained.
        seed: Seed of weights, dropout and shuffle.
        tuning_seed: Seed of the search for better settings, `None` without one.
        parent: The run whose model the task is added to; `None` for a new model.
        module: Name of what is added to `MPTRec` for the task; `None` for another model.
        files: A digest of the data files; `None` for a known data set.
    """

    config: Config
    model: str
    settings: dict[str, Any]
    tasks: tuple[str, ...]
    seed: int
    tuning_seed: int | None = None
    parent: "Run | None" = None
    module: str | None = None
    files: str | None = None

    @property
    def stage(self) -> Any:
        """The stage of the configuration whose training this is."""
        return self.config.stage1 if self.parent is None else self.config.stage2

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the model, or of the module that is added, with their values."""
        if self.parent is None and self.model != TREES:
            return _taken_by(MODELS[self.model], self.config.stage1.model) | self.settings
        if self.module == PROMPT:
            return dataclasses.asdict(self.config.stage2.module) | self.settings
        return dict(self.settings)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this run apart from others, as plain data."""
        cached = {} if self.parent is None else {"cache_dtype": self.config.stage2.cache_dtype}
        maybe = {"files": self.files, **cached}
        return {
            **{name: value for name, value in maybe.items() if value is not None},
            "data": dump(self.config.data),
            "features": dump(self.config.features),
            "tasks": [dump(self.config.spec.task(name)) for name in self.tasks],
            "model": self.model,
            "module": self.module,
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
        The cells, none for external variants. Several may have the same run.

    Raises:
        SpecError: If the base or a variant does not fit; the message names what is allowed.
        DataError: If a data file of the base is not there.
    """
    base = Config.from_yaml(experiment.base)
    if base.data.stream:
        raise SpecError(f"{experiment.base}: data.stream: an experiment holds its rows in memory")
    files = _digest_of_files(base)
    own = [variant for variant in experiment.variants if not variant.is_external]
    makers = [_runs_of(experiment, base, variant, files) for variant in own]
    return [cell for seed in experiment.seeds for maker in makers for cell in maker(seed)]


def outdated(cells: Sequence[Cell], lines: Iterable[Line]) -> list[Line]:
    """The lines of an experiment's variants that other settings than it now declares have made.

    Args:
        cells: The experiment's plan; a reduced one judges the lines of all seeds.
        lines: The lines.
    """
    runs = {(cell.variant, cell.new_tasks): cell.run for cell in cells}
    found = []
    for line in lines:
        run = runs.get((line["variant"], tuple(line["new_tasks"])))
        if run is not None and run.with_seed(line["seed"]).digest != line["digest"]:
            found.append(line)
    return found


def _digest_of_files(base: Config) -> str | None:
    if base.data.dataset is not None:
        return None
    digest = hashlib.sha256()
    for part, source in base.data.sources()._asdict().items():
        paths = expand_paths(source) if source else []
        digest.update(f"{part} {len(paths)}".encode())
        for path in paths:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _runs_of(
    experiment: Experiment, base: Config, variant: Variant, files: str | None
) -> Callable[[int], Iterator[Cell]]:
    where = f"{experiment.name}: the variant {variant.name!r}"
    old = tuple(experiment.tasks or base.stage1.tasks)
    base.spec.with_tasks(*old, *experiment.new_tasks)
    adds = bool(experiment.new_tasks) and variant.new_task == "added"
    config = _with_epochs(base, experiment.epochs)
    config, settings = _as_model(config, experiment, variant, where)
    module, module_settings = None, dict[str, Any]()
    if adds:
        config, module, module_settings = _as_added(config, experiment, variant, where)

    def tuning_seed(space: Mapping[str, Any]) -> int | None:
        return experiment.seeds[0] if space else None

    def runs(seed: int) -> Iterator[Cell]:
        def new(tasks: tuple[str, ...]) -> Run:
            searched = tuning_seed(config.tuner.stage1)
            return Run(config, variant.model, settings, tasks, seed, searched, files=files)

        first = latest = new(old)
        yield Cell(variant.name, (), seed, first)
        come: tuple[str, ...] = ()
        for task in experiment.new_tasks:
            come = (*come, task) if experiment.one_after_another else (task,)
            if variant.new_task == "alone":
                run = new((task,))
            elif variant.new_task == "together":
                run = new((*old, *come))
            else:
                run = Run(
                    config,
                    variant.model,
                    module_settings,
                    (task,),
                    seed,
                    tuning_seed(config.tuner.stage2),
                    latest if experiment.one_after_another else first,
                    module,
                    files,
                )
                latest = run
            yield Cell(variant.name, come, seed, run)

    return runs


def _with_epochs(base: Config, epochs: int | None) -> Config:
    """The base with other epochs, and without a search."""
    stages: dict[str, Any] = {"stage1": base.stage1, "stage2": base.stage2}
    if epochs is not None:
        for name, stage in stages.items():
            training = dataclasses.replace(stage.training, epochs=epochs)
            stages[name] = dataclasses.replace(stage, training=training)
    return dataclasses.replace(base, **stages, tuner=TunerConfig())


def _as_model(
    config: Config, experiment: Experiment, variant: Variant, where: str
) -> tuple[Config, dict[str, Any]]:
    """The configuration with the variant's model, and settings that it does not know."""
    if variant.model == TREES:
        if experiment.new_tasks and variant.new_task != "alone":
            raise SpecError(f"{where}: new_task: trees are trained for each task alone")
        return config, variant.settings
    if variant.model not in MODELS:
        known = sorted([*MODELS, TREES, EXTERNAL])
        raise SpecError(f"{where}: model: no model {variant.model!r}; there are {known}")
    cls = MODELS[variant.model]
    common, own = _divide(cls, ModelConfig, variant.settings, f"{where}: settings")
    model = parse(ModelConfig, _plain(config.stage1.model) | common, f"{where}: settings")
    stage1 = dataclasses.replace(config.stage1, model=model)
    tuning = experiment.tuning
    if tuning is not None:
        space = _space(cls, tuning.stage1, variant.settings)
        tuner = dataclasses.replace(tuning, stage1=space, stage2={})
        config = _with(config, f"{where}: tuning.stage1", tuner=tuner)
    return dataclasses.replace(config, stage1=stage1), own


def _as_added(
    config: Config, experiment: Experiment, variant: Variant, where: str
) -> tuple[Config, str | None, dict[str, Any]]:
    """The configuration with the variant's module, its name, and settings of its own."""
    if not hasattr(MODELS[variant.model], "add_task"):
        able = sorted(name for name, cls in MODELS.items() if hasattr(cls, "add_task"))
        raise SpecError(
            f"{where}: new_task: {variant.model} cannot have a task added; give together or alone, "
            f"or one of the models {able}"
        )
    if variant.model != "mptrec":
        return _with_space(config, experiment, None, variant, where), None, {}
    name = variant.module or PROMPT
    if name not in MODULES:
        raise SpecError(f"{where}: module: no module {name!r}; there are {sorted(MODULES)}")
    own = dict(variant.module_settings)
    _check_arguments(MODULES[name], own, f"{where}: module_settings")
    if name == PROMPT:
        module = parse(
            ModuleConfig, _plain(config.stage2.module) | own, f"{where}: module_settings"
        )
        stage2 = dataclasses.replace(config.stage2, module=module)
        config = _with(config, f"{where}: module_settings", stage2=stage2)
        return _with_space(config, experiment, MODULES[name], variant, where), name, {}
    return _with_space(config, experiment, None, variant, where), name, own


def _with_space(
    config: Config, experiment: Experiment, module: type | None, variant: Variant, where: str
) -> Config:
    if experiment.tuning is None:
        return config
    space = _space(module, experiment.tuning.stage2, variant.module_settings)
    tuner = dataclasses.replace(config.tuner, stage2=space)
    return _with(config, f"{where}: tuning.stage2", tuner=tuner)


def _with(config: Config, where: str, **sections: Any) -> Config:
    """The configuration with other sections, which may not fit the others."""
    try:
        return dataclasses.replace(config, **sections)
    except ValidationError as error:
        problems = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        raise SpecError("\n".join(f"{where}: {problem}" for problem in problems)) from error


def _divide(
    cls: type, known: type, given: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings that a class of the configuration has, and the others; all must be arguments."""
    _check_arguments(cls, given, where)
    common = {field.name for field in dataclasses.fields(known)}
    return (
        {name: value for name, value in given.items() if name in common},
        {name: value for name, value in given.items() if name not in common},
    )


def _check_arguments(cls: type, given: Mapping[str, Any], where: str) -> None:
    allowed = arguments_of(cls)
    for name in given:
        if name not in allowed:
            raise SpecError(f"{where}: no argument {name!r}; there are {sorted(allowed)}")


def arguments_of(cls: type) -> set[str]:
    """The arguments of a model or a module that a variant can set, those of its bases included.

    Args:
        cls: The class.
    """
    names = set[str]()
    for part in cls.__mro__:
        if part.__module__.startswith("mptrec_tf.") and "__init__" in vars(part):
            parameters = inspect.signature(vars(part)["__init__"]).parameters.values()
            names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return names - GIVEN


def _space(
    cls: type | None, space: Mapping[str, Parameter], given: Mapping[str, Any]
) -> dict[str, Parameter]:
    """What of a search space a model or module, and its training, have.

    What the variant gives is what it is, and not searched for.
    """
    own = {field.name for field in dataclasses.fields(TrainingConfig)}
    own |= arguments_of(cls) if cls is not None else set()
    return {name: parameter for name, parameter in space.items() if name in own - given.keys()}


def _taken_by(cls: type, settings: Any) -> dict[str, Any]:
    """Those settings that a model or a module takes."""
    allowed = arguments_of(cls)
    return {k: v for k, v in dataclasses.asdict(settings).items() if k in allowed}


def _plain(settings: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(settings)))
