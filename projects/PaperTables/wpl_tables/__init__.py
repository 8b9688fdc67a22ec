"""The paper's tables as commands: published figures, the runs that reproduce them, and what these gave."""
