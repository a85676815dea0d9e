"""`--config FILE`: every option of a command from a TOML file; what the command line says goes before it.

Done by hand: cyclopts' own way passes over a key that is named like a sub-command, as `data` is.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, get_origin

from cyclopts import App, Token
from cyclopts.argument import Argument, ArgumentCollection

from ropewalk.errors import RopewalkError

FLAG = "--config"
TABLES = "tasks"  # [[tasks]]: one a --task
Values = list[str]


def read_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what the command line left open from the file of `--config`, if the command has such and it is given."""
    known = {name.removeprefix("--"): argument for argument in arguments for name in _names(argument)}
    config = known.pop(FLAG.removeprefix("--"), None)
    if config is None or not config.tokens:
        return
    path = Path(config.tokens[-1].value)
    given = {_canonical(key): (key, value) for key, value in _load(path).items()}
    if TABLES in given and "task" in given:
        raise RopewalkError(f"{path}: has both task and [[{TABLES}]]; give the tasks in one of these ways")
    for name, (key, value) in given.items():
        argument = known.get("task" if name == TABLES else name)
        if argument is None:
            near = difflib.get_close_matches(name, [*known, TABLES], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; see ropewalk {' '.join(commands)} --help"
            raise RopewalkError(f"{path}: no option {key!r}{hint}")
        if argument.tokens:
            continue
        tables = _tables(path, value) if name == TABLES else None
        for index, text in enumerate(_texts(f"{path}: {key}", value, argument) if tables is None else tables):
            argument.append(Token(keyword=f"{path}: {key}", value=text, source=str(path), index=index))


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RopewalkError(f"{FLAG} {path}: no such file") from None
    except OSError as error:
        raise RopewalkError(f"{FLAG} {path}: can't be read ({error.strerror or error})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RopewalkError(f"{FLAG} {path}: not TOML ({error})") from None


def _names(argument: Argument) -> list[str]:
    """Its long names that are no negations."""
    return [name for name in argument.parameter.name or () if name.startswith("--")]


def _canonical(key: str) -> str:
    return key.replace("_", "-")


def _tables(path: Path, value: Any) -> Values:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise RopewalkError(f"{path}: {TABLES} is {value!r}, expected tables: [[{TABLES}]], then task = …, share = …")
    return [json.dumps(table) for table in value]


def _texts(where: str, value: Any, argument: Argument) -> Values:
    """A value as the words that would stand on the command line."""
    many = get_origin(argument.hint) is tuple
    if isinstance(value, dict):
        if many:
            return [f"{name}={_text(where, content)}" for name, content in value.items()]
        return [json.dumps(value)]  # --chat-template-kwargs
    if isinstance(value, list):
        words = [_text(where, content) for content in value]
        is_position = len(words) == 1 and "--positions" in _names(argument)  # a bare number would be a count
        return words if many else [",".join(words) + ("," if is_position else "")]
    return [_text(where, value)]


def _text(where: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_text(where, content) for content in value)
    if isinstance(value, str | int | float):
        return str(value)
    raise RopewalkError(f"{where}: {value!r} can't be an option's value; expected a text, a number, true or false")
