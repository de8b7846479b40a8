"""What a model was made from: every data set, graph, base model, setting and check on its way."""

import dataclasses
import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipelines import layout
from pipelines.metadata import Artifact, Artifacts, Execution, Store

TRAINING_FILE = f"{layout.SERVING_DIRECTORY}/{layout.TRAINING_FILE}"
"""In a model: settings as they were used, metrics of every epoch."""

BOOKKEEPING = {
    "is_external",
    "name",
    "pipeline_name",
    "producer_component",
    "pushed",
    "state",
    "tfx_version",
    "type_name",
}
LONGEST = 120  # of a value in the text; JSON has it whole
WIDTH = 84


@dataclass(frozen=True)
class Lineage:
    """All that an artifact was made from.

    Args:
        root: The artifact.
        executions: What made it and everything on the way to it, the oldest first.
        versions: The version that a Model was pushed as, by the id of the artifact.
        facts: What the files of an artifact tell, by its id: settings and metrics of a Model's
            training, metrics of a ModelEvaluation on all test rows.
    """

    root: Artifact
    executions: tuple[Execution, ...]
    versions: Mapping[int, int]
    facts: Mapping[int, Mapping[str, Any]]

    @property
    def artifacts(self) -> dict[int, Artifact]:
        """Everything that was read or made, by id."""
        flat = (a for e in self.executions for a in [*_flat(e.inputs), *_flat(e.outputs)])
        return dict(sorted({self.root.id: self.root, **{a.id: a for a in flat}}.items()))

    @property
    def makers(self) -> dict[int, Execution]:
        """The execution that made an artifact, by id of the artifact."""
        return {a.id: e for e in self.executions for a in _flat(e.outputs)}

    @property
    def pipeline(self) -> str | None:
        """The pipeline that made the artifact itself."""
        maker = self.makers.get(self.root.id)
        return None if maker is None else maker.pipeline


def trace(store: Store, root: Artifact) -> Lineage:
    """Follows an artifact back to its sources, base models included.

    Args:
        store: What ML Metadata knows.
        root: The artifact, such as that of a pushed version.

    Returns:
        Its lineage; of artifacts that came from a cache, the executions that really made them.
    """
    executions: dict[int, Execution] = {}
    seen, waiting = set(), [root]
    while waiting:
        artifact = waiting.pop()
        makers = () if artifact.id in seen else store.producers(artifact)
        seen.add(artifact.id)
        if makers and makers[0].id not in executions:
            executions[makers[0].id] = makers[0]
            waiting.extend(_flat(makers[0].inputs))
    ordered = sorted(executions.values(), key=lambda e: (e.started, e.id))
    facts = {a.id: _facts(a) for e in ordered for a in _flat(e.outputs)}
    return Lineage(
        root=root,
        executions=tuple(ordered),
        versions={pushed.model.id: pushed.version for pushed in store.pushed_models()},
        facts={key: known for key, known in facts.items() if known},
    )


def to_json(lineage: Lineage) -> dict[str, Any]:
    """A lineage as plain data.

    Returns:
        `artifact`, the id of the one that is traced; `executions`, with the ids of what they read
        and made by key; `artifacts`.
    """
    return {
        "artifact": lineage.root.id,
        "executions": [
            dataclasses.asdict(e)
            | {
                "started": e.started.isoformat(),
                "inputs": {key: [a.id for a in several] for key, several in e.inputs.items()},
                "outputs": {key: [a.id for a in several] for key, several in e.outputs.items()},
            }
            for e in lineage.executions
        ],
        "artifacts": [
            dataclasses.asdict(a)
            | {"created": a.created.isoformat()}
            | ({"version": lineage.versions[a.id]} if a.id in lineage.versions else {})
            | ({"facts": lineage.facts[a.id]} if a.id in lineage.facts else {})
            for a in lineage.artifacts.values()
        ],
    }


def to_text(lineage: Lineage) -> str:
    """A lineage for reading: a tree of what the last pipeline did, then older ones in short."""
    shown: set[int] = set()
    tree = _artifact_node(lineage, lineage.root, "", shown)
    lines = [tree.text, *_render(tree, "")]
    for pipeline in dict.fromkeys(e.pipeline for e in reversed(lineage.executions)):
        if pipeline == lineage.pipeline:
            continue
        lines += ["", f"made before, by {pipeline}:"]
        for execution in lineage.executions:
            if execution.pipeline == pipeline:
                lines += _in_short(lineage, execution)
    return "\n".join(lines) + "\n"


def label(lineage: Lineage, artifact: Artifact) -> str:
    """Type and id, and the version that a model was pushed as."""
    version = lineage.versions.get(artifact.id)
    return f"{artifact.type} {artifact.id}" + (f" (version {version})" if version else "")


class _Node(NamedTuple):
    text: str
    details: list[str]
    children: list["_Node"]


def _artifact_node(lineage: Lineage, artifact: Artifact, key: str, shown: set[int]) -> _Node:
    head = f"{key}: {label(lineage, artifact)}" if key else label(lineage, artifact)
    if artifact.id in shown:
        return _Node(f"{head}, as above", [], [])
    shown.add(artifact.id)
    maker = lineage.makers.get(artifact.id)
    if maker is not None and maker.pipeline != lineage.pipeline:
        return _Node(f"{head} of {maker.pipeline}, {_when(artifact)}", [artifact.uri], [])
    details = [artifact.uri, *_details(lineage, artifact)]
    children = [] if maker is None else [_execution_node(lineage, maker, artifact, shown)]
    return _Node(f"{head}, {_when(artifact)}", details, children)


