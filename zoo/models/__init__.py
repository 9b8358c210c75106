"""The model families: importing this package registers all of them."""

from zoo.models import ciresan, gan, lenet5, lstm, mlp, network3, simard, unet

__all__ = ["ciresan", "gan", "lenet5", "lstm", "mlp", "network3", "simard", "unet"]
