"""Uploads an export to the model hub: its own files and nothing else that lies in the folder."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ropewalk.errors import DataError, PrerequisiteError, RopewalkError
from ropewalk.export.parts.manifest import FACTORS, MANIFEST, read_manifest
from ropewalk.factors import ScalingFactors

AGAIN = "the same command again continues"


@dataclass(frozen=True)
class Parcel:
    """What would be sent. target: the kind of export. files: size in bytes of each, by its name in `folder`."""

    folder: Path
    target: str
    files: dict[str, int]


def parcel(folder: Path) -> Parcel:
    """The files of an export. Raises `DataError` for a folder that is none, or of which files are missing."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: {'is a file' if folder.exists() else 'no such folder'}, expected an export's folder"
        )
    manifest = read_manifest(folder)
    if manifest is not None:
        expected, target = {**manifest["files"], MANIFEST: None}, str(manifest.get("target"))
    elif _holds_factors_alone(folder):
        expected, target = {FACTORS: None}, "factors"
    else:
        raise DataError(
            f"{folder}: is no export, and nothing else is uploaded; make one with: ropewalk export --model {folder} "
            "--out NEW_FOLDER"
        )
    sizes = {}
    for name, size in expected.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise DataError(
                f"{path}: {'is a link' if path.is_symlink() else 'is missing'}; export again to a new folder"
            )
        sizes[name] = path.stat().st_size
        if size is not None and path.suffix == ".safetensors" and sizes[name] != size:
            raise DataError(f"{path}: has {sizes[name]} bytes, the export had {size}; export again to a new folder")
    return Parcel(folder, target, sizes)


def _holds_factors_alone(folder: Path) -> bool:
    """Whether the folder is an export of the factors: the one file, and it reads."""
    if not (folder / FACTORS).is_file() or [path.name for path in folder.iterdir()] != [FACTORS]:
        return False
    ScalingFactors.load(folder / FACTORS)
    return True


def send(sent: Parcel, repo_id: str, *, private: bool, token: str | None) -> tuple[str, str]:
    """Create the repository if need be and upload the files; returns its id and the commit's address.

    token: None means what huggingface_hub finds: HF_TOKEN, or that of `hf auth login`. What the hub has already is not
    sent again. Raises `RopewalkError` in one line for all that the hub or the network answers.
    """
    from huggingface_hub import HfApi

    with _one_line(repo_id):
        api = HfApi(token=token)
        created = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(created).private:
            raise RopewalkError(f"{created}: exists already and is public; leave out --private, or give another name")
        commit = api.upload_folder(
            repo_id=created,
            folder_path=sent.folder,
            allow_patterns=[glob.escape(name) for name in sent.files],
            commit_message=f"Upload a ropewalk export ({sent.target})",
        )
        return created, str(commit.commit_url)


def check_repo_id(repo_id: str) -> None:
    """Raise `RopewalkError` unless it can be the name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        reason = str(error).splitlines()[0]
        raise RopewalkError(f"{repo_id!r}: expected OWNER/NAME as on the hub ({reason})") from None


@contextmanager
def _one_line(repo_id: str) -> Iterator[None]:
    """What huggingface_hub and the network raise, as one line that says what to do."""
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except RopewalkError:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {AGAIN}: what the hub has already is not sent again") from None
    except LocalTokenNotFoundError:
        raise PrerequisiteError(f"{repo_id}: {_NO_TOKEN}") from None
    except OfflineModeIsEnabled:
        raise PrerequisiteError(f"{repo_id}: the hub is switched off by HF_HUB_OFFLINE; unset it to upload") from None
    except Exception as error:
        explained = _explained(repo_id, error)
        if explained is None:
            raise
        raise explained from None


_NO_TOKEN = "the hub wants a token that may write: set HF_TOKEN, or log in with `hf auth login`"


def _explained(repo_id: str, error: BaseException) -> RopewalkError | None:
    """The error, or one that it was raised from, as far as it is the hub's or the network's."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            return _refused(repo_id, status, response, cause)
        if _is_network(cause):
            return PrerequisiteError(
                f"{repo_id}: the hub can't be reached ({_first_line(cause)}); check the network, {AGAIN}"
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _refused(repo_id: str, status: int, response: object, error: BaseException) -> RopewalkError:
    if status == 401:
        return PrerequisiteError(f"{repo_id}: not accepted (401): {_NO_TOKEN}")
    if status == 403:
        return PrerequisiteError(
            f"{repo_id}: your token may not write there (403): use one with the right to, or another OWNER"
        )
    if status == 404:
        return PrerequisiteError(f"{repo_id}: not found (404): no such OWNER, or your token may not see it")
    if status == 429 or status >= 500:
        return PrerequisiteError(f"{repo_id}: the hub is busy or has an error ({status}); later {AGAIN}")
    said = getattr(error, "server_message", None) or _first_line(error)
    return RopewalkError(f"{repo_id}: the hub refused ({status}): {str(said).splitlines()[0]}")


def _is_network(error: BaseException) -> bool:
    """Connections that fail or end: sockets' errors, and those of whichever httpx the hub's client uses."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or "TransportError" in names


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
