"""Lightning Fabric as a type, and our arithmetic for it.

Fabric brings torchmetrics, SciPy and Matplotlib along, one to two seconds of start-up. What only
takes a `Fabric` that another function made therefore imports the name from here; the package itself
is loaded by `make_fabric` of `wsss_lab.train.devices`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_fabric import Fabric as Fabric
else:
    Fabric = Any
