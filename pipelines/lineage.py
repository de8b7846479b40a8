"""What a model was made from: every data set, graph, base model, setting and check on its way."""

import dataclasses
import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipelines.metadata import Artifact, Artifacts, Execution, Store

TRAINING_FILE = "Format-Serving/assets.extra/training.json"
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
LONGEST = 200  # of a property in the text; JSON has it whole
WIDTH = 84


@dataclass(frozen=True)
class Lineage:
    """All that an artifact was made from.

    Args:
        root: The artifact.
        executions: What made it and everything on the way to it, the oldest first.
        versions: The version that a Model was pushed as, by the id of the artifact.
        trainings: How a Model was trained, by the id of the artifact.
    """

    root: Artifact
    executions: tuple[Execution, ...]
    versions: Mapping[int, int]
    trainings: Mapping[int, Mapping[str, Any]]

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
    models = [a for e in ordered for a in _flat(e.outputs) if a.type == "Model"]
    found = {model.id: _training(model) for model in models}
    return Lineage(
        root=root,
        executions=tuple(ordered),
        versions={pushed.model.id: pushed.version for pushed in store.pushed_models()},
        trainings={key: training for key, training in found.items() if training},
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
            | ({"training": lineage.trainings[a.id]} if a.id in lineage.trainings else {})
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


def main_properties(properties: Mapping[str, Any]) -> list[str]:
    """`name=value` of the properties that say something, parts of nested ones one by one."""
    result = []
    for name, value in properties.items():
        if name not in BOOKKEEPING and not name.startswith("__"):
            text = ", ".join(_flatten(name, value))
            if text:
                result.append(textwrap.shorten(text, LONGEST, placeholder=" ..."))
    return result


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
    return _Node(f"{head}{seconds}", _wrapped(main_properties(execution.properties)), children)


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
    training = lineage.trainings.get(artifact.id, {})
    return _wrapped(main_properties(artifact.properties)) + _wrapped(list(_flatten("", training)))


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
            yield from _flatten(f"{name}.{key}" if name else key, part)
    elif isinstance(value, float):
        yield f"{name}={value:g}"
    elif isinstance(value, list):
        yield f"{name}=[{', '.join(map(str, value))}]"
    elif value not in ("", None):
        yield f"{name}={value}"


def _flat(artifacts: Artifacts) -> list[Artifact]:
    return [artifact for several in artifacts.values() for artifact in several]


def _when(artifact: Artifact) -> str:
    return f"{artifact.created:%Y-%m-%d %H:%M:%S}"


def _training(model: Artifact) -> dict[str, Any]:
    """The settings of a training and the metrics of its best epoch, where the model holds them."""
    text = _read(os.path.join(model.uri, TRAINING_FILE))
    if text is None:
        return {}
    training = json.loads(text)
    epochs = training.pop("epochs")
    best = training["best_epoch"]
    return training | {"best_epoch": best + 1, "epochs": len(epochs), "metrics": epochs[best]}


def _read(uri: str) -> str | None:
    if "://" not in uri:
        return open(uri).read() if os.path.isfile(uri) else None
    from tfx.dsl.io import fileio

    return str(fileio.open(uri).read()) if fileio.exists(uri) else None
