"""The walk over every order of answers and faults of a push, and over races for one list."""
