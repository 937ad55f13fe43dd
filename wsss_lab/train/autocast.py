"""Mixed precision of Lightning Fabric as our networks need it; imported where a Fabric is made."""

from typing import Any

from lightning_fabric.plugins import MixedPrecision


class Autocast(MixedPrecision):
    """Mixed precision that leaves batches as they are.

    Fabric's own rounds them, too, where several processes train: colours with 8 bits of precision,
    from which refinement and energy would be computed.
    """

    def convert_input(self, data: Any) -> Any:
        """As it is."""
        return data

    def convert_output(self, data: Any) -> Any:
        """As it is: losses are float32."""
        return data
