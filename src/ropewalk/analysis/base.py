"""The contract of every analysis: a question, the records that answer it, a sentence with an interval, figures.

    analysis = make_analysis("layers", factors="0.9,1.1")
    document = perform(analysis, subject, Path("runs/layers"))
    print(document["sentence"])

`records` computes, `answer` and `panels` read what it found and nothing else, so a figure can be drawn again from
analysis.json alone. What was scored is kept in the folder: the same command again goes on where it was stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ropewalk import files
from ropewalk.analysis.parts.kept import Kept
from ropewalk.errors import DataError, StudyError
from ropewalk.events import OnEvent, Scored, Stage
from ropewalk.factors import ScalingFactors
from ropewalk.locks import held
from ropewalk.options import parse_options
from ropewalk.results import TaskResult

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator
    from ropewalk.report.panel import Panel

SCHEMA = "ropewalk.analysis/1"
TOGETHER = 4  # arms that are scored together, for they share layers, and kept when they are done: a kill loses these

Json = dict[str, Any]
Arms = Mapping[str, ScalingFactors | None]  # by name; None is the model without factors


@dataclass(frozen=True)
class Subject:
    """What is analysed, with everything that is needed to score.

    evaluators: by the task's name. factors: those given, by name. files: those given, of an analysis without a model.
    any_model: factors may be another model's. kept: what was computed before; `perform` puts the folder's there.
    """

    model: Any = None
    tokenizer: Any = None
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    factors: Mapping[str, ScalingFactors] = field(default_factory=dict)
    files: Sequence[Path] = ()
    any_model: bool = False
    kept: Kept = field(default_factory=Kept)
    on_event: OnEvent = lambda event: None

    @property
    def evaluator(self) -> Evaluator:
        """The only task's, or the first one's."""
        return next(iter(self.evaluators.values()))

    @property
    def one_set(self) -> ScalingFactors:
        """The only factors that were given. Raises `DataError` for none or several."""
        if len(self.factors) != 1:
            raise DataError(f"{len(self.factors)} sets of factors were given, expected one: --factors FILE")
        return next(iter(self.factors.values()))

    @property
    def num_layers(self) -> int:
        """Decoder layers of the model."""
        from ropewalk.layers import decoder_layers

        return len(decoder_layers(self.model))

    @cached_property
    def rotary_layers(self) -> list[int]:
        """Indices of the layers that take a factor."""
        from ropewalk.patch import rotary_layers

        return rotary_layers(self.model)

    def only(self, layers: Iterable[int], factors: ScalingFactors | float) -> ScalingFactors:
        """These factors (or this one) in some layers, 1 in the others, null where there is no rotary position."""
        chosen = set(layers)
        values = [factors] * self.num_layers if isinstance(factors, float) else list(factors.values)
        return ScalingFactors(
            None if layer not in self.rotary_layers else values[layer] if layer in chosen else 1.0
            for layer in range(self.num_layers)
        )

    def score(self, arms: Arms, task: str | None = None, stage: str = "Arms") -> dict[str, TaskResult]:
        """Each arm's result on the same records (of a task, by default the only one). Arms of equal factors are scored
        once, and those that the folder has already are not scored again.
        """
        name = task or next(iter(self.evaluators))
        evaluator = self.evaluators[name]
        keys = {arm: {**self.settings_of(name), "arm": _values(factors)} for arm, factors in arms.items()}
        found = {arm: self.kept.find(key) for arm, key in keys.items()}
        missing = {str(keys[arm]["arm"]): arm for arm, value in found.items() if value is None}
        waiting = list(missing.values())
        if waiting:
            self.on_event(Stage(stage, len(waiting) * len(evaluator.examples)))
        for start in range(0, len(waiting), TOGETHER):
            chunk = waiting[start : start + TOGETHER]
            results = evaluator.score_many(
                [arms[arm] for arm in chunk], any_model=self.any_model, on_progress=self._scored
            )
            for arm, result in zip(chunk, results, strict=True):
                self.kept.keep(keys[arm], result.to_dict())
        return {arm: TaskResult.from_dict(found[arm] or self.kept.find(keys[arm])) for arm in arms}

    def settings_of(self, task: str) -> Json:
        """All that a score depends on but the factors: model, precision and examples of a task."""
        return {**self._model_settings, "task": self._examples[task]}

    @cached_property
    def settings(self) -> Json:
        """All of it, as JSON."""
        return {
            **(self._model_settings if self.model is not None else {}),
            "tasks": self._examples,
            "factors": {name: factors.to_dict() for name, factors in self.factors.items()},
            "files": [str(path) for path in self.files],
        }

    @cached_property
    def _examples(self) -> Json:
        from ropewalk.plan import examples_settings

        return {
            name: {**examples_settings(evaluator), "generated": evaluator.generated}
            for name, evaluator in self.evaluators.items()
        }

    @cached_property
    def _model_settings(self) -> Json:
        from ropewalk.identity import base_scheme, model_identity
        from ropewalk.provenance import provenance

        dtype = provenance(self.model)["dtype"]
        return {"model": model_identity(self.model), "base": base_scheme(self.model), "dtype": dtype}

    def _scored(self, prompts: int) -> None:
        self.on_event(Scored(prompts))


class Analysis(ABC):
    """One question with its options.

    A module in `ropewalk.analysis` names its class `ANALYSIS`; the registry finds it by file name. name: the module's,
    with hyphens. question: a line, as lists show it. example: a command that asks it. form: what the command takes: a
    model with one task, a model with several tasks, or files of results and no model. own_loop: False for one that
    changes what the engine's layer loop would not see: its evaluators use `model.forward`. OPTIONS: a frozen dataclass,
    each field made by `ropewalk.options.option`. Loads no torch before `records` is called.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    example: ClassVar[str]
    form: ClassVar[Literal["task", "tasks", "files"]] = "task"
    own_loop: ClassVar[bool] = True
    OPTIONS: ClassVar[type]

    def __init__(self, **options: Any) -> None:
        self.options: Any = parse_options(self.OPTIONS, f"analysis {self.name}", options)
        self.check()

    def check(self) -> None:  # noqa: B027 - an analysis without conditions has nothing to check
        """Raise `DataError` for options that can't be meant."""

    @abstractmethod
    def records(self, subject: Subject) -> Json:
        """What was found, as JSON: figures with intervals. Raises `RopewalkError` for a subject that can't answer."""

    @abstractmethod
    def answer(self, records: Json) -> str:
        """One sentence that answers the question, with an interval."""

    def remarks(self, records: Json) -> list[str]:
        """Further sentences that a reader needs; none by default."""
        return []

    @abstractmethod
    def panels(self, records: Json) -> list[Panel]:
        """The figures, each with its numbers as a table. Reads the records alone."""

    def settings(self) -> Json:
        """All that determines the analysis but its subject, as JSON."""
        return {"analysis": self.name, **asdict(self.options)}


