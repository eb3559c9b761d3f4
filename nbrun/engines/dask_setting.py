"""What must be the same on all workers of a Dask cluster.

The module imports little, because it is imported in the event loop of each worker.
"""

import platform
from typing import Any

from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.local_kernelspecs import installed_kernelspecs
from nbrun.version import __version__


def describe() -> dict[str, Any]:
    """Return the setting of a worker, without starting anything."""
    return packed_setting(installed_kernelspecs())


def packed_setting(kernelspecs: KernelSpecs) -> dict[str, Any]:
    """Return the setting of this process as an object that can be sent. Environments of kernels are left out."""
    specs = {name: [spec.display_name, spec.language] for name, spec in kernelspecs.specs.items()}
    return {"nbrun": __version__, "python": platform.python_version(), "default": kernelspecs.default, "kernels": specs}
