"""What the stamps are for: reading them to train and test lens finders."""
