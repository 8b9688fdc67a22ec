"""`python -m wpl_d2.config` prints the reference of all config keys, in Markdown."""

from .reference import reference

print(reference())
