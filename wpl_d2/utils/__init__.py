"""What every package uses and no other library has."""
