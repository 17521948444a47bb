"""What type checkers must see; checked by `make types`, never run."""
