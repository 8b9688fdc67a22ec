"""Print the reference of all config keys as Markdown: `python -m wpl_d2.config`."""

from . import reference

if __name__ == "__main__":
    print(reference(), end="")
