"""The catalog of data sets, the sources of their files, the prepared file; a user's drawings."""