def _execution_node(
    lineage: Lineage, execution: Execution, made: Artifact, shown: set[int]
) -> _Node:
    head = f"{execution.component} {execution.id}"
    if -execution.id in shown:
        return _Node(f"{head}, as above", [], [])
    shown.add(-execution.id)  # ids of executions and of artifacts are counted apart
    children = [
        _artifact_node(lineage, artifact, name, shown)
        for name, several in execution.inputs.items()
        for artifact in several
    ]
    for name, several in execution.outputs.items():
        for artifact in several:
            if artifact.id != made.id and artifact.id not in shown:
                shown.add(artifact.id)
                details = [artifact.uri, *_details(lineage, artifact)]
                children.append(
                    _Node(f"also made: {name}: {label(lineage, artifact)}", details, [])
                )
    seconds = "" if execution.seconds is None else f", {execution.seconds:.1f} s"
    said = made.properties.items()
    settings = {
        key: value for key, value in execution.properties.items() if (key, value) not in said
    }
    return _Node(f"{head}{seconds}", _wrapped(_words(settings)), children)


def _render(node: _Node, prefix: str) -> Iterator[str]:
    for line in node.details:
        yield f"{prefix}{'│' if node.children else ' '}    {line}".rstrip()
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        yield f"{prefix}{'└─' if last else '├─'} {child.text}"
        yield from _render(child, f"{prefix}{'   ' if last else '│  '}")


def _in_short(lineage: Lineage, execution: Execution) -> Iterator[str]:
    read = ", ".join(label(lineage, a) for a in _flat(execution.inputs))
    made = _flat(execution.outputs)
    names = ", ".join(label(lineage, a) for a in made)
    yield f"  {execution.component} {execution.id}: {read or 'files'} -> {names}"
    for artifact in made:
        if artifact.type in ("Examples", "Model"):
            yield from (f"      {line}" for line in _details(lineage, artifact))


def _details(lineage: Lineage, artifact: Artifact) -> list[str]:
    return _wrapped(_words(artifact.properties)) + _wrapped(
        _words(lineage.facts.get(artifact.id, {}))
    )


def _words(properties: Mapping[str, Any]) -> list[str]:
    """`name=value` of what says something; parts of nested values, and lines, one by one."""
    words = (
        word
        for name, value in properties.items()
        if name not in BOOKKEEPING and not name.startswith("__")
        for line in _flatten(name, value)
        for word in line.splitlines()
    )
    return [textwrap.shorten(word, LONGEST, placeholder=" ...") for word in words]


def _wrapped(words: list[str]) -> list[str]:
    """As many words to a line as there is room for; none is broken."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(word) + 2 <= WIDTH:
            lines[-1] += f", {word}"
        else:
            lines.append(word)
    return lines


def _flatten(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(f"{name}.{key}", part)
    elif isinstance(value, float):
        yield f"{name}={value:g}"
    elif isinstance(value, list):
        yield f"{name}=[{', '.join(map(str, value))}]"
    elif value not in ("", "null", None):
        yield f"{name}={value}"


def _flat(artifacts: Artifacts) -> list[Artifact]:
    return [artifact for several in artifacts.values() for artifact in several]


def _when(artifact: Artifact) -> str:
    return f"{artifact.created:%Y-%m-%d %H:%M:%S}"


def _facts(artifact: Artifact) -> dict[str, Any]:
    if artifact.type == "Model":
        return _training(artifact)
    return _metrics(artifact) if artifact.type == "ModelEvaluation" else {}


def _training(model: Artifact) -> dict[str, Any]:
    """The settings of a training and the metrics of its best epoch, where the model holds them."""
    text = _read(os.path.join(model.uri, TRAINING_FILE))
    if text is None:
        return {}
    training = json.loads(text)
    epochs = training.pop("epochs")
    best = training["best_epoch"]
    return training | {"best_epoch": best + 1, "epochs": len(epochs), "metrics": epochs[best]}


def _metrics(evaluation: Artifact) -> dict[str, Any]:
    """The metrics of the Evaluator on all test rows, by task; not those of the baseline."""
    text = _read(os.path.join(evaluation.uri, "eval_config.json"))
    if text is None:
        return {}
    import tensorflow_model_analysis as tfma

    specs = json.loads(text)["evalConfig"]["modelSpecs"]
    baselines = [spec["name"] for spec in specs if spec.get("isBaseline")]
    result: dict[str, Any] = {}
    for metrics in tfma.load_metrics(evaluation.uri):
        if metrics.slice_key.single_slice_keys:
            continue
        for pair in metrics.metric_keys_and_values:
            ours = pair.key.model_name not in baselines and not pair.key.is_diff
            if ours and pair.value.WhichOneof("type") == "double_value":
                value = pair.value.double_value.value
                result.setdefault(pair.key.output_name, {})[pair.key.name] = value
    return {task: dict(sorted(result[task].items())) for task in sorted(result)}


def _read(uri: str) -> str | None:
    from tfx.dsl.io import fileio

    if not fileio.exists(uri) or fileio.isdir(uri):
        return None
    with fileio.open(uri) as file:
        return str(file.read())
