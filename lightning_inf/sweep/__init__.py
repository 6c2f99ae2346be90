"""The training side: every sample measured by forward passes, in chunks that survive a kill.

``measurements`` says what can be asked, ``plan`` packs it into passes, ``backends`` are the ways to take a derivative,
``evaluate`` answers on one batch, ``ledger`` knows what is done, ``ranks`` lets processes wait for each other by files,
``run`` does the work.
"""
