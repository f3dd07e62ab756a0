"""The seams: small protocols and the data that crosses them. torch is named for type checkers only."""
