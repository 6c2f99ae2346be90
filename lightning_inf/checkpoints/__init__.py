"""States of the model along its training: written while fitting, found and read afterwards.

``schedule`` says which epochs stay, ``capture`` writes them with the learning rate that was in force, ``checkpoint``
reads one, ``find`` collects those of a run, also of a run that never saw this package.
"""
