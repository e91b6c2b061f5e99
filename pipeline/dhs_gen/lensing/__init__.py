"""Mass models, ray shooting and the renderer."""

__all__: list[str] = []