def perform(analysis: Analysis, subject: Subject, out: Path, *, command: str | None = None) -> Json:
    """Analyse and write `out`: analysis.json, report.html, and the figures as SVG and PNG. Returns what the JSON holds.

    Raises `StudyError` if `out` holds another analysis, or another process is at it.
    """
    from ropewalk.report.analysis_page import analysis_html

    with held(out, "analysis.lock", "at this analysis"):
        check_folder(out, analysis)
        found = analysis.records(replace(subject, kept=Kept(out / "kept")))
        document: Json = {
            "schema": SCHEMA,
            "sentence": analysis.answer(found),
            "remarks": analysis.remarks(found),
            "question": analysis.question,
            "settings": {**analysis.settings(), **subject.settings},
            "records": found,
            "provenance": {"command": command, **_provenance(subject)},
        }
        files.write_json(out / "analysis.json", document)
        panels = analysis.panels(found)
        for panel in panels:
            panel.save(out / "figures", document["sentence"])
        files.write_text(out / "report.html", analysis_html(document, panels))
    return document


def check_folder(out: Path, analysis: Analysis) -> None:
    """Another analysis' answer is not overwritten; one to other settings is, for what was scored is kept."""
    target = out / "analysis.json"
    if not target.exists():
        return
    document = files.read_json(target)
    name = document.get("settings", {}).get("analysis") if isinstance(document, dict) else None
    if name != analysis.name:
        raise StudyError(f"{target}: holds the answer of another analysis ({name}); use another --out")


def _provenance(subject: Subject) -> Json:
    if subject.model is None:
        return {}
    from ropewalk.provenance import provenance

    return provenance(subject.model)


def _values(factors: ScalingFactors | None) -> list[float | None] | None:
    """What tells an arm from others: its factors; None for the model as it is."""
    return None if factors is None or factors.is_identity else list(factors.values)
