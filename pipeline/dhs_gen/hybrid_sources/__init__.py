"""Gen7: procedural source templates."""
