"""`ropewalk push`: upload an export to the model hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

from ropewalk.cli.options import RUN, Output, described, flag


def push(
    folder: Annotated[Path, described("What `ropewalk export` wrote, or `mend` as its model.")],
    repo_id: Annotated[str, described("Repository on the hub: OWNER/NAME. Created if need be.", metavar="REPO_ID")],
    /,
    *,
    private: Annotated[bool, flag("Create it as a private one.", group=RUN)] = False,
    token: Annotated[
        str | None,
        described("Access token. Better: HF_TOKEN, or `hf auth login`; neither is shown to others.", group=RUN),
    ] = None,
    dry_run: Annotated[bool, flag("List the files and their sizes; ask nobody.", group=RUN)] = False,
    output: Output | None = None,
) -> dict[str, Any]:
    """Upload an export to the model hub: its own files, and nothing else that lies in the folder."""
    from huggingface_hub.utils.logging import set_verbosity
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from ropewalk.cli import console
    from ropewalk.export.parts.upload import check_repo_id, parcel, send

    sent = parcel(folder)
    check_repo_id(repo_id)
    total, count = sum(sent.files.values()), len(sent.files)
    amount = f"{count} file{'s' if count > 1 else ''} of {_size(total)}"
    figures: dict[str, Any] = {"target": sent.target, "files": sent.files, "bytes": total, "private": private}
    if dry_run:
        console.say(f"{amount} would go to {repo_id}:")
        for name, size in sent.files.items():
            console.say(f"  {_size(size):>9}  {name}")
        return {**figures, "repo": repo_id, "commit": None}
    set_verbosity(logging.ERROR)  # it retries by itself; what it gives up on is said in a line
    if not console.is_live(console.errors()):  # bars that can't move, or that nobody wants
        disable_progress_bars()
    console.line(f"Uploading {amount} to {repo_id}")
    created, commit = send(sent, repo_id, private=private, token=token)
    console.say(f"{created} has all of it: {amount}.")
    console.write(f"{commit}\n")
    return {**figures, "repo": created, "commit": commit}


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
