"""A table of rows times draws on any data set: what weights are worth on it."""
