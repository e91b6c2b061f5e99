"""Mass models, ray shooting and the renderer."""
