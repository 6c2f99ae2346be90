"""What attribution costs, in bare forward sweeps over the training set: this package, its peers, and a plain loop."""
