"""Errors a user can act on. Each message says what was given, what was expected and what to do.

The command line prints them as one line and exits with code 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class RopewalkError(Exception):
    """Something the user gave can't be used as it is."""


class FactorsError(RopewalkError, ValueError):
    """Scaling factors, control points or a factors file that can't be applied."""


class DataError(RopewalkError, ValueError):
    """A task's data or a prompt that can't be used: names the file, line or example."""


class UnsupportedModelError(RopewalkError):
    """The model's rotary position can't be scaled layer by layer; the message says what was met."""


class PrerequisiteError(RopewalkError):
    """Something has to be installed or downloaded first; the message says what."""


class StudyError(RopewalkError):
    """A run directory that can't be continued with the settings given."""
