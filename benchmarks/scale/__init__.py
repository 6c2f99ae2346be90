"""Memory, time and files of an analysis as the data grow: 10^5, 10^6 and 10^7 items that are mapped from disk."""
