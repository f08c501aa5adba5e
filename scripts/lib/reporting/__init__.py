"""Reads the finished runs and reports on them: tables, statistics, figures, and the page."""
