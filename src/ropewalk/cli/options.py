"""The words of the command line, the same for every verb, and what they become."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from ropewalk import files
from ropewalk.errors import RopewalkError
from ropewalk.splits import Split
from ropewalk.tasks.base import Example, Task, TaskOptions

if TYPE_CHECKING:
    from ropewalk.evaluate import Evaluator
    from ropewalk.objectives import Measure
    from ropewalk.rope_override import RopeOverride

SHORT_RECORDS = 50  # of the task's short form, which is an extra on top of the test

# The panels of --help, in this order.
MODEL, TASK, SEARCH, RUN = (
    Group(name, sort_key=place) for place, name in enumerate(("Model", "Task", "Search", "Run"))
)


def described(text: str, **options: Any) -> Parameter:
    """A parameter with its help text."""
    return Parameter(help=text, **options)


def flag(text: str, **options: Any) -> Parameter:
    """A parameter that is said or not, with its help text."""
    return Parameter(help=text, negative="", show_default=False, **options)


def check_json(_: Any, path: Path | None) -> None:
    """An option that follows --json is no file."""
    if path is not None and str(path).startswith("-") and str(path) != "-":
        raise ValueError("expected a file, or - for standard output")


def whole(_: Any, tokens: Sequence[Any]) -> int:
    """A whole number; cyclopts itself would cut 8.5 down to 8."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"expected a whole number, got {tokens[0].value!r}") from None


def number(text: str, **options: Any) -> Parameter:
    """A parameter that is a whole number, with its help text."""
    return Parameter(help=text, converter=whole, **options)


# Words that several verbs have in common.
Keys = Annotated[int | None, number("kv: pairs in the JSON object. Default 75.")]
Positions = Annotated[
    str | None,
    described(
        "How many gold positions, or which, from 0: 5 or 0,18,37,56,74. Default: the task's choice.", metavar="LIST"
    ),
]
DataFile = Annotated[
    str | None,
    described("A file of records, also hf://datasets/OWNER/NAME/FILE. Default: they are generated.", metavar="FILE"),
]
OwnOptions = Annotated[
    tuple[str, ...],
    described(
        "An option of the task's own; may be given again.", negative="", show_default=False, metavar="NAME=VALUE"
    ),
]
ShortText = Annotated[
    str, described("Text that is to stay intact in short windows; builtin: Python's own manual.", metavar="FILE")
]
Seed = Annotated[int, number("Seed of generated records and of the search.")]
OutDir = Annotated[
    Path, described("Run directory; the same command continues what is there.", group=RUN, metavar="DIR")
]
ConfigFile = Annotated[
    Path | None,
    described("A TOML file with any of these options; the command line goes before it.", group=RUN, metavar="FILE"),
]
DryRun = Annotated[bool, flag("Only say what would run, how long and in how much memory.", group=RUN)]
Quiet = Annotated[bool, flag("No progress and no remarks: the result alone.", name=("--quiet", "-q"), group=RUN)]
SplitName = Annotated[Split, Parameter(help="Which records; all: of a file, where they are not split.", group=TASK)]


