"""The model families: importing this package registers all of them."""

from zoo.models import ciresan, ensemble, gan, lenet5, lstm, mlp, network3, simard, ssgan, unet

__all__ = ["ciresan", "ensemble", "gan", "lenet5", "lstm", "mlp", "network3", "simard", "ssgan", "unet"]
