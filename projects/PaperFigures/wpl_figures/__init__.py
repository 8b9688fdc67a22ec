"""The figures of the paper, drawn of one's own trainings."""