@Parameter(name="*", group=RUN)
@dataclass(frozen=True)
class Output:
    """Where the figures go, and how much is said. `ropewalk.cli.run` sees to both.

    A verb that has these options returns its figures, ready for JSON.
    """

    json: Annotated[
        Path | None,
        described(
            "Also write the figures as JSON to this file; -: print them in place of the tables.",
            allow_leading_hyphen=True,
            metavar="FILE",
            validator=check_json,
        ),
    ] = None
    quiet: Quiet = False

    @property
    def on_stdout(self) -> bool:
        """Whether standard output is for the figures alone."""
        return self.json is not None and str(self.json) == "-"

    def write(self, figures: Any) -> None:
        """The figures as asked for. Raises `DataError` if the file can't be written."""
        if self.on_stdout:
            sys.stdout.write(json.dumps(figures, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        elif self.json is not None:
            files.write_json(self.json, figures)


ModelName = Annotated[
    str, described("Checkpoint folder, hub id, .gguf file, or 'demo': SmolLM2-135M-Instruct.", metavar="MODEL")
]
NumberType = Annotated[
    str | None, described("bfloat16, float16 or float32. Default: what suits the device.", metavar="TYPE")
]
Device = Annotated[
    str | None, described("cpu, cuda, cuda:1, auto (spread). Default: a GPU if there is one.", metavar="WHERE")
]
TemplateSettings = Annotated[
    str | None, described("For the chat template, such as '{\"enable_thinking\": false}'.", metavar="JSON")
]
RopeScheme = Annotated[
    str | None,
    described(
        "Another base scheme, as linear:2, dynamic:2, yarn:4 (,original=TOKENS), default. Default: the model's own.",
        group=MODEL,
        metavar="SCHEME",
    ),
]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded and asked."""

    model: ModelName
    dtype: NumberType = None
    device: Device = None
    rope: RopeScheme = None
    chat_template: Annotated[
        bool, described("Ask by the model's chat template, or with the bare completion prompt.")
    ] = True
    chat_template_kwargs: TemplateSettings = None
    overflow: Annotated[
        Literal["error", "skip"], described("Prompts over the model's limit: an error, or their records are left out.")
    ] = "error"
    generate: Annotated[
        bool | None, described("Score answers that are really generated. Default: if the task's metric is so.")
    ] = None
    trust_remote_code: Annotated[bool, flag("Run code that the checkpoint brings.")] = False
    any_model: Annotated[bool, flag("Apply factors that were made for another model or rope scheme.")] = False
    chat_template_file: Annotated[
        Path | None, described("A chat template (Jinja) in place of the tokenizer's own, or of none.", metavar="FILE")
    ] = None

    def load(self) -> tuple[Any, Any]:
        """Model and tokenizer, with a line on standard error while it takes."""
        from ropewalk.checkpoint import load_pretrained
        from ropewalk.cli.console import say, working
        from ropewalk.demo import demo_model
        from ropewalk.rope_override import ROPE_OVERRIDE

        rope, path = self.scheme(), demo_model() if self.model == "demo" else self.model
        with working(f"Loading {self.model}"):
            loaded = load_pretrained(
                str(path),
                dtype=self.dtype,
                device=self.device,
                trust_remote_code=self.trust_remote_code,
                any_model=self.any_model,
                rope=rope,
            )
        if rope is not None:
            say(f"Base rope scheme {getattr(loaded[0], ROPE_OVERRIDE)}.")
        return loaded[0], self.dressed(loaded[1])

    def dressed(self, tokenizer: Any) -> Any:
        """The tokenizer with the template of `--chat-template-file`, if one was given. Raises `RopewalkError`."""
        from ropewalk.prompts import use_chat_template

        if self.chat_template_file is None:
            return tokenizer
        if not self.chat_template:
            raise RopewalkError(f"--chat-template-file {self.chat_template_file} and --no-chat-template: give one")
        use_chat_template(tokenizer, self.chat_template_file, self.template_kwargs())
        return tokenizer

    def scheme(self) -> RopeOverride | None:
        """`--rope`, checked; None: the model's own. Raises `RopewalkError`."""
        from ropewalk.rope_override import RopeOverride

        return None if self.rope is None else RopeOverride.parse(self.rope)

    def load_tokenizer(self) -> Any:
        """The tokenizer alone: no weights."""
        self.scheme()
        from ropewalk.checkpoint import load_tokenizer
        from ropewalk.demo import demo_model

        path = demo_model() if self.model == "demo" else self.model
        return self.dressed(load_tokenizer(str(path), trust_remote_code=self.trust_remote_code))

    def template_kwargs(self) -> dict[str, Any]:
        """`--chat-template-kwargs` as a dict."""
        if self.chat_template_kwargs is None:
            return {}
        try:
            content = json.loads(self.chat_template_kwargs)
        except json.JSONDecodeError as error:
            raise RopewalkError(f"--chat-template-kwargs: not JSON ({error}): {self.chat_template_kwargs}") from None
        if not isinstance(content, dict):
            raise RopewalkError(f"--chat-template-kwargs: expected a JSON object, got {self.chat_template_kwargs}")
        return content

    def evaluator(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        split: Split,
        *,
        search_by: Measure | None = None,
        candidates: int = 1,
        own_loop: bool = True,
        asked: Callable[[Example], Example] = lambda example: example,
    ) -> Evaluator:
        """The loaded model with the task's examples of a split.

        search_by: what candidates are chosen by. Likelihoods need no generated answers, so a search by them makes none.
        candidates: how many will be scored. own_loop: see `Evaluator`. asked: the example as a method asks it.
        """
        examples = [asked(example) for example in task.examples(split)]
        return self._evaluator(model, tokenizer, task, examples, search_by, candidates, own_loop)

    def short_evaluator(self, model: Any, tokenizer: Any, task: Task, split: Split) -> Evaluator | None:
        """The same on the first records of the task's short form; None if it has no such, or too few records."""
        short = task.short()
        if short is None:
            return None
        examples = short.examples(split)
        records = list(dict.fromkeys(example.record for example in examples))[:SHORT_RECORDS]
        kept = [example for example in examples if example.record in records]
        return self._evaluator(model, tokenizer, short, kept) if len(records) > 1 else None

    def _evaluator(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        examples: Sequence[Example],
        search_by: Measure | None = None,
        candidates: int = 1,
        own_loop: bool = True,
    ) -> Evaluator:
        from ropewalk.evaluate import Evaluator

        generate = task.metric.generated if self.generate is None else self.generate
        return Evaluator(
            model,
            tokenizer,
            task,
            examples,
            chat_template=self.chat_template,
            chat_template_kwargs=self.template_kwargs(),
            overflow=self.overflow,
            generate=generate and search_by != "likelihood",
            own_loop=own_loop,
            candidates=candidates,
        )


@Parameter(name="*", group=TASK)
@dataclass(frozen=True)
class TaskChoice:
    """Which prompts."""

    task: Annotated[str, described("What the prompts ask for: kv, mdqa, needle, …", metavar="NAME")] = "kv"
    keys: Keys = None
    positions: Positions = None
    data: DataFile = None
    option: OwnOptions = ()
    limit: Annotated[int | None, number("Records, each at every position. Default: the task's, mostly 100.")] = None
    seed: Annotated[int, number("Seed of generated records.")] = 0

    def make(self, limit: int | None = None) -> Task:
        """The task, with another number of records if given."""
        from ropewalk.tasks import make_task

        limit = self.limit if limit is None else limit
        positions = None if self.positions is None else parse_positions(self.positions)
        options = TaskOptions(positions, self.keys, self.data, limit, self.seed, parse_task_options(self.option))
        made = make_task(self.task, options)
        made.settings()  # reads the data: a file that is not there is said before a model is loaded
        return made


def parse_task_options(given: Sequence[str]) -> dict[str, str]:
    """`--option NAME=VALUE`, each name once, as a dict of texts."""
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RopewalkError(f"--option {text}: expected NAME=VALUE")
        if name in options:
            raise RopewalkError(f"--option {name} was given twice: {options[name]!r} and {value!r}")
        options[name] = value
    return options


def parse_positions(text: str) -> int | tuple[int, ...]:
    """A count ("5") or a list of 0-based positions ("0,18,37"); a list of one position ends in a comma ("3,").

    Where a comma has another meaning, "+" may stand between them.
    """
    listed = text.replace("+", ",")
    try:
        numbers = tuple(int(part) for part in listed.split(",") if part.strip())
    except ValueError:
        raise RopewalkError(f"--positions {text!r}: expected a count (5) or 0-based positions (0,18,37)") from None
    if not numbers:
        raise RopewalkError(f"--positions {text!r}: expected a count (5) or 0-based positions (0,18,37)")
    return numbers if "," in listed else numbers[0]
