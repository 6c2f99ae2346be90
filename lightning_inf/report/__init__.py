"""Files for people and machines: ``tables`` writes Parquet, ``summary`` JSON, ``html`` the page, ``terminal`` prints.

The page and the terminal read only what ``tables`` and ``summary`` wrote.
"""
