"""Regression on a table: suspicious targets where there are no classes."""
