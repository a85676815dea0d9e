"""Which tasks were asked for: names that lm-eval knows, YAML files, folders of them. Read and checked, not yet run.

A YAML can bring Python along (`!function`). Nothing of a file runs before its checks here are passed, and files that
were not named, nor included by one that was, never run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.api.metrics  # fills the registry of metrics
import lm_eval.models  # before anything registers a model: it fills that registry, too  # noqa: F401
import yaml
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from ropewalk.errors import DataError, PrerequisiteError

YAML_ENDINGS = (".yaml", ".yml")
FUNCTION = re.compile(r"!function\s+([\w.]+)\.\w+")
NEAR = 3  # names to offer for one that is not known

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What lm-eval is to load. specs: names and files, each once. python: files of code that the YAML files run."""

    manager: TaskManager
    specs: tuple[str, ...]
    python: tuple[Path, ...]


def find_tasks(
    asked: Sequence[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    unsafe_code: bool = False,
) -> Found:
    """Find the tasks that were asked for, and check what can be checked without their data.

    asked: names, or paths of YAML files and folders; a path has a slash in it or ends in .yaml. metadata: handed to
    tasks that make their own data. trust_remote_code: let data sets and metrics bring code of their own. unsafe_code:
    let tasks run code that the model writes. Raises `RopewalkError` with one line.
    """
    names = [spec for spec in asked if not _is_path(spec)]
    paths = [Path(spec).expanduser() for spec in asked if _is_path(spec)]
    files, folders = _files(paths), [path for path in paths if path.is_dir()]
    configs = {file: read_config(file) for file in files}
    roots = _roots(configs, folders)
    groups = [file.parent for file, config in configs.items() if _is_group(config)]
    manager = _manager([*folders, *groups], names, configs, metadata)
    for name in names:
        _check_name(name, manager)
    # lm-eval finds the group of a file by its name only, a task by its path too, whatever else is called the same.
    given = [str(configs[file]["group"]) if _is_group(configs[file]) else str(file) for file in roots]
    specs = tuple(dict.fromkeys([*names, *given]))
    leaves = [leaf for spec in specs for leaf in _leaves_of_spec(spec, configs, manager)]
    for name, leaf in leaves:
        _check_leaf(name, leaf, trust_remote_code, unsafe_code)
    return Found(manager, specs, tuple(dict.fromkeys(code for file in files for code in _python_of(file))))


def read_config(file: Path) -> dict[str, Any]:
    """A task's YAML with what it includes; functions stay names. Raises `DataError` naming the file and the line."""
    try:
        config: dict[str, Any] = load_yaml(file, resolve_func=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DataError(f"{file}: not YAML ({place}{error.problem or error.context})") from None
    except yaml.YAMLError as error:
        raise DataError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    except FileNotFoundError as error:
        raise DataError(f"{file}: includes {error.filename}, which is not there") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: can't be read as a task ({error})") from None
    return config


def _is_path(spec: str) -> bool:
    return "/" in spec or spec.endswith(YAML_ENDINGS)


def _is_group(config: Config) -> bool:
    return "group" in config and "class" not in config


def _files(paths: Sequence[Path]) -> list[Path]:
    """The YAML files that were named, and all in the folders that were."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*.yaml") if "/." not in file.as_posix())
            if not inside:
                raise DataError(f"{path}: holds no task (*.yaml)")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file; a name that lm-eval knows is given without a slash or .yaml")
    return list(dict.fromkeys(found))


def _roots(configs: Mapping[Path, Config], folders: Sequence[Path]) -> list[Path]:
    """The files to run: in a folder those that name a task or group and are in no group there."""
    named: dict[str, Path] = {}
    for file, config in configs.items():
        name = config.get("group") or config.get("task")
        inside = any(folder in file.parents for folder in folders)
        if name is None and inside:
            continue  # a part that other files include
        if not isinstance(name, str):
            raise DataError(f"{file}: names no task; expected a key 'task' with its name")
        if name in named:
            raise DataError(f"{file}: its task {name!r} is also the name of {named[name]}; give it another")
        named[name] = file
    if not named and configs:
        raise DataError(f"{folders[0]}: holds no task; expected YAML files with a key 'task'")
    members = {member for config in configs.values() if _is_group(config) for member in _member_names(config)}
    return [file for name, file in named.items() if name not in members]


def _member_names(group: Config) -> Iterator[str]:
    for member in _members(group):
        if isinstance(member, str):
            yield member
        elif isinstance(member, Mapping):
            if "group" in member and isinstance(member.get("task"), list):
                yield from _member_names(member)
            elif isinstance(member.get("task"), str):
                yield str(member["task"])


def _members(group: Config) -> Sequence[Any]:
    members = group.get("task")
    return members if isinstance(members, list) else [] if members is None else [members]


def _manager(
    include: Sequence[Path], names: Sequence[str], configs: Mapping[Path, Config], metadata: Mapping[str, Any] | None
) -> TaskManager:
    """lm-eval's index: of the user's folders alone where that will do, for its own 14,000 files take a while."""
    own = {str(config.get("group") or config.get("task")) for config in configs.values()}
    borrowed = {member for config in configs.values() if _is_group(config) for member in _member_names(config)} - own
    paths = [str(path) for path in dict.fromkeys(include)]
    more = None if metadata is None else dict(metadata)
    return TaskManager(include_path=paths or None, include_defaults=bool(names or borrowed), metadata=more)


def _check_name(name: str, manager: TaskManager) -> None:
    if name in manager.task_index:
        return
    near = difflib.get_close_matches(name, manager.all_tasks, NEAR)
    meant = f"did you mean {', '.join(map(repr, near))}?" if near else "'lm-eval ls tasks' lists those it knows"
    where = f"; to run the YAML files of a folder, write ./{name}" if Path(name).is_dir() else ""
    raise DataError(f"task {name!r}: lm-eval knows none of this name; {meant}{where}")


def _leaves_of_spec(spec: str, configs: Mapping[Path, Config], manager: TaskManager) -> Iterator[tuple[str, Config]]:
    config = configs.get(Path(spec))
    if config is None:
        return _leaves(spec, manager, spec)
    return _leaves_of(str(config["task"]), config, manager)


def _leaves(name: str, manager: TaskManager, asker: str) -> Iterator[tuple[str, Config]]:
    """Every single task of a name, with its configuration as far as it is known. asker: who names it, for errors."""
    entry = manager.task_index.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, manager.all_tasks, NEAR)
        meant = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise DataError(f"{asker}: names the task {name!r}, which neither lm-eval nor a file beside it has{meant}")
    if entry.cfg is not None:
        yield from _leaves_of(name, entry.cfg, manager)
        return
    for tagged in sorted(entry.tags):  # a name for several tasks
        yield from _leaves(tagged, manager, name)


def _leaves_of(name: str, config: Config, manager: TaskManager) -> Iterator[tuple[str, Config]]:
    """The same of a configuration; in a group a member may be a name, or a name with settings of its own."""
    if not _is_group(config):
        yield name, config
        return
    for member in _members(config):
        if isinstance(member, str):
            yield from _leaves(member, manager, name)
        elif isinstance(member.get("task"), list):
            yield from _leaves_of(str(member.get("group", name)), {"group": name, **member}, manager)
        elif (named := member.get("task", member.get("group"))) in manager.task_index:
            yield from ((leaf, {**known, **member}) for leaf, known in _leaves(named, manager, name))
        else:
            yield f"{name}::{named}", member


def _check_leaf(name: str, config: Config, trust_remote_code: bool, unsafe_code: bool) -> None:
    if config.get("unsafe_code") and not unsafe_code:
        raise PrerequisiteError(
            f"task {name}: runs code that the model writes; where that may happen, say --confirm-run-unsafe-code"
        )
    if (config.get("dataset_kwargs") or {}).get("trust_remote_code") and not trust_remote_code:
        raise PrerequisiteError(
            f"task {name}: its data set may bring code of its own (trust_remote_code); read it, and if you trust "
            "it say --trust-remote-code"
        )
    if "class" in config:
        return
    if not config.get("dataset_path") and not config.get("custom_dataset"):
        raise DataError(f"task {name}: names no data; expected dataset_path: json with data_files, or a data set's id")
    if not config.get("test_split") and not config.get("validation_split"):
        raise DataError(f"task {name}: names no split to test on; expected test_split or validation_split")
    if not config.get("process_results"):
        _check_metrics(name, config, trust_remote_code)


def _check_metrics(name: str, config: Config, trust_remote_code: bool) -> None:
    for entry in config.get("metric_list") or []:
        metric = entry.get("metric") if isinstance(entry, Mapping) else None
        if not isinstance(metric, str):
            raise DataError(f"task {name}: an entry of its metric_list has no key 'metric'")
        is_own_function = "/" in metric
        is_known = metric in metric_registry and not entry.get("hf_evaluate")
        if is_known or is_own_function or trust_remote_code:
            continue
        near = difflib.get_close_matches(metric, list(metric_registry), 1)
        meant = f" (did you mean {near[0]!r}?)" if near and near[0] != metric else ""
        why = (
            "asks for the hub's"
            if entry.get("hf_evaluate")
            else f"is none of lm-eval's own{meant} and would be the hub's"
        )
        raise DataError(
            f"task {name}: its metric {metric!r} {why}, which is code to be downloaded; --trust-remote-code allows that"
        )


def _python_of(file: Path) -> Iterator[Path]:
    """The files of Python code beside a YAML that it, or what it includes, runs."""
    for module in FUNCTION.findall(file.read_text(encoding="utf-8")):
        code = file.parent / f"{module.replace('.', '/')}.py"
        if code.is_file():
            yield code
    includes = load_yaml(file, resolve_func=False, recursive=False).get("include") or []
    for name in [includes] if isinstance(includes, str) else includes:
        yield from _python_of(file.parent / name)
