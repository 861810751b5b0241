"""ciod core: class-incremental object detection without the old training data."""

__version__ = "0.2.0.dev0"
