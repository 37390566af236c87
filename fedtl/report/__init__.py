"""From a run's result to a page one can read offline, and to a table in the terminal."""
